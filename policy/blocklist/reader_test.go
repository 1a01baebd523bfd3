package blocklist

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

func TestLines(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"", ""},
		{"   ", ""},
		{"# comment", ""},
		{"! comment", ""},
		{"[Adblock Plus 2.0]", ""},
		{"##.banner", ""}, // begins as a comment does

		{"plain.example", "plain.example"},
		{"  Plain.Example.  ", "plain.example"},
		{"plain.example # why", "plain.example"},
		{"plain.example\t# why", "plain.example"},
		{"_dmarc.x-y.example", "_dmarc.x-y.example"},
		{"münchen.example", "xn--mnchen-3ya.example"},
		{"xn--mnchen-3ya.example", "xn--mnchen-3ya.example"},
		{"plain", "rejected: a word without a dot"},
		{"two words.example", "rejected: several words and the first is no address"},
		{"http://x.example/ad.js", "rejected: an address of a page, not a name"},
		{"x.example/ad", "rejected: an address of a page, not a name"},
		{"x.example:443", "rejected: a character that no name has"},
		{"x..example", "rejected: name \"x..example\": a label has 0 octets, 1 to 63 are allowed"},
		{"1.2.3.4", "rejected: an address without a name"},
		{"a*.example", "rejected: a * inside a name is not understood yet"},
		{"x.exa<mple", "rejected: a character that no name has"},

		{"*.x.example", "*.x.example"},
		{"*.X.example # why", "*.x.example"},
		{"*.com", "*.com"},

		{"0.0.0.0 x.example", "0.0.0.0 x.example"},
		{"0 x.example", "0.0.0.0 x.example"},
		{"127.0.0.1\tx.example", "127.0.0.1 x.example"},
		{"127.0.0.53 x.example", "127.0.0.1 x.example"},
		{":: x.example", ":: x.example"},
		{"::0 x.example", ":: x.example"},
		{"0:0:0:0:0:0:0:0 x.example", ":: x.example"},
		{"::1 x.example", "::1 x.example"},
		{"::ffff:0.0.0.0 x.example", "0.0.0.0 x.example"},
		{"0.0.0.0 a.example  b.example\tc.example # why", "0.0.0.0 a.example|0.0.0.0 b.example|0.0.0.0 c.example"},
		{"0.0.0.0 single", "0.0.0.0 single"},
		{"0.0.0.0 localhost", ""},
		{"0.0.0.0 0.0.0.0", ""},
		{"::1 ip6-localhost ip6-loopback", ""},
		{"fe80::1%lo0 localhost", ""},
		{"ff02::1 ip6-allnodes", ""},
		{"255.255.255.255 broadcasthost", ""},
		{"0.0.0.0", "rejected: an address without a name"},
		{"192.168.1.5 nas.example", "rejected: it points a name at an address; only addresses that lead nowhere block"},
		{"0.0.0.0 good.example b@d", "0.0.0.0 good.example|rejected: a character that no name has"},

		{"||x.example^", "||x.example^"},
		{"||x.example^|", "||x.example^"},
		{"||X.Example.^", "||x.example^"},
		{"||x.example^  # Maker: what; [key]", "||x.example^"},
		{"||zip^", "||zip^"},
		{"||*.x.example^", "*.x.example"},
		{"@@||x.example^", "@@||x.example^"},
		{"@@||x.example^|", "@@||x.example^"},
		{"@@||*.x.example^", "@@||*.x.example^"},
		{"@@*.x.example", "@@||*.x.example^"},
		{"||x.example", "rejected: without ^ at its end it would cover longer names too; not understood yet"},
		{"||x.example^$important", "rejected: modifiers ($…) are not understood yet"},
		{"||x*.example^", "rejected: a * inside a name is not understood yet"},
		{"||1.2.3.4^", "rejected: an address, not a name"},
		{"||^", "rejected: a rule without a name"},
		{"|x.example^", "rejected: a pattern that is not anchored with || is not understood yet"},
		{"x.example^", "rejected: a pattern that is not anchored with || is not understood yet"},
		{"/^ads?[0-9]/", "rejected: regular expressions are not understood yet"},
		{"@@/x/", "rejected: regular expressions are not understood yet"},
		{"x.example##.banner", "rejected: a rule about the look of a page, not about names"},
		{"x.example#@#.banner", "rejected: a rule about the look of a page, not about names"},
	} {
		var got []string
		reason := parseLine(c.line, func(f form, n dnsname.Name) {
			s := f.shape()
			got = append(got, s.before+string(n)+s.after)
		})
		if reason != "" {
			got = append(got, "rejected: "+reason)
		}
		if g := strings.Join(got, "|"); g != c.want {
			t.Errorf("%q\n got %s\nwant %s", c.line, g, c.want)
		}
	}
}

func TestListAsAWhole(t *testing.T) {
	x, reports, err := Compile(text("mixed", "\xef\xbb\xbfone.example\r\n0.0.0.0 two.example\r\n||three.example^\r\nbad line here\r\n"+
		strings.Repeat("y", 5000)+"\r\n\xff\xfe.example\r\nlast.example"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []dnsname.Name{"one.example", "two.example", "a.three.example", "last.example"} {
		if _, ok := x.Match(n, 1); !ok {
			t.Errorf("%s is not there", n)
		}
	}
	var rejects []string
	for _, r := range reports[0].Rejects {
		rejects = append(rejects, r.String())
	}
	want := []string{
		"mixed:4: bad line here: several words and the first is no address",
		"mixed:5: " + strings.Repeat("y", 80) + ": longer than 4096 octets",
		`mixed:6: \xff\xfe.example: not UTF-8`,
	}
	if d := cmp.Diff(want, rejects); d != "" {
		t.Error(d)
	}
	if r := reports[0]; r.Rules != 4 || r.Lines != 7 || r.Rejected != 3 {
		t.Errorf("%d rules in %d lines, %d rejected", r.Rules, r.Lines, r.Rejected)
	}
}

func TestRejectsAreCountedAndTheFirstKept(t *testing.T) {
	_, reports, err := Compile(text("bad", "good.example\n"+strings.Repeat("not a rule\n", 500)))
	if err != nil {
		t.Fatal(err)
	}
	if r := reports[0]; r.Rejected != 500 || len(r.Rejects) != 100 {
		t.Errorf("%d rejected, %d kept", r.Rejected, len(r.Rejects))
	}
}

func TestWholeListsAreRefused(t *testing.T) {
	small := Limits{Bytes: 2000, Rules: 50}
	var long strings.Builder
	for i := range 60 {
		fmt.Fprintf(&long, "n%d.example\n", i)
	}
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"nothing":             {"", ErrEmpty},
		"blanks":              {" \r\n\t\n", ErrEmpty},
		"comments":            {"# nothing\n! here\n", ErrEmpty},
		"prose":               {strings.Repeat("this is no list at all\n", 20), ErrEmpty},
		"web page":            {"<!DOCTYPE html>\n<html>", ErrHTML},
		"web page after all":  {"\xef\xbb\xbf\n\n  <HTML><body>", ErrHTML},
		"web page, commented": {"# 404\n<!doctype html><html>", ErrHTML},
		"archive":             {"\x1f\x8b\x08\x00\x00\x00\x00\x00", ErrBinary},
		"zero octet later":    {"good.example\n" + strings.Repeat("# long\n", 200) + "x\x00y.example\n", ErrBinary},
		"too many octets":     {strings.Repeat("# comment\n", 300), ErrTooLong},
		"too many rules":      {long.String(), ErrTooLong},
	} {
		b := NewBuilder(Options{Limits: small})
		if _, err := b.Add(Source{Name: name}, strings.NewReader(c.text)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	broken := errors.New("the line was cut")
	b := NewBuilder(Options{})
	src := io.MultiReader(strings.NewReader(strings.Repeat("good.example\n", 1000)), iotest.ErrReader(broken))
	if _, err := b.Add(Source{Name: "cut"}, src); !errors.Is(err, broken) {
		t.Errorf("a download that breaks off: %v", err)
	}
	if _, err := b.Add(Source{Name: "few", MinRules: 3}, strings.NewReader("a.example\nb.example\n")); !errors.Is(err, ErrShrunk) {
		t.Errorf("a list that shrank: %v", err)
	}
	if len(b.lists) != 0 || len(b.runs) != 0 {
		t.Errorf("refused lists left %d lists and %d runs", len(b.lists), len(b.runs))
	}
}

func TestListOfExactlyTheCapIsTaken(t *testing.T) {
	body := "good.example\n"
	b := NewBuilder(Options{Limits: Limits{Bytes: int64(len(body)), Rules: 1}})
	if _, err := b.Add(Source{Name: "x"}, strings.NewReader(body)); err != nil {
		t.Error(err)
	}
}

func TestAnIndexHoldsAtMostMaxLists(t *testing.T) {
	b := NewBuilder(Options{})
	for i := range MaxLists {
		if err := b.Empty(Source{Name: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Empty(Source{Name: "one more"}); err == nil {
		t.Error("a 65th list is taken")
	}
}

// A full disk must end the compile, not make an index with holes.
func TestScratchThatFails(t *testing.T) {
	b := NewBuilder(Options{Scratch: fullDisk{}})
	if _, err := b.Add(Source{Name: "x"}, strings.NewReader("x.example\n")); !errors.Is(err, errFull) {
		t.Errorf("Add: %v", err)
	}
	if _, err := b.Add(Source{Name: "y"}, strings.NewReader("y.example\n")); !errors.Is(err, errFull) {
		t.Errorf("Add after the failure: %v", err)
	}
	if err := b.Write(new(Memory)); !errors.Is(err, errFull) {
		t.Errorf("Write: %v", err)
	}
	ok := NewBuilder(Options{})
	if err := ok.Write(fullDisk{}); !errors.Is(err, errFull) {
		t.Errorf("Write to a full disk: %v", err)
	}
}

var errFull = errors.New("no space left")

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error)         { return 0, errFull }
func (fullDisk) ReadAt([]byte, int64) (int, error) { return 0, errFull }
