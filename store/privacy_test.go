package store_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/store/storetest"
)

// Invariant 11: of a counted device the bytes are on the disk, the names never;
// not even in a write-ahead log while the daemon runs.
func TestACountedDeviceLeavesNoName(t *testing.T) {
	t.Parallel()
	for _, level := range []devices.LogLevel{devices.LogCounts, devices.LogNone} {
		t.Run(level.String(), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			h := open(t, dir)
			g := storetest.New(1, 1, 500)
			g.Level, g.Tag = level, "hush"
			var lookups, flows int64
			for i := range 3000 {
				e := g.EntryOf(phone, h.now())
				if e.Lookup != nil {
					lookups++
				} else {
					flows++
				}
				h.record(e, lookup(tv, devices.LogNames, h.now(), "tv.example.com", policy.Block))
				if i%700 == 0 {
					h.advance(time.Hour)
				}
			}
			h.record(
				journal.Entry{At: h.now(), Device: phone, Log: level, Event: &journal.Event{Kind: journal.EventFirstContact, Text: "talks to hush org 7"}},
				journal.Entry{At: h.now(), Device: phone, Log: level, Event: &journal.Event{Kind: journal.EventSideDoor, Text: "asked 203.0.1.2"}},
			)
			if err := h.Remember(t.Context()); err != nil {
				t.Fatal(err)
			}
			search := func(when string) {
				all := raw(t, dir)
				if bytes.Contains(all, []byte("hush")) || bytes.Contains(all, []byte("203.0.")) {
					t.Errorf("%s, a name or address of the phone is in a file", when)
				}
				if !bytes.Contains(all, []byte("tv.example.com")) {
					t.Errorf("%s, the television's name is in no file: the search searches nothing", when)
				}
			}
			search("while running")
			totals, err := h.Totals(t.Context(), start)
			if err != nil {
				t.Fatal(err)
			}
			counted := false
			for _, d := range totals {
				if d.Device == phone {
					counted = d.Lookups == lookups && d.Flows == flows && d.BytesOut > 0 && d.Blocked > 0 && d.Organisations == nil
				}
			}
			if counted != (level == devices.LogCounts) {
				t.Errorf("at level %s the phone is in the totals: %+v", level, totals)
			}
			h.stop()
			search("after the stop")
		})
	}
}

// plant records everything that could hold a trace of a device.
func plant(h *house, device devices.ID, word string, rows int) {
	g := storetest.New(7, 1, 3000)
	g.Tag = word
	batch := make([]journal.Entry, 0, rows)
	other := storetest.New(8, 20, 2000)
	for range rows {
		h.advance(50 * time.Millisecond)
		batch = append(batch, g.EntryOf(device, h.now()), other.Entry(h.now()), other.Entry(h.now()))
	}
	batch = append(batch,
		journal.Entry{At: h.now(), Device: device, Log: devices.LogNames, Event: &journal.Event{Kind: journal.EventFirstContact, Text: word + " was called"}},
		journal.Entry{At: h.now(), Event: &journal.Event{Kind: journal.EventHealth, Text: word + " by " + string(device)}},
	)
	h.record(batch...)
}

func TestEraseLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir)
	ctx := t.Context()
	plant(h, tv, "erasme", 20_000)
	if err := h.Remember(ctx); err != nil {
		t.Fatal(err)
	}
	if err := h.Tidy(ctx); err != nil {
		t.Fatal(err)
	}
	plant(h, tv, "erasme", 2000)
	if err := h.SetMode(ctx, tv, devices.ModeGuard, "erasme"); err != nil { // the audit log and no more
		t.Fatal(err)
	}
	if err := h.Unchoose(ctx, tv, "erasme"); err != nil {
		t.Fatal(err)
	}
	aside := h.cfg.LedgerPath + ".corrupt-20260101T000000Z"
	if err := os.WriteFile(aside, []byte("erasme"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"household.db", "ledger.db", "memory.db", filepath.Base(aside)} {
		b, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(b, []byte("erasme")) && f != "ledger.db" { // its part may be in the write-ahead log
			t.Fatalf("nothing planted in %s: the test proves nothing", f)
		}
	}
	before, err := h.Totals(ctx, start.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	h.rec.Record(talk(tv, devices.LogNames, h.now(), "erasme.in.the.queue", flow.Readable, 1, 1))
	n, err := h.Erase(ctx, tv)
	if err != nil {
		t.Fatal(err)
	}
	if n < 5000 {
		t.Errorf("%d rows erased, more than 5000 wanted", n)
	}
	check := func(when string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			for _, word := range []string{"erasme", string(tv)} {
				if n := bytes.Count(b, []byte(word)); n > 0 {
					t.Errorf("%s, %q is %d times in %s", when, word, n, e.Name())
				}
			}
		}
	}
	check("after the erase")
	after, err := h.Totals(ctx, start.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	var others []journal.DeviceTotals
	for _, d := range before {
		if d.Device != tv {
			others = append(others, d)
		}
	}
	equal(t, "the other devices' totals", after, others)
	h.record(talk(tv, devices.LogNames, h.now(), "later.example", flow.Readable, 1, 1))
	if rows, err := h.Flows(ctx, journal.Filter{Device: tv}); err != nil || len(rows) != 1 {
		t.Errorf("after an erase new rows are to be kept: %v, %v", rows, err)
	}
	if _, err := h.Erase(ctx, tv); err != nil {
		t.Fatal(err)
	}
	h.stop()
	check("after the stop")
}

// When a device's level falls, its names can go and its counts stay, as if it
// had been counted from the beginning.
func TestForgetLeavesTheCounts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir)
	ctx := t.Context()
	g := storetest.New(1, 1, 1000)
	g.Tag = "forgetme"
	counted := open(t, t.TempDir())
	for part := range 4 {
		var named, counts []journal.Entry
		for range 1000 {
			h.advance(2 * time.Second)
			e := g.EntryOf(phone, h.now())
			named = append(named, e)
			e.Log = devices.LogCounts
			counts = append(counts, e)
		}
		event := journal.Entry{At: h.now(), Device: phone, Log: devices.LogNames, Event: &journal.Event{Kind: journal.EventFirstContact, Text: "forgetme was called"}}
		named = append(named, event, lookup(tv, devices.LogNames, h.now(), "tv.example.com", policy.Block))
		event.Log = devices.LogCounts
		counts = append(counts, event, lookup(tv, devices.LogNames, h.now(), "tv.example.com", policy.Block))
		counted.advance(h.now().Sub(counted.now()))
		counted.record(counts...)
		if part < 3 {
			h.record(named...)
		} else {
			for _, e := range named { // these still wait when the names are forgotten
				h.rec.Record(e)
			}
		}
		if part == 1 {
			must(t, h.Remember(ctx), counted.Remember(ctx))
		}
	}
	if !bytes.Contains(raw(t, dir), []byte("forgetme")) {
		t.Fatal("nothing planted: the test proves nothing")
	}
	if n, err := h.Forget(ctx, phone); err != nil || n < 1000 {
		t.Fatalf("%d rows, %v", n, err)
	}
	must(t, h.Flush(ctx))
	if bytes.Contains(raw(t, dir), []byte("forgetme")) {
		t.Error("a name is left")
	}
	all := func(h *house) []any {
		totals, err := h.Totals(ctx, start)
		must(t, err)
		days, err := h.Days(ctx, "", start)
		must(t, err)
		dests, err := h.Destinations(ctx, phone, start)
		must(t, err)
		events, err := h.Events(ctx, journal.Filter{})
		must(t, err)
		for i := range events {
			events[i].ID = 0
		}
		return []any{totals, days, dests, events}
	}
	equal(t, "what is left", all(h), all(counted))
}

func TestEraseAllLeavesNoDevice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir)
	plant(h, tv, "erasme", 5000)
	if err := h.Remember(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.EraseAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := raw(t, dir)
	for _, word := range []string{"erasme", "site", "02:00:5e"} {
		if bytes.Contains(all, []byte(word)) {
			t.Errorf("%q is in a file", word)
		}
	}
	if totals, err := h.Totals(t.Context(), time.Time{}); err != nil || len(totals) > 0 {
		t.Errorf("totals after an erase of all: %v, %v", totals, err)
	}
	h.record(lookup(tv, devices.LogNames, h.now(), "later.example", policy.Block))
	if rows, err := h.Lookups(t.Context(), journal.Filter{}); err != nil || len(rows) != 1 {
		t.Errorf("after an erase new rows are to be kept: %v, %v", rows, err)
	}
}

// An erase works without Run too: the command line without a daemon.
func TestEraseWithoutADaemon(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir)
	plant(h, tv, "erasme", 100)
	h.stop()
	s := mustOpen(t, h.cfg)
	defer s.Close()
	if n, err := s.Erase(t.Context(), tv); err != nil || n == 0 {
		t.Fatalf("erased %d rows, %v", n, err)
	}
	if bytes.Contains(raw(t, dir), []byte("erasme")) {
		t.Error("a name is left")
	}
}

func TestHostileTextIsBounded(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	long := string(bytes.Repeat([]byte("x\xff\x00<"), 5000))
	e := talk(devices.ID(long), devices.LogNames, h.now(), long, flow.Readable, 1<<63+5, 2)
	e.Flow.Seen.Reason, e.Flow.Seen.App, e.Flow.Verdict.Rule, e.Flow.Destination.Breaks = long, long, long, long
	h.record(e,
		lookup(tv, devices.LogNames, h.now(), long, policy.Block),
		journal.Entry{Device: devices.ID(long), Event: &journal.Event{Kind: journal.EventKind(long), Text: long}},
		journal.Entry{Device: tv}, // nothing at all
	)
	flows, err := h.Flows(t.Context(), journal.Filter{})
	if err != nil || len(flows) != 1 {
		t.Fatalf("%d flows, %v", len(flows), err)
	}
	if n := len(fmt.Sprint(flows)); n > 3000 {
		t.Errorf("a hostile flow takes %d bytes", n)
	}
	if flows[0].BytesOut < 0 {
		t.Errorf("bytes out is %d", flows[0].BytesOut)
	}
	if rows, err := h.Lookups(t.Context(), journal.Filter{}); err != nil || len(rows) != 1 {
		t.Errorf("%d look-ups, %v", len(rows), err)
	}
}
