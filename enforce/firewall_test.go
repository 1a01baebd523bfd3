//go:build linux

package enforce

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/netlab"
)

// TestAsked: what recorded firewalls are asked, in our own table.
func TestAsked(t *testing.T) {
	files, err := filepath.Glob("testdata/firewalls/*.txt")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d recorded firewalls, %v", len(files), err)
	}
	for _, file := range files {
		listing, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f := newFirewalls(parseRuleset(string(listing)), []string{"br-lan", "br-guest", "br-iot"})
		text, err := execute("asked.nft.tmpl", f.asked())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range f.vague {
			text += "	# not understood: " + v + "\n"
		}
		golden(t, "firewalls/"+strings.TrimSuffix(filepath.Base(file), ".txt")+".asked", text)
	}
}

// TestJudge: one rule or a few, and what may come of a connection.
func TestJudge(t *testing.T) {
	toy := Connection{
		From: "br-lan", MACs: []devices.MAC{toyMAC}, Source: netip.MustParseAddr("192.168.77.12"),
		To: netip.MustParseAddrPort("198.51.100.10:443"), Out: "wan0",
	}
	for _, c := range []struct {
		rules string
		want  outcome
	}{
		{``, passes},
		{`drop`, isRefused},
		{`ct state established,related accept; ct state invalid drop`, passes},
		{`ct state vmap { established : accept, related : accept, invalid : drop }; reject`, isRefused},
		{`ct state vmap { new : drop, established : accept }`, isRefused},
		{`iifname "br-lan" drop`, isRefused},
		{`iifname { "br-iot", "br-lan" } oifname "wan0" counter packets 4 bytes 10 drop`, isRefused},
		{`iifname "br-*" drop`, isRefused},
		{`iifname != "br-lan" drop`, passes},
		{`iifname "br-guest" drop`, passes},
		{`oifname "br-*" drop`, passes},
		{`iif "br-lan" oif != "wan0" drop`, passes},
		{`iifname vmap { "br-lan" : drop, "br-guest" : accept }`, isRefused},
		{`iifname . oifname vmap { "br-lan" . "wan0" : drop }`, passes | isRefused},
		{`ip saddr 192.168.77.12 reject`, isRefused},
		{`ip saddr { 192.168.77.10-192.168.77.13, 10.0.0.0/8 } reject with icmpx admin-prohibited`, isRefused},
		{`ip saddr != 192.168.77.0/24 reject`, passes},
		{`ip6 saddr fd77::c drop`, passes},
		{`meta nfproto ipv6 drop`, passes},
		{`ip daddr 198.51.100.0/24 tcp dport { 80, 443 } drop`, isRefused},
		{`tcp dport 22 drop; tcp dport 1-79 drop; udp dport 443 drop; icmp type echo-request drop`, passes},
		{`meta l4proto { tcp, udp } th dport 443 drop`, isRefused},
		{`meta l4proto udp drop; ip protocol udp drop`, passes},
		{`ip protocol tcp drop`, isRefused},
		{`ether saddr 02:00:5E:10:00:0C drop comment "no accept"`, isRefused},
		{`ether saddr 02:00:5e:10:00:0a drop`, passes},
		{`ip saddr @kids drop`, passes | isRefused},
		{`ip saddr @guests accept; drop`, passes | isRefused},
		{`meta hour "22:00"-"06:00" drop`, passes | isRefused},
		{`meta mark & 0x000000ff == 0x00000001 jump bad`, passes | isRefused},
		{`queue to 1`, passes | isRefused},
		{`log prefix "drop" level info`, passes},
		{`limit rate 5/second burst 5 packets accept; drop`, passes | isRefused},
		{`tcp flags != syn / fin,syn,rst,ack ct state new counter packets 0 bytes 0 drop`, passes},
		{`tcp flags & (fin | syn | rst | ack) != syn ct state new drop`, passes},
		{`tcp flags syn / fin,syn,rst,ack limit rate over 5/second drop; drop`, isRefused},
		{`tcp flags syn / fin,syn,rst,ack accept; drop`, passes},
		{`tcp flags & (fin | syn | rst | ack) == syn accept; drop`, passes},
		{`tcp flags & (fin | syn) == fin | syn drop`, passes},
		{`tcp flags fin,syn / fin,syn drop`, passes},
		{`tcp flags fin,urg,psh drop; tcp flags syn,ack / syn,ack drop; tcp flags & syn == 0x0 drop`, passes},
		{`tcp flags ! syn,rst drop`, passes},
		{`tcp flags syn drop`, isRefused},
		{`tcp flags & syn == syn reject`, isRefused},
		{`tcp flags == syn drop`, passes | isRefused},
		{`tcp flags { syn | ack, syn } drop`, passes | isRefused},
		{`tcp flags & (fin drop`, passes | isRefused},
		{`ct mark set 0x1; meta priority set 1:2; tcp flags syn tcp option maxseg size set rt mtu`, passes},
		{`ct status dnat accept; drop`, isRefused},
		{`jump bad`, isRefused},
		{`jump good`, passes},
		{`jump good; drop`, passes},
		{`jump empty; drop`, isRefused},
		{`jump turns; drop`, isRefused},
		{`goto empty; drop`, passes},
		{`goto nowhere`, passes | isRefused},
		{`return; drop`, passes},
		{`meta mark 1 return; drop`, passes | isRefused},
		{`jump round`, passes | isRefused},
	} {
		text := "table inet other {\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\t" +
			strings.ReplaceAll(c.rules, "; ", "\n\t\t") + "\n\t}\n" +
			"\tchain bad {\n\t\tdrop\n\t}\n\tchain good {\n\t\taccept\n\t}\n\tchain empty {\n\t}\n\tchain turns {\n\t\treturn\n\t\taccept\n\t}\n" +
			"\tchain round {\n\t\tip saddr @some drop\n\t\tjump round\n\t}\n}\n"
		f := newFirewalls(parseRuleset(text), []string{"br-lan", "br-guest"})
		if got := f.judge(toy); got != c.want {
			t.Errorf("%s: %03b, want %03b", c.rules, got, c.want)
		}
	}
}

// TestGoesOn: what may come of a connection that runs is another question than what
// may come of a new one.
func TestGoesOn(t *testing.T) {
	toy := Connection{
		From: "br-lan", MACs: []devices.MAC{toyMAC}, Source: netip.MustParseAddr("192.168.77.12"),
		To: netip.MustParseAddrPort("198.51.100.10:443"), Out: "wan0",
	}
	for _, c := range []struct {
		rules string
		want  outcome
	}{
		{`ct state vmap { established : accept, related : accept, invalid : drop }; drop`, passes},
		{`ct state established,related accept; ip saddr 192.168.77.12 drop`, passes},
		{`ip saddr 192.168.77.12 drop; ct state established,related accept`, isRefused},
		{`ip saddr 192.168.77.12 ct state new drop`, passes},
		{`ct state != established drop`, passes},
		{`ct status assured accept; drop`, passes},
		{`ether saddr 02:00:5e:10:00:0c drop`, isRefused},
		{`meta mark 1 drop`, passes | isRefused},
		{`limit rate over 5/second drop`, passes | isRefused},
		{`tcp flags != syn / fin,syn,rst,ack ct state new drop`, passes},
		{`ip daddr @banned drop`, passes | isRefused},
	} {
		text := "table inet other {\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n\t\t" +
			strings.ReplaceAll(c.rules, "; ", "\n\t\t") + "\n\t}\n}\n"
		f := newFirewalls(parseRuleset(text), []string{"br-lan"})
		if got := f.running.judge(toy); got != c.want {
			t.Errorf("%s: %03b, want %03b", c.rules, got, c.want)
		}
		counted := strings.ReplaceAll(text, " drop", " counter packets 7 bytes 70 drop")
		if newFirewalls(parseRuleset(counted), []string{"br-lan"}).print != f.print {
			t.Errorf("%s: other rules, only because packets were counted", c.rules)
		}
	}
}

// TestLegacyFilters: rules that nft does not list are not kept silent about.
func TestLegacyFilters(t *testing.T) {
	for _, c := range []struct{ v4, v6, want string }{
		{"", "", ""},
		{"nat\nmangle\n", "mangle\n", ""},
		{"filter\nnat\n", "", "iptables-legacy"},
		{"filter\n", "filter\n", "ip6tables-legacy iptables-legacy"},
	} {
		proc := t.TempDir()
		for name, text := range map[string]string{"ip_tables_names": c.v4, "ip6_tables_names": c.v6} {
			if err := os.WriteFile(filepath.Join(proc, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.Join(legacyFilters(proc), " "); got != c.want {
			t.Errorf("%q %q: %q", c.v4, c.v6, got)
		}
		found := checkLegacy(proc)
		if told := len(found) == 1 && strings.Contains(found[0].Fix, "iptables-legacy -S FORWARD"); told != (c.want != "") {
			t.Errorf("%q %q: told %v", c.v4, c.v6, found)
		}
	}
	if got := legacyFilters(filepath.Join(t.TempDir(), "none")); got != nil {
		t.Error(got)
	}
}

// TestFirewallsAreAsked: what another firewall refuses to forward is not handed to
// the proxy, so that the firewall refuses it; everything else is. That holds for a
// whole zone, for one device and for one destination, also after a change.
func TestFirewallsAreAsked(t *testing.T) {
	t.Parallel()
	l, guest := withGuests(t)
	l.serve(l.internet, "other", 80, other4, other6)
	l.serve(l.internet, "other", 443, other4, other6)
	// A zone without forwarding to wan, as fw4 writes it.
	l.sh("nft flush chain inet fw4 forward_guest; nft add rule inet fw4 forward_guest jump reject_to_guest")
	for _, rule := range []string{
		"ether saddr " + l.tv.MAC.String() + ` counter jump handle_reject comment "!fw4: No internet for the tv"`,
		"ip daddr " + other4.String() + " counter drop",
		"meta l4proto tcp ip6 daddr 2001:db8:99::20 counter reject",
		`meta hour "00:00"-"23:59" ip saddr 192.168.77.99 drop`,
	} {
		l.sh("nft 'insert rule inet fw4 forward_lan " + rule + "'")
	}
	d := guestsWanted()
	d.Guarded = append(d.Guarded, tvMAC)
	d.Ports.Explicit = 3128
	l.serve(l.router, "explicit", 3128, netlab.RouterGuest4.Addr(), l.router.Addr4)
	var later atomic.Int64
	start := time.Now()
	l.k.now = func() time.Time { return start.Add(time.Duration(later.Load())) }
	l.set(d)
	l.alive(ServiceDNS, ServiceHTTP, ServiceTLS)
	refused := func(when string, who *netlab.Host, word string, to ...netip.Addr) {
		t.Helper()
		for _, a := range to {
			l.expect(when, who, "tcp", a, 80, word)
			l.expect(when, who, "tcp", a, 443, word)
		}
	}
	carried := func(when string, who *netlab.Host, to ...netip.Addr) {
		t.Helper()
		for _, a := range to {
			l.expect(when, who, "tcp", a, 80, "http")
			l.expect(when, who, "tcp", a, 443, "tls")
		}
	}
	carried("nobody bars it", l.toy, sites...)
	refused("its zone is barred", guest, "refused", append(sites, other4, other6)...)
	refused("the device is barred", l.tv, "refused", sites...)
	refused("the address is barred", l.toy, "silence", other4)
	refused("the address is barred", l.toy, "refused", other6)
	// Its input chain speaks of no look-ups, and we do not open it for them.
	l.expect("its zone is barred", guest, "udp", netlab.RouterGuest4.Addr(), 53, "silence")
	l.expect("its zone is barred", guest, "tcp", netlab.RouterGuest4.Addr(), 53, "refused")
	l.expect("its zone is barred", guest, "tcp", netlab.RouterGuest4.Addr(), 3128, "refused")
	l.expect("the explicit proxy", l.toy, "tcp", l.router.Addr4, 3128, "explicit")
	l.in(func() error {
		for _, c := range []struct {
			from netip.Addr
			mac  devices.MAC
			to   netip.Addr
			want bool
		}{
			{l.toy.Addr4, toyMAC, site4, true}, {l.toy.Addr6, toyMAC, site6, true}, {l.toy.Addr4, toyMAC, site6, true},
			{l.toy.Addr4, toyMAC, other4, false}, {l.toy.Addr4, toyMAC, other6, false},
			{l.tv.Addr4, tvMAC, site4, false}, {guest.Addr4, guestMAC, site4, false}, {guest.Addr6, guestMAC, site6, false},
		} {
			if got := l.k.Forwards(t.Context(), []devices.MAC{c.mac}, c.from, netip.AddrPortFrom(c.to, 443), false); got != c.want {
				t.Errorf("from %s to %s: %v, want %v", c.from, c.to, got, c.want)
			}
		}
		if p := l.k.Check(t.Context(), d.LAN); len(p) > 0 {
			t.Errorf("Check: %v", p)
		}
		return nil
	})
	if got := l.k.Barred(); len(got) != 1 || got[0] != netlab.GuestInterface {
		t.Errorf("barred: %v", got)
	}

	l.fw4() // a forwarding was added, the rules are gone
	l.set(d)
	carried("after the change", guest, sites...)
	carried("after the change", l.tv, sites...)
	carried("after the change", l.toy, append(sites, other4, other6)...)
	l.expect("after the change", guest, "udp", netlab.RouterGuest4.Addr(), 53, "ours")
	l.expect("after the change", guest, "tcp", netlab.RouterGuest4.Addr(), 3128, "explicit")
	l.expect("after the change", l.internet, "tcp", netlab.RouterWAN4.Addr(), 3128, "refused")

	// A set of another table can only be asked: what is about one is handed over, and judged there.
	l.sh("nft 'add set inet fw4 kids { type ipv4_addr; flags interval; elements = { " + l.tv.Addr4.String() + ", 10.0.0.0/8 }; }; " +
		"add set inet fw4 bad.v6 { type ipv6_addr; elements = { " + other6.String() + " }; }; add set inet fw4 mine { type ether_addr; }'")
	l.sh("nft 'insert rule inet fw4 forward_lan ip saddr @kids drop; insert rule inet fw4 forward_lan ip6 daddr @bad.v6 counter drop; " +
		"insert rule inet fw4 forward_lan ether saddr @mine drop'")
	l.set(d)
	carried("a set", l.tv, sites...)
	// What was let begin goes on as long as it would without us.
	ran := func(when string, from netip.Addr, to netip.Addr, want bool) {
		t.Helper()
		for range 2 { // as soon as the rules have stood for a while
			l.set(d)
			_, settled := l.k.Firewalls()
			l.in(func() error {
				if got := l.k.GoesOn(t.Context(), nil, from, netip.AddrPortFrom(to, 443)); got != (want || !settled) {
					t.Errorf("%s, settled %v: from %s to %s: goes on %v", when, settled, from, to, got)
				}
				return nil
			})
			later.Add(int64(settle))
		}
	}
	ran("barred in new connections", l.tv.Addr4, site4, true)
	l.sh("nft 'table inet strict { set bad { type ipv4_addr; elements = { " + site4.String() + " }; }; chain forward { type filter hook forward priority -5; ip6 saddr " + l.tv.Addr6.String() + " drop; ip daddr @bad drop; }; }'")
	ran("barred whatever runs", l.tv.Addr6, site6, false)
	ran("another device", l.toy.Addr6, site6, true)
	ran("by a set", l.toy.Addr4, site4, false)
	l.sh("nft delete table inet strict")
	ran("barred no more", l.tv.Addr6, site6, true)

	ask := func(when string, from netip.Addr, to netip.Addr, want bool) {
		t.Helper()
		mac := map[bool]devices.MAC{true: tvMAC, false: toyMAC}[from == l.tv.Addr4 || from == l.tv.Addr6]
		for _, handed := range []bool{true, false} {
			if got := l.k.Forwards(t.Context(), []devices.MAC{mac}, from, netip.AddrPortFrom(to, 443), handed); got != want {
				t.Errorf("%s: from %s to %s, handed over %v: %v", when, from, to, handed, got)
			}
		}
	}
	l.in(func() error {
		ask("in the set", l.tv.Addr4, site4, false)
		ask("in no set", l.tv.Addr6, site6, true)
		ask("in no set", l.toy.Addr4, site4, true)
		ask("to one in the set", l.toy.Addr6, other6, false)
		if p := l.k.Check(t.Context(), d.LAN); len(p) > 0 {
			t.Errorf("Check: %v", p)
		}
		return nil
	})
	l.sh("nft 'add element inet fw4 mine { " + l.toy.MAC.String() + " }; delete element inet fw4 kids { " + l.tv.Addr4.String() + " }'")
	l.k.sets.mu.Lock()
	l.k.sets.since = time.Time{} // what the sets said is forgotten
	l.k.sets.mu.Unlock()
	l.in(func() error {
		ask("put into a set", l.toy.Addr4, site4, false)
		ask("taken out of the set", l.tv.Addr4, site4, true)
		return nil
	})
	// What depends on the time of day the kernel judges itself.
	l.sh(`nft 'insert rule inet fw4 forward_lan meta hour "00:00"-"23:59" ip saddr 192.168.77.99 drop'`)
	l.set(d)
	l.in(func() error {
		ask("in no set", l.tv.Addr4, site4, true)
		return nil
	})

	// What cannot be read goes straight, whether the firewall then refuses it or not.
	l.sh("nft insert rule inet fw4 forward_lan ip saddr " + l.tv.Addr4.String() + " meta mark 0 drop")
	l.set(d)
	l.expect("unreadable", l.tv, "tcp", site4, 443, "silence")
	l.expect("unreadable", l.toy, "tcp", site4, 443, "tls")
	l.in(func() error {
		// The daemon tells, and so does who never handed anything over.
		for who, k := range map[string]*Kernel{"daemon": l.k, "netcurtain check": {nft: "nft"}} {
			if p := k.Check(t.Context(), d.LAN); len(p) != 1 || !strings.Contains(p[0].What, "meta mark 0x00000000 drop") {
				t.Errorf("%s: %v", who, p)
			}
		}
		return nil
	})
}

// TestFirewalldIsAsked: the rules of a real firewalld, whose zones and policies lie
// several jumps deep: the zone home may go out but for one address, guest may not.
func TestFirewalldIsAsked(t *testing.T) {
	t.Parallel()
	l, guest := withGuests(t)
	path, err := filepath.Abs("testdata/firewalls/firewalld.txt")
	if err != nil {
		t.Fatal(err)
	}
	l.sh("nft delete table inet fw4; nft -f " + path)
	d := guestsWanted()
	d.Guarded = append(d.Guarded, tvMAC)
	l.set(d)
	l.alive(ServiceDNS, ServiceHTTP, ServiceTLS)
	for _, a := range sites {
		l.expect("home", l.toy, "tcp", a, 80, "http")
		l.expect("home", l.toy, "tcp", a, 443, "tls")
		l.in(func() error {
			if l.k.Forwards(t.Context(), []devices.MAC{guestMAC}, guest.Addr4, netip.AddrPortFrom(a, 443), false) {
				t.Errorf("a guest may go to %s", a)
			}
			return nil
		})
	}
	l.expect("the rich rule", l.tv, "tcp", site4, 443, "refused")
	l.expect("the rich rule is about IPv4", l.tv, "tcp", site6, 443, "tls")
	for _, a := range sites {
		if got := l.ask(guest, "tcp", a, 443, patient); strings.HasPrefix(got, "tls") || strings.HasPrefix(got, "site") {
			t.Errorf("a guest reaches %s: %s", a, got)
		}
	}
	l.expect("home", l.toy, "udp", google4, 53, "ours")
	if got := l.k.Barred(); len(got) != 1 || got[0] != netlab.GuestInterface {
		t.Errorf("barred: %v", got)
	}
}
