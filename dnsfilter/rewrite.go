package dnsfilter

import (
	"context"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
)

// maxLed is to how many names one question may be led, one after the other.
const maxLed = 8

// rewrite answers with what a list says.
func (l *lookup) rewrite(ctx context.Context, v policy.Verdict) error {
	if target, ok := v.Rewrite.Canonical(); ok && l.q.Qtype != dns.TypeCNAME {
		if isHurried(l.w) {
			return nil // policy is asked again, and most often the world
		}
		return l.follow(ctx, target)
	}
	m := l.answered(v.Rewrite)
	explain(m, l.r, dns.ExtendedErrorCodeForgedAnswer, because(v))
	l.teach(m.Answer)
	return l.write(m, v, policy.LayerDNS)
}

// follow looks target up as if the device had asked for it, so that it is judged
// as that, and answers with what comes, behind a CNAME that leads there.
func (l *lookup) follow(ctx context.Context, target dnsname.Name) error {
	led := 1
	for p := l; p != nil; p = p.from {
		if led++; p.name == target || led > maxLed {
			m := reply(l.r, dns.RcodeServerFailure)
			explain(m, l.r, dns.ExtendedErrorCodeInvalidData, "rewriting rules lead in a circle; "+because(l.verdict))
			return l.write(m, l.verdict, policy.LayerDNS)
		}
	}
	to := *l
	to.from, to.name, to.verdict = l, target, policy.Verdict{}
	to.filter = &filter{Server: l.Server, next: l.chains.of(l.zones, target, l.next)}
	to.q.Name = string(target) + "."
	to.r = l.r.Copy()
	to.r.Question[0] = to.q
	to.judge()
	return to.settle(ctx)
}

// led answers l with what its target was answered with. What of it was blocked,
// is blocked.
func (l *lookup) led(to *lookup, m *dns.Msg, v policy.Verdict, layer policy.Layer) error {
	if v.Action == policy.Block {
		return l.write(l.blocked(v), v, layer)
	}
	c := *m // which may be shared with the cache
	c.Question = l.r.Question
	if c.Rcode == dns.RcodeSuccess || c.Rcode == dns.RcodeNameError {
		cname := &dns.CNAME{Hdr: l.header(dns.TypeCNAME, l.cfg.BlockTTL), Target: to.q.Name}
		c.Answer = append([]dns.RR{cname}, m.Answer...)
		explain(&c, l.r, dns.ExtendedErrorCodeForgedAnswer, because(l.verdict))
	}
	return l.write(&c, l.verdict, policy.LayerDNS)
}

// answered makes an answer of a's records that fit the question. A response code
// stands for all of them; without any that fit, there is no such data.
func (l *lookup) answered(a *policy.Answers) *dns.Msg {
	ttl := l.cfg.BlockTTL
	var rrs []dns.RR
	for _, r := range a.Records {
		switch code := dns.StringToRcode[r.Value]; {
		case r.Type == "RCODE" && code == dns.RcodeNameError:
			return negative(l.r, code, l.name.Parent(), ttl)
		case r.Type == "RCODE" && code == dns.RcodeSuccess:
			return negative(l.r, code, l.name, ttl)
		case r.Type == "RCODE":
			return reply(l.r, code)
		case r.Type == dns.TypeToString[l.q.Qtype]:
			if rr := l.record(r, ttl); rr != nil {
				rrs = append(rrs, rr)
			}
		}
	}
	if len(rrs) == 0 {
		return negative(l.r, dns.RcodeSuccess, l.name, ttl)
	}
	m := reply(l.r, dns.RcodeSuccess)
	m.Answer = rrs
	return m
}

func (l *lookup) header(kind uint16, ttl time.Duration) dns.RR_Header {
	return dns.RR_Header{Name: l.q.Name, Rrtype: kind, Class: dns.ClassINET, Ttl: seconds(ttl)}
}

// chains are the ways on from the filter: to the world, and to the house's own
// resolver, which has its own names.
type chains struct{ world, house chain }

type chain struct{ handler plugin.Handler }

// of is the way for name; other where the server runs without chains of its own.
func (c *chains) of(z zones, name dnsname.Name, other plugin.Handler) plugin.Handler {
	switch {
	case c.isOfHouse(z, name):
		return c.house.handler
	case c.world.handler != nil:
		return c.world.handler
	}
	return other
}

// isOfHouse reports whether the house's own resolver is asked for name.
func (c *chains) isOfHouse(z zones, name dnsname.Name) bool {
	return c.house.handler != nil && (z.isLocal(name) || z.isPrivate(name))
}
