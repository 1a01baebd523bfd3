package blocklist

import (
	"testing"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// A response policy zone as its makers publish it, and lines of every other kind
// behind it.
func TestZoneAndMixedLines(t *testing.T) {
	x, reports, err := Compile(text("zone", `$TTL 300
@       IN SOA  localhost. root.localhost. (
        2026112201 ; serial
        3600       ; refresh
        600 86400 300 )
        IN NS   localhost.
$ORIGIN rpz.example.
bad.test                CNAME .
*.bad.test              CNAME .
nodata.test        300  IN CNAME *.
absolute.test.rpz.example. CNAME .
drop.test               CNAME rpz-drop.
good.bad.test           CNAME rpz-passthru.
walled.test             CNAME garden.example.
null.test               A 0.0.0.0
addr.test               A 192.0.2.1
addr.test               AAAA 2001:db8::1
32.1.2.0.192.rpz-ip     CNAME .
||adblock.test^
0.0.0.0 hosts.test
address=/dnsmasq.test/0.0.0.0
plain.test
`))
	if err != nil {
		t.Fatal(err)
	}
	if r := reports[0]; r.Rejected != 1 || r.Rejects[0].Line != 18 {
		t.Errorf("rejected: %v", r.Rejects)
	}
	for name, want := range map[dnsname.Name]string{
		"bad.test": "block", "a.bad.test": "block", "good.bad.test": "allow", "nodata.test": "block", "absolute.test": "block",
		"drop.test": "block", "a.drop.test": "none", "walled.test": "rewrite=CNAME:garden.example", "null.test": "block",
		"addr.test": "rewrite=A:192.0.2.1|AAAA:2001:db8::1", "rpz.example": "none",
		"a.adblock.test": "block", "hosts.test": "hosts4=0.0.0.0 hosts6=", "a.dnsmasq.test": "block", "plain.test": "hosts4=0.0.0.0 hosts6=",
		"2026112201": "none", "localhost": "none",
	} {
		if got := outcome(x, &Question{Name: name, Type: 1}); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
