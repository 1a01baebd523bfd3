package observe

import (
	"context"
	"io"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
)

// Carried is a connection that the proxy carries: such a connection never passes
// the hook where packets are seen. The proxy tells it when it knows what the
// connection is. Its bytes come from connection tracking.
type Carried struct {
	Tuple   flow.Tuple     // as the device opened it
	To      netip.AddrPort // where it is taken, when Tuple leads to a proxy of ours that was asked by name
	MAC     devices.MAC
	Seen    dissect.Result
	Verdict policy.Verdict
	// Encrypted says that it leaves the house over TLS, though the device speaks in clear.
	Encrypted bool
	// Before is what the kernel had counted of the connection when it turned from
	// another site to this; zero where that is not known: then it is what it was heard to
	// have counted last.
	Before flow.Counters
}

// Observer joins what its sources say into flows. In the daemon, Run owns the
// flow table, and Packet, Learn and Proxied may be called from anywhere: they never
// wait, and what there is no room for is dropped and counted; Tracked waits. For a
// capture file, Replay does the same work on the packets' own clock.
type Observer struct {
	core    *core
	inbox   inbox
	cuts    chan Cut
	again   chan struct{} // the rules changed
	names   chan nameAsked
	metrics *metrics
}

// sweepEvery is how often conversations and silent flows are looked after.
const sweepEvery = time.Second

// New checks the configuration. It starts nothing.
func New(cfg Config) (*Observer, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	o := &Observer{
		core:    newCore(cfg, m),
		inbox:   inbox{wake: make(chan struct{}, 1)},
		cuts:    make(chan Cut, 256),
		again:   make(chan struct{}, 1),
		names:   make(chan nameAsked),
		metrics: m,
	}
	return o, nil
}

// Tracked takes in what connection tracking says. It waits until there is room, or ctx
// ends: the kernel keeps what comes meanwhile, for a dump of its table as for the reader
// of its events.
func (o *Observer) Tracked(ctx context.Context, e flow.Event) {
	for !o.putEvent(e) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Millisecond):
		}
	}
}

func (o *Observer) putEvent(e flow.Event) bool {
	return o.put(func(b *batch) bool {
		if len(b.events) >= maxEvents || e.Kind == flow.Update && o.inbox.updates >= maxUpdates {
			return false
		}
		if e.Kind == flow.Update {
			o.inbox.updates++
		}
		b.events = append(b.events, e)
		return true
	})
}

// Packet takes in one of a flow's first packets, whose payload it copies. It
// never blocks.
func (o *Observer) Packet(p flow.Packet) {
	o.count("packet", o.put(func(b *batch) bool {
		from := len(b.payload)
		if len(b.packets) >= maxPackets || from+len(p.Payload) > maxPayload {
			return false
		}
		b.payload = append(b.payload, p.Payload...)
		p.Payload = nil
		b.packets = append(b.packets, waiting{p, from, len(b.payload)})
		return true
	}))
}

// Learn notes that device was told addr for name. It never blocks.
func (o *Observer) Learn(device devices.ID, name dnsname.Name, addr netip.Addr, ttl time.Duration) {
	o.count("name", o.put(func(b *batch) bool {
		if len(b.learned) >= maxLearned {
			return false
		}
		b.learned = append(b.learned, lesson{device, name, addr, ttl})
		return true
	}))
}

// Proxied takes in what the proxy saw of a connection. It never blocks.
func (o *Observer) Proxied(c Carried) {
	o.count("carried", o.put(func(b *batch) bool {
		if len(b.carried) >= maxCarried {
			return false
		}
		b.carried = append(b.carried, c)
		return true
	}))
}

// put lets the owner of the table go first when much waits for it: on one core
// whoever reads from the kernel would else fill the queue within its turn.
func (o *Observer) put(add func(*batch) bool) bool {
	ok, crowded := o.inbox.put(add)
	if crowded {
		runtime.Gosched()
	}
	return ok
}

func (o *Observer) count(queue string, ok bool) {
	if !ok {
		o.metrics.dropped.WithLabelValues(queue).Inc()
	}
}

// Run owns the flow table until ctx ends; then every running flow is recorded as
// far as it came. It returns nil when it was cancelled.
func (o *Observer) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if o.core.cfg.Block != nil {
		o.core.cut = func(c Cut) bool {
			select {
			case o.cuts <- c:
				return true
			default:
				return false
			}
		}
		g.Go(func() error { return o.block(ctx) })
	}
	g.Go(func() error { return o.own(ctx) })
	return g.Wait()
}

// own is the loop of the table's one owner.
func (o *Observer) own(ctx context.Context) error {
	c := o.core
	c.now = c.cfg.Now()
	c.started = c.now
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var spare batch
	for {
		select {
		case <-ctx.Done():
			c.now = c.cfg.Now()
			full := o.inbox.take(batch{})
			c.takeIn(&full)
			c.endAll()
			return nil
		case <-o.inbox.wake:
			c.now = c.cfg.Now()
			full := o.inbox.take(spare)
			c.takeIn(&full)
			spare = full.emptied()
		case <-tick.C:
			c.now = c.cfg.Now()
			full := o.inbox.take(spare) // names, at least
			c.takeIn(&full)
			spare = full.emptied()
			c.sweep()
		case <-o.again:
			c.now = c.cfg.Now()
			c.reconsider()
		case q := <-o.names:
			c.now = c.cfg.Now()
			full := o.inbox.take(spare) // what it was told just now may wait there
			c.takeIn(&full)
			spare = full.emptied()
			q.answer <- c.toldName(q)
		}
	}
}

// takeIn goes through a batch: first what names things, then connections, then
// packets, so that a flow finds its name and its opener when it begins; but an
// end waits for the packets before it.
func (c *core) takeIn(b *batch) {
	for i := range b.learned {
		l := &b.learned[i]
		level := devices.LogCounts
		if c.cfg.Devices != nil {
			if d, ok := c.cfg.Devices.ByID(l.device); ok {
				level = d.Log
			}
		}
		c.learn(l.device, level, string(l.name), l.addr, l.ttl)
	}
	for i := range b.carried {
		c.carry(&b.carried[i])
	}
	packets := b.packets
	for i := range b.events {
		e := &b.events[i]
		for e.Kind == flow.Destroy && len(packets) > 0 && !packets[0].At.After(e.At) {
			c.waited(b, &packets[0]) // what was said before the end belongs before it
			packets = packets[1:]
		}
		c.event(e)
	}
	for i := range packets {
		c.waited(b, &packets[i])
	}
}

// waited takes in a packet whose payload lies in the batch.
func (c *core) waited(b *batch, w *waiting) {
	w.Payload = b.payload[w.from:w.to:w.to]
	c.packet(&w.Packet)
	w.Payload = nil
}

// block has flows stopped, one after the other, beside the owner's work.
func (o *Observer) block(ctx context.Context) error {
	c := &o.core.cfg
	for {
		select {
		case <-ctx.Done():
			return nil
		case b := <-o.cuts:
			if err := c.Block.Block(ctx, b); err != nil && ctx.Err() == nil {
				o.metrics.blocks.WithLabelValues("failed").Inc()
				c.Log.Warn("a flow could not be stopped", "device", b.Device, "error", err)
				continue
			}
			o.metrics.blocks.WithLabelValues("stopped").Inc()
		}
	}
}

// Reconsider has policy asked again about every running flow: for when a rule was
// made or came to its end. It never blocks.
func (o *Observer) Reconsider() {
	select {
	case o.again <- struct{}{}:
	default: // it is about to happen anyway
	}
}

// nameAsked asks by which name a device knows an address.
type nameAsked struct {
	device devices.ID
	addr   netip.Addr
	answer chan<- dnsname.Name
}

// NameOf is what device last looked up for addr, "" when it did not. It waits for
// Run to answer, at most until ctx ends.
func (o *Observer) NameOf(ctx context.Context, device devices.ID, addr netip.Addr) dnsname.Name {
	answer := make(chan dnsname.Name, 1)
	select {
	case o.names <- nameAsked{device, addr, answer}:
		return <-answer
	case <-ctx.Done():
		return ""
	}
}

func (c *core) toldName(q nameAsked) dnsname.Name {
	for name := range c.heard.Of(string(q.device), q.addr, c.now) {
		return dnsname.Name(name)
	}
	return ""
}

// Replay takes in every packet that next brings, in the caller's goroutine and
// by the packets' own clock, and counts their bytes; then it records every flow.
// next reports the end with io.EOF. Any other error is returned after what came
// before it was recorded. An Observer either runs or replays.
func (o *Observer) Replay(next func(*flow.Packet) error) error {
	c := o.core
	c.counting = true
	var p flow.Packet
	var swept time.Time
	for {
		err := next(&p)
		if err != nil {
			c.endAll()
			if err == io.EOF {
				return nil
			}
			return err
		}
		if !p.At.IsZero() { // a pcapng simple packet has no time
			c.now = p.At
		}
		if d := c.now.Sub(swept); d >= sweepEvery || d < 0 {
			c.sweep()
			swept = c.now
		}
		c.packet(&p)
	}
}
