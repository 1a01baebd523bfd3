package proxy

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
)

// conn is one handed-over connection. It is a net.Conn that yields what was
// peeked before what is still to be read, and counts.
type conn struct {
	*net.TCPConn
	proxy    *Proxy
	src, dst netip.AddrPort
	wire     netip.AddrPort   // where the explicit proxy took it up; not valid on the transparent way
	others   []netip.AddrPort // where dst's name is, too
	explicit bool             // its requests are meant for a proxy
	told     dnsname.Name     // what a tunnel was asked for
	device   devices.Device
	peeked   []byte       // to be read again, by net/http
	out, in  atomic.Int64 // TCP payload from and to the device
	closing  sync.Once
	counted  bool // among its device's
	aborted  atomic.Bool
	waits    [2]atomic.Uint64 // tickets with which the device's and the origin's socket are waited for

	// Of a connection that speaks HTTP; its requests are served one after another.
	response  *response
	witnessed int // requests
	rest      rest
	unheld    *origin // of whose answer nothing stands in the transport's buffer

	mu               sync.Mutex
	share            *share
	waiting          *share          // judged, while nobody has said anything
	upstream, secure *http.Transport // in clear, over TLS
	origin           *net.TCPConn    // the other side's socket, while it is spliced or rests
	idle             *time.Timer
	patience         time.Duration // of idle
}

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

func (p *Proxy) newConn(c *net.TCPConn) *conn {
	return &conn{TCPConn: c, proxy: p, src: addrPort(c.RemoteAddr()), dst: p.original(c)}
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (n int, err error) {
	switch {
	case c.rest.framing.bad:
		return 0, errTwoReadings
	case len(c.peeked) > 0:
		n = copy(b, c.peeked)
		if c.peeked = c.peeked[n:]; len(c.peeked) == 0 {
			c.peeked = nil
		}
	case c.rest.begins:
		n, err = c.readRested(b)
	default:
		n, err = c.TCPConn.Read(b)
	}
	c.out.Add(int64(n))
	if k := c.rest.framing.follow(b[:n]); k < n {
		c.proxy.metrics.refused.WithLabelValues("two-readings").Inc()
		if n, err = k, nil; n == 0 {
			err = errTwoReadings
		}
	}
	c.rest.passed(b, n)
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	c.in.Add(int64(n))
	return n, err
}

// ReadFrom hides the one of TCPConn, which would not count. net/http calls it with a
// body of known length, when it has nothing of its own to write before that.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	if b, ok := r.(*body); ok {
		return c.pass(b)
	}
	return c.proxy.copyBuffered(struct{ io.Writer }{c}, r)
}

// WriteTo hides the one of TCPConn, which would not yield what was peeked.
func (c *conn) WriteTo(w io.Writer) (int64, error) {
	return c.proxy.copyBuffered(w, struct{ io.Reader }{c})
}

// Close closes the connection, tells what was carried and frees its place, once.
// One that net/http closed because it rests between two requests is kept.
func (c *conn) Close() error {
	if c.rest.parked.CompareAndSwap(true, false) {
		c.park()
		return nil
	}
	err := net.ErrClosed
	c.closing.Do(func() {
		err = c.TCPConn.Close()
		c.endShare()
		c.closeTransports()
		c.mu.Lock()
		if c.origin != nil {
			_ = c.origin.Close()
		}
		if c.idle != nil {
			c.idle.Stop()
		}
		c.mu.Unlock()
		for i := range c.waits {
			c.proxy.parking.forget(c.waits[i].Load())
		}
		c.proxy.leave(c)
	})
	return err
}

// reset ends a TCP connection so that the other side learns of it at once,
// instead of waiting for an answer.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// refuse ends c with a reset.
func (c *conn) refuse() {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// abort ends c from outside: whoever reads, writes or waits gets an error and
// closes it.
func (c *conn) abort() {
	c.aborted.Store(true)
	_ = c.TCPConn.Close()
	c.mu.Lock()
	if c.origin != nil {
		_ = c.origin.Close()
	}
	c.mu.Unlock()
	for i := range c.waits {
		c.proxy.parking.wake(c.waits[i].Load())
	}
}

// waitForFirst calls the function of that side which says something first, and
// only that. With an error it calls neither.
func (c *conn) waitForFirst(up *net.TCPConn, ofOrigin, ofDevice func()) error {
	var first sync.Once
	armed := make(chan struct{}) // closed when both are waited for: neither function comes before
	once := func(f func()) func() { return func() { <-armed; first.Do(f) } }
	err := errors.Join(c.wait(up, &c.waits[1], once(ofOrigin)), c.wait(c.TCPConn, &c.waits[0], once(ofDevice)))
	if err != nil {
		first.Do(func() {})
	}
	close(armed)
	return err
}

// wait calls then when s has something to say, or when c is aborted.
func (c *conn) wait(s *net.TCPConn, ticket *atomic.Uint64, then func()) error {
	err := c.proxy.parking.wait(s, ticket, then)
	if c.aborted.Load() {
		c.proxy.parking.wake(ticket.Load())
	}
	return err
}

// carry takes c up: it peeks, asks policy, and refuses, splices or hands over to
// net/http, which then owns c.
func (c *conn) carry(ctx context.Context) {
	p := c.proxy
	if c.mayBeProbe() {
		c.answerProbe()
		return
	}
	if why := p.mayCarry(c.dst); why != "" {
		p.metrics.refused.WithLabelValues(why).Inc()
		p.log.Debug("not carried", "why", why, "from", c.src, "to", c.dst)
		c.refuse()
		return
	}
	c.device = p.deviceAt(c.src.Addr())
	if !p.hasRoom(c) {
		p.metrics.refused.WithLabelValues("device-cap").Inc()
		c.refuse()
		return
	}
	if f := p.cfg.Forwards; f != nil && !f(ctx, c.device, c.src.Addr(), c.dst, true) {
		p.metrics.refused.WithLabelValues("firewall").Inc()
		c.refuse()
		return
	}
	c.takeUp(ctx, p.cfg.SilentAfter)
}

// takeUp decides by the first bytes. A client that says nothing for patience, if
// that is set, is taken for one that waits for the server to speak first.
func (c *conn) takeUp(ctx context.Context, patience time.Duration) {
	first, said, hello, err := c.peek(patience)
	c.peeked = first
	switch {
	case err != nil && len(first) > 0, said == speaksGarbled:
		c.carryOpaque(ctx, policy.HelloUnfinished, c.dissect(first))
	case err != nil && patience > 0 && isTimeout(err):
		c.carrySilent(ctx)
	case err != nil:
		c.proxy.metrics.refused.WithLabelValues("gone").Inc()
		c.refuse() // it said nothing: there is nothing to decide
	case said == speaksHTTP:
		c.watch(webIdle)
		c.serve()
	case said == speaksOther:
		kind := policy.HelloNameless
		if c.dst.Port() == tlsPort {
			kind = policy.HelloNotTLS
		}
		c.carryOpaque(ctx, kind, c.dissect(first))
	default:
		seen, kind := hello.Result(), policy.HelloRead
		switch {
		case seen.TLS.ECH:
			kind = policy.HelloHidden
		case seen.ServerName == "":
			kind = policy.HelloNameless
		}
		c.carryOpaque(ctx, kind, seen)
	}
}

// tlsPort is where nothing but TLS is expected.
const tlsPort = 443

// webIdle is how long a connection that speaks HTTP may be silent.
const webIdle = 15 * time.Minute

// watch aborts c when nothing moved in either direction for patience.
func (c *conn) watch(patience time.Duration) {
	last := c.out.Load() + c.in.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.patience = patience
	if c.idle != nil {
		c.idle.Reset(patience)
		return
	}
	c.idle = time.AfterFunc(patience, func() {
		if now := c.out.Load() + c.in.Load(); now != last {
			last = now
			c.mu.Lock()
			c.idle.Reset(c.patience)
			c.mu.Unlock()
			return
		}
		c.proxy.metrics.refused.WithLabelValues("idle").Inc()
		c.abort()
	})
}

var errTooLong = errors.New("the first message is too long to be judged")

// peek reads until it is known what the client speaks, at most for PeekTimeout from
// its first byte on. An error means that the client never said enough: a name that
// dribbles in would dodge the verdict. What was read comes with it.
func (c *conn) peek(patience time.Duration) (first []byte, said speech, hello dissect.Hello, err error) {
	buf := make([]byte, max(firstPeek, len(c.peeked)))
	n := copy(buf, c.peeked)
	if patience == 0 || n > 0 {
		patience = c.proxy.cfg.PeekTimeout
	}
	err = c.TCPConn.SetReadDeadline(time.Now().Add(patience))
	for {
		first = buf[:n]
		if said, hello = classify(first); said != undetermined {
			return first, said, hello, c.TCPConn.SetReadDeadline(time.Time{})
		}
		switch {
		case errors.Is(err, io.EOF) && n > 0 && first[0] != tlsRecord:
			return first, speaksOther, hello, nil // all it had to say, and it was neither
		case err != nil:
			return first, undetermined, hello, err
		case n >= maxPeek:
			return first, undetermined, hello, errTooLong
		case n == len(buf):
			buf = append(buf, make([]byte, n)...)
		}
		var m int
		m, err = c.TCPConn.Read(buf[n:])
		if n == 0 && m > 0 {
			err = errors.Join(err, c.TCPConn.SetReadDeadline(time.Now().Add(c.proxy.cfg.PeekTimeout)))
		}
		n += m
	}
}

// carryOpaque judges a connection that is TLS or unknown, and splices it.
func (c *conn) carryOpaque(ctx context.Context, kind policy.Hello, seen dissect.Result) {
	name, err := dnsname.Parse(seen.ServerName)
	if err != nil {
		name = ""
	}
	s := c.newShare(name, flow.NameFromSNI, policy.Query{Layer: policy.LayerTLS, Hello: kind}, seen)
	c.setShare(s)
	if s.verdict.Action == policy.Block {
		c.out.Add(int64(len(c.peeked)))
		c.refuse()
		return
	}
	upstream, err := c.dial(ctx)
	if err != nil {
		c.proxy.log.Debug("no connection to the original destination", "to", c.dst, "err", err)
		c.refuse()
		return
	}
	c.watch(c.proxy.cfg.IdleTimeout)
	_ = c.TCPConn.SetReadDeadline(time.Time{})
	c.splice(upstream)
}

// carrySilent lets the server of a client that says nothing speak first. When it is
// the client after all, nothing has left the house yet: it is judged as any other.
func (c *conn) carrySilent(ctx context.Context) {
	s := c.newShare("", flow.NameFromAddress, policy.Query{Layer: policy.LayerTLS, Hello: policy.HelloSilent}, dissect.Result{App: "unknown"})
	if s.verdict.Action == policy.Block {
		c.setShare(s)
		c.refuse()
		return
	}
	upstream, err := c.dial(ctx)
	up, ok := upstream.(*net.TCPConn)
	if err != nil || !ok {
		c.setShare(s)
		c.refuse()
		return
	}
	c.mu.Lock()
	c.origin, c.waiting = up, s
	c.mu.Unlock()
	c.watch(c.proxy.cfg.IdleTimeout)
	_ = c.TCPConn.SetReadDeadline(time.Time{})
	c.recheck(s)
	err = c.waitForFirst(up, func() {
		c.proxy.parking.forget(c.waits[0].Load())
		c.setShare(s)
		c.splice(up)
	}, func() {
		c.proxy.parking.forget(c.waits[1].Load())
		c.mu.Lock()
		c.origin, c.waiting = nil, nil
		c.mu.Unlock()
		_ = up.Close()
		c.takeUp(ctx, 0)
	})
	if err != nil {
		c.abort()
		c.refuse()
	}
}

// dial connects to where the client wanted to go, and to nowhere else. Who asked by
// name has several addresses, perhaps.
func (c *conn) dial(ctx context.Context) (net.Conn, error) {
	up, err := c.proxy.cfg.Dial(ctx, "tcp", c.dst.String())
	for _, to := range c.others {
		if err == nil || ctx.Err() != nil {
			break
		}
		up, err = c.proxy.cfg.Dial(ctx, "tcp", to.String())
	}
	return up, err
}

// dissect is what the passive side of the house would say of these first bytes.
func (c *conn) dissect(first []byte) dissect.Result {
	conv := dissect.New(flow.TCP, c.dst.Port())
	defer conv.Close()
	conv.Feed(flow.Orig, &flow.Packet{Tuple: c.tuple(), Seq: 1, Flags: flow.ACK | flow.PSH, Length: len(first) + 40, Payload: first})
	return conv.Result()
}

// tuple is the connection as the kernel tracks it.
func (c *conn) tuple() flow.Tuple {
	if c.wire.IsValid() {
		return flow.NewTuple(flow.TCP, c.src, c.wire)
	}
	return flow.NewTuple(flow.TCP, c.src, c.dst)
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
	c.followHousehold()
	s := &share{name: name, dst: c.dst, source: source, seen: seen, start: p.cfg.Now(), out0: c.out.Load(), in0: c.in.Load(), changes: p.changes.Load()}
	if p.cfg.Describe != nil && name != "" {
		s.dest = p.cfg.Describe(name)
	}
	q.Now, q.Proto = s.start, flow.TCP
	q.Device, q.Kind, q.Mode = c.device.ID, c.device.Kind, c.device.Mode
	q.Addr, q.Port = c.dst.Addr(), c.dst.Port()
	q.Purpose, q.Country = string(s.dest.Purpose), s.dest.Country
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
		return
	}
	c.tell(s)
	c.recheck(s)
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

// nowBlocked reports whether what c carries would be refused, were it asked now.
func (c *conn) nowBlocked() bool {
	c.mu.Lock()
	s := cmp.Or(c.share, c.waiting)
	if s == nil || s.verdict.Action == policy.Block { // a block page may be on its way
		c.mu.Unlock()
		return false
	}
	asked := slices.Clone(s.asked)
	c.mu.Unlock()
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
	if c.nowBlocked() {
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

// deviceNow is how a device that talks from an address is treated now, if it is still
// known, or has become so.
func (p *Proxy) deviceNow(id devices.ID, a netip.Addr) (d devices.Device, known bool) {
	if d, known = p.cfg.Devices.ByID(id); !known {
		d, known = p.cfg.Devices.ByAddr(a)
	}
	return d, known
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

// deviceAt is who talks from an address. A client that nobody knows is judged as
// a device without kind or mode, known by its address.
func (p *Proxy) deviceAt(a netip.Addr) devices.Device {
	if d, ok := p.cfg.Devices.ByAddr(a); ok {
		return d
	}
	if p.cfg.Resolve != nil {
		if d, ok := p.cfg.Resolve(a); ok {
			return d
		}
	}
	return devices.Device{ID: devices.ID(a.String())}
}

// mayBeProbe reports whether c comes from this machine and goes to the listener itself.
func (c *conn) mayBeProbe() bool {
	ours := c.src.Addr().IsLoopback() || c.src.Addr() == addrPort(c.LocalAddr()).Addr()
	return ours && (c.dst.Port() == c.proxy.cfg.HTTPPort || c.dst.Port() == c.proxy.cfg.TLSPort)
}

// answerProbe answers our own Probe, which brings the token. Policy is asked as for
// any other connection, so that a probe does not pass where a device would hang; and
// it hears that there is no room where a device would find none.
func (c *conn) answerProbe() {
	defer c.TCPConn.Close()
	if c.SetDeadline(time.Now().Add(time.Second)) != nil {
		return
	}
	buf := make([]byte, len(c.proxy.token))
	if _, err := io.ReadFull(c.TCPConn, buf); err != nil || string(buf) != c.proxy.token {
		c.proxy.metrics.refused.WithLabelValues("own").Inc() // it may be long about it: see maxProbes
		_ = c.SetLinger(0)
		return
	}
	c.proxy.cfg.Decider.Decide(policy.Query{Layer: policy.LayerTLS, Now: c.proxy.cfg.Now(), Name: "probe.invalid", Proto: flow.TCP})
	answer := probeOK
	if !c.proxy.couldTakeSlot() {
		answer = probeFull
	}
	_, _ = io.WriteString(c.TCPConn, answer)
}

// isTimeout reports whether err is a deadline that passed.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
