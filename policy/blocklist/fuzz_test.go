package blocklist

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// Whatever a list says, its rules are names in normal form that the index then
// finds, and a rule's text reads back as the same rule.
func FuzzCompile(f *testing.F) {
	f.Add("plain.example\n0.0.0.0 a.example b.example\n||x.example^\n@@||y.example^\n*.z.example\n", "www.x.example")
	f.Add("\xef\xbb\xbf||Ünïcode.example^\r\n:: v6.example # c\n[header]\n!c\n", "xn--nicode-jta4a.example")
	f.Add("127.0.0.1 localhost\n1.2.3.4 x\n/re/\n||a*b^\n||x^$important\n<html>", "x")
	f.Add("$TTL 60\n@ IN SOA a. b. (\n 1 2 ; c\n 3 4 5 )\n NS c.\n$ORIGIN rpz.zone.\nx.example CNAME .\n*.x.example CNAME rpz-passthru.\n A ( 192.0.2.1\n )\n$ORIGIN b.rpz.zone.\ny 60 CNAME .\n", "y.b")
	f.Add("address=/a.example/b.example/\nserver=/c.a.example/#\nlocal=/*.d/\naddress=/#/192.0.2.1\n", "c.a.example")
	f.Fuzz(func(t *testing.T, list, question string) {
		type rule struct {
			f form
			n dnsname.Name
		}
		var rules []rule
		hasMore := strings.ToValidUTF8(list, "") != list // its lines are rejected, and those after them may mean something else
		parser := lineParser{emit: func(p parsed) string {
			if p.more != nil {
				hasMore = true // may change what the forms say
				return ""
			}
			if back, err := dnsname.Parse(string(p.name)); err != nil || back != p.name {
				t.Fatalf("a line gave %q: %v", p.name, err)
			}
			rules = append(rules, rule{p.form, p.name})
			return ""
		}}
		for line := range strings.Lines(strings.TrimPrefix(list, "\xef\xbb\xbf")) {
			parser.line(strings.TrimRight(line, "\r\n"))
		}
		b := NewBuilder(Options{Buffer: 1 << 10}) // small, for speed and for many runs
		if _, err := b.Add(Source{Name: "fuzz"}, strings.NewReader(list)); err != nil {
			return
		}
		var out Memory
		if err := b.Write(&out); err != nil {
			t.Fatal(err)
		}
		x, err := Open(out.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rules {
			s := r.f.shape()
			n := r.n
			if !s.self {
				if n = "x." + n; len(n) > 253 {
					continue
				}
			}
			m, ok := x.Match(n, 1)
			if hasMore {
				x.Rule(m)
				x.Answers(&Question{Name: n, Type: 1}, 1)
				continue
			}
			if !ok {
				// A line may have been rejected as a whole, for its length or octets.
				if len(list) < maxLine && strings.ToValidUTF8(list, "") == list {
					t.Fatalf("rule %q is lost", s.before+string(r.n)+s.after)
				}
				continue
			}
			again := 0
			parse(x.Rule(m), func(p parsed) {
				if p.more == nil && p.form.shape().allow == m.Allow && p.name == m.Name {
					again++
				}
			})
			if again != 1 {
				t.Fatalf("rule text %q reads back as %d rules", x.Rule(m), again)
			}
		}
		if n, err := dnsname.Parse(question); err == nil {
			x.Match(n, ^uint64(0))
		}
	})
}

// Open and Match on a damaged file whose sum is right: never a panic, never an
// endless loop.
func FuzzOpen(f *testing.F) {
	var lines strings.Builder
	for _, l := range strings.Split("a b c d e f g h i j k l m n o p q r s t", " ") {
		lines.WriteString("||" + l + ".example^\n" + l + ".plain.example\n||" + l + "*.wild.example^$dnstype=AAAA,ctag=device_tv\n")
	}
	lines.WriteString("/re[0-9]+.*/$client=~10.0.0.0/8|n\n||c.example^$dnsrewrite=192.0.2.1\n*$denyallow=com,client='n'\n@@||d.example^$important\n||d.example^$badfilter\n")
	b := NewBuilder(Options{})
	if _, err := b.Add(Source{Name: "x"}, strings.NewReader(lines.String())); err != nil {
		f.Fatal(err)
	}
	var good Memory
	if err := b.Write(&good); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes(), "www.c.example")
	f.Add([]byte(magic), "x")
	f.Fuzz(func(t *testing.T, data []byte, question string) {
		data = bytes.Clone(data)
		if at := len(data) - len(magic) - 4; at > 0 {
			binary.BigEndian.PutUint32(data[at:], crc32.Checksum(data[:at], castagnoli))
		}
		x, err := Open(data)
		if err != nil {
			return
		}
		for _, n := range []string{question, "www.c.example", "t.plain.example"} {
			q := Question{Name: dnsname.Name(n), Type: 28, ClientTags: []string{"device_tv"}, ClientName: "n"}
			if m, ok := x.Ask(&q, ^uint64(0)); ok {
				x.Rule(m)
				x.Answers(&q, ^uint64(0))
				_ = x.Lists()[m.List]
			}
		}
		again := NewBuilder(Options{})
		for _, l := range x.Lists() {
			if _, err := again.Keep(Source{Name: l.Name}, x); err != nil {
				return
			}
		}
		_ = again.Write(new(Memory)) // may fail, must not panic
	})
}

// Flash that goes bad beneath an index in force: whatever its octets become, look-ups
// end, and none of them panics.
func TestRotUnderAnIndexInForce(t *testing.T) {
	var lines strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&lines, "||n%d.example^\n%d.plain.example\n", i, i)
		if i%20 == 0 {
			fmt.Fprintf(&lines, "||w%d*.wild.example^$dnstype=AAAA,client=n\n/re%d[0-9]+/\n||n%d.example^$dnsrewrite=192.0.2.1\n", i, i, i)
		}
	}
	b := NewBuilder(Options{})
	if _, err := b.Add(Source{Name: "x"}, strings.NewReader(lines.String())); err != nil {
		t.Fatal(err)
	}
	var good Memory
	if err := b.Write(&good); err != nil {
		t.Fatal(err)
	}
	f, err := parseFoot(good.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	rounds := 12
	if underRace {
		rounds = 1
	}
	for _, s := range f.sections {
		if s.len == 0 {
			continue
		}
		for range rounds {
			data := bytes.Clone(good.Bytes())
			x, err := Open(data)
			if err != nil {
				t.Fatal(err)
			}
			for range 1 + rng.IntN(64) {
				data[s.off+rng.Uint64N(s.len)] = byte(rng.Uint32())
			}
			for i := range 30 {
				for _, n := range []string{"a.n%d.example", "n%d.example", "%d.plain.example", "w%dx.wild.example", "re%d7.example"} {
					q := Question{Name: dnsname.Name(fmt.Sprintf(n, i*20)), Type: 28, ClientName: "n"}
					if m, ok := x.Ask(&q, ^uint64(0)); ok {
						x.Rule(m)
						x.Answers(&q, ^uint64(0))
					}
					x.Every(&q, 1)
				}
			}
			again := NewBuilder(Options{})
			if _, err := again.Keep(Source{Name: "x"}, x); err == nil {
				_ = again.Write(new(Memory)) // may fail
			}
		}
	}
}

// Whatever a line says: its rules read back from their records as they were
// written, and their patterns cover the names that the equal regular expression
// covers.
func FuzzLine(f *testing.F) {
	for _, l := range []string{
		"||x.example^$important,dnstype=~A|AAAA,ctag=device_tv|~user_child",
		`||x^$client='Ann\'s\, Bob\'s'|~10.0.0.0/8|02:00:5e:10:00:01,badfilter`,
		"*$denyallow=com|net", "/^ads?[0-9]+\\./$dnsrewrite=NOERROR;HTTPS;1 . alpn=h3", `/^(.*\.)?x\.example$/`,
		"@@||x*.y^$dnsrewrite", "://104.154.", "||x.example^*", "-ads.*^|", "|x*y|", "192.0.2.1 a.example b.example # c",
		"address=/a/b/192.0.2.1", "server=/x/#", "*.x.example 300 IN CNAME rpz-passthru. ; c", "x AAAA ::2", "$ORIGIN rpz.example.",
		"@ SOA a b ( 1", "address=/#/192.0.2.1", "server=/*x.example/#", "address = /*.a/ 192.0.2.1", "* CNAME w.example.", `x.example TXT "a;b" "c"`, "##.ad", "http://x^", "||münchen.*^", "$client=127.0.0.1", "||x^$dnsrewrite=a.example",
	} {
		f.Add(l, "www.x.example")
	}
	f.Fuzz(func(t *testing.T, line, name string) {
		n, err := dnsname.Parse(name)
		if err != nil || n == "" || len(line) > maxLine || strings.ToValidUTF8(line, "") != line || strings.ContainsAny(line, "\n\x00") {
			return
		}
		parse(line, func(p parsed) {
			if p.more == nil {
				return
			}
			r := p.more
			raw := r.append(nil, 7)
			rec, next, ok := recordAt(raw, 0)
			if !ok || next != len(raw) || rec.list != 7 {
				t.Fatalf("line %q: its record does not read back", line)
			}
			back := rec.decode()
			if back.identity() != r.identity() || back.text != r.text || rec.identity != r.identity() || !bytes.Equal(back.append(nil, 7), raw) {
				t.Fatalf("line %q became %s", line, sayRule(back))
			}
			if rec.kind == wildName {
				if got, want := rec.covers(n), plainly(r.pattern).MatchString(string(n)); got != want {
					t.Fatalf("line %q as %s: covers %q %v, want %v", line, sayRule(r), n, got, want)
				}
			}
			// Whoever is covered finds the rule under its key.
			set := newRuleSet()
			if reason := set.add(r, 0); reason != "" {
				t.Fatalf("line %q: %s", line, reason)
			}
			x := &ruleIndex{records: set.records}
			x.keys, x.filter, x.windows = set.sections()
			if err := x.open(); err != nil {
				t.Fatal(err)
			}
			q := Question{Name: n, Type: 1, ClientName: "n"}
			covers := rec.covers(n) || rec.kind == regexpName && x.regexps[0].MatchString(string(n))
			var found findings
			idx := &Index{rules: *x}
			idx.rules.gather(&q, 1, &found)
			if got, want := found.n == 1, covers && rec.speaks(&q); got != want {
				t.Fatalf("line %q as %s: found %v for %q, want %v", line, sayRule(r), got, n, want)
			}
			if (found.n == 1) != x.gather(&q, 1, nil) {
				t.Fatalf("line %q: the filter denies %q", line, n)
			}
		})
	})
}

// plainly is a wild pattern as a regular expression.
func plainly(p pattern) *regexp.Regexp {
	source := strings.ReplaceAll(regexp.QuoteMeta(p.text), `\*`, `.*`)
	source = [...]string{"", `(^|\.)`, "^"}[p.start] + source
	if p.end {
		source += "$"
	}
	return regexp.MustCompile(source)
}
