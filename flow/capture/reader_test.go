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
		{"GRE stays itself", linkRaw, ip4(a4, b4, 47, 1, 0, []byte("x")), decoded, "ip-47 192.168.1.2:0 > 203.0.113.1:0 len 21 x"},
		{"ICMP", linkRaw, ip4(a4, b4, 1, 1, 0, []byte("\x08\x00ping")), decoded, "icmp 192.168.1.2:0 > 203.0.113.1:0 len 26 \x08\x00ping"},
		{"offloaded segment of length zero", linkRaw, func() []byte { b := bytes.Clone(udp4); b[2], b[3] = 0, 0; return b }(), decoded, want4},
		{"header longer than the packet", linkRaw, cat(0x4f, udp4[1:]), malformed, ""},
		{"total length shorter than the header", linkRaw, cat(0x45, 0, uint16(10), udp4[4:]), malformed, ""},
		{"version 5", linkRaw, cat(0x55, udp4[1:]), notIP, ""},
		{"nothing", linkEthernet, nil, malformed, ""},
		{"802.11", 105, udp4, unknownLink, ""},
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
	first := ip4(a4, b4, 17, 99, 0x2000, cat(uint16(4000), uint16(53), uint16(3000), uint16(0), make([]byte, 1472)))
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
		later := ip4(a4, b4, 17, tc.id, 185, make([]byte, 1500))
		p = flow.Packet{}
		if out := d.decode(linkRaw, later, len(later), &p); out != laterFragment || p.Tuple != tc.want || p.Length != 1520 || len(p.Payload) != 0 {
			t.Errorf("%s: outcome %d, %s", tc.name, out, line(&p))
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
		{"pcapng, one interface each", ngFile(t, []linkType{linkEthernet, linkRaw, 105}, frame, frame[14:], frame),
			[]string{want, strings.Replace(want, " mac 02005e005301", "", 1)}, Stats{Packets: 3, Bytes: 127, Unknown: 1, LinkType: 105}},
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
		{"802.11", string(file(t, 105)), "link type 105 (802.11) is not understood: on the air, frames are encrypted for each device; capture on the router's bridge"},
		{"Bluetooth", string(file(t, 201)), "link type 201 (Bluetooth) is not understood; what is read: Ethernet, Linux cooked"},
		{"a link type that nobody knows", string(file(t, 4242)), "link type 4242 is not understood; what is read: Ethernet"},
		{"a modified pcap", "\x34\xcd\xb2\xa1\x02\x00\x04\x00" + strings.Repeat("\x00", 16), "editcap -F pcap"},
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
	for _, link := range []linkType{linkNull, linkEthernet, linkPPP, linkPPPoE, linkRaw, linkSLL, linkSLL2} {
		f.Add(uint16(link), cat(macs, uint16(0x8100), uint16(7), uint16(0x0800), ip4(a4, b4, 6, 1, 0, tcp(4000, 443, 77, 0x18, "data"))))
		f.Add(uint16(link), ip4(a4, b4, 41, 1, 0, ip6(a6, b6, 0, cat(60, 0, make([]byte, 6), 17, 1, make([]byte, 14), query))))
		f.Add(uint16(link), nested(9, query))
	}
	f.Fuzz(func(t *testing.T, link uint16, frame []byte) {
		var d decoder
		var p flow.Packet
		for range 2 { // the second time, fragments are known
			p = flow.Packet{}
			out := d.decode(linkType(link), frame, len(frame), &p)
			if len(p.Payload) > len(frame) || out == decoded && p.Length < 0 {
				t.Fatalf("payload of %d octets from a frame of %d", len(p.Payload), len(frame))
			}
		}
	})
}
