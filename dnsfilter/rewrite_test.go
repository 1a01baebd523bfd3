package dnsfilter

import (
	"context"
	"strings"
	"testing"

	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/policy/blocklist"
)

// rewriting is a house with one list of its own and one from the internet.
func rewriting(tb testing.TB, own, theirs string) *policy.Engine {
	tb.Helper()
	index, _, err := blocklist.Compile(
		blocklist.Text{Source: blocklist.Source{Name: "own"}, Text: strings.NewReader(own)},
		blocklist.Text{Source: blocklist.Source{Name: "theirs"}, Text: strings.NewReader(theirs)},
	)
	if err != nil {
		tb.Fatal(err)
	}
	set, err := policy.Compile(policy.Config{Index: index, Rewriters: index.Mask("own"), LocalZones: []dnsname.Name{"lan"}})
	if err != nil {
		tb.Fatal(err)
	}
	return policy.NewEngine(set)
}

// answeringFrom is the rest of the chain: it answers names with addresses of its own, and counts.
func answeringFrom(table map[string]string) (plugin.Handler, *[]string) {
	var asked []string
	return plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		q := r.Question[0]
		asked = append(asked, q.Name)
		m := new(dns.Msg).SetReply(r)
		if text := table[strings.ToLower(q.Name)]; text == "" {
			m.Rcode = dns.RcodeNameError
		} else if rr, err := dns.NewRR(text); err == nil && rr.Header().Rrtype == q.Qtype {
			m.Answer = []dns.RR{rr}
		}
		return dns.RcodeSuccess, w.WriteMsg(m)
	}), &asked
}

// text is an answer in one line: rcode, then the records as zone files write them.
func text(m *dns.Msg) string {
	words := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		words = append(words, strings.Join(strings.Fields(rr.String()), " "))
	}
	return strings.Join(words, " | ")
}

func TestRewrites(t *testing.T) {
	own := `
192.168.1.5 nas.home media.home
fd00::5 nas.home
||a.example^$dnsrewrite=192.0.2.1
||a.example^$dnsrewrite=2001:db8::1
||two.example^$dnsrewrite=192.0.2.1
||two.example^$dnsrewrite=192.0.2.2
||safe.example^$dnsrewrite=forced.example
||*.zone.example^$dnsrewrite=www.zone.example
||chain.example^$dnsrewrite=safe.example
||inside.example^$dnsrewrite=tv.lan
||rebinds.example^$dnsrewrite=rebound.example
||bad.example^$dnsrewrite=ads.example
||around.example^$dnsrewrite=about.example
||about.example^$dnsrewrite=around.example
||4.3.2.1.in-addr.arpa^$dnsrewrite=NOERROR;PTR;host.example
||mx.example^$dnsrewrite=NOERROR;MX;10 mail.example
||txt.example^$dnsrewrite=NOERROR;TXT;v=spf1 "a\b" ; -all
||_sip._tcp.example^$dnsrewrite=NOERROR;SRV;1 2 5060 sip.example
||web.example^$dnsrewrite=NOERROR;HTTPS;1 . alpn=h3 ipv4hint=192.0.2.9
||svc.example^$dnsrewrite=NOERROR;SVCB;1 svc.example port=8443
||empty.example^$dnsrewrite=NOERROR;;
||refused.example^$dnsrewrite=REFUSED
||none.example^$dnsrewrite=NXDOMAIN
||codes.example^$dnsrewrite=forced.example
||codes.example^$dnsrewrite=192.0.2.1
||codes.example^$dnsrewrite=REFUSED
||empties.example^$dnsrewrite=forced.example
||empties.example^$dnsrewrite=192.0.2.1
||empties.example^$dnsrewrite=NOERROR
||names.example^$dnsrewrite=192.0.2.1
||names.example^$dnsrewrite=forced.example
||loop.example^$dnsrewrite=127.0.0.1
||noweb.example^$dnstype=HTTPS
sink.example A 192.0.2.77
phone.example CNAME forced.example.
address=/dm.example/192.0.2.88
`
	theirs := `
||bank.example^$dnsrewrite=203.0.113.66
203.0.113.66 bank2.example
||bank3.example^$dnsrewrite=evil.example
||bank4.example^$dnsrewrite=203.0.113.66
||bank4.example^
||app.example^$dnstype=HTTPS,dnsrewrite=NOERROR
||page.example^$dnsrewrite=127.0.0.1
||ads.example^
`
	next, asked := answeringFrom(map[string]string{
		"forced.example.":   "forced.example. 60 IN A 192.0.2.50",
		"www.zone.example.": "www.zone.example. 60 IN A 192.0.2.51",
		"tv.lan.":           "tv.lan. 60 IN A 192.168.1.9",
		"rebound.example.":  "rebound.example. 60 IN A 192.168.1.9",
		"bank.example.":     "bank.example. 60 IN A 192.0.2.60",
		"bank2.example.":    "bank2.example. 60 IN A 192.0.2.60",
		"bank3.example.":    "bank3.example. 60 IN A 192.0.2.60",
		"app.example.":      "app.example. 60 IN A 192.0.2.61",
		"noweb.example.":    "noweb.example. 60 IN A 192.0.2.62",
	})
	for _, c := range []struct {
		name string
		kind uint16
		want string
		code uint16 // of the extended error; 0 is none
		says string
	}{
		{"nas.home.", dns.TypeA, "NOERROR | nas.home. 10 IN A 192.168.1.5", 4, "list; list own; rule 192.168.1.5 nas.home"},
		{"NAS.home.", dns.TypeAAAA, "NOERROR | NAS.home. 10 IN AAAA fd00::5", 4, ""},
		{"media.home.", dns.TypeAAAA, "NOERROR", 4, ""},
		{"media.home.", dns.TypeMX, "NOERROR", 4, ""},
		{"a.example.", dns.TypeA, "NOERROR | a.example. 10 IN A 192.0.2.1", 4, "rule ||a.example^$dnsrewrite=192.0.2.1"},
		{"below.a.example.", dns.TypeAAAA, "NOERROR | below.a.example. 10 IN AAAA 2001:db8::1", 4, ""},
		{"a.example.", dns.TypeTXT, "NOERROR", 4, ""},
		{"a.example.", dns.TypeHTTPS, "NOERROR", 4, ""},
		{"two.example.", dns.TypeA, "NOERROR | two.example. 10 IN A 192.0.2.1 | two.example. 10 IN A 192.0.2.2", 4, ""},
		{"Safe.example.", dns.TypeA, "NOERROR | Safe.example. 10 IN CNAME forced.example. | forced.example. 60 IN A 192.0.2.50", 4, "rule ||safe.example^$dnsrewrite=forced.example"},
		{"safe.example.", dns.TypeCNAME, "NOERROR | safe.example. 10 IN CNAME forced.example.", 4, ""},
		{"safe.example.", dns.TypeAAAA, "NOERROR | safe.example. 10 IN CNAME forced.example.", 4, ""},
		{"chain.example.", dns.TypeA, "NOERROR | chain.example. 10 IN CNAME safe.example. | safe.example. 10 IN CNAME forced.example. | forced.example. 60 IN A 192.0.2.50", 4, "rule ||chain.example^"},
		{"x.zone.example.", dns.TypeA, "NOERROR | x.zone.example. 10 IN CNAME www.zone.example. | www.zone.example. 60 IN A 192.0.2.51", 4, ""},
		{"www.zone.example.", dns.TypeA, "NOERROR | www.zone.example. 60 IN A 192.0.2.51", 0, ""},
		// What a rule leads to is judged like any other name: an inner one may be inside, an outer one not.
		{"inside.example.", dns.TypeA, "NOERROR | inside.example. 10 IN CNAME tv.lan. | tv.lan. 60 IN A 192.168.1.9", 4, ""},
		{"rebinds.example.", dns.TypeA, "NXDOMAIN", 15, "rebinding"},
		{"bad.example.", dns.TypeA, "NXDOMAIN", 15, "list theirs; rule ||ads.example^"},
		{"around.example.", dns.TypeA, "SERVFAIL", 24, "circle"},
		{"4.3.2.1.in-addr.arpa.", dns.TypePTR, "NOERROR | 4.3.2.1.in-addr.arpa. 10 IN PTR host.example.", 4, ""},
		{"mx.example.", dns.TypeMX, "NOERROR | mx.example. 10 IN MX 10 mail.example.", 4, ""},
		{"txt.example.", dns.TypeTXT, `NOERROR | txt.example. 10 IN TXT "v=spf1 \"a\\b\" ; -all"`, 4, ""},
		{"_sip._tcp.example.", dns.TypeSRV, "NOERROR | _sip._tcp.example. 10 IN SRV 1 2 5060 sip.example.", 4, ""},
		{"web.example.", dns.TypeHTTPS, `NOERROR | web.example. 10 IN HTTPS 1 . alpn="h3" ipv4hint="192.0.2.9"`, 4, ""},
		{"svc.example.", dns.TypeSVCB, `NOERROR | svc.example. 10 IN SVCB 1 svc.example. port="8443"`, 4, ""},
		{"empty.example.", dns.TypeA, "NOERROR", 15, ""},
		{"refused.example.", dns.TypeA, "REFUSED", 15, "rule ||refused.example^$dnsrewrite=REFUSED"},
		{"none.example.", dns.TypeA, "NXDOMAIN", 15, ""},
		// A response code stands for all other answers, and a CNAME for all records.
		{"codes.example.", dns.TypeA, "REFUSED", 15, ""},
		{"empties.example.", dns.TypeA, "NOERROR", 15, ""},
		{"names.example.", dns.TypeA, "NOERROR | names.example. 10 IN CNAME forced.example. | forced.example. 60 IN A 192.0.2.50", 4, ""},
		{"loop.example.", dns.TypeA, "NOERROR | loop.example. 10 IN A 127.0.0.1", 15, ""},
		{"noweb.example.", dns.TypeHTTPS, "NOERROR", 15, "rule ||noweb.example^$dnstype=HTTPS"},
		{"noweb.example.", dns.TypeA, "NOERROR | noweb.example. 60 IN A 192.0.2.62", 0, ""},
		{"sink.example.", dns.TypeA, "NOERROR | sink.example. 10 IN A 192.0.2.77", 4, ""},
		{"phone.example.", dns.TypeA, "NOERROR | phone.example. 10 IN CNAME forced.example. | forced.example. 60 IN A 192.0.2.50", 4, ""},
		{"x.dm.example.", dns.TypeA, "NOERROR | x.dm.example. 10 IN A 192.0.2.88", 4, ""},
		{"a.example.", dns.TypeANY, "NOERROR | a.example. 3600 IN HINFO \"RFC8482\" \"\"", 0, ""},
		// A list from the internet sends nobody anywhere, and hides no block by trying.
		{"bank.example.", dns.TypeA, "NOERROR | bank.example. 60 IN A 192.0.2.60", 0, ""},
		{"bank2.example.", dns.TypeA, "NOERROR | bank2.example. 60 IN A 192.0.2.60", 0, ""},
		{"bank3.example.", dns.TypeA, "NOERROR | bank3.example. 60 IN A 192.0.2.60", 0, ""},
		{"bank4.example.", dns.TypeA, "NXDOMAIN", 15, "rule ||bank4.example^"},
		{"page.example.", dns.TypeA, "NXDOMAIN", 15, ""}, // its word for blocking; the household's is given
		{"app.example.", dns.TypeHTTPS, "NOERROR", 15, ""},
		{"app.example.", dns.TypeA, "NOERROR | app.example. 60 IN A 192.0.2.61", 0, ""},
	} {
		w := &written{}
		r := query(c.name, c.kind)
		r.SetEdns0(1232, false)
		f := newFilter(t, rewriting(t, own, theirs), next)
		if rc, err := f.ServeDNS(t.Context(), w, r); rc != dns.RcodeSuccess || err != nil || len(w.msgs) != 1 {
			t.Fatalf("%s: %d %v, %d answers", c.name, rc, err, len(w.msgs))
		}
		m := w.msgs[0]
		if got := text(m); got != c.want {
			t.Errorf("%s %s:\n got %s\nwant %s", c.name, dns.TypeToString[c.kind], got, c.want)
		}
		if m.Id != r.Id || !m.Response || len(m.Question) != 1 || m.Question[0] != r.Question[0] {
			t.Errorf("%s: the answer is not one to this question: %v", c.name, m)
		}
		if (len(m.Answer) == 0 || m.Rcode == dns.RcodeNameError) && m.Rcode != dns.RcodeRefused && m.Rcode != dns.RcodeServerFailure && len(m.Ns) == 0 && c.code != 0 {
			t.Errorf("%s: nothing tells how long there is nothing", c.name)
		}
		var code uint16
		says := ""
		if o := m.IsEdns0(); o != nil {
			for _, e := range o.Option {
				if e, ok := e.(*dns.EDNS0_EDE); ok {
					code, says = e.InfoCode, e.ExtraText
				}
			}
		}
		if code != c.code || !strings.Contains(says, c.says) {
			t.Errorf("%s: extended error %d %q, want %d %q", c.name, code, says, c.code, c.says)
		}
		if _, err := m.Pack(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, name := range *asked {
		if name == "ads.example." || name == "a.example." {
			t.Errorf("an upstream was asked for %s", name)
		}
	}
}

// What a device was answered is in the journal under the name that it asked for,
// and teaches the names of its flows.
func TestRewritesAreToldAndLearned(t *testing.T) {
	j := &journalled{}
	next, _ := answeringFrom(map[string]string{"forced.example.": "forced.example. 60 IN A 192.0.2.50"})
	f := newFilter(t, rewriting(t, "||safe.example^$dnsrewrite=forced.example\n192.168.1.5 nas.home", "||x.example^"), next)
	f.cfg.Recorder, f.cfg.Names = j, j
	for _, name := range []string{"safe.example.", "nas.home."} {
		if _, err := f.ServeDNS(t.Context(), &written{}, query(name, dns.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	if len(j.entries) != 2 {
		t.Fatalf("told: %+v", j.entries)
	}
	first, second := j.entries[0].Lookup, j.entries[1].Lookup
	if v := first.Verdict; first.Name != "safe.example" || v.Action != policy.Rewrite || v.List != "own" || v.Rule != "||safe.example^$dnsrewrite=forced.example" {
		t.Errorf("told: %+v", first)
	}
	if second.Name != "nas.home" || second.Verdict.Action != policy.Rewrite {
		t.Errorf("told: %+v", second)
	}
	if want := "tv safe.example 192.0.2.50 1m0s|tv nas.home 192.168.1.5 10s"; strings.Join(j.learned, "|") != want {
		t.Errorf("learned %q, want %q", j.learned, want)
	}
}
