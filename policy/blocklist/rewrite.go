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

// parseType reads a DNS type by name (RFC 1035 §3.2.2 and its successors), or by
// number as "TYPE65" (RFC 3597 §5). Zero is none.
func parseType(s string) uint16 {
	switch s = strings.ToUpper(s); s {
	case "A":
		return 1
	case "NS":
		return 2
	case "MD":
		return 3
	case "MF":
		return 4
	case "CNAME":
		return 5
	case "SOA":
		return 6
	case "MB":
		return 7
	case "MG":
		return 8
	case "MR":
		return 9
	case "NULL":
		return 10
	case "WKS":
		return 11
	case "PTR":
		return 12
	case "HINFO":
		return 13
	case "MINFO":
		return 14
	case "MX":
		return 15
	case "TXT":
		return 16
	case "RP":
		return 17
	case "AFSDB":
		return 18
	case "X25":
		return 19
	case "ISDN":
		return 20
	case "RT":
		return 21
	case "SIG":
		return 24
	case "KEY":
		return 25
	case "PX":
		return 26
	case "AAAA":
		return 28
	case "LOC":
		return 29
	case "SRV":
		return 33
	case "NAPTR":
		return 35
	case "KX":
		return 36
	case "CERT":
		return 37
	case "DNAME":
		return 39
	case "APL":
		return 42
	case "DS":
		return 43
	case "SSHFP":
		return 44
	case "IPSECKEY":
		return 45
	case "RRSIG":
		return 46
	case "NSEC":
		return 47
	case "DNSKEY":
		return 48
	case "DHCID":
		return 49
	case "NSEC3":
		return 50
	case "NSEC3PARAM":
		return 51
	case "TLSA":
		return 52
	case "SMIMEA":
		return 53
	case "HIP":
		return 55
	case "CDS":
		return 59
	case "CDNSKEY":
		return 60
	case "OPENPGPKEY":
		return 61
	case "CSYNC":
		return 62
	case "ZONEMD":
		return 63
	case "SVCB":
		return 64
	case "HTTPS":
		return 65
	case "SPF":
		return 99
	case "NID":
		return 104
	case "L32":
		return 105
	case "L64":
		return 106
	case "LP":
		return 107
	case "EUI48":
		return 108
	case "EUI64":
		return 109
	case "TKEY":
		return 249
	case "TSIG":
		return 250
	case "IXFR":
		return 251
	case "AXFR":
		return 252
	case "MAILB":
		return 253
	case "MAILA":
		return 254
	case "ANY":
		return 255
	case "URI":
		return 256
	case "CAA":
		return 257
	case "AVC":
		return 258
	}
	if digits, ok := strings.CutPrefix(s, "TYPE"); ok {
		if n, err := strconv.ParseUint(digits, 10, 16); err == nil {
			return uint16(n)
		}
	}
	return 0
}

// ParseType reads a DNS type as rules name it: "AAAA", "https", "TYPE65".
func ParseType(s string) (kind uint16, ok bool) {
	kind = parseType(s)
	return kind, kind != 0
}
