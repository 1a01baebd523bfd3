//go:build linux

package enforce

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
)

// Position is where this machine stands between the devices and the internet.
type Position uint8

const (
	PositionRouter   Position = iota + 1 // devices on one side, the way out on another
	PositionOneArmed                     // the way out leads through the devices' own network
	PositionBridge                       // traffic passes at most unrouted: a bridge, an access point
)

// String is the word for it.
func (p Position) String() string {
	switch p {
	case PositionRouter:
		return "router"
	case PositionOneArmed:
		return "one-armed"
	case PositionBridge:
		return "bridge or access point"
	}
	return "unknown"
}

// Surroundings are the facts by which a Position is told.
type Surroundings struct {
	LAN                []Segment
	Forward4, Forward6 bool     // whether packets of IPv4 and of IPv6 are routed at all
	WayOut             []string // interfaces of default routes, in order
}

// Segment is an interface behind which devices shall be.
type Segment struct {
	Name      string
	There     bool // the interface exists
	Addressed bool // it has an address that devices can use as gateway
}

// Look gathers the facts about these LAN interfaces. It changes nothing.
func Look(lan []string) (Surroundings, error) {
	var s Surroundings
	for _, name := range lan {
		seg := Segment{Name: name}
		link, err := netlink.LinkByName(name)
		var missing netlink.LinkNotFoundError
		if err != nil && !errors.As(err, &missing) {
			return s, fmt.Errorf("enforce: looking for interface %s: %w", name, err)
		}
		if err == nil {
			seg.There = true
			addrs, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
			if err != nil {
				return s, fmt.Errorf("enforce: addresses of %s: %w", name, err)
			}
			seg.Addressed = slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IP.IsGlobalUnicast() })
		}
		s.LAN = append(s.LAN, seg)
	}
	s.Forward4 = isOn("/proc/sys/net/ipv4/ip_forward")
	s.Forward6 = isOn("/proc/sys/net/ipv6/conf/all/forwarding")
	s.WayOut = waysOut()
	return s, nil
}

// waysOut are the names of the interfaces of default routes, in order.
func waysOut() (names []string) {
	for index := range outgoing() {
		if link, err := netlink.LinkByIndex(index); err == nil {
			names = append(names, link.Attrs().Name)
		}
	}
	slices.Sort(names)
	return names
}

// isOn reads a switch of the kernel; one that is not there is off.
func isOn(path string) bool {
	v, err := readSysctl(path)
	return err == nil && v != 0
}

// Position tells where the machine stands, from the facts alone.
func (s Surroundings) Position() Position {
	gateway := slices.ContainsFunc(s.LAN, func(l Segment) bool { return l.There && l.Addressed })
	isLAN := func(name string) bool {
		return slices.ContainsFunc(s.LAN, func(l Segment) bool { return l.Name == name })
	}
	switch {
	case !gateway, !s.Forward4 && !s.Forward6, len(s.WayOut) == 0:
		return PositionBridge
	case slices.ContainsFunc(s.WayOut, func(name string) bool { return !isLAN(name) }):
		return PositionRouter
	}
	return PositionOneArmed
}

// String says in one line what can be seen and cut from here.
func (s Surroundings) String() string {
	var lan []string
	for _, l := range s.LAN {
		if l.There {
			lan = append(lan, l.Name)
		}
	}
	behind := strings.Join(lan, " and ")
	switch s.Position() {
	case PositionRouter:
		text := fmt.Sprintf("a router: whatever the devices behind %s send out or look up passes here, and can be seen and cut", behind)
		switch {
		case !s.Forward6:
			text += "; IPv6 is not routed here: what goes out over another router is neither"
		case !s.Forward4:
			text += "; IPv4 is not routed here: what goes out over another router is neither"
		}
		return text
	case PositionOneArmed:
		return fmt.Sprintf("one-armed, on %s beside the router: devices that have this box as their gateway and resolver can be seen and cut; the others pass by", behind)
	}
	why := "it routes nothing (no forwarding)"
	switch {
	case len(lan) == 0:
		why = "the interfaces of the house are not there"
	case !slices.ContainsFunc(s.LAN, func(l Segment) bool { return l.Addressed }):
		why = behind + " has no address"
	case (s.Forward4 || s.Forward6) && len(s.WayOut) == 0:
		why = "it has no default route"
	}
	return "a bridge or access point, for " + why + ": look-ups that devices send to this box are filtered; their other traffic can be neither seen nor cut"
}

// Problems are LAN interfaces that are not there.
func (s Surroundings) Problems() (found []Problem) {
	for _, l := range s.LAN {
		if !l.There {
			found = append(found, Problem{
				What: fmt.Sprintf("The interface %s is not there: devices behind it are neither seen nor protected.", l.Name),
				Fix:  "ip -br link (shows the names), then list lan in section house of /etc/config/netcurtain",
			})
		}
	}
	return found
}
