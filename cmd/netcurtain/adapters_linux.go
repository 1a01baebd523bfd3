package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/configs"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/observe"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/proxy"
	"github.com/netcurtain/netcurtain/store"
	"github.com/netcurtain/netcurtain/ui"
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

// ownAddresses are the router's own, by which it is told from its devices.
func ownAddresses() (map[netip.Addr]bool, []devices.MAC, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, nil, fmt.Errorf("listing our own interfaces: %w", err)
	}
	own := map[netip.Addr]bool{}
	var macs []devices.MAC
	for _, i := range ifs {
		if len(i.HardwareAddr) == 6 {
			macs = append(macs, devices.MAC(i.HardwareAddr))
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				own[p.Addr().Unmap()] = true
			}
		}
	}
	return own, macs, nil
}

// household fits store, registry and engine to the pages.
type household struct{ d *daemon }

var _ ui.House = household{}

func (h household) Devices(now time.Time) []devices.Device { return h.d.registry.All(now) }

// SetMode takes hold in the kernel before it returns, so that it can be said what
// ended for it.
func (h household) SetMode(ctx context.Context, id devices.ID, m devices.Mode) (ended int, err error) {
	if err := h.chose(ctx, h.d.store.SetMode(ctx, id, m, ui.By(ctx))); err != nil {
		return 0, err
	}
	dev, ok := h.d.registry.ByID(id)
	if !ok || !h.d.on.Load() {
		return 0, nil
	}
	if err := h.d.apply(ctx); err != nil {
		h.d.log.Warn("the kernel does not follow yet", "error", err) // keepKernel goes on trying, and says so
	}
	ended = h.d.kernel.Ended(dev.MACs...)
	if h.d.carrier != nil {
		h.d.carrier.Reconsider() // not before the kernel has counted what runs
	}
	return ended, nil
}

func (h household) SetKind(ctx context.Context, id devices.ID, k devices.Kind) error {
	return h.chose(ctx, h.d.store.SetKind(ctx, id, k, ui.By(ctx)))
}

func (h household) SetName(ctx context.Context, id devices.ID, name string) error {
	return h.chose(ctx, h.d.store.SetName(ctx, id, name, ui.By(ctx)))
}

func (h household) SetCarry(ctx context.Context, id devices.ID, on bool) error {
	return h.chose(ctx, h.d.store.SetCarry(ctx, id, on, ui.By(ctx)))
}

func (h household) SetStrip(ctx context.Context, id devices.ID, on bool) error {
	return h.chose(ctx, h.d.store.SetStrip(ctx, id, on, ui.By(ctx)))
}

// SetLog changes the level, and forgets the names written until now when they
// shall not be written any more.
func (h household) SetLog(ctx context.Context, id devices.ID, l devices.LogLevel) error {
	if err := h.chose(ctx, h.d.store.SetLog(ctx, id, l, ui.By(ctx))); err != nil {
		return err
	}
	if l == devices.LogNames {
		return nil
	}
	_, err := h.d.store.Forget(ctx, id)
	return err
}

// chose puts a choice that the store has kept into force.
func (h household) chose(ctx context.Context, err error) error {
	if err != nil {
		return notThere(err)
	}
	choices, err := h.d.store.Choices(ctx)
	if err != nil {
		return err
	}
	h.d.registry.Choose(choices)
	h.d.changed()
	return nil
}

func notThere(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}

func (h household) Rules(ctx context.Context) ([]policy.Rule, error) { return h.d.store.Rules(ctx) }

func (h household) AddRule(ctx context.Context, r policy.Rule) (policy.Rule, error) {
	r, err := h.d.store.AddRule(ctx, r)
	if err != nil {
		return r, err
	}
	return r, h.d.recompile(ctx)
}

func (h household) RemoveRule(ctx context.Context, id int64) error {
	if err := h.d.store.RemoveRule(ctx, id, ui.By(ctx)); err != nil {
		return notThere(err)
	}
	return h.d.recompile(ctx)
}

func (h household) Erase(ctx context.Context, id devices.ID) (int64, error) {
	h.d.recorder.Forget(id)
	if h.d.carrier != nil {
		h.d.carrier.Forget(id)
	}
	return eraseIn(ctx, h.d.store, id)
}

// eraseIn erases what was written of a device; "" is of all.
func eraseIn(ctx context.Context, s *store.Store, id devices.ID) (int64, error) {
	if id == "" {
		return s.EraseAll(ctx)
	}
	return s.Erase(ctx, id)
}

// Forget removes a device and every trace of it. When it is seen again it is new.
func (h household) Forget(ctx context.Context, id devices.ID) (int64, error) {
	h.d.registry.Forget(id) // first: what the registry knows is written down again
	h.d.recorder.Forget(id)
	rows, err := forgetIn(ctx, h.d.store, id, ui.By(ctx))
	return rows, errors.Join(err, h.chose(ctx, nil), h.d.recompile(ctx))
}

// forgetIn removes what was chosen for a device, that it was here, and what was
// written of it; last its lines in the audit log, which all that adds to.
func forgetIn(ctx context.Context, s *store.Store, id devices.ID, by string) (rows int64, err error) {
	rules, err := s.Rules(ctx)
	if err != nil {
		return 0, err
	}
	for _, r := range rules {
		if r.Device == id {
			if err := s.RemoveRule(ctx, r.ID, by); err != nil && !errors.Is(err, store.ErrNotFound) {
				return 0, err
			}
		}
	}
	if err := errors.Join(s.Unchoose(ctx, id, by), s.Unlist(ctx, id), s.RemoveKnown(ctx, id)); err != nil {
		return 0, err
	}
	return s.Erase(ctx, id)
}

func (h household) On() bool { return h.d.on.Load() }

func (h household) Dismiss(ctx context.Context, what string) error {
	all := h.d.dismissed(ctx)
	if slices.Contains(all, what) {
		return nil
	}
	// The oldest make room: what was dismissed so long ago may be said once more.
	all = append(all, what)
	return h.d.store.SetSetting(ctx, keyDismissed, strings.Join(all[max(0, len(all)-maxDismissed):], " "), ui.By(ctx))
}

func (h household) Switch(ctx context.Context, on bool) error {
	if err := h.d.store.Switch(ctx, on, ui.By(ctx)); err != nil {
		return err
	}
	h.d.on.Store(on)
	if err := h.d.recompile(ctx); err != nil {
		return err
	}
	// Now, not at the next wake: whoever switched off wants to know that it is.
	return h.d.apply(ctx)
}

// keySince is the household's setting of when it said yes to filtering.
const keySince = "filtering-since"

// remembered reads when the household said yes to filtering, and the devices
// known by then. Who starts us for the first time says yes for the devices that
// show themselves within the first minute.
func (d *daemon) remembered(ctx context.Context) (since time.Time, all []devices.Device, err error) {
	text, ok, err := d.store.Setting(ctx, keySince)
	if err != nil {
		return since, nil, err
	}
	if ok {
		since, err = time.Parse(time.RFC3339, text)
	}
	if !ok || err != nil {
		since = time.Now().Add(time.Minute).Truncate(time.Second)
		if err := d.store.SetSetting(ctx, keySince, since.Format(time.RFC3339), "first start"); err != nil {
			return since, nil, err
		}
	}
	all, err = d.store.Known(ctx)
	return since, all, err
}

// remember writes the known devices down; the store writes what differs only.
func (d *daemon) remember(ctx context.Context) error {
	return d.store.SetKnown(ctx, d.registry.All(time.Now()))
}
