//go:build linux

package main

import "testing"

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
