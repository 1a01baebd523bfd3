package store_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/store"
)

// start is when the clock of every test begins: half past an hour, so that
// small steps stay within it.
var start = time.Date(2026, 11, 20, 12, 30, 0, 0, time.UTC)

// clock is a clock that only moves when told to.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// house is a store with its journal, running.
type house struct {
	*store.Store
	t    testing.TB
	cfg  store.Config
	rec  *journal.Recorder
	stop func()
	log  *bytes.Buffer
	clock
}

func config(dir string) store.Config {
	return store.Config{
		HouseholdPath: filepath.Join(dir, "household.db"),
		LedgerPath:    filepath.Join(dir, "ledger.db"),
		MemoryPath:    filepath.Join(dir, "memory.db"),
		FlushEvery:    time.Hour, // tests flush
	}
}

// open opens the files in dir and runs the store until the test ends or stop is
// called. Nothing is durable, unless change says (*store.Config).Synced.
func open(t testing.TB, dir string, change ...func(*store.Config)) *house {
	t.Helper()
	h := &house{t: t, log: &bytes.Buffer{}, clock: clock{t: start}}
	h.cfg = config(dir)
	h.cfg.Now = h.now
	h.cfg.Unsynced()
	h.cfg.Logger = slog.New(slog.NewTextHandler(h.log, nil))
	for _, c := range change {
		c(&h.cfg)
	}
	var err error
	if h.Store, err = store.Open(t.Context(), h.cfg); err != nil {
		t.Fatal(err)
	}
	if h.rec, err = journal.NewRecorder(journal.Config{}); err != nil {
		t.Fatal(err)
	}
	sub := h.rec.Subscribe("store", 100_000)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx, sub) }()
	for !h.Running() {
		time.Sleep(time.Millisecond)
	}
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if n := sub.Dropped(); n > 0 {
			t.Errorf("%d entries dropped", n)
		}
		if err := h.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	t.Cleanup(h.stop)
	return h
}

func (h *house) record(entries ...journal.Entry) {
	h.t.Helper()
	for _, e := range entries {
		h.rec.Record(e)
	}
	if err := h.Flush(context.Background()); err != nil {
		h.t.Fatal(err)
	}
}

const (
	tv    devices.ID = "02:00:5e:10:00:01"
	phone devices.ID = "02:00:5e:10:00:02"
)

var tracker = atlas.Destination{Organisation: "Tracker Inc", Purpose: atlas.PurposeAds, Country: "US", Breaks: "nothing"}

func lookup(d devices.ID, level devices.LogLevel, at time.Time, name string, action policy.Action) journal.Entry {
	q := &journal.Lookup{Name: dnsname.Name(name), Type: 1, Destination: tracker, Verdict: policy.Verdict{Action: action}}
	if action == policy.Block {
		q.Rcode = 3
		q.Verdict.Reason, q.Verdict.Rule, q.Verdict.List = policy.ReasonList, "||"+name+"^", "starter"
	}
	return journal.Entry{At: at, Device: d, Log: level, Lookup: q}
}

func talk(d devices.ID, level devices.LogLevel, at time.Time, name string, protection flow.Protection, out, in uint64) journal.Entry {
	return journal.Entry{At: at, Device: d, Log: level, Flow: &journal.Flow{
		Flow: flow.Flow{
			Tuple: flow.NewTuple(flow.TCP, netip.MustParseAddrPort("192.168.1.20:40000"), netip.MustParseAddrPort("203.0.113.7:443")),
			Counters: flow.Counters{
				Orig:  flow.Count{Packets: 3, Bytes: out},
				Reply: flow.Count{Packets: 4, Bytes: in},
			},
			First: at.Add(-time.Second), Last: at, Name: name, NameSource: flow.NameFromSNI,
		},
		Seen:        dissect.Result{App: "tls", Protection: protection, Reason: "TLS 1.3 handshake", TLS: &dissect.TLS{Version: "1.3"}},
		Destination: tracker,
	}}
}

func TestWhatWasRecordedIsAnswered(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	ctx := t.Context()
	now := h.now()
	h.record(
		lookup(tv, devices.LogNames, now, "ads.example.com", policy.Block),
		lookup(tv, devices.LogNames, now, "ads.example.com", policy.Block),
		lookup(tv, devices.LogNames, now, "api.example.com", policy.Undecided),
		talk(tv, devices.LogNames, now, "api.example.com", flow.Encrypted, 1000, 5000),
		talk(tv, devices.LogNames, now, "api.example.com", flow.Readable, 10, 20),
		talk(phone, devices.LogCounts, now, "secret.example.net", flow.Encrypted, 7, 8),
		journal.Entry{At: now, Device: tv, Log: devices.LogNames, Event: &journal.Event{Kind: journal.EventFirstContact, Text: "talks to Tracker Inc"}},
	)
	totals, err := h.Totals(ctx, now.Add(-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "totals", totals, []journal.DeviceTotals{
		{Device: tv, BytesOut: 1010, BytesIn: 5020, Flows: 2, ReadableFlows: 1, ReadableBytes: 10, Lookups: 3, Blocked: 2,
			Organisations: []string{"Tracker Inc"}, LastActive: now},
		{Device: phone, BytesOut: 7, BytesIn: 8, Flows: 1, LastActive: now},
	})
	dests, err := h.Destinations(ctx, tv, now.Add(-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "destinations", dests, []journal.DestinationTotals{
		{Name: "api.example.com", NameSource: "sni", Organisation: "Tracker Inc", Purpose: "ads", Country: "US", Breaks: "nothing",
			BytesOut: 1010, BytesIn: 5020, Flows: 2, Lookups: 1, Readable: 1, Encrypted: 1, Why: "TLS 1.3 handshake",
			Verdict: "none", First: now.Add(-time.Second), Last: now},
		{Name: "ads.example.com", NameSource: "", Organisation: "Tracker Inc", Purpose: "ads", Country: "US", Breaks: "nothing",
			Lookups: 2, Blocked: 2, Verdict: "block", Reason: "list", Rule: "||ads.example.com^", List: "starter", First: now, Last: now},
	})
	flows, err := h.Flows(ctx, journal.Filter{Device: tv, Readable: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range flows {
		flows[i].ID = 0
	}
	equal(t, "readable flows", flows, []journal.FlowRow{{
		Device: tv, First: now.Add(-time.Second), Last: now, Proto: "tcp",
		Src: netip.MustParseAddrPort("192.168.1.20:40000"), Dst: netip.MustParseAddrPort("203.0.113.7:443"),
		App: "tls", Protection: "readable", Why: "TLS 1.3 handshake", Name: "api.example.com", NameSource: "sni", TLSVersion: "1.3",
		Organisation: "Tracker Inc", Purpose: "ads", Country: "US", BytesOut: 10, BytesIn: 20, PacketsOut: 3, PacketsIn: 4, Verdict: "none", Parts: 1,
	}})
	lookups, err := h.Lookups(ctx, journal.Filter{Device: tv, Blocked: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range lookups {
		lookups[i].ID = 0
	}
	equal(t, "blocked look-ups", lookups, []journal.LookupRow{{
		At: now, Device: tv, Name: "ads.example.com", Type: 1, Rcode: 3, Verdict: "block", Reason: "list",
		Rule: "||ads.example.com^", List: "starter", Organisation: "Tracker Inc", Count: 2,
	}})
	events, err := h.Events(ctx, journal.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range events {
		events[i].ID = 0
	}
	equal(t, "events", events, []journal.EventRow{{At: now, Device: tv, Kind: journal.EventFirstContact, Text: "talks to Tracker Inc"}})
}

// Whoever asked for a flush may be gone before it is done.
func TestACancelledFlushLosesNothing(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	const rounds = 40
	for i := range rounds {
		ctx, cancel := context.WithCancel(t.Context())
		h.rec.Record(talk(tv, devices.LogNames, h.now(), "a.example", flow.Encrypted, 1, 1))
		go cancel()
		if i%2 == 0 {
			h.Flush(ctx) // done or cancelled, both are right
		} else {
			h.Erase(ctx, phone)
		}
	}
	h.record()
	if rows, err := h.Flows(t.Context(), journal.Filter{}); err != nil || len(rows) != rounds {
		t.Errorf("%d flows, %v; %d wanted", len(rows), err, rounds)
	}
}

func mustOpen(t testing.TB, cfg store.Config) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// raw is every byte of every file in dir.
func raw(t testing.TB, dir string) []byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}
