package store_test

import (
	"database/sql"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
)

// part is the n-th entry of one long flow: what it did since the one before.
func part(h *house, d devices.ID, level devices.LogLevel, n int, out, in uint64) journal.Entry {
	e := talk(d, level, h.now(), "stream.example.com", flow.Encrypted, out, in)
	e.Flow.Part, e.Flow.First = n, start
	return e
}

// totals is what the day's totals say of one device.
func totals(t *testing.T, h *house, d devices.ID) journal.DeviceTotals {
	t.Helper()
	all, err := h.Totals(t.Context(), start)
	must(t, err)
	for _, one := range all {
		if one.Device == d {
			return one
		}
	}
	return journal.DeviceTotals{}
}

func flowsOf(t *testing.T, h *house, d devices.ID) []journal.FlowRow {
	t.Helper()
	rows, err := h.Flows(t.Context(), journal.Filter{Device: d})
	must(t, err)
	return rows
}

// A stream of hours is one flow, told of every minute: in one batch, in
// several, and over the hour.
func TestThePartsOfAFlowAreOneFlow(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	for _, level := range []devices.LogLevel{devices.LogNames, devices.LogCounts} {
		d := map[devices.LogLevel]devices.ID{devices.LogNames: tv, devices.LogCounts: phone}[level]
		h.record(part(h, d, level, 0, 100, 1000), part(h, d, level, 1, 20, 200))
	}
	h.advance(time.Hour)
	h.record(part(h, tv, devices.LogNames, 2, 3, 30), part(h, phone, devices.LogCounts, 2, 3, 30))

	equal(t, "the television's totals", totals(t, h, tv), journal.DeviceTotals{
		Device: tv, BytesOut: 123, BytesIn: 1230, Flows: 1, Organisations: []string{"Tracker Inc"}, LastActive: h.now()})
	equal(t, "the phone's totals", totals(t, h, phone), journal.DeviceTotals{
		Device: phone, BytesOut: 123, BytesIn: 1230, Flows: 1, LastActive: h.now()})
	dests, err := h.Destinations(t.Context(), tv, start)
	must(t, err)
	if len(dests) != 1 || dests[0].Flows != 1 || dests[0].Encrypted != 1 || dests[0].BytesOut != 123 || dests[0].BytesIn != 1230 {
		t.Errorf("destinations: %+v", dests)
	}
	rows := flowsOf(t, h, tv)
	if len(rows) != 1 {
		t.Fatalf("%d rows, one wanted: %+v", len(rows), rows)
	}
	r := rows[0]
	if r.BytesOut != 123 || r.BytesIn != 1230 || r.PacketsOut != 9 || r.PacketsIn != 12 || !r.First.Equal(start) || !r.Last.Equal(h.now()) {
		t.Errorf("the row is %+v", r)
	}
	if rows := flowsOf(t, h, phone); len(rows) > 0 {
		t.Errorf("of the counted phone there are rows: %+v", rows)
	}
	days, err := h.Days(t.Context(), "", start)
	must(t, err)
	for _, d := range days {
		if d.Flows != 1 || d.BytesOut != 123 {
			t.Errorf("of the day is kept: %+v", d)
		}
	}
}

// What a flow is may show late: by then its first bytes stand under another protection,
// and, where DNS was slow, under its address. They move, in whichever batch and hour.
func TestWhatIsUnderstoodLate(t *testing.T) {
	t.Parallel()
	late := func(h *house, d devices.ID, level devices.LogLevel) (first, second journal.Entry) {
		first, second = part(h, d, level, 0, 100, 1000), part(h, d, level, 1, 20, 200)
		first.Flow.Seen = dissect.Result{App: "unknown"}
		first.Flow.Name, first.Flow.NameSource, first.Flow.Destination = "", flow.NameFromAddress, atlas.Destination{}
		second.Flow.Seen = dissect.Result{App: "http", Protection: flow.Readable, Reason: "HTTP without TLS"}
		return first, second
	}
	for _, c := range []struct {
		name   string
		record func(h *house, first, second journal.Entry)
	}{
		{"in one batch", func(h *house, first, second journal.Entry) { h.record(first, second) }},
		{"in another", func(h *house, first, second journal.Entry) { h.record(first); h.record(second) }},
		{"in another hour", func(h *house, first, second journal.Entry) {
			h.record(first)
			h.advance(time.Hour)
			second.At, second.Flow.Last = h.now(), h.now()
			h.record(second)
		}},
		{"after the day was saved", func(h *house, first, second journal.Entry) {
			h.record(first)
			must(t, h.Remember(t.Context()))
			h.record(second)
		}},
	} {
		for level, d := range map[devices.LogLevel]devices.ID{devices.LogNames: tv, devices.LogCounts: phone} {
			t.Run(c.name+", "+level.String(), func(t *testing.T) {
				t.Parallel()
				h := open(t, t.TempDir())
				h.record(talk(d, level, h.now(), "other.example.com", flow.Encrypted, 5, 50)) // stays where it is
				first, second := late(h, d, level)
				c.record(h, first, second)
				more := part(h, d, level, 2, 3, 30)
				more.Flow.Seen = second.Flow.Seen
				h.record(more)

				got := totals(t, h, d)
				if got.BytesOut != 128 || got.Flows != 2 || got.ReadableFlows != 1 || got.ReadableBytes != 123 {
					t.Errorf("the totals are %+v", got)
				}
				if level == devices.LogNames {
					equal(t, "whom it reached", got.Organisations, []string{"Tracker Inc"})
				}
				dests, err := h.Destinations(t.Context(), d, start)
				must(t, err)
				var readable, bytes int64
				for _, one := range dests {
					readable += one.Readable
					bytes += one.BytesOut
					if one.CannotTell != 0 || one.Name == "203.0.113.7" || level == devices.LogNames && one.Name == "stream.example.com" && (one.BytesOut != 123 || one.BytesIn != 1230) {
						t.Errorf("a destination is %+v", one)
					}
				}
				if readable != 1 || bytes != 128 {
					t.Errorf("the destinations are %+v", dests)
				}
				for _, r := range flowsOf(t, h, d) {
					if r.BytesOut == 123 && (r.Name != "stream.example.com" || r.Protection != "readable") || r.BytesOut != 123 && r.BytesOut != 5 {
						t.Errorf("a row is %+v", r)
					}
				}
				must(t, h.Remember(t.Context()))
				days, err := h.Days(t.Context(), d, start)
				must(t, err)
				var out, flows int64
				for _, day := range days {
					out += day.BytesOut
					flows += day.Flows
				}
				if out != 128 || flows != 2 {
					t.Errorf("the days are %+v", days)
				}
			})
		}
	}
}

// Flows that are alike but for their beginning are two.
func TestTheNextFlowOfTheSamePortsIsAnother(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	next := part(h, tv, devices.LogNames, 0, 7, 70)
	next.Flow.First = start.Add(time.Minute)
	more := part(h, tv, devices.LogNames, 1, 1, 1)
	more.Flow.First = next.Flow.First
	h.record(part(h, tv, devices.LogNames, 0, 100, 1000), next, more)
	rows := flowsOf(t, h, tv)
	if len(rows) != 2 || rows[0].BytesOut != 8 || rows[1].BytesOut != 100 {
		t.Errorf("rows: %+v", rows)
	}
	if n := totals(t, h, tv).Flows; n != 2 {
		t.Errorf("%d flows, two wanted", n)
	}
}

// A household may block what already runs: then that is what is told.
func TestAFlowThatIsCutSaysSo(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	for level, d := range map[devices.LogLevel]devices.ID{devices.LogNames: tv, devices.LogCounts: phone} {
		h.record(part(h, d, level, 0, 100, 1000))
		cut := part(h, d, level, 1, 1, 0)
		cut.Flow.Verdict = policy.Verdict{Action: policy.Block, Reason: policy.ReasonRule, Rule: "stream.example.com"}
		cut.Flow.Seen.TLS = &dissect.TLS{Version: "1.0", Weak: []string{"its version (1.0) is outdated"}}
		cut.Flow.CarriedEncrypted, cut.Flow.Late = true, journal.Blocked|journal.Weak|journal.Carried
		h.record(cut)
		last := part(h, d, level, 2, 2, 0)
		last.Flow.Verdict, last.Flow.Seen, last.Flow.CarriedEncrypted = cut.Flow.Verdict, cut.Flow.Seen, true
		h.advance(time.Hour) // in whichever batch and hour
		h.record(last)
		if got := totals(t, h, d); got.Blocked != 1 || got.Weak != 1 || got.Flows != 1 || got.BytesOut != 103 {
			t.Errorf("%s: the totals are %+v", d, got)
		}
		dests, err := h.Destinations(t.Context(), d, start)
		must(t, err)
		if len(dests) != 1 || dests[0].Blocked != 1 || dests[0].Weak != 1 || dests[0].Carried != 1 || dests[0].Flows != 1 {
			t.Errorf("%s: the destinations are %+v", d, dests)
		}
		days, err := h.Days(t.Context(), d, start)
		must(t, err)
		if len(days) != 1 || days[0].Blocked != 1 || days[0].Flows != 1 {
			t.Errorf("%s: the days are %+v", d, days)
		}
	}
	rows, err := h.Flows(t.Context(), journal.Filter{Blocked: true})
	must(t, err)
	if len(rows) != 1 || rows[0].Verdict != "block" || rows[0].Rule != "stream.example.com" || rows[0].BytesOut != 103 {
		t.Errorf("blocked flows: %+v", rows)
	}
}

// What came before an erase, a forgetting or a pruning is gone; what a running
// flow does afterwards is kept in a row of its own, and never in a stranger's.
func TestAFurtherPartAfterTheRowIsGone(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		gone  func(h *house) error
		bytes int64 // of the totals afterwards
	}{
		{"erased", func(h *house) error { _, err := h.Erase(t.Context(), tv); return err }, 5},
		{"all erased", func(h *house) error { _, err := h.EraseAll(t.Context()); return err }, 5},
		{"forgotten", func(h *house) error { _, err := h.Forget(t.Context(), tv); return err }, 105},
		{"aged", func(h *house) error { h.advance(30 * 24 * time.Hour); return h.Tidy(t.Context()) }, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := open(t, t.TempDir())
			h.record(part(h, tv, devices.LogNames, 0, 100, 1000))
			must(t, c.gone(h))
			// Takes the row's number, if numbers are given twice.
			other := talk(phone, devices.LogNames, h.now(), "other.example.com", flow.Encrypted, 1, 1)
			h.record(other)
			h.record(part(h, tv, devices.LogNames, 1, 2, 20), part(h, tv, devices.LogNames, 2, 3, 30))
			rows := flowsOf(t, h, tv)
			if len(rows) != 1 || rows[0].BytesOut != 5 || rows[0].BytesIn != 50 {
				t.Errorf("rows: %+v", rows)
			}
			if rows := flowsOf(t, h, phone); len(rows) != 1 || rows[0].BytesOut != 1 {
				t.Errorf("the other device's rows: %+v", rows)
			}
			if n := totals(t, h, tv).BytesOut; n != c.bytes {
				t.Errorf("%d bytes in the totals, %d wanted", n, c.bytes)
			}
		})
	}
}

// However late flows are understood, in whichever batches and hours, all that the ledger
// says adds up to the same: rows, sums of hours, of spans and of days, and the totals.
func TestAllSumsAgree(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	rng := rand.New(rand.NewPCG(4, 2))
	seen := []dissect.Result{{App: "unknown"}, {App: "tls", Protection: flow.Encrypted}, {App: "http", Protection: flow.Readable}, {App: "ntp", Protection: flow.Readable, Harmless: true}}
	type sums struct{ Out, In, Flows, ReadableFlows, ReadableBytes int64 }
	type running struct {
		e       journal.Entry
		part    int
		out, in uint64
	}
	want := map[devices.ID]sums{}
	batch := []journal.Entry{}
	for range 40 {
		flows := make([]running, 12)
		for i := range flows {
			d, level := tv, devices.LogNames
			if i%3 == 0 {
				d, level = phone, devices.LogCounts
			}
			e := talk(d, level, h.now(), fmt.Sprintf("a%d.example.com", rng.IntN(5)), flow.CannotTell, 0, 0)
			e.Flow.Tuple.SrcPort, e.Flow.First = uint16(rng.IntN(60000)), h.now()
			flows[i] = running{e: e}
		}
		for step := range 4 {
			for i := range flows {
				f := &flows[i]
				if step > 0 && rng.IntN(3) == 0 {
					continue
				}
				part := *f.e.Flow
				out, in := uint64(rng.IntN(5000)), uint64(rng.IntN(9000))
				part.Part, part.Seen = f.part, seen[rng.IntN(len(seen))]
				part.Counters = flow.Counters{Orig: flow.Count{Packets: 1, Bytes: out}, Reply: flow.Count{Packets: 1, Bytes: in}}
				if step < 2 && rng.IntN(2) == 0 { // DNS did not answer yet
					part.Name, part.NameSource, part.Destination = "", flow.NameFromAddress, atlas.Destination{}
				}
				batch = append(batch, journal.Entry{At: h.now(), Device: f.e.Device, Log: f.e.Log, Flow: &part})
				f.e.Flow.Seen = part.Seen
				f.part++
				f.out, f.in = f.out+out, f.in+in
			}
			if rng.IntN(2) == 0 {
				h.record(batch...)
				batch = batch[:0]
			}
			if rng.IntN(8) == 0 {
				must(t, h.Remember(t.Context()))
			}
			h.advance(time.Duration(rng.IntN(40)) * time.Minute)
		}
		for _, f := range flows {
			w := want[f.e.Device]
			w.Out, w.In, w.Flows = w.Out+int64(f.out), w.In+int64(f.in), w.Flows+1
			if s := f.e.Flow.Seen; s.Protection == flow.Readable && !s.Harmless {
				w.ReadableFlows, w.ReadableBytes = w.ReadableFlows+1, w.ReadableBytes+int64(f.out)
			}
			want[f.e.Device] = w
		}
	}
	h.record(batch...)

	db, err := sql.Open("sqlite3", "file:"+h.cfg.LedgerPath)
	must(t, err)
	defer db.Close()
	for d, w := range want {
		all := totals(t, h, d)
		equal(t, "totals", sums{all.BytesOut, all.BytesIn, all.Flows, all.ReadableFlows, all.ReadableBytes}, w)

		var got sums
		dests, err := h.Destinations(t.Context(), d, start)
		must(t, err)
		for _, one := range dests {
			got.Out, got.In, got.Flows, got.ReadableFlows = got.Out+one.BytesOut, got.In+one.BytesIn, got.Flows+one.Flows, got.ReadableFlows+one.Readable
		}
		equal(t, "destinations", got, sums{w.Out, w.In, w.Flows, w.ReadableFlows, 0})

		got = sums{}
		days, err := h.Days(t.Context(), d, start)
		must(t, err)
		for _, one := range days {
			got.Out, got.In, got.Flows = got.Out+one.BytesOut, got.In+one.BytesIn, got.Flows+one.Flows
			if one.Protection == "readable" {
				got.ReadableFlows, got.ReadableBytes = got.ReadableFlows+one.Flows, got.ReadableBytes+one.BytesOut
			}
		}
		equal(t, "days", got, w)

		top, err := h.Top(t.Context(), start, journal.TopByDevice, 0)
		must(t, err)
		got = sums{}
		for _, one := range top {
			if one.Device == d {
				got = sums{one.BytesOut, one.BytesIn, one.Flows, one.Readable, 0}
			}
		}
		equal(t, "top", got, sums{w.Out, w.In, w.Flows, w.ReadableFlows, 0})

		for view, query := range map[string]string{
			"v_device": `SELECT sum(bytes_out), sum(bytes_in), sum(flows), sum(iif(protection = 'readable', flows, 0)), sum(iif(protection = 'readable', bytes_out, 0)) FROM v_device WHERE device = ?`,
			"v_flow":   `SELECT sum(bytes_out), sum(bytes_in), count(*), sum(protection = 'readable' AND NOT harmless), sum(iif(protection = 'readable' AND NOT harmless, bytes_out, 0)) FROM v_flow WHERE device = ?`,
		} {
			if view == "v_flow" && d == phone {
				continue // of which no rows are kept
			}
			got = sums{}
			must(t, db.QueryRow(query, string(d)).Scan(&got.Out, &got.In, &got.Flows, &got.ReadableFlows, &got.ReadableBytes))
			equal(t, view, got, w)
		}
	}
	var negative int
	must(t, db.QueryRow("SELECT count(*) FROM hour WHERE bytes_out < 0 OR bytes_in < 0 OR flows < 0").Scan(&negative))
	must(t, db.QueryRow("SELECT ? + count(*) FROM partner WHERE bytes_out < 0", negative).Scan(&negative))
	if negative > 0 {
		t.Errorf("%d sums are below zero", negative)
	}
}
