package blocklist

import (
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// Question is everything that a rule may depend on. What is not known stays
// zero: a rule for certain clients then does not speak, one for all but certain
// clients does.
type Question struct {
	Name       dnsname.Name
	Type       uint16 // DNS type
	ClientAddr netip.Addr
	ClientMAC  [6]byte
	ClientName string
	ClientTags []string // "device_tv", "user_child"; see docs/lists.md

	// NoRewrite are lists of which answers that lead somewhere are passed over, as
	// if the rule were not there: who may send a household elsewhere, it decides.
	NoRewrite uint64
}

// Kind is what a rule does.
type Kind uint8

// Each beats those before it, with the exceptions that Index.Ask tells.
const (
	KindNone    Kind = iota
	KindHosts        // a hosts line or a plain name: answered with an address that, as a rule, leads nowhere
	KindBlock        // answered as the household answers for what is blocked
	KindAllow        // an exception, or a rule of an allow list
	KindRewrite      // answered with the rule's own answers
)

// String is the word that JSON uses.
func (k Kind) String() string {
	switch k {
	case KindHosts:
		return "hosts"
	case KindBlock:
		return "block"
	case KindAllow:
		return "allow"
	case KindRewrite:
		return "rewrite"
	}
	return "none"
}

// Match is the rule that decided.
type Match struct {
	Kind  Kind
	Allow bool         // Kind is KindAllow
	Name  dnsname.Name // that the rule names: the name asked for, or a parent of it; "" when it names none
	List  int          // index into Lists
	// Nowhere says that whoever gets the answer reaches nothing: always for
	// KindBlock, for the others as their answers are.
	Nowhere bool
	// Typed says that the rule speaks for certain types only: of others the name exists.
	Typed bool

	form   form
	record int    // offset of the record plus one; 0 for a form with a name
	key    uint64 // of record, its identity
}

// Match is Ask for a name alone: rules for certain types or clients do not speak.
func (x *Index) Match(name dnsname.Name, mask uint64) (m Match, ok bool) {
	defer x.survive(debug.SetPanicOnFault(true), &ok)
	switch forms, rules := x.screen(name, mask); {
	case rules:
		ok = x.askAll(&Question{Name: name}, mask, &m)
	case forms:
		ok = x.askNames(&Question{Name: name}, mask, &m)
	}
	runtime.KeepAlive(x) // the mapping goes when x does
	return m, ok
}

// Ask finds the rule that decides q in the lists of mask; ok is false when none
// speaks. It allocates nothing, and keeps nothing of q.
//
// A rule of an allow list ends it. Then rewrites, less those that an exception
// takes away; then important exceptions, important blocks, exceptions, blocks;
// and when none of these speaks hosts lines and plain names. $badfilter takes
// the equal rule away before all else. Of several of one rank the one with more
// modifiers decides, then the one with the longest name, then the first list's.
//
// When a page of the index cannot be read any more, no rule is found and
// Damaged tells.
func (x *Index) Ask(q *Question, mask uint64) (m Match, ok bool) {
	defer x.survive(debug.SetPanicOnFault(true), &ok)
	switch forms, rules := x.screen(q.Name, mask); {
	case rules:
		ok = x.askAll(q, mask, &m)
	case forms:
		ok = x.askNames(q, mask, &m)
	}
	runtime.KeepAlive(x)
	return m, ok
}

// askAll asks the rules and, unless one of them speaks, the names alone.
func (x *Index) askAll(q *Question, mask uint64, m *Match) (ok bool) {
	if x.rules.gather(q, mask, nil) {
		return x.decideAll(q, mask, m)
	}
	return x.askNames(q, mask, m)
}

// askNames asks the names alone; all of them at once where a zone's exception has
// to be held against longer names.
func (x *Index) askNames(q *Question, mask uint64, m *Match) (ok bool) {
	if ok = x.matchNames(q.Name, mask, m); ok && m.form.shape().zone {
		return x.decideAll(q, mask, m)
	}
	return ok
}

// decideAll weighs all that speaks. It is a function of its own because findings
// are large, and few names need them.
//
//go:noinline
func (x *Index) decideAll(q *Question, mask uint64, m *Match) (ok bool) {
	var found findings
	x.rules.gather(q, mask, &found)
	x.gatherNames(q.Name, mask, &found)
	x.settle(&found, q.NoRewrite)
	*m, ok = x.winner(&found)
	return ok
}

// Answers are what q is answered with when Ask says KindRewrite or KindHosts:
// those of every rule that has a say, in the order of lists and lines, IPv4 first.
func (x *Index) Answers(q *Question, mask uint64) (answers []Answer) {
	ok := true
	defer x.survive(debug.SetPanicOnFault(true), &ok)
	var found findings
	x.rules.gather(q, mask, &found)
	x.gatherNames(q.Name, mask, &found)
	x.settle(&found, q.NoRewrite)
	m, ok := x.winner(&found)
	if !ok || m.Kind != KindRewrite && m.Kind != KindHosts {
		return nil
	}
	for i := range found.n {
		f := &found.all[i]
		if f.kind != m.Kind || f.gone || f.exception {
			continue
		}
		if a := x.answerOf(f); !slices.Contains(answers, a) {
			answers = append(answers, a)
		}
	}
	slices.SortStableFunc(answers, func(a, b Answer) int { return int(bit(a.Type == "AAAA")) - int(bit(b.Type == "AAAA")) })
	runtime.KeepAlive(x)
	return answers
}

func (x *Index) answerOf(f *finding) Answer {
	if f.record > 0 {
		if r, _, ok := recordAt(x.rules.records, f.record-1); ok {
			kind, value, _ := r.answer()
			return Answer{string(kind), string(value)}
		}
		return Answer{}
	}
	a, _ := netip.ParseAddr(f.form.shape().hosts)
	return answerOf(a)
}

// finding is one rule that speaks.
type finding struct {
	kind      Kind
	exception bool // of a rewriting rule
	all       bool // it takes every rewrite away
	important bool
	bad       bool
	zone      bool // it yields to what its list says of more of the name
	gone      bool // something took it away
	typed     bool
	list      uint8
	weight    uint8
	reach     int16 // how much of the name it is about: "*x" is about less of it than "x", "*.x" about more
	identity  uint64
	name      dnsname.Name
	form      form
	record    int
}

// findings are all rules that speak to one question, as far as they fit: nobody
// means more than these with one name.
type findings struct {
	all [64]finding
	n   int
}

func (f *findings) add(one finding) {
	if f.n < len(f.all) {
		f.all[f.n] = one
		f.n++
	}
}

func (f *findings) addRecord(r *record, off int, asked dnsname.Name) {
	for i := range f.n {
		if f.all[i].record == off+1 {
			return // two windows led to it
		}
	}
	one := finding{
		kind: KindBlock, important: r.flags&flagImportant != 0, bad: r.flags&flagBad != 0, zone: r.flags&flagZone != 0,
		list: r.list, weight: r.weight, identity: r.identity, record: off + 1,
	}
	if r.flags&flagAllow != 0 {
		one.kind = KindAllow
	}
	switch r.kind {
	case exactName, belowName, subtreeName:
		one.name = asked[len(asked)-len(r.pattern):] // it covers asked, so that it is no longer
		one.reach = reach(len(r.pattern), r.kind == belowName)
	case wildName:
		one.reach = reach(len(r.pattern), false) - 1
	}
	one.typed = r.typed()
	switch r.rewrite {
	case rewriteOne, rewriteAll:
		one.exception = one.kind == KindAllow
		one.all = r.rewrite == rewriteAll
		one.kind = KindRewrite
	case hostsLine:
		one.kind = KindHosts
	}
	f.add(one)
}

// reach of a name of n octets, or of what is below it.
func reach(n int, below bool) int16 { return int16(2*n + int(bit(below))) }

// gatherNames collects the forms of the name and of its parents.
func (x *Index) gatherNames(name dnsname.Name, mask uint64, found *findings) {
	for n := name; n != ""; n = n.Parent() {
		if !x.mayHold(n, n == name) {
			continue
		}
		set, ok := x.names.find(string(n))
		if !ok {
			continue
		}
		for pairs := x.pairsOf(set); len(pairs) >= 2; pairs = pairs[2:] {
			list, f := pairs[0], form(pairs[1])
			if kind := x.kindOf(list, f, n == name, mask); kind != KindNone {
				s := f.shape()
				found.add(finding{
					kind: kind, list: list, identity: identityOf(f, n), name: n, form: f,
					zone: s.zone, reach: reach(len(n), !s.self),
				})
			}
		}
	}
}

// settle strikes out what $badfilter, the exceptions from rewriting and a zone's
// longer names take away, and the answers of lists that have none to give. Allow lists and block lists do
// not touch each other.
func (x *Index) settle(found *findings, noRewrite uint64) {
	all := found.all[:found.n]
	for i := range all {
		f := &all[i]
		answers := f.kind == KindHosts || f.kind == KindRewrite && !f.exception
		if noRewrite>>f.list&1 != 0 && answers && !x.isAllow(f.list) && !x.leadsNowhere(f) {
			f.gone = true
		}
	}
	for i := range all {
		if !all[i].bad {
			continue
		}
		all[i].gone = true
		for j := range all {
			if !all[j].bad && all[j].identity == all[i].identity && x.isAllow(all[j].list) == x.isAllow(all[i].list) {
				all[j].gone = true
			}
		}
	}
	for i := range all {
		z := &all[i]
		if !z.zone {
			continue
		}
		for j := range all {
			f := &all[j]
			z.gone = z.gone || f.list == z.list && f.reach > z.reach && !f.gone
		}
	}
	for i := range all {
		e := &all[i]
		if !e.exception || e.gone || x.isAllow(e.list) {
			continue
		}
		for j := range all {
			r := &all[j]
			if r.kind == KindRewrite && !r.exception && !x.isAllow(r.list) && (e.important || !r.important) && (e.all || x.sameAnswer(e, r)) {
				r.gone = true
			}
		}
	}
}

func (x *Index) sameAnswer(f, g *finding) bool {
	a, _, okA := recordAt(x.rules.records, f.record-1)
	b, _, okB := recordAt(x.rules.records, g.record-1)
	if !okA || !okB {
		return false
	}
	kindA, valueA, _ := a.answer()
	kindB, valueB, _ := b.answer()
	return string(kindA) == string(kindB) && string(valueA) == string(valueB)
}

func (x *Index) isAllow(list uint8) bool { return int(list) < len(x.lists) && x.lists[list].Allow }

// winner picks the finding that decides.
func (x *Index) winner(found *findings) (m Match, ok bool) {
	var best *finding
	bestRank := 0
	for i := range found.n {
		f := &found.all[i]
		rank := x.rank(f)
		if f.gone || rank == 0 || int(f.list) >= len(x.lists) {
			continue
		}
		if best == nil || rank > bestRank || rank == bestRank && f.before(best) {
			best, bestRank = f, rank
		}
	}
	if best == nil {
		return m, false
	}
	return x.matchOf(best, found), true
}

// matchOf is best as whoever asked is told of it.
func (x *Index) matchOf(best *finding, found *findings) (m Match) {
	m = Match{Kind: best.kind, Name: best.name, List: int(best.list), form: best.form, record: best.record, key: best.identity}
	if x.rank(best) == rankAllowList {
		m.Kind = KindAllow
	}
	m.Allow = m.Kind == KindAllow
	m.Nowhere = m.Kind == KindBlock
	m.Typed = best.typed
	if m.Kind == KindRewrite || m.Kind == KindHosts {
		m.Nowhere = true
		for i := range found.n {
			f := &found.all[i]
			if f.kind != m.Kind || f.gone || f.exception {
				continue
			}
			if x.isCode(f) { // which stands for all answers
				m.Nowhere = true
				break
			}
			m.Nowhere = m.Nowhere && x.leadsNowhere(f)
		}
	}
	return m
}

// isCode reports whether f answers with a response code alone.
func (x *Index) isCode(f *finding) bool {
	if f.record == 0 {
		return false
	}
	r, _, ok := recordAt(x.rules.records, f.record-1)
	if !ok {
		return false
	}
	kind, _, _ := r.answer()
	return string(kind) == "RCODE"
}

// leadsNowhere is Answer.LeadsNowhere without making one.
func (x *Index) leadsNowhere(f *finding) bool {
	if f.record == 0 {
		return true // the forms' addresses all do
	}
	r, _, ok := recordAt(x.rules.records, f.record-1)
	if !ok {
		return false
	}
	kind, value, _ := r.answer()
	switch string(kind) {
	case "RCODE":
		return true
	case "A":
		return len(value) > 1 && (value[0] == '0' && value[1] == '.' || len(value) > 4 && string(value[:4]) == "127.")
	case "AAAA":
		return string(value) == "::" || string(value) == "::1"
	}
	return false
}

const (
	rankHosts = iota + 1
	rankBlock
	rankAllow
	rankImportantBlock
	rankImportantAllow
	rankRewrite
	rankAllowList
)

func (x *Index) rank(f *finding) int {
	switch {
	case x.isAllow(f.list) && !f.bad:
		return rankAllowList
	case f.kind == KindRewrite && f.exception:
		return 0 // it only takes away
	case f.kind == KindRewrite:
		return rankRewrite
	case f.kind == KindAllow && f.important:
		return rankImportantAllow
	case f.kind == KindBlock && f.important:
		return rankImportantBlock
	case f.kind == KindAllow:
		return rankAllow
	case f.kind == KindBlock:
		return rankBlock
	}
	return rankHosts
}

// before reports whether f is chosen over g, which has the same rank.
func (f *finding) before(g *finding) bool {
	switch {
	case f.weight != g.weight:
		return f.weight > g.weight
	case len(f.name) != len(g.name):
		return len(f.name) > len(g.name)
	case f.list != g.list:
		return f.list < g.list
	}
	return f.record < g.record && f.record > 0
}
