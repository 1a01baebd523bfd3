package store_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/store"
	"github.com/netcurtain/netcurtain/store/storetest"
)

// BenchmarkWrite is one entry's way from the journal into the ledger, in
// batches of 1000 (the time for one entry; look-ups and flows mixed).
func BenchmarkWrite(b *testing.B) {
	h := open(b, b.TempDir(), (*store.Config).Synced)
	g := storetest.New(1, 50, 5000)
	batch := make([]journal.Entry, 1000)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if n%len(batch) == 0 {
			b.StopTimer()
			for i := range batch {
				h.advance(20 * time.Millisecond)
				batch[i] = g.Entry(h.now())
			}
			b.StartTimer()
			h.record(batch...)
		}
		n++
	}
	b.ReportMetric(float64(bytesOf(b, h.cfg.LedgerPath))/float64(n), "file-B/op")
}

// BenchmarkBurst is one flow's way from the journal into the ledger when a device
// opens new ones as fast as it can: to one place, or each to another.
func BenchmarkBurst(b *testing.B) {
	for _, c := range []struct {
		name   string
		places int
	}{{"to one place", 1}, {"to a thousand places", 1000}} {
		b.Run(c.name, func(b *testing.B) {
			h := open(b, b.TempDir(), (*store.Config).Synced)
			b.ReportAllocs()
			n := 0
			batch := make([]journal.Entry, 1000)
			for b.Loop() {
				if n%len(batch) == 0 {
					b.StopTimer()
					for i := range batch {
						e := talk(tv, devices.LogNames, h.now(), fmt.Sprintf("a%d.example.com", i%c.places), flow.CannotTell, 57, 0)
						e.Flow.Tuple.SrcPort, e.Flow.Tuple.Dst[15] = uint16(n+i), byte((n+i)>>16)
						batch[i] = e
					}
					b.StartTimer()
					h.record(batch...)
				}
				n++
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// fill fills a ledger with a household of fifty devices: so many look-ups, a
// fifth as many flows, over a week. NETCURTAIN_LEDGER keeps it between runs.
func fill(tb testing.TB, lookups int) (h *house) {
	dir := os.Getenv("NETCURTAIN_LEDGER")
	if dir == "" {
		dir = tb.TempDir()
	}
	_, err := os.Stat(dir + "/ledger.db")
	h = open(tb, dir, func(c *store.Config) { c.Bytes, c.MemoryBytes = 4<<30, 64<<20 })
	if err == nil {
		h.advance(7 * 24 * time.Hour)
		return h
	}
	g := storetest.New(1, 50, 20_000)
	g.Circle = 150
	entries := lookups * 6 / 5
	step := 7 * 24 * time.Hour / time.Duration(entries)
	for i := range entries {
		h.advance(step)
		h.rec.Record(g.Entry(h.now()))
		if i%20_000 == 0 {
			if err := h.Flush(context.Background()); err != nil {
				tb.Fatal(err)
			}
		}
	}
	if err := h.Flush(context.Background()); err != nil {
		tb.Fatal(err)
	}
	h.advance(start.Add(7 * 24 * time.Hour).Sub(h.now()))
	return h
}

// BenchmarkQueries asks what pages ask. NETCURTAIN_LOOKUPS says of how many
// look-ups; the figure to hold is below 100 ms at five million.
func BenchmarkQueries(b *testing.B) {
	lookups := 200_000
	if s := os.Getenv("NETCURTAIN_LOOKUPS"); s != "" {
		var err error
		if lookups, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	h := fill(b, lookups)
	day, week := h.now().Add(-24*time.Hour), h.now().Add(-7*24*time.Hour)
	hour := h.now().Add(-time.Hour)
	one := storetest.DeviceID(7)
	const quiet devices.ID = "quiet"
	h.record(talk(quiet, devices.LogNames, h.now(), "quiet.example", flow.Encrypted, 1, 1))
	middle := h.now().Add(-84*time.Hour).Unix() << 20 // an id of that time
	for _, q := range []struct {
		name string
		ask  func(ctx context.Context) (int, error)
	}{
		{"totals of a day", func(ctx context.Context) (int, error) { r, err := h.Totals(ctx, day); return len(r), err }},
		{"totals of a week", func(ctx context.Context) (int, error) { r, err := h.Totals(ctx, week); return len(r), err }},
		{"destinations of a day", func(ctx context.Context) (int, error) { r, err := h.Destinations(ctx, one, day); return len(r), err }},
		{"destinations of a week", func(ctx context.Context) (int, error) { r, err := h.Destinations(ctx, one, week); return len(r), err }},
		{"newest look-ups", func(ctx context.Context) (int, error) { r, err := h.Lookups(ctx, journal.Filter{}); return len(r), err }},
		{"a device's last blocks", func(ctx context.Context) (int, error) {
			r, err := h.Lookups(ctx, journal.Filter{Device: one, Blocked: true, Limit: 20})
			return len(r), err
		}},
		{"blocks of a day, tenth page", func(ctx context.Context) (int, error) {
			f := journal.Filter{Blocked: true, Since: day}
			var n int
			for range 10 {
				r, err := h.Lookups(ctx, f)
				if err != nil || len(r) == 0 {
					return n, err
				}
				n, f.Before = len(r), r[len(r)-1].ID
			}
			return n, nil
		}},
		{"readable flows of a device", func(ctx context.Context) (int, error) {
			r, err := h.Flows(ctx, journal.Filter{Device: one, Readable: true})
			return len(r), err
		}},
		{"readable flows of a device that has none", func(ctx context.Context) (int, error) {
			r, err := h.Flows(ctx, journal.Filter{Device: quiet, Readable: true})
			return len(r) + 1, err
		}},
		{"blocked flows of a device that has none", func(ctx context.Context) (int, error) {
			r, err := h.Flows(ctx, journal.Filter{Device: quiet, Blocked: true})
			return len(r) + 1, err
		}},
		{"flows of a device in a past hour", func(ctx context.Context) (int, error) {
			r, err := h.Flows(ctx, journal.Filter{Device: one, Since: week.Add(30 * time.Hour), Until: week.Add(31 * time.Hour)})
			return len(r), err
		}},
		{"a device's newest flows", func(ctx context.Context) (int, error) {
			r, err := h.Flows(ctx, journal.Filter{Device: one})
			return len(r), err
		}},
		{"newest readable flows", func(ctx context.Context) (int, error) {
			r, err := h.Flows(ctx, journal.Filter{Readable: true})
			return len(r), err
		}},
		{"newest flows", func(ctx context.Context) (int, error) { r, err := h.Flows(ctx, journal.Filter{}); return len(r), err }},
		{"look-ups of an hour six days ago", func(ctx context.Context) (int, error) {
			r, err := h.Lookups(ctx, journal.Filter{Since: week.Add(24 * time.Hour), Until: week.Add(25 * time.Hour)})
			return len(r), err
		}},
		{"look-ups of a device in an hour six days ago", func(ctx context.Context) (int, error) {
			r, err := h.Lookups(ctx, journal.Filter{Device: one, Since: week.Add(24 * time.Hour), Until: week.Add(25 * time.Hour)})
			return len(r), err
		}},
		{"a page of an export", func(ctx context.Context) (int, error) {
			r, err := h.Flows(ctx, journal.Filter{Limit: 500, Before: middle})
			return len(r), err
		}},
		{"top of an hour", func(ctx context.Context) (int, error) {
			r, err := h.Top(ctx, hour, journal.TopByDestination, 200)
			return len(r), err
		}},
		{"top of a day", func(ctx context.Context) (int, error) {
			r, err := h.Top(ctx, day, journal.TopByDestination, 200)
			return len(r), err
		}},
		{"top organisations of a day", func(ctx context.Context) (int, error) {
			r, err := h.Top(ctx, day, journal.TopByOrganisation, 200)
			return len(r), err
		}},
		{"top of a week", func(ctx context.Context) (int, error) {
			r, err := h.Top(ctx, week, journal.TopByDestination, 200)
			return len(r), err
		}},
		{"top devices of a week", func(ctx context.Context) (int, error) {
			r, err := h.Top(ctx, week, journal.TopByDevice, 200)
			return len(r), err
		}},
		{"events", func(ctx context.Context) (int, error) {
			r, err := h.Events(ctx, journal.Filter{})
			return len(r) + 1, err
		}},
		{"days of a device", func(ctx context.Context) (int, error) { r, err := h.Days(ctx, one, week); return len(r), err }},
		{"blocks of a device that has none", func(ctx context.Context) (int, error) {
			r, err := h.Lookups(ctx, journal.Filter{Device: devices.ID("nobody"), Blocked: true})
			return len(r) + 1, err
		}},
	} {
		b.Run(q.name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				begin := time.Now()
				if n, err := q.ask(b.Context()); err != nil || n == 0 {
					b.Fatalf("%d rows, %v", n, err)
				}
				took = append(took, time.Since(begin))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "p95-ms")
		})
	}
}
