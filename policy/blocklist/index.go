package blocklist

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// MaxLists is how many lists one index holds: a mask has a bit for each.
const MaxLists = 64

// ErrNotIndex says that octets are no index of ours: foreign, of another
// version, cut short or damaged. The answer is to compile it again.
var ErrNotIndex = errors.New("not a usable list index")

// ListInfo is what an index knows of one list that it was compiled from.
type ListInfo struct {
	Name     string `json:"name"`
	Allow    bool   `json:"allow,omitempty"` // its rules allow
	Rules    int    `json:"rules"`
	Rejected int    `json:"rejected,omitempty"`
	Complex  int    `json:"complex,omitempty"` // of Rules those that need more than a name
	Meta     string `json:"meta,omitempty"`    // its owner's note, see Source
	// Unique is how many names and rules of this list no other list of the index
	// has; Shared how many of them the i-th list has too (itself: all). Nil is not known.
	Unique int   `json:"unique,omitempty"`
	Shared []int `json:"shared,omitempty"`
}

// Index is an immutable set of rules. It is safe for concurrent use and costs
// its readers no lock. Nothing that it returns points into its octets.
type Index struct {
	names               names
	sets, pairs, filter []byte

	lists []ListInfo
	any   masks // every list that holds at least one form of the kind
	rules ruleIndex

	// texts keeps the text of rules that were just asked for, so that a name
	// that is blocked every second costs no allocation.
	texts [256]atomic.Pointer[ruleText]

	damaged  atomic.Bool
	onDamage func()
}

type ruleText struct {
	form   form
	record int
	name   dnsname.Name
	text   string
}

// Open reads an index in place: data must neither change nor go for as long as
// the Index is reachable. Whoever maps a file releases the mapping when the
// Index is collected (runtime.AddCleanup), not before. Errors wrap ErrNotIndex.
func Open(data []byte) (*Index, error) {
	return OpenMapped(data, bytes.NewReader(data), func() {})
}

// OpenMapped is Open for a mapping of file. The names are read from file, and never
// through the mapping; file must be safe for concurrent use and last as long as the
// Index. breathe is called in between, as by a Builder.
func OpenMapped(data []byte, file io.ReaderAt, breathe func()) (_ *Index, err error) {
	defer faultToError(debug.SetPanicOnFault(true), &err)
	f, err := parseFoot(data)
	if err != nil {
		return nil, err
	}
	if err := f.checkSum(file, int64(len(data)-len(magic)-4), breathe); err != nil {
		return nil, err
	}
	section := func(i int) []byte {
		s := f.sections[i]
		return data[s.off : s.off+s.len : s.off+s.len]
	}
	x := &Index{
		sets: section(secSets), pairs: section(secPairs), filter: section(secFilter),
		names: names{
			file:   io.NewSectionReader(file, int64(f.sections[secNames].off), int64(f.sections[secNames].len)),
			blocks: section(secBlocks), count: int(f.names),
		},
		rules: ruleIndex{
			records: section(secRules), keys: section(secKeys),
			filter: section(secRuleFilter), windows: section(secWindows),
		},
	}
	if err := json.Unmarshal(section(secLists), &x.lists); err != nil {
		return nil, fmt.Errorf("%w: its lists: %v", ErrNotIndex, err)
	}
	switch {
	case len(x.lists) > MaxLists:
		return nil, fmt.Errorf("%w: %d lists", ErrNotIndex, len(x.lists))
	case len(x.sets)%setLen != 0, len(x.filter)%filterBlock != 0, len(x.filter) == 0:
		return nil, fmt.Errorf("%w: a section of odd length", ErrNotIndex)
	}
	if err := x.names.open(breathe); err != nil {
		return nil, err
	}
	if err := x.rules.open(); err != nil {
		return nil, err
	}
	for i := 0; i < len(x.sets)/setLen; i++ {
		for k, v := range x.masksOf(i) {
			x.any[k] |= v
		}
	}
	return x, nil
}

// Lists says what the index was compiled from; bit i of a mask is the i-th.
func (x *Index) Lists() []ListInfo { return x.lists }

// Names is the number of distinct names that have a rule.
func (x *Index) Names() int { return x.names.count }

// Mask is the mask of the named lists. Names that the index does not hold are left out.
func (x *Index) Mask(lists ...string) (mask uint64) {
	for i, l := range x.lists {
		for _, want := range lists {
			if l.Name == want {
				mask |= 1 << i
			}
		}
	}
	return mask
}

// Damaged reports whether a page of the index could not be read: flash wears out
// beneath a mapping. Its owner makes the index anew.
func (x *Index) Damaged() bool { return x.damaged.Load() }

// OnDamage sets what is called, once and by a reader, who must not wait, when a
// page cannot be read. It is set before the first look-up.
func (x *Index) OnDamage(f func()) { x.onDamage = f }

// Resident is how many octets look-ups touch again and again: of a mapping these
// stay in memory.
func (x *Index) Resident() int {
	return len(x.filter) + x.names.resident() + len(x.rules.filter) + len(x.rules.windows) + len(x.rules.keys)
}

// screen asks the filters and the map of windows alone: one pass over the name
// from its end. It is what every look-up of the house pays, and all that an allowed
// name does. It tells whether a form, and whether a rule, may be about the name.
func (x *Index) screen(name dnsname.Name, mask uint64) (forms, rules bool) {
	hasSelf := (x.any[blockSelf]|x.any[allowSelf])&mask != 0
	hasBelow := (x.any[blockBelow]|x.any[allowBelow])&mask != 0
	var keys []byte
	if x.rules.lists&mask != 0 {
		keys = x.rules.filter
		rules = x.rules.every || x.rules.hasWindow(name)
	}
	h := uint64(hashStart)
	for i := len(name) - 1; i >= 0; i-- {
		h = hashStep(h, name[i])
		if i > 0 && name[i-1] != '.' {
			continue
		}
		if hasBelow {
			forms = forms || filterHas(x.filter, hashMix(h^saltBelow))
		}
		if len(keys) > 0 {
			rules = rules || filterHas(keys, hashMix(h^saltRules))
		}
	}
	if hasSelf && name != "" {
		forms = forms || filterHas(x.filter, hashMix(h))
	}
	return forms, rules
}

// matchNames is Ask among the forms.
func (x *Index) matchNames(name dnsname.Name, mask uint64, m *Match) (ok bool) {
	h := uint64(hashStart)
	for i := len(name) - 1; i >= 0; i-- {
		h = hashStep(h, name[i])
		if i > 0 && name[i-1] != '.' {
			continue
		}
		self := i == 0
		if !filterHas(x.filter, hashMix(h^saltBelow)) && !(self && filterHas(x.filter, hashMix(h))) {
			continue
		}
		if set, found := x.names.find(string(name[i:])); found {
			// Parents come first, so that what is found later is longer.
			if one, found := x.choose(set, name[i:], self, mask); found && x.outranks(&one, m) {
				*m, ok = one, true
			}
		}
	}
	return ok
}

// outranks reports whether one, found later, is chosen over m: an allow list's
// rule over an exception, that over a block, and that over a hosts line.
func (x *Index) outranks(one, m *Match) bool {
	if one.Kind != m.Kind {
		return one.Kind > m.Kind
	}
	return x.lists[one.List].Allow || !x.lists[m.List].Allow
}

// choose picks from one entry the rule that speaks; of equal ones the first list's.
func (x *Index) choose(set int, name dnsname.Name, self bool, mask uint64) (m Match, ok bool) {
	for pairs := x.pairsOf(set); len(pairs) >= 2; pairs = pairs[2:] {
		list, f := pairs[0], form(pairs[1])
		kind := x.kindOf(list, f, self, mask)
		if kind == KindNone {
			continue
		}
		if !ok || kind > m.Kind || kind == m.Kind && x.lists[list].Allow && !x.lists[m.List].Allow {
			m = Match{Kind: kind, Allow: kind == KindAllow, Name: name, List: int(list), Nowhere: kind != KindAllow, form: f}
			ok = true
		}
	}
	return m, ok
}

// kindOf is what a form of a list does for its own name or for one below;
// KindNone when it does not cover it or mask leaves the list out.
func (x *Index) kindOf(list uint8, f form, self bool, mask uint64) Kind {
	if mask>>list&1 == 0 || int(list) >= len(x.lists) || f >= formCount {
		return KindNone // or a damaged entry, which speaks for nobody
	}
	s := f.shape()
	switch {
	case self && !s.self, !self && !s.below:
		return KindNone
	case s.allow, x.lists[list].Allow:
		return KindAllow
	case s.hosts != "":
		return KindHosts
	}
	return KindBlock
}

// Rule is the text of the rule that decided. Of a rule that is but a name it is
// the plainest text that means the same; Locate finds the line itself.
func (x *Index) Rule(m Match) (text string) {
	s := m.form.shape()
	if m.record == 0 && s.before == "" && s.after == "" {
		return string(m.Name)
	}
	h := hashMix(uint64(m.form) ^ uint64(m.record)<<8)
	for i := 0; i < len(m.Name); i++ {
		h = hashStep(h, m.Name[i])
	}
	slot := &x.texts[hashMix(h)%uint64(len(x.texts))]
	if t := slot.Load(); t != nil && t.form == m.form && t.record == m.record && (m.record > 0 || t.name == m.Name) {
		return t.text
	}
	t := &ruleText{form: m.form, record: m.record}
	if m.record > 0 {
		t.text = x.textOf(m.record - 1)
	} else {
		t.text = s.before + string(m.Name) + s.after
		t.name = dnsname.Name(t.text[len(s.before) : len(s.before)+len(m.Name)])
	}
	slot.Store(t)
	return t.text
}

// textOf is the text of a rule as its list writes it.
func (x *Index) textOf(off int) string {
	ok := true
	defer x.survive(debug.SetPanicOnFault(true), &ok)
	r, _, found := recordAt(x.rules.records, off)
	if !found {
		return ""
	}
	_, _, text := r.answer()
	s := string(text)
	runtime.KeepAlive(x)
	return s
}

func (x *Index) masksOf(set int) (m masks) {
	if set < 0 || set >= len(x.sets)/setLen {
		return m
	}
	b := x.sets[set*setLen:]
	for i := range m {
		m[i] = binary.BigEndian.Uint64(b[i*8:])
	}
	return m
}

// pairsOf is what a set's rules are: list and form, two octets each.
func (x *Index) pairsOf(set int) []byte {
	if set < 0 || set >= len(x.sets)/setLen {
		return nil
	}
	off := binary.BigEndian.Uint32(x.sets[set*setLen+32:])
	if uint64(off) > uint64(len(x.pairs)) {
		return nil
	}
	n, w := binary.Uvarint(x.pairs[off:])
	if w <= 0 || n > uint64(len(x.pairs)) || uint64(off)+uint64(w)+2*n > uint64(len(x.pairs)) {
		return nil
	}
	return x.pairs[uint64(off)+uint64(w):][:2*n]
}
