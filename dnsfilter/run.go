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

	"github.com/coredns/caddy"
	"github.com/miekg/dns"
)

// Run serves until ctx is cancelled, then closes its sockets and returns nil. A
// port that somebody else holds is an error before anything is answered.
func (s *Server) Run(ctx context.Context) error {
	// CoreDNS shares ports with whoever shares them, ourselves in a second
	// process included, and leaks the sockets it opened when a later one fails.
	if err := s.free(ctx); err != nil {
		return err
	}
	key, leave := enter(s)
	defer leave()
	text, err := corefile(s.cfg, key)
	if err != nil {
		return err
	}
	inst, err := caddy.Start(caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(text), ServerTypeName: "dns"})
	if err != nil {
		return errors.Join(fmt.Errorf("starting the DNS server: %w", err), errors.Join(inst.ShutdownCallbacks()...))
	}
	s.log.Info("answering look-ups", "port", s.cfg.Port, "redirect_port", s.cfg.RedirectPort, "upstreams", len(s.cfg.Upstreams))
	<-ctx.Done()
	errs := inst.ShutdownCallbacks()
	errs = append(errs, inst.Stop())
	inst.Wait()
	if err := errors.Join(errs...); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("stopping the DNS server: %w", err)
	}
	return nil
}

// free reports the first of our ports that cannot be had.
func (s *Server) free(ctx context.Context) error {
	var lc net.ListenConfig
	for _, hp := range s.endpoints() {
		l, err := lc.Listen(ctx, "tcp", hp)
		if err != nil {
			return fmt.Errorf("listening for look-ups: %w", err)
		}
		p, err := lc.ListenPacket(ctx, "udp", hp)
		if err := errors.Join(err, l.Close()); err != nil {
			return fmt.Errorf("listening for look-ups: %w", err)
		}
		if err := p.Close(); err != nil {
			return err
		}
	}
	return nil
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
