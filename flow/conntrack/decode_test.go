//go:build linux

package conntrack

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/netcurtain/netcurtain/flow"
)

func nest(typ uint16, parts ...[]byte) []byte {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return appendAttribute(nil, unix.NLA_F_NESTED|typ, all)
}

func plain(typ uint16, data ...byte) []byte { return appendAttribute(nil, typ, data) }

func number(typ uint16, n uint64) []byte { return plain(typ, binary.BigEndian.AppendUint64(nil, n)...) }

func tuple(typ uint16, t flow.Tuple) []byte {
	src, dst := uint16(ctaIPv4Src), uint16(ctaIPv4Dst)
	if t.SrcAddr().Is6() {
		src, dst = ctaIPv6Src, ctaIPv6Dst
	}
	return nest(typ,
		nest(ctaTupleIP, plain(src, t.SrcAddr().AsSlice()...), plain(dst, t.DstAddr().AsSlice()...)),
		nest(ctaTupleProto, plain(ctaProtoNum, byte(t.Proto)),
			plain(ctaProtoSrcPort, byte(t.SrcPort>>8), byte(t.SrcPort)), plain(ctaProtoDstPort, byte(t.DstPort>>8), byte(t.DstPort))))
}

// entry is a whole entry as the kernel writes it, with attributes that are none of ours.
func entry(orig, reply flow.Tuple) []byte {
	var b []byte
	for _, a := range [][]byte{
		tuple(ctaTupleOrig, orig), tuple(ctaTupleReply, reply),
		plain(3, 0, 0, 1, 0x8e), // status
		plain(ctaMark, 1, 0, 0, 0), plain(ctaID, 0xde, 0xad, 0xbe, 0xef),
		nest(ctaCountersOrig, number(ctaCountersPackets, 3), number(ctaCountersBytes, 1<<40)),
		nest(ctaCountersReply, number(ctaCountersPackets, 5), number(ctaCountersBytes, 777)),
		nest(ctaTimestamp, number(ctaTimestampStart, uint64(time.Unix(1795435200, 5).UnixNano())), number(ctaTimestampStop, 0)),
		nest(4, plain(1, 7)), // protocol information
		plain(999, 1, 2, 3),  // of a later kernel
	} {
		b = append(b, a...)
	}
	return b
}

var (
	orig4 = flow.NewTuple(flow.TCP, netip.MustParseAddrPort("192.168.77.10:40000"), netip.MustParseAddrPort("198.51.100.7:443"))
	back4 = flow.NewTuple(flow.TCP, netip.MustParseAddrPort("198.51.100.7:443"), netip.MustParseAddrPort("203.0.113.2:40000"))
	orig6 = flow.NewTuple(flow.UDP, netip.MustParseAddrPort("[fd77::10]:40001"), netip.MustParseAddrPort("[2001:db8::7]:443"))
)

func TestDecode(t *testing.T) {
	for _, orig := range []flow.Tuple{orig4, orig6} {
		var got flow.Event
		if err := decode(entry(orig, back4), &got); err != nil {
			t.Fatal(err)
		}
		want := flow.Event{
			ID: 0xdeadbeef, Tuple: orig, Reply: back4, Mark: 0x01000000, Start: time.Unix(1795435200, 5),
			Counters: flow.Counters{Orig: flow.Count{Packets: 3, Bytes: 1 << 40}, Reply: flow.Count{Packets: 5, Bytes: 777}},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	b := entry(orig4, back4)
	var e flow.Event
	if n := testing.AllocsPerRun(100, func() { _ = decode(b, &e) }); n != 0 {
		t.Errorf("decode allocates %v times", n)
	}
	for n := 1; n < len(b); n++ { // whatever is cut off, it is an error or a whole number of attributes
		var e flow.Event
		_ = decode(b[:n], &e)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":                nil,
		"no tuple":               plain(ctaID, 0, 0, 0, 1),
		"three octets":           {1, 2, 3},
		"a length beyond":        {255, 0, 1, 0},
		"a length of zero":       {0, 0, 1, 0},
		"a short identity":       append(tuple(ctaTupleOrig, orig4), plain(ctaID, 1)...),
		"an address of 5 octets": nest(ctaTupleOrig, nest(ctaTupleIP, plain(ctaIPv4Src, 1, 2, 3, 4, 5))),
		"a port of one octet":    nest(ctaTupleOrig, nest(ctaTupleProto, plain(ctaProtoSrcPort, 1))),
		"a short counter":        append(tuple(ctaTupleOrig, orig4), nest(ctaCountersOrig, plain(ctaCountersBytes, 1, 2, 3, 4))...),
		"a short time":           append(tuple(ctaTupleOrig, orig4), nest(ctaTimestamp, plain(ctaTimestampStart, 1))...),
	} {
		var e flow.Event
		if err := decode(b, &e); err == nil {
			t.Errorf("%s: decoded as %+v", name, e)
		}
	}
}

func TestMessages(t *testing.T) {
	one := request(ctNew, unix.NLM_F_CREATE, unix.AF_INET, entry(orig4, back4))
	two := request(ctDelete, 0, unix.AF_INET, entry(orig6, orig6))
	broken := append([]byte{255, 255, 0, 0}, make([]byte, 12)...)
	var kinds []flow.Kind
	for m := range messages(append(append(append([]byte{}, one...), two...), broken...)) {
		kinds = append(kinds, m.kind())
	}
	if diff := cmp.Diff([]flow.Kind{flow.New, flow.Destroy}, kinds); diff != "" {
		t.Error(diff)
	}
	noent := int32(unix.ENOENT)
	refusal := request(unix.NLMSG_ERROR, 0, 0, nil)
	binary.NativeEndian.PutUint32(refusal[unix.SizeofNlMsghdr:], uint32(-noent))
	for m := range messages(refusal) {
		if err := m.errno(); !errors.Is(err, unix.ENOENT) {
			t.Errorf("refusal is %v", err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(entry(orig4, back4))
	f.Add(entry(orig6, orig6))
	f.Add([]byte{255, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e flow.Event
		if err := decode(b, &e); err == nil && e.Tuple == (flow.Tuple{}) {
			t.Error("decoded without a tuple")
		}
		for m := range messages(b) {
			var e flow.Event
			m.kind()
			_ = m.errno()
			_ = decode(m.attributes, &e)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	data := entry(orig4, back4)
	b.ReportAllocs()
	for b.Loop() {
		var e flow.Event
		if err := decode(data, &e); err != nil {
			b.Fatal(err)
		}
	}
}
