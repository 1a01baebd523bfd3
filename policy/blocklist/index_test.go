package blocklist

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

func text(name, lines string) Text {
	return Text{Source: Source{Name: name}, Text: strings.NewReader(lines)}
}

func allowText(name, lines string) Text {
	return Text{Source: Source{Name: name, Allow: true}, Text: strings.NewReader(lines)}
}

func mustCompile(tb testing.TB, lists ...Text) *Index {
	tb.Helper()
	x, _, err := Compile(lists...)
	if err != nil {
		tb.Fatal(err)
	}
	return x
}

// say is a match in words: "block ads: ||x^".
func say(x *Index, name dnsname.Name, mask uint64) string {
	m, ok := x.Match(name, mask)
	if !ok {
		return "-"
	}
	action := m.Kind.String()
	if m.Kind == KindHosts {
		action = "block"
	}
	return fmt.Sprintf("%s %s: %s", action, x.Lists()[m.List].Name, x.Rule(m))
}

func TestMatch(t *testing.T) {
	x := mustCompile(t,
		text("ads", "plain.example\n0.0.0.0 hosts.example\n127.0.0.1 hosts127.example\n:: hosts6.example\n::1 hosts61.example\n*.below.example\n||subtree.example^\n||a.deep.subtree.example^\n@@||good.subtree.example^\n@@||*.partly.subtree.example^\n"),
		text("more", "subtree.example\n||only.more.example^\n||plain.example^"),
		allowText("mine", "allowed.subtree.example\n||allowed.more.example^"),
	)
	const ads, more, mine, all = 1, 2, 4, 7
	for _, c := range []struct {
		name dnsname.Name
		mask uint64
		want string
	}{
		{"plain.example", ads, "block ads: plain.example"},
		{"www.plain.example", ads, "-"},
		{"www.plain.example", all, "block more: ||plain.example^"},
		{"xplain.example", all, "-"},
		{"hosts.example", all, "block ads: 0.0.0.0 hosts.example"},
		{"hosts127.example", all, "block ads: 127.0.0.1 hosts127.example"},
		{"hosts6.example", all, "block ads: :: hosts6.example"},
		{"hosts61.example", all, "block ads: ::1 hosts61.example"},
		{"www.hosts.example", all, "-"},
		{"below.example", all, "-"},
		{"a.b.below.example", all, "block ads: *.below.example"},
		{"subtree.example", ads, "block ads: ||subtree.example^"},
		{"subtree.example", more, "block more: subtree.example"},
		{"x.subtree.example", more, "-"},
		{"x.subtree.example", all, "block ads: ||subtree.example^"},
		{"x.a.deep.subtree.example", all, "block ads: ||a.deep.subtree.example^"},
		{"good.subtree.example", all, "allow ads: @@||good.subtree.example^"},
		{"very.good.subtree.example", all, "allow ads: @@||good.subtree.example^"},
		{"partly.subtree.example", all, "block ads: ||subtree.example^"},
		{"x.partly.subtree.example", all, "allow ads: @@||*.partly.subtree.example^"},
		{"allowed.subtree.example", ads | mine, "allow mine: allowed.subtree.example"},
		{"x.allowed.subtree.example", ads | mine, "block ads: ||subtree.example^"},
		{"allowed.subtree.example", ads, "block ads: ||subtree.example^"},
		{"allowed.more.example", mine, "allow mine: ||allowed.more.example^"},
		{"only.more.example", ads | mine, "-"},
		{"only.more.example", 0, "-"},
		{"example", all, "-"},
		{"", all, "-"},
	} {
		if got := say(x, c.name, c.mask); got != c.want {
			t.Errorf("%s with lists %03b: %s, want %s", c.name, c.mask, got, c.want)
		}
	}
}

func TestBuilderForgetsARefusedListAndKeepsTheOld(t *testing.T) {
	old := mustCompile(t, text("a", "a.example"), text("b", "||b.example^\n@@||ok.b.example^\n0.0.0.0 b.example"))
	b := NewBuilder(Options{Buffer: 128})
	if _, err := b.Add(Source{Name: "a"}, strings.NewReader("new-a.example\n")); err != nil {
		t.Fatal(err)
	}
	_, err := b.Add(Source{Name: "b"}, strings.NewReader(strings.Repeat("gone.example\n", 100)+"\x00"))
	if !errors.Is(err, ErrBinary) {
		t.Fatalf("a list with zero octets: %v", err)
	}
	if _, err := b.Keep(Source{Name: "b"}, old); err != nil {
		t.Fatal(err)
	}
	if err := b.Empty(Source{Name: "c"}); err != nil {
		t.Fatal(err)
	}
	var out Memory
	if err := b.Write(&out); err != nil {
		t.Fatal(err)
	}
	x, err := Open(out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	got := map[dnsname.Name]string{}
	for _, n := range []dnsname.Name{"a.example", "new-a.example", "gone.example", "b.example", "x.b.example", "ok.b.example"} {
		got[n] = say(x, n, ^uint64(0))
	}
	want := map[dnsname.Name]string{
		"a.example": "-", "new-a.example": "block a: new-a.example", "gone.example": "-",
		"b.example": "block b: ||b.example^", "x.b.example": "block b: ||b.example^", "ok.b.example": "allow b: @@||ok.b.example^",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	var rules []int
	for _, l := range x.Lists() {
		rules = append(rules, l.Rules)
	}
	if d := cmp.Diff([]int{1, 3, 0}, rules); d != "" {
		t.Error(d)
	}
}

func TestCompileIsDeterministic(t *testing.T) {
	build := func(buffer int) []byte {
		b := NewBuilder(Options{Buffer: buffer})
		for i := range 3 {
			var s strings.Builder
			for j := range 500 {
				fmt.Fprintf(&s, "n%d.list%d.example\nshared%d.example\n", j, i, j)
			}
			if _, err := b.Add(Source{Name: fmt.Sprint(i)}, strings.NewReader(s.String())); err != nil {
				t.Fatal(err)
			}
		}
		var out Memory
		if err := b.Write(&out); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	if !bytes.Equal(build(200), build(1<<20)) {
		t.Error("the size of the sort buffer changes the index")
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	x := mustCompile(t, text("ads", "||ads.example^\nplain.example"))
	for _, n := range []dnsname.Name{"www.allowed.example", "x.ads.example", "plain.example"} {
		if a := testing.AllocsPerRun(200, func() {
			if m, ok := x.Match(n, 1); ok {
				x.Rule(m)
			}
		}); a != 0 {
			t.Errorf("%s: %v allocations", n, a)
		}
	}
}
