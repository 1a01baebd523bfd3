package dnsfilter

import (
	"strconv"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// zones are the DNS zones that never leave the house.
type zones struct {
	local   []dnsname.Name // the household's own
	private []dnsname.Name // reverse zones of private addresses
}

func newZones(local []dnsname.Name) zones {
	return zones{local: local, private: privateReverse()}
}

func (z zones) isLocal(n dnsname.Name) bool   { return below(n, z.local) }
func (z zones) isPrivate(n dnsname.Name) bool { return n.IsAtOrBelow("arpa") && below(n, z.private) }

func below(n dnsname.Name, zs []dnsname.Name) bool {
	for _, z := range zs {
		if n.IsAtOrBelow(z) {
			return true
		}
	}
	return false
}

// privateReverse lists the reverse zones of RFC 1918, 3927, 6598, 4193 and 4291
// link-local addresses.
func privateReverse() []dnsname.Name {
	zs := []dnsname.Name{"10.in-addr.arpa", "168.192.in-addr.arpa", "254.169.in-addr.arpa", "c.f.ip6.arpa", "d.f.ip6.arpa"}
	for i := 16; i < 32; i++ {
		zs = append(zs, dnsname.Name(strconv.Itoa(i)+".172.in-addr.arpa"))
	}
	for i := 64; i < 128; i++ {
		zs = append(zs, dnsname.Name(strconv.Itoa(i)+".100.in-addr.arpa"))
	}
	for _, c := range "89ab" {
		zs = append(zs, dnsname.Name(string(c)+".e.f.ip6.arpa"))
	}
	return zs
}
