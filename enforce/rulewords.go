//go:build linux

package enforce

import (
	"regexp"
	"slices"
	"strings"
)

// Readable are the conditions that are understood: those of packets as the kernel
// compares them, and what is settled beforehand.
var (
	readable = regexp.MustCompile(`^((iifname|oifname|iif|oif)|(ip|ip6) (saddr|daddr)|ip protocol|ip6 nexthdr|ether saddr|(tcp|th|udp) (sport|dport)|(icmp|icmpv6) (type|code)|meta (l4proto|nfproto|hour|day|time)|ct (state|status|direction))$`)
	// plainValue keeps out whatever could break out of a line.
	plainValue = regexp.MustCompile(`^("[A-Za-z0-9 ._:@*+-]*"(-"[0-9 :-]*")?|[A-Za-z0-9.:/*-]+)$`)
	// setOf are the conditions that may name a set, for it can be asked for them.
	setOf     = regexp.MustCompile(`^((ip|ip6) (saddr|daddr)|ether saddr)$`)
	plainSet  = regexp.MustCompile(`^@[A-Za-z][A-Za-z0-9/\\_.-]{0,250}$`)
	operators = []string{"==", "!=", "<", "<=", ">", ">="}
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
			if field == tcpFlags {
				c, rest, ok = readFlags(words[2:])
			}
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
	if setOf.MatchString(field) && plainSet.MatchString(value) {
		c.values = []string{value}
		return c, words[1:], true
	}
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

// tcpFlags is a condition of what kind of TCP packet it is. We ask about the first one
// of a connection alone, so it is settled while it is read: its one value is firstPacket
// where that one fits.
const tcpFlags, firstPacket = "tcp flags", "syn"

// readFlags reads what follows "tcp flags" as nft writes it: syn, != syn / fin,syn,rst,ack,
// ! fin,rst, & (fin | syn) == syn.
func readFlags(words []string) (c clause, rest []string, ok bool) {
	take := func(options ...string) (word string) {
		if len(words) > 0 && (len(options) == 0 || slices.Contains(options, words[0])) {
			word, words = words[0], words[1:]
		}
		return word
	}
	operand := func() (bits uint8, ok bool) {
		text := take()
		if strings.HasPrefix(text, "(") {
			for !strings.HasSuffix(text, ")") && len(words) > 0 {
				text += take()
			}
		}
		for take("|") != "" {
			text += "|" + take()
		}
		return flagBits(strings.Trim(text, "()"))
	}
	mask, value, ok := uint8(0xff), uint8(0), true
	op := take("==", "!=", "!", "&")
	if op == "&" {
		mask, ok = operand()
		op = take("==", "!=")
		ok = ok && op != ""
	}
	value, isFlags := operand()
	if ok = ok && isFlags; !ok {
		return c, nil, false
	}
	masked := mask != 0xff
	if take("/") != "" {
		mask, ok = operand()
		masked = true
	}
	fits := func(packet uint8) bool {
		switch {
		case op == "!":
			return packet&value == 0
		case op == "!=":
			return packet&mask != value
		case op == "==" || masked:
			return packet&mask == value
		}
		return packet&value != 0
	}
	const syn, ecn = 0x02, 0xc0
	c = clause{field: tcpFlags, op: "==", values: []string{""}}
	if fits(syn) {
		c.values[0] = firstPacket
	}
	return c, words, ok && fits(syn) == fits(syn|ecn)
}

func flagBits(text string) (bits uint8, ok bool) {
	if text == "0x0" || text == "0" {
		return 0, true
	}
	for name := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '|' || r == ' ' }) {
		i := slices.Index([]string{"fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"}, name)
		if i < 0 {
			return 0, false
		}
		bits |= 1 << i
	}
	return bits, bits != 0
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
