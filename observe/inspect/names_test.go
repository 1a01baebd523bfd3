package inspect

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
)

var (
	tvMAC  = devices.MAC{0xa8, 0x23, 0xfe, 0, 0, 0x10}
	tvAddr = netip.MustParseAddr("192.168.77.10")
)

// said is a datagram from the television.
func said(port uint16, payload []byte) *flow.Packet {
	p := &flow.Packet{MAC: tvMAC, Payload: payload}
	p.Tuple = flow.Tuple{Proto: flow.UDP, Src: tvAddr.As16(), SrcPort: port}
	return p
}

func dhcp(op byte, mac devices.MAC, options string) []byte {
	b := make([]byte, 236)
	b[0], b[1], b[2] = op, 1, 6
	copy(b[28:], mac[:])
	return append(b, "\x63\x82\x53\x63\x35\x01\x03"+options+"\xff"...)
}

func answer(t testing.TB, rrs ...string) []byte {
	t.Helper()
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true}}
	for _, s := range rrs {
		rr, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// netbios writes a registration (RFC 1002 §4.2.2) of a name with its kind in the
// sixteenth octet.
func netbios(name string, kind byte, group bool, addr string) []byte {
	b := []byte{0, 1, 0x29, 0x10, 0, 1, 0, 0, 0, 0, 0, 1, 32}
	for _, c := range []byte((name + strings.Repeat(" ", 15))[:15] + string(kind)) {
		b = append(b, 'A'+c>>4, 'A'+c&15)
	}
	flags := byte(0)
	if group {
		flags = 0x80
	}
	b = append(b, 0, 0, 0x20, 0, 1, 0xc0, 12, 0, 0x20, 0, 1, 0, 0, 0, 0, 0, 6, flags, 0)
	return append(b, net.ParseIP(addr).To4()...)
}

func TestNames(t *testing.T) {
	question := new(dns.Msg).SetQuestion("living-room-tv.local.", dns.TypeA)
	asked, err := question.Pack()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		said []*flow.Packet
		want string
	}{
		{"DHCP", []*flow.Packet{said(68, dhcp(1, tvMAC, "\x0c\x0eliving-room-tv"))}, "living-room-tv"},
		{"DHCP, ended with a zero", []*flow.Packet{said(68, dhcp(1, tvMAC, "\x00\x0c\x03tv\x00"))}, "tv"},
		{"DHCP, full name", []*flow.Packet{said(68, dhcp(1, tvMAC, "\x51\x09\x00\x00\x00tv.lan"))}, "tv"},
		{"DHCP, full name in labels", []*flow.Packet{said(68, dhcp(1, tvMAC, "\x51\x0b\x04\x00\x00\x02tv\x03lan\x00"))}, "tv"},
		{"DHCP, for somebody else", []*flow.Packet{said(68, dhcp(1, devices.MAC{2}, "\x0c\x02tv"))}, ""},
		{"DHCP, an answer", []*flow.Packet{said(68, dhcp(2, tvMAC, "\x0c\x02tv"))}, ""},
		{"DHCP, an option that runs out", []*flow.Packet{said(68, dhcp(1, tvMAC, "\x0c\x40tv"))}, ""},
		{"mDNS", []*flow.Packet{said(5353, answer(t, "_http._tcp.local. 120 IN PTR x.local.", "LG-TV.local. 120 IN A 192.168.77.10"))}, "LG-TV"},
		{"mDNS, beyond ASCII", []*flow.Packet{said(5353, answer(t, `M\195\188llers\032TV.local. 120 IN A 192.168.77.10`))}, "Müllers TV"},
		{"mDNS, another's address", []*flow.Packet{said(5353, answer(t, "LG-TV.local. 120 IN A 192.168.77.11"))}, ""},
		{"mDNS, a question", []*flow.Packet{said(5353, asked)}, ""},
		{"mDNS, from no port of its", []*flow.Packet{said(5354, answer(t, "LG-TV.local. 120 IN A 192.168.77.10"))}, ""},
		{"LLMNR", []*flow.Packet{said(5355, answer(t, "annas-pc. 30 IN A 192.168.77.10"))}, "annas-pc"},
		{"NetBIOS", []*flow.Packet{said(137, netbios("ANNAS-PC", 0, false, "192.168.77.10"))}, "ANNAS-PC"},
		{"NetBIOS, a group", []*flow.Packet{said(137, netbios("WORKGROUP", 0, true, "192.168.77.10"))}, ""},
		{"NetBIOS, a browser", []*flow.Packet{said(137, netbios("WORKGROUP", 0x1d, false, "192.168.77.10"))}, ""},
		{"NetBIOS, another's address", []*flow.Packet{said(137, netbios("ANNAS-PC", 0, false, "192.168.77.11"))}, ""},
		{"the most trusted wins", []*flow.Packet{
			said(137, netbios("A", 0, false, "192.168.77.10")), said(68, dhcp(1, tvMAC, "\x0c\x02tv")),
			said(5353, answer(t, "LG-TV.local. 120 IN A 192.168.77.10")),
		}, "tv"},
		{"the newest of a kind wins", []*flow.Packet{said(68, dhcp(1, tvMAC, "\x0c\x01a")), said(68, dhcp(1, tvMAC, "\x0c\x01b"))}, "b"},
		{"what a terminal obeys goes away", []*flow.Packet{said(68, dhcp(1, tvMAC, "\x0c\x08\x1b[31mred"))}, "-31mred"},
		{"what says nothing", []*flow.Packet{said(68, dhcp(1, tvMAC, "\x0c\x09localhost"))}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := names{}
			for _, p := range tc.said {
				n.hear(p)
			}
			if got := n[devices.ID(tvMAC.String())].name; got != tc.want || len(n) > 1 {
				t.Errorf("name %q in %v, want %q", got, n, tc.want)
			}
		})
	}
}

// However many addresses are invented, what is held is bounded.
func TestNamesAreBounded(t *testing.T) {
	n := names{}
	for i := range maxNamed + 100 {
		mac := devices.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}
		p := said(68, dhcp(1, mac, "\x0c\x02tv"))
		p.MAC = mac
		n.hear(p)
	}
	if len(n) != maxNamed {
		t.Errorf("%d names are held", len(n))
	}
}

// FuzzNames: nothing that a device says of itself makes the reader panic or
// yields a name that is not clean.
func FuzzNames(f *testing.F) {
	f.Add(uint16(68), dhcp(1, tvMAC, "\x0c\x02tv\x51\x0b\x04\x00\x00\x02tv\x03lan\x00"))
	f.Add(uint16(5353), answer(f, `M\195\188llers\032TV.local. 120 IN A 192.168.77.10`))
	f.Add(uint16(5355), answer(f, "annas-pc. 30 IN A 192.168.77.10"))
	f.Add(uint16(137), netbios("ANNAS-PC", 0, false, "192.168.77.10"))
	f.Fuzz(func(t *testing.T, port uint16, payload []byte) {
		n := names{}
		n.hear(said(port, payload))
		for _, own := range n {
			if strings.ContainsAny(own.name, "\x00\x07\x1b\r\n\u202e<>&\"") || len(own.name) > 63 {
				t.Errorf("name %q", own.name)
			}
		}
	})
}
