//go:build linux

package enforce

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Another firewall sees what we bring to ourselves as traffic to the router, and
// a guest zone may refuse that: our own chains cannot accept what another table
// refuses. So that table gets rules of ours: passages. They name the LAN
// interfaces, thus open nothing to the internet. What is handed over is let in
// first, for rules about the router's own ports 80 and 443 do not mean it, nor do
// those that look for the way back of a packet by its mark; look-ups are let in last, in place of the zone's refusal, after whatever the
// household wrote about port 53 itself, and so is the explicit proxy's port. A zone
// that the firewall bars from the internet gets none of them. They are put in again when that firewall
// was loaded anew, and Release takes them out.

// passagePrefix begins the comment by which our rules in other tables are known.
const passagePrefix = "netcurtain: "

// place is where a rule goes: at the end of its chain, or before another rule.
type place struct{ How, Chain, At string }

// passages is what passages.nft.tmpl writes.
type passages struct {
	Gone                  []doomed
	HandedOver            []string
	LookupsIn, LookupsOut []place
	ExplicitIn            []place
	Zones, Comment        string
	Deliver               uint32
	Zone, Explicit        uint16
	HasZones              bool
}

// doomed is a rule of ours in another table that is not as it should be.
type doomed struct {
	Chain  string
	Handle uint64
}

// newPassages says which rules the tables of others need, and which are there in
// vain. lan are the interfaces whose devices may go out at all.
func newPassages(r ruleset, s skeleton, lan []string) passages {
	if len(lan) == 0 {
		s.Handover, s.InterceptDNS, s.Ports.Explicit = "", false, 0
	}
	p := passages{
		Zones: "{ " + strings.Join(quoted(lan), ", ") + " }", Deliver: s.Marks.Deliver, Zone: zone, HasZones: s.Zones,
		Explicit: s.Ports.Explicit,
	}
	sum := fnv.New32a()
	fmt.Fprint(sum, p.Zones, p.Deliver, p.HasZones, s.InterceptDNS, p.Explicit)
	p.Comment = fmt.Sprintf("%sbrought to it (%08x)", passagePrefix, sum.Sum32())
	hooks := r.hooks(lan)
	for _, c := range r.chains {
		if foreign(c) {
			p.in(c, hooks[c.id(c.name)], s)
		}
	}
	return p
}

// foreign reports whether a chain may take rules of ours. Those of iptables may
// not: it would not understand its own table any more.
func foreign(c chain) bool {
	ours := c.table == mainTable || c.table == cutTable
	plain := regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
	return !ours && (c.family == "inet" || c.family == "ip" || c.family == "ip6") &&
		c.name != strings.ToUpper(c.name) && plain.MatchString(c.table) && plain.MatchString(c.name)
}

// in adds what chain c needs, which packets pass at this hook.
func (p *passages) in(c chain, hook string, s skeleton) {
	base := c.kind == "filter" && (c.drops || len(c.rules) > 0)
	at, refuses := refusal(c)
	name := c.id(c.name)
	at.Chain = name
	var add passages
	if s.Handover != "" && (base && hook == "input" || c.hook == "prerouting" && slices.ContainsFunc(c.rules, reversePath)) {
		add.HandedOver = []string{name}
	}
	if refuses && s.InterceptDNS && hook == "input" {
		add.LookupsIn = []place{at}
	}
	if refuses && s.InterceptDNS && hook == "output" {
		add.LookupsOut = []place{at}
	}
	if refuses && s.Ports.Explicit != 0 && hook == "input" {
		add.ExplicitIn = []place{at}
	}
	want := len(add.HandedOver) + len(add.LookupsIn) + len(add.LookupsOut) + len(add.ExplicitIn)
	if s.Zones {
		want += len(add.LookupsIn) // those to other resolvers have a rule of their own
	}
	var have []doomed
	sound := true
	for _, r := range c.rules {
		if strings.Contains(r.text, `comment "`+passagePrefix) {
			have = append(have, doomed{name, r.handle})
			sound = sound && strings.Contains(r.text, p.Comment)
		}
	}
	if sound && len(have) == want {
		return
	}
	p.Gone = append(p.Gone, have...)
	p.HandedOver = append(p.HandedOver, add.HandedOver...)
	p.LookupsIn = append(p.LookupsIn, add.LookupsIn...)
	p.LookupsOut = append(p.LookupsOut, add.LookupsOut...)
	p.ExplicitIn = append(p.ExplicitIn, add.ExplicitIn...)
}

// reversePath tells a rule that asks where the answer would go by the packet's mark,
// as firewalld does for IPv6: with ours it would go to the router itself.
func reversePath(r rule) bool { return strings.Contains(r.text, "fib saddr . mark") }

var (
	refusing      = regexp.MustCompile(`\b(drop|reject|(jump|goto) \S*(drop|reject|deny|refuse|block))`)
	unconditional = regexp.MustCompile(`^(meta (l4proto|nfproto) \S+ |ip6? (protocol|nexthdr) \S+ )?(counter( packets \d+ bytes \d+)?|log( (prefix|group|level|flags) ("[^"]*"|\S+))*|limit rate \S+( burst \d+ packets)?|\s)*(drop|reject\b|jump|goto)\b`)
)

// refusal finds where a chain refuses whatever its rules did not speak of.
func refusal(c chain) (at place, refuses bool) {
	at, refuses = place{How: "add"}, c.drops
	for _, r := range slices.Backward(c.rules) {
		if strings.Contains(r.text, `comment "`+passagePrefix) {
			continue
		}
		text, _, _ := strings.Cut(r.text, ` comment "`)
		if !unconditional.MatchString(text) || !refusing.MatchString(text) {
			break
		}
		at, refuses = place{"insert", "", fmt.Sprintf(" position %d", r.handle)}, true
	}
	return at, refuses
}

// hooks tells at which hook packets of these interfaces pass each chain: a base
// chain at its own, and at the same one those to which it leads for them whatever
// else they are, as far as maxJumps. What leads to a refusal is one, and no way on.
func (r ruleset) hooks(lan []string) map[string]string {
	byID := map[string]chain{}
	for _, c := range r.chains {
		byID[c.id(c.name)] = c
	}
	at := map[string]string{}
	var follow func(c chain, hook string, depth int)
	follow = func(c chain, hook string, depth int) {
		if _, told := at[c.id(c.name)]; told || depth > maxJumps {
			return
		}
		at[c.id(c.name)] = hook
		for _, rule := range c.rules {
			m := leadsOn.FindStringSubmatch(rule.text)
			if m == nil || refusing.MatchString(m[0]) || m[1] != "" &&
				!slices.ContainsFunc(listed(m[1]), func(pattern string) bool { return matchesAny(pattern, lan) }) {
				continue
			}
			if to, there := byID[c.id(m[3])]; there {
				follow(to, hook, depth+1)
			}
		}
	}
	for _, c := range r.chains {
		if c.kind == "filter" && (c.hook == "input" || c.hook == "output") {
			follow(c, c.hook, 0)
		}
	}
	return at
}

var leadsOn = regexp.MustCompile(`^(?:[io]ifname ("[^"]*"|\{[^}]*\}) )?(?:counter (?:packets \d+ bytes \d+ )?)?(jump|goto) (\S+)`)

// id names a chain of c's table.
func (c chain) id(name string) string { return c.family + " " + c.table + " " + name }

// matchesAny reports whether an interface name of nft, which may end in *, means one of names.
func matchesAny(pattern string, names []string) bool {
	stem, open := strings.CutSuffix(pattern, "*")
	return slices.ContainsFunc(names, func(n string) bool { return n == pattern || open && strings.HasPrefix(n, stem) })
}

// besideOthers puts our passages into the tables of others where they are missing,
// and our copying before their flow tables.
func (k *Kernel) besideOthers(ctx context.Context, s skeleton, m members) error {
	others, err := k.nft.ruleset(ctx)
	if err != nil {
		return err
	}
	if err := k.besideOffload(ctx, others.flowtables, m, s.NFLOGGroup); err != nil {
		return err
	}
	barred := k.Barred()
	open := slices.DeleteFunc(slices.Clone(m.lan), func(name string) bool { return slices.Contains(barred, name) })
	text, err := execute("passages.nft.tmpl", newPassages(others, s, open))
	if err != nil || text == "" {
		return err
	}
	if err := k.nft.load(ctx, text); err != nil {
		return fmt.Errorf("letting in what we bring to ourselves, beside another firewall: %w", err)
	}
	k.log.Info("another firewall lets in what is brought to us", "rules", strings.Count(text, "\n"))
	return k.freshCount()
}

// removePassages takes our rules out of the tables of others. It needs neither
// nft nor to understand what else those tables say.
func removePassages() (err error) {
	// One that is gone by now, because its table was loaded anew, saves all others.
	for range patience {
		ours, bad := whole(listPassages)
		if bad != nil || len(ours) == 0 {
			return bad
		}
		if err = deleteRules(ours); err == nil {
			return nil
		}
	}
	return fmt.Errorf("enforce: taking our rules out of other tables: %w", err)
}

func deleteRules(all []*nftables.Rule) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	for _, r := range all {
		if err := c.DelRule(r); err != nil {
			return err
		}
	}
	return flush(c)
}

// listPassages asks the kernel for every rule whose comment says it is ours.
func listPassages() (ours []*nftables.Rule, err error) {
	c, err := netlink.Dial(syscall.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("enforce: listing rules: %w", mend(err))
	}
	defer c.Close()
	const getRule = 10<<8 | 7 // NFNL_SUBSYS_NFTABLES, NFT_MSG_GETRULE
	msgs, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: getRule, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, 4), // nfgenmsg of any family
	})
	if err != nil {
		return nil, fmt.Errorf("enforce: listing rules: %w", mend(err))
	}
	for _, m := range msgs {
		if m.Header.Flags&netlink.DumpInterrupted != 0 {
			return nil, errInterrupted
		}
		if len(m.Data) < 4 {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return nil, fmt.Errorf("enforce: reading a rule: %w", err)
		}
		ad.ByteOrder = binary.BigEndian
		r, mine := &nftables.Rule{Chain: &nftables.Chain{}}, false
		r.Table = &nftables.Table{Family: nftables.TableFamily(m.Data[0])}
		for ad.Next() {
			switch ad.Type() {
			case unix.NFTA_RULE_TABLE:
				r.Table.Name = ad.String()
			case unix.NFTA_RULE_CHAIN:
				r.Chain.Name = ad.String()
			case unix.NFTA_RULE_HANDLE:
				r.Handle = ad.Uint64()
			case unix.NFTA_RULE_USERDATA:
				mine = bytes.Contains(ad.Bytes(), []byte(passagePrefix))
			}
		}
		if err := ad.Err(); err != nil {
			return nil, fmt.Errorf("enforce: reading a rule: %w", err)
		}
		if r.Chain.Table = r.Table; mine && r.Table.Name != mainTable && r.Table.Name != cutTable {
			ours = append(ours, r)
		}
	}
	return ours, nil
}
