package observe

import (
	"hash/maphash"

	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/journal"
)

// maxEarly bounds the connections that were recorded before their end: as many as
// a small router's kernel tracks. 4 MB when it is full, nothing when it is empty.
const maxEarly = 65_536

// early is what the journal already has of connections that had to leave the table
// while the kernel goes on to count them. When there are more than it holds, one is
// forgotten and may be counted again, which the metric tells.
//
// The kernel's table is read beside its events: what was read of a connection before its
// end may be told after it, and would be counted again. So the last that ended are known,
// each in the place that its hash gives it.
type early struct {
	seed  maphash.Seed
	told  map[uint64]recorded
	ended [4096]uint64
	m     *metrics
}

// recorded is what the journal has of a connection.
type recorded struct {
	counters flow.Counters
	first    int64 // when it began, in Unix nanoseconds: by that its row is found again
	traits   journal.Traits
}

func newEarly(m *metrics) early { return early{seed: maphash.MakeSeed(), m: m} }

// key stands for one of the kernel's entries.
func (x *early) key(t flow.Tuple, id uint32) uint64 {
	return maphash.Comparable(x.seed, struct {
		t  flow.Tuple
		id uint32
	}{t, id})
}

func (x *early) put(t flow.Tuple, id uint32, r recorded) {
	if x.told == nil {
		x.told = make(map[uint64]recorded)
	}
	if len(x.told) >= maxEarly {
		for k := range x.told {
			delete(x.told, k)
			x.m.forgotten.Inc()
			break
		}
	}
	x.told[x.key(t, id)] = r
}

// take gives back what was put of an entry, and forgets it.
func (x *early) take(t flow.Tuple, id uint32) (recorded, bool) {
	if len(x.told) == 0 {
		return recorded{}, false
	}
	k := x.key(t, id)
	r, ok := x.told[k]
	if ok {
		x.drop(k)
	}
	return r, ok
}

func (x *early) drop(k uint64) {
	delete(x.told, k)
	if len(x.told) == 0 {
		x.told = nil // a burst's memory goes with it
	}
}

// over notes that one of the kernel's entries ended.
func (x *early) over(t flow.Tuple, id uint32) {
	k := x.key(t, id)
	x.ended[k%uint64(len(x.ended))] = k
}

// nothingNew reports whether the journal has all that e says already.
func (x *early) nothingNew(t flow.Tuple, e *flow.Event) bool {
	if e.Kind == flow.New {
		return false
	}
	k := x.key(t, e.ID)
	if e.Kind == flow.Update && x.ended[k%uint64(len(x.ended))] == k {
		return true
	}
	r, ok := x.told[k]
	if !ok || e.Counters != (flow.Counters{}) && e.Counters != r.counters {
		return false
	}
	if e.Kind == flow.Destroy {
		x.drop(k)
	}
	return true
}
