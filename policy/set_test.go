package policy_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/policy/blocklist"
)

func TestNothingInForceDecidesNothing(t *testing.T) {
	if v := policy.NewEngine(nil).Decide(policy.Query{Layer: policy.LayerDNS, Name: "ads.example"}); v != (policy.Verdict{}) {
		t.Errorf("got %+v", v)
	}
}

func TestCompileRefuses(t *testing.T) {
	for want, c := range map[string]policy.Config{
		"has no name":             {Rules: []policy.Rule{{ID: 7, Action: policy.Block}}},
		"neither allows":          {Rules: []policy.Rule{{ID: 7, Name: "x.example"}}},
		"empty local zone":        {LocalZones: []dnsname.Name{""}},
		"empty rebinding exempti": {RebindingExempt: []dnsname.Name{""}},
	} {
		if _, err := policy.Compile(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}

func TestCompileCopiesWhatItKeeps(t *testing.T) {
	rules := []policy.Rule{{Action: policy.Block, Name: "x.example"}}
	set, err := policy.Compile(policy.Config{Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	rules[0].Action = policy.Allow
	if v := set.Decide(policy.Query{Name: "x.example"}); v.Action != policy.Block {
		t.Errorf("changing the configuration changed the set: %+v", v)
	}
}

func TestEngineSwapsUnderQuestions(t *testing.T) {
	set := func(a policy.Action) *policy.Set {
		s, err := policy.Compile(policy.Config{Rules: []policy.Rule{{Action: a, Name: "x.example"}}})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	e := policy.NewEngine(set(policy.Allow))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2000 {
				if v := e.Decide(policy.Query{Name: "a.x.example"}); v.Reason != policy.ReasonRule {
					t.Errorf("between two sets: %+v", v)
					return
				}
			}
		})
	}
	for i := range 500 {
		e.Swap(set([]policy.Action{policy.Allow, policy.Block}[i%2]))
	}
	wg.Wait()
}

// questions of every kind that a busy house asks.
func questions() []policy.Query {
	tv := policy.Query{Layer: policy.LayerDNS, Device: "tv", Kind: devices.KindTV, Mode: devices.ModeProtect, Now: noon}
	var out []policy.Query
	for _, n := range []dnsname.Name{"www.allowed.example", "x.ads.example", "plain.example", "dns.google", "nas.lan", "x.ruled.example", ""} {
		q := tv
		q.Name = n
		out = append(out, q)
		q.Layer, q.Asked = policy.LayerAnswer, "asked.example"
		out = append(out, q)
		q.Mode = devices.ModeLocal
		out = append(out, q)
	}
	return out
}

func busySet(tb testing.TB) *policy.Set {
	tb.Helper()
	index, _, err := blocklist.Compile(blocklist.Text{Source: blocklist.Source{Name: "ads"}, Text: strings.NewReader("||ads.example^\nplain.example\n")})
	if err != nil {
		tb.Fatal(err)
	}
	set, err := policy.Compile(policy.Config{Index: index, Rules: []policy.Rule{{Action: policy.Block, Name: "ruled.example"}}})
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

func TestDecideDoesNotAllocate(t *testing.T) {
	e := policy.NewEngine(busySet(t))
	for _, q := range questions() {
		if a := testing.AllocsPerRun(100, func() { e.Decide(q) }); a != 0 {
			t.Errorf("%s %q: %v allocations", q.Layer, q.Name, a)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	e := policy.NewEngine(busySet(b))
	for _, q := range questions()[:12] {
		if q.Layer != policy.LayerDNS || q.Mode == devices.ModeLocal {
			continue
		}
		b.Run(string(q.Name), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				e.Decide(q)
			}
		})
	}
}

// Policy decides, others obey (DESIGN.md invariant 1): no other package builds a
// Verdict that decides something, or changes one's Action. Packages that only
// tests use (…test) may make them up.
func TestOnlyPolicyMakesVerdicts(t *testing.T) {
	files := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (path == filepath.Join("..", "policy") || d.Name() == "testdata" || strings.HasSuffix(d.Name(), "test") || strings.HasPrefix(d.Name(), ".") && d.Name() != "..") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil // whoever works on it will hear of it from the compiler
		}
		files++
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.CompositeLit); ok && isVerdict(lit.Type) && decides(lit) {
				t.Errorf("%s makes a policy.Verdict with an Action: only policy decides", fset.Position(lit.Pos()))
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Errorf("only %d files were read; the repository is not where this test looks", files)
	}
}

func isVerdict(t ast.Expr) bool {
	s, ok := t.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != "Verdict" {
		return false
	}
	pkg, ok := s.X.(*ast.Ident)
	return ok && pkg.Name == "policy"
}

func decides(lit *ast.CompositeLit) bool {
	for _, e := range lit.Elts {
		kv, keyed := e.(*ast.KeyValueExpr)
		if !keyed {
			return true // positional: the Action is the first
		}
		if key, ok := kv.Key.(*ast.Ident); ok && key.Name == "Action" {
			return true
		}
	}
	return false
}

func TestVerdictsThatDecideAreRecognised(t *testing.T) {
	for src, want := range map[string]bool{
		`policy.Verdict{}`:                                false,
		`policy.Verdict{Reason: policy.ReasonMode}`:       false,
		`policy.Verdict{Action: policy.Block}`:            true,
		`policy.Verdict{policy.Block, policy.ReasonMode}`: true,
		`flow.Verdict{Action: 1}`:                         false,
	} {
		expr, err := parser.ParseExpr(src)
		if err != nil {
			t.Fatal(err)
		}
		lit := expr.(*ast.CompositeLit)
		if got := isVerdict(lit.Type) && decides(lit); got != want {
			t.Errorf("%s: %v, want %v", src, got, want)
		}
	}
}
