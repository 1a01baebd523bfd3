package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// rest is how a connection that speaks HTTP is kept between two requests: without
// net/http, whose buffers and goroutines on both sides come to 40 kB. To net/http
// each spell of requests is a connection of its own; the device and the origin see
// none of that.
type rest struct {
	begins  bool        // net/http waits for the next request
	now     atomic.Bool // nobody serves it: both sides are only waited for
	parked  atomic.Bool // the silence was long enough: its Close is none
	keeping atomic.Bool // nor is the transport's, of its idle connection to the origin
	ended   atomic.Bool // the origin ended that connection, or said that it would
	wire    wire        // what the kernel had counted when the last answer was written

	// What net/http has read of the next request stands in its buffer when it is told
	// to close; it waits for four octets, so that these are three at most.
	room int     // of its buffer: what it first asks for
	last [3]byte // that it was given

	framing framing // of what it is given, while it serves
}

// passed notes that n octets of b were given to net/http.
func (r *rest) passed(b []byte, n int) {
	if r.room == 0 {
		r.room = len(b)
	}
	k := min(n, len(r.last))
	copy(r.last[:], r.last[k:])
	copy(r.last[len(r.last)-k:], b[n-k:n])
}

// serve gives the connection to net/http, which begins to read a request. Empty lines
// before it say nothing (RFC 9112 §2.2).
func (c *conn) serve() {
	c.rest.room, c.rest.framing = 0, framing{state: inHead}
	n := len(c.peeked)
	c.peeked = bytes.TrimLeft(c.peeked, "\r\n")
	c.out.Add(int64(n - len(c.peeked)))
	if !c.proxy.handoff.offer(c) {
		_ = c.Close()
	}
}

// rests is net/http's ConnState hook. For this state it runs in the goroutine that
// serves, which then waits for the next request.
func rests(nc net.Conn, s http.ConnState) {
	if c, ok := nc.(*conn); ok && s == http.StateIdle {
		c.rest.begins = true
		c.answered()
	}
}

// SetReadDeadline implements net.Conn. net/http takes the deadline of its wait away
// when a request begins, which may have come without a Read: with the one before.
func (c *conn) SetReadDeadline(t time.Time) error {
	if t.IsZero() {
		c.rest.begins = false
	}
	return c.TCPConn.SetReadDeadline(t)
}

// readRested waits for the next request, but not for long. What net/http has of it
// already it is given again when that goes on.
func (c *conn) readRested(b []byte) (int, error) {
	c.rest.begins = false
	if err := c.TCPConn.SetReadDeadline(time.Now().Add(linger)); err != nil {
		return 0, err
	}
	n, err := c.TCPConn.Read(b)
	if held := c.rest.room - len(b); n == 0 && isTimeout(err) && held <= len(c.rest.last) {
		c.peeked = slices.Clone(c.rest.last[len(c.rest.last)-held:])
		c.out.Add(-int64(held))
		c.rest.parked.Store(true)
		return 0, io.EOF
	}
	return n, errors.Join(err, c.TCPConn.SetReadDeadline(time.Now().Add(headerTimeout)))
}

// park keeps both sockets for as long as neither side says anything. Where the
// origin ended its own between two requests so do we, as the device would have seen
// without us.
func (c *conn) park() {
	c.mu.Lock()
	transports := [...]*http.Transport{c.upstream, c.secure}
	c.upstream, c.secure = nil, nil
	c.mu.Unlock()
	c.rest.keeping.Store(true)
	for _, t := range transports {
		if t != nil {
			t.CloseIdleConnections() // what runs over TLS ends with its state
		}
	}
	c.rest.keeping.Store(false)
	c.mu.Lock()
	kept := c.origin
	c.mu.Unlock()
	if kept == nil && c.rest.ended.Load() {
		_ = c.Close()
		return
	}
	c.rest.now.Store(true)
	var err error
	if kept == nil {
		err = c.wait(c.TCPConn, &c.waits[0], c.resume)
	} else {
		err = c.waitForFirst(kept, func() {
			c.proxy.parking.forget(c.waits[0].Load())
			_ = c.Close()
		}, c.resume)
	}
	if err != nil {
		_ = c.Close()
	}
}

// resume gives the connection to net/http again.
func (c *conn) resume() {
	c.rest.now.Store(false)
	c.serve()
}

// dialOrigin gives the transport the connection that was kept, else a new one.
func (c *conn) dialOrigin(ctx context.Context) (net.Conn, error) {
	c.mu.Lock()
	kept := c.origin
	c.origin = nil
	c.mu.Unlock()
	c.rest.ended.Store(false)
	if kept != nil {
		// Where the ticket is gone the origin said something, which can only be its end.
		if c.proxy.parking.forget(c.waits[1].Load()) && addrPort(kept.RemoteAddr()) == c.dst {
			return &origin{TCPConn: kept, conn: c}, nil
		}
		_ = kept.Close()
	}
	up, err := c.dial(ctx)
	if tcp, ok := up.(*net.TCPConn); ok {
		return &origin{TCPConn: tcp, conn: c}, nil
	}
	return up, err
}

// origin is a connection to the original destination as the transport has it.
// Closing it while its device's connection comes to rest keeps the socket, and so
// does closing it after it was taken to be spliced.
type origin struct {
	*net.TCPConn
	conn    *conn
	left    atomic.Bool // the socket is not the transport's any more
	over    atomic.Bool // its other side ended it, or it broke
	reading sync.Mutex
	spoke   bool  // guarded by reading: while it should have been silent
	moved   int64 // octets that the kernel has passed on already: they are read without being there
}

// Read implements net.Conn.
func (o *origin) Read(b []byte) (int, error) {
	o.reading.Lock()
	defer o.reading.Unlock()
	if o.left.Load() {
		return 0, net.ErrClosed
	}
	if len(b) > transportBuffer { // its buffer is empty, then: it reads past it
		o.conn.unheld = o
	}
	if o.moved > 0 {
		n := min(int64(len(b)), o.moved)
		o.moved -= n
		return int(n), nil
	}
	n, err := o.TCPConn.Read(b)
	if err != nil && !isTimeout(err) {
		o.over.Store(true)
	}
	if o.left.Load() && (n > 0 || !isTimeout(err)) {
		o.spoke = true
	}
	return n, err
}

// Close implements net.Conn.
func (o *origin) Close() error {
	switch {
	case o.left.Load():
		return nil
	case !o.conn.rest.keeping.Load():
		// On a busy machine the transport lets go of connections that nobody ended, when an
		// answer comes before it heard of its own write. The device's goes on over a new one.
		if o.over.Load() {
			o.conn.rest.ended.Store(true)
		}
		return o.TCPConn.Close()
	case !o.left.CompareAndSwap(false, true):
		return nil
	}
	_ = o.SetReadDeadline(time.Unix(1, 0)) // the transport waits for an answer that nobody asked for
	o.reading.Lock()
	defer o.reading.Unlock()
	if o.spoke || o.SetReadDeadline(time.Time{}) != nil {
		o.conn.rest.ended.Store(true)
		return o.TCPConn.Close()
	}
	o.conn.mu.Lock()
	o.conn.origin = o.TCPConn
	o.conn.mu.Unlock()
	return nil
}
