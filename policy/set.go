package policy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy/blocklist"
)

// Config is what the household chose. Compile copies what it keeps.
type Config struct {
	Off bool // the whole house is switched off: everything passes

	// Rules are the household's own. Those whose end has passed are ignored.
	Rules []Rule

	Index *blocklist.Index // nil: no lists
	// Lists says who uses which lists of Index; nil: everybody uses all of them.
	Lists *ListUse
	// Hits are where an Engine counts what each list decides, by its name. A list
	// without one is not counted.
	Hits map[string]*Hits

	// Rewriters is the mask of the lists that may answer questions with something
	// that leads somewhere: the household's own, and those it trusts so far. For a
	// list from the internet could send a bank's name to its maker. In other lists
	// such a rule says nothing; one that leads nowhere blocks in any case.
	Rewriters uint64

	// LocalZones are the house's own, beside those that are local everywhere.
	LocalZones []dnsname.Name
	// RebindingExempt are public names, with all below them, that may have
	// addresses of the house: a company's VPN, a media server.
	RebindingExempt []dnsname.Name
	// Upstreams are the resolvers that the house itself asks: their addresses are
	// never side doors.
	Upstreams []netip.Addr
	// Hellos say what becomes of connections whose name cannot be read; zero is as shipped.
	Hellos Hellos
}

// ListUse says who uses which lists: masks over the Index beside it, bit i for
// its i-th list (blocklist.Index.Mask). Whoever has groups or timetables makes
// them into these.
type ListUse struct {
	House   uint64                // by everybody
	Devices map[devices.ID]uint64 // by one device, beside those of the house
}

// Set is a compiled Config: immutable, safe for concurrent use. Only the Hits that
// it was given count on.
type Set struct {
	off       bool
	rules     map[dnsname.Name][]Rule // of a name: the longest path first, then the newest
	index     *blocklist.Index
	lists     ListUse
	hits      map[string]*Hits
	rewriters uint64
	noData    *Answers
	tags      map[devices.Kind][]string
	doors     zones
	doorsAt   map[netip.Addr]door
	local     zones
	exempt    zones
	hellos    [hellos]Verdict
}

// Compile checks c and makes a Set of it.
func Compile(c Config) (*Set, error) {
	s := &Set{
		off: c.Off, index: c.Index, lists: ListUse{House: ^uint64(0)}, hits: maps.Clone(c.Hits),
		rules:     map[dnsname.Name][]Rule{},
		rewriters: c.Rewriters, tags: kindTags(),
		noData: &Answers{Records: []blocklist.Answer{{Type: "RCODE", Value: "NOERROR"}}},
		doors:  sideDoors(), doorsAt: doorsAt(c.Upstreams), local: localZones(), exempt: zones{},
		hellos: c.Hellos.verdicts(),
	}
	if c.Lists != nil {
		s.lists = ListUse{House: c.Lists.House, Devices: maps.Clone(c.Lists.Devices)}
	}
	var errs []error
	for _, r := range c.Rules {
		if err := r.check(); err != nil {
			errs = append(errs, err)
			continue
		}
		s.rules[r.Name] = append(s.rules[r.Name], r)
	}
	for _, rules := range s.rules {
		slices.SortFunc(rules, func(a, b Rule) int {
			return cmp.Or(cmp.Compare(len(b.Path), len(a.Path)), b.Created.Compare(a.Created), cmp.Compare(b.ID, a.ID))
		})
	}
	for _, z := range c.LocalZones {
		errs = append(errs, s.local.add("local zone", z))
	}
	for _, z := range c.RebindingExempt {
		errs = append(errs, s.exempt.add("rebinding exemption", z))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return s, nil
}

func (r Rule) check() error {
	switch {
	case r.Name == "":
		return fmt.Errorf("rule %d has no name: it needs one such as ads.example", r.ID)
	case r.Action != Allow && r.Action != Block:
		return fmt.Errorf("rule %d for %q neither allows nor blocks", r.ID, r.Name)
	}
	if r.Path != "" {
		if path, err := ParsePath(r.Path); err != nil || path != r.Path {
			return fmt.Errorf("rule %d for %q: %w", r.ID, r.Name, cmp.Or(err, fmt.Errorf("path %q is not in normal form, %q", r.Path, path)))
		}
	}
	return nil
}

// covers reports whether r speaks of q.
func (r *Rule) covers(q *Query) bool {
	return (r.Device == "" || r.Device == q.Device) && (r.Until.IsZero() || q.Now.Before(r.Until)) &&
		(r.Path == "" || q.Layer == LayerHTTP && speaksOf(r.Path, q.Path))
}

// mask is the lists that a device uses.
func (u *ListUse) mask(d devices.ID) uint64 {
	if len(u.Devices) == 0 {
		return u.House
	}
	return u.House | u.Devices[d]
}

// zones is a small set of names that stand for all below them too.
type zones map[dnsname.Name]struct{}

func (z zones) add(what string, name dnsname.Name) error {
	if name == "" {
		return fmt.Errorf("an empty %s would cover every name", what)
	}
	z[name] = struct{}{}
	return nil
}

// of returns the zone at or above name.
func (z zones) of(name dnsname.Name) (dnsname.Name, bool) {
	for ; name != ""; name = name.Parent() {
		if _, ok := z[name]; ok {
			return name, true
		}
	}
	return "", false
}

// Engine holds the Set in force. Deciding takes no lock.
type Engine struct{ set atomic.Pointer[Set] }

// NewEngine starts with s, which may be nil: then nothing is decided.
func NewEngine(s *Set) *Engine {
	e := new(Engine)
	e.Swap(s)
	return e
}

// Swap puts s in force. Decisions under way finish by the Set before.
func (e *Engine) Swap(s *Set) { e.set.Store(s) }

// Decide asks the Set in force, and counts what a list decided. It never blocks, and
// allocates at most when a listed name is blocked for the first time in a while.
func (e *Engine) Decide(q Query) Verdict {
	s := e.set.Load()
	v := s.Decide(q)
	if v.List != "" && s != nil {
		s.count(&q, v)
	}
	return v
}

// Explain asks the Set in force, and counts nothing.
func (e *Engine) Explain(q Query) []Step { return e.set.Load().Explain(q) }
