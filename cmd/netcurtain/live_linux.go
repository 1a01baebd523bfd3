package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/netcurtain/netcurtain/devices/leases"
	"github.com/netcurtain/netcurtain/dnsfilter"
	"github.com/netcurtain/netcurtain/enforce"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/nflog"
	"github.com/netcurtain/netcurtain/proxy"
	"github.com/netcurtain/netcurtain/ui"
)

// live runs the rooms until ctx ends or one of them fails, then takes our rules
// out of the kernel. What was cut stays cut.
func (d *daemon) live(ctx context.Context) (err error) {
	r, err := d.furnish(ctx)
	defer r.close()
	if err != nil {
		return err
	}
	// Last of all, for a disk may be slow or dead.
	stopWriting := d.write(ctx)
	defer func() { err = errors.Join(err, stopWriting()) }()
	if err := d.recompile(ctx); err != nil {
		return err
	}
	touched := false
	defer func() {
		if !touched {
			return
		}
		// ctx has ended by now.
		if bad := enforce.Release(context.WithoutCancel(ctx)); bad != nil {
			err = errors.Join(err, fmt.Errorf("taking our rules out of the kernel: %w", bad))
		}
	}()
	first, rooms, pulses := d.tasks(r)
	return together(ctx, first, func(ctx context.Context) error {
		if err := d.checked(); err != nil {
			return err
		}
		touched = true
		// What a crash of ours left in the kernel goes before anything new comes.
		if err := enforce.Release(ctx); err != nil {
			return fmt.Errorf("tidying up after an earlier run: %w", err)
		}
		// Before any source listens: connections are only counted from here on.
		if err := d.apply(ctx); err != nil {
			return err
		}
		d.log.Info("the house stands", "page", r.page.Addr().String(), "lan", fmt.Sprint(d.settings.Load().House.LAN))
		return nil
	}, rooms, pulses)
}

// rooms are those that live runs and that nobody else needs.
type rooms struct {
	pages         *ui.Server
	page, control net.Listener
	dns           *dnsfilter.Server
	carrier       *proxy.Proxy // nil: switched off by the settings
	leases        *leases.Watcher
	packets       *nflog.Source
}

// furnish makes what live runs; nothing is changed in the kernel yet. close is
// due when it fails, too.
func (d *daemon) furnish(ctx context.Context) (r rooms, err error) {
	s := d.settings.Load()
	if r.pages, err = d.pages(); err != nil {
		return r, err
	}
	if r.page, r.control, err = d.listen(ctx); err != nil {
		return r, err
	}
	if r.dns, err = d.dns(); err != nil {
		return r, err
	}
	if r.carrier, err = d.proxy(r.dns); err != nil {
		return r, err
	}
	d.carrier = r.carrier
	if d.keeper, err = d.lists(ctx); err != nil {
		return r, err
	}
	if r.leases, err = leases.New(leases.Config{Paths: s.House.Leases, Logger: d.log, Registerer: d.metrics}); err != nil {
		return r, err
	}
	r.packets, err = nflog.New(nflog.Config{Group: s.House.NFLOGGroup, LAN: s.House.LAN, Logger: d.log, Registerer: d.metrics})
	return r, err
}

func (r rooms) close() {
	if r.page != nil { // both or none
		_ = r.page.Close()
		_ = r.control.Close()
	}
}

// task is one thing that runs for as long as the daemon does.
type task struct {
	name string
	run  func(context.Context) error
}

// tasks are the rooms: first those that need nothing of the kernel and answer soonest;
// and the pulses that bring them traffic for as long as they answer.
func (d *daemon) tasks(r rooms) (first, all, pulses []task) {
	gate := d.upstreamGate(r.dns)
	first = []task{{"lists", d.keeper.Run}, {"dns", r.dns.Run}}
	all = []task{
		{"observer", d.observer.Run},
		{"neighbour table", func(ctx context.Context) error { return d.neigh.Run(ctx, d.sight) }},
		{"leases", func(ctx context.Context) error { return r.leases.Run(ctx, d.sight) }},
		{"conntrack", func(ctx context.Context) error { return d.tracker.Run(ctx, d.event(ctx)) }},
		{"live counters", d.dumpRegularly},
		{"nflog", func(ctx context.Context) error {
			return r.packets.Run(ctx, func(p flow.Packet) { d.sightPacket(p); d.observer.Packet(p) })
		}},
		{"list counts", d.keepListCounts},
		{"kernel", d.keepKernel},
		{"kernel's rules", func(ctx context.Context) error { return d.kernel.Watch(ctx, d.changed) }},
		{"checks", d.checkRegularly},
		{"upstreams", gate.Run},
		{"refusals", d.keepRefusals},
		{"page", func(ctx context.Context) error {
			return serveUntil(ctx, ui.HTTPServer(ctx, r.pages.TCP(), d.log), r.page)
		}},
		{"control socket", func(ctx context.Context) error {
			return serveUntil(ctx, ui.HTTPServer(ctx, r.pages.Control(), d.log), r.control)
		}},
		{"signals", d.reloadOnHangup},
	}
	pulses = []task{{"dns's pulse", func(ctx context.Context) error {
		return d.pulse(ctx, "dns", gate.unlessOpen(r.dns.Probe), r.dns.Upstream, enforce.ServiceDNS)
	}}}
	if r.carrier != nil {
		all = append(all, task{"proxy", r.carrier.Run})
		pulses = append(pulses, task{"proxy's pulse", func(ctx context.Context) error {
			return d.pulse(ctx, "proxy", r.carrier.Probe, nil, enforce.ServiceHTTP, enforce.ServiceTLS)
		}})
	}
	return first, all, pulses
}

// stopWithin is how long the rooms may take to end. What does not end by then is
// left to the end of the process: procd and systemd wait for 5 s and more.
const stopWithin = 4 * time.Second

// together runs the first rooms, prepares the kernel, and runs the others and their
// pulses, until ctx ends or one of them fails. The pulses end first: the kernel leaves
// traffic alone before nobody answers it.
func together(ctx context.Context, first []task, prepare func(context.Context) error, rooms, pulses []task) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	within, stopRooms := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRooms()
	g, within := errgroup.WithContext(within)
	context.AfterFunc(within, stop) // one that fails ends all
	run := func(ctx context.Context, t task) error {
		if err := t.run(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		return nil
	}
	var running sync.Map // names of rooms
	start := func(rooms []task) {
		for _, t := range rooms {
			running.Store(t.name, nil)
			g.Go(func() error { defer running.Delete(t.name); return run(within, t) })
		}
	}
	start(first)
	err := prepare(ctx)
	switch {
	case err == nil:
		start(rooms)
		p, ctx := errgroup.WithContext(ctx)
		for _, t := range pulses {
			p.Go(func() error { return run(ctx, t) })
		}
		err = p.Wait()
	case ctx.Err() != nil:
		err = nil // it was cut short
	}
	stopRooms()
	ended := make(chan error, 1)
	go func() { ended <- g.Wait() }()
	select {
	case bad := <-ended:
		return errors.Join(bad, err)
	case <-time.After(stopWithin):
		var hang []string
		running.Range(func(name, _ any) bool { hang = append(hang, name.(string)); return true })
		return errors.Join(err, fmt.Errorf("%s did not end within %s: ending without", strings.Join(hang, ", "), stopWithin))
	}
}

// write lets the store write down what the journal carries until it is stopped.
// It outlives the rooms, so that nothing of their last words is lost.
func (d *daemon) write(ctx context.Context) (stop func() error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- d.store.Run(ctx, d.unwritten) }()
	return func() error {
		cancel()
		return <-done
	}
}
