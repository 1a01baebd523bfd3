//go:build linux

package enforce

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcurtain/netcurtain/devices"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	tvMAC    = devices.MAC{2, 0, 0x5e, 0x10, 0, 10}
	phoneMAC = devices.MAC{2, 0, 0x5e, 0x10, 0, 11}
	toyMAC   = devices.MAC{2, 0, 0x5e, 0x10, 0, 12}
)

func wanted() Desired {
	return Desired{
		LAN:          []string{"br-lan"},
		Ports:        Ports{DNS: 5300, DNSRedirect: 5301, HTTPProxy: 8380, TLSProxy: 8343},
		Marks:        Marks{Deliver: 0x01000000, Ours: 0x02000000, Table: 4743},
		NFLOGGroup:   4743,
		InterceptDNS: true,
	}
}

func full() Desired {
	d := wanted()
	d.LAN = []string{"br-lan", "br-guest"}
	d.Unfiltered, d.Guarded, d.Cut = []devices.MAC{phoneMAC}, []devices.MAC{toyMAC, tvMAC, toyMAC}, []devices.MAC{tvMAC}
	d.Handed, d.Ports.Explicit = []uint16{8883, 8443, 8443}, 3128
	d.Doors = []netip.Addr{netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("2620:fe::fe")}
	d.Exempt = []netip.Addr{netip.MustParseAddr("fd77::53"), netip.MustParseAddr("192.168.77.53"), netip.MustParseAddr("::ffff:192.168.77.54")}
	return d
}

// golden compares got with testdata/name; -update writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update writes it anew):\n%s", path, diff)
	}
}

func TestRender(t *testing.T) {
	noDNS := wanted()
	noDNS.InterceptDNS = false
	for _, c := range []struct {
		file  string
		d     Desired
		f     features
		was   map[string]uint32
		fresh bool
	}{
		{"full.nft", full(), features{zones: true, tproxy: true}, map[string]uint32{"table": 4743, "acct": 0}, true},
		{"again.nft", wanted(), features{zones: true, tproxy: true}, map[string]uint32{"table": 4743}, false},
		{"redirect.nft", full(), features{zones: true, redirect: true}, nil, true},
		{"old-kernel.nft", full(), features{}, nil, true},
		{"no-dns.nft", noDNS, features{zones: true, tproxy: true}, nil, true},
	} {
		s, m := c.d.split(c.f)
		got, err := renderMain(s, m, c.was, c.fresh)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, c.file, got)
	}
}

func TestRenderCut(t *testing.T) {
	for file, d := range map[string]Desired{"cut.nft": full(), "cut-nobody.nft": wanted()} {
		_, m := d.split(features{})
		got, err := renderCut(m)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, file, got)
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		why    string
		change func(*Desired)
		ok     bool
	}{
		{"as it is", func(*Desired) {}, true},
		{"no LAN", func(d *Desired) { d.LAN = nil }, false},
		{"an interface that breaks out of its quotes", func(d *Desired) { d.LAN = []string{`a"; }`} }, false},
		{"an interface longer than the kernel's names", func(d *Desired) { d.LAN = []string{"br-0123456789abc"} }, false},
		{"a VLAN", func(d *Desired) { d.LAN = []string{"eth0.10"} }, true},
		{"a port twice", func(d *Desired) { d.Ports.DNSRedirect = d.Ports.DNS }, false},
		{"no port", func(d *Desired) { d.Ports.TLSProxy = 0 }, false},
		{"a further port", func(d *Desired) { d.Handed = []uint16{8443} }, true},
		{"look-ups handed over", func(d *Desired) { d.Handed = []uint16{53} }, false},
		{"our own port handed to us, a loop", func(d *Desired) { d.Handed = []uint16{8343} }, false},
		{"the explicit proxy on a port in use", func(d *Desired) { d.Ports.Explicit = 5300 }, false},
		{"two bits in a mark", func(d *Desired) { d.Marks.Ours = 3 }, false},
		{"one mark for both, a routing loop", func(d *Desired) { d.Marks.Ours = d.Marks.Deliver }, false},
		{"the main routing table", func(d *Desired) { d.Marks.Table = 254 }, false},
		{"a group address", func(d *Desired) { d.Cut = []devices.MAC{{1}} }, false},
		{"no door", func(d *Desired) { d.Doors = []netip.Addr{{}} }, false},
		{"no address", func(d *Desired) { d.Exempt = []netip.Addr{{}} }, false},
	} {
		d := wanted()
		c.change(&d)
		if err := d.validate(); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.why, err)
		}
	}
}
