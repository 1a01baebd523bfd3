//go:build linux

package enforce

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/netcurtain/netcurtain/devices"
)

// recorded reads a ruleset as nft listed it on some router.
func recorded(t *testing.T, name string) ruleset {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/firewalls", name))
	if err != nil {
		t.Fatal(err)
	}
	return parseRuleset(string(b))
}

// TestOffloadIsDetected: from recorded rulesets, what is said and where first
// packets are taken.
func TestOffloadIsDetected(t *testing.T) {
	ports := []port{
		{name: "br-lan", mac: "02:00:00:00:00:01"}, {name: "br-guest", mac: "02:00:00:00:00:02"},
		{name: "lan1", master: "br-lan"}, {name: "lan2", master: "br-lan"}, {name: "phy0-ap1", master: "br-guest"},
		{name: "wan", mac: "02:00:00:00:00:03"}, {name: "eth1"}, {name: "eth1.20", parent: "eth1", mac: "02:00:00:00:00:04"},
	}
	for _, c := range []struct {
		file    string
		lan     []string
		devices string
		said    []string // a part of each problem
	}{
		{"fw4.txt", []string{"br-lan"}, ``, nil},
		{"fw4-offload.txt", []string{"br-lan"}, `"lan1", "lan2"`, []string{"Software flow offloading"}},
		{"fw4-offload.txt", []string{"br-lan", "br-guest"}, `"lan1", "lan2", "phy0-ap1"`, []string{"Software flow offloading"}},
		{"fw4-offload.txt", []string{"br-iot"}, ``, []string{"Software flow offloading"}},
		{"fw4-offload-hw.txt", []string{"br-lan"}, `"lan1", "lan2"`, []string{"Hardware flow offloading"}},
		{"own-flowtable.txt", []string{"eth1.20"}, `"eth1"`, []string{"Software flow offloading", "does not count"}},
	} {
		r := recorded(t, c.file)
		o := newOffload(r.flowtables, ports, c.lan, nil, 4743)
		if o.Devices != c.devices {
			t.Errorf("%s, %v: taken at %q, want %q", c.file, c.lan, o.Devices, c.devices)
		}
		found := checkOffload(r.flowtables)
		for i, p := range found {
			if len(found) != len(c.said) || !strings.Contains(p.What, c.said[i]) || !strings.Contains(p.Fix, "flow_offloading") {
				t.Errorf("%s: %v, want %q", c.file, found, c.said)
			}
		}
		if len(found) != len(c.said) {
			t.Errorf("%s: %d problems, want %d", c.file, len(found), len(c.said))
		}
	}
}

func TestRenderOffload(t *testing.T) {
	for file, o := range map[string]offload{
		"offload.nft":      {Devices: `"lan1", "lan2"`, Router: "02:00:00:00:00:01", Unfiltered: []string{"02:00:5e:10:00:0b"}, NFLOGGroup: 4743},
		"offload-none.nft": {},
	} {
		text, err := execute("offload.nft.tmpl", o)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, file, text)
	}
}

// TestFirstPacketsBeforeOffload: where no rule for routed packets would see them,
// first packets are copied at the ports: data that goes out, a few of each
// connection; nothing that stays in the house, nothing of an unfiltered device.
func TestFirstPacketsBeforeOffload(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(l.internet, "site", 8883, site4, site6)
	l.serve(l.toy, "toy", 8883, l.toy.Addr4)
	g := l.listenLog(4743)
	_, m := wanted().split(features{})
	m.unfiltered = []devices.MAC{phoneMAC}
	tables := []flowtable{{devices: []string{"lan10", "lan11", "lan12", "wan0"}}}
	beside := func(tables []flowtable) {
		t.Helper()
		l.in(func() error { return l.k.besideOffload(t.Context(), tables, m, 4743) })
	}
	beside(tables)
	once := l.sh("nft -a list table netdev netcurtain")
	beside(tables)
	if again := l.sh("nft -a list table netdev netcurtain"); again != once {
		t.Errorf("loaded again:\n%s", again)
	}
	for _, a := range sites {
		l.expect("unharmed", l.tv, "tcp", a, 8883, "site")
		l.expect("unharmed", l.phone, "tcp", a, 8883, "site")
	}
	l.expect("inside the house", l.tv, "tcp", l.toy.Addr4, 8883, "toy")
	long := l.running(l.toy, site4, 8883, "site")
	for range 20 {
		l.answers("a long one", long, "site")
	}
	deadline := time.Now().Add(patient)
	for time.Now().Before(deadline) && g.with("U", "hello\n") < 9 {
		time.Sleep(50 * time.Millisecond)
	}
	text := func(a netip.Addr) string { return string(a.AsSlice()) }
	for _, c := range []struct {
		why, text   string
		least, most int
	}{
		{"the television, IPv4", text(l.tv.Addr4), 1, 1},
		{"the television, IPv6", text(l.tv.Addr6), 1, 1},
		{"the long one", text(l.toy.Addr4) + text(site4), 7, 8},
		{"inside the house", text(l.tv.Addr4) + text(l.toy.Addr4), 0, 0},
		{"the unfiltered phone", text(l.phone.Addr4), 0, 0},
		{"the unfiltered phone, IPv6", text(l.phone.Addr6), 0, 0},
	} {
		if got := g.with("U", c.text); got < c.least || got > c.most {
			t.Errorf("%s: %d packets, want %d to %d", c.why, got, c.least, c.most)
		}
	}
	beside(nil)
	if out := l.sh("nft list tables"); strings.Contains(out, "netdev") {
		t.Errorf("without a flow table: %s", out)
	}
	beside(tables)
	l.in(func() error { return Release(t.Context()) })
	if out := l.sh("nft list tables"); strings.Contains(out, "netdev") {
		t.Errorf("after Release: %s", out)
	}
}

// TestMarksOfOthers: programs that route by marks go beside us, unless they use
// what is ours; then it is said how to mend it.
func TestMarksOfOthers(t *testing.T) {
	m := wanted().Marks
	mask := func(v uint32) *uint32 { return &v }
	rule := func(priority, table int, mark uint32, masked *uint32) netlink.Rule {
		r := *netlink.NewRule()
		r.Priority, r.Table, r.Mark, r.Mask = priority, table, mark, masked
		return r
	}
	iif := rule(500, 1, 0, nil)
	iif.IifName = "wan"
	for _, c := range []struct {
		why  string
		rule netlink.Rule
		want string
	}{
		{"our own", rule(743, 4743, m.Deliver, mask(m.Deliver)), ""},
		{"the kernel's", rule(0, 255, 0, nil), ""},
		{"the kernel's main", rule(32766, 254, 0, nil), ""},
		{"mwan3", rule(2001, 1, 0x100, mask(0x3f00)), ""},
		{"pbr", rule(30000, 256, 0x10000, mask(0xff0000)), ""},
		{"Tailscale", rule(5210, 254, 0x80000, mask(0xff0000)), ""},
		{"WireGuard's wg-quick", rule(32764, 51820, 0xca6c, nil), ""},
		{"an uplink's own, before ours", iif, ""},
		{"a whole mark with our bit", rule(900, 100, 0x01000001, nil), "mark_deliver"},
		{"another bit beside ours in one mask", rule(2001, 1, 0x01000000, mask(0x0d000000)), "mark_deliver '0x10000000' and option mark_ours '0x20000000'"},
		{"a mask over our bit", rule(2001, 1, 0x03000000, mask(0x3f000000)), "mark_deliver '0x40000000' and option mark_ours '0x80000000'"},
		{"our table", rule(100, 4743, 0, nil), "option table"},
		{"everything, before ours", rule(100, 51820, 0, nil), "above 743"},
	} {
		found := ruleCollisions(m, []netlink.Rule{c.rule})
		if said := fmt.Sprint(found); (len(found) > 0) != (c.want != "") || !strings.Contains(said, c.want) {
			t.Errorf("%s: %s, want %q", c.why, said, c.want)
		}
	}
	for file, want := range map[string]int{"mwan3.txt": 0, "fw4.txt": 0, "debian.txt": 0, "marks.txt": 2} {
		if found := markCollisions(m, recorded(t, file)); len(found) != want {
			t.Errorf("%s: %v, want %d collisions", file, found, want)
		}
	}
}

// TestBesideMwan3: a rule that would route by a mark of its own goes behind ours,
// so that what is handed over arrives.
func TestBesideMwan3(t *testing.T) {
	t.Parallel()
	l, _, _ := withProxy(t)
	for _, v := range []string{"-4", "-6"} {
		l.sh("ip " + v + " rule add priority 2001 fwmark 0x100/0x3f00 lookup 101; ip " + v + " route show default | head -1 | xargs ip " + v + " route add table 101")
	}
	l.sh(`nft 'table inet mwan3 { chain pre { type filter hook prerouting priority mangle - 1; iifname "br-lan" meta mark & 0x3f00 == 0 meta mark set meta mark & 0xffffc0ff | 0x100; }; }'`)
	l.alive(ServiceHTTP, ServiceTLS)
	for _, a := range sites {
		l.expect("beside mwan3", l.toy, "tcp", a, 80, "http")
		l.expect("beside mwan3", l.tv, "tcp", a, 80, "site")
	}
	if p := checkMarks(wanted().Marks, ruleset{}); len(p) > 0 {
		t.Errorf("problems: %v", p)
	}
}
