package dnsfilter

import (
	"encoding/base64"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/netcurtain/netcurtain/policy/blocklist"
)

// record is a in wire form; nil when its value is none after all, and no packet
// could be made of it.
func (l *lookup) record(a blocklist.Answer, ttl time.Duration) dns.RR {
	rr := recordOf(a, l.header(dns.StringToType[a.Type], ttl))
	if rr != nil {
		if _, err := dns.PackRR(rr, make([]byte, 8<<10), 0, nil, false); err == nil {
			return rr
		}
	}
	l.log.Warn("an answer that a list gives is none", "type", a.Type)
	return nil
}

// recordOf reads the value by its type. The DNS library reads all types, but costs
// 150 KB of flash when it is asked to.
func recordOf(a blocklist.Answer, hdr dns.RR_Header) dns.RR {
	words := strings.Fields(a.Value)
	switch a.Type {
	case "A", "AAAA":
		addr, err := netip.ParseAddr(a.Value)
		switch {
		case err != nil:
			return nil
		case a.Type == "A":
			return &dns.A{Hdr: hdr, A: addr.AsSlice()}
		}
		as16 := addr.As16()
		return &dns.AAAA{Hdr: hdr, AAAA: as16[:]}
	case "CNAME":
		return &dns.CNAME{Hdr: hdr, Target: dns.Fqdn(a.Value)}
	case "PTR":
		return &dns.PTR{Hdr: hdr, Ptr: dns.Fqdn(a.Value)}
	case "TXT":
		t := &dns.TXT{Hdr: hdr}
		for s := range slices.Chunk([]byte(a.Value), 255) { // RFC 1035 §3.3
			t.Txt = append(t.Txt, strings.ReplaceAll(string(s), `\`, `\\`))
		}
		return t
	case "MX":
		if n, ok := numbers(words, 1); ok {
			return &dns.MX{Hdr: hdr, Preference: n[0], Mx: dns.Fqdn(words[1])}
		}
	case "SRV":
		if n, ok := numbers(words, 3); ok {
			return &dns.SRV{Hdr: hdr, Priority: n[0], Weight: n[1], Port: n[2], Target: dns.Fqdn(words[3])}
		}
	case "HTTPS", "SVCB":
		n, ok := numbers(words, 1)
		if !ok {
			return nil
		}
		svcb := dns.SVCB{Hdr: hdr, Priority: n[0], Target: dns.Fqdn(words[1])}
		if svcb.Value, ok = serviceParams(words[2:]); !ok {
			return nil
		}
		if a.Type == "HTTPS" {
			return &dns.HTTPS{SVCB: svcb}
		}
		return &svcb
	}
	return nil
}

// numbers reads the first n of words; at least one further must follow.
func numbers(words []string, n int) (out [3]uint16, ok bool) {
	if len(words) <= n {
		return out, false
	}
	for i := range n {
		v, err := strconv.ParseUint(words[i], 10, 16)
		if err != nil {
			return out, false
		}
		out[i] = uint16(v)
	}
	return out, true
}

// serviceParams reads the parameters of RFC 9460 §7 and RFC 9461 §5. One that is
// not understood makes the whole record none: it might be mandatory.
func serviceParams(words []string) (params []dns.SVCBKeyValue, ok bool) {
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		value = strings.Trim(value, `"`)
		p := serviceParam(key, value)
		if p == nil || slices.ContainsFunc(params, func(o dns.SVCBKeyValue) bool { return o.Key() == p.Key() }) {
			return nil, false
		}
		params = append(params, p)
	}
	return params, true
}

func serviceParam(key, value string) dns.SVCBKeyValue {
	list := strings.Split(value, ",")
	switch key {
	case "mandatory":
		p := &dns.SVCBMandatory{}
		for _, name := range list {
			one := serviceKey(name)
			if one == 0 {
				return nil
			}
			p.Code = append(p.Code, one)
		}
		return p
	case "alpn":
		if slices.Contains(list, "") {
			return nil
		}
		return &dns.SVCBAlpn{Alpn: list}
	case "no-default-alpn":
		if value == "" {
			return &dns.SVCBNoDefaultAlpn{}
		}
	case "port":
		if n, err := strconv.ParseUint(value, 10, 16); err == nil {
			return &dns.SVCBPort{Port: uint16(n)}
		}
	case "ipv4hint":
		if ips, ok := hints(list, netip.Addr.Is4); ok {
			return &dns.SVCBIPv4Hint{Hint: ips}
		}
	case "ipv6hint":
		if ips, ok := hints(list, netip.Addr.Is6); ok {
			return &dns.SVCBIPv6Hint{Hint: ips}
		}
	case "ech":
		if b, err := base64.StdEncoding.DecodeString(value); err == nil && len(b) > 0 {
			return &dns.SVCBECHConfig{ECH: b}
		}
	case "dohpath":
		return &dns.SVCBDoHPath{Template: value}
	}
	return nil
}

func serviceKey(name string) dns.SVCBKey {
	switch name {
	case "alpn":
		return dns.SVCB_ALPN
	case "no-default-alpn":
		return dns.SVCB_NO_DEFAULT_ALPN
	case "port":
		return dns.SVCB_PORT
	case "ipv4hint":
		return dns.SVCB_IPV4HINT
	case "ech":
		return dns.SVCB_ECHCONFIG
	case "ipv6hint":
		return dns.SVCB_IPV6HINT
	case "dohpath":
		return dns.SVCB_DOHPATH
	}
	return 0
}

func hints(list []string, family func(netip.Addr) bool) (ips []net.IP, ok bool) {
	for _, s := range list {
		a, err := netip.ParseAddr(s)
		if err != nil || !family(a) || a.Zone() != "" {
			return nil, false
		}
		ips = append(ips, a.AsSlice())
	}
	return ips, true
}
