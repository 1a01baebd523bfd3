package dnsfilter

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// What a device's proxy looks up for it is judged, recorded and learned as if the
// device had asked, and gives nothing that the device would not have got.
func TestLookUpIsTheDevicesOwn(t *testing.T) {
	u := startUpstream(t, testZone)
	h := newHouse(t, func(c *Config) {
		c.Upstreams = []Upstream{{Addr: u.addr}}
		c.LocalZones = []dnsname.Name{"lan"}
	})
	client := netip.MustParseAddr("192.168.77.10")
	for name, want := range map[dnsname.Name]string{
		"good.example":             "192.0.2.7 2001:db8::7",
		"none.example":             "",
		"tracker.example":          "", // blocked
		"cloaked.example":          "", // leads to what is blocked
		"rebind.example":           "", // leads into the house
		"nas.lan":                  "", // is of the house
		"1.1.168.192.in-addr.arpa": "",
	} {
		before := h.count()
		addrs, err := h.LookUp(t.Context(), client, name)
		var got []string
		for _, a := range addrs {
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != want || (err == nil) != (want != "") {
			t.Errorf("%s: %v %v, want %q", name, got, err, want)
		}
		if n := h.count() - before; strings.HasSuffix(string(name), ".example") != (n == 2) || n > 0 && h.last(t).Device != "tv" {
			t.Errorf("%s: %d look-ups recorded", name, n)
		}
	}
	for _, told := range h.learned {
		if !strings.HasPrefix(told, "tv good.example ") {
			t.Errorf("learned %q", told)
		}
	}
	if len(h.learned) != 2 {
		t.Errorf("learned %q", h.learned)
	}
}
