package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/devices"
)

// knowDevices fills the registry with what was known before.
func (d *daemon) knowDevices(ctx context.Context) (err error) {
	if d.atlas, err = openAtlas(d.settings.Load().House.Destinations); err != nil {
		return err
	}
	own, macs, err := ownAddresses()
	if err != nil {
		return err
	}
	d.own.Store(&own)
	d.lan.Store(new(lanPrefixes(d.settings.Load().House.LAN)))
	var addrs []netip.Addr
	for a := range own {
		addrs = append(addrs, a)
	}
	since, known, err := d.remembered(ctx)
	if err != nil {
		return err
	}
	d.registry = devices.NewRegistry(devices.Config{Maker: atlas.Maker, Now: time.Now, Own: addrs, OwnMACs: macs, Since: since})
	d.registry.Restore(known...)
	choices, err := d.store.Choices(ctx)
	if err != nil {
		return err
	}
	d.registry.Choose(choices)
	on, err := d.store.On(ctx)
	d.on.Store(on)
	return err
}

// openAtlas reads our own table of destinations and the administrator's.
func openAtlas(paths []string) (*atlas.Atlas, error) {
	var more []io.Reader
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			return nil, fmt.Errorf("destinations: %w", err)
		}
		more = append(more, bytes.NewReader(b))
	}
	a, err := atlas.New(more...)
	if err != nil {
		return nil, fmt.Errorf("destinations %v: %w", paths, err)
	}
	return a, nil
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
