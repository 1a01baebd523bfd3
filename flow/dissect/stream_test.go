package dissect

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// Segments in any order, doubled and overlapping, give the bytes that were sent.
func TestStreamAnyOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	sent := make([]byte, 600)
	for i := range sent {
		sent[i] = byte(i * 7)
	}
	for round := range 2000 {
		var s stream
		base := uint32(0xffffffff-300) + uint32(round%600) // wraps somewhere within
		if round%2 == 0 {
			s.anchor(base - 1)
		}
		n := 1 + r.IntN(maxPackets-1)
		cuts := []int{0}
		for range n - 1 {
			cuts = append(cuts, r.IntN(len(sent)))
		}
		cuts = append(cuts, len(sent))
		for i := range cuts { // sorted, so that the pieces cover everything
			for j := i + 1; j < len(cuts); j++ {
				if cuts[j] < cuts[i] {
					cuts[i], cuts[j] = cuts[j], cuts[i]
				}
			}
		}
		for _, i := range r.Perm(n) {
			from, to := cuts[i], min(len(sent), cuts[i+1]+r.IntN(20)) // overlaps the next
			seg := bytes.Clone(sent[from:to])
			if len(seg) == 0 {
				continue
			}
			s.add(base+uint32(from), seg)
			s.keep()
			clear(seg)
		}
		if got := s.bytes(); !bytes.Equal(got, sent) {
			t.Fatalf("round %d: %d bytes in order of %d", round, len(got), len(sent))
		}
	}
}

func TestStreamKeepsWhatCameFirst(t *testing.T) {
	var s stream
	s.anchor(99)
	s.add(103, []byte("DEF"))
	s.keep()
	s.add(100, []byte("abcxxxg"))
	if got := string(s.bytes()); got != "abcDEFg" {
		t.Errorf("%q", got)
	}
}

func TestStreamIgnoresWhatWasBefore(t *testing.T) {
	var s stream
	s.anchor(99)
	s.add(90, []byte("keep-alive"))
	s.add(98, []byte("xxabc"))
	if got := string(s.bytes()); got != "abc" {
		t.Errorf("%q", got)
	}
}

func TestStreamIsBounded(t *testing.T) {
	var s stream
	big := make([]byte, 60000)
	for i := range uint32(100) {
		s.add(i*60000, big)
		s.keep()
	}
	if len(s.held.buf) > maxStream || cap(s.held.buf) > 2*maxStream {
		t.Errorf("holds %d of %d", len(s.held.buf), cap(s.held.buf))
	}
	s.reset()
	if cap(s.held.buf) > keepBuffer {
		t.Errorf("keeps %d over reset", cap(s.held.buf))
	}
}
