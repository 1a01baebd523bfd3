package observe

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
)

// decide asks policy about a flow that leaves the house, by the best name so
// far, and has it stopped when the answer is Block. What the proxy carries was
// decided there.
func (c *core) decide(s *running) {
	far, inbound := s.far()
	if c.cfg.Decide == nil || inbound || s.proxied || s.toUs || c.isInside(far.Addr()) {
		return
	}
	s.verdict, s.byNameOnly = nil, false
	q := c.query(s, s.Name)
	v := c.cfg.Decide.Decide(q)
	if v == (policy.Verdict{}) {
		return // as for most flows: nothing to keep
	}
	s.verdict = new(v)
	if v.Action != policy.Block || c.cfg.Block == nil || s.MAC == (devices.MAC{}) {
		return
	}
	cut := Cut{Device: s.device, MAC: s.MAC, Addr: far.Addr(), Tuple: s.Tuple, Asked: q, For: c.cfg.BlockFor}
	switch shared := c.sharesAddress(s); {
	case shared && s.NameSource < flow.NameFromSNI:
		// It was given the address for several names, and does not say which it
		// means. The verdict stays visible as one that was only noted.
		s.verdict.Action, s.verdict.Noted, s.byNameOnly = policy.Allow, true, true
		c.m.blocks.WithLabelValues("shared-address").Inc()
		return
	case shared:
		cut.ByName, cut.For, s.byNameOnly = true, 0, true
		c.m.blocks.WithLabelValues("by-name").Inc()
	case v.Reason == policy.ReasonSideDoor && s.mode == devices.ModeGuard:
		cut.For = 0 // the kernel and the proxy refuse it already, on the one port that is meant
	}
	if !c.cut(cut) {
		c.m.dropped.WithLabelValues("block").Inc()
	} else if cut.For > 0 {
		c.refuse(s.device, far.Addr(), s.MAC, q)
	}
}

// refusal is a destination that a device is refused by its address.
type refusal struct {
	device devices.ID
	addr   netip.Addr
}

// refused is why, and until when.
type refused struct {
	asked policy.Query
	mac   devices.MAC
	until time.Time
}

// maxRefused bounds what is remembered; what is forgotten ends by itself.
const maxRefused = 4096

func (c *core) refuse(d devices.ID, a netip.Addr, mac devices.MAC, asked policy.Query) {
	if len(c.refused) >= maxRefused {
		clear(c.refused)
	}
	c.refused[refusal{d, a}] = refused{asked, mac, c.now.Add(c.cfg.BlockFor)}
}

// free lifts the refusal of an address which a device was just given for a name
// that it may reach.
func (c *core) free(d devices.ID, name string, a netip.Addr) {
	k := refusal{d, a.Unmap().WithZone("")}
	r, ok := c.refused[k]
	if !ok || c.cfg.Decide == nil {
		return
	}
	if r.until.Before(c.now) {
		delete(c.refused, k)
		return
	}
	q := r.asked
	q.Now, q.Name = c.now, dnsname.Name(name)
	if c.cfg.Decide.Decide(q).Action == policy.Block {
		return
	}
	if c.cut(Cut{Device: d, MAC: r.mac, Addr: k.addr, Free: true}) {
		delete(c.refused, k)
	}
}

// reconsider decides anew about every running flow whose verdict a change of the
// rules has changed; those that are blocked now are stopped.
func (c *core) reconsider() {
	if c.cfg.Decide == nil {
		return
	}
	for _, s := range c.flows.All() {
		far, inbound := s.far()
		if inbound || s.proxied || s.toUs || c.isInside(far.Addr()) {
			continue
		}
		if v := c.cfg.Decide.Decide(c.query(s, s.Name)); v != s.decided() {
			c.decide(s)
		}
	}
}

func (c *core) query(s *running, name string) policy.Query {
	far, inbound := s.far()
	near := s.Tuple.SrcAddrPort()
	if inbound {
		near = s.Tuple.DstAddrPort()
	}
	return policy.Query{
		Layer: policy.LayerFlow, Now: c.now, Device: s.device, Kind: s.kind, Mode: s.mode,
		Name: dnsname.Name(name), Addr: far.Addr(), Port: far.Port(),
		ClientAddr: near.Addr().Unmap(), ClientMAC: s.MAC, ClientName: s.name,
	}
}

// sharesAddress reports whether the flow's far address lately carried another
// name for this device that is allowed: delivery networks serve many sites from
// one address. Both what the device was told by DNS and what its flows said count.
func (c *core) sharesAddress(s *running) bool {
	if s.Name == "" {
		return false // the address itself was decided about
	}
	far, _ := s.far()
	for _, names := range [...]*flow.Names{c.heard, c.carried} {
		for name := range names.Of(string(s.device), far.Addr(), c.now) {
			if name != s.Name && c.cfg.Decide.Decide(c.query(s, name)).Action != policy.Block {
				return true
			}
		}
	}
	return false
}

// retell is how long a rare event about one device and one subject is not handed
// to the journal again.
const retell = 10 * time.Minute

// rare tells what should not be lost among the flows: a credential that anybody
// on the way could read, encryption that does not protect, and look-ups that go
// round the house's resolver.
func (c *core) rare(s *running) {
	if s.inbound {
		return
	}
	c.mapPort(s)
	if s.toUs {
		return
	}
	far, _ := s.far()
	if s.seen.Credentials != "" {
		c.tell(s, journal.EventReadableSecret, s.seen.Credentials, "sent a credential that anybody on the way could read ("+s.credential()+")")
	}
	if c.isInside(far.Addr()) {
		return
	}
	if s.seen.TLS != nil && len(s.seen.TLS.Weak) > 0 {
		weak := strings.Join(s.seen.TLS.Weak, ", ")
		c.tell(s, journal.EventWeakTLS, weak, "used weak encryption ("+weak+")")
	}
	if how := sideDoor(s.Tuple.Proto, far.Port(), &s.seen, s.decided().Reason); how != "" {
		c.tell(s, journal.EventSideDoor, how, how)
	}
}

// meet tells of an organisation that answered a device for the first time.
func (c *core) meet(s *running, to atlas.Destination) {
	if far, inbound := s.far(); to.Organisation == "" || inbound || s.log != devices.LogNames || s.Counters.Reply.Packets == 0 ||
		s.decided().Action == policy.Block || c.isInside(far.Addr()) {
		return
	}
	if c.lately(s, journal.EventFirstContact, to.Organisation) {
		return
	}
	c.cfg.Record.Record(journal.Entry{At: c.now, Device: s.device, Log: s.log, Event: &journal.Event{
		Kind: journal.EventFirstContact, Subject: to.Organisation,
		Text: "talked to " + to.Organisation + " for the first time: " + s.to(),
	}})
}

// to is what to call the flow's other end.
func (s *running) to() string {
	if s.Name != "" {
		return s.Name
	}
	far, _ := s.far()
	return far.Addr().String()
}

// credential words which kind was seen, whether everybody knows it and, where
// names may be written down, whose it was, masked.
func (s *running) credential() string {
	what := s.seen.Credentials
	if x := s.seen.Exposure; x != nil {
		if x.User != "" && s.log == devices.LogNames {
			what += " of " + x.User
		}
		if x.Default {
			what += ", a known default"
		}
	}
	return what
}

// sideDoor says how a flow goes round the house's resolver, or "".
func sideDoor(p flow.Proto, port uint16, seen *dissect.Result, why policy.Reason) string {
	switch {
	case port == 53 && seen.App == "dns":
		return "asked a resolver outside the house"
	case port == 853 && p == flow.TCP:
		return "asked a resolver outside the house over TLS (DoT)"
	case port == 853 && p == flow.UDP:
		return "asked a resolver outside the house over QUIC (DoQ)"
	case port == 443 && (why == policy.ReasonSideDoor || isResolver(seen.ServerName)):
		return "asked a resolver outside the house over HTTPS (DoH)"
	}
	return ""
}

// isResolver knows the public resolvers that devices have built in, by the name
// that a flow shows. Policy's list is longer; this is for a house whose policy is
// silent about them, and for captures.
func isResolver(name string) bool {
	if name == "" {
		return false
	}
	n := dnsname.Name(name)
	for _, zone := range [...]dnsname.Name{
		"dns.google", "dns.google.com", "dns64.dns.google", "cloudflare-dns.com", "one.one.one.one", "dns.quad9.net",
		"doh.opendns.com", "dns.nextdns.io", "dns.adguard.com", "dns.adguard-dns.com", "doh.cleanbrowsing.org",
		"doh.dns.apple.com", "dns.controld.com", "doh.mullvad.net", "dns.mullvad.net", "doh.pub", "dns.alidns.com",
	} {
		if n.IsAtOrBelow(zone) {
			return true
		}
	}
	return false
}

// tell records a rare event about a device and a destination; what says which of
// its kind. The destination is named only where the device's names may be written down.
func (c *core) tell(s *running, kind journal.EventKind, what, text string) {
	if s.log == devices.LogNone {
		return
	}
	subject := s.to() + " " + what
	if c.lately(s, kind, subject) {
		return
	}
	e := &journal.Event{Kind: kind, Subject: subject, Text: text}
	if s.log == devices.LogNames {
		e.Text += ": " + s.to()
	} else {
		e.Subject = ""
	}
	c.cfg.Record.Record(journal.Entry{At: c.now, Device: s.device, Log: s.log, Event: e})
}

// lately reports whether the like was handed to the journal a while ago, and
// notes that it is now. The journal knows for longer (journal.Recorder); this
// spares it most.
func (c *core) lately(s *running, kind journal.EventKind, subject string) bool {
	// A tuple stands for device, kind and subject: bounded like everything else.
	var key flow.Tuple
	binary.NativeEndian.PutUint64(key.Dst[:], maphash.Comparable(c.seed, [3]string{string(s.device), string(kind), subject}))
	last, _, known := c.told.Get(key)
	if !known {
		last = c.told.Add(key)
	} else if c.now.Sub(*last) < retell {
		return true
	}
	*last = c.now
	return false
}
