package flow

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

var (
	t0   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	addr = netip.MustParseAddr("203.0.113.9")
)

func TestNamesPrecedence(t *testing.T) {
	n := NewNames(100)
	n.Learn("tv", "video.example", addr, time.Minute, t0)
	n.Learn("cam", "cam.example", netip.MustParseAddr("203.0.113.10"), time.Minute, t0)
	for _, tc := range []struct {
		device, addr string
		want         Found
	}{
		{"tv", "203.0.113.9", Found{"video.example", NameFromDNSDevice, false}},
		{"tv", "::ffff:203.0.113.9", Found{"video.example", NameFromDNSDevice, false}},
		{"cam", "203.0.113.9", Found{"video.example", NameFromDNSAny, false}},
		{"", "203.0.113.9", Found{"video.example", NameFromDNSAny, false}},
		{"tv", "203.0.113.11", Found{}},
	} {
		if got := n.Lookup(tc.device, netip.MustParseAddr(tc.addr), t0); got != tc.want {
			t.Errorf("Lookup(%q, %s) = %+v, want %+v", tc.device, tc.addr, got, tc.want)
		}
	}
}

// A name lives for its TTL, at least a minute and at most a day, and lingers an
// hour, because devices keep addresses for longer than they were told.
func TestNamesExpire(t *testing.T) {
	for _, tc := range []struct {
		ttl, after time.Duration
		known      bool
	}{
		{0, time.Hour + 59*time.Second, true},
		{0, time.Hour + 61*time.Second, false},
		{10 * time.Minute, 70 * time.Minute, true},
		{10 * time.Minute, 71 * time.Minute, false},
		{1000 * time.Hour, 25 * time.Hour, true},
		{1000 * time.Hour, 25*time.Hour + time.Second, false},
		{-time.Hour, time.Hour, true},
	} {
		n := NewNames(10)
		n.Learn("tv", "a.example", addr, tc.ttl, t0)
		if got := n.Lookup("tv", addr, t0.Add(tc.after)).Name != ""; got != tc.known {
			t.Errorf("TTL %v, after %v: known %v, want %v", tc.ttl, tc.after, got, tc.known)
		}
	}
}

func TestNamesAmbiguous(t *testing.T) {
	n := NewNames(100)
	for i := range 6 {
		n.Learn("tv", fmt.Sprintf("site%d.example", i), addr, time.Minute, t0.Add(time.Duration(i)*time.Second))
	}
	n.Learn("tv", "site3.example", addr, time.Minute, t0.Add(10*time.Second))
	got := n.Lookup("tv", addr, t0.Add(time.Minute))
	if want := (Found{"site3.example", NameFromDNSDevice, true}); got != want {
		t.Errorf("Lookup = %+v, want %+v", got, want)
	}
	names := slices.Collect(n.Of("tv", addr, t0.Add(time.Minute)))
	if want := []string{"site3.example", "site5.example", "site4.example", "site2.example"}; !slices.Equal(names, want) {
		t.Errorf("Of = %v, want the last four, newest first: %v", names, want)
	}
}

func TestNamesAreBounded(t *testing.T) {
	n := NewNames(10)
	for i := range 1000 {
		n.Learn("tv", "a.example", netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), time.Minute, t0)
	}
	if n.byAddr.len() != 10 {
		t.Errorf("Len = %d, want 10", n.byAddr.len())
	}
}

func TestNamesDoNotAllocate(t *testing.T) {
	n := NewNames(10)
	n.Learn("tv", "a.example", addr, time.Minute, t0)
	if allocs := testing.AllocsPerRun(100, func() { n.Learn("tv", "a.example", addr, time.Minute, t0) }); allocs != 0 {
		t.Errorf("a name that is known costs %v allocations", allocs)
	}
	if allocs := testing.AllocsPerRun(100, func() { n.Lookup("tv", addr, t0) }); allocs != 0 {
		t.Errorf("Lookup allocates %v times", allocs)
	}
}
