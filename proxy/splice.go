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

// linger is how long a silent direction keeps its goroutine, and a silent HTTP
// connection net/http's, before it is only waited for.
const linger = 2 * time.Second

// joined is c and its upstream while the kernel moves bytes between them itself
// (splice(2)): nothing here may wrap the two sockets. Each direction has a goroutine
// while it moves, and none while it is silent.
type joined struct {
	*conn
	up   *net.TCPConn
	open atomic.Int32 // directions that have not ended
}

// direction is one of a joined connection's two.
type direction struct {
	to, from *net.TCPConn
	moved    *atomic.Int64
	ticket   *atomic.Uint64
}

// splice joins c and upstream until both directions have ended, beginning with what
// was peeked. It does not wait for that.
func (c *conn) splice(upstream net.Conn) {
	up, ok := upstream.(*net.TCPConn)
	if !ok {
		_ = upstream.Close()
		c.refuse()
		return
	}
	j := &joined{conn: c, up: up}
	j.open.Store(2)
	c.mu.Lock()
	c.origin = up
	c.mu.Unlock()
	var n int
	err := net.ErrClosed
	if !c.aborted.Load() { // which may have been before there was an origin to end
		n, err = up.Write(c.peeked)
	}
	c.peeked = nil
	c.out.Add(int64(n))
	if err != nil {
		j.broke()
	}
	j.pause(direction{c.TCPConn, up, &c.in, &c.waits[1]})
	j.pause(direction{up, c.TCPConn, &c.out, &c.waits[0]})
}

// pause waits for d's sender to say more, and then pumps.
func (j *joined) pause(d direction) {
	if j.wait(d.from, d.ticket, func() { j.pump(d) }) != nil {
		j.broke()
		j.ended()
	}
}

// pump moves bytes until d's sender is silent for a while, or ends.
func (j *joined) pump(d direction) {
	wait := min(linger, max(j.proxy.cfg.IdleTimeout/4, 10*time.Millisecond)) // so that watch sees what moved
	for {
		err := d.from.SetReadDeadline(time.Now().Add(wait))
		var n int64
		if err == nil {
			n, err = io.CopyN(d.to, d.from, burst)
			d.moved.Add(n)
		}
		switch {
		case err == nil, isTimeout(err) && n > 0:
		case isTimeout(err):
			j.pause(d)
			return
		case errors.Is(err, io.EOF):
			if d.to.CloseWrite() != nil {
				j.broke()
			}
			j.ended()
			return
		default:
			j.broke()
			j.ended()
			return
		}
	}
}

// broke ends both sockets after an error, so that the other direction ends as well.
func (j *joined) broke() {
	_ = j.up.SetLinger(0)
	_ = j.SetLinger(0)
	j.abort()
}

// ended closes both sockets when no direction is left.
func (j *joined) ended() {
	if j.open.Add(-1) == 0 {
		_ = j.Close()
	}
}
