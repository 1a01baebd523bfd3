package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/netcurtain/netcurtain/configs"
	"github.com/netcurtain/netcurtain/dnsfilter"
	"github.com/netcurtain/netcurtain/enforce"
	"github.com/netcurtain/netcurtain/journal"
)

// failureWatch is the journal, and notes that a look-up failed: only then is there
// a reason to ask the upstreams whether they live, at the cost of a question that
// nobody in the house asked.
type failureWatch struct {
	*journal.Recorder
	failed *atomic.Bool
}

func (w failureWatch) Record(e journal.Entry) {
	if e.Lookup != nil && e.Lookup.Rcode == dns.RcodeServerFailure {
		w.failed.Store(true)
	}
	w.Recorder.Record(e)
}

// upstreamGate lets look-ups go to the router's own resolver while none of ours
// answers.
type upstreamGate struct {
	suspect  *atomic.Bool                // set when a look-up failed
	ours     func(context.Context) error // asks the upstreams
	local    func(context.Context) error // asks the router's own resolver
	open     func(context.Context) error // takes look-ups away from us
	may      func() bool                 // the settings let it open
	health   func(error)
	now      func() time.Time
	log      *slog.Logger
	since    time.Time // when ours first failed; zero while they answer
	next     time.Time // when to ask again, at the soonest
	mu       sync.Mutex
	isOpened error // guarded by mu; why look-ups are not ours now
}

const (
	openAfter  = 30 * time.Second // how long no upstream may answer
	askAgain   = 5 * time.Second  // between two questions to upstreams that fail
	openAdvice = "check the resolvers of section dns (list upstream, list resolv) and the way to them; option fail_open '0' fails look-ups instead"
)

func (d *daemon) upstreamGate(s *dnsfilter.Server) *upstreamGate {
	return &upstreamGate{
		suspect: &d.unanswered, ours: s.Upstream, local: s.Local,
		open: func(ctx context.Context) error { return d.kernel.Dead(ctx, enforce.ServiceDNS) },
		may:  func() bool { return d.settings.Load().DNS.FailOpen },
		health: func(err error) {
			d.health.set("upstreams", err, "The resolvers that we ask answer.", "check the way to the internet and the resolvers of section dns")
		},
		now: time.Now, log: d.log,
	}
}

// Run looks after the upstreams until ctx ends.
func (g *upstreamGate) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			g.step(ctx)
		}
	}
}

// step asks the upstreams when there is a reason to, and opens or closes.
func (g *upstreamGate) step(ctx context.Context) {
	now := g.now()
	if g.since.IsZero() && !g.suspect.Load() || now.Before(g.next) {
		return
	}
	g.suspect.Store(false)
	g.next = now.Add(askAgain)
	err := g.ours(ctx)
	switch {
	case ctx.Err() != nil:
	case err == nil:
		g.since = time.Time{}
		g.health(nil)
		g.set(nil)
	case g.since.IsZero():
		g.since = now
	case now.Sub(g.since) >= openAfter:
		g.health(fmt.Errorf("no resolver that we ask has answered since %s: %w", g.since.Format("15:04:05"), err))
		g.fallBack(ctx)
	}
}

// fallBack opens where the settings allow it and somebody else can answer.
func (g *upstreamGate) fallBack(ctx context.Context) {
	if !g.may() || g.local(ctx) != nil {
		g.set(nil) // taken again: nobody is better off without us
		return
	}
	why := mendable{fmt.Errorf("no resolver that we ask has answered since %s, the router's own does: look-ups go there, unfiltered, until one of ours is back",
		g.since.Format("15:04:05")), openAdvice}
	if !g.set(why) {
		return
	}
	if err := g.open(ctx); err != nil {
		g.log.Error("leaving look-ups to the router's own resolver", "error", err) // it comes to that within 5 s all the same
	}
}

// set notes why look-ups are not ours, or with nil that they are, and reports a change.
func (g *upstreamGate) set(why error) (changed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	changed = (why == nil) != (g.isOpened == nil)
	if changed {
		g.isOpened = why
		g.log.Warn("who answers look-ups", "we", why == nil)
	}
	return changed
}

func (g *upstreamGate) why() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.isOpened
}

// unlessOpen is probe while look-ups are ours, else the reason why they are not.
func (g *upstreamGate) unlessOpen(probe func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := g.why(); err != nil {
			return err
		}
		return probe(ctx)
	}
}

// exempt are the resolvers inside the house whose look-ups are left alone: those
// that the settings name, and our own upstreams that stand on the LAN, with every
// address of each. Otherwise what such a resolver asks would come back to it.
func (d *daemon) exempt(s *configs.Settings) []netip.Addr {
	all := slices.Clone(s.DNS.Exempt)
	own := *d.own.Load()
	for _, a := range d.asks {
		if !own[a] && d.isLAN(a) {
			all = append(all, a)
		}
	}
	for _, a := range all {
		if dev, ok := d.registry.ByAddr(a); ok {
			all = append(all, dev.Addrs...)
		}
	}
	return all
}

// lanPrefixes are the networks of these interfaces.
func lanPrefixes(names []string) (all []netip.Prefix) {
	for _, name := range names {
		i, err := net.InterfaceByName(name)
		if err != nil {
			continue // it is not there now
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
				all = append(all, p.Masked())
			}
		}
	}
	return all
}
