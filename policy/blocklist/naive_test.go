package blocklist

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// A matcher written plainly, to compare with: every rule becomes a regular
// expression over the name, and every rule is tried.
type naiveRule struct {
	list                        int
	allow, important, bad, host bool
	re                          *regexp.Regexp
	modifiers                   map[string]string
	equal                       string // equal for rules that differ in $badfilter only
	zone                        string // the name, of a line of a name server's language
}

// naive reads one line of the generator or of a real list.
func naive(line string) naiveRule {
	r := naiveRule{modifiers: map[string]string{}}
	if r.readZone(line) {
		return r
	}
	if _, name, ok := strings.Cut(line, " "); ok {
		r.host, line = true, name
	}
	if !r.host && !strings.ContainsAny(line, "|^*@$/") && line[0] != '.' {
		r.host = true
	}
	text, allow := strings.CutPrefix(line, "@@")
	r.allow = allow
	pattern, modifiers, _ := strings.Cut(text, "$")
	if strings.HasPrefix(text, "/^") {
		i := strings.LastIndex(text, "/$")
		if i < 0 {
			i = len(text) - 1
		}
		pattern, modifiers = text[:i+1], strings.TrimPrefix(text[i+1:], "$")
	}
	equal := []string{fmt.Sprint(allow), sameMeaning(pattern)}
	for m := range strings.SplitSeq(modifiers, ",") {
		key, value, _ := strings.Cut(m, "=")
		switch key {
		case "important":
			r.important = true
		case "badfilter":
			r.bad = true
			continue
		case "":
			continue
		}
		r.modifiers[key] = value
		equal = append(equal, m)
	}
	slices.Sort(equal[2:])
	r.equal = strings.Join(equal, " ")
	r.re = naivePattern(pattern, r.host)
	return r
}

// readZone reads a line of dnsmasq or of a response policy zone.
func (r *naiveRule) readZone(line string) bool {
	var below, same, action string
	if m := regexp.MustCompile(`^(?:address|server)=/(\*\.)?(.*)/(.*)$`).FindStringSubmatch(line); m != nil {
		below, same, r.zone, action = `(.+\.)?`, "||"+m[2]+"^", m[2], m[3]
		if m[1] != "" {
			below, same = `.+\.`, "*."+m[2]
		}
		r.allow = action == "#"
	} else if m := regexp.MustCompile(`^(\*\.)?(\S+) (?:CNAME|A) (\S+)$`).FindStringSubmatch(line); m != nil {
		same, r.zone, action = "|"+m[2]+"^", m[2], m[3]
		if m[1] != "" {
			below, same = `.+\.`, "*."+m[2]
		}
		r.allow = action == "rpz-passthru."
	} else {
		return false
	}
	if _, err := netip.ParseAddr(action); err == nil && action != "0.0.0.0" {
		r.modifiers["dnsrewrite"] = action
	}
	r.equal = line
	if !r.allow && len(r.modifiers) == 0 { // it is what an adblock-style rule is
		r.equal = "false " + same
	}
	r.re = regexp.MustCompile("^" + below + regexp.QuoteMeta(r.zone) + "$")
	return true
}

// reach is how much of a name a zone's line is about.
func (r *naiveRule) reach() int {
	return len(r.zone) + strings.Count(r.re.String(), `.+\.`) - strings.Count(r.re.String(), `(.+\.)?`)
}

// sameMeaning gives patterns that cover the same names one text.
func sameMeaning(p string) string {
	if strings.HasSuffix(p, "|") {
		p = strings.TrimSuffix(p, "|") + "^"
	}
	p = strings.Replace(p, "//", "|", 1)
	for _, below := range []string{"||*.", "*.", "."} {
		if n, ok := strings.CutPrefix(p, below); ok {
			return "*." + strings.TrimSuffix(n, "^")
		}
	}
	return strings.TrimSuffix(p, "*")
}

func naivePattern(p string, host bool) *regexp.Regexp {
	switch {
	case host:
		return regexp.MustCompile("^" + regexp.QuoteMeta(p) + "$")
	case strings.HasPrefix(p, "/^"):
		return regexp.MustCompile(strings.Trim(p, "/"))
	case strings.HasPrefix(p, "*.") && !strings.Contains(p, "^"):
		return regexp.MustCompile(`.\.` + regexp.QuoteMeta(p[2:]) + "$")
	case strings.HasPrefix(p, ".") && !strings.ContainsAny(p, "^*"):
		return regexp.MustCompile(`.` + regexp.QuoteMeta(p) + "$")
	}
	q := regexp.QuoteMeta(p)
	for _, x := range [][2]string{{`^\|\|`, `^(.+\.)?`}, {`^\|`, `^`}, {`^(http)?:?//`, `^`}, {`^/`, `^`}} {
		if re := regexp.MustCompile(strings.NewReplacer(`^\|\|`, `^\\\|\\\|`, `^\|`, `^\\\|`).Replace(x[0])); re.MatchString(q) {
			q = re.ReplaceAllLiteralString(q, x[1])
			break
		}
	}
	q = strings.ReplaceAll(q, `\*`, `.*`)
	q = strings.TrimSuffix(q, `\|`)
	if q != strings.ReplaceAll(regexp.QuoteMeta(p), `\*`, `.*`) && strings.HasSuffix(p, "|") {
		q += "$"
	}
	return regexp.MustCompile(strings.ReplaceAll(q, `\^`, `$`))
}

func (r naiveRule) speaks(q *Question) bool {
	if !r.re.MatchString(string(q.Name)) {
		return false
	}
	for key, value := range r.modifiers {
		fits := func(is func(string) bool) bool {
			some, one := false, false
			for v := range strings.SplitSeq(value, "|") {
				v, not := strings.CutPrefix(v, "~")
				if not && is(v) {
					return false
				}
				some = some || !not
				one = one || !not && is(v)
			}
			return one || !some
		}
		ok := true
		switch key {
		case "dnstype":
			ok = fits(func(v string) bool { return parseType(v) == q.Type })
		case "ctag":
			ok = fits(func(v string) bool { return slices.Contains(q.ClientTags, v) })
		case "client":
			ok = fits(func(v string) bool {
				if p, err := netip.ParsePrefix(v); err == nil {
					return p.Contains(q.ClientAddr)
				}
				return v == q.ClientName
			})
		case "denyallow":
			for v := range strings.SplitSeq(value, "|") {
				ok = ok && !q.Name.IsAtOrBelow(dnsname.Name(v))
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

func naiveDecide(rules []naiveRule, lists []Text, q *Question, mask uint64) Kind {
	var speak []naiveRule
	for _, r := range rules {
		if mask>>r.list&1 != 0 && r.speaks(q) {
			speak = append(speak, r)
		}
	}
	all := slices.Clone(speak)
	speak = slices.DeleteFunc(speak, func(r naiveRule) bool {
		return r.bad || slices.ContainsFunc(all, func(b naiveRule) bool {
			return b.bad && !r.host && b.equal == r.equal && lists[b.list].Allow == lists[r.list].Allow
		})
	})
	said := slices.Clone(speak)
	speak = slices.DeleteFunc(speak, func(r naiveRule) bool {
		return r.zone != "" && slices.ContainsFunc(said, func(o naiveRule) bool {
			yields := r.allow || r.modifiers["dnsrewrite"] != ""
			return yields && o.list == r.list && o.reach() > r.reach()
		})
	})
	var rewrites, exceptions []naiveRule
	has := map[string]bool{}
	for _, r := range speak {
		_, rewrite := r.modifiers["dnsrewrite"]
		switch {
		case lists[r.list].Allow:
			return KindAllow
		case rewrite && r.allow:
			exceptions = append(exceptions, r)
		case rewrite:
			rewrites = append(rewrites, r)
		case r.host:
			has["hosts"] = true
		default:
			has[fmt.Sprint(r.important, r.allow)] = true
		}
	}
	for _, r := range rewrites {
		if !slices.ContainsFunc(exceptions, func(e naiveRule) bool {
			v := e.modifiers["dnsrewrite"]
			return (v == "" || v == r.modifiers["dnsrewrite"]) && (e.important || !r.important)
		}) {
			return KindRewrite
		}
	}
	switch {
	case has["true true"]:
		return KindAllow
	case has["true false"]:
		return KindBlock
	case has["false true"]:
		return KindAllow
	case has["false false"]:
		return KindBlock
	case has["hosts"]:
		return KindHosts
	}
	return KindNone
}

func TestAskAgreesWithNaiveMatcher(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	one := func(s ...string) string { return s[rng.IntN(len(s))] }
	label := func() string {
		return one("a", "b", "aa", "ab", "x-y", "_t", "example", "com", "net", "ads1", "tracker")
	}
	name := func() string {
		parts := make([]string, 1+rng.IntN(4))
		for i := range parts {
			parts[i] = label()
		}
		return strings.Join(parts, ".")
	}
	line := func() string {
		n := name()
		switch rng.IntN(12) {
		case 0:
			return "x." + n
		case 1:
			return one("0.0.0.0 ", "127.0.0.1 ", ":: ", "::1 ", "127.0.0.9 ") + n
		case 2:
			return "*." + n
		}
		p := one("||"+n+"^", "||"+n+"^", "||"+n+"^", "|"+n+"^", n+"^", "."+n+"^", "||"+n, "||"+label()+"*"+n+"^", "||*."+n+"^",
			label()+"*"+label()+"^", "|"+n+"*", label()+"*"+n+"|", "/^"+label()+"[0-9a]*\\."+label()+"/", "||"+n+"|", "//"+n+"^", "||"+n+"/*")
		if strings.HasSuffix(p, "/*") {
			p = strings.TrimSuffix(p, "/*") + "^" // what it means
		}
		if len(p) < minPattern {
			p = "||" + p
		}
		var modifiers []string
		for rng.IntN(3) == 0 {
			modifiers = append(modifiers, one("important", "dnstype=A", "dnstype=~A", "dnstype=A|AAAA", "ctag=tv", "ctag=~tv|pc",
				"client=10.0.0.0/8", "client=~tv", "denyallow="+name()+"|"+name(), "dnsrewrite=192.0.2.1", "dnsrewrite=NXDOMAIN"))
		}
		slices.Sort(modifiers)
		modifiers = slices.CompactFunc(modifiers, func(a, b string) bool { return strings.Split(a, "=")[0] == strings.Split(b, "=")[0] })
		if rng.IntN(6) == 0 {
			modifiers = append(modifiers, "badfilter")
		}
		if rng.IntN(3) == 0 {
			p = "@@" + p
			if rng.IntN(8) == 0 && len(modifiers) == 0 {
				modifiers = []string{"dnsrewrite"}
			}
		}
		if len(modifiers) > 0 {
			p += "$" + strings.Join(modifiers, ",")
		}
		return p
	}
	zoneLine := func() string {
		n := name()
		return one("address=/"+n+"/", "address=/*."+n+"/", "address=/"+n+"/192.0.2.1", "address=/"+n+"/0.0.0.0", "server=/"+n+"/#",
			n+" CNAME .", "*."+n+" CNAME .", n+" CNAME rpz-passthru.", "*."+n+" CNAME rpz-passthru.", "*."+n+" A 192.0.2.2")
	}
	decided := map[Kind]int{}
	rounds, least := 40, 500
	if underRace {
		rounds, least = 4, 10
	}
	for round := range rounds {
		lists := make([]Text, 1+rng.IntN(min(1+round, MaxLists)))
		var rules []naiveRule
		var texts []string
		b := NewBuilder(Options{Buffer: 64 + rng.IntN(4096)}) // many runs
		for i := range lists {
			lists[i].Source = Source{Name: fmt.Sprint(i), Allow: rng.IntN(8) == 0}
			text := "||never.invalid^\n"
			line := line
			if rng.IntN(4) == 0 {
				line = zoneLine
			}
			for range 1 + rng.IntN(40) {
				l := line()
				r := naive(l)
				r.list = i
				rules = append(rules, r)
				texts = append(texts, l)
				text += l + "\n"
			}
			rep, err := b.Add(lists[i].Source, strings.NewReader(text))
			if err != nil || rep.Rejected > 0 {
				t.Fatal(err, rep.Rejects)
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
		for range 1500 {
			q := Question{Name: dnsname.Name(name()), Type: parseType(one("A", "AAAA", "MX")), ClientName: one("", "tv")}
			q.ClientAddr = netip.MustParseAddr(one("10.1.2.3", "192.0.2.3", "2001:db8::1"))
			q.ClientTags = [][]string{nil, {"tv"}, {"pc", "x"}}[rng.IntN(3)]
			mask := rng.Uint64() | 1
			var speaking findings
			x.rules.gather(&q, mask, &speaking)
			x.gatherNames(q.Name, mask, &speaking)
			if speaking.n == len(speaking.all) {
				continue // more rules than anybody means; the first of them decide
			}
			want := naiveDecide(rules, lists, &q, mask)
			m, ok := x.Ask(&q, mask)
			if ok != (want != KindNone) || m.Kind != want {
				for i, r := range rules {
					if mask>>r.list&1 != 0 && r.speaks(&q) {
						t.Log(r.list, lists[r.list].Allow, texts[i])
					}
				}
				t.Fatalf("round %d: %+v: got %v by %q, want %v", round, q, m.Kind, x.Rule(m), want)
			}
			decided[want]++
		}
	}
	t.Log(decided)
	for _, k := range []Kind{KindNone, KindHosts, KindBlock, KindAllow, KindRewrite} {
		if decided[k] < least {
			t.Errorf("only %d questions were decided as %s; the generator asks the wrong ones", decided[k], k)
		}
	}
}
