package enforce

import (
	"net/netip"
	"time"

	"github.com/netcurtain/netcurtain/devices"
)

// Desired is the whole of what the kernel shall do for us. Setting the same
// Desired twice changes nothing.
type Desired struct {
	LAN          []string // interfaces behind which the devices live: "br-lan"
	Ports        Ports
	Marks        Marks
	NFLOGGroup   uint16
	InterceptDNS bool          // bring look-ups to us (still gated by @alive)
	Unfiltered   []devices.MAC // mode off: their look-ups are left alone, their flows not logged
	Guarded      []devices.MAC // TCP 80, 443 and Handed go to the proxy; QUIC and known resolvers refused
	Handed       []uint16      // further TCP ports of guarded devices that go to the proxy
	Cut          []devices.MAC // no internet, even when we are dead
	Doors        []netip.Addr  // public resolvers: refused to guarded devices on port 443
	Exempt       []netip.Addr  // our own upstreams on the LAN, a second resolver in the house: never redirected
}

// Ports are our own listeners, each with its one owner.
type Ports struct {
	DNS         uint16 // look-ups sent to the router, rewritten without tracking
	DNSRedirect uint16 // look-ups to hard-coded resolvers, and over TCP, by NAT
	HTTPProxy   uint16
	TLSProxy    uint16
	Explicit    uint16 // the proxy for who is told to use one, open to the LAN alone; 0 is none
}

// Marks are single bits, used with themselves as mask.
type Marks struct {
	Deliver uint32 // set by TPROXY, routed to the local table
	Ours    uint32 // set on every socket that the daemon opens
	Table   int    // number of the routing table
}

// Block refuses one device one address until it expires.
type Block struct {
	MAC  devices.MAC
	Addr netip.Addr
	For  time.Duration
}
