package observe

import (
	"net/netip"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
)

// far is the end that is not the device's.
func (s *running) far() (netip.AddrPort, bool) {
	if s.inbound {
		return s.Tuple.SrcAddrPort(), true
	}
	if s.takenTo != nil {
		return *s.takenTo, false
	}
	return s.Tuple.DstAddrPort(), false
}

// conclude names the flow by what was seen, decides about it and tells what is rare.
func (c *core) conclude(s *running) {
	before, source := s.Name, s.NameSource
	c.name(s)
	if s.Name != before || s.NameSource != source {
		c.decide(s)
	}
	// An address keeps few names: those that are blocked may not push out the one
	// that it is needed for.
	if s.NameSource >= flow.NameFromSNI && s.decided().Action != policy.Block {
		far, _ := s.far()
		c.carried.Learn(string(s.device), s.Name, far.Addr(), 0, c.now)
	}
	c.rare(s)
}

// name finds the best name for the far end: Host, then SNI, then what DNS told
// this device, then what it told any device.
func (c *core) name(s *running) {
	far, inbound := s.far()
	if !inbound && s.seen.ServerName != "" && isHostname(s.seen.ServerName) {
		switch s.seen.NameFrom {
		case "host":
			s.Name, s.NameSource, s.Ambiguous = s.seen.ServerName, flow.NameFromHost, false
			return
		case "sni":
			// The outer name of an encrypted hello is the front's, not the site's.
			if s.seen.TLS == nil || !s.seen.TLS.ECH {
				s.Name, s.NameSource, s.Ambiguous = s.seen.ServerName, flow.NameFromSNI, false
				return
			}
		}
	}
	if s.NameSource >= flow.NameFromDNSDevice {
		return // what the device was told before it connected stands
	}
	if f := c.heard.Lookup(string(s.device), far.Addr(), c.now); f.Name != "" {
		s.Name, s.NameSource, s.Ambiguous = f.Name, f.Source, f.Ambiguous
	}
}

// isHostname reports whether a name is one, not an address in disguise.
func isHostname(name string) bool {
	_, err := netip.ParseAddr(name)
	return err != nil
}

func (c *core) describe(s *running) atlas.Destination {
	if c.cfg.Atlas == nil {
		return atlas.Destination{}
	}
	far, _ := s.far()
	return c.cfg.Atlas.Describe(dnsname.Name(s.Name), far.Addr())
}
