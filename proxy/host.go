package proxy

import (
	"errors"
	"net/netip"
	"strings"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

var errHost = errors.New("the Host field holds no name and no address")

// normalHost is the name or the address in a Host field, without the port, in
// the one form in which policy compares. Both are empty for an empty field.
func normalHost(host string) (dnsname.Name, netip.Addr, error) {
	h := host
	if rest, ok := strings.CutPrefix(h, "["); ok { // [2001:db8::1]:80
		inner, after, ok := strings.Cut(rest, "]")
		a, err := netip.ParseAddr(inner)
		if !ok || err != nil || after != "" && !isPort(after) {
			return "", netip.Addr{}, errHost
		}
		return "", a.WithZone("").Unmap(), nil
	}
	if i := strings.LastIndexByte(h, ':'); i >= 0 {
		if !isPort(h[i:]) {
			return "", netip.Addr{}, errHost
		}
		h = h[:i]
	}
	if strings.ContainsAny(h, "@/\\?#%:[]\"'<> ,;") {
		return "", netip.Addr{}, errHost
	}
	n, err := dnsname.Parse(h)
	if err != nil || n == "" && h != "" {
		return "", netip.Addr{}, errHost
	}
	// Only now, for "192.0.2.1." and full-width digits are that address, too.
	if a, err := netip.ParseAddr(string(n)); err == nil {
		return "", a.Unmap(), nil
	}
	return n, netip.Addr{}, nil
}

// isPort reports whether s is a colon and at most five digits.
func isPort(s string) bool {
	if len(s) > 6 || s[0] != ':' {
		return false
	}
	for _, c := range s[1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// hostOf is dst as a Host field has it: 80 is not said.
func hostOf(dst netip.AddrPort) string {
	if dst.Port() != httpPort {
		return dst.String()
	}
	if dst.Addr().Is6() {
		return "[" + dst.Addr().String() + "]"
	}
	return dst.Addr().String()
}
