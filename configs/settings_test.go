package configs_test

import (
	_ "embed"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/netcurtain/netcurtain/configs"
	"github.com/netcurtain/netcurtain/internal/dnsname"
)

var compareAddrs = cmp.Options{
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

// shipped is the settings file as it ships: every option, commented out, with its default.
//
//go:embed netcurtain
var shipped string

func TestShippedFileIsTheDefaults(t *testing.T) {
	got, err := configs.Parse(strings.NewReader(shipped), "netcurtain")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(configs.Defaults(), got, compareAddrs); diff != "" {
		t.Errorf("(-defaults +shipped):\n%s", diff)
	}
}

// The commented options say what the defaults are; with the marks removed the
// file must parse to them, but for those that only show a form.
func TestShippedCommentsSayTheDefaults(t *testing.T) {
	all := regexp.MustCompile(`(?m)^(\t?)#(\t?(config|option|list) )`).ReplaceAllString(shipped, "$1$2")
	got, err := configs.Parse(strings.NewReader(all), "netcurtain")
	if err != nil {
		t.Fatal(err)
	}
	want := configs.Defaults()
	want.House.Destinations = []string{"/etc/netcurtain/destinations.tsv"}
	want.DNS.Upstreams = []string{"192.0.2.1"}
	want.DNS.Rebinding = []dnsname.Name{"plex.direct"}
	want.DNS.Exempt = []netip.Addr{netip.MustParseAddr("192.168.1.5")}
	want.Proxy.Ports = []uint16{8443}
	want.Page.Hosts, want.Page.URL = []string{"netcurtain.lan"}, "http://netcurtain.lan/"
	want.Lists = []configs.List{
		{Name: "my-list", URL: "https://example.org/hosts.txt", Enabled: true},
		{Name: "own", File: "own.txt", Allow: true},
	}
	if diff := cmp.Diff(want, got, compareAddrs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestErrorsNameLineAndRemedy(t *testing.T) {
	for in, want := range map[string]string{
		"config dsn\n":                                  "f:1: section \"dsn\" is not known: did you mean \"dns\"?",
		"config dns\noption upstraem 1.1.1.1\n":         "f:2: option \"upstraem\" is not known in section dns: did you mean \"upstream\"?",
		"config dns\noption port 53\n":                  "f:2: port: \"53\": a number from 1024 to 65535 is needed",
		"config dns\noption block_answer nope\n":        "f:2: block_answer: \"nope\": one of nxdomain, null, nodata, refused is needed",
		"config dns\noption intercept maybe\n":          "f:2: intercept: \"maybe\": 1 or 0 is needed",
		"config dns\nlist upstream dns.google\n":        "f:2: upstream: \"dns.google\": an address such as 192.0.2.1, 192.0.2.1:53 or tls://9.9.9.9#dns.quad9.net is needed",
		"config dns\nlist exempt ::\n":                  "f:2: exempt: \"::\": the address of a machine in the house such as 192.168.1.5 is needed",
		"config dns\nconfig dns\n":                      "f:2: section \"dns\" stands twice, first on line 1",
		"config store\noption age forever\n":            "f:2: age: \"forever\": a time from 1h0m0s to 87600h0m0s such as 90s, 15m, 12h or 7d is needed",
		"config store\noption bytes 1\n":                "f:2: bytes: \"1\": a size of at least 1024 KB, such as 64MB, is needed",
		"config store\nlist age 1d\n":                   "f:2: age: takes one value: write option, not list",
		"config house\nlist lan 'a;b'\n":                "f:2: lan: \"a;b\": the name of an interface such as br-lan is needed (ip link shows them)",
		"config house\noption state ../x\n":             "f:2: state: \"../x\": a clean absolute path is needed",
		"config list ads\noption file ../shadow\n":      "f:2: file: \"../shadow\": a file name below the state folder's lists/ is needed, without .. and not absolute\nf:1: list \"ads\" needs either an option url or an option file",
		"config list\noption file x\n":                  "f:1: a list needs a name: config list 'ads'",
		"config page\noption listen 0.0.0.0:8300\n":     "f: page listen 0.0.0.0:8300: only a loopback address is allowed while the pages have no accounts; reach it with ssh -L",
		"config page\noption url javascript:alert(1)\n": "f:2: url: \"javascript:alert(1)\": an address such as http://netcurtain.lan/ is needed",
		"config dns\noption port 8380\n":                "f: dns port and proxy http_port are both port 8380",
		"config house\noption mark_ours 0x01000000\n":   "f: mark_deliver and mark_ours share a bit: that is a routing loop",
		"config proxy\noption no_name no\n":             "f:2: no_name: \"no\": one of by-address, carry, refuse is needed",
		"config proxy\nlist port 443\n":                 "f:2: port: 443 is handed over anyway: leave the line out",
		"config proxy\nlist port 853\n":                 "f:2: port: 853 is for look-ups, which section dns is about",
		"config proxy\nlist port x\n":                   "f:2: port: \"x\": a TCP port from 1 to 65535 is needed",
		"config proxy\nlist port 8380\n":                "f: proxy port 8380 is our own proxy http_port: handing it to ourselves would never end",
		"config proxy\noption explicit_port 443\n":      "f: proxy explicit_port 443: 0 or a number from 1024 to 65535 is needed",
		"config proxy\noption explicit_port 8300\n":     "f: proxy explicit_port and page listen are both port 8300",
		"config house\noption whatever 1\noption x 2\n": "f:2: option \"whatever\" is not known in section house: allowed are name, lan, state, volatile, socket, leases, destinations, mark_deliver, mark_ours, table, nflog_group\n" +
			"f:3: option \"x\" is not known in section house: allowed are name, lan, state, volatile, socket, leases, destinations, mark_deliver, mark_ours, table, nflog_group",
	} {
		_, err := configs.Parse(strings.NewReader(in), "f")
		if err == nil {
			t.Errorf("%q: no error, want %q", in, want)
		} else if diff := cmp.Diff(want, err.Error()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", in, diff)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(shipped)
	f.Add("config dns\n\tlist upstream 'tls://[::1]:853@x'\n\toption block_ttl 1d\n")
	f.Fuzz(func(t *testing.T, in string) {
		s, err := configs.Parse(strings.NewReader(in), "f")
		if err == nil && (!s.Page.Listen.Addr().IsLoopback() || s.House.MarkOurs&s.House.MarkDeliver != 0) {
			t.Errorf("accepted %q", in)
		}
	})
}
