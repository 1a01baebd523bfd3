package dissect

import (
	"bytes"
	"net/netip"
	"strings"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// hostName is b as a name, or "" when b cannot be one. Names come from the
// device and so may be anything: only letters, digits, hyphens, underscores and
// dots pass, within the limits of RFC 1035.
func hostName(b []byte) string {
	for len(b) > 0 && b[len(b)-1] == '.' {
		b = b[:len(b)-1]
	}
	if len(b) == 0 || len(b) > 253 {
		return ""
	}
	for _, c := range b {
		if !isNameByte(c) {
			return ""
		}
	}
	n, err := dnsname.Parse(string(b))
	if err != nil {
		return ""
	}
	return string(n)
}

func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
}

// serverName is a server_name extension's host_name. Address literals are not
// permitted there (RFC 6066 §3) and say nothing that the tuple does not.
func serverName(b []byte) string {
	if len(bytes.Trim(b, "0123456789.")) == 0 { // an IPv6 literal's colons are refused anyway
		return ""
	}
	return hostName(b)
}

// hostHeader is the host of a Host header or request target: a name or an
// address literal (RFC 9110 §7.2), without its port.
func hostHeader(b []byte) string {
	s := strings.Trim(string(b), " \t")
	if rest, ok := strings.CutPrefix(s, "["); ok { // [2001:db8::1]:80
		lit, _, ok := strings.Cut(rest, "]")
		a, err := netip.ParseAddr(lit)
		if !ok || err != nil {
			return ""
		}
		return a.WithZone("").String()
	}
	if host, port, ok := strings.Cut(s, ":"); ok {
		if strings.Trim(port, "0123456789") != "" {
			return ""
		}
		s = host
	}
	return hostName([]byte(s))
}
