package policy_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/policy/blocklist"
)

// winner is the verdict of the step that decides; there is one at most.
func winner(t *testing.T, steps []policy.Step) (v policy.Verdict) {
	t.Helper()
	n := 0
	for _, st := range steps {
		switch st.State {
		case policy.StepDecides:
			v = st.Verdict
			n++
		case policy.StepBeaten:
			if n == 0 && st.Action != policy.Undecided && !silencedBefore(steps) {
				t.Errorf("a step is beaten by nobody: %+v", st)
			}
		case 0:
			t.Errorf("a step without a state: %+v", st)
		}
	}
	if n > 1 {
		t.Errorf("%d steps decide", n)
	}
	return v
}

func silencedBefore(steps []policy.Step) bool {
	return slices.ContainsFunc(steps, func(s policy.Step) bool { return s.State == policy.StepUnobeyed })
}

func sayStep(st policy.Step) string {
	who := ""
	if st.Device != "" {
		who = " for " + string(st.Device)
	}
	return fmt.Sprintf("%s: %s about %s%s", st.State, words(st.Verdict), st.Name, who)
}

// Everything that can be said of one name, in the order in which it is asked.
func TestExplainTellsEveryRuleInOrder(t *testing.T) {
	index, _, err := blocklist.Compile(
		blocklist.Text{Source: blocklist.Source{Name: "ads"}, Text: strings.NewReader("||ads.example^\n||x.ads.example^$important\n@@||ads.example^\n||gone.ads.example^$dnstype=A\n")},
		blocklist.Text{Source: blocklist.Source{Name: "more"}, Text: strings.NewReader("x.ads.example\n||gone.ads.example^$dnstype=A,badfilter\n")},
		blocklist.Text{Source: blocklist.Source{Name: "childs"}, Text: strings.NewReader("||example^\n")},
		blocklist.Text{Source: blocklist.Source{Name: "off"}, Text: strings.NewReader("||ads.example^\n")},
	)
	if err != nil {
		t.Fatal(err)
	}
	rule := func(id int64, a policy.Action, name dnsname.Name, d devices.ID, until time.Duration) policy.Rule {
		r := policy.Rule{ID: id, Action: a, Name: name, Device: d, Created: noon}
		if until != 0 {
			r.Until = noon.Add(until)
		}
		return r
	}
	set, err := policy.Compile(policy.Config{
		Index: index,
		Lists: &policy.ListUse{House: index.Mask("ads", "more"), Devices: map[devices.ID]uint64{"tablet": index.Mask("childs")}},
		Rules: []policy.Rule{
			rule(1, policy.Allow, "ads.example", "laptop", 0), rule(2, policy.Allow, "x.ads.example", "", -time.Minute),
			rule(3, policy.Block, "example", "", 0),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	q := policy.Query{Layer: policy.LayerDNS, Name: "x.ads.example", Device: "tv", Kind: devices.KindTV, Mode: devices.ModeProtect, Now: noon}
	var got []string
	for _, st := range set.Explain(q) {
		got = append(got, sayStep(st))
	}
	want := []string{
		"others: allow rule household: ads.example about x.ads.example for laptop",
		"ended: allow rule household: x.ads.example about x.ads.example",
		"decides: block rule household: example about x.ads.example",
		"beaten: block list ads: ||x.ads.example^$important about x.ads.example",
		"beaten: allow list ads: @@||ads.example^ about x.ads.example",
		"beaten: block list ads: ||ads.example^ about x.ads.example",
		"beaten: block list more: x.ads.example about x.ads.example",
		"unused: block list off: ||ads.example^ about x.ads.example",
		"others: block list childs: ||example^ about x.ads.example",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	q.Name, got = "gone.ads.example", nil
	for _, st := range set.Explain(q) {
		if st.State == policy.StepCancelled {
			got = append(got, sayStep(st))
		}
	}
	want = []string{
		"cancelled: block list ads: ||gone.ads.example^$dnstype=A about gone.ads.example",
		"cancelled: block list more: ||gone.ads.example^$dnstype=A,badfilter about gone.ads.example",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The explanation of every case of the list language has its verdict.
func TestExplainAgreesOnTheTruth(t *testing.T) {
	dir := os.Getenv("NETCURTAIN_TRUTH")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "data")
	}
	raw, err := os.ReadFile(filepath.Join(dir, "rules.tsv"))
	if err != nil {
		t.Skipf("NOT MEASURED: no cases of the list language: %v (NETCURTAIN_TRUTH names their folder)", err)
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	head := strings.Split(lines[0], "\t")
	decided := 0
	for _, line := range lines[1:] {
		row := map[string]string{}
		for i, w := range strings.Split(line, "\t") {
			row[head[i]] = w
		}
		if strings.HasPrefix(row["rules"], "@file:") {
			continue // whole lists; the language in them is the same
		}
		b := blocklist.NewBuilder(blocklist.Options{})
		for name, text := range map[string]string{"rules": row["rules"], "allow_rules": row["allow_rules"]} {
			// A list without a rule that is understood decides nothing.
			_, _ = b.Add(blocklist.Source{Name: name, Allow: name != "rules"}, strings.NewReader(strings.ReplaceAll(text, `\n`, "\n")))
		}
		var out blocklist.Memory
		if err := b.Write(&out); err != nil {
			t.Fatal(err)
		}
		index, err := blocklist.Open(out.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		q := policy.Query{Layer: policy.LayerDNS, Now: noon, Mode: devices.ModeProtect, ClientName: row["client_name"]}
		if q.Name, err = dnsname.Parse(row["hostname"]); err != nil {
			t.Fatal(err)
		}
		q.Type, _ = blocklist.ParseType(row["qtype"])
		if a := row["client_ip"]; a != "" {
			q.ClientAddr = netip.MustParseAddr(a)
		}
		for _, rewriters := range []uint64{0, ^uint64(0)} {
			set, err := policy.Compile(policy.Config{Index: index, Rewriters: rewriters})
			if err != nil {
				t.Fatal(err)
			}
			want, steps := set.Decide(q), set.Explain(q)
			if got := winner(t, steps); !reflect.DeepEqual(got, want) {
				t.Errorf("%s %s: explained as %s, decided as %s\n%s", row["id"], q.Name, words(got), words(want), row["rules"])
			}
			if want.Action != policy.Undecided {
				decided++
			}
		}
	}
	if decided < 100 {
		t.Errorf("only %d cases decide something", decided)
	}
}

// Whatever is chosen and asked, the step that decides has the verdict.
func TestExplainAgreesWithDecide(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 11))
	pick := func(n int) int { return rng.IntN(n) }
	names := []dnsname.Name{"a.b.example", "b.example", "example", "x.a.b.example", "dns.google", "other.example", "nas.lan", "nas", "c.test", ""}
	name := func() dnsname.Name { return names[pick(len(names))] }
	who := []devices.ID{"", "tv", "phone"}
	forms := []string{
		"||%s^", "@@||%s^", "0.0.0.0 %s", "%s", "*.%s", "||%s^$important", "@@||%s^$important", "||%s^$badfilter", "||%s^$dnstype=A", "||%s^$dnstype=~A",
		"||%s^$dnsrewrite=192.0.2.1", "||%s^$dnsrewrite=REFUSED", "@@||%s^$dnsrewrite", "||%s^$ctag=device_tv", "192.0.2.7 %s", "||%s^$client=~192.168.1.7", "|%s^", "||%.1s*^",
	}
	modes := []devices.Mode{devices.ModeUnset, devices.ModeOff, devices.ModeWatch, devices.ModeProtect, devices.ModeGuard, devices.ModeLocal}
	addrs := []netip.Addr{{}, netip.MustParseAddr("192.168.1.9"), netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("203.0.113.7")}
	decided := map[policy.Reason]int{}
	for range 250 {
		var texts []blocklist.Text
		for i := range 1 + pick(4) {
			var list strings.Builder
			for range 1 + pick(5) {
				n := name()
				for n == "" {
					n = name()
				}
				fmt.Fprintf(&list, forms[pick(len(forms))]+"\n", n)
			}
			list.WriteString("||always.example^\n")
			texts = append(texts, blocklist.Text{Source: blocklist.Source{Name: fmt.Sprintf("l%d", i), Allow: pick(4) == 0}, Text: strings.NewReader(list.String())})
		}
		index, _, err := blocklist.Compile(texts...)
		if err != nil {
			t.Fatal(err)
		}
		c := policy.Config{Index: index, Off: pick(30) == 0, Rewriters: rng.Uint64()}
		if pick(2) == 0 {
			c.Lists = &policy.ListUse{House: rng.Uint64(), Devices: map[devices.ID]uint64{"tv": rng.Uint64()}}
		}
		for i := range pick(3) {
			r := policy.Rule{ID: int64(i), Action: policy.Allow + policy.Action(pick(2)), Name: "b.example", Device: who[pick(3)], Created: noon}
			if n := name(); n != "" {
				r.Name = n
			}
			if pick(3) == 0 {
				r.Until = noon.Add(time.Duration(pick(3)-1) * time.Minute)
			}
			c.Rules = append(c.Rules, r)
		}
		if pick(3) == 0 {
			c.RebindingExempt = []dnsname.Name{"b.example"}
		}
		set, err := policy.Compile(c)
		if err != nil {
			t.Fatal(err)
		}
		for range 60 {
			q := policy.Query{
				Layer: policy.LayerDNS + policy.Layer(pick(5)), Now: noon, Device: who[pick(3)], Mode: modes[pick(len(modes))],
				Name: name(), Asked: name(), Type: []uint16{0, 1, 28}[pick(3)], Addr: addrs[pick(len(addrs))], Port: 443,
			}
			if pick(2) == 0 {
				q.Kind, q.ClientAddr = devices.KindTV, addrs[1]
			}
			want := set.Decide(q)
			if got := winner(t, set.Explain(q)); !reflect.DeepEqual(got, want) {
				t.Fatalf("%+v\nexplained as %s\ndecided as   %s", q, words(got), words(want))
			}
			decided[want.Reason]++
		}
	}
	for r := policy.ReasonNone; r <= policy.ReasonSwitchedOff; r++ {
		if decided[r] == 0 {
			t.Errorf("nothing was decided for the reason %q", r)
		}
	}
}

func TestHits(t *testing.T) {
	index, _, err := blocklist.Compile(blocklist.Text{Source: blocklist.Source{Name: "ads"}, Text: strings.NewReader("||ads.example^\n")})
	if err != nil {
		t.Fatal(err)
	}
	hits := &policy.Hits{}
	set, err := policy.Compile(policy.Config{Index: index, Hits: map[string]*policy.Hits{"ads": hits}})
	if err != nil {
		t.Fatal(err)
	}
	e := policy.NewEngine(set)
	q := policy.Query{Layer: policy.LayerDNS, Name: "x.ads.example", Now: noon, Mode: devices.ModeProtect}
	e.Decide(q)
	watched := q
	watched.Mode = devices.ModeWatch
	e.Decide(watched)
	cloaked := q
	cloaked.Layer, cloaked.Asked = policy.LayerAnswer, "innocent.example"
	e.Decide(cloaked)
	// A connection is no look-up, what passes is no hit, and who asks why counts nothing.
	connection, passes := q, q
	connection.Layer, passes.Name = policy.LayerFlow, "www.example"
	e.Decide(connection)
	e.Decide(passes)
	e.Explain(q)
	if n, last := hits.Count(); n != 3 || last != noon.Unix() {
		t.Errorf("%d hits, the last at %d", n, last)
	}
	if a := testing.AllocsPerRun(100, func() { e.Decide(q) }); a != 0 {
		t.Errorf("%v allocations", a)
	}
}
