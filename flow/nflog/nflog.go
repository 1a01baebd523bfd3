//go:build linux

package nflog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"github.com/prometheus/client_golang/prometheus"
	vnetlink "github.com/vishvananda/netlink"

	"github.com/netcurtain/netcurtain/flow"
)

// Config says which packets to read. Group, Logger and Registerer are needed.
type Config struct {
	// Group is the NFLOG group that the rules log to. Only one process on the
	// machine can have it.
	Group uint16
	// LAN names the interfaces whose packets carry a device's own hardware
	// address. A packet that came in elsewhere carries that of the next router
	// out there, and is handed on without. Empty trusts all.
	LAN        []string
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time // default time.Now
	// ReadBuffer is the kernel's buffer in octets; default 4 MiB.
	ReadBuffer int
	// Delay is how long the kernel may collect packets before it hands them
	// over, in hundredths of a second; default 10.
	Delay uint32
}

// Source reads one NFLOG group in the network namespace in which Run is called.
type Source struct {
	cfg       Config
	packets   prometheus.Counter
	gaps      prometheus.Counter
	malformed prometheus.Counter
}

// New checks cfg and starts nothing.
func New(cfg Config) (*Source, error) {
	if cfg.Group == 0 || cfg.Logger == nil || cfg.Registerer == nil {
		return nil, errors.New("nflog: a group from 1 to 65535, a logger and a metrics registerer are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.ReadBuffer <= 0 {
		cfg.ReadBuffer = 4 << 20
	}
	if cfg.Delay == 0 {
		cfg.Delay = 10
	}
	s := &Source{
		cfg: cfg,
		packets: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "netcurtain_nflog_packets_total", Help: "First packets of flows read from the kernel.",
		}),
		gaps: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "netcurtain_nflog_gaps_total", Help: "First packets of flows that were lost because we read too slowly.",
		}),
		malformed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "netcurtain_nflog_malformed_total", Help: "Packets whose headers could not be read.",
		}),
	}
	for _, c := range []prometheus.Collector{s.packets, s.gaps, s.malformed} {
		if err := cfg.Registerer.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics of nflog: %w", err)
		}
	}
	return s, nil
}

// Run calls fn for each packet until ctx ends. The packet's payload is only
// valid until fn returns. fn is called from one goroutine, and no more once
// Run has returned; what fn does not manage in time, the kernel drops, and
// that is counted.
func (s *Source) Run(ctx context.Context, fn func(flow.Packet)) error {
	conn, err := open(s.cfg.Group, s.cfg.Delay, s.cfg.ReadBuffer)
	if err != nil {
		return err
	}
	defer conn.Close()
	r := &receiver{source: s, fn: fn, lan: map[uint32]bool{}}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		msgs, err := conn.Receive()
		var op *netlink.OpError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &op) && (op.Temporary() || op.Timeout()):
			continue
		case err != nil:
			return fmt.Errorf("reading netfilter log group %d: %w", s.cfg.Group, err)
		}
		for _, m := range msgs {
			if m.Header.Type == typePacket {
				r.receive(m.Data)
			}
		}
	}
}

// receiver is one Run's state.
type receiver struct {
	source  *Source
	fn      func(flow.Packet)
	lan     map[uint32]bool // by interface index
	last    uint32          // sequence number
	started bool
}

func (r *receiver) receive(b []byte) {
	s := r.source
	s.packets.Inc()
	var l logged
	p := flow.Packet{At: s.cfg.Now()}
	if l.read(b) != nil {
		s.malformed.Inc()
		return
	}
	r.count(l)
	if !l.at.IsZero() {
		p.At = l.at
	}
	if len(l.mac) == len(p.MAC) && r.fromLAN(l.inDev) {
		p.MAC = [6]byte(l.mac)
	}
	if decode(l.payload, &p) != nil {
		s.malformed.Inc()
		return
	}
	r.fn(p)
}

// count adds what is missing between the last sequence number and this one.
func (r *receiver) count(l logged) {
	if !l.hasSeq {
		return
	}
	if missing := l.seq - r.last - 1; r.started && missing > 0 && missing < 1<<31 {
		r.source.gaps.Add(float64(missing))
	}
	r.last, r.started = l.seq, true
}

// fromLAN reports whether the interface with this index is one of the LAN's, or
// a port of one that is a bridge. Either may have come since Run began.
func (r *receiver) fromLAN(index uint32) bool {
	if len(r.source.cfg.LAN) == 0 || index == 0 {
		return len(r.source.cfg.LAN) == 0
	}
	is, known := r.lan[index]
	if !known {
		is, known = r.source.isLAN(int(index))
		if known {
			r.lan[index] = is
		}
	}
	return is
}

func (s *Source) isLAN(index int) (is, known bool) {
	i, err := vnetlink.LinkByIndex(index)
	if err != nil {
		return false, false
	}
	if slices.Contains(s.cfg.LAN, i.Attrs().Name) {
		return true, true
	}
	if i.Attrs().MasterIndex == 0 {
		return false, true
	}
	bridge, err := vnetlink.LinkByIndex(i.Attrs().MasterIndex)
	return err == nil && slices.Contains(s.cfg.LAN, bridge.Attrs().Name), err == nil
}
