package dnsfilter

import (
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestCorefileGolden(t *testing.T) {
	upstream := func(s string) Upstream {
		u, err := ParseUpstream(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for name, cfg := range map[string]Config{
		"plain": {
			Listen: []netip.Addr{netip.IPv6Unspecified()}, Port: 5300, RedirectPort: 5301,
			Upstreams: []Upstream{upstream("192.0.2.1")}, CacheSize: 4096,
		},
		"local-and-dot": {
			Listen: []netip.Addr{netip.MustParseAddr("192.168.1.1"), netip.MustParseAddr("fe80::1%br-lan")}, Port: 5300,
			Upstreams:     []Upstream{upstream("tls://192.0.2.1#dns.example.net"), upstream("tls://[2001:db8::1]:8853")},
			LocalResolver: netip.MustParseAddrPort("127.0.0.1:53"), LocalZones: []dnsname.Name{"lan", "home.arpa"}, CacheSize: 512,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := corefile(cfg, "house-1")
			if err != nil {
				t.Fatal(err)
			}
			file := "testdata/" + name + ".Corefile"
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("Corefile (-want +got):\n%s", d)
			}
		})
	}
}

func TestNothingBreaksOutOfTheCorefile(t *testing.T) {
	base := func() Config {
		return Config{
			Listen: []netip.Addr{netip.IPv6Unspecified()}, Port: 5300,
			Upstreams:     []Upstream{{Addr: netip.MustParseAddrPort("192.0.2.1:53")}},
			LocalResolver: netip.MustParseAddrPort("127.0.0.1:53"),
		}
	}
	for _, zone := range []dnsname.Name{"", "lan {\n}", "lan\nimport /etc/passwd", "{$HOME}", "a b", `"`} {
		c := base()
		c.LocalZones = []dnsname.Name{zone}
		if text, err := corefile(c, "k"); err == nil {
			t.Errorf("zone %q was taken:\n%s", zone, text)
		}
	}
	c := base()
	c.Listen = []netip.Addr{netip.MustParseAddr("fe80::1").WithZone("x {")}
	if _, err := corefile(c, "k"); err == nil {
		t.Error("an address with a strange zone was taken")
	}
}

func TestParseUpstream(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1":                           "192.0.2.1:53",
		"192.0.2.1:5353":                      "192.0.2.1:5353",
		"2001:db8::1":                         "[2001:db8::1]:53",
		"[2001:db8::1]:54":                    "[2001:db8::1]:54",
		"fe80::1%wan0":                        "[fe80::1%wan0]:53",
		"tls://9.9.9.9#DNS.quad9.net":         "tls://9.9.9.9:853#dns.quad9.net",
		"tls://[2620:fe::fe]:8853#dns.q9.net": "tls://[2620:fe::fe]:8853#dns.q9.net",
		"tls://192.0.2.1":                     "tls://192.0.2.1:853",
	} {
		u, err := ParseUpstream(in)
		if err != nil || u.String() != want {
			t.Errorf("%s: %s %v, want %s", in, u, err, want)
		}
	}
	for _, in := range []string{
		"", "dns.google", "192.0.2.1:0", "192.0.2.1:x", "tls://dns.quad9.net", "192.0.2.1#name", "https://192.0.2.1/dns-query",
		"tls://192.0.2.1#", "tls://192.0.2.1#a b", "tls://192.0.2.1#a\nb", "0.0.0.0", "::", "224.0.0.1", "fe80::1%a b", "192.0.2.1 {",
	} {
		if u, err := ParseUpstream(in); err == nil {
			t.Errorf("%q was taken as %s", in, u)
		} else if !strings.Contains(err.Error(), "is needed") {
			t.Errorf("%q: the error names no remedy: %v", in, err)
		}
	}
}

func TestSystemUpstreams(t *testing.T) {
	file := t.TempDir() + "/resolv.conf"
	text := "# made by hand\nsearch lan\nnameserver 127.0.0.1\nnameserver  192.0.2.53 # comment\nnameserver 192.0.2.53\nnameserver ::\nnameserver nonsense\nnameserver fe80::1%wan0\nnameserver"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	us, err := SystemUpstreams(file, func(a netip.AddrPort) bool { return a.Addr().IsLoopback() })
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, u := range us {
		got = append(got, u.String())
	}
	if d := cmp.Diff([]string{"192.0.2.53:53", "[fe80::1%wan0]:53"}, got); d != "" {
		t.Errorf("upstreams (-want +got):\n%s", d)
	}
	if _, err := SystemUpstreams(file, func(netip.AddrPort) bool { return true }); err == nil || !strings.Contains(err.Error(), "configure an upstream") {
		t.Errorf("nobody to ask: %v", err)
	}
	if _, err := SystemUpstreams(file+".none", nil); err == nil {
		t.Error("no file is no error")
	}
}

func FuzzParseResolvConf(f *testing.F) {
	f.Add("nameserver 192.0.2.1\noptions edns0\n")
	f.Add("nameserver fe80::1%eth0\r\n;x\nnameserver\t::1")
	f.Fuzz(func(t *testing.T, text string) {
		addrs, err := ParseResolvConf(strings.NewReader(text))
		if len(addrs) > maxUpstreams {
			t.Errorf("%d servers", len(addrs))
		}
		for _, a := range addrs {
			if err == nil && (!a.IsValid() || a.IsUnspecified()) {
				t.Errorf("server %s", a)
			}
		}
	})
}

func FuzzParseUpstream(f *testing.F) {
	for _, s := range []string{"192.0.2.1", "tls://9.9.9.9#dns.quad9.net", "[fe80::1%eth0]:53", "tls://[::1]:853#x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseUpstream(s)
		if err != nil {
			return
		}
		again, err := ParseUpstream(u.String())
		if err != nil || again != u {
			t.Errorf("%q became %s, which became %s, %v", s, u, again, err)
		}
		text, err := corefile(Config{Listen: []netip.Addr{netip.IPv6Unspecified()}, Port: 53, Upstreams: []Upstream{u}}, "k")
		if err != nil || strings.Count(text, "{") != 3 || strings.Count(text, "\n") != 15 {
			t.Errorf("%q breaks out of the Corefile (%v):\n%s", s, err, text)
		}
	})
}
