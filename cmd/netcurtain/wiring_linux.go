package main

// How the rooms that answer and decide are made from the settings.

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/dnsfilter"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/lists"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/policy/blocklist"
	"github.com/netcurtain/netcurtain/proxy"
)

func (d *daemon) dns() (*dnsfilter.Server, error) {
	s := d.settings.Load()
	upstreams, err := d.upstreams()
	if err != nil {
		return nil, err
	}
	for _, u := range upstreams {
		d.asks = append(d.asks, u.Addr.Addr().Unmap().WithZone(""))
	}
	answer, err := dnsfilter.ParseBlockAnswer(s.DNS.BlockAnswer)
	if err != nil {
		return nil, err
	}
	return dnsfilter.New(dnsfilter.Config{
		Listen: []netip.Addr{netip.IPv6Unspecified()}, Port: s.DNS.Port, RedirectPort: s.DNS.RedirectPort,
		Upstreams: upstreams, LocalResolver: s.DNS.LocalResolver, LocalZones: s.DNS.LocalZones,
		BlockAnswer: answer, BlockTTL: s.DNS.BlockTTL,
		Devices: d.registry, Resolve: d.resolve, Decider: d.engine,
		Describe: func(n dnsname.Name) atlas.Destination { x, _ := d.atlas.Lookup(n); return x },
		Names:    taughtNames{d.observer, d.teacher}, Recorder: failureWatch{d.recorder, &d.unanswered}, Logger: d.log, Registerer: d.metrics,
	})
}

// upstreams are those of the settings, else those that the router uses.
func (d *daemon) upstreams() ([]dnsfilter.Upstream, error) {
	s := d.settings.Load()
	var out []dnsfilter.Upstream
	for _, text := range s.DNS.Upstreams {
		u, err := dnsfilter.ParseUpstream(text)
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	if len(out) > 0 {
		return out, nil
	}
	own := *d.own.Load()
	var errs []error
	for _, path := range s.DNS.Resolv {
		us, err := dnsfilter.SystemUpstreams(path, func(a netip.AddrPort) bool { return own[a.Addr()] || a.Addr().IsLoopback() })
		if err == nil && len(us) > 0 {
			d.log.Info("look-ups go where the router sends its own", "file", path, "upstreams", len(us))
			return us, nil
		}
		errs = append(errs, err)
	}
	if s.DNS.LocalResolver.IsValid() {
		d.log.Info("look-ups go to the router's own resolver", "resolver", s.DNS.LocalResolver)
		return []dnsfilter.Upstream{{Addr: s.DNS.LocalResolver}}, nil
	}
	return nil, fmt.Errorf("no resolver to ask was found: name one in %s, section dns, as list upstream '192.0.2.1': %w", d.cmd.Config, errors.Join(errs...))
}

// resolve looks a client up in the kernel's neighbour table there and then,
// when it asks before its neighbour entry was announced.
func (d *daemon) resolve(a netip.Addr) (devices.Device, bool) {
	if a.IsLoopback() || d.strangers.has(a, time.Now()) { // asking the kernel costs more than the whole look-up
		return devices.Device{}, false
	}
	s, ok := d.neigh.Lookup(a)
	if !ok {
		d.strangers.add(a, time.Now())
		return devices.Device{}, false
	}
	d.sight(s)
	return d.registry.ByAddr(a)
}

// strangers are addresses that the kernel knew nothing of a moment ago: whoever asks
// from behind another router, or invents addresses. One that is heard of is none.
type strangers struct {
	mu    sync.Mutex
	since map[netip.Addr]time.Time
}

// How long nothing is asked about a stranger, and how many are kept.
const (
	strangeFor   = 10 * time.Second
	maxStrangers = 1024
)

func (s *strangers) has(a netip.Addr, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.since[a]
	return ok && now.Sub(at).Abs() < strangeFor
}

func (s *strangers) add(a netip.Addr, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since == nil || len(s.since) >= maxStrangers {
		s.since = make(map[netip.Addr]time.Time)
	}
	s.since[a] = now
}

func (s *strangers) forget(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.since, a)
}

func (d *daemon) proxy(names *dnsfilter.Server) (*proxy.Proxy, error) {
	s := d.settings.Load()
	if !s.Proxy.Enabled {
		return nil, nil
	}
	return newProxy(d, s, names.LookUp)
}

func (d *daemon) lists(ctx context.Context) (*lists.Lists, error) {
	s := d.settings.Load()
	sources, err := d.listSources(ctx)
	if err != nil {
		return nil, err
	}
	return lists.New(lists.Config{
		Dir: s.House.State, Sources: sources, FileRoot: d.listFolder(), Scratch: s.House.Volatile,
		OnIndex: func(x *blocklist.Index) {
			d.index.Store(x)
			if err := d.recompile(context.Background()); err != nil {
				d.log.Error("compiling the rules with the new lists", "error", err)
			}
		},
		Room: d.room, Kept: d.counts.kept(), OnFetch: d.counts.fetched,
		House:   func(a netip.Addr) bool { return (*d.own.Load())[a] || d.isLAN(a) },
		Control: d.markOurs, Logger: d.log, Registerer: d.metrics,
	})
}

// recompile makes a Set of what the household chose and puts it in force.
func (d *daemon) recompile(ctx context.Context) error {
	s := d.settings.Load()
	rules, err := d.store.Rules(ctx)
	if err != nil {
		return err
	}
	all, err := d.listed(ctx)
	if err != nil {
		return err
	}
	index := d.index.Load()
	set, err := policy.Compile(policy.Config{
		Off: !d.on.Load(), Rules: rules, Index: index, Lists: listUse(all, index), Rewriters: rewriters(all, index), Hits: d.counts.of(index),
		LocalZones: s.DNS.LocalZones, RebindingExempt: s.DNS.Rebinding, Upstreams: d.asks,
		Hellos: s.Proxy.Hellos,
	})
	if err != nil {
		return err
	}
	d.engine.Swap(set)
	d.ruleEnds.Store(nextEnd(rules, time.Now()))
	d.changed() // the kernel closes other addresses, perhaps, and one more end is to be waited for
	return d.reconsider(ctx)
}
