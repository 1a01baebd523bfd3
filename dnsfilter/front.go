package dnsfilter

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// front is the UDP socket that CoreDNS reads from. A look-up that nothing has to be
// waited for, because it is blocked or the cache has its answer, is answered in the
// loop that receives, by the same filter and the same cache: CoreDNS would give each
// its own goroutine, which costs more than all that happens in it. What must wait,
// and whatever is out of the ordinary, CoreDNS gets to read.
type front struct {
	*net.UDPConn
	server *Server
	reply  []byte // one answer in the making: one goroutine reads
}

func newFront(c *net.UDPConn, s *Server) (*front, error) {
	// Who asked one of several addresses must be answered from that one. A socket
	// has one family or both.
	err6 := ipv6.NewPacketConn(c).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
	err4 := ipv4.NewPacketConn(c).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
	if err6 != nil && err4 != nil {
		return nil, fmt.Errorf("asking for the address that is asked: %w", err4)
	}
	return &front{UDPConn: c, server: s, reply: make([]byte, 4096)}, nil
}

// ReadFrom implements net.PacketConn. It is called by one goroutine at a time.
func (f *front) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		n, session, err := dns.ReadFromSessionUDP(f.UDPConn, p)
		if err != nil {
			return 0, nil, err
		}
		v := &visitor{session: session, hurried: true}
		if !f.answer(v, p[:n]) {
			v.hurried = false
			return n, v, nil
		}
	}
}

// WriteTo implements net.PacketConn for whom ReadFrom gave.
func (f *front) WriteTo(p []byte, to net.Addr) (int, error) {
	v, ok := to.(*visitor)
	if !ok {
		return 0, fmt.Errorf("%s asked nothing here", to)
	}
	return dns.WriteToSessionUDP(f.UDPConn, p, v.session)
}

// answer answers one packet if that can be done at once.
func (f *front) answer(v *visitor, packet []byte) (done bool) {
	world := f.server.world.Load()
	if world == nil || !ordinary(packet) {
		return false
	}
	r := new(dns.Msg)
	if r.Unpack(packet) != nil || len(r.Question) != 1 { // the header may say more than there is
		return false
	}
	// CoreDNS answers versions that nobody knows.
	if o := r.IsEdns0(); o == nil && len(r.Extra) > 0 || o != nil && o.Version() != 0 {
		return false
	}
	w := &hurriedWriter{front: f, to: v}
	defer func() {
		if p := recover(); p != nil { // CoreDNS survives it, too; the second time it is its own
			f.server.log.Error("answering a look-up", "panic", p)
			done = w.wrote
		}
	}()
	if _, err := world.ServeDNS(context.Background(), request.NewScrubWriter(r, w), r); err != nil {
		return false
	}
	return w.wrote
}

// ordinary reports whether a packet is a query with one question and at most one
// further record, by its header alone (RFC 1035 §4.1.1).
func ordinary(packet []byte) bool {
	const response, opcode = 0x80, 0x78
	return len(packet) >= 12 && packet[2]&(response|opcode) == 0 &&
		binary.BigEndian.Uint64(packet[4:12])&^1 == 1<<48
}

// visitor is the address of who asks by UDP, and what is known of its question.
type visitor struct {
	session *dns.SessionUDP
	hurried bool    // nothing may be waited for
	judged  *lookup // once policy was asked: it counts what it is asked
}

// Unwrap is how CoreDNS finds the address itself.
func (v *visitor) Unwrap() net.Addr { return v.session.RemoteAddr() }
func (v *visitor) Network() string  { return v.Unwrap().Network() }
func (v *visitor) String() string   { return v.Unwrap().String() }

// visitorOf is nil for who did not come by UDP.
func visitorOf(w dns.ResponseWriter) *visitor {
	v, _ := w.RemoteAddr().(*visitor)
	return v
}

func isHurried(w dns.ResponseWriter) bool {
	v := visitorOf(w)
	return v != nil && v.hurried
}

// hurriedWriter writes from the loop that receives.
type hurriedWriter struct {
	dns.ResponseWriter // nil: nobody calls the rest
	front              *front
	to                 *visitor
	wrote              bool
}

func (w *hurriedWriter) LocalAddr() net.Addr  { return w.front.LocalAddr() }
func (w *hurriedWriter) RemoteAddr() net.Addr { return w.to }
func (w *hurriedWriter) WriteMsg(m *dns.Msg) error {
	w.wrote = true
	b, err := m.PackBuffer(w.front.reply)
	if err == nil {
		_, err = w.front.WriteTo(b, w.to)
	}
	return err
}

// waiting is the plugin between the cache and what must be waited for: a hurried
// question ends here, without an answer.
type waiting struct{ next plugin.Handler }

func (waiting) Name() string { return "waiting" }

func (p waiting) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	if isHurried(w) {
		return dns.RcodeSuccess, nil // which the cache does not keep
	}
	return plugin.NextOrFailure(p.Name(), p.next, ctx, w, r)
}
