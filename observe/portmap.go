package observe

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/journal"
)

// maxPortMaps bounds the ports that are remembered as opened.
const maxPortMaps = 512

// portMap is a port that a device had the router open.
type portMap struct {
	outside uint16
	until   time.Time // zero: for ever
}

// portKey is the end inside the house to which a port leads.
func portKey(p flow.Proto, addr netip.Addr, port uint16) flow.Tuple {
	return flow.NewTuple(p, netip.AddrPort{}, netip.AddrPortFrom(addr, port))
}

// mapPort takes in what a device asked of the router, and tells of it.
func (c *core) mapPort(s *running) {
	m := s.seen.PortMap
	if m == nil || m.Refused || s.inbound {
		return
	}
	client := m.Client
	if !client.IsValid() {
		client = s.Tuple.SrcAddr()
	}
	protos := []flow.Proto{m.Proto}
	if m.Proto == 0 {
		protos = []flow.Proto{flow.TCP, flow.UDP}
	}
	for _, p := range protos {
		if m.Close {
			c.closePort(p, client, m)
			continue
		}
		key := portKey(p, client, m.Port)
		open, _, ok := c.portMaps.Get(key)
		if !ok {
			open = c.portMaps.Add(key)
		}
		*open = portMap{outside: m.Outside}
		if m.Lifetime > 0 {
			open.until = c.now.Add(m.Lifetime)
		}
	}
	if m.Close || s.log == devices.LogNone {
		return
	}
	text := s.portMapWords(m, client)
	if !c.lately(s, journal.EventPortMap, text) {
		c.cfg.Record.Record(journal.Entry{At: c.now, Device: s.device, Log: s.log, Event: &journal.Event{Kind: journal.EventPortMap, Subject: text, Text: text}})
	}
}

// closePort forgets a port: by its end inside, or, as UPnP names it, by the one outside.
func (c *core) closePort(p flow.Proto, client netip.Addr, m *dissect.PortMap) {
	for key, open := range c.portMaps.All() {
		if key.Proto == p && key.DstAddr() == client && (m.Port == key.DstPort || m.Port == 0 && (m.Outside == 0 || m.Outside == open.outside)) {
			c.portMaps.Remove(key)
		}
	}
}

// portMapped reports whether a flow from outside came through a port that a device
// had the router open.
func (c *core) portMapped(s *running) bool {
	if !s.inbound {
		return false
	}
	for _, port := range [...]uint16{s.Tuple.DstPort, 0} { // 0: the device asked for every port
		if open, _, ok := c.portMaps.Peek(portKey(s.Tuple.Proto, s.Tuple.DstAddr(), port)); ok && (open.until.IsZero() || !c.now.After(open.until)) {
			return true
		}
	}
	return false
}

// portMapWords says what was asked: "asked the router to open TCP port 443 to the
// outside, as port 8443, for 1 hour".
func (s *running) portMapWords(m *dissect.PortMap, client netip.Addr) string {
	var b strings.Builder
	b.WriteString("asked the router to open ")
	if m.Port == 0 {
		b.WriteString("every port")
	} else {
		if m.Proto != 0 {
			b.WriteString(strings.ToUpper(m.Proto.String()) + " ")
		}
		fmt.Fprintf(&b, "port %d", m.Port)
	}
	if client != s.Tuple.SrcAddr() {
		fmt.Fprintf(&b, " of %v", client)
	}
	switch {
	case !m.Remote.IsValid():
		b.WriteString(" to anybody outside")
	case s.log == devices.LogNames:
		fmt.Fprintf(&b, " to %v outside", m.Remote)
	default:
		b.WriteString(" to one address outside")
	}
	if m.Outside != 0 && m.Outside != m.Port {
		fmt.Fprintf(&b, ", as port %d", m.Outside)
	}
	if m.Lifetime > 0 {
		b.WriteString(", for " + lasting(m.Lifetime))
	}
	return b.String()
}

// lasting words how long something holds, to the hour where it is long.
func lasting(d time.Duration) string {
	n, unit := int(d.Round(time.Minute)/time.Minute), "minute"
	if d >= 2*time.Hour || d == time.Hour {
		n, unit = int(d.Round(time.Hour)/time.Hour), "hour"
	}
	if n = max(n, 1); n > 1 {
		unit += "s"
	}
	return fmt.Sprintf("%d %s", n, unit)
}
