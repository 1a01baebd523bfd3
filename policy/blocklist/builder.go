package blocklist

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"runtime/debug"
	"slices"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// Source names one list to a Builder.
type Source struct {
	Name  string // what pages call it
	Allow bool   // every rule in it allows
	// Meta is the owner's note, kept with the list in the index: where it came
	// from, when, its ETag. The index does not look into it.
	Meta string
	// MinRules is how many rules a list must have to be believed; fewer is ErrShrunk.
	MinRules int
	// MaxRules is how many there is room for; more is ErrTooLong. Zero is Limits.Rules.
	MaxRules int
}

// File is what a Builder writes to and reads back. *os.File opened for both
// fits, and so does Memory.
type File interface {
	io.Writer // appends
	io.ReaderAt
}

// Options of a Builder.
type Options struct {
	Scratch File   // sorted runs; nil keeps them in memory, which fits small lists
	Limits  Limits // of each list
	// Breathe is called again and again, after some ten microseconds of work each
	// time: a router with one core has look-ups to answer meanwhile. May be nil.
	Breathe func()
	// Buffer is how many octets are sorted at a time; 2 MiB when zero. What a
	// Builder keeps in memory is about twice that, the filter and 8 KiB a run.
	Buffer int
}

// Builder compiles lists: it sorts them in pieces, merges the pieces and writes
// an index. Use it once, from one goroutine.
type Builder struct {
	opts    Options
	lists   []ListInfo
	scratch File
	end     int64 // of scratch
	runs    []run
	arena   []byte   // reversed name length, reversed name, list, form
	offsets []uint32 // of each record in arena
	rules   *ruleSet
	broken  error // of scratch: nothing that was written behind it can be found
}

type run struct{ off, len int64 }

// NewBuilder starts with no list.
func NewBuilder(o Options) *Builder {
	o.Limits = o.Limits.withDefaults()
	if o.Buffer == 0 {
		o.Buffer = 2 << 20
	}
	if o.Scratch == nil {
		o.Scratch = new(Memory)
	}
	if o.Breathe == nil {
		o.Breathe = func() {}
	}
	return &Builder{opts: o, scratch: o.Scratch, rules: newRuleSet()}
}

// Add reads a list to its end. When it fails, the list is as if it had never
// been added, and the Builder goes on: the caller may Keep the old one instead.
// Errors wrap ErrHTML, ErrBinary, ErrEmpty, ErrTooLong or ErrShrunk, or src's own.
func (b *Builder) Add(s Source, src io.Reader) (Report, error) {
	list, err := b.begin(s)
	if err != nil {
		return Report{List: s.Name}, err
	}
	runs, rules := len(b.runs), len(b.rules.entries)
	limits := b.opts.Limits
	if s.MaxRules > 0 {
		limits.Rules = min(limits.Rules, s.MaxRules)
	}
	rep, err := read(s.Name, src, limits, func(p parsed) (string, error) {
		if p.more != nil {
			return b.rules.add(p.more, list), nil
		}
		return "", b.record(p.name, list, p.form)
	})
	if err == nil && rep.Rules < s.MinRules {
		err = fmt.Errorf("list %q: %w: %d, %d were expected at least", s.Name, ErrShrunk, rep.Rules, s.MinRules)
	}
	if err == nil {
		err = b.flush()
	}
	if b.broken != nil {
		return rep, b.broken
	}
	if err != nil {
		b.runs, b.arena, b.offsets = b.runs[:runs], b.arena[:0], b.offsets[:0]
		b.rules.forget(rules)
		b.lists = b.lists[:list]
		return rep, err
	}
	l := &b.lists[list]
	l.Rules, l.Complex, l.Rejected = rep.Rules, rep.Complex, rep.Rejected
	return rep, nil
}

// Empty adds a list without rules: one that could not be had yet. It holds its
// place, so that masks keep their meaning.
func (b *Builder) Empty(s Source) error {
	_, err := b.begin(s)
	return err
}

// Keep takes the list of the same name over from an older index, as it was.
// After an error the Builder is of no more use.
func (b *Builder) Keep(s Source, old *Index) (rep Report, err error) {
	rep.List = s.Name
	defer func() {
		if err != nil && b.broken == nil {
			b.broken = err
		}
	}()
	defer faultToError(debug.SetPanicOnFault(true), &err)
	from := slices.IndexFunc(old.lists, func(l ListInfo) bool { return l.Name == s.Name })
	if from < 0 {
		return rep, fmt.Errorf("list %q: the older index does not hold it", s.Name)
	}
	if b.broken != nil {
		return rep, b.broken
	}
	list, err := b.begin(s)
	if err != nil {
		return rep, err
	}
	rep.Rules, rep.Complex, rep.Rejected = old.lists[from].Rules, old.lists[from].Complex, old.lists[from].Rejected
	old.rules.copyRules(uint8(from), func(r *rule) {
		if reason := b.rules.add(r, list); reason != "" { // the index is fuller than the old one was
			rep.reject(0, r.text, reason)
			rep.Rules--
			rep.Complex--
		}
	})
	b.lists[list].Rules, b.lists[list].Complex, b.lists[list].Rejected = rep.Rules, rep.Complex, rep.Rejected
	if b.lists[list].Meta == "" {
		b.lists[list].Meta = old.lists[from].Meta
	}
	// The old entries are sorted already: they become one run.
	w := runWriter{w: bufio.NewWriterSize(b.scratch, 16<<10)}
	in := entryReader{r: bufio.NewReaderSize(io.NewSectionReader(old.names.file, 0, old.names.file.Size()), 16<<10)}
	for i := range old.names.count {
		if i%64 == 0 {
			b.opts.Breathe()
		}
		set, err := in.next()
		if err != nil {
			old.damage()
			return rep, fmt.Errorf("list %q in the older index after %d names: %w: %w", s.Name, i, ErrNotIndex, err)
		}
		for pairs := old.pairsOf(set); len(pairs) >= 2; pairs = pairs[2:] {
			if int(pairs[0]) == from {
				w.write(in.name, list, form(pairs[1]))
			}
		}
	}
	runtime.KeepAlive(old)
	return rep, b.endRun(&w)
}

func (b *Builder) begin(s Source) (list uint8, err error) {
	if len(b.lists) == MaxLists {
		return 0, fmt.Errorf("list %q is one too many: an index holds %d", s.Name, MaxLists)
	}
	for _, l := range b.lists {
		if l.Name == s.Name {
			return 0, fmt.Errorf("list %q is there twice", s.Name)
		}
	}
	b.lists = append(b.lists, ListInfo{Name: s.Name, Allow: s.Allow, Meta: s.Meta})
	return uint8(len(b.lists) - 1), nil
}

// record adds one rule to the piece that is sorted next.
func (b *Builder) record(n dnsname.Name, list uint8, f form) error {
	if b.arena == nil {
		b.arena = make([]byte, 0, b.opts.Buffer)
		b.offsets = make([]uint32, 0, b.opts.Buffer/16)
	}
	if len(b.arena)+len(n)+3 > cap(b.arena) || len(b.offsets) == cap(b.offsets) {
		if err := b.flush(); err != nil {
			return err
		}
	}
	if len(b.offsets)%32 == 0 {
		b.opts.Breathe()
	}
	b.offsets = append(b.offsets, uint32(len(b.arena)))
	b.arena = append(b.arena, byte(len(n)))
	for i := len(n) - 1; i >= 0; i-- {
		b.arena = append(b.arena, n[i])
	}
	b.arena = append(b.arena, list, byte(f))
	return nil
}

// SetMeta replaces the note of a list that was added: what its owner knows only
// when it has been read.
func (b *Builder) SetMeta(name, meta string) {
	for i := range b.lists {
		if b.lists[i].Name == name {
			b.lists[i].Meta = meta
		}
	}
}

// flush sorts what was recorded and appends it to the scratch file.
func (b *Builder) flush() error {
	if len(b.offsets) == 0 {
		return nil
	}
	name := func(off uint32) []byte { return b.arena[off+1:][:b.arena[off]] }
	tail := func(off uint32) []byte { return b.arena[off+1+uint32(b.arena[off]):][:2] }
	compared := 0
	slices.SortFunc(b.offsets, func(i, j uint32) int {
		if compared++; compared%512 == 0 {
			b.opts.Breathe()
		}
		if order := bytes.Compare(name(i), name(j)); order != 0 {
			return order
		}
		return bytes.Compare(tail(i), tail(j))
	})
	w := runWriter{w: bufio.NewWriterSize(b.scratch, 16<<10)}
	for _, off := range b.offsets {
		t := tail(off)
		w.write(name(off), t[0], form(t[1]))
	}
	b.arena, b.offsets = b.arena[:0], b.offsets[:0]
	return b.endRun(&w)
}

func (b *Builder) endRun(w *runWriter) error {
	if err := w.w.Flush(); err != nil {
		b.broken = fmt.Errorf("writing a sorted run of the lists: %w", err)
		return b.broken
	}
	b.runs = append(b.runs, run{off: b.end, len: w.n})
	b.end += w.n
	return nil
}

// Write merges all that was added and writes the index to dst, which must be empty.
func (b *Builder) Write(dst File) error {
	if b.broken != nil {
		return b.broken
	}
	b.arena, b.offsets = nil, nil // the merge needs the room
	w := &sectionWriter{w: bufio.NewWriterSize(dst, 64<<10)}
	if err := b.write(w, dst); err != nil {
		return fmt.Errorf("writing the list index: %w", err)
	}
	return nil
}

func (b *Builder) write(w *sectionWriter, dst File) error {
	w.put(appendHead(nil))

	w.begin(secNames)
	m, err := newMerge(b.scratch, b.runs)
	if err != nil {
		return err
	}
	names := nameWriter{w: w, sets: newSetTable(b.lists)}
	for m.next() {
		if names.count%64 == 0 {
			b.opts.Breathe()
		}
		names.entry(m.name, m.pairs)
	}
	if m.err != nil {
		return fmt.Errorf("reading the sorted runs: %w", m.err)
	}
	w.end(secNames)
	if w.n > 1<<32-1 {
		return fmt.Errorf("%d octets of names, 4 GiB is the most", w.n)
	}

	w.section(secBlocks, names.blocks)
	w.section(secSets, names.sets.masks)
	w.section(secPairs, names.sets.pairs)
	if err := w.flush(); err != nil {
		return err
	}
	filter, err := buildFilter(dst, w.foot.sections[secNames].off, w.foot.sections[secNames].len, &names, b.opts.Breathe)
	if err != nil {
		return err
	}
	w.section(secFilter, filter)
	keys, ruleFilter, windows := b.rules.sections()
	w.section(secRules, b.rules.records)
	w.section(secKeys, keys)
	w.section(secRuleFilter, ruleFilter)
	w.section(secWindows, windows)
	share(b.lists, names.sets, names.counts, b.rules)
	lists, err := json.Marshal(b.lists)
	if err != nil {
		return err
	}
	w.section(secLists, lists)

	w.foot.names = names.count
	foot := w.foot.append(nil)
	sumAt := len(foot) - len(magic) - 4
	w.put(foot[:sumAt])
	binary.BigEndian.PutUint32(foot[sumAt:], w.sum)
	w.put(foot[sumAt:])
	return w.flush()
}

// buildFilter reads the names back, now that their number is known.
func buildFilter(dst io.ReaderAt, off, length uint64, names *nameWriter, breathe func()) ([]byte, error) {
	filter := make([]byte, filterLen(names.keys))
	in := entryReader{r: bufio.NewReaderSize(io.NewSectionReader(dst, int64(off), int64(length)), 64<<10)}
	for i := range names.count {
		if i%64 == 0 {
			breathe()
		}
		set, err := in.next()
		if err != nil {
			return nil, fmt.Errorf("reading the names back: %w", err)
		}
		keys, n := filterKeys(in.name, names.sets.of(set))
		for _, k := range keys[:n] {
			filterAdd(filter, k)
		}
	}
	return filter, nil
}

// sectionWriter writes, sums and remembers where what is. Its first error sticks.
type sectionWriter struct {
	w    *bufio.Writer
	n    uint64
	sum  uint32
	foot foot
	err  error
}

func (w *sectionWriter) put(p []byte) {
	if w.err != nil {
		return
	}
	w.sum = crc32.Update(w.sum, castagnoli, p)
	w.n += uint64(len(p))
	_, w.err = w.w.Write(p)
}

func (w *sectionWriter) begin(i int) { w.foot.sections[i].off = w.n }
func (w *sectionWriter) end(i int)   { w.foot.sections[i].len = w.n - w.foot.sections[i].off }

func (w *sectionWriter) section(i int, p []byte) {
	w.begin(i)
	w.put(p)
	w.end(i)
}

func (w *sectionWriter) flush() error {
	if w.err == nil {
		w.err = w.w.Flush()
	}
	return w.err
}

// nameWriter writes merged entries as blocks.
type nameWriter struct {
	w      *sectionWriter
	sets   *setTable
	blocks []byte
	last   []byte
	line   []byte
	count  uint64
	counts []uint64 // of names, by set
	keys   uint64   // that the filter will hold
	start  uint64
}

func (n *nameWriter) entry(name []byte, pairs []byte) {
	if n.count == 0 {
		n.start = n.w.n
	}
	if n.count%blockNames == 0 {
		n.blocks = binary.BigEndian.AppendUint32(n.blocks, uint32(n.w.n-n.start))
		n.last = n.last[:0]
	}
	set := n.sets.number(pairs)
	if set == len(n.counts) {
		n.counts = append(n.counts, 0)
	}
	n.counts[set]++
	shared := commonPrefix(n.last, name)
	n.line = append(n.line[:0], byte(shared), byte(len(name)-shared))
	n.line = append(n.line, name[shared:]...)
	n.line = binary.AppendUvarint(n.line, uint64(set))
	n.w.put(n.line)
	n.last = append(n.last[:0], name...)
	n.count++
	_, keys := filterKeys(nil, n.sets.of(set))
	n.keys += uint64(keys)
}

// setTable numbers the distinct combinations of rules.
type setTable struct {
	lists   []ListInfo
	numbers map[string]int // only while compiling
	masks   []byte
	pairs   []byte
	decoded []masks
}

func newSetTable(lists []ListInfo) *setTable {
	return &setTable{lists: lists, numbers: map[string]int{}}
}

func (t *setTable) of(set int) masks { return t.decoded[set] }

func (t *setTable) number(pairs []byte) int {
	if n, ok := t.numbers[string(pairs)]; ok {
		return n
	}
	var m masks
	for p := pairs; len(p) >= 2; p = p[2:] {
		s := form(p[1]).shape()
		s.allow = s.allow || t.lists[p[0]].Allow
		m.add(p[0], s)
	}
	t.masks = m.append(t.masks)
	t.masks = binary.BigEndian.AppendUint32(t.masks, uint32(len(t.pairs)))
	t.pairs = binary.AppendUvarint(t.pairs, uint64(len(pairs)/2))
	t.pairs = append(t.pairs, pairs...)
	n := len(t.decoded)
	t.decoded = append(t.decoded, m)
	t.numbers[string(pairs)] = n
	return n
}

func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	for i := 0; i < n; i++ {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
