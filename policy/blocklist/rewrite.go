package blocklist

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// Answer is what a rewriting rule or a hosts line answers with.
type Answer struct {
	// Type is "A", "AAAA", "CNAME", "PTR", "MX", "TXT", "SRV", "HTTPS", "SVCB",
	// or "RCODE" for an answer without records.
	Type string
	// Value is in zone-file form, without quotes: "192.0.2.1", "10 mail.example",
	// "NXDOMAIN". The target of a PTR ends with a dot; the others as they were written.
	Value string
}

// String is "A:192.0.2.1".
func (a Answer) String() string { return a.Type + ":" + a.Value }

// LeadsNowhere reports whether whoever gets a reaches nothing with it: an answer
// without records, or an address that is unspecified or of the asking machine itself.
func (a Answer) LeadsNowhere() bool {
	switch a.Type {
	case "RCODE":
		return true
	case "A", "AAAA":
		addr, err := netip.ParseAddr(a.Value)
		addr = addr.Unmap()
		return err == nil && (addr.IsUnspecified() || addr.IsLoopback() || addr.Is4() && addr.As4()[0] == 0)
	}
	return false
}

func answerOf(a netip.Addr) Answer {
	if a.Is4() {
		return Answer{"A", a.String()}
	}
	return Answer{"AAAA", a.String()}
}

// rcodes are the names of RFC 6895 §2.3 that fit a header.
func isRcode(s string) bool {
	switch s {
	case "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE":
		return true
	}
	return false
}

// parseRewrite reads the value of $dnsrewrite: short ("192.0.2.1", "other.example",
// "REFUSED") or full ("NOERROR;MX;10 mail.example").
func parseRewrite(s string) (a Answer, reason string) {
	parts := strings.SplitN(s, ";", 3)
	switch {
	case len(parts) == 1 && isRcode(s):
		return Answer{"RCODE", s}, ""
	case len(parts) == 1:
		if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
			return answerOf(addr), ""
		}
		if s == strings.ToUpper(s) && !strings.Contains(s, ".") {
			return a, "$dnsrewrite names an unknown response code"
		}
		if reason := checkTarget(s); reason != "" {
			return a, "$dnsrewrite: " + reason
		}
		return Answer{"CNAME", s}, ""
	case len(parts) == 2:
		return a, "$dnsrewrite needs a response code, a type and a value, with ; between"
	}
	rcode, kind, value := strings.ToUpper(parts[0]), strings.ToUpper(parts[1]), parts[2]
	switch {
	case !isRcode(rcode):
		return a, "$dnsrewrite names an unknown response code"
	case rcode != "NOERROR", kind == "" && value == "":
		return Answer{"RCODE", rcode}, ""
	}
	return parseAnswer(kind, value)
}

// parseAnswer checks that value is one of kind.
func parseAnswer(kind, value string) (a Answer, reason string) {
	words := strings.Fields(value)
	number := func(i int) bool {
		_, err := strconv.ParseUint(words[i], 10, 16)
		return err == nil
	}
	target := func(i int) bool { return words[i] == "." || checkTarget(words[i]) == "" }
	bad := "$dnsrewrite: the value does not fit the type"
	switch kind {
	case "A", "AAAA":
		addr, err := netip.ParseAddr(value)
		if err != nil || addr.Zone() != "" || addr.Is4() != (kind == "A") {
			return a, bad
		}
	case "CNAME", "PTR":
		if len(words) != 1 || checkTarget(value) != "" {
			return a, bad
		}
		if kind == "PTR" && !strings.HasSuffix(value, ".") {
			value += "."
		}
	case "TXT": // anything, nothing too
	case "MX":
		if len(words) != 2 || !number(0) || !target(1) {
			return a, bad
		}
	case "SRV":
		if len(words) != 4 || !number(0) || !number(1) || !number(2) || !target(3) {
			return a, bad
		}
	case "HTTPS", "SVCB":
		if len(words) < 2 || !number(0) || !target(1) || !areParams(words[2:]) {
			return a, bad
		}
	default:
		return a, "$dnsrewrite to a type that is not understood"
	}
	return Answer{kind, value}, ""
}

// areParams checks the parameters of RFC 9460 §2.1, as far as the shape goes.
func areParams(words []string) bool {
	for _, w := range words {
		key, value, _ := strings.Cut(w, "=")
		alone := key == "no-default-alpn" || strings.HasPrefix(key, "key") // needs no value
		if key == "" || value == "" && (!alone || strings.HasSuffix(w, "=")) {
			return false
		}
	}
	return true
}

func checkTarget(s string) (reason string) {
	n, err := dnsname.Parse(s)
	switch {
	case err != nil:
		return err.Error()
	case n == "":
		return "no name"
	}
	for i := 0; i < len(n); i++ {
		if !isNameOctet(n[i]) {
			return "a character that no name has"
		}
	}
	if isAddressLike(n) {
		return "an address, not a name"
	}
	for label := range strings.SplitSeq(string(n), ".") {
		if label[0] == '-' || label[len(label)-1] == '-' {
			return "a label that begins or ends with a hyphen"
		}
	}
	return ""
}

// typeNumbers are the DNS types that have a name (IANA, from RFC 1035 §3.2.2 on).
const typeNumbers = " A=1 NS=2 MD=3 MF=4 CNAME=5 SOA=6 MB=7 MG=8 MR=9 NULL=10 WKS=11 PTR=12 HINFO=13 MINFO=14 MX=15 TXT=16 RP=17 " +
	"AFSDB=18 X25=19 ISDN=20 RT=21 SIG=24 KEY=25 PX=26 AAAA=28 LOC=29 SRV=33 NAPTR=35 KX=36 CERT=37 DNAME=39 " +
	"APL=42 DS=43 SSHFP=44 IPSECKEY=45 RRSIG=46 NSEC=47 DNSKEY=48 DHCID=49 NSEC3=50 NSEC3PARAM=51 TLSA=52 " +
	"SMIMEA=53 HIP=55 CDS=59 CDNSKEY=60 OPENPGPKEY=61 CSYNC=62 ZONEMD=63 SVCB=64 HTTPS=65 SPF=99 NID=104 L32=105 " +
	"L64=106 LP=107 EUI48=108 EUI64=109 TKEY=249 TSIG=250 IXFR=251 AXFR=252 MAILB=253 MAILA=254 ANY=255 URI=256 " +
	"CAA=257 AVC=258 "

// parseType reads a DNS type by name, or by number as "TYPE65" (RFC 3597 §5). Zero is none.
func parseType(s string) uint16 {
	s = strings.ToUpper(s)
	number, byNumber := strings.CutPrefix(s, "TYPE")
	if !byNumber {
		_, rest, known := strings.Cut(typeNumbers, " "+s+"=")
		if number, _, _ = strings.Cut(rest, " "); !known || strings.Contains(s, "=") {
			return 0
		}
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// ParseType reads a DNS type as rules name it: "AAAA", "https", "TYPE65".
func ParseType(s string) (kind uint16, ok bool) {
	kind = parseType(s)
	return kind, kind != 0
}
