package blocklist

import (
	"bytes"
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write golden files anew")

// The file format: an index that was written on one machine is read on every
// other, whatever its octet order. When this fails, or
// when a reader must know more than before to mean the same, raise version.
func TestFormatIsStable(t *testing.T) {
	b := NewBuilder(Options{})
	for _, l := range []Text{
		text("ads", "||ads.example^\n0.0.0.0 a.tracker.example\nplain.example\n*.below.example\n@@||ok.ads.example^\n||w*.example^$dnstype=AAAA\n/^re[0-9]/\n||r.example^$dnsrewrite=192.0.2.1\n"),
		allowText("mine", "||plain.example^\n"),
	} {
		if _, err := b.Add(l.Source, l.Text); err != nil {
			t.Fatal(err)
		}
	}
	var out Memory
	if err := b.Write(&out); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/v3.index"
	if *update {
		if err := os.WriteFile(golden, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("the same lists give %d octets that differ from the %d of %s", len(out.Bytes()), len(want), golden)
	}
	x, err := Open(want)
	if err != nil {
		t.Fatal(err)
	}
	if got := say(x, "x.ads.example", 3); got != "block ads: ||ads.example^" {
		t.Error(got)
	}
	if got := say(x, "plain.example", 3); got != "allow mine: ||plain.example^" {
		t.Error(got)
	}
}
