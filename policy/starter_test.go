package policy_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy/blocklist"
)

// essential are names without which devices break, or whose loss would be
// unsafe: each was blocked by some public list and did harm.
var essential = []dnsname.Name{
	"a.samsungqbe.com", "otn.samsungcloudcdn.com", "ocfconnect-shard-eu01-euwest1.samsungiotcloud.com", // updates, SmartThings
	"osb-v1.samsungqbe.com", "api.samsungosp.com", "lgtvsdp.com", "eu.lgtvsdp.com", "snu.lge.com",
	"a1.iot-dns.com", "h3.iot-dns.com", "a1.tuyaeu.com", "m1.tuyacn.com",
	"time.windows.com", "time.google.com", "time.apple.com", "time.cloudflare.com", "pool.ntp.org", "0.openwrt.pool.ntp.org",
	"connectivitycheck.gstatic.com", "connectivitycheck.android.com", "clients3.google.com", "captive.apple.com", "www.msftconnecttest.com",
	"detectportal.firefox.com", "nmcheck.gnome.org", "spectrum.s3.amazonaws.com",
	"api.roku.com", "firmware.roku.com", "software-updates.amazon.com", "softwareupdates.amazon.com", "api.amazon.com",
	"mesu.apple.com", "gdmf.apple.com", "swscan.apple.com", "fw-download.ubnt.com", "update.sonos.com",
	"firebaseinstallations.googleapis.com", "fcm.googleapis.com", "mtalk.google.com", "android.clients.google.com", "youtube.com", "graph.facebook.com",
	"ocsp.digicert.com", "crl.pki.goog", "o.lencr.org", "www.google.com", "s3.amazonaws.com", "cloudfront.net", "googleapis.com",
}

var starterLine = regexp.MustCompile(`^\|\|([a-z0-9._-]+)\^  # ([^:;]+): ([^;\[\]]+); \[([a-z0-9-]+)\]$`)

func TestStarterList(t *testing.T) {
	raw, err := os.ReadFile("../configs/starter.txt")
	if err != nil {
		t.Fatal(err)
	}
	head, body, ok := strings.Cut(string(raw), "\n\n")
	if !ok {
		t.Fatal("the head is not followed by an empty line")
	}
	var names []dnsname.Name
	for line := range strings.Lines(body) {
		m := starterLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			t.Errorf("%q is not in the form ||name^  # maker: what it is; [source]", line)
			continue
		}
		if n, err := dnsname.Parse(m[1]); err != nil || string(n) != m[1] {
			t.Errorf("%s: not in normal form: %v", m[1], err)
		}
		if !strings.Contains(head, "["+m[4]+"]") {
			t.Errorf("%s: the source %q is not explained in the head", m[1], m[4])
		}
		names = append(names, dnsname.Name(m[1]))
	}
	if len(names) < 250 || len(names) > 600 {
		t.Errorf("%d rules, 250 to 600 are wanted", len(names))
	}
	if !slices.IsSorted(names) {
		t.Error("not sorted by name")
	}
	for i, n := range names {
		if i > 0 && names[i-1] == n {
			t.Errorf("%s is there twice", n)
		}
		for p := n.Parent(); p != ""; p = p.Parent() {
			if _, found := slices.BinarySearch(names, p); found {
				t.Errorf("%s is covered by %s already", n, p)
			}
		}
	}

	index, reports, err := blocklist.Compile(blocklist.Text{Source: blocklist.Source{Name: "starter"}, Text: strings.NewReader(string(raw))})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reports[0].Rejects {
		t.Errorf("our own reader rejects %s", r)
	}
	if index.Names() != len(names) {
		t.Errorf("%d lines gave %d names", len(names), index.Names())
	}
	for _, n := range essential {
		if m, ok := index.Match(n, ^uint64(0)); ok {
			t.Errorf("%s blocks %s, which is essential", index.Rule(m), n)
		}
	}
}
