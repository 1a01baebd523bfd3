package proxy

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/internal/dnsname"
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

// wait calls then when s has something to say, or when c is aborted.
func (c *conn) wait(s *net.TCPConn, ticket *atomic.Uint64, then func()) error {
	err := c.proxy.parking.wait(s, ticket, then)
	if c.aborted.Load() {
		c.proxy.parking.wake(ticket.Load())
	}
	return err
}

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

// tuple is the connection as the kernel tracks it.
func (c *conn) tuple() flow.Tuple {
	if c.wire.IsValid() {
		return flow.NewTuple(flow.TCP, c.src, c.wire)
	}
	return flow.NewTuple(flow.TCP, c.src, c.dst)
}

// deviceNow is how a device that talks from an address is treated now, if it is still
// known, or has become so.
func (p *Proxy) deviceNow(id devices.ID, a netip.Addr) (d devices.Device, known bool) {
	if d, known = p.cfg.Devices.ByID(id); !known {
		d, known = p.cfg.Devices.ByAddr(a)
	}
	return d, known
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
