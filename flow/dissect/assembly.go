package dissect

// maxSpans bounds how scattered pieces may be while they wait for what is missing.
const maxSpans = 48

// span is a run of received bytes, as offsets from the assembly's start.
type span struct{ from, to int }

// assembly puts pieces of a byte string, which come in any order and may overlap,
// in place: TCP segments, QUIC CRYPTO frames, DTLS fragments. What came first
// wins. It holds at most maxStream bytes.
type assembly struct {
	buf   []byte // with holes between the spans
	spans []span // sorted, disjoint, not touching
}

// store copies b to offset off. It reports false when there is no room.
func (a *assembly) store(off int, b []byte) bool {
	if off < 0 || off >= maxStream {
		return false
	}
	if len(b) > maxStream-off {
		b = b[:maxStream-off]
	}
	end := off + len(b)
	at := off
	if end > len(a.buf) {
		a.grow(end)
	}
	for _, sp := range a.spans { // fill only the holes
		if at < sp.from && at < end {
			copy(a.buf[at:min(sp.from, end)], b[at-off:])
		}
		at = max(at, sp.to)
	}
	if at < end {
		copy(a.buf[at:end], b[at-off:])
	}
	return a.merge(span{off, end})
}

// shift makes room for n bytes before the first.
func (a *assembly) shift(n int) bool {
	old := len(a.buf)
	if n > maxStream-old {
		return false
	}
	a.grow(old + n)
	copy(a.buf[n:], a.buf[:old])
	for i := range a.spans {
		a.spans[i].from += n
		a.spans[i].to += n
	}
	return true
}

// drop lets go of the hole before the first byte, and returns its size.
func (a *assembly) drop() int {
	n := a.spans[0].from
	a.buf = a.buf[:copy(a.buf, a.buf[n:])]
	for i := range a.spans {
		a.spans[i].from -= n
		a.spans[i].to -= n
	}
	return n
}

func (a *assembly) grow(n int) {
	if n <= cap(a.buf) {
		a.buf = a.buf[:n]
		return
	}
	bigger := make([]byte, n, min(maxStream, max(n, 2*cap(a.buf), 2<<10)))
	copy(bigger, a.buf)
	a.buf = bigger
}

// merge notes that n is filled.
func (a *assembly) merge(n span) bool {
	i := 0
	for i < len(a.spans) && a.spans[i].to < n.from {
		i++
	}
	j := i
	for j < len(a.spans) && a.spans[j].from <= n.to {
		n = span{min(n.from, a.spans[j].from), max(n.to, a.spans[j].to)}
		j++
	}
	if i < j {
		a.spans[i] = n
		a.spans = append(a.spans[:i+1], a.spans[j:]...)
		return true
	}
	if len(a.spans) == maxSpans {
		return false
	}
	a.spans = append(a.spans, span{})
	copy(a.spans[i+1:], a.spans[i:])
	a.spans[i] = n
	return true
}

// bytes is what stands in order from the start.
func (a *assembly) bytes() []byte {
	if len(a.spans) == 0 || a.spans[0].from > 0 {
		return nil
	}
	return a.buf[:a.spans[0].to]
}

// clear empties the assembly and keeps its buffer.
func (a *assembly) clear() { a.buf, a.spans = a.buf[:0], a.spans[:0] }
