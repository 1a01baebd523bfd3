package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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
	lan        atomic.Pointer[[]netip.Prefix]      // the networks of the LAN interfaces
	teacher    *teacher                            // recognises other resolvers in the house
	unanswered atomic.Bool                         // a look-up failed since the upstreams were last asked
	asks       []netip.Addr                        // the resolvers that we ask; never changed once live

	problems  atomic.Pointer[[]enforce.Problem] // what keeps this box from doing all, as last checked
	checked   func() error                      // waits for the first check
	lock      *os.File                          // of the state folder, held until we end
	store     *store.Store
	recorder  *journal.Recorder
	unwritten *journal.Subscription // the store's
	registry  *devices.Registry
	engine    *policy.Engine
	index     atomic.Pointer[blocklist.Index]
	atlas     *atlas.Atlas
	kernel    *enforce.Kernel
	neigh     *neigh.Table
	strangers strangers // whom it does not know
	tracker   *conntrack.Table
	observer  *observe.Observer
	blocks    *blocker
	carrier   *proxy.Proxy // nil: nothing is carried
	ruleEnds  atomic.Int64 // when the next rule comes to its end, in Unix nanoseconds; 0: none does
	health    *health
	wake      chan struct{} // the household chose something
	hangup    chan os.Signal
	on        atomic.Bool
	keeper    *lists.Lists
	counts    *listCounts
	catalogue []configs.PublicList // never changed once made
	reloaded  prometheus.Gauge     // 1 while the settings file in force is the newest
}

// Run is the daemon: it wires the rooms, runs them and puts back what it changed.
func (c runCmd) Run(ctx context.Context, io std) error {
	log := c.logger(io)
	if c.UntilFD > 0 {
		var cancel context.CancelFunc
		ctx, cancel = untilClosed(ctx, os.NewFile(uintptr(c.UntilFD), "starter"))
		defer cancel()
	}
	d := &daemon{
		cmd: c, log: log, metrics: prometheus.NewRegistry(), engine: policy.NewEngine(nil),
		teacher: newTeacher(time.Now), wake: make(chan struct{}, 1), hangup: make(chan os.Signal, 1),
	}
	// From the first moment to the last: whoever reloads us while we start or stop
	// must not kill us half-way.
	signal.Notify(d.hangup, syscall.SIGHUP)
	defer signal.Stop(d.hangup)
	settings, err := c.read()
	if err != nil {
		return err
	}
	d.settings.Store(&settings)
	if err := fitMemory(); err != nil {
		return err
	}
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

// untilClosed ends the context when the other end of the pipe closes: whoever
// started us is gone.
func untilClosed(ctx context.Context, pipe *os.File) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = pipe.Read(make([]byte, 1))
		cancel()
	}()
	return ctx, cancel
}

// ready opens and makes everything that can fail, before anything is changed.
func (d *daemon) ready(ctx context.Context) (err error) {
	s := d.settings.Load()
	if d.kernel, err = enforce.New(enforce.Config{
		Logger: d.log, CutFile: filepath.Join(s.House.State, "cut.nft"), Registerer: d.metrics, Marks: marks(s),
	}); err != nil {
		return err
	}
	if err := d.judgeBox(enforce.CheckRights()); err != nil {
		return err
	}
	// The rest are runs of nft, which neither look-ups nor databases need wait for.
	check := make(chan []enforce.Problem, 1)
	go func() { check <- d.kernel.Check(ctx) }()
	d.checked = sync.OnceValue(func() error { return d.judgeBox(<-check) })
	for _, dir := range []string{s.House.State, s.House.Volatile, filepath.Join(s.House.State, "lists")} {
		if err := ownFolder(dir); err != nil {
			return err
		}
	}
	if d.lock, err = lockHouse(s.House.State); err != nil {
		return err
	}
	files := storeConfig(s)
	files.Logger, files.Registerer = d.log, d.metrics
	files.Health = d.fileHealth // when the store runs, there is a d.health
	if d.store, err = store.Open(ctx, files); err != nil {
		return err
	}
	if d.recorder, err = journal.NewRecorder(journal.Config{Registerer: d.metrics}); err != nil {
		return err
	}
	d.unwritten = d.recorder.Subscribe("store", unwrittenEntries)
	told, err := d.store.Told(ctx)
	if err != nil {
		return err
	}
	d.recorder.Remember(told)
	d.health = newHealth(d.recorder, time.Now)
	d.fileHealth("ledger", nil)
	if d.catalogue, err = configs.Catalogue(); err != nil {
		return err
	}
	return errors.Join(d.knowDevices(ctx), d.readListCounts(ctx), d.watch())
}

// judgeBox says what keeps this box from doing all; what keeps it from doing anything is an error.
func (d *daemon) judgeBox(problems []enforce.Problem) error {
	d.problems.Store(&problems)
	for _, p := range problems {
		if p.Fatal {
			return errors.New(p.String())
		}
		d.log.Warn("this box cannot do all", "problem", p.What, "mend", p.Fix)
	}
	return nil
}

// fileHealth says whether what devices do is written down, and what outlives that.
func (d *daemon) fileHealth(file string, err error) {
	what, folder := "what devices do is", d.settings.Load().House.Volatile
	if file == "memory" {
		what, folder = "the sums of the days are", d.settings.Load().House.State
	}
	well := strings.ToUpper(what[:1]) + what[1:] + " written down."
	if err != nil {
		err = fmt.Errorf("%s not written down: %w", what, err)
	}
	d.health.set(file, err, well, "make room in "+folder+", see that it can be written to, and that no other program holds "+file+".db; it goes on by itself")
}

// storeConfig says where the files of a house are, and how much they keep.
func storeConfig(s *configs.Settings) store.Config {
	return store.Config{
		HouseholdPath: filepath.Join(s.House.State, "household.db"),
		LedgerPath:    filepath.Join(s.House.Volatile, "ledger.db"),
		MemoryPath:    filepath.Join(s.House.State, "memory.db"),
		Age:           s.Store.Age, Bytes: s.Store.Bytes, MemoryBytes: s.Store.MemoryBytes, FlushEvery: s.Store.Flush,
	}
}

// ownFolder makes a folder that nobody else may read. One that is there already,
// or a link to it, must not be another user's: who may write to /tmp could have
// put it there to read along.
func ownFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making our folder: %w", err)
	}
	for _, stat := range []func(string) (os.FileInfo, error){os.Lstat, os.Stat} {
		info, err := stat(dir)
		if err != nil {
			return fmt.Errorf("our folder: %w", err)
		}
		if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
			return fmt.Errorf("our folder %s belongs to user %d: remove it, or name another in section house, options state and volatile", dir, owner)
		}
	}
	return nil
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
	d.lan.Store(new(lanPrefixes(d.settings.Load().House.LAN)))
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
	d.blocks = newBlocker(d.kernel, time.Now)
	d.observer, err = observe.New(observe.Config{
		Devices: d.registry, Decide: d.engine, Atlas: describer{d.atlas}, Block: d.blocks, Record: followed{d.recorder, d},
		Log: d.log, Metrics: d.metrics,
		Ease: func() { d.unwritten.Ease(longestEase) },
		Own:  func(a netip.Addr) bool { return (*d.own.Load())[a] },
	})
	return err
}

// unwrittenEntries is how many may wait for the ledger's writer, 552 octets each with a flow.
const unwrittenEntries = 8192

// longestEase is how long the observer may wait for the ledger's writer. What the
// kernel cannot keep for us meanwhile a dump of its table tells later; a row that is
// dropped is gone.
const longestEase = time.Second

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

// event takes one connection's news in, unless the house is switched off:
// connection tracking goes on without us, and nothing shall be seen then.
func (d *daemon) event(ctx context.Context) func(flow.Event) {
	return func(e flow.Event) {
		if d.on.Load() {
			d.observer.Tracked(ctx, e)
		}
	}
}

// sight takes one sighting in; a new device is an event, and the kernel may
// have to be told.
func (d *daemon) sight(s devices.Sighting) {
	d.strangers.forget(s.Addr)
	dev, isNew := d.registry.Sight(s)
	if !isNew {
		return
	}
	d.recorder.Record(journal.Entry{At: s.At, Device: dev.ID, Log: dev.Log, Event: &journal.Event{
		Kind: journal.EventNewDevice, Subject: "itself", Text: "A device was seen for the first time.",
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
		err := d.tracker.Dump(ctx, func(e flow.Event) {
			if n++; d.on.Load() {
				d.observer.Tracked(ctx, e)
			}
		})
		d.health.set("counters", err, "Bytes of running connections are counted.", "")
		// A dump of 12,000 entries costs a slow core 20 ms.
		every := 5 * time.Second
		switch {
		case n > 20_000:
			every = 20 * time.Second // within the 30 s that an unanswered datagram is remembered
		case n > 2_000:
			every = 15 * time.Second
		}
		wait.Reset(every)
	}
}

// reloadOnHangup reads the settings file again on SIGHUP. What is wrong keeps the
// old settings in force and is said.
func (d *daemon) reloadOnHangup(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.hangup:
			d.reload(ctx)
		}
	}
}
