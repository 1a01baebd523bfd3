package policy

import "fmt"

// Hello is how far the first bytes of a guarded connection told its name.
type Hello uint8

const (
	HelloRead       Hello = iota // the name was read, or none is expected
	HelloUnfinished              // began as TLS and never ended, or is too long to be read
	HelloNameless                // without server_name (RFC 6066 §3)
	HelloHidden                  // the name is the outer one of an encrypted hello (RFC 9849)
	HelloNotTLS                  // on TCP 443, and something else than TLS
	HelloSilent                  // the client says nothing: it waits for the server to speak first
	hellos
)

// String is the word that a Verdict's Rule begins with.
func (h Hello) String() string {
	switch h {
	case HelloRead:
		return "name read"
	case HelloUnfinished:
		return "unfinished hello"
	case HelloNameless:
		return "hello without a name"
	case HelloHidden:
		return "hidden name"
	case HelloNotTLS:
		return "not TLS"
	case HelloSilent:
		return "silent client"
	}
	return ""
}

// HelloRule is what becomes of a connection whose name could not be read. The
// household's own rules about the name that the device looked up for the address
// come first in any case.
type HelloRule uint8

const (
	HelloShipped   HelloRule = iota // what ShippedHellos says
	HelloByAddress                  // judged by the name that the device looked up for the address
	HelloCarry                      // carried, whatever the lists say of that name
	HelloRefuse                     // refused
)

// String is the word of the settings file.
func (r HelloRule) String() string {
	switch r {
	case HelloByAddress:
		return "by-address"
	case HelloCarry:
		return "carry"
	case HelloRefuse:
		return "refuse"
	}
	return ""
}

// ParseHelloRule reads the word of the settings file.
func ParseHelloRule(s string) (HelloRule, error) {
	for r := HelloByAddress; r <= HelloRefuse; r++ {
		if s == r.String() {
			return r, nil
		}
	}
	return 0, fmt.Errorf("%.40q: one of by-address, carry, refuse is needed", s)
}

// Hellos is a HelloRule for each Hello.
type Hellos [hellos]HelloRule

// ShippedHellos breaks nothing that works: only a hello that never ends, which no
// server could answer either, is refused.
func ShippedHellos() Hellos {
	return Hellos{
		HelloUnfinished: HelloRefuse, HelloNameless: HelloByAddress, HelloHidden: HelloByAddress,
		HelloNotTLS: HelloByAddress, HelloSilent: HelloByAddress,
	}
}

// complete puts the shipped rule where none was chosen.
func (h Hellos) complete() Hellos {
	for i, shipped := range ShippedHellos() {
		if h[i] == HelloShipped {
			h[i] = shipped
		}
	}
	return h
}

// verdicts are what the rules say, made once; Undecided where the name decides.
func (h Hellos) verdicts() (v [hellos]Verdict) {
	for kind, rule := range h.complete() {
		v[kind] = Verdict{Reason: ReasonUnread, Rule: Hello(kind).String() + ": " + rule.String(), List: ListUnread}
		switch {
		case Hello(kind) == HelloRead:
		case rule == HelloCarry:
			v[kind].Action = Allow
		case rule == HelloRefuse:
			v[kind].Action = Block
		}
	}
	return v
}

// ofHello is what the rule for unread names says of q; ok is false where the name
// decides: by the household's own rule about it, or by the lists.
func (s *Set) ofHello(q *Query) (v Verdict, ok bool) {
	if q.Hello >= hellos || s.hellos[q.Hello].Action == Undecided || s.byRule(q, q.Name).Action != Undecided {
		return v, false
	}
	v = s.hellos[q.Hello]
	if v.Action == Allow {
		// A request has a name of its own, on port 443 too. A resolver stays closed.
		_, door := s.doorOf(q)
		return v, q.Layer != LayerHTTP && !door
	}
	return v, true
}
