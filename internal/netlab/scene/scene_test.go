//go:build linux

package scene_test

import (
	"bytes"
	"context"
	"io/fs"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/netcurtain/netcurtain/internal/netlab"
	"github.com/netcurtain/netcurtain/internal/netlab/labtest"
	"github.com/netcurtain/netcurtain/internal/netlab/scene"
	"github.com/netcurtain/netcurtain/internal/netlab/scene/personas"
)

func load(t *testing.T) (all []scene.Persona) {
	t.Helper()
	names, err := fs.Glob(personas.Files, "*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		text, err := fs.ReadFile(personas.Files, n)
		if err != nil {
			t.Fatal(err)
		}
		p, err := scene.Parse(bytes.NewReader(text), strings.TrimSuffix(n, ".txt"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func TestParseNamesLineAndRemedy(t *testing.T) {
	for in, want := range map[string]string{
		"every 5s sing example.com":              `x:1: "sing" is not known: one of lookup, http, https, h2, quic, mqtt, ntp is needed`,
		"\naddress 7":                            `x:2: address "7": a number from 10 to 250 is needed`,
		"colour red":                             `x:1: "colour" is not known: device, mac, address, kind, mode, log, network or every is needed`,
		"every 1ms lookup a.example":             `x:1: every "1ms": a time of at least 100ms is needed`,
		"every 1s http a.example down lots":      `x:1: size "lots": bytes such as 300 or 40k are needed`,
		"every 1s lookup a.example over 8.8.8.8": `x:1: "over" is not known: via, up, down, tls1.2, direct, hello, user, password or topic is needed`,
		"device a\nmac 02:00:00:00:00:01\n":      "x: a persona needs at least device, mac and address",
		"every 1s https":                         "x:1: every needs a time, a verb and a host: every 6s lookup example.com",
		"device a b":                             "x:1: device needs one value",
	} {
		if _, err := scene.Parse(strings.NewReader(in), "x"); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
}

// Without Netcurtain every act of every persona simply works: what the demo
// shows as refused is then Netcurtain's doing.
func TestEveryActWorksInAPlainHouse(t *testing.T) {
	all := load(t)
	in, err := scene.NewInternet(all)
	if err != nil {
		t.Fatal(err)
	}
	plan := netlab.Plan{Internet: in.Addrs()}
	for _, p := range all {
		plan.Devices = append(plan.Devices, netlab.DevicePlan{Name: p.Name, Number: p.Number, MAC: p.MAC})
	}
	h := labtest.House(t, plan)
	ctx, cancel := context.WithCancel(t.Context())
	g, ctx := errgroup.WithContext(ctx)
	ready := make(chan struct{}, 2)
	router := &scene.Router{Host: h.Router, Leases: all}
	g.Go(func() error { return in.Run(ctx, h.Internet, func() { ready <- struct{}{} }) })
	g.Go(func() error { return router.Run(ctx, func() { ready <- struct{}{} }) })
	<-ready
	<-ready
	for _, p := range all {
		d := &scene.Device{Persona: p, Host: h.Devices[p.Name], Roots: in.Roots(), Addr: in.Addr}
		for _, a := range p.Acts {
			for _, d.V6 = range []bool{false, true} {
				if a.Via.IsValid() && d.V6 {
					continue
				}
				text, err := d.Do(ctx, a)
				if err != nil || strings.Contains(text, "refused") {
					t.Errorf("%s line %d (%s %s, v6 %v): %q, %v", p.Name, a.Line, a.Verb, a.Host, d.V6, text, err)
				}
			}
		}
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
