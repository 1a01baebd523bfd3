package main

import (
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/policy"
)

func TestNextEnd(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	rules := []policy.Rule{{}, {Until: now.Add(-time.Hour)}, {Until: now.Add(2 * time.Hour)}, {Until: now.Add(time.Hour)}}
	if got := nextEnd(rules, now); got != now.Add(time.Hour).UnixNano() {
		t.Errorf("next end: %s", time.Unix(0, got))
	}
	if got := nextEnd(rules[:2], now); got != 0 {
		t.Errorf("nothing ends, and %s was said", time.Unix(0, got))
	}
}

func TestStandingBlocksAreBounded(t *testing.T) {
	b := &blocker{standing: map[blocked]standing{}}
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	for i := range 2 * maxStanding {
		b.remember(blocked{mac: devices.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}}, standing{policy.Query{Now: now}, now.Add(time.Hour)})
	}
	if len(b.standing) > maxStanding {
		t.Errorf("%d are remembered", len(b.standing))
	}
}
