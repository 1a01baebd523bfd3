package blocklist

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// Each cap on rules that are not just names is told, and the rules below it stay.
func TestCapsAreReported(t *testing.T) {
	lines := func(n int, line func(int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(line(i) + "\n")
		}
		return b.String()
	}
	for _, c := range []struct {
		name, text, reason string
		kept               int
	}{
		{"regular expressions", lines(maxRegexps+7, func(i int) string { return fmt.Sprintf("/word%04d[0-9]/", i) }),
			"more than 500 regular expressions", maxRegexps},
		{"those that are tried on every name", lines(500, func(i int) string { return fmt.Sprintf("/^a[0-%d]{%d}b.c/", i%9, i+1) }),
			"too many regular expressions that every name would have to be tried on", 0},
		{"rules for every name", lines(maxEverywhen+5, func(i int) string { return fmt.Sprintf("*$client=10.0.%d.%d", i/256, i%256) }),
			"more than 256 rules that every name would have to be tried on", maxEverywhen},
		{"rules for the same name", lines(maxAtKey+5, func(i int) string { return fmt.Sprintf("||x.example^$client=10.0.0.%d", i) }),
			"more than 128 rules that the same names would have to be tried on", maxAtKey},
		{"rules", lines(maxRules+9, func(i int) string { return fmt.Sprintf("||n%d.example^$dnstype=A", i) }),
			"more than 50000 rules that are not just names", maxRules},
		{"octets", lines(10_000, func(i int) string {
			return fmt.Sprintf("||n%d.example^$ctag=%s", i, strings.Repeat("x", 250)+"|"+strings.Repeat("y", 250))
		}), "more than 6291456 octets of rules that are not just names", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			x, reports, err := Compile(text("list", c.text+"||plain.example^\n"))
			if err != nil {
				t.Fatal(err)
			}
			rep := reports[0]
			if rep.Rejected == 0 || rep.Rejects[0].Reason != c.reason {
				t.Fatalf("%d rejected, %v", rep.Rejected, rep.Rejects)
			}
			if c.kept > 0 && rep.Complex != c.kept {
				t.Errorf("%d were kept, want %d", rep.Complex, c.kept)
			}
			if got := say(x, "a.plain.example", 1); got != "block list: ||plain.example^" {
				t.Error(got)
			}
		})
	}
}

// A refused list leaves none of its rules, and those that are kept from an older
// index are those that it held.
func TestRulesOfRefusedAndKeptLists(t *testing.T) {
	old := mustCompile(t, text("a", "||a*.example^\n||gone.example^"), text("b", "/^b[0-9]/$important\n||b.example^$dnsrewrite=192.0.2.1\n"))
	b := NewBuilder(Options{})
	if _, err := b.Add(Source{Name: "a"}, strings.NewReader("||n*.example^\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Add(Source{Name: "bad"}, strings.NewReader("||bad*.example^\n"+strings.Repeat("# long\n", 300)+"\x00")); err == nil {
		t.Fatal("a list with a zero octet was taken")
	}
	if rep, err := b.Keep(Source{Name: "b"}, old); err != nil || rep.Complex != 2 {
		t.Fatal(rep, err)
	}
	var out Memory
	if err := b.Write(&out); err != nil {
		t.Fatal(err)
	}
	x, err := Open(out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"abc.example": "-", "gone.example": "-", "bad1.example": "-",
		"no.example": "block a: ||n*.example^", "b7.example": "block b: /^b[0-9]/$important",
		"b.example": "rewrite b: ||b.example^$dnsrewrite=192.0.2.1",
	} {
		if got := say(x, dnsname.Name(name), 3); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// The slow way allocates nothing either.
func TestAskDoesNotAllocate(t *testing.T) {
	if underRace {
		t.Skip("SKIPPED under -race, where pools forget: the run without it counts")
	}
	x := mustCompile(t, text("ads", "||ads*.example^\n/^re[0-9]+\\./\n||x.example^$client=10.0.0.0/8,dnstype=A,ctag=tv\n||x.example^$dnsrewrite=192.0.2.1\n"+
		"@@||x.example^$dnsrewrite=192.0.2.2\n||y.example^\n||y.example^$badfilter\nplain.example"))
	for _, n := range []string{"www.allowed.example", "ads1.example", "re7.example", "x.example", "y.example", "plain.example"} {
		q := Question{Name: dnsname.Name(n), Type: 1, ClientTags: []string{"tv"}}
		if a := testing.AllocsPerRun(200, func() {
			if m, ok := x.Ask(&q, 1); ok {
				x.Rule(m)
			}
		}); a != 0 {
			t.Errorf("%s: %v allocations", n, a)
		}
	}
}

// What is shown of a rule is bounded, whatever its list writes.
func TestRuleTextIsBounded(t *testing.T) {
	x := mustCompile(t, text("ads", "||x.example^$denyallow="+strings.Repeat("ü.example|", 100)+"y.example"))
	m, ok := x.Match("x.example", 1)
	if got := x.Rule(m); !ok || len(got) > maxRuleText || !strings.HasSuffix(got, "…") {
		t.Errorf("%v, %d octets: %s", ok, len(got), got)
	}
}

// "All of IPv6" is no IPv4 address, however that is written; and a rule with
// $denyallow speaks of names, not of the addresses in an answer.
func TestWhoAndWhatIsMeant(t *testing.T) {
	x := mustCompile(t, text("ads", "||six.example^$client=::/0\n||four.example^$client=0.0.0.0/0\n||one.example^$client=192.0.2.7\n*$denyallow=example"))
	for _, c := range []struct{ name, client, want string }{
		{"six.example", "2001:db8::1", "block"}, {"six.example", "192.0.2.7", "none"}, {"six.example", "::ffff:192.0.2.7", "none"},
		{"four.example", "192.0.2.7", "block"}, {"four.example", "::ffff:192.0.2.7", "block"}, {"four.example", "2001:db8::1", "none"},
		{"one.example", "::ffff:192.0.2.7", "block"},
		{"other.test", "192.0.2.7", "block"}, {"192.0.2.9", "192.0.2.7", "none"},
	} {
		q := Question{Name: dnsname.Name(c.name), Type: 1, ClientAddr: netip.MustParseAddr(c.client)}
		if got := outcome(x, &q); got != c.want {
			t.Errorf("%s for %s: %s, want %s", c.name, c.client, got, c.want)
		}
	}
}
