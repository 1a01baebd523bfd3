package blocklist

import (
	"encoding/binary"
	"slices"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// The rules section holds what needs more words than a form and a name, one
// record behind the other, in the order in which lists were added:
//
//	length of the rest (uvarint), list, flags, kind, start, end, rewrite, weight (one octet each),
//	identity (8), pattern, types, clients, tags, denyallow, answer's type, answer, text
//
// A text is its length (uvarint) and its octets; a list is its length and its items.

const (
	flagAllow     = 1 << iota // @@
	flagImportant             // $important
	flagBad                   // $badfilter
	flagZone                  // yields to what its list says of a longer name
)

// identity is equal for equal rules, whichever of them has $badfilter.
func (r *rule) identity() uint64 {
	b := make([]byte, 0, 128)
	b = append(b, r.flags()&^flagBad, byte(r.kind), byte(r.start), bit(r.end), byte(r.rewrite))
	b = append(b, r.pattern.text...)
	sorted := *r
	sorted.types = slices.Clone(r.types)
	sorted.clients = slices.Clone(r.clients)
	sorted.tags = slices.Clone(r.tags)
	sorted.deny = slices.Clone(r.deny)
	slices.SortFunc(sorted.types, func(a, b typeItem) int { return int(a.kind) - int(b.kind) })
	slices.SortFunc(sorted.clients, func(a, b clientItem) int { return compareStrings(a.text, b.text) })
	slices.SortFunc(sorted.tags, func(a, b textItem) int { return compareStrings(a.text, b.text) })
	slices.Sort(sorted.deny)
	if len(r.types)+len(r.clients)+len(r.tags)+len(r.deny) > 0 || r.rewrite != noRewrite {
		b = sorted.appendModifiers(b)
	}
	return hashOf(b)
}

func compareStrings(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// identityOf is the identity of a rule that form and name say all of; 0 for
// lines that are no adblock-style rules, which $badfilter cannot cancel.
func identityOf[T ~string | ~[]byte](f form, name T) uint64 {
	var kind patternKind
	switch f {
	case formExact, formAllowExact:
		kind = exactName
	case formBelow, formAllowBelow:
		kind = belowName
	case formSubtree, formAllow:
		kind = subtreeName
	default:
		return 0
	}
	h := uint64(hashStart)
	h = hashStep(h, bit(f.shape().allow)*flagAllow)
	h = hashStep(h, byte(kind))
	for range 3 {
		h = hashStep(h, 0)
	}
	for i := 0; i < len(name); i++ {
		h = hashStep(h, name[i])
	}
	return hashMix(h)
}

func hashOf[T ~string | ~[]byte](b T) uint64 {
	h := uint64(hashStart)
	for i := 0; i < len(b); i++ {
		h = hashStep(h, b[i])
	}
	return hashMix(h)
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func (r *rule) flags() (f byte) {
	f = bit(r.allow) * flagAllow
	f |= bit(r.important) * flagImportant
	f |= bit(r.zone) * flagZone
	return f | bit(r.bad)*flagBad
}

func (r *rule) append(b []byte, list uint8) []byte {
	body := []byte{list, r.flags(), byte(r.kind), byte(r.start), bit(r.end), byte(r.rewrite), r.weight()}
	body = binary.BigEndian.AppendUint64(body, r.identity())
	body = appendText(body, r.pattern.text)
	body = r.appendModifiers(body)
	body = appendText(body, r.text)
	return append(binary.AppendUvarint(b, uint64(len(body))), body...)
}

func (r *rule) appendModifiers(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(r.types)))
	for _, t := range r.types {
		b = append(b, bit(t.not))
		b = binary.BigEndian.AppendUint16(b, t.kind)
	}
	b = binary.AppendUvarint(b, uint64(len(r.clients)))
	for _, c := range r.clients {
		b = appendText(append(b, bit(c.not), byte(c.kind)), c.text)
	}
	b = binary.AppendUvarint(b, uint64(len(r.tags)))
	for _, t := range r.tags {
		b = appendText(append(b, bit(t.not)), t.text)
	}
	b = binary.AppendUvarint(b, uint64(len(r.deny)))
	for _, n := range r.deny {
		b = appendText(b, string(n))
	}
	return appendText(appendText(b, r.answer.Type), r.answer.Value)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// record reads one rule in place. Every access is checked: damage makes it bad,
// and a bad record matches nothing.
type record struct {
	list     uint8
	flags    byte
	kind     patternKind
	start    startKind
	end      bool
	rewrite  rewriteKind
	weight   uint8
	identity uint64
	pattern  []byte
	rest     decoder // from the types on
}

// decoder reads fields from octets; after the first that does not fit it is bad.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) octet() byte {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) number() int {
	n, w := binary.Uvarint(d.b)
	if w <= 0 || n > 1<<24 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[w:]
	return int(n)
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.bad, d.b = true, nil
		return nil
	}
	t := d.b[:n:n]
	d.b = d.b[n:]
	return t
}

func (d *decoder) text() []byte { return d.take(d.number()) }

// recordAt reads the record at off of section, and where the next one begins.
func recordAt(section []byte, off int) (r record, next int, ok bool) {
	if off < 0 || off >= len(section) {
		return r, 0, false
	}
	d := decoder{b: section[off:]}
	body := decoder{b: d.text()}
	if d.bad {
		return r, 0, false
	}
	next = len(section) - len(d.b)
	r.list, r.flags = body.octet(), body.octet()
	r.kind, r.start, r.end = patternKind(body.octet()), startKind(body.octet()), body.octet() != 0
	r.rewrite, r.weight = rewriteKind(body.octet()), body.octet()
	if id := body.take(8); id != nil {
		r.identity = binary.BigEndian.Uint64(id)
	}
	r.pattern = body.text()
	r.rest = body
	return r, next, !body.bad && r.kind < patternKinds && r.start < startKinds && r.rewrite < rewriteKinds
}

// covers reports whether the pattern is about name; regular expressions are asked elsewhere.
func (r *record) covers(name dnsname.Name) bool {
	n, p := string(name), r.pattern
	switch r.kind {
	case anyName:
		return true
	case exactName:
		return n == string(p)
	case belowName:
		return len(n) > len(p)+1 && n[len(n)-len(p):] == string(p) && n[len(n)-len(p)-1] == '.'
	case subtreeName:
		return len(n) >= len(p) && n[len(n)-len(p):] == string(p) && (len(n) == len(p) || n[len(n)-len(p)-1] == '.')
	case wildName:
		return wildMatch(r.start, p, r.end, n)
	}
	return false
}

// speaks reports whether the modifiers let the rule speak to q.
func (r *record) speaks(q *Question) bool {
	d := r.rest
	return d.types(q.Type) && d.clients(q) && d.tags(q.ClientTags) && d.allowed(q.Name) && !d.bad
}

// typed reports whether the rule has $dnstype.
func (r *record) typed() bool { return len(r.rest.b) > 0 && r.rest.b[0] != 0 }

// A modifier's items are of two kinds: of those with ~ none may fit, and of the
// others, when there are any, one must.
type chosen struct{ fits, some, out bool }

func (c *chosen) add(not, fits bool) {
	switch {
	case not:
		c.out = c.out || fits
	default:
		c.some = true
		c.fits = c.fits || fits
	}
}

func (c *chosen) ok() bool { return !c.out && (c.fits || !c.some) }

func (d *decoder) types(asked uint16) bool {
	var c chosen
	for n := d.number(); n > 0 && !d.bad; n-- {
		not := d.octet() != 0
		kind := uint16(d.octet())<<8 | uint16(d.octet())
		c.add(not, kind == asked)
	}
	return c.ok()
}

func (d *decoder) clients(q *Question) bool {
	var c chosen
	for n := d.number(); n > 0 && !d.bad; n-- {
		not, kind := d.octet() != 0, clientKind(d.octet())
		c.add(not, isClient(kind, d.text(), q))
	}
	return c.ok()
}

func isClient(kind clientKind, text []byte, q *Question) bool {
	switch kind {
	case clientPrefix:
		if len(text) != 17 || !q.ClientAddr.IsValid() {
			return false
		}
		// Both as IPv6, where IPv4 has its mapped form: "::/0" is no IPv4 address.
		if q.ClientAddr.Unmap().Is4() && text[16] < 96 {
			return false
		}
		return samePrefix([16]byte(text), q.ClientAddr.As16(), int(text[16]))
	case clientMAC:
		return len(text) == 6 && q.ClientMAC != [6]byte{} && string(q.ClientMAC[:]) == string(text)
	case clientName:
		return q.ClientName != "" && q.ClientName == string(text)
	}
	return false
}

// samePrefix compares the first bits of a and b.
func samePrefix(a, b [16]byte, bits int) bool {
	for i := 0; i < 16 && bits > 0; i, bits = i+1, bits-8 {
		mask := byte(0xff)
		if bits < 8 {
			mask <<= 8 - bits
		}
		if (a[i]^b[i])&mask != 0 {
			return false
		}
	}
	return true
}

func (d *decoder) tags(have []string) bool {
	var c chosen
	for n := d.number(); n > 0 && !d.bad; n-- {
		not := d.octet() != 0
		text := d.text()
		fits := false
		for _, t := range have {
			fits = fits || t == string(text)
		}
		c.add(not, fits)
	}
	return c.ok()
}

// allowed reports whether name is not one of $denyallow. A rule with such names
// speaks of names only: an address belongs to none of them and to all.
func (d *decoder) allowed(name dnsname.Name) bool {
	ok := true
	for n := d.number(); n > 0 && !d.bad; n-- {
		ok = ok && !isAddressLike(name)
		r := record{kind: subtreeName, pattern: d.text()}
		ok = ok && !r.covers(name)
	}
	return ok
}

// answer is what the rule answers with; text is the rule as it was written.
func (r *record) answer() (kind, value, text []byte) {
	d := r.rest
	for n := d.number(); n > 0 && !d.bad; n-- { // types
		d.take(3)
	}
	for n := d.number(); n > 0 && !d.bad; n-- { // clients
		d.take(2)
		d.text()
	}
	for n := d.number(); n > 0 && !d.bad; n-- { // tags
		d.take(1)
		d.text()
	}
	for n := d.number(); n > 0 && !d.bad; n-- { // denyallow
		d.text()
	}
	kind, value, text = d.text(), d.text(), d.text()
	if d.bad {
		return nil, nil, nil
	}
	return kind, value, text
}
