package atlas

import (
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

func TestLookup(t *testing.T) {
	a, err := New()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    dnsname.Name
		org     string
		purpose Purpose
		country string
	}{
		{"samsungads.com", "Samsung Ads", PurposeAds, "KR"},
		{"config.samsungads.com", "Samsung Ads", PurposeAds, "KR"},
		{"notsamsungads.com", "", "", ""},
		{"com", "", "", ""},
		{"", "", "", ""},
		{"cooper.logs.roku.com", "Roku", PurposeTelemetry, "US"},
		{"api.roku.com", "Roku", PurposeControl, "US"}, // the longer suffix logs.roku.com does not catch it
		{"a1.tuyaeu.com", "Tuya", PurposeControl, "CN"},
		{"0.debian.pool.ntp.org", "NTP Pool Project", PurposeTime, "US"},
		{"d1234.cloudfront.net", "Amazon CloudFront", PurposeInfra, "US"},
		{"example.org", "", "", ""},
	} {
		d, found := a.Lookup(c.name)
		if found != (c.org != "") || d.Organisation != c.org || d.Purpose != c.purpose || d.Country != c.country {
			t.Errorf("Lookup(%q) = %+v, %v; want %q %q %q", c.name, d, found, c.org, c.purpose, c.country)
		}
	}
	if n := testing.AllocsPerRun(100, func() { a.Lookup("one.two.three.four.samsungads.com") }); n != 0 {
		t.Errorf("Lookup allocates %v times", n)
	}
}

// The table is written by hand: hold it to what its head promises.
func TestTableThatShips(t *testing.T) {
	a, err := New()
	if err != nil {
		t.Fatal(err)
	}
	if len(a.rows) < 150 {
		t.Errorf("only %d suffixes", len(a.rows))
	}
	if rows := strings.Count("\n"+destinations, "\t") / 6; rows != len(a.rows) {
		t.Errorf("%d lines give %d suffixes: some suffix is there twice", rows, len(a.rows))
	}
	for _, r := range a.rows {
		if r.Breaks == "" || r.Evidence == "" {
			t.Errorf("%s: breaks and evidence are needed", r.suffix)
		}
		if r.Essential && strings.HasPrefix(r.Breaks, "nothing") {
			t.Errorf("%s is essential, yet breaks nothing", r.suffix)
		}
		if r.Essential && (r.Purpose == PurposeAds || r.Purpose == PurposeTelemetry) {
			t.Errorf("%s: essential %s", r.suffix, r.Purpose)
		}
		if strings.ContainsAny(r.Organisation+r.Breaks+r.Evidence, "<>\"") {
			t.Errorf("%s: markup in a field", r.suffix)
		}
	}
}

func TestTablesOnTop(t *testing.T) {
	const mine = "# ours\n\nacme-toys.example\tAcme Toys\tcontrol\tDE\tyes\tthe toy talks\ttest\nroku.com\tSomebody\tads\t-\tno\tnothing\ttest\n"
	a, err := New(strings.NewReader(mine))
	if err != nil {
		t.Fatal(err)
	}
	if d, _ := a.Lookup("api.acme-toys.example"); d.Organisation != "Acme Toys" || !d.Essential {
		t.Errorf("own row: %+v", d)
	}
	if d, _ := a.Lookup("roku.com"); d.Organisation != "Somebody" || d.Country != "" {
		t.Errorf("a later row must replace the one that ships: %+v", d)
	}
	for bad, want := range map[string]string{
		"roku.com\tRoku":                           "line 1: 2 fields, 7 are needed",
		"\n.\tRoku\tads\tUS\tno\tx\ty":             "line 2: suffix \".\" would match everything",
		"a..b\tRoku\tads\tUS\tno\tx\ty":            "line 1: suffix: name",
		"a.b\t\tads\tUS\tno\tx\ty":                 "an organisation is needed",
		"a.b\tRoku\tadverts\tUS\tno\tx\ty":         "purpose \"adverts\"",
		"a.b\tRoku\tads\tusa\tno\tx\ty":            "country \"usa\"",
		"a.b\tRoku\tads\tUS\tmaybe\tx\ty":          "essential \"maybe\"",
		"a.b\t" + strings.Repeat("x", maxRow) + "": "line 1: ",
	} {
		if _, err := New(strings.NewReader(bad)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New(%.60q): error %v, want %q", bad, err, want)
		}
	}
}

func FuzzTable(f *testing.F) {
	f.Add("roku.com\tRoku\tads\tUS\tno\tx\ty", "api.roku.com")
	f.Add("\t\t\t\t\t\t", "")
	f.Fuzz(func(t *testing.T, table, name string) {
		a := &Atlas{}
		if a.read(strings.NewReader(table)) != nil {
			return
		}
		n, err := dnsname.Parse(name)
		if err != nil {
			return
		}
		_, got := a.Lookup(n)
		want := false
		for _, r := range a.rows {
			want = want || n != "" && n.IsAtOrBelow(r.suffix)
		}
		if got != want {
			t.Errorf("Lookup(%q) = %v, the rows say %v", n, got, want)
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	a, err := New()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		a.Lookup("very.long.name.of.some.samsungads.com")
	}
}
