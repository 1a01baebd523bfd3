package dissect

// Limits of what one direction of a conversation may cost. A post-quantum
// ClientHello takes two segments, a hello cut into small records rarely more
// than four; whoever needs more than this stays nameless.
const (
	maxStream  = 16 << 10 // bytes kept of one direction
	maxPackets = 8        // packets with payload looked at in one direction
	keepBuffer = 4 << 10  // a buffer no larger than this is kept over Reset
)

// span is a run of received bytes, as offsets from the stream's base.
type span struct{ from, to int }

// stream puts the first bytes of one TCP direction in order by sequence number.
// Overlaps keep what came first. In the common case, where all that is needed
// stands in one segment, nothing is copied: the segment is lent until the end of
// the call that brought it.
type stream struct {
	base     uint32 // sequence number of the first byte
	started  bool   // base is known
	anchored bool   // base is certain: the SYN was seen, or bytes were dropped before it
	muted    bool   // nothing more is wanted of this direction
	packets  int    // packets with payload seen
	spans    [maxPackets]span
	nspans   int
	buf      []byte // bytes from base on, with holes between the spans
	lent     []byte // an in-order first segment that is not copied yet
}

// anchor fixes the start of the stream by the SYN's sequence number.
func (s *stream) anchor(syn uint32) {
	if !s.started {
		s.base, s.started, s.anchored = syn+1, true, true
	}
}

// add takes one segment and returns whether it brought new bytes.
func (s *stream) add(seq uint32, b []byte) bool {
	if s.full() {
		return false
	}
	s.packets++
	if !s.started {
		s.base, s.started = seq, true
	}
	off := int(int32(seq - s.base))
	switch {
	case off < 0 && s.anchored:
		if -off >= len(b) {
			return false // an old retransmission
		}
		b, off = b[-off:], 0
	case off < 0:
		if !s.rebase(-off) {
			return false
		}
		off = 0
	}
	if off >= maxStream {
		return false
	}
	if off == 0 && s.nspans == 0 && len(b) <= maxStream {
		s.lent = b
		return true
	}
	s.store(off, b)
	return true
}

// rebase makes room for n bytes that belong before the first ones seen: the
// stream began out of order.
func (s *stream) rebase(n int) bool {
	s.keep()
	if n > maxStream-len(s.buf) {
		return false
	}
	old := len(s.buf)
	s.grow(old + n)
	copy(s.buf[n:], s.buf[:old])
	clear(s.buf[:n])
	for i := range s.spans[:s.nspans] {
		s.spans[i].from += n
		s.spans[i].to += n
	}
	s.base -= uint32(n)
	return true
}

// keep copies a lent segment, for its bytes are needed longer than this call.
func (s *stream) keep() {
	if b := s.lent; b != nil {
		s.lent = nil
		s.store(0, b)
	}
}

// store copies b to offset off, where earlier bytes win over it.
func (s *stream) store(off int, b []byte) {
	s.keep()
	if len(b) > maxStream-off {
		b = b[:maxStream-off]
	}
	end := off + len(b)
	if end > len(s.buf) {
		s.grow(end)
	}
	at := off
	for _, sp := range s.spans[:s.nspans] { // fill only the holes
		if at < sp.from && at < end {
			copy(s.buf[at:min(sp.from, end)], b[at-off:])
		}
		at = max(at, sp.to)
	}
	if at < end {
		copy(s.buf[at:end], b[at-off:])
	}
	s.merge(span{off, end})
}

func (s *stream) grow(n int) {
	if n <= cap(s.buf) {
		old := len(s.buf)
		s.buf = s.buf[:n]
		clear(s.buf[old:])
		return
	}
	bigger := make([]byte, n, max(n, 2*cap(s.buf), 2<<10))
	copy(bigger, s.buf)
	s.buf = bigger
}

// merge adds n to the sorted, disjoint spans. There are at most maxPackets of
// them, because each packet adds at most one.
func (s *stream) merge(n span) {
	out := s.spans
	k := 0
	placed := false
	for _, sp := range s.spans[:s.nspans] {
		switch {
		case sp.to < n.from:
			out[k] = sp
			k++
		case n.to < sp.from:
			if !placed {
				out[k] = n
				k++
				placed = true
			}
			out[k] = sp
			k++
		default:
			n = span{min(n.from, sp.from), max(n.to, sp.to)}
		}
	}
	if !placed {
		out[k] = n
		k++
	}
	s.spans, s.nspans = out, k
}

// bytes is what stands in order from the start of the stream; only valid until
// the next call of any method.
func (s *stream) bytes() []byte {
	if s.lent != nil {
		return s.lent
	}
	if s.nspans == 0 || s.spans[0].from > 0 {
		return nil
	}
	return s.buf[:s.spans[0].to]
}

// full reports whether the stream has cost all that it may.
func (s *stream) full() bool {
	return s.muted || s.packets >= maxPackets || len(s.buf) >= maxStream || len(s.lent) >= maxStream
}

// mute drops what is held and ignores what comes.
func (s *stream) mute() {
	s.muted = true
	s.lent = nil
	s.nspans = 0
	s.buf = s.buf[:0]
}

// reset empties the stream for another conversation, keeping a small buffer.
func (s *stream) reset() {
	buf := s.buf
	if cap(buf) > keepBuffer {
		buf = nil
	}
	*s = stream{buf: buf[:0]}
}
