//go:build linux

package conntrack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/netcurtain/netcurtain/flow"
)

// Config says how to read the kernel's table. Logger and Registerer are needed.
type Config struct {
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time // default time.Now
	// FS is the file system root, where the sysctls are read; default the machine's.
	FS fs.FS
	// ReadBuffer is the kernel's buffer for events in octets; default 8 MiB,
	// which held 15,000 new flows a second on one slow core.
	ReadBuffer int
}

// Table is the connection table of the network namespace in which its methods
// are called. The methods are safe for concurrent use.
type Table struct {
	cfg       Config
	events    prometheus.Counter
	overflows prometheus.Counter
	malformed prometheus.Counter

	asking sync.Mutex // of Counters: guards what follows
	ask    socket
	answer [2 << 10]byte
}

// New checks cfg and starts nothing.
func New(cfg Config) (*Table, error) {
	if cfg.Logger == nil || cfg.Registerer == nil {
		return nil, errors.New("conntrack: a logger and a metrics registerer are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.FS == nil {
		cfg.FS = os.DirFS("/")
	}
	if cfg.ReadBuffer <= 0 {
		cfg.ReadBuffer = 8 << 20
	}
	t := &Table{
		cfg: cfg,
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "netcurtain_conntrack_events_total", Help: "Events about connections read from the kernel.",
		}),
		overflows: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "netcurtain_conntrack_overflows_total", Help: "Times that the kernel had to drop events because we read too slowly.",
		}),
		malformed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "netcurtain_conntrack_malformed_total", Help: "Messages about connections that could not be read.",
		}),
	}
	for _, c := range []prometheus.Collector{t.events, t.overflows, t.malformed} {
		if err := cfg.Registerer.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics of conntrack: %w", err)
		}
	}
	return t, nil
}

// Check reports whether the kernel counts bytes and keeps times. Both are set
// per flow when it is born, so flows older than the setting stay without.
func (t *Table) Check() error {
	return errors.Join(t.Counts(), t.on("nf_conntrack_timestamp", "times"))
}

// Counts reports whether the kernel counts bytes.
func (t *Table) Counts() error { return t.on("nf_conntrack_acct", "bytes") }

func (t *Table) on(setting, what string) error {
	b, err := fs.ReadFile(t.cfg.FS, "proc/sys/net/netfilter/"+setting)
	switch {
	case err != nil:
		return fmt.Errorf("reading a conntrack setting: %w", err)
	case string(bytes.TrimSpace(b)) == "0":
		return fmt.Errorf("net.netfilter.%s is 0: set it to 1, or flows have no %s", setting, what)
	}
	return nil
}

// Run calls fn for each connection that begins or ends, until ctx ends. Events
// come in the kernel's order, all from the goroutine that called Run.
//
// Where the reader is too slow for the buffer, the kernel drops events; that is
// counted, and a Dump tells the truth again. NETLINK_NO_ENOBUFS is not set on
// purpose: with it nothing says that events were lost.
func (t *Table) Run(ctx context.Context, fn func(flow.Event)) error {
	s, err := listen(t.cfg.ReadBuffer, groupNew|groupDestroy)
	if err != nil {
		return fmt.Errorf("listening for conntrack events: %w", err)
	}
	defer s.close()
	if err := t.Check(); err != nil {
		t.cfg.Logger.Warn("conntrack accounting", "err", err)
	}
	defer s.interruptWhen(ctx)()
	buf := make([]byte, 16<<10)
	for {
		msgs, err := s.read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			t.overflows.Inc()
			continue
		case err != nil:
			return fmt.Errorf("reading conntrack events: %w", err)
		}
		at := t.cfg.Now()
		for m := range messages(msgs) {
			e := flow.Event{Kind: m.kind(), At: at}
			if e.Kind != flow.New && e.Kind != flow.Destroy {
				continue
			}
			t.events.Inc()
			if decode(m.attributes, &e) != nil {
				t.malformed.Inc()
				continue
			}
			fn(e)
		}
	}
}

// Dump calls fn for every connection there is, with its counters as they are
// now, without holding the table in memory. A connection that moves within the
// table meanwhile may come twice or not at all. A dump also makes the kernel
// notice connections that timed out, and so send their events, which it may
// otherwise put off for a minute.
func (t *Table) Dump(ctx context.Context, fn func(flow.Event)) error {
	s, err := listen(0, 0)
	if err != nil {
		return fmt.Errorf("dumping conntrack: %w", err)
	}
	defer s.close()
	defer s.interruptWhen(ctx)()
	if err := s.write(request(ctGet, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, unix.AF_UNSPEC, nil)); err != nil {
		return fmt.Errorf("dumping conntrack: %w", err)
	}
	buf := make([]byte, 64<<10)
	for {
		msgs, err := s.read(buf)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("dumping conntrack: %w", err)
		}
		at := t.cfg.Now()
		for m := range messages(msgs) {
			switch {
			case m.typ == unix.NLMSG_DONE:
				return nil
			case m.typ == unix.NLMSG_ERROR:
				return fmt.Errorf("dumping conntrack: %w", m.errno())
			case m.kind() == 0:
				continue
			}
			e := flow.Event{Kind: flow.Update, At: at}
			if decode(m.attributes, &e) != nil {
				t.malformed.Inc()
				continue
			}
			fn(e)
		}
	}
}

// Counters is what the kernel has counted by now of the connection whose original
// direction is tuple. It asks through a socket that stays open, for it is asked often:
// in the network namespace of the first to call it.
func (t *Table) Counters(tuple flow.Tuple) (flow.Counters, error) {
	t.asking.Lock()
	defer t.asking.Unlock()
	c, err := t.counters(tuple)
	if err != nil && !errors.Is(err, unix.ENOENT) && t.ask.f != nil {
		t.ask.close() // an answer that comes too late must not be taken for another
		t.ask = socket{}
	}
	if err != nil {
		err = fmt.Errorf("counters of %s %s to %s: %w", tuple.Proto, tuple.SrcAddrPort(), tuple.DstAddrPort(), err)
	}
	return c, err
}

// counters has asking.
func (t *Table) counters(tuple flow.Tuple) (flow.Counters, error) {
	if t.ask.f == nil {
		s, err := listen(0, 0)
		if err != nil {
			return flow.Counters{}, err
		}
		t.ask = s
	}
	if err := t.ask.write(requestAbout(tuple)); err != nil {
		return flow.Counters{}, err
	}
	// The kernel answers while it is asked; a deadline is for what cannot be.
	if err := t.ask.f.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return flow.Counters{}, err
	}
	msgs, err := t.ask.read(t.answer[:])
	if err != nil {
		return flow.Counters{}, err
	}
	for m := range messages(msgs) {
		if m.typ == unix.NLMSG_ERROR {
			return flow.Counters{}, m.errno()
		}
		if m.kind() != 0 {
			var e flow.Event
			err := decode(m.attributes, &e)
			return e.Counters, err
		}
	}
	return flow.Counters{}, errors.New("the kernel did not answer")
}
