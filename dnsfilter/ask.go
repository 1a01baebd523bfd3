package dnsfilter

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"github.com/miekg/dns"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// Errors of LookUp.
var (
	errOfHouse  = errors.New("a name of the house is reached without a proxy")
	errNoAnswer = errors.New("no address was found, or none that may be reached")
)

// LookUp gives the addresses of a public name as client would have got them, had it
// asked itself: judged for it, recorded as its own, taught and cached. Without one it
// is an error.
func (s *Server) LookUp(ctx context.Context, client netip.Addr, name dnsname.Name) (addrs []netip.Addr, err error) {
	f := s.world.Load()
	if f == nil {
		return nil, errNoAnswer
	}
	if s.zones.isLocal(name) || s.zones.isPrivate(name) {
		return nil, errOfHouse
	}
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		q := new(dns.Msg).SetQuestion(dns.Fqdn(string(name)), qtype)
		w := &insider{client: client}
		if _, err := f.ServeDNS(ctx, w, q); err != nil {
			return nil, err
		}
		if w.answer == nil {
			continue
		}
		for _, rr := range w.answer.Answer {
			switch rr.(type) {
			case *dns.A, *dns.AAAA:
				for a := range addrsOf(rr) {
					if !a.IsUnspecified() { // the shape of a blocked answer, perhaps
						addrs = append(addrs, a)
					}
				}
			}
		}
	}
	if len(addrs) == 0 {
		return nil, errNoAnswer
	}
	return addrs, nil
}

// insider is a dns.ResponseWriter for questions that come from this process.
type insider struct {
	client netip.Addr
	answer *dns.Msg
}

func (w *insider) LocalAddr() net.Addr { return &net.UDPAddr{} }
func (w *insider) RemoteAddr() net.Addr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(w.client, 0))
}
func (w *insider) WriteMsg(m *dns.Msg) error   { w.answer = m; return nil }
func (w *insider) Write(b []byte) (int, error) { return len(b), nil }
func (w *insider) Close() error                { return nil }
func (w *insider) TsigStatus() error           { return nil }
func (w *insider) TsigTimersOnly(bool)         {}
func (w *insider) Hijack()                     {}
