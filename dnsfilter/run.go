package dnsfilter

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// Run serves until ctx is cancelled, then closes its sockets and returns nil. A
// port that somebody else holds is an error before anything is answered.
func (s *Server) Run(ctx context.Context) error {
	key, leave := enter(s)
	defer leave()
	text, err := corefile(s.cfg, key)
	if err != nil {
		return err
	}
	inst, servers, err := s.assemble(text)
	if err != nil {
		return fmt.Errorf("making the DNS server: %w", err)
	}
	sockets, err := s.listen(ctx, servers)
	if err != nil {
		return err
	}
	for _, start := range slices.Concat(inst.OnFirstStartup, inst.OnStartup) {
		if err := start(); err != nil {
			sockets.close()
			return fmt.Errorf("starting the DNS server: %w", errors.Join(append(inst.ShutdownCallbacks(), err)...))
		}
	}
	g, failed := errgroup.WithContext(ctx)
	for i, server := range servers {
		g.Go(func() error { return server.Serve(sockets.tcp[i]) })
		g.Go(func() error { return server.ServePacket(sockets.udp[i]) })
	}
	s.log.Info("answering look-ups", "port", s.cfg.Port, "redirect_port", s.cfg.RedirectPort, "upstreams", len(s.cfg.Upstreams))
	<-failed.Done()
	errs := inst.ShutdownCallbacks()
	for _, server := range servers {
		errs = append(errs, server.Stop())
	}
	sockets.close() // of a server that was stopped before it began
	if err := g.Wait(); err != nil && !(ctx.Err() != nil && errors.Is(err, net.ErrClosed)) {
		errs = append(errs, fmt.Errorf("serving: %w", err))
	}
	if err := errors.Join(errs...); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the DNS server ended: %w", err)
	}
	return nil
}

// sockets are those of each server.
type sockets struct {
	tcp []net.Listener
	udp []*front
}

func (s *sockets) close() {
	for _, l := range s.tcp {
		_ = l.Close()
	}
	for _, u := range s.udp {
		_ = u.Close()
	}
}

// listen opens all sockets, or none.
func (s *Server) listen(ctx context.Context, servers []*dnsserver.Server) (all sockets, err error) {
	defer func() {
		if err != nil {
			all.close()
			err = fmt.Errorf("listening for look-ups: %w", err)
		}
	}()
	var lc net.ListenConfig
	for _, server := range servers {
		at := strings.TrimPrefix(server.Address(), "dns://")
		l, err := lc.Listen(ctx, "tcp", at)
		if err != nil {
			return all, err
		}
		all.tcp = append(all.tcp, l)
		p, err := lc.ListenPacket(ctx, "udp", at)
		if err != nil {
			return all, err
		}
		u, err := newFront(p.(*net.UDPConn), s)
		if err != nil {
			return all, errors.Join(err, p.Close())
		}
		all.udp = append(all.udp, u)
	}
	return all, nil
}

func (s *Server) endpoints() []string {
	var out []string
	for _, a := range s.cfg.Listen {
		out = append(out, netip.AddrPortFrom(a, s.cfg.Port).String())
		if s.cfg.RedirectPort != 0 {
			out = append(out, netip.AddrPortFrom(a, s.cfg.RedirectPort).String())
		}
	}
	return out
}

// Probe makes a real look-up through each of our own listeners, UDP and TCP,
// and waits for the answers. It proves that questions are read, filtered and
// answered here; nothing upstream is asked.
func (s *Server) Probe(ctx context.Context) error {
	for _, hp := range s.endpoints() {
		for _, network := range []string{"udp", "tcp"} {
			q := new(dns.Msg).SetQuestion(s.probe, dns.TypeTXT)
			a, err := exchange(ctx, network, toLoopback(hp), q, nil)
			if err != nil {
				return fmt.Errorf("look-up through our own listener %s/%s: %w", hp, network, err)
			}
			if a.Rcode != dns.RcodeSuccess || len(a.Answer) != 1 {
				return fmt.Errorf("look-up through our own listener %s/%s: answered by somebody else", hp, network)
			}
		}
	}
	return nil
}

// toLoopback is where to reach a listener from this machine.
func toLoopback(hp string) string {
	host, port, _ := net.SplitHostPort(hp)
	switch host {
	case "0.0.0.0":
		host = "127.0.0.1"
	case "::":
		host = "127.0.0.1" // a socket at :: takes both families
	}
	return net.JoinHostPort(host, port)
}

func (f *filter) answerProbe(w dns.ResponseWriter, r *dns.Msg) (int, error) {
	m := reply(r, dns.RcodeSuccess)
	m.Answer = []dns.RR{&dns.TXT{
		Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET},
		Txt: []string{"netcurtain"},
	}}
	return dns.RcodeSuccess, w.WriteMsg(m)
}

// Upstream asks every upstream for the root's name servers, at the same time,
// and returns nil as soon as one gives a usable answer.
func (s *Server) Upstream(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	results := make(chan error, len(s.cfg.Upstreams))
	for _, u := range s.cfg.Upstreams {
		go func() { results <- s.askUpstream(ctx, u) }()
	}
	var errs []error
	for range s.cfg.Upstreams {
		err := <-results
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Local asks the router's own resolver what Upstream asks the upstreams. It is
// an error when there is none, or when it is itself one of the upstreams.
func (s *Server) Local(ctx context.Context) error {
	local := Upstream{Addr: s.cfg.LocalResolver}
	if !local.Addr.IsValid() {
		return errors.New("the router has no resolver of its own that we know of")
	}
	if slices.Contains(s.cfg.Upstreams, local) {
		return fmt.Errorf("the router's own resolver %s is the upstream itself", local)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return s.askUpstream(ctx, local)
}

func (s *Server) askUpstream(ctx context.Context, u Upstream) error {
	network := "udp"
	if u.TLS {
		network = "tcp-tls"
	}
	q := new(dns.Msg).SetQuestion(".", dns.TypeNS)
	a, err := exchange(ctx, network, u.Addr.String(), q, &u)
	if err != nil {
		return fmt.Errorf("upstream %s: %w", u, err)
	}
	if a.Rcode == dns.RcodeServerFailure || a.Rcode == dns.RcodeRefused {
		return fmt.Errorf("upstream %s answers %s", u, strings.ToLower(dns.RcodeToString[a.Rcode]))
	}
	return nil
}

func exchange(ctx context.Context, network, addr string, q *dns.Msg, u *Upstream) (*dns.Msg, error) {
	c := &dns.Client{Net: network, Timeout: 2 * time.Second}
	if u != nil && u.TLS {
		// A slow router needs its time for a handshake, and more for the first one,
		// when it reads the certificates of all authorities.
		c.Timeout = 5 * time.Second
		c.TLSConfig = u.tlsConfig()
	}
	conn, err := c.DialContext(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// The client's own timeout knows nothing of ctx; closing the socket ends it.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	a, _, err := c.ExchangeWithConnContext(ctx, q, conn)
	return a, err
}
