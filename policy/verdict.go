package policy

import (
	"net/netip"
	"slices"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy/blocklist"
)

// Layer is where in the house the question is asked.
type Layer uint8

const (
	LayerDNS    Layer = iota + 1 // a question, before anything was looked up
	LayerAnswer                  // a name or address inside an answer (cloaking, rebinding)
	LayerTLS                     // a guarded connection's ClientHello
	LayerHTTP                    // a guarded connection's request
	LayerFlow                    // a flow as observed
)

// String is the word that pages and JSON use.
func (l Layer) String() string {
	switch l {
	case LayerDNS:
		return "dns"
	case LayerAnswer:
		return "answer"
	case LayerTLS:
		return "tls"
	case LayerHTTP:
		return "http"
	case LayerFlow:
		return "flow"
	}
	return ""
}

// Query is everything that a decision may depend on.
type Query struct {
	Layer  Layer
	Now    time.Time // for rules with an end
	Device devices.ID
	Kind   devices.Kind
	Mode   devices.Mode // how this device is treated; ModeUnset is ModeProtect
	Name   dnsname.Name // "" when only an address is known
	// Asked is LayerAnswer's question, where Name is a CNAME target or the owner
	// of Addr: what the household allowed by the name that it knows stays allowed
	// whatever stands behind it.
	Asked dnsname.Name
	Type  uint16     // DNS type; 0 elsewhere
	Addr  netip.Addr // destination, or the address in an answer
	Port  uint16
	// Path is LayerHTTP's: the request's method and path class, as PathClass gives
	// it. Rules with a path speak at that layer only.
	Path string
	// Hello is why a guarded connection's Name is not the client's own word.
	Hello Hello

	// Who asks, for lists that have rules for certain devices ($client, $ctag).
	// What is unknown stays zero. Kind gives a tag too, see docs/lists.md.
	ClientAddr netip.Addr
	ClientMAC  devices.MAC
	ClientName string
}

// Action is what to do.
type Action uint8

const (
	Undecided Action = iota // no rule speaks: the taker lets it pass
	Allow
	Block
	// Rewrite answers a question with what a list says, Verdict.Rewrite. It is
	// given at LayerDNS only, and only for lists of Config.Rewriters.
	Rewrite
)

// String is the word that pages and JSON use.
func (a Action) String() string {
	switch a {
	case Allow:
		return "allow"
	case Block:
		return "block"
	case Rewrite:
		return "rewrite"
	}
	return "none"
}

// Reason is why.
type Reason uint8

const (
	ReasonNone        Reason = iota
	ReasonRule               // the household's own rule
	ReasonList               // a blocklist or allowlist
	ReasonMode               // the device's mode (local: no internet)
	ReasonSideDoor           // encrypted resolver, canary, DDR
	ReasonRebinding          // a public name with a private address
	ReasonCloaking           // a CNAME behind an innocent name
	ReasonSwitchedOff        // the household switched everything off
	ReasonUnread             // the name could not be read; see HelloRule
)

// String is the word that JSON uses.
func (r Reason) String() string {
	switch r {
	case ReasonRule:
		return "rule"
	case ReasonList:
		return "list"
	case ReasonMode:
		return "mode"
	case ReasonSideDoor:
		return "side-door"
	case ReasonRebinding:
		return "rebinding"
	case ReasonCloaking:
		return "cloaking"
	case ReasonSwitchedOff:
		return "switched-off"
	case ReasonUnread:
		return "unread"
	}
	return ""
}

// Verdict is a decision. Only this package makes one.
type Verdict struct {
	Action Action
	Reason Reason
	Rule   string // the rule as somebody wrote it
	List   string // the list that holds it; "household" for own rules
	// Noted says that the device is only watched: Action is Allow, though it
	// would have been Block.
	Noted bool
	// Rewrite is set when Action is Rewrite, and at LayerDNS when a blocking rule
	// wants another answer than the household's usual one. It is never changed.
	Rewrite *Answers
}

// Answers are what a question is answered with instead of being asked: records
// whatever their type, of which the taker gives those that fit the question.
// "RCODE", an answer without records, replaces all others, and else a CNAME does.
type Answers struct{ Records []blocklist.Answer }

// Canonical is the name of which the question is to be asked instead: that of the
// first CNAME, unless there is to be no record at all.
func (a *Answers) Canonical() (dnsname.Name, bool) {
	if slices.ContainsFunc(a.Records, func(r blocklist.Answer) bool { return r.Type == "RCODE" }) {
		return "", false
	}
	for _, r := range a.Records {
		if r.Type == "CNAME" {
			n, err := dnsname.Parse(r.Value)
			return n, err == nil && n != ""
		}
	}
	return "", false
}

// leadBackTo reports whether a only sends name to itself, as the rule for a zone
// does that sends all of it to one of its names.
func (a *Answers) leadBackTo(name dnsname.Name) bool {
	n, ok := a.Canonical()
	return ok && n == name
}

// Rule is the household's own: allow or block a name and everything below it, or
// one path of it, for one device or for the house, for ever or until an end.
type Rule struct {
	ID      int64
	Action  Action
	Name    dnsname.Name
	Path    string     // "" is everything; else as ParsePath gives it, for requests that can be read (LayerHTTP)
	Device  devices.ID // "" is the whole house
	Until   time.Time  // zero is for ever
	Created time.Time
	By      string // who made it: "page", "cli", "api"
}
