package observe

import (
	"time"

	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
)

// reading keeps the conversations that are open: how many, how much they hold,
// since when, and some used ones to be used again.
type reading struct {
	open   int
	held   int // octets of buffers
	serial uint32
	queue  []opened // oldest first; entries whose conversation is over are passed over
	spare  []*dissect.Conversation
}

type opened struct {
	tuple  flow.Tuple
	serial uint32
	at     time.Time
}

const (
	// maxSpare bounds the used conversations that are kept for another flow.
	maxSpare = 32
	// maxHeld bounds the buffers of all open conversations together: about two
	// thousand hellos that came by half, or some hundred flows that try to fill theirs.
	maxHeld = 4 << 20
)

// begin gives s a conversation.
func (r *reading) begin(t *flow.Table[running], s *running, now time.Time) {
	if n := len(r.spare); n > 0 {
		s.conv = r.spare[n-1]
		r.spare = r.spare[:n-1]
		s.conv.Reset(s.Tuple.Proto, s.Tuple.DstPort)
	} else {
		s.conv = dissect.New(s.Tuple.Proto, s.Tuple.DstPort)
	}
	r.open++
	r.held += s.conv.Held() // what it kept of its last flow
	r.serial++
	s.serial = r.serial
	if len(r.queue) >= 2*r.open+maxSpare {
		r.compact(t)
	}
	r.queue = append(r.queue, opened{s.Tuple, s.serial, now})
}

// drop takes the conversation away from s, if it has one.
func (r *reading) drop(s *running) {
	if s.conv == nil {
		return
	}
	r.held -= s.conv.Held()
	if len(r.spare) < maxSpare {
		r.spare = append(r.spare, s.conv)
	}
	s.conv = nil
	r.open--
}

// oldest settles the conversation that has been open for longest.
func (r *reading) oldest(t *flow.Table[running], settle func(*running)) {
	for len(r.queue) > 0 {
		if r.first(t, settle) {
			return
		}
	}
}

// expire settles the conversations that were opened at or before the limit.
func (r *reading) expire(t *flow.Table[running], limit time.Time, settle func(*running)) {
	for len(r.queue) > 0 && !r.queue[0].at.After(limit) {
		r.first(t, settle)
	}
}

// first takes the head off the queue and settles its flow when that is still
// being read.
func (r *reading) first(t *flow.Table[running], settle func(*running)) bool {
	o := r.queue[0]
	r.queue = r.queue[1:]
	s, _, ok := t.Peek(o.tuple)
	if !ok || s.conv == nil || s.serial != o.serial {
		return false
	}
	settle(s)
	return true
}

// compact lets go of the entries that would be passed over, so that the queue is
// never much longer than what is open.
func (r *reading) compact(t *flow.Table[running]) {
	kept := make([]opened, 0, 2*r.open+2*maxSpare)
	for _, o := range r.queue {
		if s, _, ok := t.Peek(o.tuple); ok && s.conv != nil && s.serial == o.serial {
			kept = append(kept, o)
		}
	}
	r.queue = kept
}
