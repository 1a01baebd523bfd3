package blocklist

import (
	"strings"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// form is how a rule that is but a name was written. It decides what the rule
// covers, and lets the text be recovered from the name alone. Values are part of
// the file format: more may come behind, and a program passes over those that it
// does not know.
type form uint8

const (
	formPlain          form = iota // x
	formHosts                      // 0.0.0.0 x
	formHosts127                   // 127.0.0.1 x
	formHosts6                     // :: x
	formHosts6One                  // ::1 x
	formBelow                      // *.x
	formSubtree                    // ||x^
	formAllow                      // @@||x^
	formAllowBelow                 // @@*.x, @@||*.x^
	formExact                      // |x^
	formAllowExact                 // @@|x^
	formZoneAllow                  // server=/x/#
	formZoneAllowExact             // x CNAME rpz-passthru.
	formZoneAllowBelow             // *.x CNAME rpz-passthru.
	formCount
)

// shape is what a form means.
type shape struct {
	before, after string // the rule's text around its name
	self, below   bool   // what it covers
	allow         bool
	hosts         string // the address that it gives; such a rule yields to all others
	zone          bool   // it yields to what its list says of a longer name
}

func (f form) shape() shape {
	switch f {
	case formPlain:
		return shape{self: true, hosts: "0.0.0.0"}
	case formHosts:
		return shape{before: "0.0.0.0 ", self: true, hosts: "0.0.0.0"}
	case formHosts127:
		return shape{before: "127.0.0.1 ", self: true, hosts: "127.0.0.1"}
	case formHosts6:
		return shape{before: ":: ", self: true, hosts: "::"}
	case formHosts6One:
		return shape{before: "::1 ", self: true, hosts: "::1"}
	case formBelow:
		return shape{before: "*.", below: true}
	case formSubtree:
		return shape{before: "||", after: "^", self: true, below: true}
	case formAllow:
		return shape{before: "@@||", after: "^", self: true, below: true, allow: true}
	case formAllowBelow:
		return shape{before: "@@||*.", after: "^", below: true, allow: true}
	case formExact:
		return shape{before: "|", after: "^", self: true}
	case formAllowExact:
		return shape{before: "@@|", after: "^", self: true, allow: true}
	case formZoneAllow:
		return shape{before: "server=/", after: "/#", self: true, below: true, allow: true, zone: true}
	case formZoneAllowExact:
		return shape{after: " CNAME rpz-passthru.", self: true, allow: true, zone: true}
	case formZoneAllowBelow:
		return shape{before: "*.", after: " CNAME rpz-passthru.", below: true, allow: true, zone: true}
	}
	return shape{}
}

// parsed is one rule of a line: a form with its name, which the index of names
// holds, or whatever needs more words, which the rules section holds.
type parsed struct {
	form form
	name dnsname.Name
	more *rule // nil when form and name say all
}

// pattern says which names a rule is about.
type pattern struct {
	kind  patternKind
	text  string // a name; for wild the octets between the anchors; for a regular expression its source
	start startKind
	end   bool // of wild: the name ends where the text does
}

// patternKind and startKind are part of the file format.
type patternKind uint8

const (
	anyName     patternKind = iota
	exactName               // text alone
	belowName               // all below text
	subtreeName             // both
	wildName                // text with * for any octets
	regexpName              // RE2
	patternKinds
)

type startKind uint8

const (
	anywhere   startKind = iota
	labelStart           // at the beginning, or behind a dot
	nameStart            // at the beginning
	startKinds
)

// rule is one that needs more than a name.
type rule struct {
	pattern
	allow     bool // @@
	important bool
	bad       bool // cancels the equal rule without $badfilter
	zone      bool // of dnsmasq or a policy zone: yields to what its list says of a longer name
	types     []typeItem
	clients   []clientItem
	tags      []textItem
	deny      []dnsname.Name // $denyallow: not these and what is below them
	rewrite   rewriteKind
	answer    Answer // of rewrite
	text      string // as somebody wrote it
}

// rewriteKind is part of the file format.
type rewriteKind uint8

const (
	noRewrite  rewriteKind = iota
	rewriteOne             // answers with answer; in an exception: takes that answer away
	rewriteAll             // only in exceptions: takes every answer away
	hostsLine              // answers with answer when nothing else matches
	rewriteKinds
)

type typeItem struct {
	not  bool
	kind uint16
}

type textItem struct {
	not  bool
	text string
}

// clientItem is one of $client: a prefix (an address is a long one), a hardware
// address, or a name.
type clientItem struct {
	not  bool
	kind clientKind
	text string // 16 octets and the prefix length of 128, or 6 octets, or the name
}

// clientKind is part of the file format.
type clientKind uint8

const (
	clientPrefix clientKind = iota
	clientMAC
	clientName
	clientKinds
)

// simple gives r as a form and a name when these say all of it.
func (r *rule) simple() (form, dnsname.Name, bool) {
	if r.important || r.bad || r.rewrite != noRewrite ||
		len(r.types)+len(r.clients)+len(r.tags)+len(r.deny) > 0 {
		return 0, "", false
	}
	n := dnsname.Name(r.pattern.text)
	switch {
	case r.zone && r.allow && r.kind == exactName:
		return formZoneAllowExact, n, true
	case r.zone && r.allow && r.kind == belowName:
		return formZoneAllowBelow, n, true
	case r.zone && r.allow && r.kind == subtreeName:
		return formZoneAllow, n, true
	}
	switch r.kind {
	case exactName:
		return pick(r.allow, formAllowExact, formExact), n, true
	case belowName:
		return pick(r.allow, formAllowBelow, formBelow), n, true
	case subtreeName:
		return pick(r.allow, formAllow, formSubtree), n, true
	}
	return 0, "", false
}

func pick(cond bool, yes, no form) form {
	if cond {
		return yes
	}
	return no
}

// weight is how particular a rule is: of two that speak, the more particular one does.
func (r *rule) weight() (n uint8) {
	for _, has := range []bool{r.important, len(r.types) > 0, len(r.clients) > 0, len(r.tags) > 0, len(r.deny) > 0, r.rewrite == rewriteOne || r.rewrite == rewriteAll} {
		if has {
			n++
		}
	}
	return n
}

const pageReason = "an address of a page, not a name"

// parseName reads s as a name that can be looked up.
func parseName(s string) (n dnsname.Name, reason string) {
	switch {
	case strings.Contains(s, "/"):
		return "", pageReason
	case strings.Contains(s, "*"):
		return "", "a * inside a name"
	}
	n, err := dnsname.Parse(s)
	if err != nil {
		return "", err.Error()
	}
	if n == "" {
		return "", "a rule without a name"
	}
	for i := 0; i < len(n); i++ {
		if !isNameOctet(n[i]) {
			return "", "a character that no name has"
		}
	}
	return n, ""
}

func isNameOctet(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
}

// isAddressLike reports whether n is digits and dots only.
func isAddressLike(n dnsname.Name) bool {
	for i := 0; i < len(n); i++ {
		if n[i] != '.' && (n[i] < '0' || n[i] > '9') {
			return false
		}
	}
	return true
}
