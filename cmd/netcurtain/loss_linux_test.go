//go:build linux

package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/observe"

	"github.com/prometheus/client_golang/prometheus"
)

// Whatever counts what was lost is in the health line: what the kernel dropped and
// what our own queues had no room for.
func TestLossesAreShown(t *testing.T) {
	for name, want := range map[string]bool{
		"netcurtain_nflog_gaps_total":                true,
		"netcurtain_conntrack_overflows_total":       true,
		"netcurtain_observe_dropped_messages_total":  true,
		"netcurtain_journal_dropped_total":           true,
		"netcurtain_store_rows_dropped_total":        true,
		"netcurtain_observe_recorded_flows_total":    false,
		"netcurtain_nflog_packets_total":             false,
		"netcurtain_ui_live_refused_total":           false,
		"netcurtain_observe_evicted_flows_total":     false, // recorded early, not lost
		"netcurtain_dnsfilter_lookups_dropped_total": true,
	} {
		if got := isLoss(name); got != want {
			t.Errorf("isLoss(%q) = %v", name, got)
		}
	}
}

// What is lost is said in words, and in nobody's way.
func TestWhatWasMissedIsSaid(t *testing.T) {
	if got := missed(nil); !got.OK || got.Meaning != "nothing since the start" {
		t.Errorf("with no loss: %+v", got)
	}
	got := missed(map[string]int64{"netcurtain_nflog_gaps_total": 7, "netcurtain_journal_dropped_total flow store": 3, "netcurtain_journal_dropped_total flow live": 900})
	if !got.OK || !strings.HasPrefix(got.Meaning, "since the start 3 connections came faster") || !strings.Contains(got.Meaning, "; 7 first packets") || strings.Contains(got.Meaning, "900") {
		t.Errorf("said %q", got.Meaning)
	}
}

// The words are looked up by metrics that there are: an observer that nobody runs,
// and a reader that does not read, lose something of each.
func TestWordsOfLossesFitTheirMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	recorder, err := journal.NewRecorder(journal.Config{Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	sub := recorder.Subscribe("store", 1)
	defer sub.Close()
	o, err := observe.New(observe.Config{Record: recorder, Metrics: registry})
	if err != nil {
		t.Fatal(err)
	}
	for range 20_000 {
		for _, e := range []journal.Entry{{Lookup: &journal.Lookup{}}, {Flow: &journal.Flow{}}, {Flow: &journal.Flow{Part: 1}}, {Event: &journal.Event{}}} {
			recorder.Record(e)
		}
		o.Packet(flow.Packet{})
		o.Learn("", "a.example", netip.IPv6Loopback(), 0)
		o.Proxied(observe.Carried{})
	}
	dropped, err := lost(registry)
	if err != nil {
		t.Fatal(err)
	}
	said := missed(dropped).Meaning
	for _, l := range losses {
		switch l.metric {
		case "netcurtain_store_rows_dropped_total", "netcurtain_conntrack_overflows_total", "netcurtain_nflog_gaps_total", "netcurtain_observe_dropped_messages_total block":
			continue // see store, flow/conntrack and flow/nflog, which provoke theirs
		}
		if !strings.Contains(said, l.means) {
			t.Errorf("%s is not said in %q of %v", l.metric, said, dropped)
		}
	}
}
