package blocklist

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// What the rules that need more than a name may cost one index. A rule beyond a
// cap is rejected with the reason, as any line that is not understood.
const (
	maxRules     = 50_000
	maxRuleBytes = 6 << 20 // of records
	maxAtKey     = 128     // that are looked at for one name or one piece of text
	maxEverywhen = 256     // that are looked at for every name
)

// Rules are found by a key that every name which they match leads to: a name at
// or above it, or else four octets in a row that it holds, or else one key that
// stands for every name.
const (
	windowLen  = 4
	windowBits = 1 << 16 // of the map of windows that occur at all

	saltRules   = 0xd6e8feb86659fd93 // keys of names
	saltWindows = 0xa0761d6478bd642f // keys of windows
	everyKey    = 0
)

// keyLen is an entry of the keys section: hash and offset of a record, uint32 each, sorted.
const keyLen = 8

// ruleKey says where a rule is looked for.
type ruleKey struct {
	hash   uint64
	window uint32 // the octets, when it is a window
	kind   keyKind
}

type keyKind uint8

const (
	keyEvery keyKind = iota
	keyName
	keyWindow
)

// ruleSet collects the rules of all lists while compiling.
type ruleSet struct {
	records []byte
	entries []ruleEntry
	atKey   map[uint64]int
	seen    map[uint64]struct{}
	regexps int
	steps   int // of the regular expressions that are tried on every name
}

type ruleEntry struct {
	key ruleKey
	off uint32
	tag uint64 // of seen
	re  bool
	// steps of a regular expression that is tried on every name
	steps int
}

func newRuleSet() *ruleSet {
	return &ruleSet{atKey: map[uint64]int{}, seen: map[uint64]struct{}{}}
}

// add takes a rule in, or gives the reason why not. A rule that the list holds
// already counts once.
func (s *ruleSet) add(r *rule, list uint8) (reason string) {
	r.text = cutText(r.text)
	tag := hashMix(r.identity() ^ uint64(list)<<8 ^ uint64(bit(r.bad)) ^ saltBelow)
	if _, ok := s.seen[tag]; ok {
		return ""
	}
	key := s.keyOf(r.pattern)
	limit := maxAtKey
	if key.kind == keyEvery {
		limit = maxEverywhen
	}
	e := ruleEntry{key: key, off: uint32(len(s.records)), tag: tag, re: r.kind == regexpName}
	if e.re && key.kind == keyEvery {
		e.steps = stepsOf(r.pattern.text)
	}
	switch {
	case s.steps+e.steps > maxEverySteps:
		return "too many regular expressions that every name would have to be tried on"
	case len(s.entries) >= maxRules:
		return fmt.Sprintf("more than %d rules that are not just names", maxRules)
	case len(s.records) >= maxRuleBytes:
		return fmt.Sprintf("more than %d octets of rules that are not just names", maxRuleBytes)
	case r.kind == regexpName && s.regexps >= maxRegexps:
		return fmt.Sprintf("more than %d regular expressions", maxRegexps)
	case s.atKey[key.hash] >= limit && key.kind == keyEvery:
		return fmt.Sprintf("more than %d rules that every name would have to be tried on", limit)
	case s.atKey[key.hash] >= limit:
		return fmt.Sprintf("more than %d rules that the same names would have to be tried on", limit)
	}
	s.records = r.append(s.records, list)
	s.count(e, 1)
	s.entries = append(s.entries, e)
	return ""
}

// maxRuleText is how much of a rule is shown: it goes into answers and ledgers.
const maxRuleText = 300

func cutText(s string) string {
	if len(s) <= maxRuleText {
		return s
	}
	return strings.ToValidUTF8(s[:maxRuleText-len("…")], "") + "…"
}

func (s *ruleSet) count(e ruleEntry, by int) {
	s.atKey[e.key.hash] += by
	s.regexps += int(bit(e.re)) * by
	s.steps += e.steps * by
	if by > 0 {
		s.seen[e.tag] = struct{}{}
	} else {
		delete(s.seen, e.tag)
	}
}

// forget takes back all but the first n rules.
func (s *ruleSet) forget(n int) {
	if n == len(s.entries) {
		return
	}
	for _, e := range s.entries[n:] {
		s.count(e, -1)
	}
	s.records = s.records[:s.entries[n].off]
	s.entries = s.entries[:n]
}

// keyOf chooses where rules of p are looked for.
func (s *ruleSet) keyOf(p pattern) ruleKey {
	switch p.kind {
	case exactName, belowName, subtreeName:
		return nameKey(p.text)
	case wildName:
		parts := strings.Split(p.text, "*")
		zone := ""
		if p.end {
			last := parts[len(parts)-1]
			if len(parts) == 1 && p.start != anywhere {
				last = "." + last // it begins at a label
			}
			_, zone, _ = strings.Cut(last, ".")
		}
		if strings.Contains(zone, ".") {
			return nameKey(zone)
		}
		if k, ok := s.windowKey(parts...); ok {
			return k
		}
		if zone != "" {
			return nameKey(zone)
		}
	case regexpName:
		if k, ok := s.windowKey(literalIn(p.text)); ok {
			return k
		}
	}
	return ruleKey{hash: everyKey}
}

func nameKey(name string) ruleKey {
	h := uint64(hashStart)
	for i := len(name) - 1; i >= 0; i-- {
		h = hashStep(h, name[i])
	}
	return ruleKey{hash: hashMix(h ^ saltRules), kind: keyName}
}

// windowKey chooses, of all windows of the texts, the one with the fewest rules.
func (s *ruleSet) windowKey(texts ...string) (best ruleKey, ok bool) {
	fewest := 0
	for _, t := range texts {
		for i := 0; i+windowLen <= len(t); i++ {
			w := windowOf(t[i : i+windowLen])
			k := ruleKey{hash: windowHash(w), window: w, kind: keyWindow}
			n := s.atKey[k.hash]
			if isCommon(t[i : i+windowLen]) {
				n += maxAtKey
			}
			if !ok || n < fewest {
				best, fewest, ok = k, n, true
			}
		}
	}
	return best, ok
}

// isCommon reports windows that so many names hold that little is won by them.
func isCommon(w string) bool {
	switch w {
	case "www.", ".com", ".net", ".org", "com.", "net.", "org.", "api.", "app.", "host", "serv", "goog", "ogle":
		return true
	}
	return false
}

func windowOf[T ~string | ~[]byte](s T) uint32 {
	return uint32(s[0])<<24 | uint32(s[1])<<16 | uint32(s[2])<<8 | uint32(s[3])
}

func windowHash(w uint32) uint64 { return hashMix(uint64(w) ^ saltWindows) }

// windowBit is the place of a window in the map: a multiplication, for it is
// asked at every octet of every name.
func windowBit(w uint32) uint32 { return w * 0x9e3779b1 >> 16 }

// sections are the keys, the filter of names and the map of windows.
func (s *ruleSet) sections() (keys, filter, windows []byte) {
	slices.SortFunc(s.entries, func(a, b ruleEntry) int {
		if d := int64(uint32(a.key.hash)) - int64(uint32(b.key.hash)); d != 0 {
			return int(min(max(d, -1), 1))
		}
		return int(int64(a.off) - int64(b.off))
	})
	names := uint64(0)
	for _, e := range s.entries {
		keys = binary.BigEndian.AppendUint32(keys, uint32(e.key.hash))
		keys = binary.BigEndian.AppendUint32(keys, e.off)
		if e.key.kind == keyName {
			names++
		}
	}
	if names > 0 {
		filter = make([]byte, filterLen(names))
	}
	for _, e := range s.entries {
		switch e.key.kind {
		case keyName:
			filterAdd(filter, e.key.hash)
		case keyWindow:
			if windows == nil {
				windows = make([]byte, windowBits/8)
			}
			b := windowBit(e.key.window)
			windows[b>>3] |= 1 << (b & 7)
		}
	}
	return keys, filter, windows
}

// ruleIndex is the rules of an open index.
type ruleIndex struct {
	records, keys, filter, windows []byte

	lists   uint64 // that hold at least one
	every   bool   // there are some that are tried on every name
	regexps map[int]*regexp.Regexp
}

// open checks every record and compiles the regular expressions.
func (x *ruleIndex) open() error {
	if len(x.keys)%keyLen != 0 || len(x.filter)%filterBlock != 0 || len(x.windows) != 0 && len(x.windows) != windowBits/8 {
		return fmt.Errorf("%w: a section of odd length", ErrNotIndex)
	}
	x.regexps = map[int]*regexp.Regexp{}
	for off, n := 0, 0; off < len(x.records); n++ {
		r, next, ok := recordAt(x.records, off)
		if !ok || r.list >= MaxLists || n >= maxRules {
			return fmt.Errorf("%w: rule %d", ErrNotIndex, n)
		}
		if r.kind == regexpName {
			re, reason := compileRegexp(string(r.pattern))
			if reason != "" || len(x.regexps) >= maxRegexps {
				return fmt.Errorf("%w: rule %d: %s", ErrNotIndex, n, reason)
			}
			x.regexps[off] = re
		}
		x.lists |= 1 << r.list
		off = next
	}
	_, x.every = x.at(uint32(everyKey))
	return nil
}

// at finds the first key with hash.
func (x *ruleIndex) at(hash uint32) (i int, ok bool) {
	n := len(x.keys) / keyLen
	lo, hi := 0, n
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if x.hash(mid) < hash {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < n && x.hash(lo) == hash
}

func (x *ruleIndex) hash(i int) uint32 { return binary.BigEndian.Uint32(x.keys[i*keyLen:]) }

// gather adds the rules that speak to q. Without found it stops at the first,
// and costs little when there is none. It reports whether it added or met one.
func (x *ruleIndex) gather(q *Question, mask uint64, found *findings) (any bool) {
	if x.every {
		any = x.try(everyKey, q, mask, found)
	}
	if name := q.Name; len(x.filter) > 0 && (!any || found != nil) {
		h := uint64(hashStart)
		for i := len(name) - 1; i >= 0; i-- {
			h = hashStep(h, name[i])
			if i > 0 && name[i-1] != '.' {
				continue
			}
			if key := hashMix(h ^ saltRules); filterHas(x.filter, key) && x.try(key, q, mask, found) {
				if any = true; found == nil {
					return true
				}
			}
		}
	}
	if len(x.windows) == windowBits/8 && (!any || found != nil) {
		any = x.gatherWindows(q, mask, found) || any
	}
	return any
}

// hasWindow reports whether name holds four octets in a row that some rule is found by.
func (x *ruleIndex) hasWindow(name dnsname.Name) bool {
	if len(x.windows) != windowBits/8 || len(name) < windowLen {
		return false
	}
	windows := (*[windowBits / 8]byte)(x.windows)
	w := windowOf(name) >> 8
	for i := windowLen - 1; i < len(name); i++ {
		w = w<<8 | uint32(name[i])
		if b := windowBit(w); windows[b>>3]>>(b&7)&1 != 0 {
			return true
		}
	}
	return false
}

// gatherWindows is gather for every four octets in a row.
func (x *ruleIndex) gatherWindows(q *Question, mask uint64, found *findings) (any bool) {
	windows, name, w := x.windows, q.Name, uint32(0)
	for i := 0; i < len(name); i++ {
		w = w<<8 | uint32(name[i])
		b := windowBit(w)
		if windows[b>>3]&(1<<(b&7)) == 0 || i < windowLen-1 {
			continue
		}
		if x.try(windowHash(w), q, mask, found) {
			if any = true; found == nil {
				return true
			}
		}
	}
	return any
}

// try is gather for the rules under one key.
func (x *ruleIndex) try(hash uint64, q *Question, mask uint64, found *findings) (any bool) {
	i, ok := x.at(uint32(hash))
	if !ok {
		return false
	}
	for n := 0; i < len(x.keys)/keyLen && x.hash(i) == uint32(hash) && n < maxEverywhen+maxAtKey; i, n = i+1, n+1 {
		off := int(binary.BigEndian.Uint32(x.keys[i*keyLen+4:]))
		r, _, ok := recordAt(x.records, off)
		if !ok || mask>>r.list&1 == 0 {
			continue
		}
		if r.kind == regexpName {
			if re := x.regexps[off]; re == nil || !re.MatchString(string(q.Name)) {
				continue
			}
		} else if !r.covers(q.Name) {
			continue
		}
		if r.speaks(q) {
			if any = true; found == nil {
				return true
			}
			found.addRecord(&r, off, q.Name)
		}
	}
	return any
}

// copyRules hands each record of a list to take, decoded.
func (x *ruleIndex) copyRules(list uint8, take func(*rule)) {
	for off := 0; off < len(x.records); {
		r, next, ok := recordAt(x.records, off)
		if !ok {
			return
		}
		if r.list == list {
			take(r.decode())
		}
		off = next
	}
}

// decode turns a record into the rule that it was.
func (r *record) decode() *rule {
	out := &rule{
		pattern: pattern{kind: r.kind, text: string(r.pattern), start: r.start, end: r.end},
		allow:   r.flags&flagAllow != 0, important: r.flags&flagImportant != 0, bad: r.flags&flagBad != 0, zone: r.flags&flagZone != 0,
		rewrite: r.rewrite,
	}
	d := r.rest
	for n := d.number(); n > 0 && !d.bad; n-- {
		not := d.octet() != 0
		out.types = append(out.types, typeItem{not, uint16(d.octet())<<8 | uint16(d.octet())})
	}
	for n := d.number(); n > 0 && !d.bad; n-- {
		not, kind := d.octet() != 0, clientKind(d.octet())
		out.clients = append(out.clients, clientItem{not, kind, string(d.text())})
	}
	for n := d.number(); n > 0 && !d.bad; n-- {
		not := d.octet() != 0
		out.tags = append(out.tags, textItem{not, string(d.text())})
	}
	for n := d.number(); n > 0 && !d.bad; n-- {
		out.deny = append(out.deny, dnsname.Name(bytes.Clone(d.text())))
	}
	out.answer = Answer{string(d.text()), string(d.text())}
	out.text = string(d.text())
	return out
}
