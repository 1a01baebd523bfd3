//go:build linux

package enforce

import (
	"strconv"
	"strings"
)

// ruleset is what we need to know of the tables of others, as nft lists them.
type ruleset struct {
	chains     []chain
	flowtables []flowtable
}

type chain struct {
	family, table, name string
	kind, hook          string // "filter", "input"; both "" where the chain is only jumped to
	drops               bool   // its policy
	rules               []rule
}

type rule struct {
	text   string // without its handle
	handle uint64
}

type flowtable struct {
	family, table, name string
	devices             []string
	hardware            bool // flags offload
	counter             bool // connection tracking still counts what it forwards
}

// parseRuleset reads what `nft -a list ruleset` says. It takes what it knows and
// leaves the rest: other programs' tables hold whatever their nft can say.
func parseRuleset(text string) (r ruleset) {
	var family, table string
	var in string // the kind of block inside a table, "" between two
	for line := range strings.Lines(text) {
		line, handle := cutHandle(strings.TrimSpace(line))
		words := strings.Fields(line)
		switch {
		case len(words) == 0:
		case line == "}" && in != "":
			in = ""
		case line == "}":
			family, table = "", ""
		case in == "" && words[0] == "table" && len(words) >= 4:
			family, table = words[1], words[2]
		case in == "" && words[len(words)-1] == "{" && len(words) >= 3:
			switch in = words[0]; in {
			case "chain":
				r.chains = append(r.chains, chain{family: family, table: table, name: words[1]})
			case "flowtable":
				r.flowtables = append(r.flowtables, flowtable{family: family, table: table, name: words[1]})
			}
		case in == "chain":
			r.chains[len(r.chains)-1].read(line, words, handle)
		case in == "flowtable":
			r.flowtables[len(r.flowtables)-1].read(line, words)
		}
	}
	return r
}

func (c *chain) read(line string, words []string, handle uint64) {
	if words[0] == "type" && len(words) > 3 && words[2] == "hook" {
		c.kind, c.hook = words[1], words[3]
		c.drops = strings.Contains(line, "policy drop")
		return
	}
	c.rules = append(c.rules, rule{line, handle})
}

func (f *flowtable) read(line string, words []string) {
	switch words[0] {
	case "devices":
		_, list, _ := strings.Cut(line, "=")
		f.devices = listed(list)
	case "flags":
		f.hardware = strings.Contains(line, "offload")
	case "counter", "counter;":
		f.counter = true
	}
}

// listed are the members of { "a", "b" }, or the one that stands alone.
func listed(s string) (all []string) {
	s = strings.Trim(s, " {};")
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.Trim(part, " \t\""); part != "" {
			all = append(all, part)
		}
	}
	return all
}

// cutHandle takes "# handle 12" off the end of a line.
func cutHandle(line string) (string, uint64) {
	text, number, ok := strings.Cut(line, " # handle ")
	if !ok {
		return line, 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 64)
	if err != nil {
		return line, 0 // somebody's comment that only looks like it
	}
	return strings.TrimSpace(text), n
}
