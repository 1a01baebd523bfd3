package policy

import (
	"net/netip"
	"strings"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy/blocklist"
)

// What a Verdict's List says where no list of the index decided.
const (
	ListHousehold = "household"  // the household's own rule
	ListSideDoors = "side doors" // our own table of encrypted resolvers and canary names
	ListMode      = "mode"       // how the device is treated
	ListRebinding = "rebinding"  // our own rule about addresses of the house
	ListUnread    = "settings"   // the settings' rules for names that cannot be read
)

// Decide gives the verdict on q. A nil Set decides nothing.
//
// The order is: the house switched off; a device whose mode is off; a device that
// is local. Then the household's rules, the device's own before the house's,
// longer names before shorter and a path before the whole name; then the rules for
// names that could not be read; then side doors, by name and, for guarded devices, by
// address; then lists, allowing ones before
// blocking ones; then rebinding. A device in watch mode gets all of this, noted
// and not obeyed.
func (s *Set) Decide(q Query) Verdict {
	if s == nil {
		return Verdict{}
	}
	if s.off {
		return Verdict{Action: Allow, Reason: ReasonSwitchedOff, Rule: "off", List: ListHousehold}
	}
	if q.Mode == devices.ModeUnset {
		q.Mode = devices.ModeProtect
	}
	if q.Mode == devices.ModeOff {
		return Verdict{Action: Allow, Reason: ReasonMode, Rule: "off", List: ListMode}
	}
	return obeyed(&q, s.judge(&q))
}

// obeyed is v as it holds for the device that asks: one that is only watched gets
// everything, and a note of what it would not have got.
func obeyed(q *Query, v Verdict) Verdict {
	if q.Mode == devices.ModeWatch && (v.Action == Block || v.Action == Rewrite) {
		v.Action, v.Noted, v.Rewrite = Allow, true, nil
	}
	return v
}

func (s *Set) judge(q *Query) Verdict {
	// Nothing that a local device asks leaves the house, not even as a question,
	// so that a rule which allows a name cannot open what the kernel keeps cut.
	if q.Mode == devices.ModeLocal && !s.staysInside(q) {
		return Verdict{Action: Block, Reason: ReasonMode, Rule: "local", List: ListMode}
	}
	if v, ok := s.ofHello(q); ok {
		return v
	}
	if behindAnotherName(q) {
		if v := s.ofName(q, q.Asked); vouches(q, v) {
			return v
		}
	}
	v := cloaked(q, s.ofName(q, q.Name))
	if v.Action == Block || v.Reason == ReasonRule {
		return v
	}
	if d, ok := s.doorOf(q); ok {
		return Verdict{Action: Block, Reason: ReasonSideDoor, Rule: d.rule, List: ListSideDoors}
	}
	if q.Layer == LayerAnswer && s.rebinds(q) {
		return Verdict{Action: Block, Reason: ReasonRebinding, Rule: rebindingRule(q.Addr), List: ListRebinding}
	}
	return v
}

// behindAnotherName reports whether Name is not what the device asked for, but
// what an answer led to.
func behindAnotherName(q *Query) bool {
	return q.Layer == LayerAnswer && q.Asked != q.Name
}

// vouches reports whether v, about the name that was asked for, settles what stands
// behind it too: a household's rule does, a list's only for further names.
func vouches(q *Query, v Verdict) bool {
	return v.Action == Allow && (v.Reason == ReasonRule || !q.Addr.IsValid())
}

// cloaked gives a block of what stands behind another name its reason.
func cloaked(q *Query, v Verdict) Verdict {
	if v.Action == Block && behindAnotherName(q) && v.Reason != ReasonSideDoor {
		v.Reason = ReasonCloaking
	}
	return v
}

// ofName is what the household, our own table and the lists say of one name.
func (s *Set) ofName(q *Query, name dnsname.Name) Verdict {
	if name == "" {
		return Verdict{}
	}
	if v := s.byRule(q, name); v.Action != Undecided {
		return v
	}
	if s.closesDoors(q) {
		if door, ok := s.doors.of(name); ok {
			return Verdict{Action: Block, Reason: ReasonSideDoor, Rule: string(door), List: ListSideDoors}
		}
	}
	return s.byList(q, name)
}

// closesDoors reports whether the names of encrypted resolvers are refused to who asks.
func (s *Set) closesDoors(q *Query) bool { return q.Kind.Smart() }

// byRule finds the household's rule: a device's own rule wins over the house's,
// then the longest name, then the longest path, then the newest.
func (s *Set) byRule(q *Query, name dnsname.Name) (v Verdict) {
	if len(s.rules) == 0 {
		return v
	}
	for ; name != ""; name = name.Parent() {
		for i := range s.rules[name] {
			r := &s.rules[name][i]
			if !r.covers(q) {
				continue
			}
			if r.Device != "" {
				return r.verdict()
			}
			if v.Action == Undecided {
				v = r.verdict()
			}
		}
	}
	return v
}

func (r *Rule) verdict() Verdict {
	return Verdict{Action: r.Action, Reason: ReasonRule, Rule: string(r.Name) + r.Path, List: ListHousehold}
}

// byList is what the lists say. A rule that gives an answer is a block when the
// answer leads nowhere, whichever way it says so.
func (s *Set) byList(q *Query, name dnsname.Name) (v Verdict) {
	if s.index == nil || blocklist.OfOwnMachine(name) {
		return v
	}
	ask := s.askOf(q, name)
	m, ok := s.index.Ask(&ask, s.lists.mask(q.Device))
	if !ok {
		return v
	}
	return s.ofMatch(q, &m, &ask, s.lists.mask(q.Device))
}

// askOf is q as lists are asked.
func (s *Set) askOf(q *Query, name dnsname.Name) blocklist.Question {
	ask := blocklist.Question{
		Name: name, Type: q.Type, ClientAddr: q.ClientAddr, ClientMAC: q.ClientMAC,
		ClientName: q.ClientName, ClientTags: s.tags[q.Kind],
		NoRewrite: ^s.rewriters,
	}
	if ask.Type == 0 {
		ask.Type = typeA // a connection is what an address was asked for
	}
	return ask
}

// ofMatch is what follows from a list's rule; nothing, from one whose answer is not given here.
func (s *Set) ofMatch(q *Query, m *blocklist.Match, ask *blocklist.Question, mask uint64) (v Verdict) {
	switch {
	case m.Allow:
		v.Action = Allow
	case m.Nowhere:
		v.Action = Block
		if q.Layer == LayerDNS {
			v.Rewrite = s.shape(m, ask, mask)
		}
	case q.Layer != LayerDNS:
		return v
	default:
		v.Action, v.Rewrite = Rewrite, s.answers(*ask, mask)
		if v.Rewrite.leadBackTo(ask.Name) {
			return Verdict{}
		}
	}
	v.Reason, v.Rule, v.List = ReasonList, s.index.Rule(*m), s.index.Lists()[m.List].Name
	return v
}

// shape is how a blocked question is answered where the household's way would say
// too much or too little; nil where it will do. A name of which some types are
// blocked exists. Response codes mean no harm, whoever's they are; addresses are
// given as written only for lists that may rewrite.
func (s *Set) shape(m *blocklist.Match, ask *blocklist.Question, mask uint64) *Answers {
	switch {
	case m.Kind == blocklist.KindRewrite:
		a := s.answers(*ask, mask)
		for _, r := range a.Records {
			if r.Type != "RCODE" && s.rewriters>>m.List&1 == 0 {
				return nil
			}
		}
		return a
	case m.Typed:
		return s.noData
	}
	return nil
}

// answers takes its own copy of the question, so that the others need no heap.
func (s *Set) answers(ask blocklist.Question, mask uint64) *Answers {
	return &Answers{Records: s.index.Answers(&ask, mask)}
}

const typeA = 1 // RFC 1035 §3.2.2

// kindTags are the words of $ctag for what a device is; lists of others use them.
func kindTags() map[devices.Kind][]string {
	return map[devices.Kind][]string{
		devices.KindTV: {"device_tv"}, devices.KindCamera: {"device_camera"}, devices.KindSpeaker: {"device_audio"},
		devices.KindPrinter: {"device_printer"}, devices.KindPhone: {"device_phone"}, devices.KindTablet: {"device_tablet"},
		devices.KindComputer: {"device_pc"}, devices.KindConsole: {"device_gameconsole"},
		devices.KindToy: {"device_other"}, devices.KindPlug: {"device_other"}, devices.KindHub: {"device_other"},
		devices.KindSensor: {"device_other"}, devices.KindLight: {"device_other"}, devices.KindAppliance: {"device_other"},
		devices.KindOther: {"device_other"},
	}
}

// staysInside reports whether q concerns nothing outside the house.
func (s *Set) staysInside(q *Query) bool {
	if q.Name != "" {
		return s.isLocal(q.Name) || q.Layer == LayerAnswer && q.Asked != "" && s.isLocal(q.Asked)
	}
	return q.Layer != LayerDNS && (isInside(q.Addr) || q.Addr.IsMulticast())
}

// isLocal reports whether name belongs to the house and not to the public tree.
func (s *Set) isLocal(name dnsname.Name) bool {
	if name != "" && strings.IndexByte(string(name), '.') < 0 {
		return true // a single label: a device of the house
	}
	_, ok := s.local.of(name)
	return ok
}

// rebinds reports whether a public name was answered with an address of the
// house, by which a page from outside reaches what stands inside.
func (s *Set) rebinds(q *Query) bool {
	if !isInside(q.Addr) {
		return false
	}
	name := q.Asked
	if name == "" {
		name = q.Name
	}
	if name == "" || s.isLocal(name) {
		return false
	}
	_, exempt := s.exempt.of(name)
	return !exempt
}

// isInside reports whether a is an address that a public name has no business
// with: private, loopback, link-local or "this host", also when it is wrapped
// into an IPv6 address.
func isInside(a netip.Addr) bool {
	if !a.IsValid() {
		return false
	}
	a = unwrap(a)
	return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() ||
		a.Is4() && a.As4()[0] == 0
}

// unwrap takes an IPv4 address out of its IPv6 forms: mapped (RFC 4291), and
// translated under the well-known prefix 64:ff9b::/96 (RFC 6052).
func unwrap(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if a.Is6() {
		b := a.As16()
		if [12]byte(b[:12]) == [12]byte{0, 0x64, 0xff, 0x9b} {
			return netip.AddrFrom4([4]byte(b[12:]))
		}
	}
	return a
}

// rebindingRule says which kind of address it was.
func rebindingRule(a netip.Addr) string {
	switch a = unwrap(a); {
	case a.IsLoopback():
		return "loopback address"
	case a.IsPrivate():
		return "private address"
	case a.IsLinkLocalUnicast():
		return "link-local address"
	}
	return "unspecified address"
}
