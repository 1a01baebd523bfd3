//go:build linux

package enforce

import "net/netip"

var (
	google4       = netip.MustParseAddr("8.8.8.8")
	google6       = netip.MustParseAddr("2001:db8:8::8")
	site4         = netip.MustParseAddr("198.51.100.10")
	site6         = netip.MustParseAddr("2001:db8:99::10")
	other4        = netip.MustParseAddr("198.51.100.20")
	internetAddrs = []netip.Addr{google4, google6, site4, site6, other4}
)
