package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/capture"
	"github.com/netcurtain/netcurtain/internal/buildinfo"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/internal/netlab/scene/personas"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/observe"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/store"
	"github.com/netcurtain/netcurtain/ui"
)

// showSample puts the built-in capture through the same observer, store and
// page as the daemon does with live packets, and serves the page until ctx ends.
// The page's clock stands at the capture's last packet.
func (c demoCmd) showSample(ctx context.Context, io std, page net.Listener) (err error) {
	if c.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.For)
		defer cancel()
	}
	dir, err := os.MkdirTemp("", "netcurtain-sample-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	p := &sampleHouse{registry: devices.NewRegistry(devices.Config{Maker: atlas.Maker, Since: time.Unix(1<<40, 0)})}
	// The capture was recorded in the house of the built-in personas.
	all, err := demoCmd{}.loadPersonas()
	if err != nil {
		return err
	}
	choices := map[devices.ID]devices.Choice{}
	for _, x := range all {
		choices[devices.ID(x.MAC.String())] = devices.Choice{Name: x.Host, Kind: x.Kind}
	}
	p.registry.Choose(choices)
	if p.atlas, err = atlas.New(strings.NewReader(personas.Destinations)); err != nil {
		return err
	}
	if p.store, err = store.Open(ctx, store.Config{
		HouseholdPath: filepath.Join(dir, "household.db"), LedgerPath: filepath.Join(dir, "ledger.db"),
		Age: 100 * 365 * 24 * time.Hour,
	}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.store.Close()) }()
	recorder, err := journal.NewRecorder(journal.Config{})
	if err != nil {
		return err
	}
	if err := p.replay(ctx, recorder); err != nil {
		return err
	}
	pages, err := ui.New(ui.Config{
		House: p, Ledger: p.store, Live: recorder, Version: buildinfo.Version,
		Gatherer: prometheus.NewRegistry(), Now: func() time.Time { return p.last },
		Kept: func(context.Context) []string {
			return []string{"Nothing: this is a capture, shown from a temporary folder."}
		},
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(io.err, "\n  The page:  http://%s/   Ctrl-C ends it.\n\n", page.Addr())
	return serveUntil(ctx, ui.HTTPServer(ctx, pages.TCP(), slog.New(slog.DiscardHandler)), page)
}

// sampleHouse is a house of which only a capture is left: what it did can be
// looked at, nothing can be changed.
type sampleHouse struct {
	registry *devices.Registry
	atlas    *atlas.Atlas
	store    *store.Store
	last     time.Time
}

// replay reads the sample into the store.
func (p *sampleHouse) replay(ctx context.Context, recorder *journal.Recorder) error {
	src, err := capture.Open(sample())
	if err != nil {
		return err
	}
	sub := recorder.Subscribe("store", 1<<16)
	o, err := observe.New(observe.Config{
		Devices: p.registry, Atlas: p, Record: recorder, Deadline: 2 * time.Minute,
		Now: func() time.Time { return p.last },
	})
	if err != nil {
		return err
	}
	err = o.Replay(func(pkt *flow.Packet) error {
		if err := src.Next(pkt); err != nil {
			return err
		}
		p.last = pkt.At
		if a := pkt.Tuple.SrcAddr(); a.IsPrivate() {
			p.registry.Sight(devices.Sighting{MAC: pkt.MAC, Addr: a, Source: devices.SourcePacket, At: pkt.At})
		}
		return nil
	})
	if err != nil {
		return err
	}
	sub.Close()
	written, cancel := context.WithCancel(ctx)
	cancel() // Run writes what is there and ends
	return p.store.Run(written, sub)
}

// Describe fits the atlas to the observer.
func (p *sampleHouse) Describe(name dnsname.Name, _ netip.Addr) atlas.Destination {
	x, _ := p.atlas.Lookup(name)
	return x
}

var errOnlyCapture = fmt.Errorf("this is a capture: nothing can be changed; run `sudo netcurtain demo` for a living house: %w", fs.ErrPermission)

func (p *sampleHouse) Devices(now time.Time) []devices.Device { return p.registry.All(now) }
func (p *sampleHouse) SetMode(context.Context, devices.ID, devices.Mode) (int, error) {
	return 0, errOnlyCapture
}
func (p *sampleHouse) SetKind(context.Context, devices.ID, devices.Kind) error { return errOnlyCapture }
func (p *sampleHouse) SetName(context.Context, devices.ID, string) error       { return errOnlyCapture }
func (p *sampleHouse) SetCarry(context.Context, devices.ID, bool) error        { return errOnlyCapture }
func (p *sampleHouse) SetStrip(context.Context, devices.ID, bool) error        { return errOnlyCapture }
func (p *sampleHouse) SetLog(context.Context, devices.ID, devices.LogLevel) error {
	return errOnlyCapture
}
func (p *sampleHouse) Rules(context.Context) ([]policy.Rule, error) { return nil, nil }
func (p *sampleHouse) AddRule(_ context.Context, r policy.Rule) (policy.Rule, error) {
	return r, errOnlyCapture
}
func (p *sampleHouse) RemoveRule(context.Context, int64) error          { return errOnlyCapture }
func (p *sampleHouse) Erase(context.Context, devices.ID) (int64, error) { return 0, errOnlyCapture }
func (p *sampleHouse) Forget(context.Context, devices.ID) (int64, error) {
	return 0, errOnlyCapture
}
func (p *sampleHouse) Switch(context.Context, bool) error { return errOnlyCapture }

func (p *sampleHouse) Dismiss(context.Context, string) error { return errOnlyCapture }
func (p *sampleHouse) On() bool                              { return true }
