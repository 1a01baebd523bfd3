package blocklist

import (
	"fmt"
	"strings"
)

// parse reads one line on its own.
func parse(line string, emit func(parsed)) (reason string) {
	p := lineParser{emit: func(p parsed) string { emit(p); return "" }}
	return p.line(strings.TrimRight(line, "\r\n"))
}

// sayRule is a rule in words, for tables.
func sayRule(r *rule) string {
	var b strings.Builder
	if r.allow {
		b.WriteString("allow ")
	}
	kinds := [...]string{"any", "exact", "below", "subtree", "wild", "regexp"}
	b.WriteString(kinds[r.kind])
	if r.kind == wildName {
		b.WriteString([...]string{"", ".label", ".start"}[r.start])
		if r.end {
			b.WriteString(".end")
		}
	}
	fmt.Fprintf(&b, " %s", r.pattern.text)
	if r.important {
		b.WriteString(" important")
	}
	if r.bad {
		b.WriteString(" bad")
	}
	for _, t := range r.types {
		fmt.Fprintf(&b, " type%s%d", not(t.not), t.kind)
	}
	for _, c := range r.clients {
		fmt.Fprintf(&b, " client%s%d:%q", not(c.not), c.kind, c.text)
	}
	for _, t := range r.tags {
		fmt.Fprintf(&b, " tag%s%s", not(t.not), t.text)
	}
	for _, n := range r.deny {
		fmt.Fprintf(&b, " deny=%s", n)
	}
	switch r.rewrite {
	case rewriteOne:
		fmt.Fprintf(&b, " rewrite %s", r.answer)
	case rewriteAll:
		b.WriteString(" rewrite all")
	case hostsLine:
		fmt.Fprintf(&b, " hosts %s", r.answer)
	}
	return b.String()
}

func not(n bool) string {
	if n {
		return "!="
	}
	return "="
}
