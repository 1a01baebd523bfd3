package capture

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/netcurtain/netcurtain/flow"
)

// cat joins octets, words of two octets and strings into one packet.
func cat(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = append(b, byte(p))
		case uint16:
			b = binary.BigEndian.AppendUint16(b, p)
		case uint32:
			b = binary.BigEndian.AppendUint32(b, p)
		case string:
			b = append(b, p...)
		case []byte:
			b = append(b, p...)
		}
	}
	return b
}

func ip4(src, dst string, proto int, id, frag uint16, body []byte) []byte {
	s, d := netip.MustParseAddr(src).As4(), netip.MustParseAddr(dst).As4()
	return cat(0x45, 0, uint16(20+len(body)), id, frag, 64, proto, uint16(0), s[:], d[:], body)
}

func ip6(src, dst string, next int, body []byte) []byte {
	s, d := netip.MustParseAddr(src).As16(), netip.MustParseAddr(dst).As16()
	return cat(uint32(0x60000000), uint16(len(body)), next, 64, s[:], d[:], body)
}

func udp(src, dst uint16, payload string) []byte {
	return cat(src, dst, uint16(8+len(payload)), uint16(0), payload)
}

func tcp(src, dst uint16, seq uint32, flags int, payload string) []byte {
	return cat(src, dst, seq, uint32(0), 0x60, flags, uint16(0xffff), uint16(0), uint16(0), uint32(0x01010101), payload)
}

const (
	a4, b4 = "192.168.1.2", "203.0.113.1"
	a6, b6 = "2001:db8::2", "2001:db8:1::1"
)

var (
	macA  = []byte{2, 0, 0x5e, 0, 0x53, 1}
	macB  = []byte{2, 0, 0x5e, 0, 0x53, 2}
	macs  = cat(macB, macA)
	query = udp(4000, 53, "hello")
)

// line is a decoded packet in one line.
func line(p *flow.Packet) string {
	t := p.Tuple
	s := t.Proto.String() + " " + t.SrcAddrPort().String() + " > " + t.DstAddrPort().String() + " len " + itoa(p.Length)
	if p.MAC != ([6]byte{}) {
		s += " mac " + strings.ToLower(hex(p.MAC[:]))
	}
	if p.Tuple.Proto == flow.TCP {
		s += " seq " + itoa(int(p.Seq)) + " flags " + itoa(int(p.Flags))
	}
	return s + " " + string(p.Payload)
}

func itoa(n int) string {
	if n >= 10 {
		return itoa(n/10) + itoa(n%10)
	}
	return string(rune('0' + n))
}

func hex(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, c := range b {
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}

func TestDecode(t *testing.T) {
	udp4 := ip4(a4, b4, 17, 1, 0, query)
	udp6 := ip6(a6, b6, 17, query)
	const want4 = "udp 192.168.1.2:4000 > 203.0.113.1:53 len 33 hello"
	const want4mac = "udp 192.168.1.2:4000 > 203.0.113.1:53 len 33 mac 02005e005301 hello"
	const want6 = "udp [2001:db8::2]:4000 > [2001:db8:1::1]:53 len 53 hello"
	for _, tc := range []struct {
		name   string
		link   linkType
		frame  []byte
		out    outcome
		packet string
	}{
		{"Ethernet, IPv4, UDP", linkEthernet, cat(macs, uint16(0x0800), udp4), decoded, want4mac},
		{"Ethernet padding is no payload", linkEthernet, cat(macs, uint16(0x0800), udp4, make([]byte, 13)), decoded, want4mac},
		{"one VLAN tag", linkEthernet, cat(macs, uint16(0x8100), uint16(7), uint16(0x0800), udp4), decoded, want4mac},
		{"stacked tags", linkEthernet, cat(macs, uint16(0x88a8), uint16(7), uint16(0x8100), uint16(8), uint16(0x0800), udp4), decoded, want4mac},
		{"more tags than anybody stacks", linkEthernet, cat(macs, bytes.Repeat(cat(uint16(0x8100), uint16(7)), 9), uint16(0x0800), udp4), notIP, ""},
		{"PPPoE behind a tag", linkEthernet, cat(macs, uint16(0x8100), uint16(7), uint16(0x8864), 0x11, 0, uint16(1), uint16(35), uint16(0x0021), udp4), decoded, want4mac},
		{"PPPoE discovery", linkEthernet, cat(macs, uint16(0x8864), 0x11, 9, uint16(0), uint16(0), uint16(0)), notIP, ""},
		{"MPLS", linkEthernet, cat(macs, uint16(0x8847), uint32(0x00010140), udp4), decoded, want4mac},
		{"ARP", linkEthernet, cat(macs, uint16(0x0806), make([]byte, 28)), notIP, ""},
		{"raw IPv4", linkRaw, udp4, decoded, want4},
		{"raw IPv6", linkIPv6, udp6, decoded, want6},
		{"BSD loopback", linkNull, cat(30, 0, 0, 0, udp6), decoded, want6},
		{"OpenBSD loopback", linkLoop, cat(0, 0, 0, 2, udp4), decoded, want4},
		{"Linux cooked v1", linkSLL, cat(uint16(4), uint16(1), uint16(6), macA, uint16(0), uint16(0x0800), udp4), decoded, want4mac},
		{"Linux cooked v1, no address", linkSLL, cat(uint16(4), uint16(512), uint16(0), make([]byte, 8), uint16(0x86dd), udp6), decoded, want6},
		{"Linux cooked v2", linkSLL2, cat(uint16(0x0800), uint16(0), uint32(3), uint16(1), 4, 6, macA, uint16(0), udp4), decoded, want4mac},
		{"PPP with framing", linkPPP, cat(0xff, 3, uint16(0x0021), udp4), decoded, want4},
		{"PPP, compressed protocol", linkPPP, cat(0x21, udp4), decoded, want4},
		{"PPP, IPv6", linkPPPHDLC, cat(uint16(0x0057), udp6), decoded, want6},
		{"PPP, link control", linkPPP, cat(uint16(0xc021), make([]byte, 8)), notIP, ""},
		{"6in4", linkRaw, ip4(a4, b4, 41, 1, 0, udp6), decoded, want6},
		{"4in4", linkRaw, ip4("10.0.0.1", "10.0.0.2", 4, 1, 0, udp4), decoded, want4},
		{"a tunnel that holds something else", linkRaw, ip4(a4, b4, 41, 1, 0, []byte("\x00junk")), decoded, "ip-41 192.168.1.2:0 > 203.0.113.1:0 len 25 \x00junk"},
		{"tunnels in tunnels in tunnels", linkRaw, nested(9, udp4), decoded, ""},
		{"TCP", linkRaw, ip4(a4, b4, 6, 1, 0, tcp(4000, 443, 77, 0x18, "data")), decoded, "tcp 192.168.1.2:4000 > 203.0.113.1:443 len 48 seq 77 flags 24 data"},
		{"TCP header cut by the snap length", linkRaw, ip4(a4, b4, 6, 1, 0, tcp(4000, 443, 77, 0x18, "data"))[:26], decoded, "tcp 192.168.1.2:4000 > 203.0.113.1:443 len 48 seq 0 flags 0 "},
		{"IPv6 options before UDP", linkRaw, ip6(a6, b6, 0, cat(60, 0, make([]byte, 6), 17, 1, make([]byte, 14), query)), decoded, "udp [2001:db8::2]:4000 > [2001:db8:1::1]:53 len 77 hello"},
		{"IPv6 first fragment", linkRaw, ip6(a6, b6, 44, cat(17, 0, uint16(1), uint32(9), query)), decoded, "udp [2001:db8::2]:4000 > [2001:db8:1::1]:53 len 61 hello"},
		{"IPv6 headers without end", linkRaw, ip6(a6, b6, 60, bytes.Repeat(cat(60, 0, make([]byte, 6)), 20)), malformed, ""},
		{"authenticated, not encrypted", linkRaw, ip4(a4, b4, 51, 1, 0, cat(17, 4, make([]byte, 22), query)), decoded, "udp 192.168.1.2:4000 > 203.0.113.1:53 len 57 hello"},
		{"GRE with something else in it stays itself", linkRaw, ip4(a4, b4, 47, 1, 0, []byte("x")), decoded, "ip-47 192.168.1.2:0 > 203.0.113.1:0 len 21 x"},
		{"ICMP", linkRaw, ip4(a4, b4, 1, 1, 0, []byte("\x08\x00ping")), decoded, "icmp 192.168.1.2:0 > 203.0.113.1:0 len 26 \x08\x00ping"},
		{"offloaded segment of length zero", linkRaw, func() []byte { b := bytes.Clone(udp4); b[2], b[3] = 0, 0; return b }(), decoded, want4},
		{"header longer than the packet", linkRaw, cat(0x4f, udp4[1:]), malformed, ""},
		{"total length shorter than the header", linkRaw, cat(0x45, 0, uint16(10), udp4[4:]), malformed, ""},
		{"version 5", linkRaw, cat(0x55, udp4[1:]), notIP, ""},
		{"nothing", linkEthernet, nil, malformed, ""},
		{"Bluetooth", 201, udp4, unknownLink, ""},
		{"Ethernet with a length in place of a type", linkEthernet, cat(macs, uint16(8+len(udp4)), snap, udp4), decoded, want4mac},
		{"Ethernet with a length, spanning tree", linkEthernet, cat(macs, uint16(38), "BB\x03", make([]byte, 35)), notIP, ""},
		{"ATM", linkATM, cat(snap, udp4), decoded, want4},
		{"Cisco HDLC", linkCHDLC, cat(0x0f, 0, uint16(0x0800), udp4), decoded, want4},
		{"Cisco HDLC called PPP", linkPPPHDLC, cat(0x8f, 0, uint16(0x86dd), udp6), decoded, want6},
		{"PPP with its direction", linkPPPDir, cat(1, 0xff, 3, uint16(0x0021), udp4), decoded, want4},
		{"PPP with its direction in place of the address", linkPPPD, cat(1, 3, uint16(0x0021), udp4), decoded, want4},
		{"OpenBSD enc", linkENC, cat(uint32(2), uint32(7), uint32(0), udp4), decoded, want4},
		{"OpenBSD pflog", linkPFLOG, cat(61, make([]byte, 63), udp6), decoded, want6},
		{"netfilter log", linkNFLOG, cat(2, 0, uint16(5), []byte{8, 0, 1, 0}, uint32(0), []byte{16, 0, 8, 0}, uint16(6), uint16(0), macA, uint16(0),
			[]byte{byte(4 + len(udp4)), 0, 9, 0}, udp4), decoded, want4mac},
		{"netfilter log, cut", linkNFLOG, cat(2, 0, uint16(5), []byte{80, 0, 9, 0}, udp4), malformed, ""},
		{"macOS pktap", linkPKTAP, cat([]byte{16, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0}, uint32(0), macs, uint16(0x0800), udp4), decoded, want4mac},
		{"pktap in pktap without end", linkPKTAP, bytes.Repeat([]byte{12, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0, 0}, 9), malformed, ""},

		{"GRE", linkRaw, ip4(a4, b4, 47, 1, 0, cat(uint16(0), uint16(0x86dd), udp6)), decoded, want6},
		{"GRE with all its fields", linkRaw, ip4(a4, b4, 47, 1, 0, cat(uint16(0xb000), uint16(0x0800), uint32(0), uint32(1), uint32(2), udp4)), decoded, want4},
		{"PPTP", linkRaw, ip4(a4, b4, 47, 1, 0, cat(uint16(0x3081), uint16(0x880b), uint32(7), uint32(1), uint32(1), 0xff, 3, 0x21, udp4)), decoded, want4},
		{"PPTP, encrypted", linkRaw, ip4(a4, b4, 47, 1, 0, cat(uint16(0x2001), uint16(0x880b), uint32(7), uint16(0x00fd), "xx")), decoded, "ip-47 192.168.1.2:0 > 203.0.113.1:0 len 32 \x20\x01\x88\x0b\x00\x00\x00\x07\x00\xfdxx"},
		{"GRE with Ethernet", linkRaw, ip4(a4, b4, 47, 1, 0, cat(uint16(0), uint16(0x6558), macs, uint16(0x0800), udp4)), decoded, want4mac},
		{"ERSPAN", linkRaw, ip4(a4, b4, 47, 1, 0, cat(uint16(0x1000), uint16(0x88be), uint32(1), uint64ish, macs, uint16(0x0800), udp4)), decoded, want4mac},
		{"ERSPAN, its first form", linkRaw, ip4(a4, b4, 47, 1, 0, cat(uint16(0), uint16(0x88be), macs, uint16(0x0800), udp4)), decoded, want4mac},
		{"ERSPAN, its third form", linkRaw, ip4(a4, b4, 47, 1, 0, cat(uint16(0x1000), uint16(0x22eb), uint32(1), make([]byte, 11), 1, uint64ish, macs, uint16(0x0800), udp4)), decoded, want4mac},
		{"VXLAN", linkRaw, within4(4789, cat(uint32(0x08000000), uint32(0x2a00), macs, uint16(0x0800), udp4)), decoded, want4mac},
		{"Geneve with an option", linkRaw, within4(6081, cat(0x02, 0, uint16(0x6558), uint32(0x2a00), uint64ish, macs, uint16(0x0800), udp4)), decoded, want4mac},
		{"GTP", linkRaw, within4(2152, cat(0x30, 0xff, uint16(len(udp4)), uint32(7), udp4)), decoded, want4},
		{"GTP with extension headers", linkRaw, within4(2152, cat(0x34, 0xff, uint16(len(udp4)+8), uint32(7), uint16(0), 0, 0x85, 1, 0x10, 0, 0, udp4)), decoded, want4},
		{"GTP, an echo", linkRaw, within4(2152, cat(0x32, 1, uint16(4), uint32(0), uint32(0))), decoded, ""},
		{"LISP", linkRaw, within4(4341, cat(uint64ish, udp4)), decoded, want4},
		{"Teredo with origin", linkRaw, within4(3544, cat(uint64ish, udp6)), decoded, want6},
		{"AYIYA", linkRaw, within4(5072, cat(0x44, 0x52, 0x11, 0x29, make([]byte, 4+16+20), udp6)), decoded, want6},
		{"Teredo with authentication and origin", linkRaw, within4(3544, cat(0, 1, 0, 0, uint64ish, 0, uint64ish, udp6)), decoded, want6},
		{"L2TP with a length", linkRaw, within4(1701, cat(uint16(0x4002), uint16(8+3+len(udp4)), uint32(0x00070007), 0xff, 3, 0x21, udp4)), decoded, want4},
		{"L2TP, control", linkRaw, within4(1701, cat(uint16(0xc802), uint16(12), uint64ish)), decoded, ""},
		{"TZSP", linkRaw, within4(37008, cat(1, 0, uint16(1), 10, 1, 0xc0, 1, macs, uint16(0x0800), udp4)), decoded, want4mac},
		{"CAPWAP, a frame of the air", linkRaw, within4(5247, cat(0, 0x10, 0x43, 0, uint32(0), wifiUp, snap, udp4)), decoded, want4mac},
		{"CAPWAP, a frame of the air as Cisco writes it", linkRaw, within4(5247, cat(0, 0x10, 0x43, 0, uint32(0), int(wifiUp[1]), int(wifiUp[0]), wifiUp[2:], snap, udp4)), decoded, want4mac},
		{"CAPWAP, a keep-alive", linkRaw, within4(5247, cat(0, 0x10, 0x42, 0x08, uint32(0), wifiUp, snap, udp4)), decoded, ""},
		{"VXLAN in VXLAN without end", linkRaw, vxlans(9, cat(macs, uint16(0x0800), udp4)), decoded, ""},
		{"an inner packet that claims more than there is", linkRaw, within4(2152, cat(0x30, 0xff, uint16(len(udp4)), uint32(7), udp4[:len(udp4)-2])), decoded, ""},

		{"802.11 to the access point", linkWiFi, cat(wifiUp, snap, udp4), decoded, want4mac},
		{"802.11 from the access point", linkWiFi, cat(0x08, 0x02, uint16(0), macB, macB, macA, uint16(0), snap, udp4), decoded, want4mac},
		{"802.11 between access points, QoS", linkWiFi, cat(0x88, 0x03, uint16(0), macB, macB, macB, uint16(0), macA, uint16(0), snap, udp4), decoded, want4mac},
		{"802.11, several packets in one frame", linkWiFi, cat(0x88, wifiUp[1:], 0x80, 0, macB, macA, uint16(36+5), snap, udp4), decoded, want4mac},
		{"802.11, encrypted", linkWiFi, cat(0x08, 0x41, wifiUp[2:], "ciphertext"), sealed, ""},
		{"802.11, a beacon", linkWiFi, cat(0x80, wifiUp[1:], "beacon"), notIP, ""},
		{"802.11, no data", linkWiFi, cat(0x48, wifiUp[1:]), notIP, ""},
		{"radiotap", linkRadiotap, cat(0, 0, []byte{18, 0, 3, 0, 0, 0}, make([]byte, 8), 0x10, 0, wifiUp, snap, udp4, "\xde\xad\xbe\xef"), decoded, want4mac},
		{"radiotap with padding and a second word", linkRadiotap, cat(0, 0, []byte{13, 0, 2, 0, 0, 0x80}, uint32(0), 0x20, 0x88, wifiUp[1:], uint16(0), uint16(0), snap, udp4), decoded, want4mac},
		{"radiotap, a wrong checksum", linkRadiotap, cat(0, 0, []byte{9, 0, 2, 0, 0, 0}, 0x40, wifiUp, snap, udp4), malformed, ""},
		{"radiotap in Linux cooked", linkSLL, cat(uint16(4), uint16(803), uint16(0), make([]byte, 8), uint16(4), 0, 0, []byte{8, 0, 0, 0, 0, 0}, wifiUp, snap, udp4), decoded, want4mac},
		{"Prism", linkPrism, cat(uint32(0x44000000), []byte{144, 0, 0, 0}, make([]byte, 136), wifiUp, snap, udp4), decoded, want4mac},
		{"AVS", linkAVS, cat(uint32(0x80211001), uint32(64), make([]byte, 56), wifiUp, snap, udp4), decoded, want4mac},
		{"PPI", linkPPI, cat(0, 0, []byte{8, 0, 105, 0, 0, 0}, wifiUp, snap, udp4), decoded, want4mac},
		{"PPI around Ethernet", linkPPI, cat(0, 0, []byte{8, 0, 1, 0, 0, 0}, macs, uint16(0x0800), udp4), decoded, want4mac},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var d decoder
			var p flow.Packet
			out := d.decode(tc.link, tc.frame, len(tc.frame), &p)
			if out != tc.out {
				t.Fatalf("outcome %d, want %d", out, tc.out)
			}
			if tc.packet != "" {
				if diff := cmp.Diff(tc.packet, line(&p)); diff != "" {
					t.Errorf("packet (-want +got):\n%s", diff)
				}
			}
		})
	}
}

var (
	snap      = cat(0xaa, 0xaa, 3, 0, uint16(0), uint16(0x0800))
	uint64ish = make([]byte, 8)
	wifiUp    = cat(0x08, 0x01, uint16(0), macB, macA, macB, uint16(0)) // a data frame to the access point
)

// within4 is a packet in UDP, to the port by which it is known.
func within4(port uint16, b []byte) []byte {
	return ip4("10.0.0.1", "10.0.0.2", 17, 1, 0, udp(50000, port, string(b)))
}

func vxlans(n int, b []byte) []byte {
	for range n {
		b = cat(macs, uint16(0x0800), within4(4789, cat(uint32(0x08000000), uint32(0), b)))
	}
	return b[14:]
}

func nested(n int, b []byte) []byte {
	for range n {
		b = ip4(a4, b4, 4, 1, 0, b)
	}
	return b
}

// Later fragments have no ports; they count for the flow of the first one.
func TestFragmentsFollowTheirFirst(t *testing.T) {
	var d decoder
	var p flow.Packet
	first := ip4(a4, b4, 17, 99, 0x2000, cat(uint16(4000), uint16(53), uint16(5000), uint16(0), make([]byte, 1472)))
	if out := d.decode(linkRaw, first, len(first), &p); out != decoded || len(p.Payload) != 1472 {
		t.Fatalf("first fragment: outcome %d, %d octets", out, len(p.Payload))
	}
	want := p.Tuple
	for _, tc := range []struct {
		name string
		id   uint16
		want flow.Tuple
	}{
		{"of the same packet", 99, want},
		{"of a packet whose first was not seen", 100, flow.Tuple{Src: want.Src, Dst: want.Dst, Proto: flow.UDP}},
	} {
		later := ip4(a4, b4, 17, tc.id, 0x2000|185, make([]byte, 1496))
		p = flow.Packet{}
		if out := d.decode(linkRaw, later, len(later), &p); out != laterFragment || p.Tuple != tc.want || p.Length != 1516 || len(p.Payload) != 0 {
			t.Errorf("%s: outcome %d, %s", tc.name, out, line(&p))
		}
	}
}

// The fragment that makes a packet whole brings all of it, in whatever order they
// come, twice or overlapping: what came first stays.
func TestFragmentsBecomeWhole(t *testing.T) {
	body := cat(uint16(4000), uint16(53), uint16(8+40), uint16(0), "0123456789012345678901234567890123456789")
	v4 := func(from, to int, more bool) []byte {
		frag := uint16(from / 8)
		if more {
			frag |= 0x2000
		}
		return ip4(a4, b4, 17, 99, frag, body[from:to])
	}
	v6 := func(from, to int, more bool) []byte {
		at := uint16(from)
		if more {
			at |= 1
		}
		return ip6(a6, b6, 0, cat(44, 0, make([]byte, 6), 17, 0, at, uint32(9), body[from:to]))
	}
	other := bytes.Clone(v4(16, 32, true))
	copy(other[20:], "another content!")
	for name, frames := range map[string][][]byte{
		"in order":         {v4(0, 16, true), v4(16, 32, true), v4(32, 48, false)},
		"the last first":   {v4(32, 48, false), v4(16, 32, true), v4(0, 16, true)},
		"twice":            {v4(0, 16, true), v4(16, 32, true), v4(16, 32, true), v4(0, 16, true), v4(32, 48, false)},
		"overlapping":      {v4(0, 24, true), v4(16, 40, true), v4(32, 48, false)},
		"what came first":  {v4(0, 16, true), v4(16, 32, true), other, v4(32, 48, false)},
		"IPv6":             {v6(24, 48, false), v6(0, 24, true)},
		"ports in two":     {v4(0, 8, true), v4(8, 48, false)},
		"a header in four": {v6(0, 8, true), v6(8, 16, true), v6(16, 24, true), v6(24, 48, false)},
	} {
		t.Run(name, func(t *testing.T) {
			var d decoder
			var p flow.Packet
			for i, f := range frames {
				p = flow.Packet{}
				out := d.decode(linkRaw, f, len(f), &p)
				if last := i == len(frames)-1; last != (out == decoded && string(p.Payload) == string(body[8:])) {
					t.Fatalf("fragment %d: outcome %d, %s", i, out, line(&p))
				}
			}
			if p.Tuple.SrcPort != 4000 || p.Tuple.DstPort != 53 || p.Missing != 0 {
				t.Errorf("the whole is %s", line(&p))
			}
		})
	}
}

// A fragment that the snap length cut leaves its hole: nothing is made up.
func TestCutFragmentsStayCut(t *testing.T) {
	var d decoder
	var p flow.Packet
	first := ip4(a4, b4, 17, 99, 0x2000, cat(uint16(4000), uint16(53), uint16(24), uint16(0), "01234567"))
	last := ip4(a4, b4, 17, 99, 2, []byte("89abcdef"))
	d.decode(linkRaw, first[:len(first)-4], len(first), &p)
	p = flow.Packet{}
	if out := d.decode(linkRaw, last, len(last), &p); out != laterFragment || len(p.Payload) != 0 {
		t.Errorf("outcome %d, %s", out, line(&p))
	}
}

// What the snap length cut off a datagram is told, for lengths are a sign of many protocols.
func TestMissing(t *testing.T) {
	whole := ip4(a4, b4, 17, 1, 0, query)
	for cut, want := range map[int]int{0: 0, 1: 1, 5: 5} {
		var d decoder
		var p flow.Packet
		if d.decode(linkRaw, whole[:len(whole)-cut], len(whole), &p); p.Missing != want || len(p.Payload) != 5-want {
			t.Errorf("%d octets cut: %d missing of %q", cut, p.Missing, p.Payload)
		}
	}
}

// file writes frames as a pcap file.
func file(t testing.TB, link linkType, frames ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriterNanos(&b)
	if err := w.WriteFileHeader(65535, layers.LinkType(link)); err != nil {
		t.Fatal(err)
	}
	for i, f := range frames {
		ci := gopacket.CaptureInfo{Timestamp: time.Unix(1_700_000_000, int64(i)), CaptureLength: len(f), Length: len(f)}
		if err := w.WritePacket(ci, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// ngFile writes frames of one link type after the other, each kind on an interface of its own.
func ngFile(t testing.TB, links []linkType, frames ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriterInterface(&b, pcapgo.NgInterface{Name: "a", LinkType: layers.LinkType(links[0]), SnapLength: 65535}, pcapgo.DefaultNgWriterOptions)
	if err != nil {
		t.Fatal(err)
	}
	id := 0
	for i, f := range frames {
		if i > 0 && links[i] != links[i-1] {
			id++
			if _, err := w.AddInterface(pcapgo.NgInterface{Name: "b", LinkType: layers.LinkType(links[i]), SnapLength: 65535}); err != nil {
				t.Fatal(err)
			}
		}
		ci := gopacket.CaptureInfo{Timestamp: time.Unix(1_700_000_000, 0), CaptureLength: len(f), Length: len(f), InterfaceIndex: id}
		if err := w.WritePacket(ci, f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func readAll(data []byte) (packets []string, stats Stats, err error) {
	r, err := Open(bytes.NewReader(data))
	if err != nil {
		return nil, Stats{}, err
	}
	var p flow.Packet
	for {
		if err := r.Next(&p); err != nil {
			if err == io.EOF {
				err = nil
			}
			return packets, r.Stats(), err
		}
		packets = append(packets, line(&p))
	}
}

func TestReaderFormats(t *testing.T) {
	frame := cat(macs, uint16(0x0800), ip4(a4, b4, 17, 1, 0, query))
	arp := cat(macs, uint16(0x0806), make([]byte, 28))
	plain := file(t, linkEthernet, frame, arp, frame)
	zip := func(b []byte) []byte {
		var zipped bytes.Buffer
		z := gzip.NewWriter(&zipped)
		_, _ = z.Write(b)
		_ = z.Close()
		return zipped.Bytes()
	}
	const want = "udp 192.168.1.2:4000 > 203.0.113.1:53 len 33 mac 02005e005301 hello"
	for _, tc := range []struct {
		name  string
		data  []byte
		want  []string
		stats Stats
	}{
		{"pcap", plain, []string{want, want}, Stats{Packets: 3, Bytes: 136, NotIP: 1}},
		{"pcap, compressed", zip(plain), []string{want, want}, Stats{Packets: 3, Bytes: 136, NotIP: 1}},
		{"pcapng, compressed", zip(ngFile(t, []linkType{linkEthernet}, frame)), []string{want}, Stats{Packets: 1, Bytes: 47}},
		{"pcapng, one interface each", ngFile(t, []linkType{linkEthernet, linkRaw, 201}, frame, frame[14:], frame),
			[]string{want, strings.Replace(want, " mac 02005e005301", "", 1)}, Stats{Packets: 3, Bytes: 127, Unknown: 1, LinkType: 201}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, stats, err := readAll(tc.data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("packets (-want +got):\n%s", diff)
			}
			if stats != tc.stats {
				t.Errorf("stats %+v, want %+v", stats, tc.stats)
			}
		})
	}
}

// A capture cut anywhere yields what was whole, and says that it breaks off and where.
func TestReaderTruncated(t *testing.T) {
	frame := cat(macs, uint16(0x0800), ip4(a4, b4, 17, 1, 0, query))
	data := file(t, linkEthernet, frame, frame)
	record := 16 + len(frame)
	for cut := range data {
		packets, stats, err := readAll(data[:cut])
		if cut < 24 {
			if err == nil {
				t.Errorf("cut at %d: a head of %d octets was taken", cut, cut)
			}
			continue
		}
		whole := (cut - 24) / record
		if len(packets) != whole || stats.Packets != int64(whole) {
			t.Errorf("cut at %d: %d packets, want %d", cut, len(packets), whole)
		}
		var broken *BrokenError
		if clean := (cut-24)%record == 0; clean != (err == nil) || !clean && !errors.As(err, &broken) {
			t.Errorf("cut at %d: error %v", cut, err)
		}
		if broken != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v does not say that the file ends early", cut, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, tc := range []struct{ name, data, says string }{
		{"an empty file", "", "empty"},
		{"a text file", "hello, world, this is a text", "not a capture: it begins with 68656c6c"},
		{"a pcap of a strange version", "\xd4\xc3\xb2\xa1\x09\x00\x04\x00" + strings.Repeat("\x00", 16), "version"},
		{"Bluetooth", string(file(t, 201)), "link type 201 (Bluetooth) is not understood; what is read: Ethernet, Linux cooked"},
		{"a link type that nobody knows", string(file(t, 4242)), "link type 4242 is not understood; what is read: Ethernet"},
		{"gzip of nothing", "\x1f\x8b\x08\x00", "head of the capture"},
		{"a pcapng of rubbish", "\x0a\x0d\x0d\x0a\x00\x00\x00\x00\x00\x00\x00\x00", "byte order"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Open(strings.NewReader(tc.data))
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error %v, want one with %q", err, tc.says)
			}
		})
	}
}

// A record may claim any length; only what is there costs memory.
func TestReaderHostileLength(t *testing.T) {
	data := file(t, linkEthernet)
	data = append(data, cat(uint32(0), uint32(0), []byte{0xff, 0xff, 0xff, 0x7f}, []byte{0xff, 0xff, 0xff, 0x7f}, "short")...)
	_, _, err := readAll(data)
	var broken *BrokenError
	if !errors.As(err, &broken) {
		t.Errorf("error %v, want a *BrokenError", err)
	}
}

func TestReaderDoesNotAllocatePerPacket(t *testing.T) {
	frame := cat(macs, uint16(0x0800), ip4(a4, b4, 17, 1, 0, query))
	frames := make([][]byte, 2000)
	for i := range frames {
		frames[i] = frame
	}
	r, err := Open(bytes.NewReader(file(t, linkEthernet, frames...)))
	if err != nil {
		t.Fatal(err)
	}
	var p flow.Packet
	if n := testing.AllocsPerRun(1000, func() {
		if err := r.Next(&p); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Next allocates %v times a packet", n)
	}
}

func BenchmarkReader(b *testing.B) {
	frame := cat(macs, uint16(0x0800), ip4(a4, b4, 6, 1, 0, tcp(4000, 443, 77, 0x18, strings.Repeat("x", 1400))))
	frames, links := make([][]byte, 1000), make([]linkType, 1000)
	for i := range frames {
		frames[i], links[i] = frame, linkEthernet
	}
	for _, format := range []struct {
		name string
		data []byte
	}{{"pcap", file(b, linkEthernet, frames...)}, {"pcapng", ngFile(b, links, frames...)}} {
		b.Run(format.name, func(b *testing.B) {
			b.SetBytes(int64(len(format.data)))
			b.ReportAllocs()
			for b.Loop() {
				r, err := Open(bytes.NewReader(format.data))
				if err != nil {
					b.Fatal(err)
				}
				var p flow.Packet
				for r.Next(&p) == nil {
				}
				if r.Stats().Packets != 1000 {
					b.Fatalf("%d packets", r.Stats().Packets)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/packet")
		})
	}
}

// FuzzReader: no file makes the reader panic, hang or yield a payload longer
// than its packet's record.
func FuzzReader(f *testing.F) {
	frame := cat(macs, uint16(0x0800), ip4(a4, b4, 17, 1, 0, query))
	f.Add(file(f, linkEthernet, frame))
	f.Add(file(f, linkSLL2, cat(uint16(0x86dd), uint16(0), uint32(3), uint16(1), 4, 6, macA, uint16(0), ip6(a6, b6, 44, cat(17, 0, uint16(1), uint32(9), query)))))
	f.Add(ngFile(f, []linkType{linkEthernet, linkRaw}, frame, frame[14:]))
	big := (&writer{big: true}).section().iface(linkEthernet, 64, uint16(optTSResol), uint16(1), []byte{0x94, 0, 0, 0}).enhanced(0, 1<<40, frame)
	f.Add(big.block(blockSimple, uint32(len(frame)), frame).block(blockPacket, uint32(0), uint64(1), uint32(len(frame)), uint32(len(frame)), frame).block(0x0bad).b)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Open(bytes.NewReader(data))
		if err != nil {
			return
		}
		var p flow.Packet
		for n := 0; ; n++ {
			if err := r.Next(&p); err != nil {
				return
			}
			if y := p.At.Year(); y < 1 || y > 9999 { // JSON could not say it
				t.Fatalf("a packet of the year %d", y)
			}
			if len(p.Payload) > maxPacket || p.Length < 0 {
				t.Fatalf("payload of %d octets in a packet of %d", len(p.Payload), p.Length)
			}
			if n > len(data) && len(data) > 0 && data[0] != 0x1f {
				t.Fatalf("%d packets in %d octets", n, len(data))
			}
		}
	})
}

// FuzzDecode: no frame of any link type makes the decoder panic, and what it
// yields lies within the frame.
func FuzzDecode(f *testing.F) {
	for _, link := range []linkType{linkNull, linkEthernet, linkPPP, linkPPPoE, linkRaw, linkSLL, linkSLL2, linkNFLOG, linkPKTAP} {
		f.Add(uint16(link), cat(macs, uint16(0x8100), uint16(7), uint16(0x0800), ip4(a4, b4, 6, 1, 0, tcp(4000, 443, 77, 0x18, "data"))))
		f.Add(uint16(link), ip4(a4, b4, 41, 1, 0, ip6(a6, b6, 0, cat(60, 0, make([]byte, 6), 17, 1, make([]byte, 14), query))))
		f.Add(uint16(link), nested(9, query))
	}
	for _, link := range []linkType{linkWiFi, linkRadiotap, linkPrism, linkAVS, linkPPI} {
		f.Add(uint16(link), cat(0, 0, []byte{8, 0, 0, 0, 0, 0}, wifiUp, snap, query))
	}
	for _, port := range []uint16{portL2TP, portGTP, portTeredo, portLISP, portVXLAN, portCAPWAP, portGeneve, portTZSP, portAYIYA} {
		f.Add(uint16(linkRaw), within4(port, cat(0x34, 0xff, uint64ish, macs, uint16(0x0800), ip6(a6, b6, 17, query))))
	}
	f.Add(uint16(linkRaw), ip4(a4, b4, 47, 1, 0, cat(uint16(0xb000), uint16(0x88be), make([]byte, 20), macs, uint16(0x0800), query)))
	f.Add(uint16(linkRaw), ip4(a4, b4, 17, 1, 0x2000, query))
	f.Fuzz(func(t *testing.T, link uint16, frame []byte) {
		var d decoder
		var p flow.Packet
		for range 2 { // the second time, fragments are known
			p = flow.Packet{}
			out := d.decode(linkType(link), frame, len(frame), &p)
			if len(p.Payload) > max(len(frame), maxWhole) || out == decoded && p.Length < 0 || p.Missing < 0 {
				t.Fatalf("payload of %d octets from a frame of %d", len(p.Payload), len(frame))
			}
		}
	})
}
