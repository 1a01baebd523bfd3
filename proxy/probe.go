package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/netcurtain/netcurtain/policy"
)

// What a probe is answered.
const probeOK, probeFull = "ok", "no"

// maxProbes bounds what the router itself asks at a time.
const maxProbes = 16

// Probe makes a real connection through each of our own listeners and waits
// until it was taken up, judged and answered.
func (p *Proxy) Probe(ctx context.Context) error {
	for _, ep := range p.endpoints() {
		if err := p.probe(ctx, ep); err != nil {
			return fmt.Errorf("connection through our own listener %s: %w", ep, err)
		}
	}
	return nil
}

func (p *Proxy) probe(ctx context.Context, ep netip.AddrPort) error {
	if ep.Addr().IsUnspecified() {
		lo := netip.IPv6Loopback()
		if ep.Addr().Is4() {
			lo = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		ep = netip.AddrPortFrom(lo, ep.Port())
	}
	d := net.Dialer{Timeout: 2 * time.Second}
	d.SetMultipathTCP(false)
	c, err := d.DialContext(ctx, "tcp", ep.String())
	if err != nil {
		return err
	}
	defer c.Close()
	deadline := time.Now().Add(2 * time.Second) // the kernel's clock, not the house's
	if t, ok := ctx.Deadline(); ok && t.Before(deadline) {
		deadline = t
	}
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := c.Write([]byte(p.token)); err != nil {
		return err
	}
	var answer [2]byte
	switch n, err := io.ReadFull(c, answer[:]); {
	case string(answer[:n]) == probeOK:
		return nil
	case string(answer[:n]) == probeFull:
		return fmt.Errorf("all of its %d places are taken: option max_connections of config proxy makes more", p.cfg.MaxConns)
	default:
		return fmt.Errorf("not answered: %w", errors.Join(err, ctx.Err()))
	}
}

// takeProbe takes up what the router itself asks our listeners, in the way of every
// other connection, so that it hangs where those hang. It takes no place of a device's,
// and ends no connection that rests.
func (p *Proxy) takeProbe(ctx context.Context, c *conn) {
	select {
	case p.probes <- struct{}{}:
		p.conns.Go(func() {
			c.carry(ctx)
			<-p.probes
		})
	default:
		p.metrics.refused.WithLabelValues("own").Inc()
		reset(c.TCPConn)
	}
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
	c.proxy.cfg.Decider.Decide(policy.Query{Layer: policy.LayerTLS, Now: c.proxy.cfg.Now(), Name: "probe.invalid"})
	answer := probeOK
	if !c.proxy.couldTakeSlot() {
		answer = probeFull
	}
	_, _ = io.WriteString(c.TCPConn, answer)
}
