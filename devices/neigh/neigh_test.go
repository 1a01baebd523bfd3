//go:build linux

package neigh_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/devices/neigh"
	"github.com/netcurtain/netcurtain/internal/netlab"
	"github.com/netcurtain/netcurtain/internal/netlab/labtest"
)

type lab struct {
	t     testing.TB
	house *netlab.House
	table *neigh.Table
}

func newLab(t testing.TB) *lab {
	h := labtest.House(t, netlab.Plan{Devices: []netlab.DevicePlan{{Name: "tv", Number: 10}, {Name: "plug", Number: 11}}})
	table, err := neigh.New(neigh.Config{
		Interfaces: []string{"br-guest", netlab.LANInterface}, // the first is not there, and need not be
		Logger:     slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return &lab{t, h, table}
}

// speak makes a device known to the router.
func (l *lab) speak(device string, to netip.Addr) {
	l.t.Helper()
	if out, err := l.house.Devices[device].Command(l.t.Context(), "ping", "-c1", "-W20", to.String()).CombinedOutput(); err != nil {
		l.t.Fatalf("%v: %s", err, out)
	}
}

func (l *lab) run() (<-chan devices.Sighting, func() error) {
	ctx, cancel := context.WithCancel(l.t.Context())
	l.t.Cleanup(cancel)
	sightings, done := make(chan devices.Sighting, 1000), make(chan error, 1)
	go func() {
		done <- l.house.Router.Do(func() error {
			return l.table.Run(ctx, func(s devices.Sighting) { sightings <- s })
		})
	}()
	return sightings, func() error { cancel(); return <-done }
}

func await(t testing.TB, sightings <-chan devices.Sighting, addr netip.Addr, mac net.HardwareAddr) {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case s := <-sightings:
			if s.Addr != addr {
				continue
			}
			if s.MAC != devices.MAC(mac) || s.Source != devices.SourceNeighbour || s.Gone {
				t.Errorf("sighting %+v", s)
			}
			if age := time.Since(s.At); age < 0 || age > time.Minute {
				t.Errorf("%s is dated %s ago", addr, age)
			}
			return
		case <-timeout:
			t.Fatalf("no sighting of %s", addr)
		}
	}
}

func TestNeighbours(t *testing.T) {
	l := newLab(t)
	tv, plug := l.house.Devices["tv"], l.house.Devices["plug"]
	l.speak("tv", netlab.RouterLAN4.Addr()) // before we listen
	sightings, stop := l.run()
	await(t, sightings, tv.Addr4, tv.MAC)
	l.speak("plug", netlab.RouterLAN4.Addr()) // while we listen
	await(t, sightings, plug.Addr4, plug.MAC)
	l.speak("plug", netlab.RouterLAN6.Addr())
	await(t, sightings, plug.Addr6, plug.MAC)
	// The uplink's neighbour is no device of the house.
	if out, err := l.house.Router.Command(t.Context(), "ping", "-c1", "-W20", netlab.InternetWAN4.Addr().String()).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// An address where nobody answers is none either.
	_ = l.house.Router.Command(t.Context(), "ping", "-c1", "-W1", "192.168.77.99").Run()
	// An address that moves to another device.
	if out, err := l.house.Router.Command(t.Context(), "ip", "neigh", "replace", tv.Addr4.String(), "lladdr", plug.MAC.String(), "dev", netlab.LANInterface, "nud", "reachable").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	await(t, sightings, tv.Addr4, plug.MAC)
	if err := stop(); err != nil {
		t.Errorf("after cancel: %v", err)
	}
	for len(sightings) > 0 {
		s := <-sightings
		if s.Addr == netlab.InternetWAN4.Addr() || s.Addr.String() == "192.168.77.99" || s.Addr.IsMulticast() || s.MAC.IsGroup() || s.MAC.IsZero() {
			t.Errorf("sighting of no device: %+v", s)
		}
	}
}

// The kernel ends the subscription of a reader that is too slow. The next one
// lists everything, so that nothing stays unknown.
func TestOverflow(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithCancel(t.Context())
	var log strings.Builder
	table, err := neigh.New(neigh.Config{
		Interfaces: []string{netlab.LANInterface}, Retry: 10 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	l.speak("tv", netlab.RouterLAN4.Addr()) // what is listed first says that it has subscribed
	subscribed, hold, last := make(chan struct{}), make(chan struct{}), make(chan struct{}, 10)
	first := sync.OnceFunc(func() { close(subscribed) })
	done := make(chan error, 1)
	go func() {
		done <- l.house.Router.Do(func() error {
			return table.Run(ctx, func(s devices.Sighting) {
				first()
				<-hold
				if s.Addr == netip.AddrFrom4([4]byte{10, 9, 39, 15}) { // the 9,999th
					select {
					case last <- struct{}{}:
					default:
					}
				}
			})
		})
	}()
	<-subscribed
	var batch strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&batch, "neigh add 10.9.%d.%d lladdr 02:00:5e:00:%02x:%02x dev %s nud permanent\n", i>>8, i&255, i>>8, i&255, netlab.LANInterface)
	}
	ip := l.house.Router.Command(t.Context(), "ip", "-batch", "-")
	ip.Stdin = strings.NewReader(batch.String())
	if out, err := ip.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	close(hold)
	select {
	case <-last:
	case <-time.After(time.Minute):
		t.Error("the last neighbour stays unknown")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "subscribing again") {
		t.Errorf("the kernel never ended the subscription; the log says %q", log.String())
	}
}

func TestLookup(t *testing.T) {
	l := newLab(t)
	tv := l.house.Devices["tv"]
	lookup := func(a netip.Addr) (s devices.Sighting, ok bool) {
		t.Helper()
		if err := l.house.Router.Do(func() error { s, ok = l.table.Lookup(a); return nil }); err != nil {
			t.Fatal(err)
		}
		return s, ok
	}
	if s, ok := lookup(tv.Addr4); ok {
		t.Errorf("known before it spoke: %+v", s)
	}
	l.speak("tv", netlab.RouterLAN4.Addr())
	l.speak("tv", netlab.RouterLAN6.Addr())
	for _, a := range []netip.Addr{tv.Addr4, tv.Addr6, netip.AddrFrom16(tv.Addr4.As16()), tv.Addr6.WithZone("br-lan")} {
		if s, ok := lookup(a); !ok || s.MAC != devices.MAC(tv.MAC) || s.Addr != a.Unmap().WithZone("") {
			t.Errorf("%s: %+v, %v", a, s, ok)
		}
	}
	for _, a := range []netip.Addr{{}, netip.MustParseAddr("192.168.77.99"), netlab.InternetWAN4.Addr(), netip.MustParseAddr("224.0.0.251")} {
		if s, ok := lookup(a); ok {
			t.Errorf("%s: %+v", a, s)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	l := newLab(b)
	l.speak("tv", netlab.RouterLAN4.Addr())
	addr := l.house.Devices["tv"].Addr4
	err := l.house.Router.Do(func() error {
		for b.Loop() {
			if _, ok := l.table.Lookup(addr); !ok {
				b.Fatal("unknown")
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

func TestNewChecks(t *testing.T) {
	for want, c := range map[string]neigh.Config{
		"at least one LAN interface": {Logger: slog.New(slog.DiscardHandler)},
		"a logger":                   {Interfaces: []string{"br-lan"}},
	} {
		if _, err := neigh.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
