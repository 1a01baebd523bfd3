//go:build linux

package nflog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	gonflog "github.com/florianl/go-nflog/v2"
	"github.com/mdlayher/netlink"
	"github.com/prometheus/client_golang/prometheus"

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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	nf, err := gonflog.Open(&gonflog.Config{
		Group: s.cfg.Group, Copymode: gonflog.CopyPacket, Flags: gonflog.FlagSeq, Timeout: s.cfg.Delay,
	})
	if err != nil {
		return fmt.Errorf("opening the netfilter log: %w", err)
	}
	defer nf.Close()
	if err := nf.Con.SetReadBuffer(s.cfg.ReadBuffer); err != nil {
		return fmt.Errorf("netfilter log: a buffer of %d octets: %w", s.cfg.ReadBuffer, err)
	}
	// Sequence numbers tell of losses; an error would only cost more packets.
	if err := nf.SetOption(netlink.NoENOBUFS, true); err != nil {
		return fmt.Errorf("netfilter log: %w", err)
	}
	r := &receiver{source: s, fn: fn, lan: map[uint32]bool{}}
	interfaces, err := net.Interfaces() // here, in the caller's network namespace
	if err != nil {
		return fmt.Errorf("netfilter log: listing interfaces: %w", err)
	}
	for _, i := range interfaces {
		r.lan[uint32(i.Index)] = slices.Contains(s.cfg.LAN, i.Name)
	}
	defer r.stop()
	failed := make(chan error, 1)
	err = nf.RegisterWithErrorFunc(ctx, r.receive, func(err error) int {
		var op *netlink.OpError
		if ctx.Err() != nil || errors.As(err, &op) && (op.Temporary() || op.Timeout()) {
			return 0
		}
		failed <- err
		return 1
	})
	if err != nil {
		return fmt.Errorf("netfilter log group %d, which only one process can have: %w", s.cfg.Group, err)
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return fmt.Errorf("reading netfilter log group %d: %w", s.cfg.Group, err)
	}
}

// receiver is one Run's state. The library's goroutine outlives its Close for
// a moment, hence the lock.
type receiver struct {
	source *Source
	fn     func(flow.Packet)
	lan    map[uint32]bool // by interface index

	mu      sync.Mutex
	stopped bool
	last    uint32 // sequence number
	started bool
}

func (r *receiver) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
}

func (r *receiver) receive(a gonflog.Attribute) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return 1
	}
	s := r.source
	s.packets.Inc()
	r.count(a.Seq)
	p := flow.Packet{At: s.cfg.Now()}
	if a.Timestamp != nil {
		p.At = *a.Timestamp
	}
	if a.HwAddr != nil && len(*a.HwAddr) == len(p.MAC) && r.fromLAN(a.InDev) {
		p.MAC = [6]byte(*a.HwAddr)
	}
	if a.Payload == nil || decode(*a.Payload, &p) != nil {
		s.malformed.Inc()
		return 0
	}
	r.fn(p)
	return 0
}

// count adds what is missing between the last sequence number and this one.
func (r *receiver) count(seq *uint32) {
	if seq == nil {
		return
	}
	if missing := *seq - r.last - 1; r.started && missing > 0 && missing < 1<<31 {
		r.source.gaps.Add(float64(missing))
	}
	r.last, r.started = *seq, true
}

// fromLAN reports whether the interface with this index is one of the LAN's,
// which may have come since Run began.
func (r *receiver) fromLAN(index *uint32) bool {
	if len(r.source.cfg.LAN) == 0 || index == nil {
		return len(r.source.cfg.LAN) == 0
	}
	is, known := r.lan[*index]
	if !known {
		if i, err := net.InterfaceByIndex(int(*index)); err == nil {
			is = slices.Contains(r.source.cfg.LAN, i.Name)
			r.lan[*index] = is
		}
	}
	return is
}
