//go:build linux

package enforce

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// checkMarks looks for programs that route by marks of their own, as mwan3 and
// pbr do, and would get in our way: one whose marks hold a bit of ours, one whose
// rule comes before ours, one that uses our table.
func checkMarks(m Marks, others ruleset) []Problem {
	var found []Problem
	for family := range families() {
		rules, err := whole(func() ([]netlink.Rule, error) { return netlink.RuleList(family) })
		if err != nil {
			continue
		}
		found = append(found, ruleCollisions(m, rules)...)
	}
	found = append(found, markCollisions(m, others)...)
	slices.SortFunc(found, func(a, b Problem) int { return strings.Compare(a.What, b.What) })
	return slices.Compact(found) // the same in both families
}

// ruleCollisions are rules of policy routing that do not go together with ours.
func ruleCollisions(m Marks, rules []netlink.Rule) (found []Problem) {
	ours := m.Deliver | m.Ours
	for _, r := range rules {
		mask := uint32(1<<32 - 1)
		if r.Mask != nil {
			mask = *r.Mask
		}
		if r.Mark == 0 && r.Mask == nil {
			mask = 0 // it looks at no mark
		}
		switch {
		case r.Table == m.Table && r.Mark == m.Deliver && mask == m.Deliver:
			// our own
		case r.Table == m.Table:
			found = append(found, Problem{
				What: fmt.Sprintf("Routing table %d is used by somebody else's rule of priority %d: guarded devices could lose their way out.", m.Table, r.Priority),
				Fix:  "option table '4744' in section house of /etc/config/netcurtain, or any number that `ip rule` does not show, then restart netcurtain",
			})
		case r.Mark&mask&ours != 0:
			found = append(found, Problem{
				What: fmt.Sprintf("The routing rule of priority %d goes by mark %#x/%#x, which holds a bit of ours (%#x, %#x): what we mark would be routed by it.", r.Priority, r.Mark, mask, m.Deliver, m.Ours),
				Fix:  markAdvice(ours | mask),
			})
		case r.Priority > 0 && r.Priority < rulePriority && !r.Invert && r.Mark == 0 && r.Src == nil && r.Dst == nil && r.IifName == "" && r.OifName == "" && r.Table != 255 && r.SuppressPrefixlen < 0:
			found = append(found, Problem{
				What: fmt.Sprintf("The routing rule of priority %d comes before ours (%d) and takes everything: the web traffic of guarded devices goes straight to the internet.", r.Priority, rulePriority),
				Fix:  fmt.Sprintf("give that rule a priority above %d: ip rule", rulePriority),
			})
		}
	}
	return found
}

// settingMark finds which bits a rule of nftables writes into marks: all of them
// where it sets a number, else those it adds.
var settingMark = regexp.MustCompile(`(?:meta|ct) mark set (?:(?:meta|ct) mark (?:&|and) 0x[0-9a-f]+ (?:\||or) )?(?:(?:meta|ct) mark (?:\||or|\^|xor) )?(0x[0-9a-f]+)`)

// markCollisions are rules of other tables that write a bit of ours.
func markCollisions(m Marks, others ruleset) (found []Problem) {
	ours := m.Deliver | m.Ours
	for _, c := range others.chains {
		if c.table == mainTable || c.table == cutTable {
			continue
		}
		for _, r := range c.rules {
			for _, match := range settingMark.FindAllStringSubmatch(r.text, -1) {
				v, err := strconv.ParseUint(match[1], 0, 32)
				if err != nil || uint32(v)&ours == 0 {
					continue
				}
				found = append(found, Problem{
					What: fmt.Sprintf("Table %s %s sets mark %#x, which holds a bit of ours (%#x, %#x): traffic that is not ours would be taken for it.", c.family, c.table, v, m.Deliver, m.Ours),
					Fix:  markAdvice(ours | uint32(v)),
				})
			}
		}
	}
	return found
}

// markAdvice names two bits that are free.
func markAdvice(used uint32) string {
	var free []string
	for bit := uint32(1 << 24); bit != 0 && len(free) < 2; bit <<= 1 {
		if used&bit == 0 {
			free = append(free, fmt.Sprintf("%#x", bit))
		}
	}
	if len(free) < 2 {
		return "free two bits of the mark, then name them in section house of /etc/config/netcurtain: option mark_deliver, option mark_ours"
	}
	return fmt.Sprintf("option mark_deliver '%s' and option mark_ours '%s' in section house of /etc/config/netcurtain, then restart netcurtain", free[0], free[1])
}
