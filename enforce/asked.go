//go:build linux

package enforce

import (
	"fmt"
	"regexp"
	"strings"
)

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
	case s.aboutSet(): // Forwards asks
		return ""
	case s.do == accept && s.vague, s.do == call && to != nil && (len(to.steps) == 0 || s.vague && !w.f.mayRefuse(to)):
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
