package observe

import (
	"net/netip"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
)

// whose is the device of a flow as it was treated when the flow began; the flows
// of a device share one.
type whose struct {
	device devices.ID
	kind   devices.Kind
	mode   devices.Mode
	log    devices.LogLevel
	name   string // that lists know it by
}

// maxOwners bounds the devices whose flows share: anybody on the LAN may invent
// addresses.
const maxOwners = 1024

// share returns the whose of a device that other flows hold already, where there is one.
func (c *core) share(d devices.Device) *whose {
	w := whose{d.ID, d.Kind, d.Mode, d.Log, d.Name}
	if old := c.owners[d.ID]; old != nil && *old == w {
		return old
	}
	if len(c.owners) >= maxOwners {
		clear(c.owners)
	}
	c.owners[d.ID] = &w
	return &w
}

// lanSide is the tuple as it is written on the LAN, where packets are seen, and
// whether the flow is a device's at all: the kernel tracks the router's own
// connections and look-ups, too.
func (c *core) lanSide(e *flow.Event) (flow.Tuple, bool) {
	t := e.Tuple
	src, dst := t.SrcAddr(), t.DstAddr()
	if c.cfg.Own(src) || toMany(dst) {
		return t, false
	}
	if !c.cfg.Own(dst) {
		// A look-up to a hard-coded resolver that we answer ourselves never left:
		// the kernel expects its reply from the router. So it does where the proxy
		// carries a connection without TPROXY; but that one does leave.
		caught := e.Reply != (flow.Tuple{}) && c.cfg.Own(e.Reply.SrcAddr()) && e.Reply.SrcAddr() != src
		if caught {
			s, _, known := c.flows.Get(t)
			return t, known && s.proxied
		}
		return t, true
	}
	// A forwarded port: the outside knows our address, the LAN the device's. Who came
	// stays who came, for a device that takes this way (hairpin) gets our address as
	// its own only behind the hook where packets are seen.
	if device := e.Reply.SrcAddr(); e.Reply != (flow.Tuple{}) && device != dst && c.cfg.Local(device) {
		t.Dst, t.DstPort = e.Reply.Src, e.Reply.SrcPort
		return t, true
	}
	return t, false
}

// learnMAC finds out whose a flow is that was known by its addresses alone: the
// first packet from the device's side says it for certain.
func (c *core) learnMAC(s *running, p *flow.Packet) {
	if s.MAC != (devices.MAC{}) || devices.MAC(p.MAC).IsZero() {
		return
	}
	if (p.Tuple.Src == s.Tuple.Src) == s.inbound {
		return // from the other side
	}
	dev, mac, _, ok := c.owner(s.Tuple, p)
	if ok && dev.Mode != devices.ModeOff {
		s.MAC, s.whose = mac, c.share(dev)
		c.decide(s)
	}
}

// owner says whose flow it is: the device is the local end, and the opener where
// both ends or neither are local.
func (c *core) owner(t flow.Tuple, p *flow.Packet) (dev devices.Device, mac devices.MAC, inbound, ok bool) {
	src, dst := t.SrcAddr(), t.DstAddr()
	if !c.counting && c.cfg.Own(src) {
		return dev, mac, false, false
	}
	inbound = !c.isInside(src) && c.isInside(dst) && !toMany(dst)
	addr := src
	if inbound {
		addr = dst
	}
	if p != nil {
		if p.Tuple.SrcAddr() == addr {
			mac = p.MAC
		} else {
			mac = p.DstMAC
		}
		if mac.IsGroup() {
			mac = devices.MAC{}
		}
	}
	if c.cfg.Devices != nil {
		if !mac.IsZero() {
			dev, ok = c.cfg.Devices.ByMAC(mac)
		}
		if !ok {
			dev, ok = c.cfg.Devices.ByAddr(addr)
		}
		if ok && mac.IsZero() && len(dev.MACs) > 0 {
			mac = dev.MACs[0]
		}
	}
	if !ok {
		if dev.ID = devices.ID(addr.String()); !mac.IsZero() {
			dev.ID = devices.ID(mac.String())
		}
		// The live house has no business with two ends that are both outside.
		ok = c.counting || c.isInside(addr)
	}
	return dev, mac, inbound, ok
}

func (c *core) isInside(a netip.Addr) bool {
	if c.cfg.Local(a) {
		return true
	}
	if c.cfg.Devices == nil || c.counting {
		return false
	}
	_, ok := c.cfg.Devices.ByAddr(a) // a device with a public IPv6 address
	return ok
}
