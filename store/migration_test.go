package store_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
)

// Files of every earlier version, with rows in every table, are read on.
func TestEarlierVersionsAreReadOn(t *testing.T) {
	t.Parallel()
	folders, err := filepath.Glob("testdata/version*")
	must(t, err)
	if len(folders) == 0 {
		t.Fatal("no earlier version in testdata")
	}
	for _, folder := range folders {
		t.Run(filepath.Base(folder), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, name := range []string{"ledger", "memory"} {
				script, err := os.ReadFile(filepath.Join(folder, name+".sql"))
				must(t, err)
				tell(t, filepath.Join(dir, name+".db"), string(script))
			}
			h := open(t, dir)
			since := start.Add(-24 * time.Hour)
			rows := flowsOf(t, h, tv)
			if len(rows) != 1 || rows[0].Name != "api.example.com" || rows[0].BytesOut != 1010 || rows[0].TLSVersion != "1.3" || rows[0].Parts != 1 ||
				rows[0].Findings != (journal.Findings{}) || rows[0].Inbound {
				t.Errorf("flows: %+v", rows)
			}
			asked, err := h.Lookups(t.Context(), journal.Filter{Device: tv})
			must(t, err)
			if len(asked) != 1 || asked[0].Name != "ads.example.com" || asked[0].Verdict != "block" || asked[0].Count != 2 {
				t.Errorf("look-ups: %+v", asked)
			}
			dests, err := h.Destinations(t.Context(), tv, since)
			must(t, err)
			if len(dests) != 2 || dests[0].BytesOut != 1010 || dests[0].Weak != 0 {
				t.Errorf("destinations: %+v", dests)
			}
			events, err := h.Events(t.Context(), journal.Filter{})
			must(t, err)
			if len(events) != 2 || events[0].Text != "talks to Tracker Inc" || events[1].Text != "from an earlier day" {
				t.Errorf("events: %+v", events)
			}
			days, err := h.Days(t.Context(), tv, since.Add(-24*time.Hour))
			must(t, err)
			if len(days) != 2 || days[0].BytesOut != 1010 || days[1].BytesOut != 77 {
				t.Errorf("days: %+v", days)
			}
			// And written on, into the rows that are there.
			h.record(leaky(h, tv, devices.LogNames), lookup(tv, devices.LogNames, h.now(), "ads.example.com", 0))
			if rows := flowsOf(t, h, tv); len(rows) != 2 || rows[0].Findings != allFindings {
				t.Errorf("flows after another: %+v", rows)
			}
			must(t, h.Remember(t.Context()))
		})
	}
}
