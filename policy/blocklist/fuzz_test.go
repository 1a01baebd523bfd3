package blocklist

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
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
	f.Fuzz(func(t *testing.T, list, question string) {
		type rule struct {
			f form
			n dnsname.Name
		}
		var rules []rule
		hasMore := false
		for line := range strings.Lines(list) {
			parse(line, func(p parsed) {
				if p.more != nil {
					hasMore = true // may change what the forms say
					return
				}
				if back, err := dnsname.Parse(string(p.name)); err != nil || back != p.name {
					t.Fatalf("line %q gave %q: %v", line, p.name, err)
				}
				rules = append(rules, rule{p.form, p.name})
			})
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
