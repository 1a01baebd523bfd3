package main

import (
	"context"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/configs"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/observe"
	"github.com/netcurtain/netcurtain/proxy"
	"github.com/netcurtain/netcurtain/ui/api"
)

// The rooms declare what they need; these few lines fit the rooms to it.

// describer fits the atlas to the observer.
type describer struct{ atlas *atlas.Atlas }

func (d describer) Describe(name dnsname.Name, _ netip.Addr) atlas.Destination {
	x, _ := d.atlas.Lookup(name)
	return x
}

// carried fits the observer to the proxy.
type carried struct{ observer *observe.Observer }

func (c carried) Proxied(x proxy.Carried) {
	var mac devices.MAC
	if len(x.Device.MACs) > 0 {
		mac = x.Device.MACs[0]
	}
	c.observer.Proxied(observe.Carried{
		Tuple: x.Flow.Tuple, To: x.To, MAC: mac, Seen: x.Flow.Seen, Verdict: x.Flow.Verdict, Encrypted: x.Flow.CarriedEncrypted,
		Before: x.Before,
	})
}

func newProxy(d *daemon, s *configs.Settings, lookUp func(context.Context, netip.Addr, dnsname.Name) ([]netip.Addr, error)) (*proxy.Proxy, error) {
	return proxy.New(proxy.Config{
		HTTPPort: s.Proxy.HTTPPort, TLSPort: s.Proxy.TLSPort, Transparent: true, MarkOurs: s.House.MarkOurs, MaxConns: proxyRoom(s.Proxy.MaxConnections),
		ExplicitPort: s.Proxy.ExplicitPort, LookUp: lookUp,
		Forwards: func(ctx context.Context, dev devices.Device, client netip.Addr, to netip.AddrPort, handed bool) bool {
			return d.kernel.Forwards(ctx, dev.MACs, client, to, handed)
		},
		GoesOn: func(dev devices.Device, client netip.Addr, to netip.AddrPort) bool {
			return d.kernel.GoesOn(context.Background(), dev.MACs, client, to)
		},
		FurtherPorts: func() []uint16 { return d.settings.Load().Proxy.Ports },
		Devices:      d.registry, Resolve: d.resolve, Decider: d.engine,
		Describe: func(n dnsname.Name) atlas.Destination { x, _ := d.atlas.Lookup(n); return x },
		NameOf:   d.nameOf,
		Counted: func(t flow.Tuple) flow.Counters {
			n, err := d.tracker.Counters(t)
			if err != nil { // the observer goes by what it heard last
				d.log.Debug("what a connection has counted", "error", err)
			}
			return n
		},
		Observer:  carried{d.observer},
		House:     d.isLAN,
		HouseName: s.House.Name, HouseURL: s.Page.URL, Logger: d.log, Registerer: d.metrics,
	})
}

// isLAN reports whether an address is on a network of the house.
func (d *daemon) isLAN(a netip.Addr) bool {
	return slices.ContainsFunc(*d.lan.Load(), func(p netip.Prefix) bool { return p.Contains(a) })
}

// nameOf is what a device last looked up for an address. The observer answers at
// once unless it is overrun; a connection then goes on without a name.
func (d *daemon) nameOf(device devices.ID, addr netip.Addr) dnsname.Name {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	return d.observer.NameOf(ctx, device, addr)
}

// tally is what was done to what a device asks in clear.
func (d *daemon) tally(id devices.ID) api.Carrying {
	if d.carrier == nil {
		return api.Carrying{}
	}
	t := d.carrier.Tally(id)
	return api.Carrying{
		Places: t.Places, Encrypted: t.Encrypted, Headers: t.Taken.Headers, Referrers: t.Taken.Referrers,
		Cookies: t.Taken.Cookies + t.Taken.SetCookies,
	}
}

// markOurs marks a socket as the daemon's own, before it connects.
func (d *daemon) markOurs(_, _ string, c syscall.RawConn) error {
	mark := int(d.settings.Load().House.MarkOurs)
	var set error
	if err := c.Control(func(fd uintptr) {
		set = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_MARK, mark)
	}); err != nil {
		return err
	}
	return set
}
