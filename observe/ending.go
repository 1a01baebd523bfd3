package observe

import (
	"math"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
)

// end records a flow and forgets it.
func (c *core) end(s *running) {
	t := s.Tuple
	c.record(s)
	c.flows.Remove(t)
}

// flush records a flow whose end was not heard of; its connection may go on.
func (c *core) flush(s *running) {
	if !s.silent() { // else the kernel speaks of it again when it has counted something, and of its end
		c.soFar(s)
	}
}

// evict records a flow whose place is needed, though nothing was counted of it yet: in
// a burst the kernel may have no room for the news of its end.
func (c *core) evict(s *running) {
	if s.ID != 0 || !s.silent() {
		c.soFar(s)
	}
}

// silent reports whether nothing was counted of s, and nothing else is to be told of it.
func (s *running) silent() bool {
	return s.Counters == (flow.Counters{}) && s.parts == 0 && !s.proxied && !s.turnedAway()
}

// soFar records s as far as it came.
func (c *core) soFar(s *running) {
	c.record(s)
	if s.ID != 0 {
		c.early.put(s.Tuple, s.ID, recorded{s.Counters, s.First.UnixNano(), s.traits})
	}
}

func (c *core) record(s *running) {
	c.settle(s)
	if s.NameSource == flow.NameFromAddress {
		c.name(s) // the answer may have come late
	}
	if s.log == devices.LogNone || s.toUs {
		return
	}
	if s.base == s.Counters && s.news() == 0 && (s.parts > 0 || s.base != (flow.Counters{}) && !s.proxied) {
		return // nothing happened that was not recorded before
	}
	if s.parts == 0 {
		c.m.recorded.Inc()
	}
	e := c.entry(s)
	s.traits |= s.news()
	if c.cfg.Ease != nil {
		c.cfg.Ease()
	}
	c.cfg.Record.Record(e)
	c.meet(s, e.Flow.Destination)
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
	if s.toUs {
		return false
	}
	known := s.settled || s.conv == nil && c.now.Sub(s.First) > c.cfg.Deadline
	if known && s.parts == 0 && s.turnedAway() {
		c.record(s)
		s.parts = 1
		return true
	}
	switch {
	case !known:
		return false
	case s.news() != 0 && (s.parts > 0 || s.base != (flow.Counters{})): // it was blocked meanwhile, say: that cannot wait
	case s.Counters == s.base, s.parts > 0 && c.now.UnixNano()-s.told < int64(partEvery):
		return false
	}
	c.record(s)
	s.base, s.told = s.Counters, c.now.UnixNano()
	if s.parts < math.MaxUint16 {
		s.parts++
	}
	return true
}

// news are the traits of s that were not recorded yet.
func (s *running) news() journal.Traits {
	return journal.TraitsOf(s.decided(), &s.seen, s.overTLS) &^ s.traits
}

// turnedAway reports whether the kernel refused the flow's first packet: it never
// tracked it, and will not tell its end.
func (s *running) turnedAway() bool {
	return s.ID == 0 && !s.proxied && s.Counters == (flow.Counters{}) && s.decided().Action == policy.Block
}

// entry is the flow as the journal takes it.
func (c *core) entry(s *running) journal.Entry {
	f := &journal.Flow{
		Flow: s.Flow, Seen: s.seen, Destination: c.describe(s), Verdict: s.decided(),
		Proxied: s.proxied, CarriedEncrypted: s.overTLS, Inbound: s.inbound, PortMapped: s.mapped, ByNameOnly: s.byNameOnly, Part: int(s.parts), Late: s.news(),
	}
	if s.takenTo != nil {
		f.Tuple.Dst, f.Tuple.DstPort = s.takenTo.Addr().As16(), s.takenTo.Port()
	}
	f.Counters = f.Counters.Since(s.base)
	if s.conv != nil {
		if f.Seen = s.conv.Result(); f.Seen.Guessed {
			f.Seen = (&looks{}).believe(f.Seen) // it will be counted when it is settled
		}
	}
	return journal.Entry{At: c.now, Device: s.device, Log: s.log, Flow: f}
}

// untracked is how long a flow may be known by packets alone. One of which the
// kernel still tells nothing is the last packet of a connection that ended.
const untracked = time.Minute

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
	late := limit
	if !c.counting {
		late = max(limit, c.now.Add(-untracked).UnixNano())
	}
	for _, s := range c.flows.All() {
		if s.touched > late {
			break
		}
		if s.touched > limit && (s.ID != 0 || s.proxied || s.turnedAway()) {
			continue
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
