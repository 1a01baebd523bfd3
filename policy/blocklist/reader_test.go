package blocklist

import (
	"compress/gzip"
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
		{"x.example:443", "x.example"},
		{"x.example:https", "rejected: a character that no name has"},
		{"x..example", "rejected: name \"x..example\": a label has 0 octets, 1 to 63 are allowed"},
		{"1.2.3.4", "rejected: an address without a name"},
		{"a*.example", "wild a*.example"},
		{"x.exa<mple", "rejected: a character that no name has"},

		{"*.x.example", "*.x.example"},
		{"*.X.example # why", "*.x.example"},
		{"*.com", "*.com"},

		{"0.0.0.0 x.example", "0.0.0.0 x.example"},
		{"0 x.example", "0.0.0.0 x.example"},
		{"127.0.0.1\tx.example", "127.0.0.1 x.example"},
		{"127.0.0.53 x.example", "exact x.example hosts A:127.0.0.53"},
		{":: x.example", ":: x.example"},
		{"::0 x.example", ":: x.example"},
		{"0:0:0:0:0:0:0:0 x.example", ":: x.example"},
		{"::1 x.example", "::1 x.example"},
		{"::ffff:0.0.0.0 x.example", "exact x.example hosts AAAA:::ffff:0.0.0.0"},
		{"0.0.0.0 a.example  b.example\tc.example # why", "0.0.0.0 a.example|0.0.0.0 b.example|0.0.0.0 c.example"},
		{"0.0.0.0 single", "0.0.0.0 single"},
		{"0.0.0.0 localhost", "0.0.0.0 localhost"},
		{"0.0.0.0 0.0.0.0", ""},
		{"::1 ip6-localhost ip6-loopback", "::1 ip6-localhost|::1 ip6-loopback"},
		{"fe80::1%lo0 localhost", "exact localhost hosts AAAA:fe80::1%lo0"},
		{"ff02::1 ip6-allnodes", "exact ip6-allnodes hosts AAAA:ff02::1"},
		{"255.255.255.255 broadcasthost", "exact broadcasthost hosts A:255.255.255.255"},
		{"0.0.0.0", "rejected: an address without a name"},
		{"192.168.1.5 nas.example", "exact nas.example hosts A:192.168.1.5"},
		{"2001:db8::5 nas.example", "exact nas.example hosts AAAA:2001:db8::5"},
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
		{"||x.example|", "||x.example^"},
		{"||x.example^*", "||x.example^"},
		{"||x.example/*", "||x.example^"},
		{"||x.example/", "||x.example^"},
		{"|x.example^", "|x.example^"},
		{"|x.example|", "|x.example^"},
		{"@@|x.example^", "@@|x.example^"},
		{"//x.example^", "|x.example^"},
		{"http://x.example^", "|x.example^"},
		{"||1.2.3.4^", "||1.2.3.4^"},
		{".x.example^", "*.x.example"},
		{".x.example", "*.x.example"},
		{"||x.example", "wild.label x.example"},
		{"||x*.example^", "wild.label.end x*.example"},
		{"||*x.example^", "wild.end x.example"},
		{"x.example^", "wild.end x.example"},
		{"x.example|", "wild.end x.example"},
		{"|x.example", "wild.start x.example"},
		{"-ads.*^", "wild -ads."},
		{"://*.a-b.example^", "*.a-b.example"},
		{"://104.154.", "wild.start 104.154."},
		{"/sub.", "wild.start sub."},
		{"||mün*.example^", "rejected: a * beside letters that are not ASCII"},
		{"||ads.münchen.*", "wild.label ads.xn--mnchen-3ya."},
		{"||^", "rejected: a ^ alone never matches"},
		{"||*^", "any "},
		{"^", "rejected: a ^ alone never matches"},
		{"||x.example^^", "||x.example^"},
		{"||x.example^$client=a,client=b", `subtree x.example client=2:"b"`},
		{"||x.example^$dnsrewrite=-x.example", "rejected: $dnsrewrite: a label that begins or ends with a hyphen"},
		{"||x.example^$dnsrewrite=1.2.3.4.5", "rejected: $dnsrewrite: an address, not a name"},
		{"||x.example^$dnsrewrite=NOERROR;HTTPS;1 . alpn=h2\\,h3", "subtree x.example rewrite HTTPS:1 . alpn=h2,h3"},
		{"*", "rejected: it would cover too many names; ||*^ says that all are meant"},
		{"||x.example^path", "rejected: a ^ or | inside a name never matches"},
		{"||x.example/path", "rejected: an address of a page, not a name"},
		{"||x.example^/path", "rejected: an address of a page, not a name"},
		{"||x.example:8080^", "rejected: a port: what covers a name covers all of its ports"},
		{"||" + strings.Repeat("a*", 11) + ".example^", "rejected: more than 10 * in one rule"},
		{"ws://x.example^", "rejected: an address of a page, not a name"},

		{"||*", "any "},
		{"a^", "rejected: it would cover too many names; ||*^ says that all are meant"},
		{"a^$dnstype=A", "wild.end a type=1"},
		{"https://", "rejected: a rule without a name"},
		{"/ads.js", "rejected: an address of a page, not a name"},
		{"/ads-", "rejected: an address of a page, not a name"},
		{"ads*.example/", "rejected: an address of a page, not a name"},
		{"0.0.0.0 x.example#why", "0.0.0.0 x.example"},

		{"/^ads?[0-9]/", "regexp ^ads?[0-9]"},
		{`/x\.exam/$`, `regexp x\.exam`},
		{"@@/x/", "allow regexp x"},
		{"/^Ads/", "regexp (?i)^Ads"},
		{`/^(.*\.)?x\.example$/`, "||x.example^"},
		{`/(^|\.)x-y\.example$/`, "||x-y.example^"},
		{`@@/^(.+\.)?x\.example$/`, "@@||x.example^"},
		{`/^x\.example$/`, "|x.example^"},
		{`/\.x\.example$/`, "*.x.example"},
		{`/^x.example$/`, "regexp ^x.example$"},
		{`/^(?=x)/`, "rejected: a regular expression that RE2 does not know: invalid or unsupported Perl syntax"},
		{`/(a{500}){500}/`, "rejected: a regular expression that RE2 does not know: invalid repeat count"},
		{`/(a{30}){20}(b{30}){20}/`, "rejected: a regular expression of too many steps"},
		{"/" + strings.Repeat("a", 600) + "/", "rejected: a regular expression longer than 512 octets"},
		{`/ads$/$dnstype=A`, "regexp ads$ type=1"},

		{"||x.example^$important", "subtree x.example important"},
		{"||x.example^$important,badfilter", "subtree x.example important bad"},
		{"||x.example^$dnstype=A|~aaaa|TYPE65", "subtree x.example type=1 type!=28 type=65"},
		{"||x.example^$dnstype=", "rejected: $dnstype without a value"},
		{"||x.example^$dnstype=A|", "rejected: $dnstype with an empty value"},
		{"||x.example^$dnstype=NOSUCH", "rejected: $dnstype names an unknown type"},
		{"||x.example^$client=Kitchen", `subtree x.example client=2:"Kitchen"`},
		{`||x.example^$client=~'Ann\'s\, Bob\'s'|"b|c"`, `subtree x.example client!=2:"Ann's, Bob's" client=2:"b|c"`},
		{"||x.example^$client=02:00:5e:10:00:01", `subtree x.example client=1:"\x02\x00^\x10\x00\x01"`},
		{"||x.example^$client=10.0.0.7/8", `subtree x.example client=0:"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\n\x00\x00\x00h"`},
		{"||x.example^$client='TV #1'", `subtree x.example client=2:"TV #1"`},
		{`||x.example^$client=a\\b`, `subtree x.example client=2:"a\\\\b"`},
		{"||x.example^$important # why", "subtree x.example important"},
		{"||x.example^$dnstype=A,", "subtree x.example type=1"},
		{"||x.example^$Important, dnstype=A", "subtree x.example important type=1"},
		{"||x.example^$dnsrewrite=NOERROR;TXT;", "subtree x.example rewrite TXT:"},
		{"||x.example^$dnsrewrite=NOERROR;HTTPS;1 . no-default-alpn", "subtree x.example rewrite HTTPS:1 . no-default-alpn"},
		{"||x.example^$dnsrewrite=NOERROR;HTTPS;1 . alpn", "rejected: $dnsrewrite: the value does not fit the type"},
		{"||x.example^$client=", "rejected: $client without a value"},
		{"||x.example^$ctag=device_tv|~user_child", "subtree x.example tag=device_tv tag!=user_child"},
		{"||x.example^$ctag=a b", "rejected: $ctag with a character that no tag has"},
		{"*$denyallow=com|x.example", "any  deny=com deny=x.example"},
		{"*$denyallow=~com", "rejected: $denyallow: a character that no name has"},
		{"||x.example^$dnsrewrite=192.0.2.1", "subtree x.example rewrite A:192.0.2.1"},
		{"||x.example^$dnsrewrite=2001:db8::1", "subtree x.example rewrite AAAA:2001:db8::1"},
		{"||x.example^$dnsrewrite=other.example", "subtree x.example rewrite CNAME:other.example"},
		{"||x.example^$dnsrewrite=REFUSED", "subtree x.example rewrite RCODE:REFUSED"},
		{"||x.example^$dnsrewrite=NXDOMAIN;;", "subtree x.example rewrite RCODE:NXDOMAIN"},
		{"||x.example^$dnsrewrite=NOERROR;;", "subtree x.example rewrite RCODE:NOERROR"},
		{"||x.example^$dnsrewrite=NOERROR;MX;10 mail.example", "subtree x.example rewrite MX:10 mail.example"},
		{"||x.example^$dnsrewrite=NOERROR;TXT;a;b", "subtree x.example rewrite TXT:a;b"},
		{"||x.example^$dnsrewrite=NOERROR;SRV;1 2 443 s.example", "subtree x.example rewrite SRV:1 2 443 s.example"},
		{"||x.example^$dnsrewrite=NOERROR;HTTPS;1 . alpn=h3", "subtree x.example rewrite HTTPS:1 . alpn=h3"},
		{"||x.example^$dnsrewrite=noerror;ptr;p.example", "subtree x.example rewrite PTR:p.example."},
		{"@@||x.example^$dnsrewrite", "allow subtree x.example rewrite all"},
		{"||x.example^$dnsrewrite", "subtree x.example rewrite RCODE:NOERROR"},
		{"||x.example^$dnsrewrite=A;192.0.2.1", "rejected: $dnsrewrite needs a response code, a type and a value, with ; between"},
		{"||x.example^$dnsrewrite=NOERROR;A;::1", "rejected: $dnsrewrite: the value does not fit the type"},
		{"||x.example^$dnsrewrite=NOERROR;MX;mail", "rejected: $dnsrewrite: the value does not fit the type"},
		{"||x.example^$dnsrewrite=NOERROR;LOC;1", "rejected: $dnsrewrite to a type that is not understood"},
		{"||x.example^$dnsrewrite=WHAT", "rejected: $dnsrewrite names an unknown response code"},
		{"||x.example^$third-party", "rejected: an unknown modifier"},
		{"||x.example^$domain=y.example", "rejected: an unknown modifier"},
		{"$client=10.0.0.1", `any  client=0:"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\n\x00\x00\x01\x80"`},

		{"address=/x.example/0.0.0.0", "||x.example^"},
		{"address=/x.example/", "||x.example^"},
		{"address=/x.example/#", "||x.example^"},
		{"address=/a.example/b.example/::", "||a.example^|||b.example^"},
		{"address=/x.example/192.0.2.1", "subtree x.example rewrite A:192.0.2.1"},
		{"address=/#/192.0.2.1", "any  rewrite A:192.0.2.1"},
		{"address=/#/0.0.0.0", "any "},
		{"address=/#/", "rejected: without an address it says nothing about any name"},
		{"address=//0.0.0.0", "rejected: names without a dot are the house's own"},
		{"address=/*x.example/", "wild.end x.example"},
		{"address=/*.x.example/", "*.x.example"},
		{"address = /x.example/ 192.0.2.1", "subtree x.example rewrite A:192.0.2.1"},
		{"address=/x.example/y", "rejected: no address behind the last slash"},
		{"server=/x.example/", "||x.example^"},
		{"local=/.x.example/", "||x.example^"},
		{"server=/x.example/#", "server=/x.example/#"},
		{"server=/x.example/192.0.2.53", "rejected: it says whom to ask about a name, not whether"},
		{"ipset=/x.example/vpn", "rejected: a dnsmasq option that is no rule about names"},

		{"x.example CNAME .", "|x.example^"},
		{"x.example 300 IN CNAME *. ; why", "|x.example^"},
		{"*.x.example\tCNAME\t.", "*.x.example"},
		{"x.example CNAME rpz-passthru.", "x.example CNAME rpz-passthru."},
		{"x.example CNAME x.example.", "x.example CNAME rpz-passthru."},
		{"x.example 1h30m CNAME ( . )", "|x.example^"},
		{"* CNAME .", "any "},
		{`x.example TXT "a; b" "c # d" ; e`, "exact x.example rewrite TXT:a; bc # d"},
		{"$GENERATE 1-3 a$ CNAME .", "rejected: a zone's $GENERATE is not followed"},
		{"*.x.example CNAME rpz-passthru.", "*.x.example CNAME rpz-passthru."},
		{"x.example IN CNAME rpz-drop.", "|x.example^"},
		{"x.example CNAME walled.example.", "exact x.example rewrite CNAME:walled.example"},
		{"x.example A 127.0.0.1", "|x.example^"},
		{"x.example AAAA 2001:db8::1", "exact x.example rewrite AAAA:2001:db8::1"},
		{"32.1.2.0.192.rpz-ip CNAME .", "rejected: a rule about addresses or servers, not about names"},
		{"@ IN NS localhost.", ""},
		{"$TTL 300", ""},
		{"; comment", ""},

		{"x.example##.banner", "rejected: a rule about the look of a page, not about names"},
		{"x.example#@#.banner", "rejected: a rule about the look of a page, not about names"},
	} {
		var got []string
		reason := parse(c.line, func(p parsed) {
			if p.more != nil {
				got = append(got, sayRule(p.more))
				return
			}
			s := p.form.shape()
			got = append(got, s.before+string(p.name)+s.after)
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

func zipped(text string) string {
	var b strings.Builder
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return b.String()
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
		"nothing":                {"", ErrEmpty},
		"blanks":                 {" \r\n\t\n", ErrEmpty},
		"comments":               {"# nothing\n! here\n", ErrEmpty},
		"prose":                  {strings.Repeat("this is no list at all\n", 20), ErrEmpty},
		"web page":               {"<!DOCTYPE html>\n<html>", ErrHTML},
		"web page after all":     {"\xef\xbb\xbf\n\n  <HTML><body>", ErrHTML},
		"web page, commented":    {"# 404\n<!doctype html><html>", ErrHTML},
		"archive":                {"\x1f\x8b\x08\x00\x00\x00\x00\x00", ErrBinary},
		"zero octet later":       {"good.example\n" + strings.Repeat("# long\n", 200) + "x\x00y.example\n", ErrBinary},
		"too many octets":        {strings.Repeat("# comment\n", 300), ErrTooLong},
		"too many when unpacked": {zipped(strings.Repeat("# comment\n", 300)), ErrTooLong},
		"packed archive":         {zipped("\x00tar"), ErrBinary},
		"too many rules":         {long.String(), ErrTooLong},
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
