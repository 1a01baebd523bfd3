package policy

import (
	"strings"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// sideDoorNames are the doors by which a device walks around the house's
// resolver. Each stands for all below it. The names are from the operators' own
// set-up pages, or a page that gathers those, named behind each; it is our own list, kept short on purpose:
// what is wanted beyond it comes from a list.
const sideDoorNames = `
use-application-dns.net              support.mozilla.org "Configuring networks to disable DNS over HTTPS": the canary
mask.icloud.com                      developer.apple.com "Prepare your network for iCloud Private Relay"
mask-h2.icloud.com                   the same page
_dns.resolver.arpa                   RFC 9462 §4: discovery of designated resolvers

dns.google                           developers.google.com/speed/public-dns
dns.google.com                       the same, its older name
cloudflare-dns.com                   developers.cloudflare.com/1.1.1.1; also mozilla., chrome., security., family.
one.one.one.one                      the same
dns.cloudflare.com                   adguard-dns.io/kb/general/dns-providers, under Cloudflare DNS
cloudflare-gateway.com               developers.cloudflare.com/cloudflare-one: per-account resolvers
dns.quad9.net                        quad9.net/service/service-addresses-and-features
dns9.quad9.net                       the same
dns10.quad9.net                      the same
dns11.quad9.net                      the same
dns12.quad9.net                      the same
doh.opendns.com                      support.opendns.com "Using DNS over HTTPS (DoH) with OpenDNS"
doh.familyshield.opendns.com         the same
doh.sandbox.opendns.com              the same
dns.opendns.com                      the same, DNS over TLS
familyshield.opendns.com             the same
sandbox.opendns.com                  the same
dns.umbrella.com                     docs.umbrella.com
doh.umbrella.com                     the same
dns.nextdns.io                       nextdns.io set-up page
dns1.nextdns.io                      the same
dns2.nextdns.io                      the same
dns.adguard-dns.com                  adguard-dns.io/en/public-dns.html
unfiltered.adguard-dns.com           the same
family.adguard-dns.com               the same
d.adguard-dns.com                    the same, per-account resolvers
dns.adguard.com                      the same, its older names
dns-family.adguard.com               the same
dns-unfiltered.adguard.com           the same
doh.cleanbrowsing.org                cleanbrowsing.org/guides/dnsoverhttps
adult-filter-dns.cleanbrowsing.org   cleanbrowsing.org, DNS over TLS
family-filter-dns.cleanbrowsing.org  the same
security-filter-dns.cleanbrowsing.org the same
dns.controld.com                     docs.controld.com: per-account resolvers
freedns.controld.com                 controld.com/free-dns
dns.mullvad.net                      mullvad.net/help/dns-over-https-and-dns-over-tls; also adblock., base., extended.
doh.dns.sb                           dns.sb/doh
dot.sb                               dns.sb/dot
doh.dns.apple.com                    support.apple.com: names by which Apple devices reach encrypted resolvers
doh.libredns.gr                      libredns.gr
dot.libredns.gr                      the same
dns.digitale-gesellschaft.ch         digitale-gesellschaft.ch/dns
dns.switch.ch                        switch.ch/dns
doh.ffmuc.net                        ffmuc.net/wiki/knb:dohdot_en
dot.ffmuc.net                        the same
dnsforge.de                          dnsforge.de
odvr.nic.cz                          nic.cz/odvr
doh.applied-privacy.net              applied-privacy.net/services/dns
dot1.applied-privacy.net             the same
anycast.uncensoreddns.org            blog.uncensoreddns.org
unicast.uncensoreddns.org            the same
wikimedia-dns.org                    wikimedia-dns.org
joindns4.eu                          joindns4.eu/for-public
dns.njal.la                          dns.njal.la
dns.alidns.com                       alidns.com/knowledge
doh.pub                              docs.dnspod.cn/public-dns
dot.pub                              the same
doh.360.cn                           sdns.360.net
dot.360.cn                           the same
dns.twnic.tw                         101.101.101.101
public.dns.iij.jp                    public.dns.iij.jp
doh.xfinity.com                      corporate.comcast.com "Comcast and encrypted DNS"
dot.xfinity.com                      the same
doh.cox.net                          developers.cox "DNS over HTTPS"
ordns.he.net                         dns.he.net; adguard-dns.io/kb/general/dns-providers, under Hurricane Electric
dns.comss.one                        comss.one/page.php?id=7315
`

// localZoneNames are local in every house.
const localZoneNames = `
lan               what OpenWrt calls a house
local             RFC 6762
home.arpa         RFC 8375
localhost         RFC 6761
internal          reserved for private use by ICANN, 2024-07-29
localdomain       what many resolvers call a house
10.in-addr.arpa   RFC 6303 §4: names of private addresses
168.192.in-addr.arpa
254.169.in-addr.arpa
127.in-addr.arpa
16.172.in-addr.arpa
17.172.in-addr.arpa
18.172.in-addr.arpa
19.172.in-addr.arpa
20.172.in-addr.arpa
21.172.in-addr.arpa
22.172.in-addr.arpa
23.172.in-addr.arpa
24.172.in-addr.arpa
25.172.in-addr.arpa
26.172.in-addr.arpa
27.172.in-addr.arpa
28.172.in-addr.arpa
29.172.in-addr.arpa
30.172.in-addr.arpa
31.172.in-addr.arpa
d.f.ip6.arpa
8.e.f.ip6.arpa
9.e.f.ip6.arpa
a.e.f.ip6.arpa
b.e.f.ip6.arpa
`

func sideDoors() zones  { return zonesOf(sideDoorNames) }
func localZones() zones { return zonesOf(localZoneNames) }

// zonesOf takes the first word of each line.
func zonesOf(table string) zones {
	z := zones{}
	for line := range strings.Lines(table) {
		if fields := strings.Fields(line); len(fields) > 0 {
			z[dnsname.Name(fields[0])] = struct{}{}
		}
	}
	return z
}
