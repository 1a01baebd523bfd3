package dissect

// Limits of what one direction of a conversation may cost. A post-quantum
// ClientHello takes two segments, a hello cut into small records rarely more
// than four; whoever needs more than this stays nameless.
const (
	maxStream  = 16 << 10 // bytes kept of one direction
	maxPackets = 8        // packets with payload looked at in one direction
	maxTyped   = 64       // likewise, where a person types, commands go to and fro or a hello comes in small pieces
	keepBuffer = 4 << 10  // a buffer no larger than this is kept over Reset
)

// stream puts the first bytes of one TCP direction in order by sequence number.
// In the common case, where all that is needed stands in one segment, nothing is
// copied: the segment is lent until the end of the call that brought it.
type stream struct {
	base     uint32 // sequence number of the first byte
	started  bool   // base is known
	anchored bool   // base is certain, for the SYN was seen
	moved    bool   // something came from before what was taken for the start
	muted    bool   // nothing more is wanted of this direction
	typed    bool   // a talk of many small packets, whose point comes late
	packets  int    // packets with payload seen
	held     assembly
	lent     []byte // an in-order first segment that is not copied yet
}

// anchor fixes the start of the stream by the SYN's sequence number. Another SYN
// counts as long as no data came: the one before was not answered.
func (s *stream) anchor(syn uint32) {
	if !s.started || s.anchored && s.packets == 0 {
		s.base, s.started, s.anchored = syn+1, true, true
	}
}

// begin makes b, at seq, the start of the stream and forgets what came before.
func (s *stream) begin(seq uint32, b []byte) {
	s.held.clear()
	s.base, s.started, s.anchored, s.lent = seq, true, false, b
}

// skip makes the first byte that is there the start, for what was before it seems
// not to come any more. It reports whether that brought anything.
func (s *stream) skip() bool {
	if s.muted || s.lent != nil || len(s.held.spans) == 0 || s.held.spans[0].from == 0 {
		return false
	}
	n := s.held.drop()
	s.base, s.anchored = s.base+uint32(n), false
	return true
}

// empty reports that the stream holds nothing.
func (s *stream) empty() bool { return s.lent == nil && len(s.held.spans) == 0 }

// add takes one segment and reports whether it may have brought new bytes.
func (s *stream) add(seq uint32, b []byte) bool {
	if s.full() {
		return false
	}
	if !s.started {
		if len(b) == 1 && b[0] == 0 { // a keep-alive: a byte from before
			return false
		}
		s.base, s.started = seq, true
	}
	off := int(int32(seq - s.base))
	if (off >= maxStream || off < -maxStream) && s.empty() { // its beginning was not captured
		s.base, s.anchored, off = seq, false, 0
	}
	if off < 0 && s.anchored { // a retransmission, or a keep-alive's stale byte
		if -off >= len(b) {
			return false
		}
		b, off = b[-off:], 0
	}
	s.packets++
	if off < 0 { // the stream began out of order
		s.keep()
		if -off > maxStream || !s.held.shift(-off) {
			return false
		}
		s.base, off, s.moved = seq, 0, true
	}
	if off == 0 && s.empty() && len(b) <= maxStream {
		s.lent = b
		return true
	}
	s.keep()
	return s.held.store(off, b)
}

// keep copies a lent segment, for its bytes are needed longer than this call.
func (s *stream) keep() {
	if b := s.lent; b != nil {
		s.lent = nil
		s.held.store(0, b)
	}
}

// join appends b whatever its order: datagrams, kept for statistics.
func (s *stream) join(b []byte, limit int) {
	at := len(s.held.buf)
	if n := min(len(b), limit-at); n > 0 {
		s.held.store(at, b[:n])
	}
}

// bytes is what stands in order from the start of the stream; only valid until
// the next call of any method.
func (s *stream) bytes() []byte {
	if s.lent != nil {
		return s.lent
	}
	return s.held.bytes()
}

// full reports whether the stream has cost all that it may.
func (s *stream) full() bool {
	most := maxPackets
	if s.typed {
		most = maxTyped
	}
	return s.muted || s.packets >= most || len(s.held.buf) >= maxStream || len(s.lent) >= maxStream
}

// mute drops what is held and ignores what comes.
func (s *stream) mute() {
	s.muted, s.lent = true, nil
	s.held.clear()
}

// reset empties the stream for another conversation, keeping a small buffer.
func (s *stream) reset() {
	held := s.held
	if cap(held.buf) > keepBuffer {
		held.buf = nil
	}
	held.clear()
	*s = stream{held: held}
}
