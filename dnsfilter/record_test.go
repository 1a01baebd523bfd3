package dnsfilter

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/policy/blocklist"
)

// Whatever a list says, what is made of it fits a packet, and is read back as it was.
func FuzzRecord(f *testing.F) {
	for _, a := range []blocklist.Answer{
		{Type: "A", Value: "192.0.2.1"}, {Type: "AAAA", Value: "::ffff:192.0.2.1"}, {Type: "AAAA", Value: "fe80::1%lo0"},
		{Type: "CNAME", Value: "x.example"}, {Type: "PTR", Value: "x.example."}, {Type: "TXT", Value: `v=spf1 "a\b" ; -all`},
		{Type: "MX", Value: "10 mail.example"}, {Type: "SRV", Value: "1 2 3 ."}, {Type: "SRV", Value: "1 2 3"},
		{Type: "HTTPS", Value: "1 . alpn=h2,h3 no-default-alpn port=443 ipv4hint=192.0.2.1 ipv6hint=::1 ech=AEX+DQ== mandatory=alpn"},
		{Type: "SVCB", Value: "1 x.example dohpath=/q{?dns} alpn=,"}, {Type: "HTTPS", Value: "0 . mandatory=mandatory,key5"},
	} {
		f.Add(a.Type, a.Value)
	}
	fil := newFilter(f, blocking(), nil)
	f.Fuzz(func(t *testing.T, kind, value string) {
		l := &lookup{filter: fil, r: query("x.example.", dns.StringToType[kind]), name: "x.example"}
		l.q = l.r.Question[0]
		m := l.answered(&policy.Answers{Records: []blocklist.Answer{{Type: kind, Value: value}}})
		wire, err := m.Pack()
		if err != nil {
			t.Fatalf("%s %q makes no packet: %v", kind, value, err)
		}
		var back dns.Msg
		if err := back.Unpack(wire); err != nil {
			t.Fatalf("%s %q makes a packet that nobody reads: %v", kind, value, err)
		}
		if len(back.Answer) != len(m.Answer) {
			t.Fatalf("%s %q: %d records were sent, %d arrived", kind, value, len(m.Answer), len(back.Answer))
		}
	})
}
