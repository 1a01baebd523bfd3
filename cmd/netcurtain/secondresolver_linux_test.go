package main

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
)

// TestTeacher: who answers for devices that never ask us is recognised; who
// merely goes where others go, too, is not.
func TestTeacher(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	site := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}) }
	for _, c := range []struct {
		why  string
		life func(t *teacher)
		want []devices.ID
	}{
		{"a Pi-hole and two devices that ask it", func(t *teacher) {
			for i := range 10 {
				t.Learn("pihole", site(i))
				t.Flow("tv", site(i))
				t.Flow("toy", site(i))
			}
		}, []devices.ID{"pihole"}},
		{"one device could be chance", func(t *teacher) {
			for i := range 10 {
				t.Learn("laptop", site(i))
				t.Flow("tv", site(i))
			}
		}, nil},
		{"too little to say so", func(t *teacher) {
			for i := range enoughFlows - 1 {
				t.Learn("laptop", site(i))
				t.Flow("tv", site(i))
				t.Flow("toy", site(i))
			}
		}, nil},
		{"devices that ask us themselves", func(t *teacher) {
			for i := range 10 {
				for _, d := range []devices.ID{"tv", "toy", "laptop"} {
					t.Learn(d, site(i))
					t.Flow(d, site(i))
				}
			}
		}, nil},
		{"two phones with a resolver outside, of whose ways one in two is common", func(t *teacher) {
			for i := range 20 {
				if i%2 == 0 {
					t.Learn("laptop", site(i))
				}
				t.Flow("phone", site(i))
				t.Flow("tablet", site(i))
			}
		}, nil},
		{"a day later it is not known any more", func(t *teacher) {
			for i := range 10 {
				t.Learn("pihole", site(i))
				t.Flow("tv", site(i))
				t.Flow("toy", site(i))
			}
			now = now.Add(25 * time.Hour)
			t.Learn("pihole", site(1))
		}, nil},
		{"more devices and addresses than are kept", func(t *teacher) {
			for i := range 3 * maxPupils {
				t.Flow(devices.ID(fmt.Sprint(i)), site(i))
			}
			for i := range maxTaught + 10 {
				t.Learn("pihole", netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}))
			}
			if len(t.went) > maxPupils || len(t.taught) > maxTaught {
				panic("it is not bounded")
			}
		}, nil},
	} {
		teacher := newTeacher(func() time.Time { return now })
		c.life(teacher)
		if got := teacher.Resolvers(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.why, got, c.want)
		}
	}
}

func TestHandedOut(t *testing.T) {
	for _, c := range []struct {
		why, text string
		want      string
	}{
		{"OpenWrt", "config dnsmasq\n\toption domain 'lan'\nconfig dhcp 'lan'\n\toption interface 'lan'\n\tlist dhcp_option '3,192.168.1.1'\n\tlist dhcp_option '6,192.168.1.5,192.168.1.6'\n\tlist dns 'fd00::5'\n", "[192.168.1.5 192.168.1.6 fd00::5]"},
		{"OpenWrt, tagged", "config dhcp 'lan'\n\tlist dhcp_option 'tag:kids,6,192.168.1.7'\n", "[192.168.1.7]"},
		{"OpenWrt as it ships", "config dhcp 'lan'\n\toption interface 'lan'\n\toption start '100'\n", "[]"},
		{"dnsmasq", "# dhcp-option=6,192.168.1.9\ndhcp-option=option:dns-server,192.168.1.5\ndhcp-option=option6:dns-server,[fd00::5]\n dhcp-option=tag:x,6,192.168.1.8\n", "[192.168.1.5 fd00::5 192.168.1.8]"},
		{"the router itself and nonsense", "dhcp-option=6,0.0.0.0\ndhcp-option=6,example.org\ndhcp-option=3,192.168.1.1\n", "[]"},
		{"no such file at all", "", "[]"},
	} {
		if got := fmt.Sprint(handedOutBy(c.text, c.why)); got != c.want {
			t.Errorf("%s: %s, want %s", c.why, got, c.want)
		}
	}
}
