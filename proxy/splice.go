package proxy

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// burst is how many bytes are moved before the counters are brought up to date.
const burst = 4 << 20

// splice joins c and upstream until both directions have ended, beginning
// with what was peeked. Between two TCP sockets the kernel moves the bytes itself
// (splice(2)): nothing here may wrap them.
func (c *conn) splice(upstream net.Conn) {
	up, ok := upstream.(*net.TCPConn)
	if !ok {
		_ = upstream.Close()
		c.refuse()
		return
	}
	back := make(chan error, 1)
	go func() { back <- c.pump(c.TCPConn, up, &c.in) }()
	n, err := up.Write(c.peeked)
	c.peeked = nil
	c.out.Add(int64(n))
	if err == nil {
		err = c.pump(up, c.TCPConn, &c.out)
	}
	if err != nil {
		// One side broke: the other learns it, and the way back ends too.
		_ = up.SetLinger(0)
		_ = up.Close()
		_ = c.SetLinger(0)
		c.abort()
	}
	if e := <-back; e != nil && err == nil {
		_ = c.SetLinger(0)
		_ = up.SetLinger(0)
	}
	_ = up.Close()
	_ = c.Close()
}

// pump moves bytes from src to dst until src ends, then ends dst's writing side.
// It wakes up now and then to count, so that watch sees what moved.
func (c *conn) pump(dst, src *net.TCPConn, count *atomic.Int64) error {
	tick := max(c.proxy.cfg.IdleTimeout/4, 10*time.Millisecond)
	for {
		if err := src.SetReadDeadline(time.Now().Add(tick)); err != nil {
			return c.broken(dst, src, err)
		}
		n, err := io.CopyN(dst, src, burst)
		count.Add(n)
		switch {
		case err == nil, isTimeout(err):
		case errors.Is(err, io.EOF):
			return dst.CloseWrite()
		default:
			return c.broken(dst, src, err)
		}
	}
}

// broken ends both sockets after an error in one direction, so that the other
// direction ends as well.
func (c *conn) broken(dst, src *net.TCPConn, err error) error {
	_ = dst.SetLinger(0)
	_ = dst.Close()
	_ = src.SetLinger(0)
	_ = src.Close()
	return err
}
