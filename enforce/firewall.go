//go:build linux

package enforce

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/netcurtain/netcurtain/devices"
)

// What the proxy carries leaves as the router's own and passes no forward chain.
// So other firewalls are asked first whether they would let it be forwarded: the
// rules of their forward chains, read as far as they can be about a new TCP
// connection out of the house, stand once more in our own table (asked.nft.tmpl),
// where a refusal means that the connection is not handed over. It then goes the
// plain way, and the firewall itself judges it. A rule that we cannot read is taken
// to refuse whatever it may be about: that costs the proxy's view of a connection,
// never the firewall's word. What is asked for by name (the explicit proxy) has no
// packet that the kernel could judge; for it the same rules are walked here.

// firewalls are the forward chains of others that may refuse something.
type firewalls struct {
	base   []*forwardChain
	chains map[string]*forwardChain // by id
	vague  []string                 // rules that cannot be read, as a person finds them
	// unaskable says that the kernel does not take these rules a second time.
	unaskable bool
	bars      []string // interfaces from which nothing is let out
}

type forwardChain struct {
	id, family string
	refuses    bool // at its end: the policy of a base chain
	steps      []step
}

// step is a rule as far as it matters here.
type step struct {
	clauses []clause
	vague   bool // it has further conditions, which cannot be read
	do      deed
	to      string // id of the chain, for call and leave
	text    string
}

type deed uint8

const (
	nothing deed = iota
	accept
	refuse
	call  // jump
	leave // goto
	back  // return
)

// clause is one condition: ip saddr != { 192.168.1.50, 192.168.1.51 }.
type clause struct {
	field, op string
	values    []string
}

// newFirewalls reads what others say of connections that come from these interfaces.
func newFirewalls(r ruleset, lan []string) *firewalls {
	f := &firewalls{chains: map[string]*forwardChain{}}
	for _, c := range r.chains {
		if c.table == mainTable || c.table == cutTable || c.family != "inet" && c.family != "ip" && c.family != "ip6" {
			continue
		}
		fc := &forwardChain{id: c.id(c.name), family: c.family, refuses: c.drops}
		for _, rule := range c.rules {
			for _, s := range readSteps(rule.text) {
				if s.to != "" {
					s.to = c.id(s.to)
				}
				if s.settle(lan) {
					fc.steps = append(fc.steps, s)
				}
			}
		}
		f.chains[fc.id] = fc
		if c.kind == "filter" && c.hook == "forward" {
			f.base = append(f.base, fc)
		}
	}
	f.base = slices.DeleteFunc(f.base, func(c *forwardChain) bool { return !f.mayRefuse(c) })
	asked := map[string]bool{}
	for _, c := range f.base {
		f.note(c, asked)
	}
	return f
}

// maxJumps is the depth to which chains are followed; the kernel's own limit is 16.
// maxSteps bounds how many rules one connection is compared with.
const (
	maxJumps = 16
	maxSteps = 10_000
)

// mayRefuse reports whether a chain, or one to which it leads, refuses anything.
func (f *firewalls) mayRefuse(c *forwardChain) bool {
	seen := map[*forwardChain]bool{}
	var look func(c *forwardChain) bool
	look = func(c *forwardChain) bool {
		if c == nil {
			return true
		}
		if seen[c] {
			return false // told already, or about to be
		}
		seen[c] = true
		return c.refuses || slices.ContainsFunc(c.steps, func(s step) bool {
			return s.do == refuse || (s.do == call || s.do == leave) && look(f.chains[s.to])
		})
	}
	return look(c)
}

// note gathers the rules that cannot be read, of the chains that are asked.
func (f *firewalls) note(c *forwardChain, seen map[string]bool) {
	if c == nil || seen[c.id] {
		return
	}
	seen[c.id] = true
	for _, s := range c.steps {
		if s.vague {
			f.vague = append(f.vague, fmt.Sprintf("%s: %.120s", c.id, s.text))
		}
		f.note(f.chains[s.to], seen)
	}
}

// settle decides what is known beforehand: it is a new TCP connection from one of
// these interfaces, which nobody has translated. It reports whether the step may
// still matter.
func (s *step) settle(lan []string) bool {
	if s.do == nothing {
		return false
	}
	var left []clause
	for _, c := range s.clauses {
		holds := maybe
		switch c.field {
		case "iifname":
			if !slices.ContainsFunc(lan, func(name string) bool { return c.holds(Connection{From: name}) != no }) {
				holds = no
			}
		case "meta l4proto":
			holds = c.is("tcp", "6")
		case "ip protocol", "ip6 nexthdr":
			if holds = c.is("tcp", "6"); holds == yes {
				family := map[string]string{"ip protocol": "ipv4", "ip6 nexthdr": "ipv6"}[c.field]
				c, holds = clause{"meta nfproto", "==", []string{family}}, maybe
			}
		case "ct state":
			holds = c.is("new")
		case "ct status":
			holds = c.is("")
		case "ct direction":
			holds = c.is("original")
		default:
			if strings.HasPrefix(c.field, "udp ") || strings.HasPrefix(c.field, "icmp") {
				holds = no
			}
		}
		switch holds {
		case no:
			return false
		case maybe:
			left = append(left, c)
		}
	}
	s.clauses = left
	return true
}

// Readable are the conditions that are understood: those of packets as the kernel
// compares them, and what is settled beforehand.
var (
	readable = regexp.MustCompile(`^((iifname|oifname|iif|oif)|(ip|ip6) (saddr|daddr)|ip protocol|ip6 nexthdr|ether saddr|(tcp|th|udp) (sport|dport)|(icmp|icmpv6) (type|code)|meta (l4proto|nfproto|hour|day|time)|ct (state|status|direction))$`)
	// plainValue keeps out whatever could break out of a line, and sets of other tables.
	plainValue = regexp.MustCompile(`^("[A-Za-z0-9 ._:@*+-]*"(-"[0-9 :-]*")?|[A-Za-z0-9.:/*-]+)$`)
	operators  = []string{"==", "!=", "<", "<=", ">", ">="}
)

// readSteps reads one rule. A verdict map is one step for each of its elements.
func readSteps(text string) []step {
	s := step{text: text}
	words := tokens(text)
	for len(words) > 0 {
		switch w := words[0]; {
		case w == "comment" && len(words) > 1:
			words = words[2:]
		case w == "counter":
			words = skip(words[1:], "packets", "bytes", "name")
		case w == "log":
			words = skip(words[1:], "prefix", "level", "group", "snaplen", "queue-threshold", "flags")
		case verdict(words, &s):
			return []step{s}
		default:
			field, rest := w, words[1:]
			if len(rest) > 0 && !readable.MatchString(field) {
				field, rest = field+" "+rest[0], rest[1:]
			}
			if len(rest) > 1 && rest[0] == "vmap" && readable.MatchString(field) {
				if steps, ok := s.spread(field, rest[1]); ok {
					return steps
				}
			}
			c, rest, ok := readClause(field, rest)
			if !ok {
				return []step{s.unclear(words)}
			}
			s.clauses = append(s.clauses, c)
			words = rest
		}
	}
	return []step{s}
}

func readClause(field string, words []string) (c clause, rest []string, ok bool) {
	c.field, c.op = field, "=="
	if field == "iif" || field == "oif" {
		c.field = field + "name"
	}
	if len(words) > 0 && slices.Contains(operators, words[0]) {
		c.op, words = words[0], words[1:]
	}
	if len(words) == 0 || words[0] == "." || !readable.MatchString(field) {
		return c, nil, false
	}
	value := words[0]
	if inner, is := strings.CutPrefix(value, "{"); is {
		value = strings.TrimSuffix(inner, "}")
	}
	for v := range strings.SplitSeq(value, ",") {
		if v = strings.TrimSpace(v); v == "" || !plainValue.MatchString(v) {
			return c, nil, false
		}
		c.values = append(c.values, v)
	}
	return c, words[1:], true
}

// spread makes one step of each element of a verdict map.
func (s step) spread(field, elements string) (all []step, ok bool) {
	inner, is := strings.CutPrefix(elements, "{")
	if !is {
		return nil, false
	}
	for e := range strings.SplitSeq(strings.TrimSuffix(inner, "}"), ",") {
		key, what, found := strings.Cut(e, " : ")
		c, rest, ok := readClause(field, tokens(key))
		one := step{text: s.text, clauses: append(slices.Clone(s.clauses), c)}
		if !found || !ok || len(rest) > 0 || !verdict(tokens(what), &one) {
			return nil, false
		}
		all = append(all, one)
	}
	return all, true
}

// unclear is the step of a rule of which words cannot be read.
func (s step) unclear(words []string) step {
	s.vague = true
	for i, w := range words {
		switch {
		case w == "comment":
			return s
		case w == "vmap":
			s.do = refuse
			return s
		case verdict(words[i:], &s):
			return s
		}
	}
	return s
}

// verdict reads what a rule does, where words begin with that.
func verdict(words []string, s *step) bool {
	if len(words) == 0 {
		return false
	}
	switch words[0] {
	case "accept":
		s.do = accept
	case "drop", "reject":
		s.do = refuse
	case "queue":
		s.do, s.vague = refuse, true
	case "return":
		s.do = back
	case "continue":
		s.do = nothing
	case "jump", "goto":
		if len(words) < 2 {
			return false
		}
		s.do, s.to = call, words[1]
		if words[0] == "goto" {
			s.do = leave
		}
	default:
		return false
	}
	return true
}

// skip leaves out options, each with its value.
func skip(words []string, options ...string) []string {
	for len(words) > 1 && slices.Contains(options, words[0]) {
		words = words[2:]
	}
	return words
}

// tokens parts a rule at blanks, but for those in quotes and braces.
func tokens(text string) (all []string) {
	quoted, braced, start := false, 0, -1
	for i, r := range text {
		blank := r == ' ' || r == '\t'
		if start < 0 && !blank {
			start = i
		}
		switch {
		case r == '"':
			quoted = !quoted
		case quoted:
		case r == '{':
			braced++
		case r == '}':
			braced--
		case blank && braced <= 0 && start >= 0:
			all, start = append(all, text[start:i]), -1
		}
	}
	if start >= 0 {
		all = append(all, text[start:])
	}
	return all
}

// asked is what asked.nft.tmpl writes.
type asked struct {
	First  string // the chain to begin with; "" asks nobody
	Chains []askedChain
}

type askedChain struct {
	Name, Of string
	Rules    []string
}

// The chains of ours to which the others' verdicts lead.
const (
	handed  = "handed"
	refused = "refused_there"
)

// asked writes the firewalls' rules down for our own table: to be passed one after
// the other, until one refuses or all have accepted.
func (f *firewalls) asked() (a asked) {
	for i, base := range f.base {
		w := writer{f: f, prefix: fmt.Sprintf("firewall%d", i+1), next: handed, named: map[string]string{}}
		if i+1 < len(f.base) {
			w.next = fmt.Sprintf("firewall%d", i+2)
		}
		w.named[base.id] = w.prefix
		w.write(base, true)
		a.Chains = append(a.Chains, w.out...)
	}
	if len(f.base) > 0 {
		a.First = "firewall1"
	}
	return a
}

// writer writes one base chain of others and those to which it leads.
type writer struct {
	f            *firewalls
	prefix, next string
	named        map[string]string // by id
	out          []askedChain
}

func (w *writer) write(c *forwardChain, base bool) {
	at := len(w.out)
	w.out = append(w.out, askedChain{Name: w.named[c.id], Of: c.id})
	var rules []string
	if base && c.family != "inet" {
		rules = append(rules, "meta nfproto != "+map[string]string{"ip": "ipv4", "ip6": "ipv6"}[c.family]+" goto "+w.next)
	}
	for _, s := range c.steps {
		if what := w.does(s); what != "" {
			rules = append(rules, s.conditions()+what)
		}
	}
	if base && c.refuses {
		rules = append(rules, "goto "+refused)
	} else if base {
		rules = append(rules, "goto "+w.next)
	}
	w.out[at].Rules = rules
}

// does is a step's verdict in our table, "" for none.
func (w *writer) does(s step) string {
	to := w.f.chains[s.to]
	switch {
	case s.do == accept && s.vague, s.do == call && s.vague && !w.f.mayRefuse(to):
		return ""
	case s.do == accept:
		return "goto " + w.next
	case s.do == refuse, s.vague, s.to != "" && to == nil:
		return "goto " + refused
	case s.do == back:
		return "return"
	}
	name, known := w.named[s.to]
	if !known {
		if name = s.to[strings.LastIndexByte(s.to, ' ')+1:]; !plainChain.MatchString(name) {
			name = fmt.Sprint(len(w.named))
		}
		name = w.prefix + "/" + name
		w.named[s.to] = name
		w.write(to, false)
	}
	if s.do == leave {
		return "goto " + name
	}
	return "jump " + name
}

var plainChain = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,90}$`)

// conditions are a step's clauses as nft reads them, before routing has chosen the way out.
func (s step) conditions() string {
	var b strings.Builder
	for _, c := range s.clauses {
		if c.field == "oifname" {
			b.WriteString("fib daddr ")
		}
		b.WriteString(c.field + " ")
		if c.op != "==" {
			b.WriteString(c.op + " ")
		}
		if len(c.values) == 1 {
			b.WriteString(c.values[0] + " ")
		} else {
			b.WriteString("{ " + strings.Join(c.values, ", ") + " } ")
		}
	}
	return b.String()
}

// Connection is what a device wants to open.
type Connection struct {
	From   string // the interface where it comes in
	MACs   []devices.MAC
	Source netip.Addr
	To     netip.AddrPort
	Out    string // the interface that leads to To
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
		found = max(found, c.matches(n, v))
	}
	if c.op == "!=" {
		return yes - found
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

// barred are those of lan from which the firewalls let nothing out, whoever it is.
func (f *firewalls) barred(lan, wayOut []string) (names []string) {
	for _, name := range lan {
		lets := func(out string) bool {
			return f.judge(Connection{From: name, To: netip.AddrPortFrom(netip.Addr{}, 443), Out: out}) != isRefused
		}
		if len(wayOut) > 0 && !slices.ContainsFunc(wayOut, lets) {
			names = append(names, name)
		}
	}
	return names
}

// Barred are the LAN interfaces whose devices other firewalls keep from the
// internet, as far as Set has looked.
func (k *Kernel) Barred() []string {
	if f := k.others.Load(); f != nil {
		return f.bars
	}
	return nil
}

// Forwards reports whether other firewalls let a device open a connection from
// source to to, when that is not the packet which they will see. Where it cannot
// be told, they do not.
func (k *Kernel) Forwards(macs []devices.MAC, source netip.Addr, to netip.AddrPort) bool {
	f := k.others.Load()
	if f == nil || len(f.base) == 0 {
		return true
	}
	source, to = source.Unmap(), netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	return f.judge(Connection{From: leadsTo(source), MACs: macs, Source: source, To: to, Out: leadsTo(to.Addr())}) == passes
}

// leadsTo is the interface over which an address is reached, "" for none.
func leadsTo(a netip.Addr) string {
	routes, err := netlink.RouteGet(a.AsSlice())
	if err != nil || len(routes) == 0 {
		return ""
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return ""
	}
	return link.Attrs().Name
}

// checkFirewalls tells what of other firewalls is not understood, and what comes of it.
func (k *Kernel) checkFirewalls() []Problem {
	f := k.others.Load()
	switch {
	case f == nil:
		return nil
	case f.unaskable:
		return []Problem{{What: "The rules of another firewall cannot be asked for what it refuses: nothing is handed to the proxy, and guarded devices go straight to the internet.", Fix: "nft list ruleset (and tell us which rules those are)"}}
	case len(f.vague) == 0:
		return nil
	}
	what := fmt.Sprintf("A rule of another firewall cannot be read (%s)", f.vague[0])
	if n := len(f.vague); n > 1 {
		what = fmt.Sprintf("%d rules of other firewalls cannot be read (the first: %s)", n, f.vague[0])
	}
	return []Problem{{What: what + ": connections of guarded devices that it may refuse go straight past the proxy, so that the firewall itself decides."}}
}
