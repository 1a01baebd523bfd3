package proxy

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
)

// share is what one host has of a connection: all of it, but for keep-alive
// connections that speak HTTP with several hosts.
type share struct {
	name      dnsname.Name
	dst       netip.AddrPort
	source    flow.NameSource
	asked     []policy.Query // what verdict answers: it is the first Block of them
	verdict   policy.Verdict
	seen      dissect.Result
	dest      atlas.Destination
	changes   uint64 // of the rules, when it was asked
	overTLS   bool   // leaves the house encrypted, though the device speaks in clear
	start     time.Time
	out0, in0 int64 // the counters when it began
}

// newShare judges: given what the client says, may it talk to this destination?
// Where the name could not be read, the one that the device last looked up for the
// address stands in; a name that hides the true one is judged beside it. q says on
// which layer that is asked, and what else is known there.
func (c *conn) newShare(name dnsname.Name, source flow.NameSource, q policy.Query, seen dissect.Result) *share {
	p := c.proxy
	names := []dnsname.Name{name}
	if c.told != "" { // the tunnel was asked for by name: what is inside must pass, and that too
		names = append(names, c.told)
		if name == "" || q.Hello == policy.HelloHidden {
			names = []dnsname.Name{c.told, name}
			name, source = c.told, flow.NameFromHost
			seen.ServerName, seen.NameFrom = string(name), "host"
		}
		switch q.Hello {
		case policy.HelloNameless, policy.HelloHidden, policy.HelloSilent:
			q.Hello = policy.HelloRead
		}
	} else if name == "" || q.Hello == policy.HelloHidden {
		outer := name
		name, source = "", flow.NameFromAddress
		if p.cfg.NameOf != nil {
			if name = p.cfg.NameOf(c.device.ID, c.dst.Addr()); name != "" {
				source = flow.NameFromDNSDevice
			}
		}
		names[0] = name
		if outer != "" {
			names = append(names, outer)
		}
	}
	changes := p.changes.Load() // before anything is asked: what changes from here on is asked again
	c.followHousehold()
	s := &share{name: name, dst: c.dst, source: source, seen: seen, start: p.cfg.Now(), out0: c.out.Load(), in0: c.in.Load(), changes: changes}
	if p.cfg.Describe != nil && name != "" {
		s.dest = p.cfg.Describe(name)
	}
	q.Now = s.start
	q.Device, q.Kind, q.Mode = c.device.ID, c.device.Kind, c.device.Mode
	q.Addr, q.Port = c.dst.Addr(), c.dst.Port()
	q.ClientAddr, q.ClientName = c.src.Addr().Unmap(), c.device.Name
	if len(c.device.MACs) > 0 {
		q.ClientMAC = c.device.MACs[0]
	}
	for i, n := range slices.Compact(names) {
		if i > 0 && n == "" {
			continue
		}
		if q.Name = n; i > 0 {
			q.Hello = policy.HelloRead // that one was
		}
		s.asked = append(s.asked, q)
	}
	s.verdict = p.decide(s.asked)
	return s
}

// decide asks about each of several names that one connection goes by: the first
// refusal counts, else what is said of the first.
func (p *Proxy) decide(asked []policy.Query) (v policy.Verdict) {
	for i, q := range asked {
		if d := p.cfg.Decider.Decide(q); i == 0 || d.Action == policy.Block {
			if v = d; v.Action == policy.Block {
				break
			}
		}
	}
	return v
}

// setShare begins s, and ends the share that ran until now.
func (c *conn) setShare(s *share) {
	further := c.endShare()
	c.mu.Lock()
	c.share, c.waiting = s, nil
	c.mu.Unlock()
	if further {
		c.tellFrom(s, c.turned())
	} else {
		c.tell(s)
	}
	c.recheck(s)
}

// endShare tells of the share that ran until now.
func (c *conn) endShare() (ended bool) {
	c.mu.Lock()
	s := c.share
	c.share = nil
	c.mu.Unlock()
	if s == nil {
		return false
	}
	p, f := c.proxy, c.flow(s)
	f.Last = p.cfg.Now()
	f.Counters.Orig.Bytes = uint64(c.out.Load() - s.out0)
	f.Counters.Reply.Bytes = uint64(c.in.Load() - s.in0)
	p.metrics.ended(protocolLabel(s.seen.App), s.verdict, f.Counters.Orig.Bytes, f.Counters.Reply.Bytes)
	if p.cfg.Recorder != nil && p.cfg.Observer == nil {
		p.cfg.Recorder.Record(journal.Entry{At: f.Last, Device: c.device.ID, Log: c.device.Log, Flow: &f})
	}
	return true
}

// protocolLabel bounds the values of a metric's label.
func protocolLabel(app string) string {
	switch app {
	case "http", "tls":
		return app
	}
	return "other"
}

// tell hands what is known of s to the observer.
func (c *conn) tell(s *share) { c.tellFrom(s, flow.Counters{}) }

func (c *conn) tellFrom(s *share, before flow.Counters) {
	if o := c.proxy.cfg.Observer; o != nil {
		f := c.flow(s)
		c.mu.Lock()
		told := Carried{Device: c.device, Flow: f, Before: before}
		c.mu.Unlock()
		if c.wire.IsValid() {
			told.To = s.dst
		}
		o.Proxied(told)
	}
}

// flow is what the journal takes of a share, without the bytes.
func (c *conn) flow(s *share) journal.Flow {
	c.mu.Lock()
	seen := s.seen
	c.mu.Unlock()
	f := journal.Flow{
		Flow: flow.Flow{
			Tuple: c.tuple(), First: s.start, Last: s.start,
			Name: string(s.name), NameSource: s.source,
		},
		Seen: seen, Destination: s.dest, Verdict: s.verdict, Proxied: true, CarriedEncrypted: s.overTLS,
	}
	if len(c.device.MACs) > 0 {
		f.MAC = c.device.MACs[0]
	}
	return f
}

// nowRefused reports whether what c carries would be refused, were it asked now.
func (c *conn) nowRefused() bool {
	c.mu.Lock()
	s := cmp.Or(c.share, c.waiting)
	if s == nil || s.verdict.Action == policy.Block { // a block page may be on its way
		c.mu.Unlock()
		return false
	}
	asked, dst, device := slices.Clone(s.asked), s.dst, c.device
	c.mu.Unlock()
	if f := c.proxy.cfg.GoesOn; f != nil && !f(device, c.src.Addr(), dst) {
		return true
	}
	d, known := c.proxy.deviceNow(c.device.ID, c.src.Addr())
	for i := range asked {
		asked[i].Now = c.proxy.cfg.Now()
		if known {
			asked[i].Device, asked[i].Kind, asked[i].Mode = d.ID, d.Kind, d.Mode
		}
	}
	return c.proxy.decide(asked).Action == policy.Block
}

// reconsider ends c if what it carries would be refused now.
func (c *conn) reconsider() {
	if c.nowRefused() {
		_ = c.SetLinger(0)
		c.abort() // whoever carries it finds it closed, and closes the rest
		c.proxy.metrics.refused.WithLabelValues("reconsidered").Inc()
	}
}

// recheck reconsiders when rules have changed since s was judged: it was not yet
// there to be found when they did.
func (c *conn) recheck(s *share) {
	if c.proxy.changes.Load() != s.changes {
		c.reconsider()
	}
}

// followHousehold takes up what was chosen for the device since the connection began.
func (c *conn) followHousehold() {
	if d, known := c.proxy.deviceNow(c.device.ID, c.src.Addr()); known && d.ID == c.device.ID {
		c.mu.Lock() // a body that passes late may tell of the device
		defer c.mu.Unlock()
		c.device.Mode, c.device.Kind = d.Mode, d.Kind
		c.device.CarryEncrypted, c.device.StripTracking = d.CarryEncrypted, d.StripTracking
	}
}
