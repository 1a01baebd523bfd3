package policy

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// doorAddresses are addresses at which public resolvers answer DNS over HTTPS,
// for devices that need no look-up to find them. Each row has the name by which
// sideDoorNames knows the resolver, its addresses, and where its operator, or who gathers such, writes
// them down. Only addresses that serve nothing but a resolver are here: an address
// of a delivery network would take many sites with it. They are closed on port 443.
const doorAddresses = `
dns.google            8.8.8.8 8.8.4.4 2001:4860:4860::8888 2001:4860:4860::8844             ; developers.google.com/speed/public-dns/docs/using
dns.google            2001:4860:4860::6464 2001:4860:4860::64                               ; developers.google.com/speed/public-dns/docs/dns64
cloudflare-dns.com    1.1.1.1 1.0.0.1 2606:4700:4700::1111 2606:4700:4700::1001             ; developers.cloudflare.com/1.1.1.1/ip-addresses
cloudflare-dns.com    1.1.1.2 1.0.0.2 2606:4700:4700::1112 2606:4700:4700::1002             ; the same page, for malware
cloudflare-dns.com    1.1.1.3 1.0.0.3 2606:4700:4700::1113 2606:4700:4700::1003             ; the same page, for families
dns.quad9.net         9.9.9.9 149.112.112.112 2620:fe::fe 2620:fe::9                        ; quad9.net/service/service-addresses-and-features
dns10.quad9.net       9.9.9.10 149.112.112.10 2620:fe::10 2620:fe::fe:10                    ; the same page, unsecured
dns11.quad9.net       9.9.9.11 149.112.112.11 2620:fe::11 2620:fe::fe:11                    ; the same page, with ECS
dns12.quad9.net       9.9.9.12 149.112.112.12 2620:fe::12 2620:fe::fe:12                    ; the same page, unsecured with ECS
doh.opendns.com       208.67.222.222 208.67.220.220 2620:119:35::35 2620:119:53::53         ; opendns.com/setupguide
doh.opendns.com       146.112.41.2 2620:119:fc::2                                           ; support.opendns.com "Using DNS over HTTPS (DoH) with OpenDNS"
doh.familyshield.opendns.com 208.67.222.123 208.67.220.123 2620:119:35::123 2620:119:53::123 ; opendns.com/setupguide, FamilyShield
doh.familyshield.opendns.com 146.112.41.3 2620:119:fc::3                                    ; support.opendns.com, the same page as above
doh.sandbox.opendns.com 208.67.222.2 208.67.220.2 2620:0:ccc::2 2620:0:ccd::2               ; adguard-dns.io/kb/general/dns-providers, under Cisco OpenDNS
dns.adguard-dns.com   94.140.14.14 94.140.15.15 2a10:50c0::ad1:ff 2a10:50c0::ad2:ff         ; adguard-dns.io/en/public-dns.html
unfiltered.adguard-dns.com 94.140.14.140 94.140.14.141 2a10:50c0::1:ff 2a10:50c0::2:ff      ; the same page
family.adguard-dns.com 94.140.14.15 94.140.15.16 2a10:50c0::bad1:ff 2a10:50c0::bad2:ff      ; the same page
dns.nextdns.io        45.90.28.0 45.90.30.0 2a07:a8c0:: 2a07:a8c1::                         ; nextdns.io set-up page: the anycast addresses
family-filter-dns.cleanbrowsing.org 185.228.168.168 185.228.169.168 2a0d:2a00:1:: 2a0d:2a00:2:: ; cleanbrowsing.org/filters
adult-filter-dns.cleanbrowsing.org 185.228.168.10 185.228.169.11 2a0d:2a00:1::1 2a0d:2a00:2::1 ; the same page
security-filter-dns.cleanbrowsing.org 185.228.168.9 185.228.169.9 2a0d:2a00:1::2 2a0d:2a00:2::2 ; the same page
dns.mullvad.net       194.242.2.2 194.242.2.3 194.242.2.4 194.242.2.5 194.242.2.6 194.242.2.9 ; mullvad.net/help/dns-over-https-and-dns-over-tls
dns.mullvad.net       2a07:e340::2 2a07:e340::3 2a07:e340::4 2a07:e340::5 2a07:e340::6 2a07:e340::9 ; the same page
freedns.controld.com  76.76.2.0 76.76.10.0 2606:1a40:: 2606:1a40:1::                        ; controld.com/free-dns
freedns.controld.com  76.76.2.1 76.76.2.2 76.76.2.3 76.76.2.4 76.76.2.5                     ; the same page
freedns.controld.com  76.76.10.1 76.76.10.2 76.76.10.3 76.76.10.4 76.76.10.5                ; the same page
joindns4.eu           86.54.11.1 86.54.11.201 86.54.11.12 86.54.11.212 86.54.11.13 86.54.11.213 ; joindns4.eu/for-public
joindns4.eu           86.54.11.11 86.54.11.211 86.54.11.100 86.54.11.200                    ; the same page
doh.dns.sb            185.222.222.222 45.11.45.11 2a09:: 2a11::                             ; dns.sb
dns.alidns.com        223.5.5.5 223.6.6.6 2400:3200::1 2400:3200:baba::1                    ; alidns.com
ordns.he.net          74.82.42.42 2001:470:20::2                                            ; adguard-dns.io/kb/general/dns-providers, Hurricane Electric
doh.pub               2402:4e00::                                                           ; adguard-dns.io/kb/general/dns-providers, DNSPod
doh.pub               119.29.29.29 1.12.12.12 120.53.53.53                                  ; docs.dnspod.cn/public-dns
`

// door is one row's resolver at one of its addresses.
type door struct {
	name dnsname.Name
	rule string // what a verdict says: "dns.google at 8.8.8.8"
}

// doorsAt reads doorAddresses, without those that the house itself asks.
func doorsAt(upstreams []netip.Addr) map[netip.Addr]door {
	doors := map[netip.Addr]door{}
	for line := range strings.Lines(doorAddresses) {
		row, _, _ := strings.Cut(line, ";")
		fields := strings.Fields(row)
		for i, f := range fields {
			if i == 0 {
				continue
			}
			doors[netip.MustParseAddr(f)] = door{dnsname.Name(fields[0]), fields[0] + " at " + f}
		}
	}
	for _, a := range upstreams {
		delete(doors, a.Unmap().WithZone(""))
	}
	return doors
}

// httpsPort is where DNS over HTTPS is asked; a door's other ports are no business
// of ours.
const httpsPort = 443

// doorOf returns the resolver whose address a guarded connection goes to, unless
// the household allowed its name.
func (s *Set) doorOf(q *Query) (d door, ok bool) {
	if q.Mode != devices.ModeGuard || q.Port != httpsPort {
		return d, false
	}
	switch q.Layer {
	case LayerFlow, LayerTLS, LayerHTTP:
	default:
		return d, false
	}
	d, ok = s.doorsAt[unwrap(q.Addr)]
	return d, ok && !s.opened(d.name, func(r *Rule) bool { return r.covers(q) })
}

// opened reports whether a rule of those that count allows all of name.
func (s *Set) opened(name dnsname.Name, counts func(*Rule) bool) bool {
	for ; name != "" && len(s.rules) > 0; name = name.Parent() {
		for i := range s.rules[name] {
			if r := &s.rules[name][i]; r.Action == Allow && r.Path == "" && counts(r) {
				return true
			}
		}
	}
	return false
}

// ClosedAddresses are the addresses of public resolvers that a guarded device may
// not reach on port 443, in order. Where the household allows a resolver's name,
// for any device, its addresses are left out: there the name must be read first.
func (s *Set) ClosedAddresses(now time.Time) []netip.Addr {
	if s == nil || s.off {
		return nil
	}
	var all []netip.Addr
	for a, d := range s.doorsAt {
		if !s.opened(d.name, func(r *Rule) bool { return r.Until.IsZero() || now.Before(r.Until) }) {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}

// ClosedAddresses asks the Set in force.
func (e *Engine) ClosedAddresses(now time.Time) []netip.Addr {
	return e.set.Load().ClosedAddresses(now)
}
