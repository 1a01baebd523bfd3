package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcurtain/netcurtain/observe/inspect"
)

func made() *result {
	return &result{
		captures: 2,
		classes: map[string]*score{
			"tls":  {Rows: 10, Found: 10, Protocol: 9, OfProto: 10, Protect: 10, OfProt: 10, Names: 8, OfNames: 9, Missed: 1, Versions: 3, OfVer: 3},
			"http": {Rows: 4, Found: 4, Protocol: 4, OfProto: 4, Protect: 4, OfProt: 4, Names: 4, OfNames: 4},
		},
		misses: []miss{{"t1_tls_x.pcap", "tcp a > b", "missed name", "a|b.example", ""}},
	}
}

func TestFigureThatFellIsNamed(t *testing.T) {
	page := made().page([]byte("# Scores\n" + beginMark + "\n" + endMark + "\nafter\n"))
	if fell := made().fellBelow(page); fell != nil {
		t.Errorf("nothing changed, yet %v", fell)
	}
	worse := made()
	worse.classes["tls"].Names = 7
	worse.classes["tls"].ClearAsEncrypted = 1
	delete(worse.classes, "http")
	fell := strings.Join(worse.fellBelow(page), "\n")
	for _, want := range []string{"tls: names was 8, is 7", "tls: clear called encrypted was 0, is 1", "http: its captures are gone", "**all**: names was 12, is 7"} {
		if !strings.Contains(fell, want) {
			t.Errorf("%q is not among what fell:\n%s", want, fell)
		}
	}
	better := made()
	better.classes["tls"].Names, better.classes["tls"].Missed = 9, 0
	if fell := better.fellBelow(page); fell != nil {
		t.Errorf("a better score fell: %v", fell)
	}
}

func TestPageKeepsExplanationsAndText(t *testing.T) {
	page := made().page([]byte("# Scores\n" + beginMark + "\n" + endMark + "\nafter\n"))
	explained := strings.Replace(string(page), "not yet looked into", "cut by the capture", 1)
	again := string(made().page([]byte(explained)))
	if diff := cmp.Diff(explained, again); diff != "" {
		t.Errorf("writing the page again changed it (-before +after):\n%s", diff)
	}
}

func TestTruthIsMatchedIgnoringDirection(t *testing.T) {
	a, err := newKey("TCP", "192.168.0.1", "1", "2001:db8::1", "443")
	if err != nil {
		t.Fatal(err)
	}
	b, err := keyOf(inspect.Row{L4: "tcp", Src: "2001:db8::1", SrcPort: 443, Dst: "192.168.0.1", DstPort: 1})
	if err != nil || a != b {
		t.Errorf("%v and %v (%v) are one flow", a, b, err)
	}
}

func TestQUICVersion(t *testing.T) {
	for hex, want := range map[string]string{"0x00000001": "1", "0x6b3343cf": "2", "0xff00001d": "draft-29", "0xff000022": "draft-34", "x": "x"} {
		if got := quicVersion(hex); got != want {
			t.Errorf("quicVersion(%q) = %q, want %q", hex, got, want)
		}
	}
}
