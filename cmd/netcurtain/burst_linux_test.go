//go:build linux

package main

import (
	"context"
	"net/netip"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/observe"
	"github.com/netcurtain/netcurtain/store"
)

type oneDevice struct{ devices.Device }

func (d oneDevice) ByMAC(devices.MAC) (devices.Device, bool)  { return d.Device, true }
func (d oneDevice) ByAddr(netip.Addr) (devices.Device, bool)  { return d.Device, true }
func (d oneDevice) ByID(id devices.ID) (devices.Device, bool) { return d.Device, d.ID == id }

// On one core, ten thousand flows a second that begin and end come into the ledger, or
// are told as lost: through the observer, the journal and the writer, wired as the
// daemon wires them. How many a busy machine manages is in the log.
func TestABurstComesIntoTheLedger(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const flows = 30_000
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Config{
		HouseholdPath: filepath.Join(dir, "household.db"), LedgerPath: filepath.Join(dir, "ledger.db"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	registry := prometheus.NewRegistry()
	recorder, err := journal.NewRecorder(journal.Config{Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	unwritten := recorder.Subscribe("store", unwrittenEntries)
	o, err := observe.New(observe.Config{
		Devices: oneDevice{devices.Device{ID: "tv", Log: devices.LogNames, Mode: devices.ModeProtect}},
		Record:  recorder, Metrics: registry, Ease: func() { unwritten.Ease(longestEase) },
	})
	if err != nil {
		t.Fatal(err)
	}
	writing, stopWriting := context.WithCancel(t.Context())
	watching, stopWatching := context.WithCancel(t.Context())
	wrote, watched := make(chan error, 1), make(chan error, 1)
	go func() { wrote <- s.Run(writing, unwritten) }()
	go func() { watched <- o.Run(watching) }()
	began := time.Now()
	for i := range flows {
		if ahead := time.Duration(i)*time.Second/10_000 - time.Since(began); i%100 == 0 && ahead > 0 {
			time.Sleep(ahead)
		}
		tuple := flow.NewTuple(flow.UDP, netip.MustParseAddrPort("192.168.1.10:4000"),
			netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i >> 14)}), uint16(1+i&0x3fff)))
		o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: uint32(i + 1), Tuple: tuple, At: time.Now()})
		o.Tracked(t.Context(), flow.Event{Kind: flow.Destroy, ID: uint32(i + 1), Tuple: tuple, At: time.Now(), Counters: flow.Counters{Orig: flow.Count{Packets: 1, Bytes: 50}}})
	}
	stopWatching()
	if err := <-watched; err != nil {
		t.Fatal(err)
	}
	stopWriting()
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	totals, err := s.Totals(t.Context(), began)
	if err != nil || len(totals) != 1 {
		t.Fatalf("totals: %+v, %v", totals, err)
	}
	dropped, err := lost(registry)
	if err != nil {
		t.Fatal(err)
	}
	missed := dropped["netcurtain_journal_dropped_total flow store"]
	t.Logf("%d flows in %s, %.0f a second; %v", flows, took.Round(time.Millisecond), flows/took.Seconds(), dropped)
	if got := totals[0]; got.Flows+missed < flows || got.Flows > flows || missed == 0 && got.BytesOut != 50*flows {
		t.Errorf("%d flows with %d bytes are in the ledger, %d messages are told as lost, of %d flows", got.Flows, got.BytesOut, missed, flows)
	}
}
