package observe

import (
	"hash/maphash"
	"net/netip"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
)

// core is the flow table and everything that is joined to it. It belongs to one
// goroutine, reads no clock and starts nothing: the live daemon and a capture
// file run the same code.
type core struct {
	cfg       Config
	counting  bool // packets are all there is: count them
	started   time.Time
	now       time.Time // of the thing that is being taken in
	flows     *flow.Table[running]
	early     early       // flows that had to leave early, whose kernel counters go on
	heard     *flow.Names // from DNS answers
	carried   *flow.Names // from flows' own names, for the guard against shared addresses
	reading   reading
	owners    map[devices.ID]*whose
	refused   map[refusal]refused
	facts     facts
	looks     *flow.Table[looks]     // how unknown flows look, by device and destination
	announced *flow.Table[announced] // ends of sound and picture
	portMaps  *flow.Table[portMap]   // what devices had the router open, by its end inside
	told      *flow.Table[time.Time] // rare events told lately, by a tuple that stands for them
	seed      maphash.Seed           // of told's keys
	qname     []byte
	cut       func(Cut) bool // queues a block; false when there is no room
	m         *metrics
}

// running is one flow as it goes on. With its place in the table, its index, its
// name and what was seen of it, a flow costs about 560 octets: 20,000 of any kind
// stay below 12 MB (TestMemoryOfRunningFlows).
type running struct {
	flow.Flow
	*whose
	inbound bool // opened from outside: the device is the responder
	mapped  bool // inbound, through a port that a device had the router open
	toUs    bool // to the router itself: read for what it asks, and never recorded
	proxied bool
	overTLS bool // proxied, and leaves the house encrypted
	settled bool // its first bytes were read, or waited for in vain
	// byNameOnly: what it is for is blocked, and its address is needed for others
	byNameOnly bool
	fins       uint8
	traits     journal.Traits // that were recorded
	parts      uint16         // how many times it was recorded, as far as that counts
	serial     uint32         // of its conversation, to tell it from an earlier one on the same tuple
	conv       *dissect.Conversation
	seen       dissect.Result
	verdict    *policy.Verdict // nil when nothing was decided
	base       flow.Counters   // already recorded, or from before our time
	takenTo    *netip.AddrPort // where a proxy of ours takes it; nil when Tuple says so
	told       int64           // when it was last recorded, in Unix nanoseconds
	touched    int64           // when a source last spoke of it, likewise
}

const (
	finOrig  = 1
	finReply = 2
	reset    = 4

	maxTold = 4096
)

func newCore(cfg Config, m *metrics) *core {
	c := &core{
		cfg:       cfg,
		early:     newEarly(m),
		heard:     flow.NewNames(cfg.Names),
		carried:   flow.NewNames(cfg.Names / 4),
		looks:     flow.NewTable[looks](maxLooks, nil),
		announced: flow.NewTable[announced](maxAnnounced, nil),
		portMaps:  flow.NewTable[portMap](maxPortMaps, nil),
		told:      flow.NewTable[time.Time](maxTold, nil),
		seed:      maphash.MakeSeed(),
		cut:       func(Cut) bool { return false },
		owners:    make(map[devices.ID]*whose),
		refused:   make(map[refusal]refused),
		facts:     make(facts),
		m:         m,
	}
	c.flows = flow.NewTable(cfg.Flows, func(_ flow.Tuple, s *running) {
		m.evicted.Inc()
		c.evict(s)
	})
	return c
}

// event takes in what connection tracking says.
func (c *core) event(e *flow.Event) {
	t, ok := c.lanSide(e)
	s, dir, known := c.flows.Get(t)
	if !ok && (!known || s.takenTo == nil) { // but to our own proxy, once it said what for
		return
	}
	if e.Kind == flow.Destroy {
		c.early.over(t, e.ID)
	}
	if known && s.ID != 0 && e.ID != 0 && s.ID != e.ID {
		if e.Kind == flow.Destroy {
			return // of an earlier connection, which was recorded
		}
		c.flush(s) // the ports are used again and the end of the flow before was not heard
		c.flows.Remove(s.Tuple)
		known = false
	}
	if !known {
		if c.early.nothingNew(t, e) {
			return
		}
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

// identify notes which of the kernel's entries a flow is, and what of its bytes
// was recorded before.
func (c *core) identify(s *running, e *flow.Event) {
	s.ID = e.ID
	if old, ok := c.early.take(s.Tuple, e.ID); ok {
		s.base, s.parts, s.First, s.traits = old.counters, 1, time.Unix(0, old.first), old.traits
		return
	}
	// What ran before we did was recorded by whoever ran before us. Where the kernel does
	// not say when a connection began, the first dump is of such connections; where it
	// does, a dump may well be the first that we hear of one that began since.
	const firstDump = 5 * time.Second
	ranBefore := e.Start.Before(c.started)
	if e.Start.IsZero() {
		ranBefore = c.now.Sub(c.started) < firstDump
	}
	if e.Kind == flow.Update && ranBefore {
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
		c.learn(s.device, s.log, string(name), addr, ttl)
	})
}

// learn notes what a device was told. Where its names are not written down they
// may not come to be written as the names of another device's flows, either.
func (c *core) learn(d devices.ID, level devices.LogLevel, name string, addr netip.Addr, ttl time.Duration) {
	c.free(d, name, addr)
	if level == devices.LogNames {
		c.heard.Learn(string(d), name, addr, ttl, c.now)
	} else if d != "" {
		c.heard.LearnPrivately(string(d), name, addr, ttl, c.now)
	}
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
	s.mapped = c.portMapped(s)
	if s.toUs = !c.counting && !inbound && c.cfg.Own(t.DstAddr()); !s.toUs {
		c.name(s)
		c.decide(s)
	}
	return s
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
	known, held := len(s.conv.Media()), s.conv.Held()
	s.conv.Feed(dir, p)
	c.reading.held += s.conv.Held() - held
	if media := s.conv.Media(); len(media) > known { // before the flows that it announces
		c.announce(s, media)
	}
	if s.conv.Done() {
		c.settle(s)
	}
	for c.reading.held > maxHeld && c.reading.open > 0 {
		c.reading.oldest(c.flows, c.settle)
	}
}

// settle takes the result of what was read, and draws the conclusions.
func (c *core) settle(s *running) {
	s.settled = true
	if s.conv == nil {
		return
	}
	held := s.conv.Held()
	s.conv.Close()
	c.reading.held += s.conv.Held() - held
	s.seen = s.conv.Result()
	s.seen.TLS = c.facts.share(s.seen.TLS)
	c.reading.drop(s)
	c.judge(s)
	c.conclude(s)
	if s.toUs { // one talk asks for several ports, and asks again before their time is over
		s.settled, s.seen = false, dissect.Result{}
	}
}

// carry takes in what the proxy saw of a connection that it carries.
func (c *core) carry(p *Carried) {
	s, dir, known := c.flows.Get(p.Tuple)
	first := flow.Packet{Tuple: p.Tuple, MAC: p.MAC}
	if !known {
		if s = c.add(p.Tuple, nil, &first); s == nil {
			return
		}
	} else if dir == flow.Reply {
		c.turn(s)
	}
	if devices.MAC(s.MAC).IsZero() && !p.MAC.IsZero() { // its packets are not seen: nobody else says whose it is
		if dev, mac, _, ok := c.owner(s.Tuple, &first); ok && dev.Mode != devices.ModeOff {
			s.MAC, s.whose = mac, c.share(dev)
		}
	}
	elsewhere := s.takenTo != nil && *s.takenTo != p.To
	if s.proxied && (elsewhere || p.Seen.ServerName != s.seen.ServerName || p.Verdict != s.decided() || p.Encrypted != s.overTLS) {
		// One connection, several sites or ways: each is a flow of its own, and the last
		// dump of the kernel's table may be of before or after the turn.
		heard := s.Counters
		if p.Before != (flow.Counters{}) {
			s.Counters = p.Before.Most(s.base)
		}
		c.record(s)
		s.base, s.parts, s.First, s.traits = s.Counters, 0, c.now, 0
		s.Counters = heard.Most(s.base)
	}
	if p.To.IsValid() {
		s.takenTo, s.toUs = new(p.To), false
	}
	c.reading.drop(s)
	s.settled, s.proxied, s.overTLS, s.touched = true, true, p.Encrypted, c.now.UnixNano()
	s.seen = p.Seen
	c.conclude(s)
	s.verdict = new(p.Verdict) // p lies in a batch that is used again
}
