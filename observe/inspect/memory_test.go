package inspect

import (
	"bufio"
	"encoding/binary"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
)

// endless writes a capture of about size octets to w: connections to ever other
// ports, each with a request, an answer, bulk and an end, some of them never ended,
// and DNS between.
func endless(w io.Writer, size int) error {
	out := bufio.NewWriterSize(w, 1<<16)
	head := binary.LittleEndian.AppendUint32(nil, 0xa1b2c3d4)
	head = append(head, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 101, 0, 0, 0)
	if _, err := out.Write(head); err != nil {
		return err
	}
	bulk := make([]byte, 1400)
	packet := make([]byte, 0, 2048)
	micros := uint64(1_700_000_000_000_000)
	for n, flows := len(head), 0; n < size; flows++ {
		device, site := byte(2+flows/30000%200), byte(flows%250)
		port := uint16(10000 + flows%50000)
		seq := [2]uint32{1000, 9000}
		send := func(down bool, flags byte, payload []byte) error {
			dir, total := 0, 40+len(payload)
			p := append(packet, 0x45, 0, byte(total>>8), byte(total), 0, 0, 0, 0, 64, 6, 0, 0)
			ends := []byte{192, 168, 1, device, 203, 0, 113, site}
			if down {
				dir, ends = 1, []byte{203, 0, 113, site, 192, 168, 1, device}
				p = append(p, ends...)
				p = append(p, 0, 80, byte(port>>8), byte(port))
			} else {
				p = append(p, ends...)
				p = append(p, byte(port>>8), byte(port), 0, 80)
			}
			p = binary.BigEndian.AppendUint32(p, seq[dir])
			p = append(p, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0)
			p = append(p, payload...)
			seq[dir] += uint32(len(payload))
			micros += 37
			var record [16]byte
			binary.LittleEndian.PutUint32(record[:], uint32(micros/1_000_000))
			binary.LittleEndian.PutUint32(record[4:], uint32(micros%1_000_000))
			binary.LittleEndian.PutUint32(record[8:], uint32(len(p)))
			binary.LittleEndian.PutUint32(record[12:], uint32(len(p)))
			n += 16 + len(p)
			if _, err := out.Write(record[:]); err != nil {
				return err
			}
			_, err := out.Write(p)
			return err
		}
		parts := []struct {
			down    bool
			flags   byte
			payload []byte
		}{
			{false, 0x10, []byte("GET /a HTTP/1.1\r\nHost: site.example\r\n\r\n")},
			{true, 0x10, []byte("HTTP/1.1 200 OK\r\nContent-Length: 14000\r\n\r\n")},
			{true, 0x10, bulk}, {true, 0x10, bulk}, {true, 0x10, bulk}, {true, 0x10, bulk}, {true, 0x10, bulk},
			{false, 0x11, nil}, {true, 0x11, nil},
		}
		if flows%5 == 0 {
			parts = parts[:len(parts)-2] // never ends
		}
		for _, x := range parts {
			if err := send(x.down, x.flags, x.payload); err != nil {
				return err
			}
		}
	}
	return out.Flush()
}

// A capture is read in constant memory, whatever its size: 64 MB here, 1 GB with
// NETCURTAIN_FULL set. Nothing limits the garbage collector.
func TestCapturesOfAnySizeInConstantMemory(t *testing.T) {
	size := 64 << 20
	if os.Getenv("NETCURTAIN_FULL") != "" {
		size = 1 << 30
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(endless(w, size)) }()
	read := &meter{r: r}
	var early, most uint64
	next, rows := size/8, 0
	measure := func() {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		if most = max(most, m.HeapAlloc); early == 0 {
			early = m.HeapAlloc
		}
	}
	stats, err := Read(t.Context(), "endless", read, Config{Flows: 5000}, func(Row) error {
		if rows++; read.n > next {
			measure()
			next += size / 8
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	status, _ := os.ReadFile("/proc/self/status") // only where there is one
	peak := ""
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			peak = strings.TrimSpace(rest)
		}
	}
	t.Logf("%d MB, %d packets, %d rows: heap after an eighth %d kB, at most %d kB; resident at most %s", read.n>>20, stats.Packets, rows, early>>10, most>>10, peak)
	if most > early+2<<20 {
		t.Errorf("%d octets lived after an eighth, %d later", early, most)
	}
}

// meter counts what was read.
type meter struct {
	r io.Reader
	n int
}

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	m.n += n
	return n, err
}
