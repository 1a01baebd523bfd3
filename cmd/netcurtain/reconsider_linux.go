package main

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/enforce"
	"github.com/netcurtain/netcurtain/observe"
	"github.com/netcurtain/netcurtain/policy"
)

// blocker fits the kernel to the observer: first the refusal, then the
// connection's entry, so that its next packet meets the refusal. It remembers what
// each refusal came of, so that it is lifted when that is not so any more.
type blocker struct {
	kernel   *enforce.Kernel
	mu       sync.Mutex // guards standing
	standing map[blocked]standing
}

type blocked struct {
	mac  devices.MAC
	addr netip.Addr
}

// standing is a refusal in the kernel.
type standing struct {
	asked policy.Query
	until time.Time
}

// maxStanding bounds what is remembered. What is forgotten ends by itself.
const maxStanding = 4096

// Block implements observe.Blocker.
func (b *blocker) Block(ctx context.Context, c observe.Cut) error {
	if c.For > 0 {
		if err := b.kernel.Block(ctx, enforce.Block{MAC: c.MAC, Addr: c.Addr, For: c.For}); err != nil {
			return err
		}
		b.remember(blocked{c.MAC, c.Addr}, standing{c.Asked, c.Asked.Now.Add(c.For)})
	}
	return b.kernel.Delete(ctx, c.Tuple)
}

func (b *blocker) remember(k blocked, s standing) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for old, x := range b.standing {
		if len(b.standing) < maxStanding {
			break
		}
		if x.until.Before(s.asked.Now) || len(b.standing) == maxStanding {
			delete(b.standing, old)
		}
	}
	b.standing[k] = s
}

// lift takes back the refusals that policy would not make now.
func (b *blocker) lift(ctx context.Context, decide func(policy.Query) policy.Verdict, now time.Time) error {
	var free []enforce.Block
	b.mu.Lock()
	for k, s := range b.standing {
		s.asked.Now = now
		switch {
		case s.until.Before(now):
			delete(b.standing, k)
		case decide(s.asked).Action != policy.Block:
			free = append(free, enforce.Block{MAC: k.mac, Addr: k.addr})
			delete(b.standing, k)
		}
	}
	b.mu.Unlock()
	return b.kernel.Unblock(ctx, free...)
}

// reconsider makes running connections follow rules that were made, taken back or
// came to their end: what they refuse now ends, what they do not is free again.
func (d *daemon) reconsider(ctx context.Context) error {
	d.observer.Reconsider()
	if d.carrier != nil {
		d.carrier.Reconsider()
	}
	return d.blocks.lift(ctx, d.engine.Decide, time.Now())
}

// nextEnd is when the next of rules comes to its end, in Unix nanoseconds; 0 when
// none does.
func nextEnd(rules []policy.Rule, now time.Time) (next int64) {
	for _, r := range rules {
		if end := r.Until.UnixNano(); !r.Until.IsZero() && r.Until.After(now) && (next == 0 || end < next) {
			next = end
		}
	}
	return next
}
