package capture

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// gopacket reads captures, too, and was written by others: for every file it
// takes, we must tell the same frames, times, lengths and link types.

func tell(at time.Time, link, wire int, data []byte) string {
	return fmt.Sprintf("%s link %d, %d of %d octets, crc %08x", at.UTC().Format(time.RFC3339Nano), link, len(data), wire, crc32.ChecksumIEEE(data))
}

func readOurs(data []byte) (records []string, err error) {
	r, err := Open(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	var rec record
	for {
		if err := r.file.next(&rec); err != nil {
			return records, err
		}
		records = append(records, tell(rec.at, int(rec.link), rec.wire, rec.data))
	}
}

func readTheirs(data []byte) (records []string, err error) {
	var next func() ([]byte, gopacket.CaptureInfo, error)
	var link func(gopacket.CaptureInfo) int
	if binary.BigEndian.Uint32(data) == blockSection {
		r, err := pcapgo.NewNgReader(bytes.NewReader(data), pcapgo.NgReaderOptions{WantMixedLinkType: true})
		if err != nil {
			return nil, err
		}
		next, link = r.ReadPacketData, func(ci gopacket.CaptureInfo) int { return int(ci.AncillaryData[0].(layers.LinkType)) }
	} else {
		r, err := pcapgo.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		next, link = r.ReadPacketData, func(gopacket.CaptureInfo) int { return int(r.LinkType()) }
	}
	for {
		b, ci, err := next()
		if err != nil {
			return records, err
		}
		records = append(records, tell(ci.Timestamp, link(ci), ci.Length, b))
	}
}

func sameAsOracle(t *testing.T, data []byte) (records int) {
	t.Helper()
	want, theirs := readTheirs(data)
	got, ours := readOurs(data)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("frames (-gopacket +ours):\n%.2000s", diff)
	}
	if (ours == io.EOF) != (theirs == io.EOF) {
		t.Errorf("we end with %v, gopacket with %v", ours, theirs)
	}
	return len(got)
}

// writer writes either format in either order, of which gopacket's writers know
// only some.
type writer struct {
	big bool
	b   []byte
}

func (w *writer) put(parts ...any) *writer {
	var o binary.AppendByteOrder = binary.LittleEndian
	if w.big {
		o = binary.BigEndian
	}
	for _, p := range parts {
		switch p := p.(type) {
		case uint16:
			w.b = o.AppendUint16(w.b, p)
		case uint32:
			w.b = o.AppendUint32(w.b, p)
		case uint64:
			w.b = o.AppendUint64(w.b, p)
		case []byte:
			w.b = append(w.b, p...)
		default:
			panic(fmt.Sprintf("%T", p))
		}
	}
	return w
}

// block writes one block, padded.
func (w *writer) block(typ uint32, parts ...any) *writer {
	body := (&writer{big: w.big}).put(parts...).b
	body = append(body, make([]byte, -len(body)&3)...)
	return w.put(typ, uint32(12+len(body)), body, uint32(12+len(body)))
}

func (w *writer) section() *writer {
	return w.block(blockSection, uint32(magicOrder), uint16(1), uint16(0), ^uint64(0))
}

func (w *writer) iface(link linkType, snap uint32, options ...any) *writer {
	return w.block(blockInterface, append([]any{uint16(link), uint16(0), snap}, options...)...)
}

func (w *writer) enhanced(iface uint32, stamp uint64, frame []byte) *writer {
	return w.block(blockEnhanced, iface, uint32(stamp>>32), uint32(stamp), uint32(len(frame)), uint32(len(frame)+9), frame)
}

func randomFrame(r *rand.Rand) []byte {
	b := make([]byte, r.IntN(200))
	if r.IntN(20) == 0 {
		b = make([]byte, 60_000+r.IntN(60_000))
	}
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func randomPcap(r *rand.Rand) []byte {
	w := &writer{big: r.IntN(2) == 0}
	magic, tick := uint32(magicMicro), uint32(1e6)
	if r.IntN(2) == 0 {
		magic, tick = magicNano, 1e9
	}
	w.put(magic, uint16(2), uint16(4), uint32(0), uint32(0), uint32(maxPacket), uint32(linkEthernet))
	for range r.IntN(40) {
		f := randomFrame(r)
		w.put(r.Uint32(), r.Uint32N(tick), uint32(len(f)), uint32(len(f)+r.IntN(3)), f)
	}
	return w.b
}

func randomPcapng(r *rand.Rand) []byte {
	w := &writer{}
	links := []linkType{linkEthernet, linkRaw, linkSLL2, 127}
	for range 1 + r.IntN(3) {
		w.big = r.IntN(2) == 0
		w.section()
		ifaces := uint32(1 + r.IntN(3))
		for range ifaces {
			w.iface(links[r.IntN(len(links))], uint32(r.IntN(2)*100),
				uint16(2), uint16(5), []byte("br-0\x00\x00\x00\x00"), // its name
				uint16(optTSResol), uint16(1), []byte{byte(3 + r.IntN(10)), 0, 0, 0},
				uint16(optTSOffset), uint16(8), uint64(r.IntN(1000)),
				uint16(optEnd), uint16(0))
		}
		for range r.IntN(20) {
			stamp := r.Uint64N(1e12) // within the calendar for every resolution above
			switch f := randomFrame(r); r.IntN(6) {
			case 0: // statistics
				w.block(5, uint32(0), uint32(0), uint32(0), uint16(optEnd), uint16(0))
			case 1: // nobody's
				w.block(0x0bad, f)
			case 2:
				f = f[:min(len(f), 90)]
				w.block(blockSimple, uint32(len(f)), f)
			case 3:
				w.block(blockPacket, uint16(r.Uint32N(ifaces)), uint16(7), uint32(stamp>>32), uint32(stamp), uint32(len(f)), uint32(len(f)), f)
			default:
				w.enhanced(r.Uint32N(ifaces), stamp, f)
			}
		}
	}
	return w.b
}

func TestSameAsOracle(t *testing.T) {
	for name, make := range map[string]func(*rand.Rand) []byte{"pcap": randomPcap, "pcapng": randomPcapng} {
		t.Run(name, func(t *testing.T) {
			n := 0
			for seed := range uint64(200) {
				n += sameAsOracle(t, make(rand.New(rand.NewPCG(seed, 1))))
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
			if n < 1000 {
				t.Errorf("only %d frames compared", n)
			}
		})
	}
}

// TestSameAsOracleOnRealFiles compares the captures of the score's data, which is
// no part of this repository.
func TestSameAsOracleOnRealFiles(t *testing.T) {
	dir := os.Getenv("NETCURTAIN_TRUTH")
	if dir == "" {
		dir = "../../../shared/data"
	}
	files, _ := filepath.Glob(filepath.Join(dir, "truth", "pcaps", "*"))
	if len(files) == 0 {
		t.Skipf("no captures in %s (NETCURTAIN_TRUTH names the folder of the test data)", dir)
	}
	frames := 0
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(filepath.Base(name), func(t *testing.T) { frames += sameAsOracle(t, data) })
	}
	t.Logf("%d files, %d frames", len(files), frames)
}

// What gopacket gets wrong or refuses.

func TestPcapngTimes(t *testing.T) {
	for _, tc := range []struct {
		name    string
		options []any
		stamp   uint64
		want    string // or the error
	}{
		{"microseconds without a word", nil, 1_700_000_000_123_456, "2023-11-14T22:13:20.123456Z"},
		{"seconds", []any{uint16(optTSResol), uint16(1), []byte{0, 0, 0, 0}}, 1_700_000_000, "2023-11-14T22:13:20Z"},
		{"nanoseconds", []any{uint16(optTSResol), uint16(1), []byte{9, 0, 0, 0}}, 1_700_000_000_123_456_789, "2023-11-14T22:13:20.123456789Z"},
		{"2^-20 s", []any{uint16(optTSResol), uint16(1), []byte{0x94, 0, 0, 0}}, 1_700_000_000<<20 | 1<<19, "2023-11-14T22:13:20.5Z"},
		{"2^-32 s", []any{uint16(optTSResol), uint16(1), []byte{0xa0, 0, 0, 0}}, 1_700_000_000<<32 | 3<<30, "2023-11-14T22:13:20.75Z"},
		{"an offset", []any{uint16(optTSOffset), uint16(8), uint64(1_700_000_000)}, 5_000_000, "2023-11-14T22:13:25Z"},
		{"an offset back", []any{uint16(optTSOffset), uint16(8), ^uint64(9)}, 1_700_000_010_000_000, "2023-11-14T22:13:20Z"},
		{"options of other kinds", []any{uint16(2), uint16(3), []byte("eth\x00"), uint16(optTSResol), uint16(1), []byte{9, 0, 0, 0}, uint16(optEnd), uint16(0)}, 1_700_000_000_000_000_001, "2023-11-14T22:13:20.000000001Z"},
		{"after the end of the calendar", []any{uint16(optTSResol), uint16(1), []byte{0, 0, 0, 0}}, 1 << 62, "which no calendar has"},
		{"before 1970", []any{uint16(optTSOffset), uint16(8), ^uint64(9)}, 0, "which no calendar has"},
		{"an offset that wraps", []any{uint16(optTSOffset), uint16(8), uint64(1 << 63)}, 0, "which no calendar has"},
		{"too fine", []any{uint16(optTSResol), uint16(1), []byte{20, 0, 0, 0}}, 0, "resolution of 10^-20 s"},
		{"too fine, in halves", []any{uint16(optTSResol), uint16(1), []byte{0xc0, 0, 0, 0}}, 0, "resolution of 2^-64 s"},
		{"options that run out", []any{uint16(2), uint16(300), []byte("eth\x00")}, 0, "run past its end"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, big := range []bool{false, true} {
				w := &writer{big: big}
				w.section().iface(linkRaw, 0, tc.options...).enhanced(0, tc.stamp, []byte("x"))
				got, err := readOurs(w.b)
				if err == io.EOF {
					if want := tc.want + " link 101, 1 of 10 octets, crc 8cdc1683"; len(got) != 1 || got[0] != want {
						t.Errorf("%q, want %q", got, want)
					}
				} else if !bytes.Contains([]byte(err.Error()), []byte(tc.want)) {
					t.Errorf("error %v, want %q", err, tc.want)
				}
			}
		})
	}
}

// Damage is named, and nothing that a file claims is believed beyond the bounds.
func TestPcapngDamage(t *testing.T) {
	head := func() *writer { return (&writer{}).section().iface(linkEthernet, 0) }
	for _, tc := range []struct {
		name string
		w    *writer
		says string
	}{
		{"a packet of no interface", (&writer{}).section().enhanced(0, 0, nil), "a packet of interface 0, of which there are 0"},
		{"interfaces end with their section", head().section().enhanced(0, 0, nil), "a packet of interface 0, of which there are 0"},
		{"a packet longer than its block", head().block(blockEnhanced, uint32(0), uint64(0), uint32(9), uint32(9), []byte("four")), "a packet of 9 octets in a block with room for 4"},
		{"a simple packet longer than its block", head().block(blockSimple, uint32(9), []byte("four")), "a packet of 9 octets in a block with room for 4"},
		{"a packet longer than any", head().block(blockEnhanced, uint32(0), uint64(0), uint32(1<<31), uint32(9)), "none is longer than 262144"},
		{"an enhanced packet without fields", head().block(blockEnhanced), "too few for its fields"},
		{"an old packet without fields", head().block(blockPacket), "too few for its fields"},
		{"a simple packet without fields", head().block(blockSimple), "too few for its fields"},
		{"an interface without fields", head().block(blockInterface), "too few for its fields"},
		{"a section without fields", head().block(blockSection, uint32(magicOrder)), "too few for its fields"},
		{"a section of the future", head().block(blockSection, uint32(magicOrder), uint16(2), uint16(0), ^uint64(0)), "pcapng version 2.0 is not understood"},
		{"a section in no order", head().block(blockSection, []byte("abcd")), "byte order is marked 61626364"},
		{"a block of nothing", head().put(uint32(9), uint32(0)), "a pcapng block of 0 octets"},
		{"a crooked block", head().put(uint32(9), uint32(13)), "a pcapng block of 13 octets"},
		{"a packet block longer than any", head().put(uint32(blockEnhanced), uint32(1<<30)), "none that holds a packet is longer than"},
		{"another block longer than any", head().put(uint32(9), uint32(1<<30)), "none is longer than 16777216"},
		{"a block whose ends disagree", head().put(uint32(blockSimple), uint32(16), uint32(0), uint32(20)), "begins as one of 16 octets and ends as one of 20"},
		{"another block whose ends disagree", head().put(uint32(9), uint32(16), uint32(0), uint32(20)), "begins as one of 16 octets and ends as one of 20"},
		{"a block that is skipped and not there", head().put(uint32(9), uint32(1<<20)), "the file ends in the middle of a record"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := readAll(tc.w.b)
			if _, broken := err.(*BrokenError); !broken || !bytes.Contains([]byte(err.Error()), []byte(tc.says)) {
				t.Errorf("error %v, want a *BrokenError with %q", err, tc.says)
			}
		})
	}
	many := (&writer{}).section()
	for range maxInterfaces + 1 {
		many.iface(linkEthernet, 0)
	}
	if _, _, err := readAll(many.b); err == nil {
		t.Error("a section of any number of interfaces was taken")
	}
}

// What is not read is skipped in the buffer that is there, whatever its size; a
// block that is skipped may be longer than the buffer.
func TestPcapngSkips(t *testing.T) {
	frame := cat(macs, uint16(0x0800), ip4(a4, b4, 17, 1, 0, query))
	w := (&writer{}).section().block(10, make([]byte, 3*bufferSize)).iface(linkEthernet, 0).enhanced(0, 1, frame).block(0x4bad, []byte("x"))
	packets, stats, err := readAll(w.b)
	if err != nil || len(packets) != 1 || stats.Packets != 1 {
		t.Errorf("%d packets, error %v", len(packets), err)
	}
}

func TestPcapngTruncated(t *testing.T) {
	frame := cat(macs, uint16(0x0800), ip4(a4, b4, 17, 1, 0, query))
	w := (&writer{}).section().iface(linkEthernet, 0)
	head := len(w.b)
	w.enhanced(0, 1, frame)
	block := len(w.b) - head
	w.enhanced(0, 2, frame)
	for cut := range w.b {
		packets, _, err := readAll(w.b[:cut])
		if cut < 28 {
			if err == nil {
				t.Errorf("a head of %d octets was taken", cut)
			}
			continue
		}
		if whole := max(cut-head, 0) / block; len(packets) != whole {
			t.Errorf("cut at %d: %d packets, want %d", cut, len(packets), whole)
		}
		clean := cut == 28 || cut >= head && (cut-head)%block == 0
		if _, broken := err.(*BrokenError); clean != (err == nil) || !clean && !broken {
			t.Errorf("cut at %d: error %v", cut, err)
		}
	}
}

// A packet of the greatest length is read, in either format; one octet more is not.
func TestGreatestPacket(t *testing.T) {
	for n, want := range map[int]bool{maxPacket: true, maxPacket + 1: false} {
		frame := make([]byte, n)
		p := (&writer{}).put(uint32(magicMicro), uint16(2), uint16(4), uint64(0), uint32(0), uint32(1), uint64(0), uint32(n), uint32(n), frame)
		ng := (&writer{}).section().iface(linkEthernet, 0).enhanced(0, 1, frame)
		for _, data := range [][]byte{p.b, ng.b} {
			if got, err := readOurs(data); (len(got) == 1) != want {
				t.Errorf("%d octets: %d packets, error %v", n, len(got), err)
			}
		}
	}
}

// Nothing but frames of another link type, or encrypted on the air, is an error
// that says what is needed.
func TestNothingUnderstood(t *testing.T) {
	for link, tc := range map[linkType]struct {
		frame string
		want  error
		stats Stats
	}{
		201:      {"beacon", linkType(201).refused(), Stats{Packets: 1, Bytes: 6, Unknown: 1, LinkType: 201}},
		linkWiFi: {string(cat(0x08, 0x41, wifiUp[2:], "ciphertext")), errSealed, Stats{Packets: 1, Bytes: 34, Sealed: 1}},
	} {
		w := (&writer{}).section().iface(link, 0).enhanced(0, 1, []byte(tc.frame))
		_, stats, err := readAll(w.b)
		if err == nil || err.Error() != tc.want.Error() || stats != tc.stats {
			t.Errorf("%v: error %v, %+v", link, err, stats)
		}
	}
}

// The modified format has eight octets more before each packet.
func TestModifiedPcap(t *testing.T) {
	frame := cat(macs, uint16(0x0800), ip4(a4, b4, 17, 1, 0, query))
	w := (&writer{big: true}).put(uint32(magicModified), uint16(2), uint16(4), uint64(0), uint32(0), uint32(1))
	for range 2 {
		w.put(uint32(1), uint32(2), uint32(len(frame)), uint32(len(frame)), uint32(3), uint16(0x0800), uint16(0), frame)
	}
	const want = "udp 192.168.1.2:4000 > 203.0.113.1:53 len 33 mac 02005e005301 hello"
	got, _, err := readAll(w.b)
	if diff := cmp.Diff([]string{want, want}, got); diff != "" || err != nil {
		t.Errorf("%v, packets (-want +got):\n%s", err, diff)
	}
}

func TestPcapngDoesNotAllocatePerPacket(t *testing.T) {
	w := (&writer{big: true}).section().iface(linkEthernet, 0)
	frame := cat(macs, uint16(0x0800), ip4(a4, b4, 17, 1, 0, query))
	for i := range 2000 {
		w.enhanced(0, uint64(i), frame).block(5, uint64(0), uint32(0))
	}
	p, err := openPcapng(stream{bufio.NewReaderSize(bytes.NewReader(w.b), bufferSize)})
	if err != nil {
		t.Fatal(err)
	}
	var rec record
	if n := testing.AllocsPerRun(1000, func() {
		if err := p.next(&rec); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("next allocates %v times a packet", n)
	}
}
