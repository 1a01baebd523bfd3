package flow

import (
	"iter"
	"maps"
)

// recent is a bounded map that knows which of its entries was touched longest
// ago. Entries live in blocks that never move: growing copies nothing, and a
// pointer to a value stays good until its entry is removed or evicted. What a
// flood made it grow by it gives back when the flood is over.
type recent[K comparable, V any] struct {
	limit  int
	index  map[K]int32 // slot, counted over all blocks
	most   int         // entries that index has room for: a map does not shrink
	blocks []*block[K, V]
	roomy  int32   // first of the list of blocks with unused slots
	gaps   []int32 // places in blocks of those that were given back
	oldest int32
	newest int32
}

type block[K comparable, V any] struct {
	slots      [blockSize]slot[K, V]
	free       int32 // head of the list of unused slots, linked by next
	used       int32
	prev, next int32 // in the list of roomy blocks
}

type slot[K comparable, V any] struct {
	key        K
	prev, next int32 // towards older, towards newer
	value      V
}

const (
	none      = -1
	blockSize = 128 // slots; what a nearly empty table costs
	fewKeys   = 256 // an index for so many is not worth making smaller
)

func newRecent[K comparable, V any](limit int) *recent[K, V] {
	return &recent[K, V]{limit: max(limit, 1), index: make(map[K]int32), roomy: none, oldest: none, newest: none}
}

func (r *recent[K, V]) len() int { return len(r.index) }

func (r *recent[K, V]) at(i int32) *slot[K, V] {
	return &r.blocks[i/blockSize].slots[i%blockSize]
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
	i := r.take()
	s := r.at(i)
	s.key = k
	r.index[k] = i
	r.most = max(r.most, len(r.index))
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
	r.give(i)
	if r.most > fewKeys && len(r.index) < r.most/8 {
		index := make(map[K]int32, 2*len(r.index))
		maps.Copy(index, r.index)
		r.index, r.most = index, len(index)
	}
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

// take gives an unused slot away.
func (r *recent[K, V]) take() int32 {
	if r.roomy == none {
		r.grow()
	}
	n := r.roomy
	b := r.blocks[n]
	i := b.free
	b.used++
	if b.free = b.slots[i%blockSize].next; b.free == none {
		r.full(n)
	}
	return i
}

// give takes a slot back, and lets go of what its value pointed to. A block that
// nobody uses goes, unless it is the only one with room.
func (r *recent[K, V]) give(i int32) {
	n := i / blockSize
	b := r.blocks[n]
	if b.free == none {
		r.hasRoom(n)
	}
	b.slots[i%blockSize] = slot[K, V]{next: b.free, prev: none}
	b.free = i
	if b.used--; b.used == 0 && (b.prev != none || b.next != none) {
		r.full(n)
		r.blocks[n] = nil
		r.gaps = append(r.gaps, n)
	}
}

func (r *recent[K, V]) grow() {
	n := int32(len(r.blocks))
	if last := len(r.gaps) - 1; last >= 0 {
		n, r.gaps = r.gaps[last], r.gaps[:last]
	} else {
		r.blocks = append(r.blocks, nil)
	}
	b := &block[K, V]{free: n * blockSize}
	for i := range b.slots {
		b.slots[i].next = n*blockSize + int32(i) + 1
	}
	b.slots[blockSize-1].next = none
	r.blocks[n] = b
	r.hasRoom(n)
}

// hasRoom puts block n first in the list of roomy blocks.
func (r *recent[K, V]) hasRoom(n int32) {
	b := r.blocks[n]
	b.prev, b.next = none, r.roomy
	if r.roomy != none {
		r.blocks[r.roomy].prev = n
	}
	r.roomy = n
}

// full takes block n out of that list.
func (r *recent[K, V]) full(n int32) {
	b := r.blocks[n]
	if b.prev != none {
		r.blocks[b.prev].next = b.next
	} else {
		r.roomy = b.next
	}
	if b.next != none {
		r.blocks[b.next].prev = b.prev
	}
	b.prev, b.next = none, none
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
