//go:build linux

package scene

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/internal/netlab"
)

// Router plays what a home router has before anybody adds to it: a resolver on
// port 53 that knows the leases and forwards the rest, and a lease file.
type Router struct {
	Host   *netlab.Host
	Leases []Persona
}

// WriteLeases writes the lease file in dnsmasq's form.
func (r *Router) WriteLeases(path string) error {
	var b strings.Builder
	until := time.Now().Add(12 * time.Hour).Unix()
	for _, p := range r.Leases {
		fmt.Fprintf(&b, "%d %s %s %s *\n", until, p.MAC, r.addr(p), p.Host)
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

func (r *Router) addr(p Persona) netip.Addr {
	a := netlab.RouterLAN4.Addr().As4()
	if p.Guest {
		a = netlab.RouterGuest4.Addr().As4()
	}
	a[3] = byte(p.Number)
	return netip.AddrFrom4(a)
}

// Run answers on port 53 of the router until ctx ends.
func (r *Router) Run(ctx context.Context, ready func()) error {
	g, ctx := errgroup.WithContext(ctx)
	if err := r.Host.Do(func() error { return ServeDNS(ctx, g, dns.HandlerFunc(r.answer)) }); err != nil {
		return fmt.Errorf("the router's own resolver: %w", err)
	}
	ready()
	return g.Wait()
}

func (r *Router) answer(w dns.ResponseWriter, q *dns.Msg) {
	if len(q.Question) == 1 {
		for _, p := range r.Leases {
			if strings.EqualFold(q.Question[0].Name, p.Host+".lan.") && q.Question[0].Qtype == dns.TypeA {
				m := new(dns.Msg).SetReply(q)
				m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: r.addr(p).AsSlice()}}
				_ = w.WriteMsg(m)
				return
			}
		}
	}
	m, err := r.forward(q)
	if err != nil {
		m = new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
	}
	_ = w.WriteMsg(m)
}

func (r *Router) forward(q *dns.Msg) (*dns.Msg, error) {
	if len(q.Question) != 1 {
		return new(dns.Msg).SetRcode(q, dns.RcodeFormatError), nil
	}
	name, err := dnsname.Parse(q.Question[0].Name)
	if err != nil {
		return nil, err
	}
	var c net.Conn
	err = r.Host.Do(func() (err error) {
		if c, err = net.Dial("udp", netip.AddrPortFrom(ProviderDNS, 53).String()); err != nil { // a house without IPv4
			c, err = net.Dial("udp", netip.AddrPortFrom(ProviderDNS6, 53).String())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	m, err := Exchange(c, name, q.Question[0].Qtype)
	if err != nil {
		return nil, err
	}
	m.Id = q.Id
	return m, nil
}
