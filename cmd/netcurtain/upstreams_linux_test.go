package main

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"
)

// The gate's life, a second a step: nothing is asked without a failed look-up; it
// opens after 30 s when the router's own resolver answers, and closes when one of
// ours is back.
func TestUpstreamGate(t *testing.T) {
	type house struct{ down, alone, closed bool } // upstreams; the router's own resolver too; fail_open '0'
	for name, c := range map[string]struct {
		house  house
		fail   bool // a look-up failed
		after  int  // seconds
		open   bool
		sick   bool
		asked  int // at most
		opened int
	}{
		"nobody failed, nobody is asked":       {house{down: true}, false, 60, false, false, 0, 0},
		"a failure of one name":                {house{}, true, 60, false, false, 1, 0},
		"not yet":                              {house{down: true}, true, 29, false, false, 6, 0},
		"the router's own resolver takes over": {house{down: true}, true, 36, true, true, 8, 1},
		"and goes on":                          {house{down: true}, true, 120, true, true, 25, 1},
		"nobody answers":                       {house{down: true, alone: true}, true, 60, false, true, 13, 0},
		"the settings keep it closed":          {house{down: true, closed: true}, true, 60, false, true, 13, 0},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
			h, asked, opened := c.house, 0, 0
			var suspect atomic.Bool
			var sick error
			dead := errors.New("dead")
			g := &upstreamGate{
				suspect: &suspect, log: slog.New(slog.DiscardHandler), now: func() time.Time { return now },
				ours: func(context.Context) error {
					asked++
					if h.down {
						return dead
					}
					return nil
				},
				local: func(context.Context) error {
					if h.alone {
						return dead
					}
					return nil
				},
				open: func(context.Context) error { opened++; return nil }, may: func() bool { return !h.closed },
				health: func(err error) { sick = err },
			}
			suspect.Store(c.fail)
			run := func(seconds int) {
				for range seconds {
					now = now.Add(time.Second)
					g.step(t.Context())
				}
			}
			run(c.after)
			if (g.why() != nil) != c.open || (sick != nil) != c.sick || asked > c.asked || opened != c.opened {
				t.Errorf("after %d s: open %v, sick %v, asked %d times, opened %d times", c.after, g.why(), sick, asked, opened)
			}
			probed := false
			err := g.unlessOpen(func(context.Context) error { probed = true; return nil })(t.Context())
			if probed == c.open || (err != nil) != c.open {
				t.Errorf("probed %v: %v", probed, err)
			}
			h.down = false
			run(6)
			if g.why() != nil || sick != nil {
				t.Errorf("6 s after they are back: open %v, sick %v", g.why(), sick)
			}
			asked = 0
			if run(60); asked != 0 {
				t.Errorf("all is well, and they were asked %d times", asked)
			}
		})
	}
}
