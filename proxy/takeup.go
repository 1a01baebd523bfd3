package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
)

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

// isTimeout reports whether err is a deadline that passed.
func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

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
