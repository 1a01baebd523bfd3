package blocklist

import "math/bits"

// share notes in lists what each of them holds that no other does, and how much it
// has in common with each other: the same names, whatever their form, and the same
// rules of those that need more than a name. counts has how many names there are
// of each set.
func share(lists []ListInfo, sets *setTable, counts []uint64, rules *ruleSet) {
	for i := range lists {
		lists[i].Unique, lists[i].Shared = 0, make([]int, len(lists))
	}
	add := func(holders uint64, n int) {
		for rest := holders; rest != 0; rest &= rest - 1 {
			i := bits.TrailingZeros64(rest)
			if holders&(holders-1) == 0 {
				lists[i].Unique += n
			}
			for others := holders; others != 0; others &= others - 1 {
				lists[i].Shared[bits.TrailingZeros64(others)] += n
			}
		}
	}
	for set, n := range counts {
		m := sets.of(set)
		add(m[blockSelf]|m[blockBelow]|m[allowSelf]|m[allowBelow], int(n))
	}
	for _, holders := range rules.holders() {
		add(holders, 1)
	}
}

// holders are the lists that hold each distinct rule.
func (s *ruleSet) holders() map[uint64]uint64 {
	all := map[uint64]uint64{}
	for off := 0; off < len(s.records); {
		r, next, ok := recordAt(s.records, off)
		if !ok {
			break
		}
		all[hashMix(r.identity^uint64(bit(r.flags&flagBad != 0)))] |= 1 << r.list
		off = next
	}
	return all
}
