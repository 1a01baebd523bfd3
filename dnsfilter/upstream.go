package dnsfilter

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

const (
	maxUpstreams  = 15 // what CoreDNS's forward takes
	maxResolvConf = 64 << 10
)

// Upstream is one resolver to forward to: plain DNS, or DNS over TLS (RFC 7858).
type Upstream struct {
	Addr netip.AddrPort
	TLS  bool
	// ServerName is the name in the upstream's certificate; "" checks the
	// certificate against its address.
	ServerName dnsname.Name
}

// ParseUpstream reads "192.0.2.1", "192.0.2.1:5353", "[2001:db8::1]:53" or, for
// DNS over TLS, "tls://192.0.2.1" and "tls://192.0.2.1:853#dns.example.net".
// An upstream is an address, never a name: nobody could look it up.
func ParseUpstream(s string) (Upstream, error) {
	bad := func(why string) (Upstream, error) {
		return Upstream{}, fmt.Errorf("upstream %.80q: %s; 192.0.2.1, 192.0.2.1:53 or tls://192.0.2.1#dns.example.net is needed", s, why)
	}
	u, rest, port := Upstream{}, s, uint16(53)
	if after, ok := strings.CutPrefix(rest, "tls://"); ok {
		u.TLS, rest, port = true, after, 853
	}
	rest, name, named := strings.Cut(rest, "#")
	if named {
		if !u.TLS {
			return bad("only an upstream over TLS has a server name")
		}
		n, err := dnsname.Parse(name)
		if err != nil || n == "" || !plain(string(n)) {
			return bad("the server name is no host name")
		}
		u.ServerName = n
	}
	if a, err := netip.ParseAddr(rest); err == nil {
		u.Addr = netip.AddrPortFrom(a, port)
	} else if ap, err := netip.ParseAddrPort(rest); err == nil && ap.Port() != 0 {
		u.Addr = ap
	} else {
		return bad("no address")
	}
	a := u.Addr.Addr()
	if a.IsUnspecified() || a.IsMulticast() || !plain(a.Zone()) {
		return bad("not the address of a resolver")
	}
	return u, nil
}

// plain reports whether s may stand in a Corefile as one word.
func plain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_')
	})
}

// String is the form that ParseUpstream reads.
func (u Upstream) String() string {
	s := u.Addr.String()
	if u.TLS {
		s = "tls://" + s
	}
	if u.ServerName != "" {
		s += "#" + string(u.ServerName)
	}
	return s
}

// ParseResolvConf reads the name servers of resolv.conf(5) in order, each once.
// It reads at most 64 KiB and passes over what it does not understand, as
// resolvers do.
func ParseResolvConf(r io.Reader) ([]netip.Addr, error) {
	var addrs []netip.Addr
	lines := bufio.NewScanner(io.LimitReader(r, maxResolvConf))
	lines.Buffer(nil, maxResolvConf+1)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(f[1])
		if err != nil || a.IsUnspecified() || a.IsMulticast() || !plain(a.Zone()) || slices.Contains(addrs, a) {
			continue
		}
		if addrs = append(addrs, a); len(addrs) == maxUpstreams {
			break
		}
	}
	return addrs, lines.Err()
}

// SystemUpstreams is what this machine already asks: the name servers of the
// resolv.conf at path, without those for which own says that they are us.
// Finding none is an error: a third party is never asked unasked.
func SystemUpstreams(path string, own func(netip.AddrPort) bool) ([]Upstream, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("finding the upstream resolvers: %w", err)
	}
	defer f.Close()
	addrs, err := ParseResolvConf(f)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	var us []Upstream
	for _, a := range addrs {
		if ap := netip.AddrPortFrom(a, 53); own == nil || !own(ap) {
			us = append(us, Upstream{Addr: ap})
		}
	}
	if len(us) == 0 {
		return nil, fmt.Errorf("%s names no resolver other than this one; configure an upstream", path)
	}
	return us, nil
}

func (u Upstream) tlsConfig() *tls.Config {
	name := string(u.ServerName)
	if name == "" {
		name = u.Addr.Addr().WithZone("").String()
	}
	return &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12}
}
