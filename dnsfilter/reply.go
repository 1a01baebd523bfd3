package dnsfilter

import (
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
)

// maxExtraText bounds what we write beside an error code, in octets: the answer
// must fit a packet, and the rule may be anybody's.
const maxExtraText = 160

// blocked is the household's answer to a question that v blocks.
func (l *lookup) blocked(v policy.Verdict) *dns.Msg {
	m := l.blockedShape(v)
	code := dns.ExtendedErrorCodeBlocked
	if v.Reason == policy.ReasonRule || v.Reason == policy.ReasonMode {
		code = dns.ExtendedErrorCodeFiltered // at the household's own request (RFC 8914 §4.18)
	}
	explain(m, l.r, code, because(v))
	return m
}

func (l *lookup) blockedShape(v policy.Verdict) *dns.Msg {
	ttl := l.cfg.BlockTTL
	if v.Rewrite != nil {
		return l.answered(v.Rewrite)
	}
	if v.Reason == policy.ReasonSideDoor {
		// Canary names work by "no such name" and nothing else; the discovery of
		// designated resolvers by "no such data" (RFC 9462 §6.4).
		if l.name.IsAtOrBelow("resolver.arpa") {
			return negative(l.r, dns.RcodeSuccess, l.name, ttl)
		}
		return negative(l.r, dns.RcodeNameError, l.name.Parent(), ttl)
	}
	switch l.cfg.BlockAnswer {
	case BlockRefused:
		return reply(l.r, dns.RcodeRefused)
	case BlockNoData:
		return negative(l.r, dns.RcodeSuccess, l.name, ttl)
	case BlockNull:
		hdr := dns.RR_Header{Name: l.q.Name, Rrtype: l.q.Qtype, Class: dns.ClassINET, Ttl: seconds(ttl)}
		m := reply(l.r, dns.RcodeSuccess)
		switch l.q.Qtype {
		case dns.TypeA:
			m.Answer = []dns.RR{&dns.A{Hdr: hdr, A: net.IPv4zero}}
		case dns.TypeAAAA:
			m.Answer = []dns.RR{&dns.AAAA{Hdr: hdr, AAAA: net.IPv6zero}}
		default:
			return negative(l.r, dns.RcodeSuccess, l.name, ttl)
		}
		return m
	}
	return negative(l.r, dns.RcodeNameError, l.name.Parent(), ttl)
}

// reply begins an answer of ours: recursion is available, nothing is authoritative.
func reply(r *dns.Msg, rcode int) *dns.Msg {
	m := new(dns.Msg)
	m.SetRcode(r, rcode)
	m.RecursionAvailable = true
	return m
}

// negative is an answer without data. Its SOA lets the client keep it for ttl
// (RFC 2308 §5); without one, some clients ask again and again.
func negative(r *dns.Msg, rcode int, zone dnsname.Name, ttl time.Duration) *dns.Msg {
	m := reply(r, rcode)
	t := seconds(ttl)
	m.Ns = []dns.RR{&dns.SOA{
		Hdr: dns.RR_Header{Name: string(zone) + ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: t},
		Ns:  "localhost.", Mbox: "nobody.invalid.",
		Serial: 1, Refresh: 3600, Retry: 1200, Expire: 604800, Minttl: t,
	}}
	return m
}

// minimalANY answers ANY with one record that says nothing (RFC 8482 §4.2).
func minimalANY(r *dns.Msg) *dns.Msg {
	m := reply(r, dns.RcodeSuccess)
	m.Answer = []dns.RR{&dns.HINFO{
		Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeHINFO, Class: dns.ClassINET, Ttl: 3600},
		Cpu: "RFC8482",
	}}
	return m
}

// explain adds an Extended DNS Error (RFC 8914) where the client can read one.
func explain(m, r *dns.Msg, code uint16, text string) {
	o := r.IsEdns0()
	if o == nil {
		return
	}
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	opt.SetUDPSize(o.UDPSize())
	opt.Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: code, ExtraText: text}}
	extra := make([]dns.RR, 0, len(m.Extra)+1)
	for _, rr := range m.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			extra = append(extra, rr)
		}
	}
	m.Extra = append(extra, opt)
}

// because says in words why v was made. Rules and list names are other people's
// text: only printable ASCII is let through, and only so much of it.
func because(v policy.Verdict) string {
	var b strings.Builder
	b.WriteString(v.Reason.String())
	if v.List != "" {
		b.WriteString("; list ")
		b.WriteString(v.List)
	}
	if v.Rule != "" {
		b.WriteString("; rule ")
		b.WriteString(v.Rule)
	}
	s := b.String()
	if len(s) > maxExtraText {
		s = s[:maxExtraText]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// withoutOptions is r without its EDNS options. r itself stays as it is.
func withoutOptions(r *dns.Msg) *dns.Msg {
	o := r.IsEdns0()
	if o == nil || len(o.Option) == 0 {
		return r
	}
	c := *r
	c.Extra = keepOptions(r.Extra, func(dns.EDNS0) bool { return false })
	return &c
}

// keepOptions copies rrs with an OPT record that has only the options that keep
// wants.
func keepOptions(rrs []dns.RR, keep func(dns.EDNS0) bool) []dns.RR {
	out := make([]dns.RR, len(rrs))
	for i, rr := range rrs {
		if o, ok := rr.(*dns.OPT); ok {
			c := &dns.OPT{Hdr: o.Hdr}
			for _, e := range o.Option {
				if keep(e) {
					c.Option = append(c.Option, e)
				}
			}
			rr = c
		}
		out[i] = rr
	}
	return out
}

func seconds(d time.Duration) uint32 { return uint32(max(d/time.Second, 1)) }
