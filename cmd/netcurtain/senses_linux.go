package main

import (
	"context"
	"slices"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/journal"
)

// event takes one connection's news in, unless the house is switched off:
// connection tracking goes on without us, and nothing shall be seen then.
func (d *daemon) event(ctx context.Context) func(flow.Event) {
	return func(e flow.Event) {
		if d.on.Load() {
			d.observer.Tracked(ctx, e)
		}
	}
}

// dumpRegularly brings live counters, rarely when there are many flows.
func (d *daemon) dumpRegularly(ctx context.Context) error {
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wait.C:
		}
		n := 0
		err := d.tracker.Dump(ctx, func(e flow.Event) {
			if n++; d.on.Load() {
				d.observer.Tracked(ctx, e)
			}
		})
		d.health.set("counters", err, "Bytes of running connections are counted.", "")
		// A dump of 12,000 entries costs a slow core 20 ms.
		every := 5 * time.Second
		switch {
		case n > 20_000:
			every = 20 * time.Second // within the 30 s that an unanswered datagram is remembered
		case n > 2_000:
			every = 15 * time.Second
		}
		wait.Reset(every)
	}
}

// sight takes one sighting in; a new device is an event, and the kernel may
// have to be told.
func (d *daemon) sight(s devices.Sighting) {
	d.strangers.forget(s.Addr)
	dev, isNew := d.registry.Sight(s)
	if !isNew {
		return
	}
	d.recorder.Record(journal.Entry{At: s.At, Device: dev.ID, Log: dev.Log, Event: &journal.Event{
		Kind: journal.EventNewDevice, Subject: "itself", Text: "A device was seen for the first time.",
	}})
	d.changed()
}

// sightPacket learns from a packet which hardware address has which address: at
// once, and for IPv6 addresses that change by the hour, too.
func (d *daemon) sightPacket(p flow.Packet) {
	mac, addr := devices.MAC(p.MAC), p.Tuple.SrcAddr()
	if mac.IsZero() {
		return
	}
	if dev, ok := d.registry.ByAddr(addr); ok && slices.Contains(dev.MACs, mac) {
		return // known: the neighbour table keeps it fresh
	}
	d.sight(devices.Sighting{MAC: mac, Addr: addr, Source: devices.SourcePacket, At: p.At})
}

// changed wakes whoever applies choices. It never blocks.
func (d *daemon) changed() { notify(d.wake) }

// notify wakes whoever waits for news, or tells that there will be some.
func notify(news chan<- struct{}) {
	select {
	case news <- struct{}{}:
	default:
	}
}
