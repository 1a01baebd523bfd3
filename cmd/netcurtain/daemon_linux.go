package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/configs"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/devices/leases"
	"github.com/netcurtain/netcurtain/devices/neigh"
	"github.com/netcurtain/netcurtain/dnsfilter"
	"github.com/netcurtain/netcurtain/enforce"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/conntrack"
	"github.com/netcurtain/netcurtain/flow/nflog"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/lists"
	"github.com/netcurtain/netcurtain/observe"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/policy/blocklist"
	"github.com/netcurtain/netcurtain/proxy"
	"github.com/netcurtain/netcurtain/store"
	"github.com/netcurtain/netcurtain/ui"
)

// daemon is the running house: every room, wired.
type daemon struct {
	cmd        runCmd
	log        *slog.Logger
	metrics    *prometheus.Registry
	settings   atomic.Pointer[configs.Settings]
	own        atomic.Pointer[map[netip.Addr]bool] // the router's own addresses
	unanswered atomic.Bool                         // a look-up failed since the upstreams were last asked
	asks       []netip.Addr                        // the resolvers that we ask; never changed once live

	problems atomic.Pointer[[]enforce.Problem] // what keeps this box from doing all, as last checked
	lock     *os.File                          // of the state folder, held until we end
	store    *store.Store
	recorder *journal.Recorder
	registry *devices.Registry
	engine   *policy.Engine
	index    atomic.Pointer[blocklist.Index]
	atlas    *atlas.Atlas
	kernel   *enforce.Kernel
	neigh    *neigh.Table
	tracker  *conntrack.Table
	observer *observe.Observer
	blocks   *blocker
	carrier  *proxy.Proxy // nil: nothing is carried
	ruleEnds atomic.Int64 // when the next rule comes to its end, in Unix nanoseconds; 0: none does
	health   *health
	wake     chan struct{} // the household chose something
	on       atomic.Bool
	keeper   *lists.Lists
	reloaded prometheus.Gauge // 1 while the settings file in force is the newest
}

// Run is the daemon: it wires the rooms, runs them and puts back what it changed.
func (c runCmd) Run(ctx context.Context, io std) error {
	log := c.logger(io)
	if c.UntilFD > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		go func() {
			_, _ = os.NewFile(uintptr(c.UntilFD), "starter").Read(make([]byte, 1)) // returns when the other end closes
			cancel()
		}()
	}
	settings, err := c.read()
	if err != nil {
		return err
	}
	if err := fitMemory(); err != nil {
		return err
	}
	d := &daemon{cmd: c, log: log, metrics: prometheus.NewRegistry(), wake: make(chan struct{}, 1), engine: policy.NewEngine(nil)}
	d.settings.Store(&settings)
	d.reloaded = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "netcurtain_settings_last_reload_successful", Help: "1 when the settings file was right when it was last read, else 0: the settings before are in force.",
	})
	d.reloaded.Set(1)
	if err := d.metrics.Register(d.reloaded); err != nil {
		return err
	}
	if err := d.ready(ctx); err != nil {
		return err
	}
	defer d.lock.Close()
	defer func() {
		if err := d.store.Close(); err != nil {
			log.Error("closing the databases", "error", err)
		}
	}()
	return d.live(ctx)
}

// ready opens and makes everything that can fail, before anything is changed.
func (d *daemon) ready(ctx context.Context) (err error) {
	s := d.settings.Load()
	if d.kernel, err = enforce.New(enforce.Config{
		Logger: d.log, CutFile: filepath.Join(s.House.State, "cut.nft"), Registerer: d.metrics,
	}); err != nil {
		return err
	}
	problems := d.kernel.Check(ctx)
	d.problems.Store(&problems)
	for _, p := range problems {
		if p.Fatal {
			return errors.New(p.String())
		}
		d.log.Warn("this box cannot do all", "problem", p.What, "mend", p.Fix)
	}
	for _, dir := range []string{s.House.State, s.House.Volatile, filepath.Join(s.House.State, "lists")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("making our folder: %w", err)
		}
	}
	if d.lock, err = lockHouse(s.House.State); err != nil {
		return err
	}
	if d.store, err = store.Open(ctx, store.Config{
		HouseholdPath: filepath.Join(s.House.State, "household.db"),
		LedgerPath:    filepath.Join(s.House.Volatile, "ledger.db"),
		MemoryPath:    filepath.Join(s.House.State, "memory.db"),
		Age:           s.Store.Age, Bytes: s.Store.Bytes, MemoryBytes: s.Store.MemoryBytes, FlushEvery: s.Store.Flush,
		Logger: d.log, Registerer: d.metrics,
	}); err != nil {
		return err
	}
	if d.recorder, err = journal.NewRecorder(journal.Config{Registerer: d.metrics}); err != nil {
		return err
	}
	d.health = newHealth(d.recorder, time.Now)
	return errors.Join(d.knowDevices(ctx), d.watch())
}

// knowDevices fills the registry with what was known before.
func (d *daemon) knowDevices(ctx context.Context) (err error) {
	if d.atlas, err = openAtlas(d.settings.Load().House.Destinations); err != nil {
		return err
	}
	own, macs, err := ownAddresses()
	if err != nil {
		return err
	}
	d.own.Store(&own)
	var addrs []netip.Addr
	for a := range own {
		addrs = append(addrs, a)
	}
	since, known, err := d.remembered(ctx)
	if err != nil {
		return err
	}
	d.registry = devices.NewRegistry(devices.Config{Maker: atlas.Maker, Now: time.Now, Own: addrs, OwnMACs: macs, Since: since})
	d.registry.Restore(known...)
	choices, err := d.store.Choices(ctx)
	if err != nil {
		return err
	}
	d.registry.Choose(choices)
	on, err := d.store.On(ctx)
	d.on.Store(on)
	return err
}

// openAtlas reads our own table of destinations and the administrator's.
func openAtlas(paths []string) (*atlas.Atlas, error) {
	var more []io.Reader
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			return nil, fmt.Errorf("destinations: %w", err)
		}
		more = append(more, bytes.NewReader(b))
	}
	a, err := atlas.New(more...)
	if err != nil {
		return nil, fmt.Errorf("destinations %v: %w", paths, err)
	}
	return a, nil
}

// watch makes the rooms that see: sources and observer.
func (d *daemon) watch() (err error) {
	s := d.settings.Load()
	if d.neigh, err = neigh.New(neigh.Config{Interfaces: s.House.LAN, Logger: d.log}); err != nil {
		return err
	}
	if d.tracker, err = conntrack.New(conntrack.Config{Logger: d.log, Registerer: d.metrics}); err != nil {
		return err
	}
	d.blocks = &blocker{kernel: d.kernel, standing: map[blocked]standing{}}
	d.observer, err = observe.New(observe.Config{
		Devices: d.registry, Decide: d.engine, Atlas: describer{d.atlas}, Block: d.blocks, Record: d.recorder,
		Log: d.log, Metrics: d.metrics,
		Own: func(a netip.Addr) bool { return (*d.own.Load())[a] },
	})
	return err
}

// live runs the rooms until ctx ends or one of them fails, then takes our rules
// out of the kernel. What was cut stays cut.
func (d *daemon) live(ctx context.Context) (err error) {
	s := d.settings.Load()
	pages, err := d.pages()
	if err != nil {
		return err
	}
	page, control, err := d.listen(ctx)
	if err != nil {
		return err
	}
	defer page.Close()
	defer control.Close()
	dns, err := d.dns()
	if err != nil {
		return err
	}
	carrier, err := d.proxy()
	if err != nil {
		return err
	}
	d.carrier = carrier
	if d.keeper, err = d.lists(); err != nil {
		return err
	}
	lease, err := leases.New(leases.Config{Paths: s.House.Leases, Logger: d.log, Registerer: d.metrics})
	if err != nil {
		return err
	}
	packets, err := nflog.New(nflog.Config{Group: s.House.NFLOGGroup, LAN: s.House.LAN, Logger: d.log, Registerer: d.metrics})
	if err != nil {
		return err
	}
	// What a crash of ours left in the kernel goes before anything new comes.
	if err := enforce.Release(ctx); err != nil {
		return fmt.Errorf("tidying up after an earlier run: %w", err)
	}
	defer func() {
		// ctx has ended by now.
		if bad := enforce.Release(context.WithoutCancel(ctx)); bad != nil {
			err = errors.Join(err, fmt.Errorf("taking our rules out of the kernel: %w", bad))
		}
	}()
	if err := d.recompile(ctx); err != nil {
		return err
	}
	// Before any source listens: connections are only counted from here on.
	if err := d.apply(ctx); err != nil {
		return err
	}

	// The store outlives the rooms that write to the journal, so that nothing of
	// their last words is lost.
	sub := d.recorder.Subscribe("store", 8192)
	written, stopWriting := context.WithCancel(context.WithoutCancel(ctx))
	storeDone := make(chan error, 1)
	go func() { storeDone <- d.store.Run(written, sub) }()
	defer func() {
		stopWriting()
		err = errors.Join(err, <-storeDone)
	}()

	g, ctx := errgroup.WithContext(ctx)
	run := func(name string, fn func(context.Context) error) {
		g.Go(func() error {
			if err := fn(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	run("observer", d.observer.Run)
	run("neighbour table", func(ctx context.Context) error { return d.neigh.Run(ctx, d.sight) })
	run("leases", func(ctx context.Context) error { return lease.Run(ctx, d.sight) })
	run("conntrack", func(ctx context.Context) error { return d.tracker.Run(ctx, d.observer.Event) })
	run("live counters", d.dumpRegularly)
	run("nflog", func(ctx context.Context) error {
		return packets.Run(ctx, func(p flow.Packet) { d.sightPacket(p); d.observer.Packet(p) })
	})
	run("lists", d.keeper.Run)
	run("dns", dns.Run)
	if carrier != nil {
		run("proxy", carrier.Run)
		run("proxy's pulse", func(ctx context.Context) error {
			return d.pulse(ctx, "proxy", carrier.Probe, nil, enforce.ServiceHTTP, enforce.ServiceTLS)
		})
	}
	run("kernel", d.keepKernel)
	run("checks", d.checkRegularly)
	gate := d.upstreamGate(dns)
	run("upstreams", gate.Run)
	run("dns's pulse", func(ctx context.Context) error {
		return d.pulse(ctx, "dns", gate.unlessOpen(dns.Probe), dns.Upstream, enforce.ServiceDNS)
	})
	run("page", func(ctx context.Context) error { return serveUntil(ctx, ui.HTTPServer(ctx, pages.TCP(), d.log), page) })
	run("control socket", func(ctx context.Context) error {
		return serveUntil(ctx, ui.HTTPServer(ctx, pages.Control(), d.log), control)
	})
	run("signals", d.reloadOnHangup)
	d.log.Info("the house stands", "page", page.Addr().String(), "lan", fmt.Sprint(s.House.LAN))
	return g.Wait()
}

// sight takes one sighting in; a new device is an event, and the kernel may
// have to be told.
func (d *daemon) sight(s devices.Sighting) {
	dev, isNew := d.registry.Sight(s)
	if !isNew {
		return
	}
	d.recorder.Record(journal.Entry{At: s.At, Device: dev.ID, Log: dev.Log, Event: &journal.Event{
		Kind: journal.EventNewDevice, Text: "A device was seen for the first time.",
	}})
	d.changed()
}

// sightPacket learns from a packet which hardware address has which address: at
// once, and for IPv6 addresses that change by the hour, too.
func (d *daemon) sightPacket(p flow.Packet) {
	mac, addr := devices.MAC(p.MAC), p.Tuple.SrcAddr()
	if mac.IsZero() {
		return
	}
	if dev, ok := d.registry.ByAddr(addr); ok && slices.Contains(dev.MACs, mac) {
		return // known: the neighbour table keeps it fresh
	}
	d.sight(devices.Sighting{MAC: mac, Addr: addr, Source: devices.SourcePacket, At: p.At})
}

// changed wakes whoever applies choices. It never blocks.
func (d *daemon) changed() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// dumpRegularly brings live counters, rarely when there are many flows.
func (d *daemon) dumpRegularly(ctx context.Context) error {
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wait.C:
		}
		n := 0
		err := d.tracker.Dump(ctx, func(e flow.Event) { n++; d.observer.Event(e) })
		d.health.set("counters", err, "Bytes of running connections are counted.", "")
		// A dump of 12,000 entries costs a slow core 20 ms.
		every := 5 * time.Second
		switch {
		case n > 20_000:
			every = time.Minute
		case n > 2_000:
			every = 15 * time.Second
		}
		wait.Reset(every)
	}
}

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
		Names:    d.observer, Recorder: failureWatch{d.recorder, &d.unanswered}, Logger: d.log, Registerer: d.metrics,
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
	s, ok := d.neigh.Lookup(a)
	if !ok {
		return devices.Device{}, false
	}
	d.sight(s)
	return d.registry.ByAddr(a)
}

func (d *daemon) proxy() (*proxy.Proxy, error) {
	s := d.settings.Load()
	if !s.Proxy.Enabled {
		return nil, nil
	}
	return newProxy(d, s)
}

func (d *daemon) lists() (*lists.Lists, error) {
	s := d.settings.Load()
	return lists.New(lists.Config{
		Dir: s.House.State, Sources: listSources(s), FileRoot: filepath.Join(s.House.State, "lists"), Scratch: s.House.Volatile,
		OnIndex: func(x *blocklist.Index) {
			d.index.Store(x)
			if err := d.recompile(context.Background()); err != nil {
				d.log.Error("compiling the rules with the new lists", "error", err)
			}
		},
		Control: d.markOurs, Logger: d.log, Registerer: d.metrics,
	})
}

func listSources(s *configs.Settings) []lists.Source {
	sources := []lists.Source{{Name: "netcurtain-starter", Text: configs.Starter}}
	for _, l := range s.Lists {
		if l.Enabled {
			sources = append(sources, lists.Source{Name: l.Name, Allow: l.Allow, File: l.File, URL: l.URL})
		}
	}
	return sources
}

// recompile makes a Set of what the household chose and puts it in force.
func (d *daemon) recompile(ctx context.Context) error {
	s := d.settings.Load()
	rules, err := d.store.Rules(ctx)
	if err != nil {
		return err
	}
	set, err := policy.Compile(policy.Config{
		Off: !d.on.Load(), Rules: rules, Index: d.index.Load(),
		LocalZones: s.DNS.LocalZones, RebindingExempt: s.DNS.Rebinding, Upstreams: d.asks,
	})
	if err != nil {
		return err
	}
	d.engine.Swap(set)
	d.ruleEnds.Store(nextEnd(rules, time.Now()))
	return d.reconsider(ctx)
}

// keepKernel makes the kernel follow the household's choices: at once when one
// is made, and every few seconds for what time alone changes.
func (d *daemon) keepKernel(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		err := d.apply(ctx)
		d.health.set("kernel", err, "The kernel follows the household's choices.", "netcurtain check")
		if own, _, err := ownAddresses(); err == nil {
			d.own.Store(&own)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
		case <-tick.C:
		}
		if end := d.ruleEnds.Load(); end != 0 && time.Now().UnixNano() >= end {
			if err := d.recompile(ctx); err != nil {
				d.log.Error("compiling the rules when one came to its end", "error", err)
			}
		}
	}
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
		}
		before, now := *d.problems.Load(), d.kernel.Check(ctx)
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
		Ports: enforce.Ports{DNS: s.DNS.Port, DNSRedirect: s.DNS.RedirectPort, HTTPProxy: s.Proxy.HTTPPort, TLSProxy: s.Proxy.TLSPort},
		Marks: enforce.Marks{Deliver: s.House.MarkDeliver, Ours: s.House.MarkOurs, Table: s.House.Table},
		Doors: d.engine.ClosedAddresses(now), Exempt: d.exempt(s),
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

// pulse keeps the kernel bringing traffic to services for as long as a real
// request through our own listener is answered within 500 ms. first, when set,
// must succeed once before that begins. Nothing else keeps us alive.
func (d *daemon) pulse(ctx context.Context, name string, probe, first func(context.Context) error, services ...enforce.Service) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
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

// reloadOnHangup reads the settings file again on SIGHUP. What is wrong keeps the
// old settings in force and is said.
func (d *daemon) reloadOnHangup(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			d.reload(ctx)
		}
	}
}
