package observe

import (
	"net/netip"
	"time"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
)

// core is the flow table and everything that is joined to it. It belongs to one
// goroutine, reads no clock and starts nothing: the live daemon and a capture
// file run the same code.
type core struct {
	cfg      Config
	counting bool // packets are all there is: count them
	started  time.Time
	now      time.Time // of the thing that is being taken in
	flows    *flow.Table[running]
	flushed  *flow.Table[recorded] // flows that had to leave early, whose kernel counters go on
	heard    *flow.Names           // from DNS answers
	carried  *flow.Names           // from flows' own names, for the guard against shared addresses
	reading  reading
	owners   map[devices.ID]*whose
	told     *flow.Table[time.Time] // rare events already told, by a tuple that stands for them
	qname    []byte
	cut      func(Cut) bool // queues a block; false when there is no room
	m        *metrics
}

// running is one flow as it goes on.
type running struct {
	flow.Flow
	*whose
	inbound bool // opened from outside: the device is the responder
	proxied bool
	settled bool // its first bytes were read, or waited for in vain
	fins    uint8
	serial  uint32 // of its conversation, to tell it from an earlier one on the same tuple
	conv    *dissect.Conversation
	seen    dissect.Result
	verdict *policy.Verdict // nil when nothing was decided
	base    flow.Counters   // already recorded, or from before our time
	parts   uint32          // how many times it was recorded
	told    int64           // when it was last recorded, in Unix nanoseconds
	touched int64           // when a source last spoke of it, likewise
}

// whose is the device of a flow as it was treated when the flow began; the flows
// of a device share one.
type whose struct {
	device devices.ID
	kind   devices.Kind
	mode   devices.Mode
	log    devices.LogLevel
}

// maxOwners bounds the devices whose flows share: anybody on the LAN may invent
// addresses.
const maxOwners = 1024

// share returns the whose of a device that other flows hold already, where there is one.
func (c *core) share(d devices.Device) *whose {
	w := whose{d.ID, d.Kind, d.Mode, d.Log}
	if old := c.owners[d.ID]; old != nil && *old == w {
		return old
	}
	if len(c.owners) >= maxOwners {
		clear(c.owners)
	}
	c.owners[d.ID] = &w
	return &w
}

// recorded is what the journal already has of a connection.
type recorded struct {
	id       uint32
	counters flow.Counters
}

const (
	finOrig  = 1
	finReply = 2
	reset    = 4

	maxFlushed = 4096
	maxTold    = 4096
)

func newCore(cfg Config, m *metrics) *core {
	c := &core{
		cfg:     cfg,
		flushed: flow.NewTable[recorded](maxFlushed, nil),
		heard:   flow.NewNames(cfg.Names),
		carried: flow.NewNames(cfg.Names / 4),
		told:    flow.NewTable[time.Time](maxTold, nil),
		cut:     func(Cut) bool { return false },
		owners:  make(map[devices.ID]*whose),
		m:       m,
	}
	c.flows = flow.NewTable(cfg.Flows, func(_ flow.Tuple, s *running) {
		m.evicted.Inc()
		c.flush(s)
	})
	return c
}

// far is the end that is not the device's.
func (s *running) far() (netip.AddrPort, bool) {
	if s.inbound {
		return s.Tuple.SrcAddrPort(), true
	}
	return s.Tuple.DstAddrPort(), false
}

// event takes in what connection tracking says.
func (c *core) event(e *flow.Event) {
	t, ok := c.lanSide(e)
	if !ok {
		return
	}
	s, dir, known := c.flows.Get(t)
	if known && s.ID != 0 && e.ID != 0 && s.ID != e.ID {
		if e.Kind == flow.Destroy {
			return // of an earlier connection, which was recorded
		}
		c.flush(s) // the ports are used again and the end of the flow before was not heard
		c.flows.Remove(s.Tuple)
		known = false
	}
	if !known {
		if s = c.add(t, e, nil); s == nil {
			return
		}
	} else if dir == flow.Reply {
		c.turn(s) // a packet came first and its opener was guessed wrong
	}
	if s.ID == 0 {
		c.identify(s, e)
	}
	s.touched = c.now.UnixNano()
	if e.Counters != (flow.Counters{}) {
		if e.Counters != s.Counters {
			s.Last = c.lastOf(e)
		}
		s.Counters = e.Counters
	}
	if e.Kind == flow.Destroy {
		c.end(s)
	}
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
		return t, true
	}
	// A forwarded port: the outside knows our address, the LAN the device's.
	if r := e.Reply.Reverse(); e.Reply != (flow.Tuple{}) && r.DstAddr() != dst && c.cfg.Local(r.DstAddr()) {
		return r, true
	}
	return t, false
}

// identify notes which of the kernel's entries a flow is, and what of its bytes
// was recorded before.
func (c *core) identify(s *running, e *flow.Event) {
	s.ID = e.ID
	if old, _, ok := c.flushed.Get(s.Tuple); ok && old.id == e.ID {
		s.base = old.counters
		c.flushed.Remove(s.Tuple)
		return
	}
	// What ran before we did was recorded by whoever ran before us.
	const firstDump = 5 * time.Second
	if e.Kind == flow.Update && (e.Start.Before(c.started) && !e.Start.IsZero() || c.now.Sub(c.started) < firstDump) {
		s.base = e.Counters
	}
}

func (c *core) lastOf(e *flow.Event) time.Time {
	if e.Kind == flow.Destroy && !e.Stop.IsZero() {
		return e.Stop
	}
	return c.now
}

// packet takes in one packet.
func (c *core) packet(p *flow.Packet) {
	s, dir, known := c.flows.Get(p.Tuple)
	if known && p.Flags&(flow.SYN|flow.ACK) == flow.SYN && s.over() {
		c.end(s) // the same ports, another connection
		known = false
	}
	if !known {
		t := p.Tuple
		dir = flow.Orig
		if !openedBySender(p) {
			t, dir = t.Reverse(), flow.Reply
		}
		if s = c.add(t, nil, p); s == nil {
			return
		}
	}
	c.learnMAC(s, p)
	s.touched, s.Last = c.now.UnixNano(), c.now
	s.note(dir, p.Flags)
	if c.counting {
		s.count(dir, p.Length)
	}
	if !s.settled {
		c.read(s, dir, p)
	}
	if dir == flow.Reply && s.Tuple.DstPort == 53 && s.Tuple.Proto == flow.UDP {
		c.answers(s, p.Payload)
	}
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

func (s *running) count(dir flow.Dir, length int) {
	n := &s.Counters.Orig
	if dir == flow.Reply {
		n = &s.Counters.Reply
	}
	n.Packets++
	n.Bytes += uint64(length)
}

func (s *running) note(dir flow.Dir, flags uint8) {
	if flags&flow.RST != 0 {
		s.fins |= reset
	}
	if flags&flow.FIN != 0 {
		s.fins |= finOrig << dir
	}
}

// over reports whether a TCP connection was closed by a reset or from both sides.
func (s *running) over() bool {
	return s.fins&reset != 0 || s.fins == finOrig|finReply
}

// decided is the flow's verdict; nothing was decided when it is zero.
func (s *running) decided() policy.Verdict {
	if s.verdict == nil {
		return policy.Verdict{}
	}
	return *s.verdict
}

// answers teaches the names in a DNS response to the device that asked.
func (c *core) answers(s *running, b []byte) {
	readAnswers(b, c.qname, func(name []byte, addr netip.Addr, ttl time.Duration) {
		c.heard.Learn(string(s.device), string(name), addr, ttl, c.now)
	})
}

// add begins a flow, from an event or a packet. It returns nil when the flow is
// nobody's that we may look at.
func (c *core) add(t flow.Tuple, e *flow.Event, p *flow.Packet) *running {
	dev, mac, inbound, ok := c.owner(t, p)
	if !ok || dev.Mode == devices.ModeOff {
		return nil
	}
	s := c.flows.Add(t)
	s.Tuple, s.MAC = t, mac
	s.whose, s.inbound = c.share(dev), inbound
	s.First, s.Last, s.touched = c.now, c.now, c.now.UnixNano()
	if e != nil && !e.Start.IsZero() {
		s.First = e.Start
	}
	c.name(s)
	c.decide(s)
	return s
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

// turn makes the responder the opener.
func (c *core) turn(s *running) {
	old := s.Tuple
	c.flows.Reverse(old)
	if old.Src == old.Dst && old.SrcPort == old.DstPort {
		return
	}
	s.Tuple = old.Reverse()
	s.Counters.Orig, s.Counters.Reply = s.Counters.Reply, s.Counters.Orig
	s.inbound = !s.inbound && c.isInside(s.Tuple.DstAddr()) && !c.isInside(s.Tuple.SrcAddr())
	c.reading.drop(s) // it was told the directions the wrong way round
}

// read shows a packet to the flow's conversation, and opens one for its first.
func (c *core) read(s *running, dir flow.Dir, p *flow.Packet) {
	if s.conv == nil {
		if c.reading.open >= c.cfg.Conversations {
			c.reading.oldest(c.flows, c.settle)
		}
		c.reading.begin(c.flows, s, c.now)
	}
	s.conv.Feed(dir, p)
	if s.conv.Done() {
		c.settle(s)
	}
}

// settle takes the result of what was read, and draws the conclusions.
func (c *core) settle(s *running) {
	s.settled = true
	if s.conv == nil {
		return
	}
	s.conv.Close()
	s.seen = s.conv.Result()
	c.reading.drop(s)
	c.conclude(s)
}

// conclude names the flow by what was seen, decides about it and tells what is rare.
func (c *core) conclude(s *running) {
	before, source := s.Name, s.NameSource
	c.name(s)
	if s.NameSource >= flow.NameFromSNI {
		far, _ := s.far()
		c.carried.Learn(string(s.device), s.Name, far.Addr(), 0, c.now)
	}
	if s.Name != before || s.NameSource != source {
		c.decide(s)
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

// end records a flow and forgets it.
func (c *core) end(s *running) {
	t := s.Tuple
	c.record(s)
	c.flows.Remove(t)
}

// flush records a flow whose place is needed, or whose end was not heard of; its
// connection may go on.
func (c *core) flush(s *running) {
	c.record(s)
	if s.ID == 0 {
		return
	}
	old, _, ok := c.flushed.Get(s.Tuple)
	if !ok {
		old = c.flushed.Add(s.Tuple)
	}
	*old = recorded{s.ID, s.Counters}
}

func (c *core) record(s *running) {
	c.settle(s)
	if s.NameSource == flow.NameFromAddress {
		c.name(s) // the answer may have come late
	}
	if s.log == devices.LogNone {
		return
	}
	if s.base == s.Counters && (s.parts > 0 || s.base != (flow.Counters{}) && !s.proxied) {
		return // nothing happened that was not recorded before
	}
	if s.parts == 0 {
		c.m.recorded.Inc()
	}
	c.cfg.Record.Record(c.entry(s))
}

// A flow is recorded as soon as it is known what it is and that it carried
// something, and then every partEvery for as long as it carries more: the page
// must not wait for a stream to end, nor a power cut take its bytes.
const partEvery = time.Minute

// maxParts bounds how many running flows are recorded at one sweep: a dump of the
// kernel's table speaks of all at once, and the journal's readers have their bounds.
const maxParts = 512

// part records what a running flow did since it was last recorded, and reports
// whether there was anything.
func (c *core) part(s *running) bool {
	known := s.settled || s.conv == nil && c.now.Sub(s.First) > c.cfg.Deadline
	if !known || s.Counters == s.base || s.parts > 0 && c.now.UnixNano()-s.told < int64(partEvery) {
		return false
	}
	c.record(s)
	s.base, s.told = s.Counters, c.now.UnixNano()
	s.parts++
	return true
}

// entry is the flow as the journal takes it.
func (c *core) entry(s *running) journal.Entry {
	f := &journal.Flow{
		Flow: s.Flow, Seen: s.seen, Destination: c.describe(s), Verdict: s.decided(),
		Proxied: s.proxied, Inbound: s.inbound, Part: int(s.parts),
	}
	f.Counters.Orig = less(f.Counters.Orig, s.base.Orig)
	f.Counters.Reply = less(f.Counters.Reply, s.base.Reply)
	if s.conv != nil {
		f.Seen = s.conv.Result()
	}
	return journal.Entry{At: c.now, Device: s.device, Log: s.log, Flow: f}
}

func less(n, base flow.Count) flow.Count {
	return flow.Count{Packets: n.Packets - min(base.Packets, n.Packets), Bytes: n.Bytes - min(base.Bytes, n.Bytes)}
}

// sweep does what time brings: conversations that had their chance, and flows of
// which nobody speaks any more.
func (c *core) sweep() {
	c.reading.expire(c.flows, c.now.Add(-c.cfg.Deadline), c.settle)
	if !c.counting {
		told := 0
		for _, s := range c.flows.All() {
			if told == maxParts {
				break
			}
			if c.part(s) {
				told++
			}
		}
	}
	limit := c.now.Add(-c.cfg.Idle).UnixNano()
	for _, s := range c.flows.All() {
		if s.touched > limit {
			break
		}
		t := s.Tuple
		c.flush(s)
		c.flows.Remove(t)
	}
	c.m.running.Set(float64(c.flows.Len()))
	c.m.reading.Set(float64(c.reading.open))
}

// endAll records every flow as far as it came.
func (c *core) endAll() {
	for _, s := range c.flows.All() {
		c.end(s)
	}
	c.sweep()
}

// carry takes in what the proxy saw of a connection that it carries.
func (c *core) carry(p *Carried) {
	s, dir, known := c.flows.Get(p.Tuple)
	if !known {
		if s = c.add(p.Tuple, nil, &flow.Packet{Tuple: p.Tuple, MAC: p.MAC}); s == nil {
			return
		}
	} else if dir == flow.Reply {
		c.turn(s)
	}
	if s.proxied && (p.Seen.ServerName != s.seen.ServerName || p.Verdict != s.decided()) {
		c.record(s) // one connection, several sites: each is a flow of its own
		s.base, s.parts, s.First = s.Counters, 0, c.now
	}
	c.reading.drop(s)
	s.settled, s.proxied, s.touched = true, true, c.now.UnixNano()
	s.seen = p.Seen
	c.conclude(s)
	s.verdict = new(p.Verdict) // p lies in a batch that is used again
	if p.Counters != (flow.Counters{}) {
		s.Counters, s.Last = p.Counters, c.now
	}
}
