package policy_test

import (
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/policy"
)

func TestParsePath(t *testing.T) {
	for in, want := range map[string]string{
		"/collect": "/collect", "/collect/": "/collect", "/v1/event": "/v1/event", "//v1//event//": "/v1/event",
		"/%63ollect": "/collect", "/./a": "/a", "/a/../b": "/b", "/données": "/données", "/donn%C3%A9es": "/données",
	} {
		if got, err := policy.ParsePath(in); err != nil || got != want {
			t.Errorf("%q: %q, %v; %q wanted", in, got, err, want)
		}
	}
	for in, want := range map[string]string{
		"": "begins with a slash", "collect": "begins with a slash", "/": "the whole site", "/.": "the whole site", "/a/..": "the whole site",
		"/a?b=1": "leave out", "/a#b": "leave out", "/a;b": "leave out", "/a/*": "leave out",
		"/a/b/c": `say "/a/b"`, "/" + strings.Repeat("a", 200): "at most 128", "/a%00": "printable", "/a%20b": "printable", "/%ff": "printable",
	} {
		if got, err := policy.ParsePath(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, %v; an error with %q wanted", in, got, err, want)
		}
	}
}

// FuzzPathClass: whatever the target, the class has its form, and a rule made of a
// class speaks of every request of that class.
func FuzzPathClass(f *testing.F) {
	for _, s := range []string{"/", "*", "/a/b/c?d#e", "/%2e%2e/a", "/a/..//./b;c", `\a\b`, "/%", "/%4", "/a%00", "http://x/y"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		class := policy.PathClass("GET", target)
		path, ok := strings.CutPrefix(class, "GET /")
		if !ok || strings.Count(path, "/") > 1 {
			t.Fatalf("%q has the class %q", target, class)
		}
		rule, err := policy.ParsePath("/" + path)
		if err != nil || rule != "/"+path {
			return // nothing that a person would write: escaped twice, unprintable, too long
		}
		set, err := policy.Compile(policy.Config{Rules: []policy.Rule{{Action: policy.Block, Name: "a.example", Path: rule}}})
		if err != nil {
			t.Fatal(err)
		}
		if v := set.Decide(policy.Query{Layer: policy.LayerHTTP, Name: "a.example", Path: class}); v.Action != policy.Block {
			t.Errorf("a rule for %q does not speak of %q", rule, target)
		}
	})
}
