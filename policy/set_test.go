package policy_test

import (
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
