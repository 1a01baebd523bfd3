package flow

import "iter"

// Table holds what is known of each running flow, found by its packed tuple in
// either direction. It is bounded: when it is full, the flow touched longest ago
// is handed to the evict function before its place is taken, so that none of its
// bytes are lost. A Table belongs to one goroutine.
//
// Beside V itself a flow costs its key twice (38 octets each), links and index:
// 136 octets in all when 20,000 are held (BenchmarkTableMemory).
type Table[V any] struct {
	flows *recent[Tuple, V]
	evict func(Tuple, *V)
}

// NewTable makes a table for at most limit flows. evict may be nil; it must not
// call the table.
func NewTable[V any](limit int, evict func(Tuple, *V)) *Table[V] {
	return &Table[V]{flows: newRecent[Tuple, V](limit), evict: evict}
}

// Len is the number of flows held.
func (t *Table[V]) Len() int { return t.flows.len() }

// Get finds the flow that k belongs to and marks it as just seen. dir says
// whether k runs from the opener or back to it. The pointer is good until the
// flow is removed or evicted.
func (t *Table[V]) Get(k Tuple) (v *V, dir Dir, ok bool) {
	v, i, ok := t.flows.get(k)
	if !ok {
		dir = Reply
		if v, i, ok = t.flows.get(k.Reverse()); !ok {
			return nil, Orig, false
		}
	}
	t.flows.touch(i)
	return v, dir, true
}

// Peek is Get without marking the flow as seen.
func (t *Table[V]) Peek(k Tuple) (v *V, dir Dir, ok bool) {
	if v, _, ok = t.flows.get(k); ok {
		return v, Orig, true
	}
	v, _, ok = t.flows.get(k.Reverse())
	return v, Reply, ok
}

// Add makes room for a flow that is not in the table in either direction; k.Src
// is its opener. It returns the zero V.
func (t *Table[V]) Add(k Tuple) *V { return t.flows.add(k, t.evict) }

// Reverse says that the flow k was really opened by the other side: from now on
// k.Reverse() is its tuple. The value is not touched.
func (t *Table[V]) Reverse(k Tuple) {
	r := k.Reverse()
	if _, _, ok := t.flows.get(k); !ok || r == k {
		return
	}
	if _, _, taken := t.flows.get(r); !taken {
		t.flows.rekey(k, r)
	}
}

// Remove forgets the flow k, in the direction in which it was added.
func (t *Table[V]) Remove(k Tuple) { t.flows.remove(k) }

// All yields the flows, the one touched longest ago first. The flow just
// yielded may be removed.
func (t *Table[V]) All() iter.Seq2[Tuple, *V] { return t.flows.all() }
