package main

import (
	"net/netip"
	"testing"
	"time"
)

func TestStrangers(t *testing.T) {
	var s strangers
	now := time.Unix(1_800_000_000, 0)
	a, b := netip.MustParseAddr("192.168.1.7"), netip.MustParseAddr("fd00::7")
	if s.has(a, now) {
		t.Error("an address that nobody asked about is a stranger's")
	}
	s.add(a, now)
	s.add(b, now)
	if !s.has(a, now.Add(strangeFor-1)) || s.has(a, now.Add(strangeFor)) || s.has(a, now.Add(-strangeFor)) {
		t.Errorf("a stranger is one for %s, whatever the clock does", strangeFor)
	}
	s.forget(a)
	if s.has(a, now) || !s.has(b, now) {
		t.Error("who was heard of is a stranger still, or another is none")
	}
	for i := range 3 * maxStrangers {
		s.add(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), now)
	}
	if len(s.since) > maxStrangers {
		t.Errorf("%d strangers are kept, %d at most should be", len(s.since), maxStrangers)
	}
}
