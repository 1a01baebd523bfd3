package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/configs"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/devices/neigh"
	"github.com/netcurtain/netcurtain/enforce"
	"github.com/netcurtain/netcurtain/flow/conntrack"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/lists"
	"github.com/netcurtain/netcurtain/observe"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/policy/blocklist"
	"github.com/netcurtain/netcurtain/proxy"
	"github.com/netcurtain/netcurtain/store"
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
	look      chan struct{} // another firewall was loaded
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
		teacher: newTeacher(time.Now), wake: make(chan struct{}, 1), look: make(chan struct{}, 1), hangup: make(chan os.Signal, 1),
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
	go func() { check <- d.kernel.Check(ctx, s.House.LAN) }()
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
