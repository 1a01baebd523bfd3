package policy

import "sync/atomic"

// Hits counts what one list decided: how often and when last, and nothing of who
// asked for what. It outlives the Sets that it is given to.
type Hits struct {
	count atomic.Int64
	last  atomic.Int64 // Unix seconds
}

// Count is how many look-ups the list decided, and when it last did (Unix seconds; 0 is never).
func (h *Hits) Count() (n, last int64) { return h.count.Load(), h.last.Load() }

// count counts v for the list that decided: once for a question, and once for each
// name behind it that was refused.
func (s *Set) count(q *Query, v Verdict) {
	if q.Layer != LayerDNS && !(q.Layer == LayerAnswer && (v.Action == Block || v.Noted)) {
		return
	}
	if h := s.hits[v.List]; h != nil {
		h.count.Add(1)
		h.last.Store(q.Now.Unix())
	}
}
