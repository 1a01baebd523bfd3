//go:build linux

package enforce

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/netcurtain/netcurtain/devices"
)

// Connection is what a device wants to open.
type Connection struct {
	From   string // the interface where it comes in
	MACs   []devices.MAC
	Source netip.Addr
	To     netip.AddrPort
	Out    string // the interface that leads to To

	// inSet reports whether a set of a table has an element; nil does not know.
	inSet func(table, set, element string) tri
}

// tri is an answer that may be missing.
type tri uint8

const (
	no tri = iota
	maybe
	yes
)

func truth(b bool) tri {
	if b {
		return yes
	}
	return no
}

// is compares a clause of plain words with what is so.
func (c clause) is(so ...string) tri {
	any := slices.ContainsFunc(c.values, func(v string) bool { return slices.Contains(so, v) })
	switch c.op {
	case "==":
		return truth(any)
	case "!=":
		return truth(!any)
	}
	return maybe
}

// holds compares a clause with a connection. What is not known of it may hold or not.
func (c clause) holds(n Connection) tri {
	if c.op != "==" && c.op != "!=" {
		return maybe
	}
	found := no
	for _, v := range c.values {
		if set, is := strings.CutPrefix(v, "@"); is {
			found = c.inSet(n, set)
		} else {
			found = max(found, c.matches(n, v))
		}
	}
	if c.op == "!=" {
		return yes - found
	}
	return found
}

// inSet asks whether the set has what the clause is about.
func (c clause) inSet(n Connection, set string) tri {
	var elements []string
	addr := func(a netip.Addr) {
		if a.IsValid() && strings.HasPrefix(c.field, "ip ") == a.Is4() {
			elements = []string{a.String()}
		}
	}
	switch c.field {
	case "ip saddr", "ip6 saddr":
		addr(n.Source)
	case "ip daddr", "ip6 daddr":
		addr(n.To.Addr())
	case "ether saddr":
		for _, m := range n.MACs {
			elements = append(elements, m.String())
		}
	}
	switch {
	case n.inSet == nil:
		return maybe
	case len(elements) == 0 && c.field != "ether saddr" && n.Source.IsValid() && n.To.IsValid():
		return no // of the other family
	case len(elements) == 0:
		return maybe
	}
	found := n.inSet(c.table, set, elements[0])
	for _, e := range elements[1:] {
		if n.inSet(c.table, set, e) != found {
			return maybe
		}
	}
	return found
}

func (c clause) matches(n Connection, value string) tri {
	switch c.field {
	case "iifname":
		return byName(value, n.From)
	case "oifname":
		return byName(value, n.Out)
	case "ip saddr", "ip6 saddr":
		return byAddr(c.field, value, n.Source)
	case "ip daddr", "ip6 daddr":
		return byAddr(c.field, value, n.To.Addr())
	case "ether saddr":
		mine := 0
		for _, m := range n.MACs {
			if strings.EqualFold(m.String(), value) {
				mine++
			}
		}
		switch {
		case len(n.MACs) == 0 || mine > 0 && mine < len(n.MACs):
			return maybe
		default:
			return truth(mine > 0)
		}
	case "tcp dport", "th dport":
		from, to, isRange := strings.Cut(value, "-")
		if !isRange {
			to = from
		}
		a, errA := strconv.ParseUint(from, 10, 16)
		b, errB := strconv.ParseUint(to, 10, 16)
		if errA != nil || errB != nil || n.To.Port() == 0 {
			return maybe
		}
		return truth(a <= uint64(n.To.Port()) && uint64(n.To.Port()) <= b)
	case "meta nfproto":
		if !n.Source.IsValid() || n.Source.Is4() != n.To.Addr().Is4() {
			return maybe
		}
		return truth(value == "ipv4" == n.Source.Is4())
	}
	return maybe
}

func byName(pattern, name string) tri {
	if name == "" {
		return maybe
	}
	return truth(matchesAny(strings.Trim(pattern, `"`), []string{name}))
}

// byAddr compares with an address, a prefix or a range.
func byAddr(field, value string, a netip.Addr) tri {
	if !a.IsValid() {
		return maybe
	}
	if strings.HasPrefix(field, "ip ") != a.Is4() {
		return no
	}
	if p, err := netip.ParsePrefix(value); err == nil {
		return truth(p.Contains(a))
	}
	first, last, isRange := strings.Cut(value, "-")
	if !isRange {
		last = first
	}
	from, errA := netip.ParseAddr(first)
	to, errB := netip.ParseAddr(last)
	if errA != nil || errB != nil {
		return maybe
	}
	return truth(from.Compare(a) <= 0 && a.Compare(to) <= 0)
}

// outcome is the set of what may come of a connection.
type outcome uint8

const (
	passes outcome = 1 << iota
	isRefused
	fallsThrough // of a chain: none of its rules has decided
)

// judge tells what may come of n in all firewalls together.
func (f *firewalls) judge(n Connection) outcome {
	all, budget := passes, maxSteps
	for _, c := range f.base {
		o := passes
		if c.family == "inet" || !n.Source.IsValid() || (c.family == "ip") == n.Source.Is4() || (c.family == "ip") == n.To.Addr().Is4() {
			o = f.walk(c, n, 0, &budget)
		}
		if o&fallsThrough != 0 {
			o &^= fallsThrough
			if c.refuses {
				o |= isRefused
			} else {
				o |= passes
			}
		}
		if o&passes == 0 {
			return isRefused // whatever the others say
		}
		all |= o
	}
	return all
}

func (f *firewalls) walk(c *forwardChain, n Connection, depth int, budget *int) (o outcome) {
	if c == nil || depth > maxJumps {
		return passes | isRefused | fallsThrough
	}
	for _, s := range c.steps {
		if *budget--; *budget < 0 {
			return passes | isRefused | fallsThrough
		}
		holds := yes
		if s.vague {
			holds = maybe
		}
		for _, cl := range s.clauses {
			holds = min(holds, cl.holds(n))
		}
		if holds == no {
			continue
		}
		var here outcome // fallsThrough: the next rule has its say
		ends := false    // this chain, without a decision
		switch s.do {
		case accept:
			here = passes
		case refuse:
			here = isRefused
		case back:
			ends = true
		case call, leave:
			here = f.walk(f.chains[s.to], n, depth+1, budget)
			ends = s.do == leave && here&fallsThrough != 0
		}
		o |= here &^ fallsThrough
		if ends {
			o |= fallsThrough
		}
		if holds == yes && (ends || here&fallsThrough == 0) {
			return o
		}
	}
	return o | fallsThrough
}
