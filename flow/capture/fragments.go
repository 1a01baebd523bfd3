package capture

import "github.com/netcurtain/netcurtain/flow"

// Bounds of what waits for its other fragments: 32 packets at most, each of the
// 64 KiB that an IP packet may have. Whatever is older goes.
const (
	maxPieces = 32
	maxWhole  = 1 << 16
	unit      = 8 // octets by which fragments are placed (RFC 791 §3.1)
)

// piece is one fragment of an IP packet.
type piece struct {
	id     uint32
	offset int // octets
	more   bool
	body   []byte // as far as it was captured
	length int    // on the wire
}

// pieces are the fragments of one packet.
type pieces struct {
	src, dst [16]byte
	id       uint32
	proto    flow.Proto // as the fragments' headers say
	tuple    flow.Tuple // with the ports, once the first fragment was seen
	used     bool
	buf      []byte
	have     [maxWhole / unit / 64]uint64
	units    int // that are there
	end      int // octets in all; 0 until the last fragment was seen
}

// fragment takes one fragment. The first one is read as far as it goes; the later
// ones count for its flow; the one that makes the packet whole brings all of it,
// so that a message cut in the middle is read after all.
func (d *decoder) fragment(f piece, depth int, p *flow.Packet) outcome {
	w := d.waiting(f.id, &p.Tuple)
	w.put(f)
	out := laterFragment
	if f.offset == 0 {
		if out = d.transport(f.body, f.length, depth, true, p); out == decoded {
			w.tuple = p.Tuple
		}
	} else if w.tuple != (flow.Tuple{}) {
		p.Tuple = w.tuple
	}
	if !w.whole() {
		return out
	}
	p.Tuple = flow.Tuple{Src: w.src, Dst: w.dst, Proto: w.proto}
	w.used = false
	return d.transport(w.buf[:w.end], w.end, depth, false, p)
}

// waiting finds the packet that a fragment belongs to, or makes room for it.
func (d *decoder) waiting(id uint32, t *flow.Tuple) *pieces {
	for i := range d.pieces {
		if w := &d.pieces[i]; w.used && w.id == id && w.proto == t.Proto && w.src == t.Src && w.dst == t.Dst {
			return w
		}
	}
	w := &d.pieces[d.at]
	d.at = (d.at + 1) % len(d.pieces)
	*w = pieces{src: t.Src, dst: t.Dst, id: id, proto: t.Proto, used: true, buf: w.buf[:0]}
	return w
}

// put places what came, as far as nothing stands there yet: what came first stays.
// A fragment that was cut by the snap length leaves its hole.
func (w *pieces) put(f piece) {
	if len(f.body) < f.length || f.offset+f.length > maxWhole || f.length == 0 || f.more && f.length%unit != 0 {
		return
	}
	end := f.offset + f.length
	if !f.more && w.end == 0 {
		w.end = end
	}
	for len(w.buf) < end {
		w.buf = append(w.buf, make([]byte, end-len(w.buf))...)
	}
	for at := 0; at < f.length; at += unit {
		n := (f.offset + at) / unit
		if w.have[n/64]&(1<<(n%64)) == 0 {
			w.have[n/64] |= 1 << (n % 64)
			w.units++
			copy(w.buf[f.offset+at:end], f.body[at:min(at+unit, f.length)])
		}
	}
}

func (w *pieces) whole() bool {
	return w.end > 0 && w.units == (w.end+unit-1)/unit && len(w.buf) >= w.end
}
