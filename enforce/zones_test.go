//go:build linux

package enforce

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/netlab"
)

// Where a guest finds the router, a device of the LAN with a public address, and itself.
var (
	guestRouter = []netip.Addr{netlab.RouterGuest4.Addr(), netlab.RouterGuest6.Addr(), routerLink}
	lanPublic   = netip.MustParsePrefix("2001:db8:77::1/64")
	guestPublic = netip.MustParsePrefix("2001:db8:78::1/64")
	tvPublic    = netip.MustParseAddr("2001:db8:77::10")
	guestMAC    = devices.MAC{2, 0, 0x5e, 0x10, 0, 20}
)

// withGuests is a house with a guest network behind a firewall shaped like fw4's:
// guests may look up names and go out, no more.
func withGuests(t *testing.T) (l *lab, guest *netlab.Host) {
	l = newLab(t, netlab.DevicePlan{Name: "guest", Number: 20, Guest: true})
	guest = l.house.Devices["guest"]
	for _, a := range []struct {
		host *netlab.Host
		dev  string
		addr netip.Prefix
	}{
		{l.router, netlab.GuestInterface, netip.PrefixFrom(routerLink, 64)},
		{l.router, netlab.LANInterface, lanPublic}, {l.router, netlab.GuestInterface, guestPublic},
		{l.tv, "eth0", netip.PrefixFrom(tvPublic, 64)},
		{guest, "eth0", netip.MustParsePrefix("2001:db8:78::20/64")},
	} {
		if err := a.host.AddAddr(a.dev, a.addr); err != nil {
			t.Fatal(err)
		}
	}
	// The internet's way back to the public networks of the house.
	if out, err := l.internet.Command(t.Context(), "ip", "-6", "route", "add", "2001:db8:70::/44", "via", netlab.RouterWAN6.Addr().String()).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l.serve(l.router, "plain", 53, append(routerAddrs[:2:2], guestRouter[:2]...)...)
	l.serveOn(l.router, netlab.GuestInterface, "plain", 53, routerLink)
	l.serve(l.internet, "google", 53, google4, google6)
	for _, port := range []uint16{80, 443} {
		l.serve(l.internet, "site", port, site4, site6)
		l.serve(l.tv, "tv", port, l.tv.Addr4, l.tv.Addr6, tvPublic)
	}
	l.serve(l.tv, "tv", 53, l.tv.Addr4, l.tv.Addr6, tvPublic)
	for _, port := range []uint16{5300, 5301} {
		l.serve(l.router, "ours", port, append(routerAddrs[:2:2], guestRouter[0], guestRouter[1], lanPublic.Addr(), guestPublic.Addr())...)
		l.serveOn(l.router, netlab.GuestInterface, "ours", port, routerLink)
	}
	l.proxy("http", 8380)
	l.proxy("tls", 8343)
	l.fw4()
	return l, guest
}

// fw4 loads the firewall as `fw4 reload` does: all of its table anew, in one transaction.
func (l *lab) fw4() {
	l.Helper()
	path, err := filepath.Abs("testdata/fw4.nft")
	if err != nil {
		l.Fatal(err)
	}
	l.sh("nft -f " + path)
}

func guestsWanted() Desired {
	d := wanted()
	d.LAN = []string{netlab.LANInterface, netlab.GuestInterface}
	d.Guarded = []devices.MAC{guestMAC, toyMAC}
	return d
}

// TestGuestZone: a guest's look-ups and guarded connections reach us beside the
// firewall's refusal, before and after that firewall was loaded anew; nothing
// else does, and nobody comes in from the internet.
func TestGuestZone(t *testing.T) {
	t.Parallel()
	l, guest := withGuests(t)
	before := l.sh("nft -s list table inet fw4")
	d := guestsWanted()
	l.set(d)
	l.alive(ServiceDNS, ServiceHTTP, ServiceTLS)
	check := func(when string) {
		t.Helper()
		for _, network := range []string{"udp", "tcp"} {
			for _, a := range append([]netip.Addr{google4, google6}, guestRouter...) {
				l.expect(when, guest, network, a, 53, "ours")
			}
		}
		for _, a := range sites {
			l.expect(when, guest, "tcp", a, 80, "http")
			l.expect(when, guest, "tcp", a, 443, "tls")
			l.expect(when, l.toy, "tcp", a, 443, "tls")
			l.expect(when, l.tv, "tcp", a, 443, "site")
		}
		l.expect(when, guest, "tcp", netlab.RouterGuest4.Addr(), 8380, "refused")
		l.expect(when, guest, "udp", netlab.RouterGuest6.Addr(), 5300, "refused")
		l.expect(when, guest, "tcp", netlab.RouterGuest4.Addr(), 80, "refused")
		for _, port := range []uint16{53, 5300, 5301, 8380, 8343} {
			l.expect(when, l.internet, "tcp", netlab.RouterWAN4.Addr(), port, "refused")
			l.expect(when, l.internet, "tcp", netlab.RouterWAN6.Addr(), port, "refused")
		}
	}
	check("at first")
	fw4 := func() string { return l.sh("nft -s list table inet fw4") }
	once := fw4()
	l.set(d)
	if diff := cmp.Diff(once, fw4()); diff != "" {
		t.Errorf("the second Set changed (-once +twice):\n%s", diff)
	}
	l.fw4()
	l.set(d)
	check("after fw4 reload")

	// What the zone refuses and is not ours to allow: it looks nothing up at the router.
	d.InterceptDNS = false
	l.set(d)
	l.expect("not intercepted", guest, "udp", netlab.RouterGuest4.Addr(), 53, "refused")
	if out := l.sh("nft list chain inet fw4 input_guest"); strings.Contains(out, passagePrefix) {
		t.Errorf("a passage for look-ups that nobody takes:\n%s", out)
	}
	for range 2 {
		l.in(func() error { return Release(t.Context()) })
	}
	if diff := cmp.Diff(before, fw4()); diff != "" {
		t.Errorf("Release left in the firewall (-before +after):\n%s", diff)
	}
}

// TestNoCrossing: what the firewall keeps apart is not joined by us. A guest
// reaches no device of the LAN through the proxy or the resolver, by no address.
func TestNoCrossing(t *testing.T) {
	t.Parallel()
	l, guest := withGuests(t)
	inLAN := []netip.Addr{l.tv.Addr4, l.tv.Addr6, tvPublic}
	l.set(guestsWanted())
	check := func(why, lookups string) {
		t.Helper()
		for _, a := range inLAN {
			for _, port := range []uint16{80, 443} {
				l.expect(why, guest, "tcp", a, port, "refused")
			}
			for _, network := range []string{"udp", "tcp"} {
				l.expect(why, guest, network, a, 53, lookups)
			}
		}
	}
	check("before the first proof of life", "refused")
	l.alive(ServiceDNS, ServiceHTTP, ServiceTLS)
	check("alive", "ours") // answered by us, as any resolver's address is; the tv never hears of it
	d := guestsWanted()
	d.Exempt = inLAN
	l.set(d)
	check("a second resolver in the LAN", "refused")
	// And back: the LAN may go to the guests where the firewall lets it.
	l.serve(guest, "guest", 443, guest.Addr4)
	l.expect("guarded, from the LAN to the guests", l.toy, "tcp", guest.Addr4, 443, "guest")
}

// TestZoneThatLetsNothingIn: a firewall that goes on refusing, whatever we put
// beside it, loses the traffic of no other zone, and that zone's goes its own way.
func TestZoneThatLetsNothingIn(t *testing.T) {
	t.Parallel()
	l, guest := withGuests(t)
	l.set(guestsWanted())
	l.sh(`nft 'table inet strict { chain input { type filter hook input priority -5; iifname "br-guest" drop; }; }'`)
	l.beat(ServiceDNS)
	l.beat(ServiceHTTP)
	for range 20 {
		go l.ask(guest, "udp", google4, 53, hasty)
	}
	l.expect("lost", guest, "udp", google4, 53, "silence")
	for range 3 {
		l.expect("lost", guest, "tcp", site4, 80, "silence")
	}
	l.in(func() error {
		for _, s := range []Service{ServiceDNS, ServiceHTTP} {
			if err := l.k.Alive(t.Context(), s); err == nil || !strings.Contains(err.Error(), "br-guest") {
				t.Errorf("%s: %v, want a word about br-guest", s, err)
			}
		}
		if p := l.k.Check(t.Context(), guestsWanted().LAN); len(p) != 2 || !strings.Contains(fmt.Sprint(p), "br-guest") {
			t.Errorf("Check: %v", p)
		}
		return nil
	})
	l.expect("aside", guest, "udp", google4, 53, "google")
	l.expect("aside", guest, "tcp", site4, 80, "site")
	l.expect("the other zone", l.toy, "tcp", site4, 80, "http")
	l.expect("the other zone", l.tv, "udp", google4, 53, "ours")
}

// TestPassages: which rules recorded firewalls are given, and where.
func TestPassages(t *testing.T) {
	files, err := filepath.Glob("testdata/firewalls/*.txt")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d recorded firewalls, %v", len(files), err)
	}
	for _, file := range files {
		listing, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		s, m := guestsWanted().split(features{zones: true, tproxy: true})
		text, err := execute("passages.nft.tmpl", newPassages(parseRuleset(string(listing)), s, m.lan))
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "firewalls/"+strings.TrimSuffix(filepath.Base(file), ".txt")+".nft", text)
	}
}

func FuzzParseRuleset(f *testing.F) {
	files, _ := filepath.Glob("testdata/firewalls/*.txt")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	s, m := guestsWanted().split(features{zones: true, tproxy: true})
	f.Fuzz(func(t *testing.T, text string) {
		r := parseRuleset(text)
		p := newPassages(r, s, m.lan)
		all := slices.Clone(p.HandedOver)
		for _, at := range append(p.LookupsIn, p.LookupsOut...) {
			all = append(all, at.Chain)
		}
		firewalls := newFirewalls(r, m.lan)
		firewalls.judge(Connection{From: "br-lan", Source: tvPublic, Out: "wan0"})
		for _, c := range firewalls.asked().Chains {
			all = append(all, c.Name)
			for _, rule := range c.Rules {
				if strings.ContainsAny(rule, "\n;'`$\\#@") {
					t.Errorf("a rule of others breaks out of its line: %q", rule)
				}
			}
		}
		for _, chain := range all {
			if strings.ContainsAny(chain, "\n;{}\"'`$\\") {
				t.Errorf("a chain's name breaks out of its line: %q", chain)
			}
		}
	})
}

// TestWatch: what another program does to the kernel's rules is told, what we do is not.
func TestWatch(t *testing.T) {
	t.Parallel()
	l, guest := withGuests(t)
	told := make(chan struct{}, 100)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- l.router.Do(func() error { return l.k.Watch(ctx, func() { told <- struct{}{} }) })
	}()
	for !l.k.watched.Load() {
		time.Sleep(10 * time.Millisecond)
	}
	d := guestsWanted()
	settle := func() (n int) { // how often it was told until now
		time.Sleep(500 * time.Millisecond)
		for ; len(told) > 0; n++ {
			<-told
		}
		return n
	}
	isTold := func(what string) {
		t.Helper()
		select {
		case <-told:
		case <-time.After(patient):
			t.Error(what, "was not told")
		}
		settle()
	}
	l.set(d)
	settle() // of the programs nft that we ran
	l.alive(ServiceDNS)
	l.in(func() error { return l.k.Block(t.Context(), Block{tvMAC, site4, time.Minute}) })
	if n := settle(); n > 0 {
		t.Errorf("our own changes were told %d times", n)
	}
	l.fw4()
	isTold("a firewall that was loaded anew")
	l.sh("nft 'add set inet fw4 names { type ipv4_addr; }'")
	isTold("a new set of theirs")
	l.sh("nft add element inet fw4 names { 192.0.2.1, 192.0.2.2 }; nft delete element inet fw4 names { 192.0.2.1 }")
	if n := settle(); n > 0 {
		t.Errorf("what a set of theirs holds was told %d times", n)
	}
	l.sh("nft add element inet netcurtain guarded { 02:00:5e:10:00:0a }")
	isTold("an element that somebody put into a set of ours")
	l.sh("nft 'add element inet fw4 names { 192.0.2.3 }; add rule inet fw4 forward_lan ip daddr @names drop'")
	isTold("a rule that came with an element")
	// More at once than the kernel keeps for us: what comes right behind it is told, too.
	var many strings.Builder
	many.WriteString("add table inet many\nadd chain inet many rules\n")
	for range 4000 {
		many.WriteString("add rule inet many rules ip saddr 192.0.2.1 counter drop\n")
	}
	file := filepath.Join(t.TempDir(), "many.nft")
	if err := os.WriteFile(file, []byte(many.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	l.sh("nft -f " + file + "; nft add chain inet many last")
	time.Sleep(50 * time.Millisecond)
	l.k.othersChanged.Store(false) // Set has looked
	l.sh("nft add rule inet many last drop")
	for deadline := time.Now().Add(patient); !l.k.othersChanged.Load(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a change right after more than the kernel keeps was not noticed")
		}
	}
	settle()
	l.sh("nft delete table inet many")
	isTold("a table that went")
	l.set(d)
	l.expect("after fw4 reload", guest, "udp", netlab.RouterGuest4.Addr(), 53, "ours")
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
