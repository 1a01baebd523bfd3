//go:build linux

package enforce

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/netlab"
)

// sites are two web servers of the lab's internet, one address of each family.
var sites = []netip.Addr{site4, site6}

// withProxy guards the toy and starts sites and our two proxies.
func withProxy(t *testing.T) (l *lab, http, tls *server) {
	l = newLab(t)
	for _, port := range []uint16{80, 443, 853} {
		l.serve(l.internet, "site", port, site4, site6, other4, other6, private4)
	}
	http, tls = l.proxy("http", 8380), l.proxy("tls", 8343)
	d := wanted()
	d.Guarded = []devices.MAC{toyMAC}
	l.set(d)
	return l, http, tls
}

func TestGuardedTrafficReachesTheProxy(t *testing.T) {
	t.Parallel()
	l, http, _ := withProxy(t)
	for _, a := range sites {
		l.expect("before the first proof of life", l.toy, "tcp", a, 80, "site")
	}
	l.alive(ServiceHTTP, ServiceTLS)
	for _, a := range sites {
		for port, tag := range map[uint16]string{80: "http", 443: "tls"} {
			want := fmt.Sprintf("%s %s", tag, netip.AddrPortFrom(a, port))
			if got := l.ask(l.toy, "tcp", a, port, patient); got != want {
				t.Errorf("guarded: %q, want the proxy with the original destination as its own address: %q", got, want)
			}
			l.expect("not guarded", l.tv, "tcp", a, port, "site")
		}
		l.expect("another port", l.toy, "tcp", a, 853, "site")
	}
	l.expect("private destination", l.toy, "tcp", private4, 80, "site")
	l.serve(l.router, "page", 80, netlab.RouterLAN4.Addr(), netlab.RouterLAN6.Addr())
	l.expect("the router's own page", l.toy, "tcp", netlab.RouterLAN4.Addr(), 80, "page")
	l.expect("the router's own page", l.toy, "tcp", netlab.RouterLAN6.Addr(), 80, "page")

	l.dead(ServiceHTTP)
	l.expect("said to be dead", l.toy, "tcp", site4, 80, "site")
	l.expect("the other service goes on", l.toy, "tcp", site4, 443, "tls")
	l.alive(ServiceHTTP)
	http.kill()
	for _, a := range sites {
		l.expect("killed, at once", l.toy, "tcp", a, 80, "site")
	}
}

// TestArmingLeavesRunningConnections: the proxy takes new connections only, and
// keeps those that it has, whatever happens to the gate or to the device's mode.
func TestArmingLeavesRunningConnections(t *testing.T) {
	t.Parallel()
	l, _, _ := withProxy(t)
	for _, a := range sites {
		direct := l.running(l.toy, a, 80, "site")
		l.alive(ServiceHTTP)
		l.answers("armed", direct, "site")
		proxied := l.running(l.toy, a, 80, "http")
		l.dead(ServiceHTTP)
		l.answers("disarmed", proxied, "http")
		l.answers("disarmed", direct, "site")
		d := wanted()
		l.set(d)
		l.answers("left guard", proxied, "http")
		d.Guarded = []devices.MAC{toyMAC}
		l.set(d)
	}
}

// TestBecomingGuardedEndsDirectConnections: what ran past the proxy ends, on purpose.
func TestBecomingGuardedEndsDirectConnections(t *testing.T) {
	t.Parallel()
	l, _, _ := withProxy(t)
	l.alive(ServiceHTTP, ServiceTLS)
	for _, a := range sites {
		web := l.running(l.tv, a, 443, "site")
		neighbour := l.running(l.phone, a, 443, "site")
		d := wanted()
		d.Guarded = []devices.MAC{toyMAC, tvMAC}
		l.set(d)
		if n := l.k.Ended(tvMAC, phoneMAC); n != 1 {
			t.Errorf("%d connections are said to have ended, want 1", n)
		}
		if n := l.k.Ended(tvMAC); n != 0 {
			t.Errorf("%d connections are said to have ended a second time", n)
		}
		l.answers("now guarded", web, "reset")
		l.answers("its neighbour", neighbour, "site")
		l.expect("now guarded", l.tv, "tcp", a, 443, "tls")
		d.Guarded = []devices.MAC{toyMAC}
		l.set(d)
	}
}

// TestBecomingGuardedAmidAReload: a firewall that is being loaded anew in the same
// moment lets the Set fail; the next one ends what the first one should have ended.
func TestBecomingGuardedAmidAReload(t *testing.T) {
	t.Parallel()
	l, _, _ := withProxy(t)
	l.alive(ServiceHTTP, ServiceTLS)
	l.sh("nft 'table inet fw { chain input { type filter hook input priority filter; policy drop; ct state established accept; meta l4proto ipv6-icmp accept; iifname br-lan accept; }; }'")
	amid := filepath.Join(t.TempDir(), "amid")
	if err := os.WriteFile(amid, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// While the file is there, rules for other tables come too late: their chains are others by now.
	busy := filepath.Join(t.TempDir(), "nft")
	script := "#!/bin/sh\n[ $1 = -f ] || exec nft \"$@\"\ntext=$(cat)\n" +
		"case $text in *'inet fw '*) [ -e " + amid + " ] && echo 'Could not process rule: No such file or directory' >&2 && exit 1;; esac\n" +
		"echo \"$text\" | exec nft \"$@\"\n"
	if err := os.WriteFile(busy, []byte(script), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	l.k.nft = nft(busy)
	for _, a := range sites {
		web := l.running(l.tv, a, 443, "site")
		d := wanted()
		d.Guarded = []devices.MAC{toyMAC, tvMAC}
		l.in(func() error {
			if err := l.k.Set(t.Context(), d); err == nil {
				t.Error("the firewall's table was not written to")
			}
			return nil
		})
		l.answers("now guarded", web, "reset")
		d.Guarded = []devices.MAC{toyMAC}
		l.in(func() error { _ = l.k.Set(t.Context(), d); return nil })
	}
	if err := os.Remove(amid); err != nil {
		t.Fatal(err)
	}
	l.set(wanted())

	// What nft could not be asked is no answer: memory is short, say, and the kernel kills it.
	killed := "#!/bin/sh\ntext=$(cat)\ncase $text in *netcurtain_probe*) kill -KILL $$;; esac\necho \"$text\" | exec nft \"$@\"\n"
	if err := os.WriteFile(busy, []byte(killed), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	l.sh("nft 'table inet asked { chain forward { type filter hook forward priority filter; tcp dport 81 drop; }; }'")
	d := wanted()
	d.Guarded = []devices.MAC{toyMAC}
	l.in(func() error {
		if err := l.k.Set(t.Context(), d); err == nil {
			t.Error("what a firewall says is known without asking it")
		}
		l.k.feat = nil
		if err := l.k.Set(t.Context(), d); err == nil || l.k.feat != nil {
			t.Errorf("what the kernel can is known without asking it: %+v, %v", l.k.feat, err)
		}
		return nil
	})
	if err := os.WriteFile(busy, []byte("#!/bin/sh\nexec nft \"$@\"\n"), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	l.set(d)
	l.expect("asked at last", l.toy, "tcp", site4, 443, "tls")

	// Rules that change faster than they can be listed cannot be asked: what is chosen holds all the same.
	restless := "#!/bin/sh\ncase \"$*\" in *'list ruleset') exec sleep 600;; esac\nexec nft \"$@\"\n"
	if err := os.WriteFile(busy, []byte(restless), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	web := l.running(l.tv, site4, 443, "site")
	d.Guarded = []devices.MAC{tvMAC}
	l.in(func() error {
		if err := l.k.Set(t.Context(), d); !errors.Is(err, errRestless) {
			t.Errorf("listed for ever: %v", err)
		}
		return nil
	})
	l.answers("now guarded", web, "reset")
	l.expect("now guarded", l.tv, "tcp", site6, 443, "tls")
}

func TestGuardedSideDoors(t *testing.T) {
	t.Parallel()
	l, _, _ := withProxy(t)
	for _, c := range []struct {
		network string
		port    uint16
		gate    Service
	}{{"udp", 443, ServiceTLS}, {"udp", 853, ServiceDNS}, {"tcp", 853, ServiceDNS}} {
		for _, a := range sites {
			l.expect("nobody stands in", l.toy, c.network, a, c.port, "site")
			l.alive(c.gate)
			l.expect("guarded", l.toy, c.network, a, c.port, "refused")
			l.expect("not guarded", l.tv, c.network, a, c.port, "site")
			l.dead(c.gate)
		}
	}
}

// TestFurtherPorts: a port that the configuration names is handed over like 443, by
// the same proof of life, and from one change to the next.
func TestFurtherPorts(t *testing.T) {
	t.Parallel()
	l, _, _ := withProxy(t)
	l.serve(l.internet, "site", 8443, site4, site6)
	l.alive(ServiceTLS)
	for _, a := range sites {
		l.expect("not named", l.toy, "tcp", a, 8443, "site")
	}
	d := wanted()
	d.Guarded, d.Handed = []devices.MAC{toyMAC}, []uint16{8443}
	l.set(d)
	l.beat(ServiceTLS)
	for _, a := range sites {
		if got, want := l.ask(l.toy, "tcp", a, 8443, patient), "tls "+netip.AddrPortFrom(a, 8443).String(); got != want {
			t.Errorf("named: %q, want %q", got, want)
		}
		l.expect("not guarded", l.tv, "tcp", a, 8443, "site")
		running := l.running(l.toy, a, 8443, "tls")
		l.answers("runs", running, "tls")
	}
	l.dead(ServiceTLS)
	l.expect("nobody carries", l.toy, "tcp", site4, 8443, "site")
	l.beat(ServiceTLS)
	d.Handed = nil
	l.set(d)
	l.expect("taken back", l.toy, "tcp", site4, 8443, "site")
	l.expect("as ever", l.toy, "tcp", site4, 443, "tls")
}

// TestExplicitProxyIsForTheHouse: its port answers devices of the LAN at the
// router's own addresses, nobody else, and only where it is wanted.
func TestExplicitProxyIsForTheHouse(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	own := []netip.Addr{netlab.RouterLAN4.Addr(), netlab.RouterLAN6.Addr(), netlab.RouterWAN4.Addr(), netlab.RouterWAN6.Addr()}
	l.serve(l.router, "explicit", 3128, own...)
	d := wanted()
	d.Ports.Explicit = 3128
	l.set(d)
	for _, a := range own {
		l.expect("from the house", l.tv, "tcp", a, 3128, "explicit")
	}
	for _, a := range own[2:] {
		l.expect("from the internet", l.internet, "tcp", a, 3128, "refused")
	}
}

// TestKnownResolvers: DNS over HTTPS at an address that needs no look-up is refused
// with the first packet, on port 443 only, while the proxy stands in.
func TestKnownResolvers(t *testing.T) {
	t.Parallel()
	l, _, _ := withProxy(t)
	l.serve(l.internet, "door", 443, google4, google6)
	l.serve(l.internet, "door", 80, google4, google6)
	d := wanted()
	d.Guarded, d.Doors = []devices.MAC{toyMAC}, []netip.Addr{google4, google6}
	l.set(d)
	for _, a := range d.Doors {
		l.expect("nobody stands in", l.toy, "tcp", a, 443, "door")
		direct := l.running(l.toy, a, 443, "door")
		l.alive(ServiceTLS, ServiceHTTP)
		l.answers("ran before", direct, "door")
		for _, network := range []string{"tcp", "udp"} {
			l.expect("closed", l.toy, network, a, 443, "refused")
			l.expect("not guarded", l.tv, network, a, 443, "door")
		}
		l.expect("another port", l.toy, "tcp", a, 80, "http")
		l.dead(ServiceTLS)
		l.dead(ServiceHTTP)
	}
	l.alive(ServiceTLS)
	for _, a := range sites {
		l.expect("no resolver", l.toy, "tcp", a, 443, "tls")
	}
	d.Doors = []netip.Addr{google6}
	l.set(d)
	l.expect("allowed meanwhile", l.toy, "tcp", google4, 443, "tls")
	l.expect("closed still", l.toy, "tcp", google6, 443, "refused")
}

// TestFirewallBeforeTheProxy: where somebody's firewall drops what we hand over,
// guarded devices go straight to the internet instead of nowhere.
func TestFirewallBeforeTheProxy(t *testing.T) {
	t.Parallel()
	l, _, _ := withProxy(t)
	l.sh("nft 'table inet fw { chain input { type filter hook input priority filter; tcp dport 80 drop; }; }'")
	l.beat(ServiceHTTP)
	for _, a := range []netip.Addr{site4, site6, site4} {
		l.expect("dropped by the firewall", l.toy, "tcp", a, 80, "silence")
	}
	now := time.Now()
	l.k.now = func() time.Time { return now }
	l.in(func() error {
		for range 2 {
			if err := l.k.Alive(t.Context(), ServiceHTTP); !errors.Is(err, ErrBlocked) {
				t.Errorf("a blocked proxy is said to be alive: %v", err)
			}
		}
		if p := l.k.Check(t.Context(), wanted().LAN); len(p) != 1 || !strings.Contains(p[0].What, "firewall") {
			t.Errorf("Check: %v", p)
		}
		return l.k.Dead(t.Context(), ServiceHTTP) // or a few seconds
	})
	l.expect("stepped aside", l.toy, "tcp", site4, 80, "site")
	l.sh("nft delete table inet fw")
	now = now.Add(aside)
	l.beat(ServiceHTTP)
	l.expect("tried again", l.toy, "tcp", site4, 80, "http")
}

// withRedirect is withProxy on a kernel without tproxy.
func withRedirect(t *testing.T) (l *lab, http, tls *server) {
	l = newLab(t)
	for _, port := range []uint16{80, 443} {
		l.serve(l.internet, "site", port, site4, site6, other4, other6, private4)
	}
	http, tls = l.proxy("http", 8380), l.proxy("tls", 8343)
	l.k.feat = &features{zones: true, redirect: true}
	d := wanted()
	d.Guarded = []devices.MAC{toyMAC}
	l.set(d)
	return l, http, tls
}

// TestRedirect: without tproxy the web traffic of guarded devices comes by address
// translation, new connections only, and what runs goes on either way.
func TestRedirect(t *testing.T) {
	t.Parallel()
	l, _, _ := withRedirect(t)
	for _, a := range sites {
		l.expect("before the first proof of life", l.toy, "tcp", a, 80, "site")
		direct := l.running(l.toy, a, 80, "site")
		l.alive(ServiceHTTP, ServiceTLS)
		l.expect("guarded", l.toy, "tcp", a, 80, "http")
		l.expect("guarded", l.toy, "tcp", a, 443, "tls")
		l.expect("guarded: no QUIC", l.toy, "udp", a, 443, "refused")
		l.expect("not guarded", l.tv, "tcp", a, 443, "site")
		l.answers("armed", direct, "site")
		carried := l.running(l.toy, a, 80, "http")
		l.dead(ServiceHTTP)
		l.answers("disarmed", carried, "http")
		l.answers("disarmed", direct, "site")
		l.expect("disarmed", l.toy, "tcp", a, 80, "site")
		d := wanted()
		l.set(d)
		l.answers("left guard", carried, "http")
		l.alive(ServiceHTTP)
		l.expect("left guard", l.toy, "tcp", a, 80, "site")
		d.Cut = []devices.MAC{toyMAC}
		l.set(d)
		l.answers("cut", carried, "reset")
		l.answers("cut", direct, "reset")
		d.Cut, d.Guarded = nil, []devices.MAC{toyMAC}
		l.set(d)
		l.dead(ServiceHTTP)
		l.dead(ServiceTLS)
	}
	l.expect("private destination", l.toy, "tcp", private4, 80, "site")
	l.alive(ServiceHTTP)
	for _, from := range []*netlab.Host{l.toy, l.tv} {
		l.expect("our listener itself", from, "tcp", netlab.RouterLAN4.Addr(), 8380, "refused")
	}
	l.in(func() error { return Release(t.Context()) })
	if out := l.sh("conntrack -L 2>/dev/null; conntrack -L -f ipv6 2>/dev/null"); strings.Contains(out, "sport=8380") {
		t.Errorf("still tracked:\n%s", out)
	}
}

// TestRedirectFallsOpen: a client that begins again and again from one source port
// is let through to the site itself as soon as the proxy is gone, killed or hung,
// and comes back to it.
func TestRedirectFallsOpen(t *testing.T) {
	for _, death := range []string{"killed", "hung"} {
		t.Run(death, func(t *testing.T) {
			t.Parallel()
			l, http, _ := withRedirect(t)
			clients := []*client{
				{name: "IPv4", network: "tcp", addr: site4, port: 80, host: l.toy, sport: 40000},
				{name: "IPv6", network: "tcp", addr: site6, port: 80, host: l.toy, sport: 40001},
			}
			for _, c := range clients {
				l.beat(ServiceHTTP)
				if got := c.try(l, patient); got != "http" {
					t.Errorf("%s while alive: %q", c.name, got)
				}
			}
			l.beat(ServiceHTTP)
			proof := time.Now()
			if death == "killed" {
				http.kill()
			} else {
				http.hung.Store(true)
			}
			for c, at := range l.until(clients, func(_ *client, got string) bool { return got == "site" }) {
				t.Logf("%s: free %.1f s after the last proof of life", c.name, at.Sub(proof).Seconds())
				if at.Sub(proof) > AliveFor+late {
					t.Errorf("%s: free only after %s", c.name, at.Sub(proof))
				}
			}
			if death == "killed" {
				l.proxy("http", 8380)
			} else {
				http.hung.Store(false)
			}
			for _, c := range clients {
				l.beat(ServiceHTTP)
				if got := c.try(l, patient); got != "http" {
					t.Errorf("%s: first connection after we are back: %q", c.name, got)
				}
			}
		})
	}
}
