package store_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/store"
	"github.com/netcurtain/netcurtain/store/storetest"
)

func knownTV() devices.Device {
	return devices.Device{
		ID: tv, MACs: []devices.MAC{{2, 0, 0x5e, 0x10, 0, 1}, {2, 0, 0x5e, 0x10, 0, 9}},
		Hostname: "television", NameFrom: devices.SourceLease, FirstSeen: start, LastSeen: start,
	}
}

// A device known by nothing but its address, and never called anything.
func knownByAddress() devices.Device {
	return devices.Device{ID: "192.0.2.7", FirstSeen: start.Add(time.Hour), LastSeen: start.Add(time.Hour)}
}

func known(t *testing.T, h *house) []devices.Device {
	t.Helper()
	all, err := h.Known(t.Context())
	must(t, err)
	slices.SortFunc(all, func(a, b devices.Device) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

func TestKnownDevicesOutliveARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir)
	equal(t, "known at first", known(t, h), []devices.Device(nil))
	must(t, h.SetKnown(t.Context(), []devices.Device{knownTV(), knownByAddress()}))
	h.stop()
	h = open(t, dir)
	equal(t, "known after a restart", known(t, h), []devices.Device{knownTV(), knownByAddress()})
	renamed := knownTV()
	renamed.Hostname = "tv"
	must(t, h.SetKnown(t.Context(), []devices.Device{renamed}))
	equal(t, "one renamed, one gone", known(t, h), []devices.Device{renamed})
	if changes, err := h.Audit(t.Context(), 10); err != nil || len(changes) > 0 {
		t.Errorf("nobody chose anything, and yet the audit log says %v, %v", changes, err)
	}
}

// What a registry gives back must be what it gave, or each start writes all anew.
func TestKnownDevicesGoThroughARegistryUnchanged(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	first := devices.NewRegistry(devices.Config{})
	first.Sight(devices.Sighting{MAC: knownTV().MACs[0], Hostname: "television", Source: devices.SourceDiscovery, At: start.Add(123456 * time.Nanosecond)})
	must(t, h.SetKnown(t.Context(), first.All(start)))
	second := devices.NewRegistry(devices.Config{})
	second.Restore(known(t, h)...)
	before := readFile(t, h.cfg.HouseholdPath)
	must(t, h.SetKnown(t.Context(), second.All(start)))
	if !bytes.Equal(before, readFile(t, h.cfg.HouseholdPath)) {
		t.Error("the same devices were written again")
	}
}

func TestTooMuchIsNotKnown(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	must(t, h.SetKnown(t.Context(), []devices.Device{knownTV()}))
	crowd := make([]devices.Device, 2001)
	for i := range crowd {
		crowd[i].ID = storetest.DeviceID(i)
	}
	if err := h.SetKnown(t.Context(), crowd); !errors.Is(err, store.ErrTooMany) {
		t.Errorf("a crowd: %v", err)
	}
	if err := h.SetKnown(t.Context(), []devices.Device{{}}); err == nil || !strings.Contains(err.Error(), "an ID of 1 to 64 octets") {
		t.Errorf("no ID: %v", err)
	}
	equal(t, "after what was refused", known(t, h), []devices.Device{knownTV()})
	hostile := knownTV()
	hostile.Hostname = strings.Repeat("x\xff", 10_000)
	hostile.MACs = make([]devices.MAC, 10_000)
	must(t, h.SetKnown(t.Context(), []devices.Device{hostile}))
	if got := known(t, h); len(got) != 1 || len(got[0].Hostname) > 253 || len(got[0].MACs) > 16 {
		t.Errorf("a hostile device is kept as %d devices of %d bytes", len(got), len(fmt.Sprint(got)))
	}
}

// Who a device is outlives an erase; a device that shall be forgotten, is.
func TestErasedIsNotForgotten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir)
	ctx := t.Context()
	must(t, h.SetKnown(ctx, []devices.Device{knownTV(), knownByAddress()}))
	_, err := h.Erase(ctx, tv)
	must(t, err)
	_, err = h.EraseAll(ctx)
	must(t, err)
	equal(t, "known after erasing", known(t, h), []devices.Device{knownTV(), knownByAddress()})
	if !bytes.Contains(raw(t, dir), []byte("television")) {
		t.Fatal("the name is in no file: the test proves nothing")
	}
	must(t, h.RemoveKnown(ctx, tv), h.RemoveKnown(ctx, tv))
	equal(t, "known after one is forgotten", known(t, h), []devices.Device{knownByAddress()})
	for _, word := range []string{"television", string(tv)} {
		if bytes.Contains(raw(t, dir), []byte(word)) {
			t.Errorf("%q of the forgotten device is in a file", word)
		}
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}
