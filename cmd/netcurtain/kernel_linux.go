package main

// How the kernel is kept at what the household chose, for as long as we answer.

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/netcurtain/netcurtain/configs"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/enforce"
)

// keepKernel makes the kernel follow the household's choices: at once when one
// is made or comes to its end, and every few seconds for what time alone changes.
func (d *daemon) keepKernel(ctx context.Context) error {
	var asked uint64 // which rules of other firewalls the proxy's connections were compared with
	for {
		err := d.apply(ctx)
		d.health.set("kernel", err, "The kernel follows the household's choices.", "netcurtain check")
		if own, _, err := ownAddresses(); err == nil {
			d.own.Store(&own)
		}
		d.lan.Store(new(lanPrefixes(d.settings.Load().House.LAN)))
		patience := 5 * time.Second
		switch firewalls, settled := d.kernel.Firewalls(); {
		case firewalls == asked:
		case !settled:
			patience = 2 * time.Second
		default:
			if d.carrier != nil {
				d.carrier.Reconsider()
			}
			notify(d.look)
			asked = firewalls
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
		case <-time.After(d.untilRuleEnds(patience)):
		}
		if end := d.ruleEnds.Load(); end != 0 && time.Now().UnixNano() >= end {
			if err := d.recompile(ctx); err != nil {
				d.log.Error("compiling the rules when one came to its end", "error", err)
				d.ruleEnds.Store(time.Now().Add(5 * time.Second).UnixNano()) // not at once again
			}
		}
	}
}

// untilRuleEnds is how long it is until the next rule comes to its end, at most the given time.
func (d *daemon) untilRuleEnds(most time.Duration) time.Duration {
	end := d.ruleEnds.Load()
	if end == 0 {
		return most
	}
	return min(most, max(time.Until(time.Unix(0, end)), 0))
}

func (d *daemon) apply(ctx context.Context) error {
	if !d.on.Load() {
		return errors.Join(enforce.Release(ctx), d.kernel.RemoveCut(ctx))
	}
	if err := d.kernel.Set(ctx, d.desired(time.Now())); err != nil {
		return err
	}
	return d.remember(ctx)
}

// checkRegularly looks for what keeps this box from doing all: somebody may start
// Docker or switch offloading on while we run.
func (d *daemon) checkRegularly(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-d.look:
		}
		before, now := *d.problems.Load(), d.kernel.Check(ctx, d.settings.Load().House.LAN)
		if ctx.Err() != nil {
			return nil // a check that was cut short finds what is not there
		}
		d.problems.Store(&now)
		for _, p := range now {
			if !slices.Contains(before, p) {
				d.log.Warn("this box cannot do all", "problem", p.What, "mend", p.Fix)
			}
		}
	}
}

// desired says what the kernel shall do, from how each device is treated.
func (d *daemon) desired(now time.Time) enforce.Desired {
	s := d.settings.Load()
	want := enforce.Desired{
		LAN: s.House.LAN, NFLOGGroup: s.House.NFLOGGroup, InterceptDNS: s.DNS.Intercept,
		Ports:  enforce.Ports{DNS: s.DNS.Port, DNSRedirect: s.DNS.RedirectPort, HTTPProxy: s.Proxy.HTTPPort, TLSProxy: s.Proxy.TLSPort, Explicit: explicitPort(s)},
		Handed: s.Proxy.Ports,
		Marks:  marks(s),
		Doors:  d.engine.ClosedAddresses(now), Exempt: d.exempt(s),
	}
	for _, dev := range d.registry.All(now) {
		switch dev.Mode {
		case devices.ModeOff:
			want.Unfiltered = append(want.Unfiltered, dev.MACs...)
		case devices.ModeGuard:
			if s.Proxy.Enabled {
				want.Guarded = append(want.Guarded, dev.MACs...)
			}
		case devices.ModeLocal:
			want.Cut = append(want.Cut, dev.MACs...)
		}
	}
	return want
}

func marks(s *configs.Settings) enforce.Marks {
	return enforce.Marks{Deliver: s.House.MarkDeliver, Ours: s.House.MarkOurs, Table: s.House.Table}
}

// explicitPort is that of the proxy which is asked by name; 0 while none runs.
func explicitPort(s *configs.Settings) uint16 {
	if !s.Proxy.Enabled {
		return 0
	}
	return s.Proxy.ExplicitPort
}

// pulse keeps the kernel bringing traffic to services for as long as a real
// request through our own listener is answered within 500 ms. first, when set,
// must succeed once before that begins. Nothing else keeps us alive. When ctx
// ends, the kernel leaves the traffic alone before pulse returns.
func (d *daemon) pulse(ctx context.Context, name string, probe, first func(context.Context) error, services ...enforce.Service) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	defer func() {
		for _, s := range services {
			if err := d.kernel.Dead(context.WithoutCancel(ctx), s); err != nil && d.on.Load() {
				d.log.Warn("leaving traffic alone", "error", err) // it comes to that within 5 s all the same
			}
		}
	}()
	for {
		err := d.beat(ctx, probe, &first, services)
		if ctx.Err() != nil {
			return nil
		}
		well := "Answers, so the kernel brings it traffic."
		if !d.on.Load() {
			well = "Switched off: the kernel brings it nothing."
		}
		d.health.set(name, err, well, "netcurtain status; if it stays, restart netcurtain")
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (d *daemon) beat(ctx context.Context, probe func(context.Context) error, first *func(context.Context) error, services []enforce.Service) error {
	if !d.on.Load() {
		return nil
	}
	if *first != nil {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		if err := (*first)(ctx); err != nil {
			return fmt.Errorf("no upstream answers yet: %w", err)
		}
		*first = nil
	}
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if err := probe(short); err != nil {
		return err
	}
	for _, s := range services {
		if err := d.kernel.Alive(ctx, s); err != nil {
			return err
		}
	}
	return nil
}
