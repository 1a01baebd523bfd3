package dnsname

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	name253 := strings.Repeat(label63+".", 3) + strings.Repeat("b", 61)
	for _, c := range []struct {
		in, want string
		ok       bool
	}{
		{"", "", true},
		{".", "", true},
		{"example", "example", true},
		{"example.com.", "example.com", true},
		{"EXAMPLE.Com", "example.com", true},
		{"_dns.resolver.arpa", "_dns.resolver.arpa", true},
		{"*.example.com", "*.example.com", true},
		{"bücher.example", "xn--bcher-kva.example", true},
		{"BÜCHER.example.", "xn--bcher-kva.example", true},
		{"xn--bcher-kva.example", "xn--bcher-kva.example", true},
		{"例え.テスト", "xn--r8jz45g.xn--zckzah", true},
		{label63 + ".x", label63 + ".x", true},
		{name253, name253, true},
		{name253 + ".", name253, true},
		{"..", "", false},
		{"a..b", "", false},
		{".a", "", false},
		{"a.b..", "", false},
		{"a b", "", false},
		{"a\tb", "", false},
		{"a\x00b", "", false},
		{"a\x7f", "", false},
		{"\xff\xfe", "", false},
		{label63 + "a.x", "", false},
		{name253 + "b", "", false},
		{strings.Repeat("ü", 5000), "", false},
	} {
		got, err := Parse(c.in)
		if (err == nil) != c.ok || string(got) != c.want {
			t.Errorf("Parse(%q) = %q, %v; want %q, ok %v", c.in, got, err, c.want, c.ok)
		}
	}
}

func TestParent(t *testing.T) {
	for n, want := range map[Name]Name{"a.b": "b", "b": "", "": ""} {
		if got := n.Parent(); got != want {
			t.Errorf("Parent(%q) = %q, want %q", n, got, want)
		}
	}
}

func TestIsAtOrBelow(t *testing.T) {
	for _, c := range []struct {
		n, zone Name
		want    bool
	}{
		{"a.example", "example", true},
		{"example", "example", true},
		{"xexample", "example", false},
		{"example", "a.example", false},
		{"x.example.com", "example", false},
		{"anything", "", true},
		{"", "", true},
		{"", "example", false},
	} {
		if got := c.n.IsAtOrBelow(c.zone); got != c.want {
			t.Errorf("%q at or below %q: %v", c.n, c.zone, got)
		}
	}
}

func TestNormalNamesCostNothing(t *testing.T) {
	if a := testing.AllocsPerRun(100, func() { _, _ = Parse("www.already.normal.example") }); a != 0 {
		t.Errorf("Parse: %v allocations", a)
	}
}

// What Parse accepts is normal: parsing it again changes nothing, it is within
// the limits, and it is below each of its parents.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"", ".", "Example.COM.", "bücher.example", "a..b", "xn--a.example", "_x.y", strings.Repeat("a.", 126) + "b", "ẞ.example", "a。b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := Parse(s)
		if err != nil {
			if n != "" {
				t.Errorf("Parse(%q) = %q with an error", s, n)
			}
			return
		}
		if again, err := Parse(string(n)); err != nil || again != n {
			t.Errorf("Parse(%q) = %q, which parses as %q, %v", s, n, again, err)
		}
		if len(n) > maxName || strings.ToLower(string(n)) != string(n) || strings.HasSuffix(string(n), ".") {
			t.Errorf("Parse(%q) = %q is not normal", s, n)
		}
		for i := 0; i < len(n); i++ {
			if n[i] >= 0x80 || n[i] <= ' ' {
				t.Errorf("Parse(%q) = %q holds octet %#x", s, n, n[i])
			}
		}
		for p := n; p != ""; p = p.Parent() {
			if !n.IsAtOrBelow(p) || len(p.Parent()) >= len(p) {
				t.Errorf("%q is not below %q", n, p)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, _ = Parse("www.already.normal.example")
	}
}

// The dearest input that Parse still looks at.
func BenchmarkParseLongUnicode(b *testing.B) {
	s := strings.Repeat("\u4e00\u20000", 4*maxName/7)
	for b.Loop() {
		_, _ = Parse(s)
	}
}
