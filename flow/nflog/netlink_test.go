//go:build linux

package nflog

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"
)

// attr is one attribute as the kernel lays it out.
func attr(typ uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func be(n int, v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v)[8-n:] }

// message is what the kernel says of a packet that a chain of this family logged.
func message(family byte) []byte {
	return bytes.Join([][]byte{
		{family, 0, 0x12, 0x87},
		attr(1, []byte{8, 0, 0, 0}), // packet header
		attr(attrTimestamp, append(be(8, 1700000000), be(8, 250000)...)),
		attr(attrInDev, be(4, 7)),
		attr(attrHWAddr, []byte{0, 6, 0, 0, 2, 0, 0x5e, 0, 0, 1, 0, 0}),
		attr(attrPayload, []byte("payload")),
		attr(10, []byte("U\x00")),
		attr(attrSeq, be(4, 42)),
	}, nil)
}

func TestReadMessage(t *testing.T) {
	for _, family := range []byte{2, 10, 5} { // IPv4, IPv6, netdev
		var l logged
		if err := l.read(message(family)); err != nil {
			t.Fatal(err)
		}
		if !l.at.Equal(time.Unix(1700000000, 250e6)) || l.inDev != 7 || !bytes.Equal(l.mac, []byte{2, 0, 0x5e, 0, 0, 1}) ||
			string(l.payload) != "payload" || l.seq != 42 || !l.hasSeq {
			t.Errorf("family %d: %+v", family, l)
		}
	}
	for n := range len(message(5)) { // cut short anywhere: an error or less, never a panic
		var l logged
		_ = l.read(message(5)[:n])
	}
}

func FuzzReadMessage(f *testing.F) {
	f.Add(message(2))
	f.Add(message(5)[:20])
	f.Add(append([]byte{5, 0, 0, 0}, attr(attrHWAddr, []byte{255, 255, 0, 0})...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var l logged
		if err := l.read(b); err == nil && len(l.payload)+len(l.mac) > len(b) {
			t.Errorf("more than there was: %+v", l)
		}
	})
}
