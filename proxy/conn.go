package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
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
	device   devices.Device
	peeked   []byte       // to be read again, by net/http
	out, in  atomic.Int64 // TCP payload from and to the device
	closing  sync.Once
	onClose  []func()

	// Of a connection that speaks HTTP; its requests are served one after another.
	response  *response
	witnessed int // requests

	mu               sync.Mutex
	share            *share
	upstream, secure *http.Transport // in clear, over TLS
}

// share is what one host has of a connection: all of it, but for keep-alive
// connections that speak HTTP with several hosts.
type share struct {
	name      dnsname.Name
	source    flow.NameSource
	asked     policy.Query // what verdict answers
	verdict   policy.Verdict
	seen      dissect.Result
	dest      atlas.Destination
	overTLS   bool // leaves the house encrypted, though the device speaks in clear
	start     time.Time
	out0, in0 int64 // the counters when it began
}

func (p *Proxy) newConn(c *net.TCPConn) *conn {
	p.metrics.open.Inc()
	conn := &conn{TCPConn: c, proxy: p, src: addrPort(c.RemoteAddr()), dst: p.original(c)}
	p.live.Store(conn, struct{}{})
	return conn
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	if len(c.peeked) > 0 {
		n := copy(b, c.peeked)
		if c.peeked = c.peeked[n:]; len(c.peeked) == 0 {
			c.peeked = nil
		}
		c.out.Add(int64(n))
		return n, nil
	}
	n, err := c.TCPConn.Read(b)
	c.out.Add(int64(n))
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	c.in.Add(int64(n))
	return n, err
}

// ReadFrom hides the one of TCPConn, which would not count.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c}, r)
}

// WriteTo hides the one of TCPConn, which would not yield what was peeked.
func (c *conn) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{c})
}

// Close closes the connection, tells what was carried and frees its place, once.
func (c *conn) Close() error {
	err := net.ErrClosed
	c.closing.Do(func() {
		err = c.TCPConn.Close()
		c.endShare()
		c.closeTransports()
		for _, f := range c.onClose {
			f()
		}
		c.proxy.live.Delete(c)
		c.proxy.metrics.open.Dec()
		<-c.proxy.slots
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

// carry takes c up: it peeks, asks policy, and refuses, splices or hands over to
// net/http, which then owns c.
func (c *conn) carry(ctx context.Context) {
	p := c.proxy
	c.onClose = append(c.onClose, stopFunc(context.AfterFunc(ctx, c.abort)))
	if why := p.mayCarry(c.dst); why != "" {
		if c.answerProbe() {
			_ = c.Close()
			return
		}
		p.metrics.refused.WithLabelValues(why).Inc()
		p.log.Debug("not carried", "why", why, "from", c.src, "to", c.dst)
		c.refuse()
		return
	}
	c.device = p.deviceAt(c.src.Addr())

	buf := p.peeks.Get().(*[]byte)
	first, said, hello, err := c.peek(*buf)
	c.peeked = bytes.Clone(first)
	p.peeks.Put(buf) // a connection may last for hours, and needs no 16 KiB for that
	switch {
	case err != nil:
		p.metrics.refused.WithLabelValues("unfinished").Inc()
		c.refuse()
	case said == speaksGarbled:
		p.metrics.refused.WithLabelValues("garbled").Inc()
		c.refuse()
	case said == speaksHTTP:
		c.watch(15 * time.Minute)
		if !p.handoff.offer(c) {
			_ = c.Close()
		}
	default:
		c.watch(p.cfg.IdleTimeout)
		c.carryOpaque(ctx, said, hello)
	}
}

func stopFunc(stop func() bool) func() { return func() { stop() } }

// abort ends c from outside: whoever reads or writes gets an error and closes it.
func (c *conn) abort() { _ = c.TCPConn.Close() }

// watch aborts c when nothing moved in either direction for idle.
func (c *conn) watch(idle time.Duration) {
	last := c.out.Load() + c.in.Load()
	var t *time.Timer
	var mu sync.Mutex // t is set before the first tick reads it
	mu.Lock()
	defer mu.Unlock()
	t = time.AfterFunc(idle, func() {
		mu.Lock()
		defer mu.Unlock()
		if now := c.out.Load() + c.in.Load(); now != last {
			last = now
			t.Reset(idle)
			return
		}
		c.proxy.metrics.refused.WithLabelValues("idle").Inc()
		c.abort()
	})
	c.onClose = append(c.onClose, func() { t.Stop() })
}

// peek reads until it is known what the client speaks. An error means that the
// client never said enough to be judged, and is not to be carried: a name that
// dribbles in would dodge the verdict.
func (c *conn) peek(buf []byte) (first []byte, said speech, hello dissect.Hello, err error) {
	if err := c.SetReadDeadline(time.Now().Add(c.proxy.cfg.PeekTimeout)); err != nil {
		return nil, 0, hello, err
	}
	n := 0
	for n < len(buf) {
		m, err := c.TCPConn.Read(buf[n:])
		n += m
		if m > 0 {
			if said, hello = classify(buf[:n]); said != undetermined {
				return buf[:n], said, hello, c.SetReadDeadline(time.Time{})
			}
		}
		if errors.Is(err, io.EOF) && n > 0 {
			return buf[:n], speaksOther, hello, nil // all it had to say, and it was neither
		}
		if err != nil {
			return nil, 0, hello, err
		}
	}
	return nil, 0, hello, errors.New("the first message is too long to be judged")
}

// carryOpaque judges a connection that is TLS or unknown, and splices it.
func (c *conn) carryOpaque(ctx context.Context, said speech, hello dissect.Hello) {
	seen, layer := hello.Result(), policy.LayerTLS
	if said == speaksOther {
		seen = c.dissect(c.peeked)
	}
	name, err := dnsname.Parse(seen.ServerName)
	if err != nil {
		name = ""
	}
	s := c.newShare(name, flow.NameFromSNI, layer, "", seen)
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
	c.splice(upstream)
}

// dial connects to where the client wanted to go, and to nowhere else.
func (c *conn) dial(ctx context.Context) (net.Conn, error) {
	return c.proxy.cfg.Dial(ctx, "tcp", c.dst.String())
}

// dissect is what the passive side of the house would say of these first bytes.
func (c *conn) dissect(first []byte) dissect.Result {
	conv := dissect.New(flow.TCP, c.dst.Port())
	defer conv.Close()
	conv.Feed(flow.Orig, &flow.Packet{Tuple: c.tuple(), Seq: 1, Flags: flow.ACK | flow.PSH, Length: len(first) + 40, Payload: first})
	return conv.Result()
}

func (c *conn) tuple() flow.Tuple { return flow.NewTuple(flow.TCP, c.src, c.dst) }

// newShare judges: given what the client says, may it talk to this destination?
// Without a name of its own, the name that the device last looked up for the
// address stands in.
func (c *conn) newShare(name dnsname.Name, source flow.NameSource, layer policy.Layer, path string, seen dissect.Result) *share {
	p := c.proxy
	if name == "" {
		source = flow.NameFromAddress
		if p.cfg.NameOf != nil {
			if name = p.cfg.NameOf(c.device.ID, c.dst.Addr()); name != "" {
				source = flow.NameFromDNSDevice
			}
		}
	}
	s := &share{name: name, source: source, seen: seen, start: p.cfg.Now(), out0: c.out.Load(), in0: c.in.Load()}
	if p.cfg.Describe != nil && name != "" {
		s.dest = p.cfg.Describe(name)
	}
	s.asked = policy.Query{
		Layer: layer, Now: s.start,
		Device: c.device.ID, Kind: c.device.Kind, Mode: c.device.Mode,
		Name: name, Addr: c.dst.Addr(), Port: c.dst.Port(), Proto: flow.TCP,
		Purpose: string(s.dest.Purpose), Country: s.dest.Country, Path: path,
		ClientAddr: c.src.Addr().Unmap(), ClientName: c.device.Name,
	}
	if len(c.device.MACs) > 0 {
		s.asked.ClientMAC = c.device.MACs[0]
	}
	s.verdict = p.cfg.Decider.Decide(s.asked)
	return s
}

// setShare begins s, and ends the share that ran until now.
func (c *conn) setShare(s *share) {
	c.endShare()
	c.mu.Lock()
	c.share = s
	c.mu.Unlock()
	c.tell(s)
}

// tell hands what is known of s to the observer.
func (c *conn) tell(s *share) {
	if o := c.proxy.cfg.Observer; o != nil {
		f := c.flow(s)
		c.mu.Lock()
		d := c.device
		c.mu.Unlock()
		o.Proxied(Carried{Device: d, Flow: f})
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
	s := c.share
	if s == nil || s.verdict.Action == policy.Block { // a block page may be on its way
		c.mu.Unlock()
		return false
	}
	q := s.asked
	c.mu.Unlock()
	q.Now = c.proxy.cfg.Now()
	return c.proxy.cfg.Decider.Decide(q).Action == policy.Block
}

// endShare tells of the share that ran until now.
func (c *conn) endShare() {
	c.mu.Lock()
	s := c.share
	c.share = nil
	c.mu.Unlock()
	if s == nil {
		return
	}
	p, f := c.proxy, c.flow(s)
	f.Last = p.cfg.Now()
	f.Counters.Orig.Bytes = uint64(c.out.Load() - s.out0)
	f.Counters.Reply.Bytes = uint64(c.in.Load() - s.in0)
	p.metrics.ended(protocolLabel(s.seen.App), s.verdict, f.Counters.Orig.Bytes, f.Counters.Reply.Bytes)
	if p.cfg.Recorder != nil && p.cfg.Observer == nil {
		p.cfg.Recorder.Record(journal.Entry{At: f.Last, Device: c.device.ID, Log: c.device.Log, Flow: &f})
	}
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

// answerProbe answers our own Probe: a connection from this machine to the
// listener itself that brings the token. Policy is asked as for any other, so
// that a probe does not pass where a device would hang.
func (c *conn) answerProbe() bool {
	local := addrPort(c.LocalAddr())
	if !c.src.Addr().IsLoopback() && c.src.Addr() != local.Addr() {
		return false
	}
	if c.SetDeadline(time.Now().Add(time.Second)) != nil {
		return false
	}
	buf := make([]byte, len(c.proxy.token))
	if _, err := io.ReadFull(c.TCPConn, buf); err != nil || string(buf) != c.proxy.token {
		return false
	}
	c.proxy.cfg.Decider.Decide(policy.Query{Layer: policy.LayerTLS, Now: c.proxy.cfg.Now(), Name: "probe.invalid", Proto: flow.TCP})
	_, err := c.TCPConn.Write([]byte("ok"))
	return err == nil
}

// isTimeout reports whether err is a deadline that passed.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
