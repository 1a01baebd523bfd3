package nflog

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcurtain/netcurtain/flow"
)

func be16(b []byte, at int, v int) []byte {
	binary.BigEndian.PutUint16(b[at:], uint16(v))
	return b
}

func tcp(payload string) []byte {
	b := make([]byte, 24) // one option word
	be16(b, 0, 40000)
	be16(b, 2, 443)
	binary.BigEndian.PutUint32(b[4:], 0xfeedface)
	b[12], b[13] = 6<<4, 0x40|flow.PSH|flow.ACK // with ECE, which is none of ours
	return append(b, payload...)
}

func udp(payload string) []byte {
	b := be16(be16(be16(make([]byte, 8), 0, 5353), 2, 53), 4, 8+len(payload))
	return append(b, payload...)
}

func ipv4(proto byte, body []byte) []byte {
	b := make([]byte, 24) // one option word
	b[0], b[9] = 0x46, proto
	be16(b, 2, len(b)+len(body))
	copy(b[12:], []byte{192, 168, 77, 10, 198, 51, 100, 7})
	return append(b, body...)
}

func ipv6(next byte, body []byte) []byte {
	b := make([]byte, 40)
	b[0], b[6] = 0x60, next
	be16(b, 4, len(body))
	src, dst := netip.MustParseAddr("fd77::10").As16(), netip.MustParseAddr("2001:db8::7").As16()
	copy(b[8:], src[:])
	copy(b[24:], dst[:])
	return append(b, body...)
}

func extension(next, size byte, rest []byte) []byte {
	b := make([]byte, 8+int(size)*8)
	b[0], b[1] = next, size
	return append(b, rest...)
}

var (
	src4, dst4 = netip.MustParseAddr("192.168.77.10"), netip.MustParseAddr("198.51.100.7")
	src6, dst6 = netip.MustParseAddr("fd77::10"), netip.MustParseAddr("2001:db8::7")
)

func tuple(p flow.Proto, src netip.Addr, sport uint16, dst netip.Addr, dport uint16) flow.Tuple {
	return flow.NewTuple(p, netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport))
}

func TestDecode(t *testing.T) {
	chain := extension(43, 1, extension(60, 0, udp("q"))) // hop by hop → routing → destination → UDP, types set below
	for _, c := range []struct {
		name string
		in   []byte
		want flow.Packet
	}{
		{"tcp over ipv4", ipv4(6, tcp("hello")), flow.Packet{
			Tuple: tuple(flow.TCP, src4, 40000, dst4, 443), Seq: 0xfeedface, Flags: flow.PSH | flow.ACK, Length: 53, Payload: []byte("hello"),
		}},
		{"udp over ipv4", ipv4(17, udp("query")), flow.Packet{
			Tuple: tuple(flow.UDP, src4, 5353, dst4, 53), Length: 37, Payload: []byte("query"),
		}},
		{"tcp over ipv6", ipv6(6, tcp("hello")), flow.Packet{
			Tuple: tuple(flow.TCP, src6, 40000, dst6, 443), Seq: 0xfeedface, Flags: flow.PSH | flow.ACK, Length: 69, Payload: []byte("hello"),
		}},
		{"udp behind extension headers", ipv6(0, extension(60, 0, extension(17, 2, udp("q")))), flow.Packet{
			Tuple: tuple(flow.UDP, src6, 5353, dst6, 53), Length: 40 + 8 + 24 + 9, Payload: []byte("q"),
		}},
		{"three of them", ipv6(0, append([]byte{43}, append(chain[1:16:16], append([]byte{17}, chain[17:]...)...)...)), flow.Packet{
			Tuple: tuple(flow.UDP, src6, 5353, dst6, 53), Length: 40 + 16 + 8 + 9, Payload: []byte("q"),
		}},
		{"first fragment", ipv6(44, append([]byte{17, 0, 0, 1, 1, 2, 3, 4}, udp("q")...)), flow.Packet{
			Tuple: tuple(flow.UDP, src6, 5353, dst6, 53), Length: 57, Payload: []byte("q"),
		}},
		{"icmp", ipv4(1, []byte{8, 0, 1, 2}), flow.Packet{
			Tuple: tuple(flow.ICMP, src4, 0, dst4, 0), Length: 28, Payload: []byte{8, 0, 1, 2},
		}},
		{"padding behind the packet", append(ipv4(17, udp("q")), "padding"...), flow.Packet{
			Tuple: tuple(flow.UDP, src4, 5353, dst4, 53), Length: 33, Payload: []byte("q"),
		}},
		{"cut short by the snap length", ipv4(6, tcp(strings.Repeat("x", 4000)))[:100], flow.Packet{
			Tuple: tuple(flow.TCP, src4, 40000, dst4, 443), Seq: 0xfeedface, Flags: flow.PSH | flow.ACK, Length: 4048, Payload: []byte(strings.Repeat("x", 52)), Missing: 3948,
		}},
		{"segmentation offload without a length", be16(ipv4(6, tcp("big")), 2, 0), flow.Packet{
			Tuple: tuple(flow.TCP, src4, 40000, dst4, 443), Seq: 0xfeedface, Flags: flow.PSH | flow.ACK, Length: 51, Payload: []byte("big"),
		}},
		{"no payload", ipv4(6, tcp("")), flow.Packet{
			Tuple: tuple(flow.TCP, src4, 40000, dst4, 443), Seq: 0xfeedface, Flags: flow.PSH | flow.ACK, Length: 48, Payload: []byte{},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got flow.Packet
			if err := decode(c.in, &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if n := testing.AllocsPerRun(100, func() { _ = decode(c.in, &got) }); n != 0 {
				t.Errorf("decode allocates %v times", n)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	endless := udp("q")
	for range maxExtensions {
		endless = extension(60, 0, endless)
	}
	set := func(b []byte, at int, v byte) []byte { b[at] = v; return b }
	for name, c := range map[string]struct {
		in   []byte
		want error
	}{
		"nothing":                       {nil, errShort},
		"version 5":                     {[]byte{0x50}, errVersion},
		"half an ipv4 header":           {ipv4(6, nil)[:12], errShort},
		"half its options":              {ipv4(6, nil)[:20], errShort},
		"an ipv4 header of 4 words":     {set(ipv4(6, tcp("")), 0, 0x44), errHeader},
		"a total below the header":      {be16(ipv4(6, tcp("")), 2, 8), errHeader},
		"a later ipv4 fragment":         {be16(ipv4(17, udp("")), 6, 100), errFragment},
		"half an ipv6 header":           {ipv6(17, nil)[:30], errShort},
		"half a tcp header":             {ipv4(6, tcp("")[:13]), errShort},
		"a tcp header of 2 words":       {ipv4(6, set(tcp(""), 12, 0x20)), errHeader},
		"tcp options cut off":           {ipv4(6, set(tcp(""), 12, 0xf0)), errShort},
		"half a udp header":             {ipv4(17, udp("")[:7]), errShort},
		"a udp length below 8":          {ipv4(17, be16(udp("q"), 4, 5)), errHeader},
		"a later ipv6 fragment":         {ipv6(44, append([]byte{17, 0, 1, 1, 1, 2, 3, 4}, udp("q")...)), errFragment},
		"an extension past the end":     {ipv6(0, []byte{17, 200, 0, 0, 0, 0, 0, 0}), errShort},
		"half an extension":             {ipv6(0, []byte{17, 0, 0}), errShort},
		"extension headers without end": {ipv6(60, endless), errChain},
	} {
		var p flow.Packet
		if err := decode(c.in, &p); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if n := testing.AllocsPerRun(10, func() { _ = decode(c.in, &p) }); n != 0 {
			t.Errorf("%s: refusing allocates %v times", name, n)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, b := range [][]byte{
		ipv4(6, tcp("hello")), ipv4(17, udp("query")), ipv6(6, tcp("hello")),
		ipv6(0, extension(60, 0, extension(17, 2, udp("q")))), ipv6(51, extension(17, 1, udp("q"))),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p flow.Packet
		if decode(b, &p) != nil {
			return
		}
		if len(p.Payload) > len(b) || p.Length < 20 || p.Tuple.Src == [16]byte{} && p.Tuple.Dst == [16]byte{} && len(b) < 20 {
			t.Errorf("%+v", p)
		}
		if p.Tuple.Proto != flow.TCP && p.Tuple.Proto != flow.UDP && (p.Tuple.SrcPort != 0 || p.Tuple.DstPort != 0) {
			t.Errorf("ports without a transport that has them: %+v", p)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	data := ipv4(6, tcp(strings.Repeat("x", 1400)))
	b.ReportAllocs()
	for b.Loop() {
		var p flow.Packet
		if err := decode(data, &p); err != nil {
			b.Fatal(err)
		}
	}
}
