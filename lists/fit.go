package lists

import (
	"cmp"
	"slices"
)

// Room is what this box can spare for lists, in octets; nil where asked for means
// that nobody counts. Below zero is none.
type Room struct {
	Memory int64 // that lists may take without anybody else going short
	Flash  int64 // free where the index lies, beside the index in force
	// What lies in memory counts as such: a scratch folder or an index on tmpfs.
	ScratchInMemory, IndexInMemory bool
}

// What rules cost, measured with a million of them (TestMillionRules) and rounded up.
const (
	compiling    = 16 << 20 // octets of memory while an index is made, whatever its size
	perRule      = 3        // resident: the filter in front, and the pages that look-ups touch
	perRuleRun   = 20       // of sorted runs in the scratch folder
	perRuleIndex = 16       // of the index
)

// rules is how many there is room for.
func (r *Room) rules() int {
	if r == nil {
		return 1 << 30
	}
	each := int64(perRule)
	if r.ScratchInMemory {
		each += perRuleRun
	}
	if r.IndexInMemory {
		each += 2 * perRuleIndex // the old one stays until the new one is whole
	}
	n := (r.Memory - compiling) / each
	if !r.IndexInMemory {
		n = min(n, r.Flash/perRuleIndex)
	}
	return int(min(max(n, 0), 1<<30))
}

// Smaller is what stands in for a list where that does not fit.
type Smaller struct {
	Name  string // what people know it by
	URL   string
	Rules int // about how many
}

// wanted is a list as the governor sees it.
type wanted struct {
	rules    int   // how many it has, as far as is known; 0 is not known
	smaller  []int // rules of what can stand in, in order
	fixed    bool  // it stays whatever happens: the starter list
	disabled bool  // nobody uses it now; it is the first to go
}

// What becomes of a list: itself, its n-th stand-in, or nothing.
const (
	itself = -1
	off    = -2
)

// fit chooses what of each list there is room for. What nobody uses goes first, then
// the largest falls to its smaller sibling or off, until the rest fits: few large
// lists fall rather than many small ones.
func fit(all []wanted, most int) (choice []int, sum int) {
	choice = make([]int, len(all))
	size := func(i int) int { return sizeOf(all[i], choice[i]) }
	for i := range all {
		choice[i] = itself
		sum += all[i].rules
	}
	for sum > most {
		var left []int
		for i := range all {
			if !all[i].fixed && size(i) > 0 {
				left = append(left, i)
			}
		}
		if len(left) == 0 {
			break
		}
		i := slices.MaxFunc(left, func(i, j int) int {
			if all[i].disabled != all[j].disabled {
				return cmp.Compare(b2i(all[i].disabled), b2i(all[j].disabled))
			}
			return cmp.Compare(size(i), size(j))
		})
		sum -= size(i)
		if next := choice[i] + 1; !all[i].disabled && next < len(all[i].smaller) { // itself is -1

			choice[i] = next
		} else {
			choice[i] = off
		}
		sum += size(i)
	}
	return choice, sum
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
