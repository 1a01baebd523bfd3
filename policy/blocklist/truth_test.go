package blocklist

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// The figures of docs/lists.md: cases decided as two other implementations of the
// language decide them. A lower figure fails, a higher one asks to be written down.
const truthFigures = "testdata/truth.json"

// truthDir is the folder of test data beside the project.
func truthDir() string {
	if dir := os.Getenv("NETCURTAIN_TRUTH"); dir != "" {
		return dir
	}
	return filepath.Join("..", "..", "..", "shared", "data")
}

type truthCase struct {
	id, rules, allow, expected, rule string
	q                                Question
}

// kind is what is asserted, without its answers.
func (c truthCase) kind() string {
	kind, _, _ := strings.Cut(c.expected, "=")
	return strings.TrimSuffix(kind, "4")
}

func readTruth(t *testing.T) (cases []truthCase) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(truthDir(), "rules.tsv"))
	if err != nil {
		t.Skipf("NOT MEASURED: no cases of the list language: %v (NETCURTAIN_TRUTH names their folder)", err)
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	column := map[string]int{}
	for i, name := range strings.Split(lines[0], "\t") {
		column[name] = i
	}
	for _, line := range lines[1:] {
		w := strings.Split(line, "\t")
		at := func(name string) string { return w[column[name]] }
		c := truthCase{id: at("id"), rules: at("rules"), allow: at("allow_rules"), expected: at("expected"), rule: at("matched_rule")}
		n, err := dnsname.Parse(at("hostname"))
		if err != nil {
			t.Fatal(err)
		}
		c.q = Question{Name: n, Type: parseType(at("qtype")), ClientName: at("client_name")}
		if a := at("client_ip"); a != "" {
			c.q.ClientAddr = netip.MustParseAddr(a)
		}
		if tags := at("client_tags"); tags != "" {
			c.q.ClientTags = strings.Split(tags, ",")
		}
		cases = append(cases, c)
	}
	return cases
}

// compileCase makes an index of a case's rules; a list without any is left out.
func compileCase(t *testing.T, cache map[string]*Index, c truthCase) *Index {
	t.Helper()
	key := c.rules + "\x00" + c.allow
	if x, ok := cache[key]; ok {
		return x
	}
	b := NewBuilder(Options{})
	for _, l := range []Source{{Name: "rules"}, {Name: "allow", Allow: true}} {
		text := c.rules
		if l.Allow {
			text = c.allow
		}
		if file, ok := strings.CutPrefix(text, "@file:"); ok {
			raw, err := os.ReadFile(filepath.Join(truthDir(), file))
			if err != nil {
				t.Fatal(err)
			}
			text = string(raw)
		} else {
			text = strings.ReplaceAll(text, `\n`, "\n")
		}
		if _, err := b.Add(l, strings.NewReader(text)); err != nil {
			continue // a list without a rule that is understood decides nothing
		}
	}
	var out Memory
	if err := b.Write(&out); err != nil {
		t.Fatal(err)
	}
	x, err := Open(out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	cache[key] = x
	return x
}

// outcome is a decision in the words of the cases.
func outcome(x *Index, q *Question) string {
	m, ok := x.Ask(q, ^uint64(0))
	if !ok {
		return "none"
	}
	answers := x.Answers(q, ^uint64(0))
	switch m.Kind {
	case KindRewrite:
		return "rewrite=" + joinAnswers(answers, func(a Answer) string { return a.String() })
	case KindHosts:
		var v4, v6 []Answer
		for _, a := range answers {
			if a.Type == "A" {
				v4 = append(v4, a)
			} else {
				v6 = append(v6, a)
			}
		}
		value := func(a Answer) string { return a.Value }
		return "hosts4=" + joinAnswers(v4, value) + " hosts6=" + joinAnswers(v6, value)
	}
	return m.Kind.String()
}

func joinAnswers(answers []Answer, say func(Answer) string) string {
	var words []string
	for _, a := range answers {
		words = append(words, say(a))
	}
	slices.Sort(words)
	return strings.Join(words, "|")
}

func TestTruth(t *testing.T) {
	var want map[string][2]int // kind: right, of
	raw, err := os.ReadFile(truthFigures)
	if err != nil && !*update {
		t.Fatal(err)
	}
	if err == nil {
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string][2]int{}
	cache := map[string]*Index{}
	for _, c := range readTruth(t) {
		is := outcome(compileCase(t, cache, c), &c.q)
		n := got[c.kind()]
		n[1]++
		if is == c.expected {
			n[0]++
		} else {
			t.Logf("%s: %s %d is %s, the truth is %s\n%s", c.id, c.q.Name, c.q.Type, is, c.expected, c.rules)
		}
		got[c.kind()] = n
	}
	kinds := []string{"none", "block", "allow", "rewrite", "hosts"}
	for _, k := range kinds {
		t.Logf("%-8s %d/%d", k, got[k][0], got[k][1])
		if got[k][0] < want[k][0] {
			t.Errorf("%s: %d right, the committed figure is %d", k, got[k][0], want[k][0])
		}
	}
	if *update {
		raw, err := json.MarshalIndent(got, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(truthFigures, append(raw, '\n'), 0o644); err != nil {
			t.Fatal(fmt.Errorf("writing the figures: %w", err))
		}
	}
}

// The table of docs/lists.md is the committed figures.
func TestTruthIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/lists.md")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(truthFigures)
	if err != nil {
		t.Fatal(err)
	}
	var figures map[string][2]int
	if err := json.Unmarshal(raw, &figures); err != nil {
		t.Fatal(err)
	}
	for kind, n := range figures {
		if row := fmt.Sprintf("| %s | %d | %d |", kind, n[0], n[1]); !strings.Contains(string(page), row) {
			t.Errorf("docs/lists.md has no row %q", row)
		}
	}
}
