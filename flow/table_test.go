package flow

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
)

func tuple(src, dst string) Tuple {
	return NewTuple(TCP, netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst))
}

func TestTableFindsBothDirections(t *testing.T) {
	tab := NewTable[int](8, nil)
	k := tuple("192.168.1.2:4000", "203.0.113.1:443")
	*tab.Add(k) = 7
	for _, tc := range []struct {
		key Tuple
		dir Dir
	}{{k, Orig}, {k.Reverse(), Reply}} {
		v, dir, ok := tab.Get(tc.key)
		if !ok || *v != 7 || dir != tc.dir {
			t.Errorf("Get(%v) = %v, %v, %v; want 7, %v", tc.key, v, dir, ok, tc.dir)
		}
	}
	if _, _, ok := tab.Get(tuple("192.168.1.2:4001", "203.0.113.1:443")); ok {
		t.Error("a flow that was never added was found")
	}
}

func TestTableReverse(t *testing.T) {
	tab := NewTable[int](8, nil)
	k := tuple("192.168.1.2:4000", "203.0.113.1:443")
	*tab.Add(k) = 7
	tab.Reverse(k)
	if v, dir, ok := tab.Get(k); !ok || *v != 7 || dir != Reply {
		t.Errorf("after Reverse the old tuple should be the reply, got %v %v %v", v, dir, ok)
	}
	same := tuple("192.168.1.2:5353", "192.168.1.2:5353")
	tab.Add(same)
	tab.Reverse(same)
	if tab.Len() != 2 {
		t.Errorf("Len = %d, want 2", tab.Len())
	}
}

// Nothing that leaves a full table is lost: every value is handed over once, the
// one that was touched longest ago first.
func TestTableEvictsTheSilentOne(t *testing.T) {
	var gone []int
	tab := NewTable(3, func(_ Tuple, v *int) { gone = append(gone, *v) })
	keys := make([]Tuple, 6)
	for i := range keys {
		keys[i] = NewTuple(UDP, netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(i)), netip.MustParseAddrPort("10.0.0.2:53"))
	}
	for i := range 3 {
		*tab.Add(keys[i]) = i
	}
	tab.Get(keys[0].Reverse()) // speaking, in either direction, keeps a flow
	*tab.Add(keys[3]) = 3
	*tab.Add(keys[4]) = 4
	tab.Peek(keys[0]) // looking does not
	*tab.Add(keys[5]) = 5
	if want := []int{1, 2, 0}; !slices.Equal(gone, want) {
		t.Errorf("evicted %v, want %v", gone, want)
	}
	var left []int
	for k, v := range tab.All() {
		left = append(left, *v)
		tab.Remove(k)
	}
	if want := []int{3, 4, 5}; !slices.Equal(left, want) || tab.Len() != 0 {
		t.Errorf("left %v (%d after removal), want %v", left, tab.Len(), want)
	}
}

func TestTableKeepsPointersAndForgetsValues(t *testing.T) {
	tab := NewTable[*int](1000, nil)
	first := tab.Add(tuple("10.0.0.1:1", "10.0.0.2:1"))
	*first = new(int)
	for i := range 999 {
		tab.Add(NewTuple(TCP, netip.AddrPortFrom(netip.MustParseAddr("10.0.0.3"), uint16(i)), netip.MustParseAddrPort("10.0.0.2:1")))
	}
	if v, _, _ := tab.Get(tuple("10.0.0.1:1", "10.0.0.2:1")); v != first {
		t.Error("growing moved a value")
	}
	tab.Remove(tuple("10.0.0.1:1", "10.0.0.2:1"))
	if v := tab.Add(tuple("10.0.0.4:1", "10.0.0.2:1")); *v != nil {
		t.Error("a new flow began with an old flow's value")
	}
}

// A table under floods, beside a plain map: it never forgets, mixes up or keeps a
// flow, and gives back what the floods cost.
func TestTableAfterFloods(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	tab, want := NewTable[int](8192, nil), map[Tuple]int{}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	nearlyEmpty := heap()
	for range 4 {
		for len(want) < 8000 {
			k := NewTuple(UDP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(random.Uint32()), byte(random.Uint32())}), uint16(random.Uint32())), netip.MustParseAddrPort("10.1.0.2:53"))
			if _, known := want[k]; !known {
				want[k] = int(random.Uint32())
				*tab.Add(k) = want[k]
			}
			if random.IntN(3) == 0 {
				for k := range want {
					tab.Remove(k)
					delete(want, k)
					break
				}
			}
		}
		for k := range want {
			if v, _, ok := tab.Get(k); !ok || *v != want[k] {
				t.Fatalf("%v: %v, want %d", k, v, want[k])
			}
			if len(want) > 10 {
				tab.Remove(k)
				delete(want, k)
			}
		}
		seen := 0
		for k, v := range tab.All() {
			if seen++; *v != want[k] {
				t.Errorf("%v: %d, want %d", k, *v, want[k])
			}
		}
		if seen != len(want) || tab.Len() != len(want) {
			t.Fatalf("%d of %d flows are there, %d are told", seen, len(want), tab.Len())
		}
	}
	want = nil // a map that does not shrink
	if kept := int64(heap() - nearlyEmpty); kept > 200<<10 {
		t.Errorf("ten flows keep %d octets after the flood", kept)
	}
	runtime.KeepAlive(tab)
}

func TestTableDoesNotAllocatePerPacket(t *testing.T) {
	tab := NewTable[int](8, nil)
	k := tuple("192.168.1.2:4000", "203.0.113.1:443")
	tab.Add(k)
	if n := testing.AllocsPerRun(100, func() { tab.Get(k.Reverse()) }); n != 0 {
		t.Errorf("Get allocates %v times", n)
	}
}

// BenchmarkTableMemory reports what one running flow costs in a full table,
// beside its value (200 octets here).
func BenchmarkTableMemory(b *testing.B) {
	const flows = 20_000
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		tab := NewTable[[200]byte](flows, nil)
		for i := range flows {
			tab.Add(NewTuple(UDP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1), netip.MustParseAddrPort("10.0.0.2:53")))
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/flows-200, "octets/flow")
		runtime.KeepAlive(tab)
	}
}

func BenchmarkTableGet(b *testing.B) {
	tab := NewTable[int](20_000, nil)
	keys := make([]Tuple, 20_000)
	for i := range keys {
		keys[i] = NewTuple(TCP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 1), netip.MustParseAddrPort("10.0.0.2:53"))
		tab.Add(keys[i])
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		tab.Get(keys[i%len(keys)].Reverse())
	}
}
