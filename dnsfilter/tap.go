package dnsfilter

import (
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
)

// maxLearn bounds how many addresses one answer may teach.
const maxLearn = 64

// answerTap sees the answer before the client does: policy is asked about what
// stands in it, and names are learned from it.
type answerTap struct {
	dns.ResponseWriter
	lookup  *lookup
	verdict policy.Verdict // of the question
	wrote   bool
}

// WriteMsg implements dns.ResponseWriter. m may be shared with the cache, so it
// is never changed.
func (t *answerTap) WriteMsg(m *dns.Msg) error {
	t.wrote = true
	l := t.lookup
	v, err := t.judge(m)
	switch {
	case err != nil:
		fail := reply(l.r, dns.RcodeServerFailure)
		explain(fail, l.r, dns.ExtendedErrorCodeInvalidData, "the answer leads to a name that is too long once written out")
		return l.write(fail, t.verdict, policy.LayerAnswer)
	case v.Action == policy.Block:
		return l.write(l.blocked(v), v, policy.LayerAnswer)
	case v.Noted && !t.verdict.Noted:
		t.verdict = v
	}
	l.teach(m.Answer)
	return l.write(t.outgoing(m), t.verdict, policy.LayerDNS)
}

// outgoing is m as the client may see it: the upstream's options were meant for
// us, but for the reasons of its errors.
func (t *answerTap) outgoing(m *dns.Msg) *dns.Msg {
	o := m.IsEdns0()
	failed := m.Rcode == dns.RcodeServerFailure
	if (o == nil || len(o.Option) == 0) && !failed {
		return m
	}
	c := *m
	c.Extra = keepOptions(m.Extra, isEDE)
	if o := c.IsEdns0(); failed && (o == nil || len(o.Option) == 0) {
		explain(&c, t.lookup.r, dns.ExtendedErrorCodeOther, "the upstream resolver failed")
	}
	return &c
}

func isEDE(e dns.EDNS0) bool { return e.Option() == dns.EDNS0EDE }

// judge asks policy about every name and address in the answer and gives the
// first verdict that blocks, else the first that was noted. A target
// without a normal form cannot be judged, which is an error.
func (t *answerTap) judge(m *dns.Msg) (policy.Verdict, error) {
	l := t.lookup
	var noted policy.Verdict
	ask := func(name dnsname.Name, qtype uint16, a netip.Addr) bool {
		v := l.decide(policy.LayerAnswer, name, qtype, a)
		if v.Action == policy.Block || v.Noted && !noted.Noted {
			noted = v
		}
		return v.Action == policy.Block
	}
	// The router's own resolver may well answer with private addresses.
	local := l.zones.isLocal(l.name)
	for _, rr := range m.Answer {
		if target := targetOf(rr); target != "" {
			name, err := dnsname.Parse(target)
			if err != nil {
				return policy.Verdict{}, err
			}
			if name != "" && ask(name, rr.Header().Rrtype, netip.Addr{}) {
				return noted, nil
			}
		}
		if local {
			continue
		}
		for a := range addrsOf(rr) {
			owner, err := l.ownerOf(rr)
			if err != nil {
				return policy.Verdict{}, err
			}
			if ask(owner, rr.Header().Rrtype, a) {
				return noted, nil
			}
		}
	}
	return noted, nil
}

// teach says which addresses the device got for the name that it asked for.
func (l *lookup) teach(answer []dns.RR) {
	if l.cfg.Names == nil {
		return
	}
	asked := l
	for asked.from != nil {
		asked = asked.from
	}
	n := 0
	for _, rr := range answer {
		for a := range addrsOf(rr) {
			if n++; n > maxLearn {
				return
			}
			l.cfg.Names.Learn(l.device.ID, asked.name, a, time.Duration(rr.Header().Ttl)*time.Second)
		}
	}
}

// ownerOf is the name that rr belongs to: most often the one that was asked for.
func (l *lookup) ownerOf(rr dns.RR) (dnsname.Name, error) {
	if rr.Header().Name == l.q.Name {
		return l.name, nil
	}
	return dnsname.Parse(rr.Header().Name)
}

// targetOf is the name that rr leads to, "" when it leads nowhere.
func targetOf(rr dns.RR) string {
	switch rr := rr.(type) {
	case *dns.CNAME:
		return rr.Target
	case *dns.DNAME:
		return rr.Target
	case *dns.HTTPS:
		return rr.Target
	case *dns.SVCB:
		return rr.Target
	}
	return ""
}

// addrsOf yields the addresses that rr gives, the hints of HTTPS and SVCB
// records (RFC 9460 §7.3) among them.
func addrsOf(rr dns.RR) func(yield func(netip.Addr) bool) {
	return func(yield func(netip.Addr) bool) {
		one := func(ip net.IP) bool {
			a, ok := netip.AddrFromSlice(ip)
			return !ok || yield(a.Unmap())
		}
		var svcb *dns.SVCB
		switch rr := rr.(type) {
		case *dns.A:
			one(rr.A)
			return
		case *dns.AAAA:
			one(rr.AAAA)
			return
		case *dns.HTTPS:
			svcb = &rr.SVCB
		case *dns.SVCB:
			svcb = rr
		default:
			return
		}
		for _, kv := range svcb.Value {
			var hint []net.IP
			switch kv := kv.(type) {
			case *dns.SVCBIPv4Hint:
				hint = kv.Hint
			case *dns.SVCBIPv6Hint:
				hint = kv.Hint
			}
			for _, ip := range hint {
				if !one(ip) {
					return
				}
			}
		}
	}
}
