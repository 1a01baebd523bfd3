package observe

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// message packs a response of the given records to a question for name.
func message(t testing.TB, name string, records ...string) []byte {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	m.Response, m.Compress = true, true
	for _, r := range records {
		rr, err := dns.NewRR(r)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func learned(b []byte) (all []string) {
	readAnswers(b, nil, func(name []byte, a netip.Addr, ttl time.Duration) {
		all = append(all, string(name)+" "+a.String()+" "+ttl.String())
	})
	return all
}

func TestReadAnswers(t *testing.T) {
	edit := func(b []byte, at int, v byte) []byte { b[at] = v; return b }
	for _, tc := range []struct {
		name string
		b    []byte
		want []string
	}{
		{"addresses of both families", message(t, "Video.Example.", "video.example. 60 IN A 203.0.113.1", "video.example. 300 IN AAAA 2001:db8::1"),
			[]string{"video.example 203.0.113.1 1m0s", "video.example 2001:db8::1 5m0s"}},
		{"behind aliases, the name that was asked for", message(t, "www.shop.example.", "www.shop.example. 60 IN CNAME edge.cdn.example.", "edge.cdn.example. 20 IN A 203.0.113.2"),
			[]string{"www.shop.example 203.0.113.2 20s"}},
		{"other records are passed over", message(t, "a.example.", "a.example. 60 IN TXT \"x\"", "a.example. 60 IN MX 1 b.example.", "a.example. 60 IN A 203.0.113.3"),
			[]string{"a.example 203.0.113.3 1m0s"}},
		{"a question", edit(message(t, "a.example.", "a.example. 60 IN A 203.0.113.3"), 2, 0x01), nil},
		{"no such name", edit(message(t, "a.example.", "a.example. 60 IN A 203.0.113.3"), 3, 0x83), nil},
		{"two questions", edit(message(t, "a.example."), 5, 2), nil},
		{"a name that points at itself", append(message(t, "a.example.")[:12], 0xc0, 12, 0, 1, 0, 1), nil},
		{"a name with octets that no host has", message(t, `a\000b.example.`, `a\000b.example. 60 IN A 203.0.113.3`), nil},
		{"nothing", nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, learned(tc.b)); diff != "" {
				t.Errorf("learned (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadAnswersIsBounded(t *testing.T) {
	records := make([]string, 200)
	for i := range records {
		records[i] = "a.example. 60 IN A 203.0.113.3"
	}
	if got := len(learned(message(t, "a.example.", records...))); got != maxAnswers {
		t.Errorf("%d answers read, want %d", got, maxAnswers)
	}
	whole := message(t, "a.example.", "a.example. 60 IN A 203.0.113.3")
	for cut := range whole {
		if got := learned(whole[:cut]); got != nil {
			t.Errorf("cut at %d: learned %v", cut, got)
		}
	}
}

// FuzzReadAnswers: what is learned from any message, a full parser that accepts
// the message finds, too.
func FuzzReadAnswers(f *testing.F) {
	f.Add(message(f, "video.example.", "video.example. 60 IN A 203.0.113.1", "video.example. 300 IN AAAA 2001:db8::1"))
	f.Add(message(f, "www.shop.example.", "www.shop.example. 60 IN CNAME edge.cdn.example.", "edge.cdn.example. 20 IN A 203.0.113.2"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(dns.Msg)
		whole := m.Unpack(b) == nil && len(m.Question) == 1
		readAnswers(b, nil, func(name []byte, a netip.Addr, _ time.Duration) {
			if len(name) > maxNameText {
				t.Fatalf("a name of %d octets", len(name))
			}
			if !whole {
				return
			}
			if asked := strings.ToLower(strings.TrimSuffix(m.Question[0].Name, ".")); asked != string(name) {
				t.Fatalf("learned a name %q, asked was %q", name, asked)
			}
			for _, rr := range m.Answer {
				switch rr := rr.(type) {
				case *dns.A:
					if rr.A.Equal(a.AsSlice()) {
						return
					}
				case *dns.AAAA:
					if rr.AAAA.Equal(a.AsSlice()) {
						return
					}
				}
			}
			t.Fatalf("learned %v, which no record holds:\n%v", a, m)
		})
	})
}
