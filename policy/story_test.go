package policy_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/policy/blocklist"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// Each file of testdata is one story: what the household chose, and what is
// decided then. The files' sections:
//
//	-- config --        rule allow|block NAME[/PATH] [device=D] [until=10m] [made=-5m]
//	                    zone NAME · exempt NAME · rewriters NAME… · off
//	                    lists NAME… (that the house uses) · uses DEVICE NAME… (beside those)
//	                    hello KIND by-address|carry|refuse
//	-- list NAME --     a block list · -- allowlist NAME --
//	-- queries --       LAYER NAME [device=tv] [kind=tv] [mode=protect] [addr=A] [asked=NAME] [at=10m] [type=AAAA] [name=N] [from=A] [get=TARGET] [post=TARGET] [hello=KIND] => VERDICT
//
// It is noon; until, made and at count from there. A verdict is "none" or
// "ACTION[ noted] REASON LIST: RULE".
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			story, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			set, queries := readStory(t, story)
			engine := policy.NewEngine(set)
			told := 0
			for line := range strings.Lines(queries) {
				if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
					continue
				}
				question, want, ok := strings.Cut(line, " => ")
				if !ok {
					t.Fatalf("%q has no verdict behind =>", line)
				}
				q := readQuery(t, question)
				if got := words(engine.Decide(q)); got != strings.TrimSpace(want) {
					t.Errorf("%s\n got %s\nwant %s", question, got, want)
				}
				if got := words(winner(t, engine.Explain(q))); got != strings.TrimSpace(want) {
					t.Errorf("%s\nexplained as %s\nwant         %s", question, got, want)
				}
				told++
			}
			if told == 0 {
				t.Error("the story asks nothing")
			}
		})
	}
}

// words is a verdict as stories write it.
func words(v policy.Verdict) string {
	if v == (policy.Verdict{}) {
		return "none"
	}
	noted := ""
	if v.Noted {
		noted = " noted"
	}
	answers := ""
	if v.Rewrite != nil {
		for _, a := range v.Rewrite.Records {
			answers += " [" + a.String() + "]"
		}
	}
	return fmt.Sprintf("%s%s %s %s: %s%s", v.Action, noted, v.Reason, v.List, v.Rule, answers)
}

func readStory(t *testing.T, story *txtar.Archive) (*policy.Set, string) {
	t.Helper()
	var config, queries string
	var texts []blocklist.Text
	for _, f := range story.Files {
		kind, name, _ := strings.Cut(f.Name, " ")
		switch kind {
		case "config":
			config = string(f.Data)
		case "queries":
			queries = string(f.Data)
		case "list", "allowlist":
			texts = append(texts, blocklist.Text{
				Source: blocklist.Source{Name: name, Allow: kind == "allowlist"},
				Text:   strings.NewReader(string(f.Data)),
			})
		default:
			t.Fatalf("section %q is unknown", f.Name)
		}
	}
	var c policy.Config
	if len(texts) > 0 {
		var err error
		if c.Index, _, err = blocklist.Compile(texts...); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(config) {
		if w := strings.Fields(line); len(w) > 0 && w[0][0] != '#' {
			readConfigLine(t, &c, w)
		}
	}
	set, err := policy.Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	return set, queries
}

func readConfigLine(t *testing.T, c *policy.Config, w []string) {
	t.Helper()
	arg := func(i int) string {
		if i >= len(w) {
			t.Fatalf("config line %q is cut short", w)
		}
		return w[i]
	}
	switch w[0] {
	case "off":
		c.Off = true
	case "rewriters":
		c.Rewriters = c.Index.Mask(w[1:]...)
	case "zone":
		c.LocalZones = append(c.LocalZones, dnsname.Name(arg(1)))
	case "exempt":
		c.RebindingExempt = append(c.RebindingExempt, dnsname.Name(arg(1)))
	case "upstream":
		c.Upstreams = append(c.Upstreams, netip.MustParseAddr(arg(1)))
	case "hello":
		r, err := policy.ParseHelloRule(arg(2))
		if err != nil {
			t.Fatal(err)
		}
		c.Hellos[hello(t, arg(1))] = r
	case "lists":
		c.Lists = &policy.ListUse{House: c.Index.Mask(w[1:]...), Devices: map[devices.ID]uint64{}}
	case "uses":
		c.Lists.Devices[devices.ID(arg(1))] = c.Index.Mask(w[2:]...)
	case "rule":
		name, path, _ := strings.Cut(arg(2), "/")
		r := policy.Rule{ID: int64(len(c.Rules) + 1), Name: dnsname.Name(name), Created: noon.Add(-time.Hour)}
		if path != "" {
			r.Path = "/" + path
		}
		switch arg(1) {
		case "allow":
			r.Action = policy.Allow
		case "block":
			r.Action = policy.Block
		}
		for _, option := range w[3:] {
			switch k, v, _ := strings.Cut(option, "="); k {
			case "device":
				r.Device = devices.ID(v)
			case "until":
				r.Until = at(t, v)
			case "made":
				r.Created = at(t, v)
			default:
				t.Fatalf("rule option %q is unknown", option)
			}
		}
		c.Rules = append(c.Rules, r)
	default:
		t.Fatalf("config word %q is unknown", w[0])
	}
}

func readQuery(t *testing.T, s string) policy.Query {
	t.Helper()
	w := strings.Fields(s)
	if len(w) < 2 {
		t.Fatalf("question %q is cut short", s)
	}
	q := policy.Query{Now: noon, Device: "tv", Kind: devices.KindTV, Mode: devices.ModeProtect}
	for l := policy.LayerDNS; l <= policy.LayerFlow; l++ {
		if l.String() == w[0] {
			q.Layer = l
		}
	}
	if q.Layer == 0 {
		t.Fatalf("layer %q is unknown", w[0])
	}
	if w[1] != "-" {
		q.Name = dnsname.Name(w[1])
	}
	for _, option := range w[2:] {
		switch k, v, _ := strings.Cut(option, "="); k {
		case "device":
			q.Device = devices.ID(v)
		case "kind":
			q.Kind = devices.Kind(v)
		case "mode":
			q.Mode = mode(t, v)
		case "addr":
			q.Addr = netip.MustParseAddr(v)
		case "port":
			n, err := strconv.ParseUint(v, 10, 16)
			if err != nil {
				t.Fatal(err)
			}
			q.Port = uint16(n)
		case "asked":
			q.Asked = dnsname.Name(v)
		case "at":
			q.Now = at(t, v)
		case "type":
			kind, ok := blocklist.ParseType(v)
			if !ok {
				t.Fatalf("type %q is unknown", v)
			}
			q.Type = kind
		case "hello":
			q.Hello = hello(t, v)
		case "name":
			q.ClientName = v
		case "get", "post":
			q.Path = policy.PathClass(strings.ToUpper(k), v)
		case "from":
			q.ClientAddr = netip.MustParseAddr(v)
		default:
			t.Fatalf("option %q is unknown", option)
		}
	}
	return q
}

// hello reads a kind of unread hello, "_" for each blank in its words.
func hello(t *testing.T, s string) policy.Hello {
	t.Helper()
	for h := policy.HelloUnfinished; h <= policy.HelloSilent; h++ {
		if strings.ReplaceAll(h.String(), " ", "_") == s {
			return h
		}
	}
	t.Fatalf("hello %q is unknown", s)
	return 0
}

func mode(t *testing.T, s string) devices.Mode {
	t.Helper()
	if s == "unset" {
		return devices.ModeUnset
	}
	m, err := devices.ParseMode(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func at(t *testing.T, s string) time.Time {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return noon.Add(d)
}
