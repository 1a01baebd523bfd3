package flow

import "iter"

// recent is a bounded map that knows which of its entries was touched longest
// ago. Entries live in blocks that never move: growing copies nothing, and a
// pointer to a value stays good until its entry is removed or evicted.
type recent[K comparable, V any] struct {
	limit  int
	index  map[K]int32
	blocks [][]slot[K, V]
	free   int32 // head of the list of unused slots, linked by next
	oldest int32
	newest int32
}

type slot[K comparable, V any] struct {
	key        K
	prev, next int32 // towards older, towards newer
	value      V
}

const (
	none      = -1
	blockSize = 128 // slots; what a nearly empty table costs
)

func newRecent[K comparable, V any](limit int) *recent[K, V] {
	return &recent[K, V]{limit: max(limit, 1), index: make(map[K]int32), free: none, oldest: none, newest: none}
}

func (r *recent[K, V]) len() int { return len(r.index) }

func (r *recent[K, V]) at(i int32) *slot[K, V] {
	return &r.blocks[i/blockSize][i%blockSize]
}

// get returns the value for k without touching it.
func (r *recent[K, V]) get(k K) (*V, int32, bool) {
	i, ok := r.index[k]
	if !ok {
		return nil, none, false
	}
	return &r.at(i).value, i, true
}

// touch makes slot i the newest.
func (r *recent[K, V]) touch(i int32) {
	if i == r.newest {
		return
	}
	r.unlink(i)
	r.link(i)
}

// add returns the zero value that now belongs to k, which must not be present.
// When the bound is reached the oldest entry goes first, after evict has seen it.
func (r *recent[K, V]) add(k K, evict func(K, *V)) *V {
	if len(r.index) >= r.limit {
		old := r.at(r.oldest)
		if evict != nil {
			evict(old.key, &old.value)
		}
		r.remove(old.key)
	}
	if r.free == none {
		r.grow()
	}
	i := r.free
	s := r.at(i)
	r.free = s.next
	s.key = k
	r.index[k] = i
	r.link(i)
	return &s.value
}

// rekey moves the entry of old to k, which must not be present.
func (r *recent[K, V]) rekey(old, k K) {
	i := r.index[old]
	delete(r.index, old)
	r.index[k] = i
	r.at(i).key = k
}

func (r *recent[K, V]) remove(k K) {
	i, ok := r.index[k]
	if !ok {
		return
	}
	delete(r.index, k)
	r.unlink(i)
	s := r.at(i)
	*s = slot[K, V]{next: r.free, prev: none} // let go of what the value pointed to
	r.free = i
}

// all yields every entry, the one touched longest ago first. The entry that was
// just yielded may be removed.
func (r *recent[K, V]) all() iter.Seq2[K, *V] {
	return func(yield func(K, *V) bool) {
		for i := r.oldest; i != none; {
			s := r.at(i)
			next := s.next
			if !yield(s.key, &s.value) {
				return
			}
			i = next
		}
	}
}

func (r *recent[K, V]) grow() {
	base := int32(len(r.blocks) * blockSize)
	block := make([]slot[K, V], blockSize)
	for i := range block {
		block[i].next = base + int32(i) + 1
	}
	block[blockSize-1].next = none
	r.blocks = append(r.blocks, block)
	r.free = base
}

func (r *recent[K, V]) link(i int32) {
	s := r.at(i)
	s.prev, s.next = r.newest, none
	if r.newest != none {
		r.at(r.newest).next = i
	} else {
		r.oldest = i
	}
	r.newest = i
}

func (r *recent[K, V]) unlink(i int32) {
	s := r.at(i)
	if s.prev != none {
		r.at(s.prev).next = s.next
	} else {
		r.oldest = s.next
	}
	if s.next != none {
		r.at(s.next).prev = s.prev
	} else {
		r.newest = s.prev
	}
}
