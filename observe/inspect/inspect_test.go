package inspect

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/netcurtain/netcurtain/flow/capture"
)

// capture writes a file of n UDP flows, each of three packets to the outside and
// two back, interleaved.
func captureOf(t testing.TB, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriter(&b)
	if err := w.WriteFileHeader(65535, layers.LinkTypeRaw); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for round := range 5 {
		for i := range n {
			p := []byte{0x45, 0, 0, 38, 0, 0, 0, 0, 64, 17, 0, 0, 192, 168, 1, 2, 203, 0, 113, 1}
			p = binary.BigEndian.AppendUint16(p, uint16(20000+i))
			p = append(p, 0x75, 0x30, 0, 18, 0, 0)
			if round > 2 {
				copy(p[12:], []byte{203, 0, 113, 1, 192, 168, 1, 2})
				copy(p[20:], []byte{0x75, 0x30, p[20], p[21]})
			}
			p = append(p, "0123456789"...)
			at = at.Add(time.Millisecond)
			if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(p), Length: len(p)}, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	return b.Bytes()
}

// However few flows are held at once, every byte and packet is in some row.
func TestNoByteIsLost(t *testing.T) {
	data := captureOf(t, 50)
	for _, flows := range []int{0, 49, 1} {
		var out, in, packets uint64
		rows := 0
		stats, err := Read(t.Context(), "x", bytes.NewReader(data), Config{Flows: flows}, func(r Row) error {
			out, in, packets, rows = out+r.BytesOut, in+r.BytesIn, packets+r.PacketsOut+r.PacketsIn, rows+1
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if out != 50*3*38 || in != 50*2*38 || packets != 250 || stats.Packets != 250 {
			t.Errorf("with room for %d flows: %d bytes out, %d in, %d packets in %d rows", flows, out, in, packets, rows)
		}
		if flows == 0 && rows != 50 {
			t.Errorf("%d rows, want 50", rows)
		}
	}
}

func TestReadStops(t *testing.T) {
	data := captureOf(t, 3)
	full := errors.New("disk full")
	if _, err := Read(t.Context(), "x", bytes.NewReader(data), Config{}, func(Row) error { return full }); !errors.Is(err, full) {
		t.Errorf("error %v, want the reader's", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Read(ctx, "x", bytes.NewReader(data), Config{}, func(Row) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want cancelled", err)
	}
	_, err := Read(t.Context(), "x", bytes.NewReader(data[:len(data)-1]), Config{}, func(Row) error { return nil })
	if _, broken := errors.AsType[*capture.BrokenError](err); !broken {
		t.Errorf("error %v, want that it is broken", err)
	}
}

// BenchmarkRead reports how fast a capture of short flows is read.
func BenchmarkRead(b *testing.B) {
	data := captureOf(b, 2000)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Read(b.Context(), "x", bytes.NewReader(data), Config{}, func(Row) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
