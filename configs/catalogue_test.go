package configs

import (
	"regexp"
	"strings"
	"testing"
)

func TestCatalogue(t *testing.T) {
	all, err := Catalogue()
	if err != nil {
		t.Fatal(err)
	}
	rules, smart := map[string]int{}, 0
	name := regexp.MustCompile(`^[a-z0-9-]{1,40}$`)
	for _, l := range all {
		if !name.MatchString(l.Name) || l.Name == StarterName {
			t.Errorf("name %q: what people type is short and plain", l.Name)
		}
		if l.Smaller != "" && rules[l.Smaller] >= l.Rules {
			t.Errorf("%s: %s stands in for it and is not smaller", l.Name, l.Smaller)
		}
		if strings.ToLower(l.For[:1]) != l.For[:1] && !strings.HasPrefix(l.For, "A") || len(l.For) > 120 {
			t.Errorf("%s: %q is no short phrase", l.Name, l.For)
		}
		rules[l.Name] = l.Rules
		if l.Smart {
			smart++
		}
	}
	if len(all) < 20 || smart < 5 {
		t.Errorf("%d lists, %d of them for smart homes", len(all), smart)
	}
}

func TestCatalogueErrorsNameTheLine(t *testing.T) {
	const head = "name\turl\tlicence\thomepage\tsize\trules\tsmaller\tsmart\tseen\tfor\n"
	const good = "a\thttps://x.example/a\tMIT\thttps://x.example\tS\t10\t-\tno\t2026-09\tads\n"
	for row, want := range map[string]string{
		good + good: "catalogue.tsv:3: a stands there twice",
		"a\thttp://x.example/a\tMIT\thttps://x.example\tS\t10\t-\tno\t2026-09\tads\n":     "catalogue.tsv:2: \"http://x.example/a\": an https address is needed",
		"a\thttps://x.example/a\tMIT\thttps://x.example\tS\t10001\t-\tno\t2026-09\tads\n": "catalogue.tsv:2: \"10001\" rules do not fit the size \"S\"",
		"a\thttps://x.example/a\tMIT\thttps://x.example\tS\t10\tb\tno\t2026-09\tads\n":    "catalogue.tsv:2: b, its smaller one, must stand above it",
		"a\thttps://x.example/a\tMIT\thttps://x.example\tS\t10\t-\tmaybe\t-\tads\n":       "catalogue.tsv:2: \"a\": name, licence, smart and for are needed",
		"a\thttps://x.example/a\tMIT\thttps://x.example\tS\t10\t-\tno\tMay\tads\n":        "catalogue.tsv:2: seen \"May\": a month such as 2026-09 is needed, or -",
		"a\n": "catalogue.tsv:2: 1 columns, 10 are needed",
	} {
		if _, err := parseCatalogue(head + row); err == nil || err.Error() != want {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
