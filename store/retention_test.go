package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/store"
	"github.com/netcurtain/netcurtain/store/storetest"
)

// bytesOf is what a database takes with its companions.
func bytesOf(t testing.TB, path string) int64 {
	t.Helper()
	var sum int64
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if info, err := os.Stat(path + suffix); err == nil {
			sum += info.Size()
		} else if !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	return sum
}

func metric(t testing.TB, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestTheLedgerKeepsToItsBytes(t *testing.T) {
	t.Parallel()
	const budget = 4 << 20
	for _, c := range []struct {
		name string
		step time.Duration             // between entries
		n    int                       // entries, several times the budget
		next func(i int) journal.Entry // at time zero
	}{
		{"a day like any other", 2 * time.Second, 40_000, func() func(int) journal.Entry {
			g := storetest.New(1, 30, 3000)
			return func(int) journal.Entry { return g.Entry(time.Time{}) }
		}()},
		{"a device that asks for a new long name every time, within one hour", 10 * time.Millisecond, 20_000, func(i int) journal.Entry {
			return lookup(tv, devices.LogNames, time.Time{}, fmt.Sprintf("%d.%s.example", i, strings.Repeat("x", 200)), policy.Block)
		}},
		{"a device that reaches somebody new every time, whose organisation nobody knows", 10 * time.Millisecond, 20_000, func(i int) journal.Entry {
			x := strings.Repeat("x", 60)
			e := lookup(tv, devices.LogNames, time.Time{}, fmt.Sprintf("%s.%s.%s.n%d-%s.example", x, x, x, i, x[:50]), []policy.Action{policy.Block, policy.Allow}[i%2])
			return to("", e)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reg := prometheus.NewRegistry()
			h := open(t, t.TempDir(), func(c *store.Config) { c.Bytes, c.Registerer = budget, reg })
			var most int64
			for i := 0; i < c.n; {
				batch := make([]journal.Entry, 500)
				for j := range batch {
					h.advance(c.step)
					batch[j] = c.next(i)
					batch[j].At = h.now()
					if f := batch[j].Flow; f != nil {
						f.First, f.Last = h.now(), h.now()
					}
					i++
				}
				h.record(batch...)
				most = max(most, bytesOf(t, h.cfg.LedgerPath))
			}
			if most > budget {
				t.Errorf("the ledger took %d bytes at its biggest, %d are allowed", most, budget)
			}
			if most < budget/2 {
				t.Errorf("the ledger never took more than %d bytes: the test fills nothing", most)
			}
			if n := metric(t, reg, "netcurtain_store_rows_pruned_total"); n < 1000 {
				t.Errorf("%v rows pruned according to the metric", n)
			}
			if totals, err := h.Totals(t.Context(), time.Time{}); err != nil || totals[0].Blocked == 0 {
				t.Errorf("totals: %v, %v", totals, err)
			}
			sameRollUps(t, h, c.name)
			strangers, err := strconv.Atoi(ask(t, h.cfg.LedgerPath, "SELECT count(*) FROM partner WHERE known = 0"))
			if err != nil || strangers > c.n/4 { // half of all were reached
				t.Errorf("%d strangers are kept, %v: they went with nothing", strangers, err)
			}
			// What is oldest went, what is newest is there.
			rows, err := h.Lookups(t.Context(), journal.Filter{Limit: 1000})
			if err != nil || len(rows) < 100 {
				t.Fatalf("%d look-ups left, %v", len(rows), err)
			}
			if age := h.now().Sub(rows[0].At); age > time.Minute {
				t.Errorf("the newest look-up is %s old", age)
			}
			if !strings.Contains(h.log.String(), "pruned") {
				t.Error("the log does not say that rows were pruned")
			}
		})
	}
}

func TestRowsGoWithAge(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), func(c *store.Config) { c.Age = 24 * time.Hour })
	for i := range 72 { // three days
		h.record(
			lookup(tv, devices.LogNames, h.now(), fmt.Sprintf("hour%d.example", i), policy.Block),
			talk(tv, devices.LogNames, h.now(), fmt.Sprintf("hour%d.example", i), flow.Encrypted, 1, 1),
			journal.Entry{At: h.now(), Event: &journal.Event{Kind: journal.EventHealth, Text: fmt.Sprint("event ", i)}},
		)
		h.advance(time.Hour)
	}
	if err := h.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The hour in which the age ends is kept whole.
	for _, c := range []struct{ query, want string }{
		{"SELECT count(*) FROM flow", "24"},
		{"SELECT count(*) FROM lookup", "24"},
		{"SELECT count(*) FROM hour", "48"},
		{"SELECT count(*) FROM destination", "25"},
		{"SELECT count(*) FROM verdict", "26"},
		{"SELECT count(*) FROM event", "72"}, // rare events stay
		{"SELECT min(name) FROM destination WHERE id > 0", "hour48.example"},
	} {
		if got := ask(t, h.cfg.LedgerPath, c.query); got != c.want {
			t.Errorf("%s: %s, %s wanted", c.query, got, c.want)
		}
	}
	h.advance(100 * time.Hour)
	if err := h.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, h.cfg.LedgerPath, "SELECT count(*) FROM device"); got != "0" {
		t.Errorf("%s devices left when all rows are gone", got)
	}
}

// Routers wake with the wrong date. Steps lose nothing, double nothing, and
// leave the order of what happened.
func TestClockSteps(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	var want []string
	for i, step := range []time.Duration{0, time.Second, -3 * time.Hour, time.Second, 30 * time.Hour, -30 * time.Hour, 5 * time.Hour} {
		h.advance(step)
		name := fmt.Sprintf("n%d.example", i)
		want = append([]string{name}, want...)
		h.record(lookup(tv, devices.LogNames, h.now(), name, policy.Allow))
	}
	var got []string
	var before int64
	for {
		rows, err := h.Lookups(t.Context(), journal.Filter{Device: tv, Before: before, Limit: 2})
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) == 0 {
			break
		}
		for _, r := range rows {
			got = append(got, r.Name)
			before = r.ID
			if r.ID >= 1<<53 {
				t.Errorf("id %d is more than a browser can count to", r.ID)
			}
		}
	}
	equal(t, "order", got, want)
	totals, err := h.Totals(t.Context(), h.now().Add(-24*time.Hour))
	if err != nil || len(totals) != 1 || totals[0].Lookups != int64(len(want)) {
		t.Errorf("totals: %+v, %v", totals, err)
	}
	// What the clock said decides, also where ids run ahead of it.
	rows, err := h.Lookups(t.Context(), journal.Filter{Since: start, Until: start.Add(time.Minute)})
	if err != nil || len(rows) != 2 {
		t.Errorf("within the first minute: %v, %v", rows, err)
	}
	// Likewise for a time whose rows have ids of a later one, with the end of the time alone.
	rows, err = h.Lookups(t.Context(), journal.Filter{Until: start.Add(-2 * time.Hour)})
	if err != nil || len(rows) != 3 || rows[0].Name != "n5.example" || rows[2].Name != "n2.example" {
		t.Errorf("until two hours before: %v, %v", rows, err)
	}
	// An entry from the future drags no other there.
	h.record(lookup(phone, devices.LogNames, h.now().Add(1000*time.Hour), "future.example", policy.Allow))
	h.record(lookup(phone, devices.LogNames, h.now(), "now.example", policy.Allow))
	if id := ask(t, h.cfg.LedgerPath, "SELECT max(id) >> 20 FROM lookup"); id > strconv.FormatInt(h.now().Add(31*time.Hour).Unix(), 10) {
		t.Errorf("newest id is of second %s", id)
	}
}

func TestReadersWhileWriting(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), func(c *store.Config) { c.FlushEvery = 2 * time.Millisecond; c.Now = time.Now })
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var readers sync.WaitGroup
	var reads, rows atomic.Int64
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				totals, err := h.Totals(ctx, time.Now().Add(-time.Hour))
				if err == nil && len(totals) > 0 {
					_, err = h.Destinations(ctx, totals[0].Device, time.Time{})
				}
				var page []journal.FlowRow
				if err == nil {
					page, err = h.Flows(ctx, journal.Filter{Limit: 10})
				}
				if err == nil {
					_, err = h.Lookups(ctx, journal.Filter{Blocked: true, Limit: 10})
				}
				if err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
				reads.Add(1)
				rows.Add(int64(len(page)))
			}
		})
	}
	g := storetest.New(3, 20, 2000)
	written := 0
	enough := func() bool { return time.Since(began) > 2*time.Second && reads.Load() >= 10 && rows.Load() > 0 }
	for i := 0; ctx.Err() == nil && !enough(); i++ {
		if written < 90_000 { // as many as may wait
			h.rec.Record(g.Entry(time.Now()))
			written++
		}
		if i%200 == 0 {
			time.Sleep(2 * time.Millisecond)
		}
		if i%20_000 == 5000 {
			if _, err := h.Erase(context.Background(), storetest.DeviceID(3)); err != nil {
				t.Error(err)
			}
		}
	}
	cancel()
	readers.Wait()
	if reads.Load() < 10 || rows.Load() == 0 {
		t.Errorf("%d rounds of reading saw %d flows while %d entries were written", reads.Load(), rows.Load(), written)
	}
}

// An erase puts another file in the ledger's place: a page that takes long is
// interrupted and begins again, and holds up neither the erase nor other pages.
func TestNobodyWaitsForASlowReader(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	h.record(lookup(tv, devices.LogNames, h.now(), "a.example", policy.Block))
	begun := make(chan struct{}, 10)
	tries := 0
	slow := make(chan error, 1)
	go func() {
		slow <- h.Ask(t.Context(), func(ctx context.Context) error {
			tries++
			begun <- struct{}{}
			if tries > 1 {
				return nil
			}
			<-ctx.Done() // for ever, if nobody interrupts
			return ctx.Err()
		})
	}()
	<-begun
	if _, err := h.Erase(t.Context(), tv); err != nil {
		t.Fatal(err)
	}
	if err := <-slow; err != nil || tries != 2 {
		t.Errorf("the slow reader: %v after %d tries, an answer after 2 wanted", err, tries)
	}
	// One that gives up by itself is not asked again.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Lookups(ctx, journal.Filter{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a reader that gave up: %v", err)
	}
}

func TestTheMemoryOutlivesTheLedger(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir)
	event := func(text string) journal.Entry {
		return journal.Entry{At: h.now(), Device: tv, Log: devices.LogNames, Event: &journal.Event{Kind: journal.EventFirstContact, Text: text}}
	}
	day := func() {
		h.record(
			talk(tv, devices.LogNames, h.now(), "a.example", flow.Encrypted, 100, 1000),
			talk(tv, devices.LogNames, h.now(), "b.example", flow.Encrypted, 1, 2),
			talk(phone, devices.LogCounts, h.now(), "secret.example", flow.Readable, 7, 8),
			event("on "+h.now().Format("Monday")),
		)
	}
	day()
	if err := h.Tidy(t.Context()); err != nil { // the same day: nothing is due
		t.Fatal(err)
	}
	if got := ask(t, h.cfg.MemoryPath, "SELECT count(*) FROM day"); got != "0" {
		t.Errorf("the memory was written on the same day: %s rows", got)
	}
	h.advance(24 * time.Hour)
	day()
	if err := h.Tidy(t.Context()); err != nil { // another day: due
		t.Fatal(err)
	}
	if got := ask(t, h.cfg.MemoryPath, "SELECT count(*) FROM day"); got == "0" {
		t.Error("the memory was not written on the next day")
	}
	day() // the same day once more, after the memory was written
	d1, d2 := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC), time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	want := []journal.DayTotals{
		{Day: d2, Device: tv, Organisation: "Tracker Inc", Protection: "encrypted", BytesOut: 202, BytesIn: 2004, Flows: 4},
		{Day: d2, Device: phone, Protection: "readable", BytesOut: 14, BytesIn: 16, Flows: 2},
		{Day: d1, Device: tv, Organisation: "Tracker Inc", Protection: "encrypted", BytesOut: 101, BytesIn: 1002, Flows: 2},
		{Day: d1, Device: phone, Protection: "readable", BytesOut: 7, BytesIn: 8, Flows: 1},
	}
	check := func(when string) {
		t.Helper()
		got, err := h.Days(t.Context(), "", start)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "days "+when, got, want)
		events, err := h.Events(t.Context(), journal.Filter{Device: tv})
		if err != nil {
			t.Fatal(err)
		}
		var texts []string
		for _, e := range events {
			texts = append(texts, e.Text)
		}
		equal(t, "events "+when, texts, []string{"on Saturday", "on Saturday", "on Friday"})
	}
	check("while running")
	h.stop()
	later := h.now()
	// A restart with all files, then a power cut that takes the ledger in RAM.
	for _, when := range []string{"after a restart", "after a power cut", "after another restart"} {
		if when == "after a power cut" {
			for _, suffix := range []string{"", "-wal", "-shm"} {
				if err := os.Remove(h.cfg.LedgerPath + suffix); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
			}
		}
		h = open(t, dir)
		h.advance(later.Sub(start))
		check(when)
		h.stop()
	}
	if got := string(raw(t, dir)); strings.Contains(got, "secret.example") {
		t.Error("the phone's destination is in a file")
	}
}

// The power goes after memory.db took a portion and before the ledger forgot it.
func TestAPortionIsRememberedOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir)
	h.record(talk(tv, devices.LogNames, h.now(), "a.example", flow.Encrypted, 100, 1000))
	ledger, err := os.ReadFile(h.cfg.LedgerPath)
	if err != nil {
		t.Fatal(err)
	}
	wal, err := os.ReadFile(h.cfg.LedgerPath + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Remember(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.stop()
	write(t, h.cfg.LedgerPath, ledger)
	write(t, h.cfg.LedgerPath+"-wal", wal)
	h = open(t, dir)
	h.record(talk(tv, devices.LogNames, h.now(), "a.example", flow.Encrypted, 1, 1))
	if err := h.Remember(t.Context()); err != nil {
		t.Fatal(err)
	}
	days, err := h.Days(t.Context(), tv, start)
	if err != nil || len(days) != 1 || days[0].BytesOut != 101 || days[0].Flows != 2 {
		t.Errorf("days: %+v, %v", days, err)
	}
}

func TestTheMemoryKeepsToItsBytes(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir(), func(c *store.Config) { c.MemoryBytes = 512 << 10 })
	for range 30 { // it is full after a dozen
		var batch []journal.Entry
		for i := range 800 {
			e := talk(storetest.DeviceID(i%40), devices.LogNames, h.now(), "a.example", flow.Encrypted, 1, 1)
			e.Flow.Destination.Organisation = fmt.Sprintf("organisation number %d", i)
			batch = append(batch, e)
		}
		h.record(batch...)
		h.advance(24 * time.Hour)
		if err := h.Remember(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := bytesOf(t, h.cfg.MemoryPath); n > 512<<10 {
			t.Fatalf("memory takes %d bytes", n)
		}
	}
	days, err := h.Days(t.Context(), "", time.Time{})
	if err != nil || len(days) < 5*800 || !days[0].Day.After(h.now().Add(-48*time.Hour)) {
		t.Errorf("%d rows, %v", len(days), err)
	}
}

// What a batch holds when it cannot be written is lost, counted, and the store goes on.
func TestAFullDiskCostsRowsAndNothingElse(t *testing.T) {
	t.Parallel()
	small := filepath.Join(t.TempDir(), "small")
	mountSmall(t, small, 4<<20)
	reg := prometheus.NewRegistry()
	h := open(t, t.TempDir(), func(c *store.Config) {
		c.LedgerPath, c.Bytes, c.Registerer = filepath.Join(small, "ledger.db"), 64<<20, reg
	})
	g := storetest.New(1, 30, 3000)
	failed, well := 0, false
	for i := 0; i < 120 || !well && i < 130; i++ { // until one is written again, if the last was not
		for range 500 {
			h.advance(3 * time.Second)
			h.rec.Record(g.Entry(h.now()))
		}
		if well = h.Flush(t.Context()) == nil; !well {
			failed++
		}
	}
	if n := metric(t, reg, "netcurtain_store_rows_dropped_total"); failed == 0 || n == 0 {
		t.Fatalf("%d batches failed, %v rows counted as dropped: the disk was never full", failed, n)
	}
	if failed > 40 {
		t.Errorf("%d of 120 batches failed: nothing made room", failed)
	}
	rows, err := h.Lookups(t.Context(), journal.Filter{})
	if err != nil || len(rows) == 0 || h.now().Sub(rows[0].At) > 2*time.Hour {
		t.Errorf("after a full disk: %d rows, %v", len(rows), err)
	}
	t.Logf("%d of 120 batches failed", failed)
}
