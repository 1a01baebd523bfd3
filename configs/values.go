package configs

import (
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

func absolute(s string) (string, error) {
	if !filepath.IsAbs(s) || filepath.Clean(s) != s {
		return "", fmt.Errorf("%.80q: a clean absolute path is needed", s)
	}
	return s, nil
}

func interfaceName(s string) (string, error) {
	if s == "" || len(s) > 15 || strings.ContainsAny(s, "/ \t\"'\\{};,") {
		return "", fmt.Errorf("%.40q: the name of an interface such as br-lan is needed (ip link shows them)", s)
	}
	return s, nil
}

func hostName(s string) (string, error) {
	n, err := dnsname.Parse(s)
	return string(n), err
}

func upstream(s string) (string, error) {
	addr, tls := strings.CutPrefix(s, "tls://")
	server := addr
	if tls {
		if host, name, ok := strings.Cut(addr, "#"); ok { // tls://9.9.9.9#dns.quad9.net
			if _, err := dnsname.Parse(name); err != nil {
				return "", err
			}
			server = host
		}
	}
	if _, err := netip.ParseAddr(strings.Trim(server, "[]")); err == nil {
		return s, nil
	}
	if _, err := netip.ParseAddrPort(server); err == nil {
		return s, nil
	}
	return "", fmt.Errorf("%.80q: an address such as 192.0.2.1, 192.0.2.1:53 or tls://9.9.9.9#dns.quad9.net is needed", s)
}

func address(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
		return a, fmt.Errorf("%.60q: the address of a machine in the house such as 192.168.1.5 is needed", s)
	}
	return a.Unmap(), nil
}

// handedPort is a further port whose connections go to the proxy. Look-ups have
// their own way.
func handedPort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	switch {
	case err != nil || n == 0:
		return 0, fmt.Errorf("%.40q: a TCP port from 1 to 65535 is needed", s)
	case n == 80 || n == 443:
		return 0, fmt.Errorf("%d is handed over anyway: leave the line out", n)
	case n == 53 || n == 853:
		return 0, fmt.Errorf("%d is for look-ups, which section dns is about", n)
	}
	return uint16(n), nil
}

func httpsURL(s string) (string, error) {
	if !strings.HasPrefix(s, "https://") && !strings.HasPrefix(s, "http://") || len(s) > 2048 {
		return "", fmt.Errorf("%.80q: an https:// address is needed", s)
	}
	return s, nil
}

// pageURL is where people reach the pages: scheme and host, and a path if need be.
func pageURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || len(s) > 256 {
		return "", fmt.Errorf("%.80q: an address such as http://netcurtain.lan/ is needed", s)
	}
	return strings.TrimSuffix(s, "/") + "/", nil
}

// listFile keeps list files below the state folder's lists/: a settings page
// must never become a way to read any file of the router.
func listFile(s string) (string, error) {
	if !filepath.IsLocal(s) || filepath.Clean(s) != s {
		return "", fmt.Errorf("%.80q: a file name below the state folder's lists/ is needed, without .. and not absolute", s)
	}
	return s, nil
}

// didYouMean names the nearest known word, or all of them.
func didYouMean(got string, known []string) string {
	best, dist := "", 3
	for _, k := range known {
		if d := distance(got, k); d < dist {
			best, dist = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf(": did you mean %q?", best)
	}
	return ": allowed are " + strings.Join(known, ", ")
}

// distance is the edit distance of two short words, bounded.
func distance(a, b string) int {
	if len(a) > 40 {
		return 40
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		diag := row[0]
		row[0] = i + 1
		for j := range b {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag, row[j+1] = row[j+1], min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
