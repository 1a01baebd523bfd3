package blocklist

import (
	"cmp"
	"runtime"
	"runtime/debug"
	"slices"
)

// Finding is one rule that covers a question, whether it decides or not.
type Finding struct {
	Match
	Used bool // its list is one of the mask
	// Cancelled says that it does nothing by itself: another rule takes it away
	// ($badfilter, an exception from rewriting, a longer name of the same zone), or
	// it only takes others away.
	Cancelled bool
}

// Every finds all rules that cover q: those of the lists in mask, in the order in
// which Ask weighs them, then those of the other lists. It is for people who ask
// why, and allocates. Of a name that more than 64 rules cover it tells of 64.
func (x *Index) Every(q *Question, mask uint64) (all []Finding) {
	ok := true
	defer x.survive(debug.SetPanicOnFault(true), &ok)
	for _, used := range []bool{true, false} {
		lists := mask
		if !used {
			lists = ^mask
		}
		var found findings
		x.rules.gather(q, lists, &found)
		x.gatherNames(q.Name, lists, &found)
		x.settle(&found, q.NoRewrite)
		for _, f := range x.ranked(&found) {
			all = append(all, Finding{Match: x.matchOf(f, &found), Used: used, Cancelled: x.isIdle(f)})
		}
	}
	runtime.KeepAlive(x)
	return all
}

// isIdle reports whether f does nothing by itself.
func (x *Index) isIdle(f *finding) bool { return f.gone || x.rank(f) == 0 }

// ranked is what was found, the one that decides first.
func (x *Index) ranked(found *findings) []*finding {
	var all []*finding
	for i := range found.n {
		if f := &found.all[i]; int(f.list) < len(x.lists) {
			all = append(all, f)
		}
	}
	slices.SortStableFunc(all, func(f, g *finding) int {
		switch {
		case x.isIdle(f) != x.isIdle(g):
			return cmp.Compare(bit(x.isIdle(f)), bit(x.isIdle(g)))
		case x.rank(f) != x.rank(g):
			return cmp.Compare(x.rank(g), x.rank(f))
		case f.before(g):
			return -1
		case g.before(f):
			return 1
		}
		return 0
	})
	return all
}
