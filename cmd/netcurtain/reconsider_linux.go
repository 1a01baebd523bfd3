package main

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/enforce"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/observe"
	"github.com/netcurtain/netcurtain/policy"
)

// blocker fits the kernel to the observer: first the refusal, then the
// connection's entry, so that its next packet meets the refusal. It remembers what
// each refusal came of, so that it is lifted when that is not so any more. In the
// kernel a refusal lasts refusalLasts and is renewed: nobody could lift it when we are dead.
type blocker struct {
	kernel   refuser
	now      func() time.Time // with a monotonic reading, for the clock may step
	turn     sync.Mutex       // one change of the kernel's refusals at a time
	mu       sync.Mutex       // guards standing
	standing map[blocked]standing
}

const (
	refusalLasts = 30 * time.Second
	renewEvery   = 10 * time.Second
)

// refuser is the kernel, as far as refusals go.
type refuser interface {
	Block(context.Context, ...enforce.Block) error
	Unblock(context.Context, ...enforce.Block) error
	Delete(context.Context, flow.Tuple) error
	End(context.Context, flow.Tuple) error
}

func newBlocker(k refuser, now func() time.Time) *blocker {
	return &blocker{kernel: k, now: now, standing: map[blocked]standing{}}
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
	switch {
	case c.Free:
		return b.free(ctx, blocked{c.MAC, c.Addr})
	case c.ByName:
		return b.kernel.End(ctx, c.Tuple)
	}
	if c.For > 0 {
		if err := b.kernel.Block(ctx, enforce.Block{MAC: c.MAC, Addr: c.Addr, For: min(c.For, refusalLasts)}); err != nil {
			return err
		}
		b.remember(blocked{c.MAC, c.Addr}, standing{c.Asked, b.now().Add(c.For)})
	}
	return b.kernel.Delete(ctx, c.Tuple)
}

// free lifts one refusal.
func (b *blocker) free(ctx context.Context, k blocked) error {
	b.turn.Lock()
	defer b.turn.Unlock()
	b.mu.Lock()
	delete(b.standing, k)
	b.mu.Unlock()
	return b.kernel.Unblock(ctx, enforce.Block{MAC: k.mac, Addr: k.addr})
}

// renew lets every refusal stand for another refusalLasts, or until its end.
func (b *blocker) renew(ctx context.Context) error {
	now := b.now()
	b.turn.Lock()
	defer b.turn.Unlock()
	var all []enforce.Block
	b.mu.Lock()
	for k, s := range b.standing {
		switch left := s.until.Sub(now); {
		case left <= 0:
			delete(b.standing, k)
		case left >= time.Second: // the shortest that the kernel is told
			all = append(all, enforce.Block{MAC: k.mac, Addr: k.addr, For: min(left, refusalLasts)})
		}
	}
	b.mu.Unlock()
	return b.kernel.Block(ctx, all...)
}

// keepRefusals renews the kernel's refusals for as long as we live.
func (d *daemon) keepRefusals(ctx context.Context) error {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !d.on.Load() {
			continue
		}
		if err := d.blocks.renew(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("renewing refusals", "error", err) // keepKernel says what is wrong
		}
	}
}

func (b *blocker) remember(k blocked, s standing) {
	now := b.now()
	b.mu.Lock()
	defer b.mu.Unlock()
	for old, x := range b.standing {
		if len(b.standing) < maxStanding {
			break
		}
		if x.until.Before(now) || len(b.standing) == maxStanding {
			delete(b.standing, old)
		}
	}
	b.standing[k] = s
}

// lift takes back the refusals that policy would not make now.
func (b *blocker) lift(ctx context.Context, decide func(policy.Query) policy.Verdict) error {
	now := b.now()
	b.turn.Lock()
	defer b.turn.Unlock()
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
	return d.blocks.lift(ctx, d.engine.Decide)
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
