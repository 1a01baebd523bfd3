//go:build linux

package enforce

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/netlab"
)

// routerAddrs are where the router's own resolver listens for the LAN.
var routerAddrs = []netip.Addr{netlab.RouterLAN4.Addr(), netlab.RouterLAN6.Addr(), routerLink}

// withResolvers starts the router's plain resolver, ours, and the internet's.
func withResolvers(t *testing.T) (l *lab, ours *server) {
	l = newLab(t)
	l.serve(l.router, "plain", 53, routerAddrs...)
	l.serve(l.internet, "google", 53, google4, google6)
	ours = l.serve(l.router, "ours", 5300, routerAddrs...)
	redirected := l.serve(l.router, "ours", 5301, routerAddrs...)
	ours.closer = append(ours.closer, redirected.closer...)
	l.set(wanted())
	return l, ours
}

func TestLookupsAreOursWhileAlive(t *testing.T) {
	t.Parallel()
	l, _ := withResolvers(t)
	expect := func(why, router, google string) {
		t.Helper()
		for _, network := range []string{"udp", "tcp"} {
			for _, a := range routerAddrs {
				l.expect(why, l.tv, network, a, 53, router)
			}
			for _, a := range []netip.Addr{google4, google6} {
				l.expect(why, l.tv, network, a, 53, google)
			}
		}
	}
	expect("before the first proof of life", "plain", "google")
	l.alive(ServiceDNS)
	expect("alive", "ours", "ours")
	l.dead(ServiceDNS)
	expect("said to be dead", "plain", "google")
	l.alive(ServiceDNS)
	for _, a := range []netip.Addr{netlab.RouterWAN4.Addr(), netlab.RouterWAN6.Addr()} {
		l.expect("the router by its outer address", l.tv, "udp", a, 53, "ours")
		l.expect("the router by its outer address", l.tv, "tcp", a, 53, "ours")
	}
	l.dead(ServiceDNS)

	l.alive(ServiceDNS)
	d := wanted()
	d.Unfiltered = []devices.MAC{tvMAC}
	l.set(d)
	expect("an unfiltered device", "plain", "google")
	l.expect("its neighbour", l.phone, "udp", google4, 53, "ours")
	d = wanted()
	d.Exempt = []netip.Addr{l.tv.Addr4, l.tv.Addr6, routerLink}
	l.set(d)
	expect("a second resolver in the house", "plain", "google")
	d.Exempt = []netip.Addr{google4}
	l.set(d)
	l.expect("an exempt upstream", l.tv, "udp", google4, 53, "google")
	l.expect("another upstream", l.tv, "udp", google6, 53, "ours")
	d = wanted()
	d.InterceptDNS = false
	l.set(d)
	expect("interception off", "plain", "google")
}

// TestArmingCatchesRunningConversations: a client that already talks to a
// resolver of its own is ours from its next packet on.
func TestArmingCatchesRunningConversations(t *testing.T) {
	t.Parallel()
	l, _ := withResolvers(t)
	for _, a := range []netip.Addr{google4, google6} {
		for _, network := range []string{"udp", "tcp"} {
			c, err := l.dial(l.tv, network, 0, a, 53, patient)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got := talk(c, patient); !strings.HasPrefix(got, "google") {
				t.Fatalf("%s %s before arming: %q", network, a, got)
			}
			l.alive(ServiceDNS)
			want := "ours"
			if network == "tcp" {
				want = "reset" // and the next connection is ours
			}
			if got := talk(c, patient); got != want {
				t.Errorf("%s %s after arming: %q, want %q", network, a, got, want)
			}
			l.expect("after arming", l.tv, network, a, 53, "ours")
			l.dead(ServiceDNS)
		}
	}
}

// TestNobodyReachesOurPortsDirectly: what was not brought to us is refused.
func TestNobodyReachesOurPortsDirectly(t *testing.T) {
	t.Parallel()
	l, _ := withResolvers(t)
	l.proxy("proxy", 8380)
	l.alive(ServiceDNS, ServiceHTTP)
	for _, port := range []uint16{5300, 5301, 8380} {
		l.expect("from the LAN", l.tv, "tcp", netlab.RouterLAN4.Addr(), port, "refused")
		l.expect("from the internet", l.internet, "tcp", netlab.RouterWAN6.Addr(), port, "refused")
	}
	l.expect("from the LAN", l.tv, "udp", netlab.RouterLAN6.Addr(), 5301, "refused")
}

// TestBehindAFirewall: a router that lets nothing in but look-ups on port 53, as
// a guest zone does, lets what we bring to ourselves in as well.
func TestBehindAFirewall(t *testing.T) {
	t.Parallel()
	l, _ := withResolvers(t)
	l.sh(`nft -f - <<'END'
table inet fw {
	chain input {
		type filter hook input priority filter; policy drop;
		iifname "lo" accept
		ct state established,related accept
		ct state invalid drop
		meta l4proto { icmp, ipv6-icmp } accept
		iifname "br-lan" meta l4proto { tcp, udp } th dport 53 accept
	}
	chain output {
		type filter hook output priority filter; policy drop;
		ct state established,related accept
		meta l4proto ipv6-icmp accept
		oifname "br-lan" udp sport 53 accept
	}
}
END`)
	l.alive(ServiceDNS)
	for _, network := range []string{"udp", "tcp"} {
		for _, a := range append([]netip.Addr{google4, google6}, routerAddrs...) {
			l.expect("behind a firewall", l.tv, network, a, 53, "ours")
		}
	}
}

// TestFirewallBeforeTheResolver: where somebody's firewall drops what is not
// tracked, look-ups go to the plain router instead of nowhere.
func TestFirewallBeforeTheResolver(t *testing.T) {
	t.Parallel()
	l, _ := withResolvers(t)
	l.sh("nft 'table inet fw { chain input { type filter hook input priority filter; ct state untracked drop; }; }'")
	l.beat(ServiceDNS)
	c, err := l.dial(l.tv, "udp", 0, routerAddrs[0], 53, patient)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 20 {
		if _, err := c.Write([]byte("hello\n")); err != nil {
			t.Fatal(err)
		}
	}
	l.answers("dropped by the firewall", c, "silence")
	l.in(func() error {
		if err := l.k.Alive(t.Context(), ServiceDNS); !errors.Is(err, ErrBlocked) {
			t.Errorf("a blocked resolver is said to be alive: %v", err)
		}
		if p := l.k.Check(t.Context(), wanted().LAN); len(p) != 1 || !strings.Contains(p[0].What, "firewall") {
			t.Errorf("Check: %v", p)
		}
		return l.k.Dead(t.Context(), ServiceDNS)
	})
	l.answers("stepped aside", c, "plain")
}

// TestChecksums: rewritten packets carry right checksums where no network card
// computes them, and none where the device sends none (RFC 768).
func TestChecksums(t *testing.T) {
	t.Parallel()
	l, _ := withResolvers(t)
	l.withoutOffload(l.tv, "eth0")
	l.withoutOffload(l.router, "lan10")
	l.alive(ServiceDNS)
	bad := func() string {
		return l.sh("nstat -asz UdpInCsumErrors Udp6InCsumErrors TcpInCsumErrors | grep Csum | awk '{s+=$2} END {printf \"%d\", s}'")
	}
	before := bad()
	for _, a := range append([]netip.Addr{google4, google6}, routerAddrs...) {
		l.expect("checksums in software", l.tv, "udp", a, 53, "ours")
		l.expect("checksums in software", l.tv, "tcp", a, 53, "ours")
	}
	for _, a := range []netip.Addr{google4, routerAddrs[0]} {
		c, err := l.dial(l.tv, "udp", 0, a, 53, patient)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		raw, err := c.(*net.UDPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		err2 := raw.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_NO_CHECK, 1)
		})
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		l.answers("without a checksum", c, "ours")
	}
	if after := bad(); after != before {
		t.Errorf("packets with wrong checksums: %s before, %s after", before, after)
	}
}

// late is by how much the freed may hear of it after the gate opened: a second for the
// question that was on its way, one for the one that came after, three for a busy machine.
const late = 5 * time.Second

// client asks once a second from one source port, as many devices do.
type client struct {
	name    string
	network string
	addr    netip.Addr
	port    uint16       // 0: 53
	host    *netlab.Host // nil: the television
	sport   uint16
	open    net.Conn
}

// try asks once. A UDP client keeps its socket; a TCP client dials anew from the same port.
func (c *client) try(l *lab, wait time.Duration) string {
	if c.open == nil {
		conn, err := l.dial(cmp.Or(c.host, l.tv), c.network, c.sport, c.addr, cmp.Or(c.port, 53), wait)
		if err != nil {
			return word(err)
		}
		c.open = conn
	}
	answer := talk(c.open, wait)
	if c.network == "tcp" {
		_ = c.open.Close()
		c.open = nil
	}
	first, _, _ := strings.Cut(answer, " ")
	return first
}

// TestFixedSourcePort: when the daemon is killed or hangs, clients that ask every
// second from one source port are answered by the plain router, or by the
// resolver that they chose, within AliveFor, and by us again at once when we are back.
func TestFixedSourcePort(t *testing.T) {
	for _, death := range []string{"killed", "hung"} {
		t.Run(death, func(t *testing.T) {
			t.Parallel()
			l, ours := withResolvers(t)
			var clients []*client
			for i, a := range append(routerAddrs[:3:3], google4, google6) {
				for j, network := range []string{"udp", "tcp"} {
					clients = append(clients, &client{
						name: fmt.Sprintf("%s %s", network, a), network: network, addr: a, sport: uint16(40000 + 10*i + j),
					})
				}
			}
			want := func(c *client, alive bool) string {
				switch {
				case alive:
					return "ours"
				case c.addr == google4 || c.addr == google6:
					return "google"
				}
				return "plain"
			}
			for _, c := range clients {
				l.beat(ServiceDNS)
				if got := c.try(l, patient); got != want(c, true) {
					t.Errorf("%s while alive: %q", c.name, got)
				}
			}
			l.beat(ServiceDNS)
			proof := time.Now()
			if death == "killed" {
				ours.kill()
			} else {
				ours.hung.Store(true)
			}
			freed := l.until(clients, func(c *client, got string) bool { return got == want(c, false) })
			for c, at := range freed {
				t.Logf("%s: free %.1f s after the last proof of life", c.name, at.Sub(proof).Seconds())
				if at.Sub(proof) > AliveFor+late {
					t.Errorf("%s: free only after %s", c.name, at.Sub(proof))
				}
			}
			if death == "killed" {
				l.serve(l.router, "ours", 5300, routerAddrs...)
				l.serve(l.router, "ours", 5301, routerAddrs...)
			} else {
				ours.hung.Store(false)
			}
			for _, c := range clients {
				l.beat(ServiceDNS)
				if got := c.try(l, patient); got != want(c, true) {
					t.Errorf("%s: first question after we are back: %q", c.name, got)
				}
			}
		})
	}
}

// until lets the clients ask once a second each until done says yes to an answer;
// it returns when that was.
func (l *lab) until(clients []*client, done func(*client, string) bool) map[*client]time.Time {
	type result struct {
		c  *client
		at time.Time
	}
	results := make(chan result)
	for _, c := range clients {
		go func() {
			for range 12 {
				start := time.Now()
				if done(c, c.try(l, hasty)) {
					results <- result{c, time.Now()}
					return
				}
				time.Sleep(time.Until(start.Add(time.Second)))
			}
			results <- result{c, time.Time{}}
		}()
	}
	at := make(map[*client]time.Time)
	for range clients {
		r := <-results
		if r.at.IsZero() {
			l.Errorf("%s: never answered", r.c.name)
			continue
		}
		at[r.c] = r.at
	}
	return at
}
