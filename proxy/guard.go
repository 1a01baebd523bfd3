package proxy

import (
	"net"
	"net/netip"
	"time"
)

// inside reports whether an address must not be reached through us: what the
// firewall keeps apart, we must not join.
func inside(a netip.Addr) bool {
	a = embedded(a.Unmap())
	if a.Is4() {
		b := a.As4()
		switch {
		case b[0] == 0, b[0] >= 240, // this network, reserved, broadcast (RFC 6890)
			b[0] == 100 && b[1]&0xc0 == 64: // shared (RFC 6598)
			return true
		}
	}
	return !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsPrivate() ||
		a.IsLinkLocalUnicast() || a.IsMulticast()
}

// embedded is the IPv4 address that a NAT64 (RFC 6052 §2.1) or 6to4 (RFC 3056)
// address leads to, else a itself.
func embedded(a netip.Addr) netip.Addr {
	if !a.Is6() {
		return a
	}
	b := a.As16()
	switch {
	case netip.PrefixFrom(netip.AddrFrom16([16]byte{0, 0x64, 0xff, 0x9b}), 96).Contains(a):
		return netip.AddrFrom4([4]byte(b[12:]))
	case b[0] == 0x20 && b[1] == 0x02:
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return a
}

// ownAddrs is what the kernel said of the router's addresses, and when.
type ownAddrs struct {
	at    time.Time
	addrs map[netip.Addr]bool
}

// isOwn reports whether a is the router's. The kernel is asked at most every few
// seconds; when it does not answer, every address is taken for ours.
func (p *Proxy) isOwn(a netip.Addr) bool {
	if p.cfg.Own != nil {
		return p.cfg.Own(a)
	}
	now := p.cfg.Now()
	o := p.own.Load()
	if o == nil || now.Sub(o.at).Abs() > 5*time.Second {
		list, err := net.InterfaceAddrs()
		if err != nil {
			return true
		}
		o = &ownAddrs{at: now, addrs: map[netip.Addr]bool{}}
		for _, l := range list {
			if n, ok := l.(*net.IPNet); ok {
				if x, ok := netip.AddrFromSlice(n.IP); ok {
					o.addrs[x.Unmap()] = true
				}
			}
		}
		p.own.Store(o)
	}
	return o.addrs[a]
}

// mayCarry says why a connection to dst is not carried, "" when it is.
func (p *Proxy) mayCarry(dst netip.AddrPort) (why string) {
	switch {
	case !dst.IsValid():
		return "unknown"
	case dst.Port() == p.cfg.HTTPPort, dst.Port() == p.cfg.TLSPort, dst.Port() == 0:
		return "loop" // straight to our listener: dialling it would never end
	case p.cfg.Inside(dst.Addr()), p.cfg.House(dst.Addr()):
		return "inside"
	case p.isOwn(dst.Addr()):
		return "own"
	}
	return ""
}

// original is the destination that a client dialled. TPROXY leaves it as the
// socket's own; where that is the router's, it was translated, or somebody knocks
// at our listener.
func (p *Proxy) original(c *net.TCPConn) netip.AddrPort {
	if p.cfg.Original != nil {
		return p.cfg.Original(c)
	}
	local := addrPort(c.LocalAddr())
	if local.Addr().IsLoopback() || p.isOwn(local.Addr()) {
		if dst, err := original(c); err == nil {
			return dst
		}
	}
	return local
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
