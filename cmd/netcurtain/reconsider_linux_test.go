package main

import (
	"context"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/enforce"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/observe"
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
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	b := newBlocker(nil, func() time.Time { return now })
	for i := range 2 * maxStanding {
		b.remember(blocked{mac: devices.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}}, standing{policy.Query{Now: now}, now.Add(time.Hour)})
	}
	if len(b.standing) > maxStanding {
		t.Errorf("%d are remembered", len(b.standing))
	}
}

// kernelOf notes what it is told to refuse.
type kernelOf map[netip.Addr]time.Duration

func (k kernelOf) Block(_ context.Context, all ...enforce.Block) error {
	for _, b := range all {
		k[b.Addr] = b.For
	}
	return nil
}

func (k kernelOf) Unblock(_ context.Context, all ...enforce.Block) error {
	for _, b := range all {
		delete(k, b.Addr)
	}
	return nil
}

func (kernelOf) Delete(context.Context, flow.Tuple) error { return nil }
func (kernelOf) End(context.Context, flow.Tuple) error    { return nil }

// A refusal of an hour is told to the kernel in short ends, so that it does not
// outlive us, and no longer than it lasts or than policy would make it.
func TestRefusalsAreRenewed(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	k := kernelOf{}
	b := newBlocker(k, func() time.Time { return now })
	allowed, still := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for _, a := range []netip.Addr{allowed, still} {
		if err := b.Block(t.Context(), observe.Cut{Addr: a, Asked: policy.Query{Now: now, Addr: a}, For: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.lift(t.Context(), func(q policy.Query) policy.Verdict {
		if q.Addr == allowed {
			return policy.Verdict{}
		}
		return policy.Verdict{Action: policy.Block}
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		after time.Duration
		want  kernelOf
	}{
		{10 * time.Second, kernelOf{still: refusalLasts}},
		{time.Hour - 20*time.Second, kernelOf{still: 10 * time.Second}},
		{time.Minute, kernelOf{}},
	} {
		now = now.Add(c.after)
		clear(k)
		if err := b.renew(t.Context()); err != nil || !maps.Equal(k, c.want) {
			t.Errorf("%s later: %v, %v", c.after, k, err)
		}
	}
}
