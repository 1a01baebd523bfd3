package store_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/store"
	"github.com/netcurtain/netcurtain/store/storetest"
)

// to says with which organisation an entry has to do; "" is: not known.
func to(organisation string, e journal.Entry) journal.Entry {
	d := atlas.Destination{Organisation: organisation}
	if e.Flow != nil {
		e.Flow.Destination = d
	} else {
		e.Lookup.Destination = d
	}
	return e
}

// Whom a device talked to is whom it reached.
func TestWithWhomADeviceTalked(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	now := h.now()
	names := devices.LogNames
	asked := func(name string, a policy.Action) journal.Entry { return lookup(tv, names, now, name, a) }
	noSuch := asked("typo.example.com", policy.Undecided)
	noSuch.Lookup.Rcode = 3
	cut := talk(tv, names, now, "cut.example.com", flow.Encrypted, 9000, 0)
	cut.Flow.Verdict = policy.Verdict{Action: policy.Block, Reason: policy.ReasonRule}
	unnamed := func(dst string) journal.Entry {
		e := talk(tv, names, now, "", flow.CannotTell, 300, 1)
		e.Flow.Tuple = flow.NewTuple(flow.UDP, netip.MustParseAddrPort("192.168.1.20:40000"), netip.MustParseAddrPort(dst))
		return to("", e)
	}
	h.record(
		to("Only Blocked Inc", asked("ads.example.com", policy.Block)),
		to("Cut Off Inc", cut),
		to("Nobody Inc", noSuch),
		to("Asked Inc", asked("api.example.com", policy.Allow)),
		to("Some Blocked Inc", asked("ads.example.net", policy.Block)),
		to("Some Blocked Inc", talk(tv, names, now, "cdn.example.net", flow.Encrypted, 100, 5)),
		to("Most Inc", talk(tv, names, now, "most.example.net", flow.Encrypted, 4000, 5)),
		// Nobody knows whose these are.
		to("", talk(tv, names, now, "broker.plugworks.example", flow.Readable, 2000, 5)),
		to("", talk(tv, names, now, "eu.plugworks.example", flow.Readable, 10, 5)),
		to("", talk(tv, names, now, "www.shop.co.uk", flow.Readable, 500, 5)),
		to("", talk(tv, names, now, "co.uk", flow.Readable, 400, 5)),
		unnamed("203.0.113.9:3478"), unnamed("[2001:db8::9]:3478"),
		to("", asked("blocked.plug.example", policy.Block)),
		// These are in the house.
		unnamed("192.168.1.1:53"), unnamed("239.255.255.250:1900"), unnamed("[fe80::1]:5353"), unnamed("[fd00::1]:53"),
		to("", asked("router", policy.Allow)), to("", asked("nas.lan", policy.Allow)), to("", asked("tv.local", policy.Allow)),
		to("", asked("1.1.168.192.in-addr.arpa", policy.Allow)), to("", asked("_dns.resolver.arpa", policy.Allow)),
		// Of a counted device nothing of this is written.
		to("Secret Inc", talk(phone, devices.LogCounts, now, "secret.example.net", flow.Encrypted, 1, 1)),
	)
	want := []string{"Most Inc", "plugworks.example", "shop.co.uk", "co.uk", "2001:db8::9", "203.0.113.9", "Some Blocked Inc", "Asked Inc"}
	equal(t, "partners", totals(t, h, tv).Organisations, want)
	equal(t, "partners of the phone", totals(t, h, phone).Organisations, []string(nil))

	// The same afterwards in the same hour, when it is known that they were reached.
	h.record(to("Asked Inc", asked("api.example.com", policy.Allow)), to("Only Blocked Inc", asked("ads.example.com", policy.Block)))
	equal(t, "partners later", totals(t, h, tv).Organisations, want)

	// What is known to have been reached is not, when that is erased.
	_, err := h.Erase(t.Context(), tv)
	must(t, err)
	equal(t, "partners after an erase", totals(t, h, tv).Organisations, []string(nil))
	h.record(to("Asked Inc", asked("api.example.com", policy.Allow)))
	equal(t, "partners of a new beginning", totals(t, h, tv).Organisations, []string{"Asked Inc"})
}

// A roll-up of days answers of hours: an organisation that was reached this
// morning only is not told of in the afternoon, and one that is reached again is.
func TestAPartnerIsToldOfSince(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	ask := func(organisation string) journal.Entry {
		return to(organisation, lookup(tv, devices.LogNames, h.now(), "a.example", policy.Allow))
	}
	h.record(ask("Morning"), ask("Always"))
	for range 3 {
		h.advance(time.Hour)
		h.record(ask("Always"))
	}
	h.record(ask("Evening"))
	since := func(d time.Duration) []string {
		all, err := h.Totals(t.Context(), h.now().Add(-d))
		must(t, err)
		return all[0].Organisations
	}
	equal(t, "of the hour", since(0), []string{"Always", "Evening"})
	equal(t, "of two hours", since(2*time.Hour), []string{"Always", "Evening"})
	equal(t, "of the day", since(24*time.Hour), []string{"Always", "Evening", "Morning"})
	h.advance(24 * time.Hour)
	h.record(ask("Tomorrow"))
	equal(t, "of the next hour", since(0), []string{"Tomorrow"})
	equal(t, "of both days", since(30*time.Hour), []string{"Always", "Evening", "Morning", "Tomorrow"})
}

func TestStrangersAreBounded(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	var batch []journal.Entry
	for i := range 100 {
		batch = append(batch,
			to("", talk(tv, devices.LogNames, h.now(), fmt.Sprintf("www.site%02d.example", i), flow.Encrypted, uint64(1000+i), 1)),
			to(fmt.Sprintf("Organisation %02d", i), talk(tv, devices.LogNames, h.now(), "a.example", flow.Encrypted, 1, 1)))
	}
	h.record(batch...)
	got := totals(t, h, tv).Organisations
	if len(got) != 112 || got[0] != "site99.example" || got[11] != "site88.example" || got[12] != "Organisation 00" {
		t.Errorf("%d partners: %v", len(got), got)
	}
}

// sameRollUps compares the roll-ups that Totals reads with that by destination.
func sameRollUps(t *testing.T, h *house, after string) {
	t.Helper()
	const byHour = `SELECT device, hour, sum(bytes_out), sum(bytes_in), sum(flows), sum(lookups), sum(blocked),
		sum(iif(protection = 3, flows, 0)), sum(iif(protection = 3, bytes_out, 0)), sum(weak), max(last_ms) FROM hour GROUP BY device, hour`
	const byTally = "SELECT device, hour, bytes_out, bytes_in, flows, lookups, blocked, readable_flows, readable_bytes, weak, last_ms FROM tally"
	// last_ms is left out: what a row that went was the last to know stays, which only a stepping clock brings about.
	const byHours = `SELECT device, hours, hour / hours * hours AS first, destination, sum(bytes_out), sum(bytes_in), sum(flows), sum(iif(protection = 3, flows, 0)), sum(blocked), count(*)
		FROM hour, (SELECT 8 AS hours UNION SELECT 24) WHERE protection > 0 GROUP BY device, hours, first, destination`
	const bySpan = "SELECT device, hours, first, destination, bytes_out, bytes_in, flows, readable, blocked, rows FROM span"
	for _, q := range []struct{ what, query string }{
		{"sums without a span", byHours + " EXCEPT " + bySpan},
		{"spans without a sum", bySpan + " EXCEPT " + byHours},
		{"sums without a tally", byHour + " EXCEPT " + byTally},
		{"tallies without a sum", byTally + " EXCEPT " + byHour},
		{"partners of an hour that is gone", "SELECT 1 FROM partner p WHERE NOT EXISTS (SELECT 1 FROM hour h WHERE h.device = p.device AND h.hour = p.hour)"},
		{"partners of devices that are counted", "SELECT 1 FROM partner WHERE device IN (SELECT id FROM device WHERE device LIKE '02:00:5e:20:ff:%')"},
	} {
		if n := ask(t, h.cfg.LedgerPath, "SELECT count(*) FROM ("+q.query+")"); n != "0" {
			t.Errorf("after %s, there are %s %s", after, n, q.what)
		}
	}
}

// sameTop compares what Top tells since some hour with the sums by hour alone.
func sameTop(t *testing.T, h *house, since time.Time, after string) {
	t.Helper()
	for by, naive := range map[journal.TopBy]string{
		journal.TopByDestination:  "FROM hour WHERE protection > 0 AND hour >= %d GROUP BY device, destination",
		journal.TopByOrganisation: "FROM hour h JOIN destination n ON n.id = h.destination WHERE organisation != '' AND protection > 0 AND hour >= %d GROUP BY organisation, country",
	} {
		rows, err := h.Top(t.Context(), since, by, 1000)
		must(t, err)
		var moved, flows, blocked int64
		for _, r := range rows {
			moved, flows, blocked = moved+r.BytesOut+r.BytesIn, flows+r.Flows, blocked+r.Blocked
		}
		want := ask(t, h.cfg.LedgerPath, "SELECT coalesce(sum(moved), 0) || ' ' || coalesce(sum(flows), 0) || ' ' || coalesce(sum(blocked), 0) FROM "+
			"(SELECT sum(bytes_out + bytes_in) AS moved, sum(flows) AS flows, sum(blocked) AS blocked "+fmt.Sprintf(naive, since.Unix()/3600)+" ORDER BY moved DESC, flows DESC LIMIT 1000)")
		if got := fmt.Sprint(moved, flows, blocked); got != want {
			t.Errorf("after %s, top %d since %s: bytes, flows and blocked are %s, of the hours %s", after, by, since, got, want)
		}
	}
}

// Totals are read from sums that are kept beside those by destination: whatever
// happens, both say the same, and nobody is told of whom there is no trace.
func TestBothRollUpsSayTheSame(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(4, 4))
	h := open(t, t.TempDir(), func(c *store.Config) { c.Bytes, c.Age = 4<<20, 100*time.Hour })
	g, counted := storetest.New(5, 12, 3000), storetest.New(6, 3, 300)
	counted.Level = devices.LogCounts
	for i := range 40 {
		batch := make([]journal.Entry, 500)
		for j := range batch {
			h.advance(time.Duration(rng.IntN(20_000)) * time.Millisecond)
			if batch[j] = g.Entry(h.now()); j%5 == 0 {
				batch[j] = counted.EntryOf(devices.ID(fmt.Sprintf("02:00:5e:20:ff:%02x", j%3)), h.now())
			}
			if j%7 == 0 {
				batch[j] = to("", batch[j])
			}
		}
		h.record(batch...)
		one := storetest.DeviceID(rng.IntN(12))
		what := "a batch"
		switch i % 8 {
		case 1:
			what = "a forgetting"
			_, err := h.Forget(t.Context(), one)
			must(t, err)
		case 3:
			what = "an erase"
			_, err := h.Erase(t.Context(), one)
			must(t, err)
		case 5:
			what = "a step of the clock"
			h.advance(time.Duration(rng.IntN(60)-30) * time.Hour)
		case 7:
			what = "tidying"
			must(t, h.Tidy(t.Context()))
		}
		sameRollUps(t, h, what)
		for range 3 {
			sameTop(t, h, h.now().Add(-time.Duration(rng.IntN(60))*time.Hour), what)
		}
	}
	if n := ask(t, h.cfg.LedgerPath, "SELECT count(*) FROM partner"); n == "0" {
		t.Error("no partner is left: the test proves little")
	}
	h.advance(1000 * time.Hour)
	must(t, h.Tidy(t.Context()))
	for _, table := range []string{"hour", "tally", "span", "partner"} {
		if n := ask(t, h.cfg.LedgerPath, "SELECT count(*) FROM "+table); n != "0" {
			t.Errorf("%s rows are left in %s when all is too old", n, table)
		}
	}
}
