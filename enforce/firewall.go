//go:build linux

package enforce

import (
	"context"
	"fmt"
	"hash/fnv"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

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
// never the firewall's word. Two things our table cannot judge, and for them the same
// rules are walked here (Forwards): what is asked for by name (the explicit proxy),
// of which there is no packet, and rules about sets of other tables (banIP's lists of
// addresses, dnsmasq's nftset), which the kernel lets nobody else use.

// firewalls are the forward chains of others that may refuse something.
type firewalls struct {
	base   []*forwardChain
	chains map[string]*forwardChain // by id
	vague  []string                 // rules that cannot be read, as a person finds them
	sets   bool                     // some rules are about sets
	print  uint64                   // of what they say: another one where they say something else
	// unaskable says that the kernel does not take these rules a second time.
	unaskable bool
	bars      []string // interfaces from which nothing is let out

	running *firewalls // what they say of a connection that runs
	since   time.Time  // since when they say all that
}

// stage is how far a connection has come, as rules tell it apart.
type stage struct {
	state string   // ct state
	are   []string // ct status
}

var (
	begins = stage{state: "new"}
	runs   = stage{"established", []string{"seen-reply", "assured", "confirmed"}}
)

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
	values    []string // or the name of a set behind an @
	table     string   // whose set that is: inet fw4
}

// newFirewalls reads what others say of connections that come from these interfaces.
func newFirewalls(r ruleset, lan []string) *firewalls {
	f := readFirewalls(r, lan, begins)
	f.running = readFirewalls(r, lan, runs)
	return f
}

func readFirewalls(r ruleset, lan []string, at stage) *firewalls {
	f := &firewalls{chains: map[string]*forwardChain{}}
	sum := fnv.New64a()
	defer func() { f.print = sum.Sum64() }()
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
				s.ownSets(c.family + " " + c.table)
				if s.settle(lan, at) {
					fc.steps = append(fc.steps, s)
				}
			}
		}
		fc.end()
		fmt.Fprint(sum, fc.id, c.kind, c.hook, fc.refuses)
		for _, s := range fc.steps { // but for their texts, which count packets
			fmt.Fprint(sum, s.clauses, s.vague, s.do, s.to)
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

// end cuts off what no connection gets to.
func (c *forwardChain) end() {
	last := slices.IndexFunc(c.steps, func(s step) bool {
		return len(s.clauses) == 0 && !s.vague && (s.do == accept || s.do == refuse)
	})
	if last < 0 {
		return
	}
	c.steps = c.steps[:last+1]
	if !slices.ContainsFunc(c.steps, func(s step) bool { return s.do == leave || s.do == back }) {
		c.refuses = c.steps[last].do == refuse // nothing gets to the policy
	}
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
		f.sets = f.sets || s.aboutSet()
		f.note(f.chains[s.to], seen)
	}
}

// ownSets says in whose table the sets are that s names.
func (s *step) ownSets(table string) {
	for i := range s.clauses {
		s.clauses[i].table = table
	}
}

func (s step) aboutSet() bool {
	return slices.ContainsFunc(s.clauses, func(c clause) bool { return strings.HasPrefix(c.values[0], "@") })
}

// settle decides what is known beforehand: it is a TCP connection from one of these
// interfaces, this far, which nobody has translated. It reports whether the step may
// still matter.
func (s *step) settle(lan []string, at stage) bool {
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
				c, holds = clause{field: "meta nfproto", op: "==", values: []string{family}}, maybe
			}
		case "ct state":
			holds = c.is(at.state)
		case "ct status":
			holds = c.is(at.are...)
		case tcpFlags:
			if at.state == begins.state {
				holds = c.is(firstPacket)
			}
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
// source to to. Of one that was handed over the kernel has judged all but what sets
// say; any other is judged here. Where it cannot be told, they do not.
func (k *Kernel) Forwards(ctx context.Context, macs []devices.MAC, source netip.Addr, to netip.AddrPort, handed bool) bool {
	f := k.others.Load()
	if f == nil || len(f.base) == 0 || handed && !f.sets {
		return true
	}
	source, to = source.Unmap(), netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	n := Connection{From: leadsTo(source), MACs: macs, Source: source, To: to, Out: leadsTo(to.Addr())}
	n.inSet = func(table, set, element string) tri { return k.setHolds(ctx, table, set, element) }
	o := f.judge(n)
	if o == passes || o == isRefused || !handed {
		return o == passes
	}
	// Where the sets make no difference, what is left open here the kernel knew.
	n.inSet = func(_, _, _ string) tri { return no }
	return f.judge(n) == o
}

// Firewalls tells which rules of others GoesOn goes by, another number for others, and
// whether they have stood for a while: who loads a firewall step by step may refuse
// everything in between.
func (k *Kernel) Firewalls() (which uint64, settled bool) {
	f := k.others.Load()
	if f == nil {
		return 0, false
	}
	return f.running.print, k.now().Sub(f.since) >= settle
}

const settle = 2 * time.Second

// GoesOn reports whether other firewalls let a connection go on that runs. On the plain
// way the kernel asks them with every packet, on ours nobody does. Most let go on what
// has begun, whatever they say of new ones by now; where it cannot be told, it goes on.
func (k *Kernel) GoesOn(ctx context.Context, macs []devices.MAC, source netip.Addr, to netip.AddrPort) bool {
	if _, settled := k.Firewalls(); !settled {
		return true
	}
	f := k.others.Load().running
	if len(f.base) == 0 {
		return true
	}
	source, to = source.Unmap(), netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	n := Connection{From: leadsTo(source), MACs: macs, Source: source, To: to, Out: leadsTo(to.Addr())}
	if f.judge(n) == passes {
		return true
	}
	n.inSet = func(table, set, element string) tri { return k.setHolds(ctx, table, set, element) }
	return f.judge(n) != isRefused
}

// setAnswers remembers what sets of others said, for a device opens connections
// faster than a program can be started.
type setAnswers struct {
	mu    sync.Mutex // held while the kernel is asked: one at a time
	since time.Time
	known map[[3]string]tri
}

const (
	setMemory     = 10 * time.Second
	maxSetAnswers = 4096
)

// setHolds asks the kernel whether a set holds an element.
func (k *Kernel) setHolds(ctx context.Context, table, set, element string) tri {
	m, key := &k.sets, [3]string{table, set, element}
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := k.now(); m.known == nil || now.Sub(m.since) > setMemory || len(m.known) >= maxSetAnswers {
		m.since, m.known = now, map[[3]string]tri{}
	}
	if known, ok := m.known[key]; ok {
		return known
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	holds, err := k.nft.holds(ctx, table, set, element)
	if err != nil {
		k.log.Warn("a set of another firewall cannot be asked", "table", table, "set", set, "error", err)
		return maybe
	}
	m.known[key] = truth(holds)
	return m.known[key]
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

// checkLegacy tells of rules that cannot be asked at all.
func checkLegacy(proc string) (found []Problem) {
	if old := legacyFilters(proc); len(old) > 0 {
		found = append(found, Problem{
			What: "Rules of the older iptables stand in the kernel, which no listing of nftables shows: what they refuse to forward, the proxy would carry for a guarded device.",
			Fix:  strings.Join(old, " and ") + " -S FORWARD; then move such rules to nftables (iptables-translate), or choose no internet for those devices",
		})
	}
	return found
}

// checkFirewalls tells what of other firewalls is not understood, and what comes of it.
func (k *Kernel) checkFirewalls(f *firewalls) (found []Problem) {
	switch last := k.others.Load(); {
	case last != nil && last.unaskable:
		found = append(found, Problem{What: "The rules of another firewall cannot be asked for what it refuses: nothing is handed to the proxy, and guarded devices go straight to the internet.", Fix: "nft list ruleset (and tell us which rules those are)"})
	case len(f.vague) > 0:
		what := fmt.Sprintf("A rule of another firewall cannot be read (%s)", f.vague[0])
		if n := len(f.vague); n > 1 {
			what = fmt.Sprintf("%d rules of other firewalls cannot be read (the first: %s)", n, f.vague[0])
		}
		found = append(found, Problem{What: what + ": connections of guarded devices that it may refuse go straight past the proxy, so that the firewall itself decides."})
	}
	return found
}

// legacyFilters are the programs of the older iptables whose filter table the kernel
// has, as /proc/net tells; with nftables beneath, iptables has none there.
func legacyFilters(proc string) (programs []string) {
	for file, program := range map[string]string{"ip_tables_names": "iptables-legacy", "ip6_tables_names": "ip6tables-legacy"} {
		names, err := os.ReadFile(filepath.Join(proc, file))
		if err == nil && slices.Contains(strings.Fields(string(names)), "filter") {
			programs = append(programs, program)
		}
	}
	slices.Sort(programs)
	return programs
}
