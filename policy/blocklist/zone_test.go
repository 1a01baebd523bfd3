package blocklist

import (
	"strings"
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

// In the languages of name servers the longest name holds, whichever way it says.
// Each was asked of the name server itself (dnsmasq 2.90, BIND 9.18).
func TestLongestNameOfAZoneHolds(t *testing.T) {
	for _, c := range []struct{ zone, name, want string }{
		{"address=/x.test/\nserver=/b.x.test/#", "c.b.x.test", "allow"},
		{"server=/x.test/#\naddress=/b.x.test/", "c.b.x.test", "block"},
		{"server=/x.test/#\naddress=/b.x.test/", "c.x.test", "allow"},
		{"server=/x.test/#\naddress=/x.test/", "x.test", "allow"},
		{"address=/x.test/192.0.2.1\naddress=/b.x.test/", "b.x.test", "block"},
		{"address=/x.test/192.0.2.1\nserver=/b.x.test/#", "b.x.test", "allow"},
		{"address=/#/192.0.2.1\nserver=/x.test/#", "x.test", "allow"},
		{"address=/#/192.0.2.1\nserver=/x.test/#", "y.test", "rewrite=A:192.0.2.1"},
		{"address=/#/0.0.0.0\nserver=/x.test/#", "y.test", "block"},
		{"address=/*x.test/", "ax.test", "block"},
		{"server=/x.test/#\naddress=/*.x.test/", "b.x.test", "block"},
		{"address=/test/192.0.2.1\nlocal=/*x.test/", "ax.test", "block"},
		{"server=/*x.test/#\nlocal=/x.test/", "x.test", "block"},
		{"*.x.test CNAME rpz-passthru.\nb.x.test CNAME .", "b.x.test", "block"},
		{"*.x.test CNAME rpz-passthru.\n*.b.x.test CNAME .", "b.x.test", "allow"},
		{"*.x.test CNAME rpz-passthru.\n*.b.x.test CNAME .", "c.b.x.test", "block"},
		{"*.test A 192.0.2.1\nx.test CNAME rpz-passthru.", "x.test", "allow"},
		{"*.test A 192.0.2.1\nx.test CNAME .", "x.test", "block"},
		{"* CNAME .\nx.test CNAME rpz-passthru.", "x.test", "allow"},
		{"* CNAME .\nx.test CNAME rpz-passthru.", "y.test", "block"},
		{"x.test A 192.0.2.1\n  A 192.0.2.2", "x.test", "rewrite=A:192.0.2.1|A:192.0.2.2"},
		{"x.test CNAME (\n ; why\n . )\ny.test CNAME .", "x.test", "block"},
		{"x.test CNAME (\n ; why\n . )\ny.test CNAME .", "y.test", "block"},
		{"$ORIGIN rpz.zone.\n@ SOA a. b. 1 1 1 1 1\n$ORIGIN test.rpz.zone.\nx CNAME .", "x.test", "block"},
		{"$ORIGIN rpz.zone.\n@ SOA a. b. 1 1 1 1 1\n$ORIGIN test\nx CNAME .\n@ CNAME .", "x.test", "block"},
		{"$ORIGIN rpz.zone.\n@ SOA a. b. 1 1 1 1 1\n$ORIGIN test\nx CNAME .\n@ CNAME .", "test", "block"},
		{"$ORIGIN .\nrpz.zone 60 IN SOA a. b. 1 1 1 1 1\nx.test.rpz.zone 60 IN CNAME .", "x.test", "block"},
	} {
		x := mustCompile(t, text("zone", c.zone))
		if got := outcome(x, &Question{Name: dnsname.Name(c.name), Type: 1}); got != c.want {
			t.Errorf("%q: %s is %s, want %s", c.zone, c.name, got, c.want)
		}
	}
	// Another list's rules are no part of the zone.
	x := mustCompile(t, text("zone", "server=/x.test/#"), text("ads", "||b.x.test^"))
	if got := outcome(x, &Question{Name: "b.x.test", Type: 1}); got != "allow" {
		t.Error(got)
	}
}

// A parenthesis that nobody closes takes a few lines with it, and that is told.
func TestParenthesesThatAreNotClosed(t *testing.T) {
	zone := "a.test CNAME .\nb.test TXT (\n" + strings.Repeat("c.test CNAME .\n", 40) + "d.test CNAME .\ne.test TXT (\n"
	x, reports, err := Compile(text("zone", zone))
	if err != nil {
		t.Fatal(err)
	}
	if r := reports[0]; r.Rejected != 2 || r.Rejects[0].Reason != unclosed || r.Rejects[0].Line != 2 || r.Rejects[1].Reason != unclosed || r.Rejects[1].Line != 44 {
		t.Errorf("%+v", r)
	}
	for name, want := range map[dnsname.Name]string{"a.test": "block", "b.test": "none", "c.test": "block", "d.test": "block", "e.test": "none"} {
		if got := outcome(x, &Question{Name: name, Type: 1}); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
