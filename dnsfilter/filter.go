package dnsfilter

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/miekg/dns"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
)

// filter is the plugin: one Server in one CoreDNS chain.
type filter struct {
	*Server
	next plugin.Handler
}

var _ plugin.Handler = (*filter)(nil)

// Name implements plugin.Handler.
func (f *filter) Name() string { return "dnsfilter" }

// ServeDNS implements plugin.Handler. It always writes the answer itself or lets
// the chain below write it, so it always returns success: a returned REFUSED or
// SERVFAIL would make CoreDNS send a second reply. Only a hurried question may be
// left without an answer; the same will come again, with time.
func (f *filter) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	v := visitorOf(w)
	if v != nil && v.judged != nil {
		l := v.judged
		l.filter, l.w, l.r = f, w, r
		return f.done(l.settle(ctx))
	}
	if len(r.Question) != 1 || r.Opcode != dns.OpcodeQuery {
		return f.refuse(w, r, dns.RcodeNotImplemented, dns.ExtendedErrorCodeNotSupported, "one question is answered at a time")
	}
	q := r.Question[0]
	if len(q.Name) == len(f.probe) && lower(q.Name) == f.probe {
		return f.answerProbe(w, r)
	}
	client := clientAddr(w)
	device, known := f.device(client)
	if !mayAsk(client, known) {
		return f.refuse(w, r, dns.RcodeRefused, dns.ExtendedErrorCodeProhibited, "only this household is answered")
	}
	if q.Qclass != dns.ClassINET || q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR {
		// Nobody in a house needs them, and an upstream has no business seeing them.
		return f.refuse(w, r, dns.RcodeRefused, dns.ExtendedErrorCodeNotSupported, "only the internet class, and no zone transfers")
	}
	name, err := dnsname.Parse(q.Name)
	if err != nil {
		// Policy cannot judge what has no normal form, and must not be dodged by it.
		return f.refuse(w, r, dns.RcodeRefused, dns.ExtendedErrorCodeOther, "the name is too long once written out")
	}
	if isHurried(w) && f.chains.isOfHouse(f.zones, name) {
		return dns.RcodeSuccess, nil // another chain's
	}
	l := &lookup{filter: f, w: w, r: r, q: q, name: name, client: client, start: f.cfg.Now(), device: device}
	l.judge()
	if v != nil {
		v.judged = l
	}
	return f.done(l.settle(ctx))
}

// done ends a look-up for CoreDNS.
func (f *filter) done(err error) (int, error) {
	if err != nil {
		// Not returned: CoreDNS would write it, with the name, to standard error.
		f.log.Debug("answering a look-up", "err", err)
	}
	return dns.RcodeSuccess, nil
}

func (f *filter) refuse(w dns.ResponseWriter, r *dns.Msg, rcode int, code uint16, why string) (int, error) {
	f.metrics.lookups.WithLabelValues("refused", "").Inc()
	m := reply(r, rcode)
	explain(m, r, code, why)
	if err := w.WriteMsg(m); err != nil {
		f.log.Debug("refusing a look-up", "err", err)
	}
	return dns.RcodeSuccess, nil
}

// device is who asks from client. A client that nobody knows is judged as a
// device without kind or mode, known by its address.
func (f *filter) device(client netip.Addr) (d devices.Device, known bool) {
	if d, ok := f.cfg.Devices.ByAddr(client); ok {
		return d, true
	}
	if f.cfg.Resolve != nil {
		if d, ok := f.cfg.Resolve(client); ok {
			return d, true
		}
	}
	return devices.Device{ID: devices.ID(client.String())}, false
}

func (s *Server) describe(n dnsname.Name) atlas.Destination {
	if s.cfg.Describe == nil {
		return atlas.Destination{}
	}
	return s.cfg.Describe(n)
}

// lookup is one question on its way through the filter.
type lookup struct {
	*filter
	w      dns.ResponseWriter
	r      *dns.Msg
	q      dns.Question
	name   dnsname.Name
	client netip.Addr
	start  time.Time
	device devices.Device
	dest   atlas.Destination

	verdict policy.Verdict
	from    *lookup // the question before it, of one that a rewriting rule led here
}

// judge asks policy. A device whose mode is off is neither filtered nor seen.
func (l *lookup) judge() {
	if l.device.Mode != devices.ModeOff {
		l.dest = l.describe(l.name)
		l.verdict = l.decide(policy.LayerDNS, l.name, l.q.Qtype, netip.Addr{})
	}
}

// settle does what the verdict says.
func (l *lookup) settle(ctx context.Context) error {
	if l.device.Mode == devices.ModeOff {
		if rcode, _ := l.pass(ctx, l.w); !plugin.ClientWrite(rcode) {
			return l.w.WriteMsg(l.unanswered())
		}
		return nil
	}
	v := l.verdict
	switch {
	case v.Action == policy.Block:
		return l.write(l.blocked(v), v, policy.LayerDNS)
	case l.q.Qtype == dns.TypeANY:
		return l.write(minimalANY(l.r), v, policy.LayerDNS)
	case v.Action == policy.Rewrite:
		return l.rewrite(ctx, v)
	case !l.cfg.LocalResolver.IsValid() && l.zones.isPrivate(l.name):
		return l.write(negative(l.r, dns.RcodeNameError, l.name.Parent(), l.cfg.BlockTTL), v, policy.LayerDNS)
	}
	tap := &answerTap{ResponseWriter: l.w, lookup: l, verdict: v}
	rcode, err := l.pass(ctx, tap)
	if tap.wrote || plugin.ClientWrite(rcode) {
		return nil
	}
	if err != nil {
		l.log.Debug("no upstream answered", "name", l.name, "err", err)
	}
	return l.write(l.unanswered(), v, policy.LayerDNS)
}

// unanswered is the reply when nobody below could give one.
func (l *lookup) unanswered() *dns.Msg {
	m := reply(l.r, dns.RcodeServerFailure)
	explain(m, l.r, dns.ExtendedErrorCodeNoReachableAuthority, "no upstream resolver answered")
	return m
}

// pass hands the question to the rest of the chain, without the options that
// are meant for us alone: client subnet, cookies, padding (RFC 6891 §6.1.1).
func (l *lookup) pass(ctx context.Context, w dns.ResponseWriter) (int, error) {
	return plugin.NextOrFailure(l.Name(), l.next, ctx, w, withoutOptions(l.r))
}

func (l *lookup) decide(layer policy.Layer, name dnsname.Name, qtype uint16, addr netip.Addr) policy.Verdict {
	return l.cfg.Decider.Decide(policy.Query{
		Layer: layer, Now: l.start,
		Device: l.device.ID, Kind: l.device.Kind, Mode: l.device.Mode,
		Name: name, Asked: l.name, Type: qtype, Addr: addr,
		ClientAddr: l.client, ClientMAC: macOf(l.device), ClientName: l.device.Name,
	})
}

// macOf is the hardware address that lists know a device by.
func macOf(d devices.Device) (m devices.MAC) {
	if len(d.MACs) > 0 {
		m = d.MACs[0]
	}
	return m
}

// write records m and sends it: whoever has the answer finds it in the journal.
func (l *lookup) write(m *dns.Msg, v policy.Verdict, layer policy.Layer) error {
	if l.from != nil {
		return l.from.led(l, m, v, layer)
	}
	l.tell(m.Rcode, v, layer)
	return l.w.WriteMsg(m)
}

func (l *lookup) tell(rcode int, v policy.Verdict, layer policy.Layer) {
	took := l.cfg.Now().Sub(l.start)
	l.metrics.observe(v, layer, rcode, took)
	if l.cfg.Recorder == nil {
		return
	}
	redirected := l.redirected()
	if redirected && l.device.ID != "" && l.doors.first(l.device.ID, l.start) {
		l.cfg.Recorder.Record(journal.Entry{At: l.start, Device: l.device.ID, Log: l.device.Log, Event: &journal.Event{
			Kind: journal.EventSideDoor, Subject: "resolver of its own", Text: "It asks a resolver that is built into it, past the router. Its look-ups are answered here instead.",
		}})
	}
	l.cfg.Recorder.Record(journal.Entry{
		At: l.start, Device: l.device.ID, Log: l.device.Log,
		Lookup: &journal.Lookup{
			Name: l.name, Type: l.q.Qtype, Rcode: rcode, Verdict: v,
			Destination: l.dest, Redirected: redirected,
		},
	})
}

// redirected reports whether the kernel brought this look-up from another
// resolver's address: it came in on the port for those. Of TCP it cannot be told,
// for what is sent to the router itself comes in there, too.
func (l *lookup) redirected() bool {
	if _, udp := l.w.LocalAddr().(*net.UDPAddr); !udp {
		return false
	}
	return l.cfg.RedirectPort != 0 && addrPort(l.w.LocalAddr()).Port() == l.cfg.RedirectPort
}

// doors remembers which devices were told of lately: a rare event is told once a day.
type doors struct {
	mu   sync.Mutex
	told map[devices.ID]time.Time
}

// first reports whether id was not told of within a day before now.
func (d *doors) first(id devices.ID, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now.Sub(d.told[id]).Abs() < 24*time.Hour {
		return false
	}
	if d.told == nil || len(d.told) >= 1000 { // somebody invents devices
		d.told = make(map[devices.ID]time.Time)
	}
	d.told[id] = now
	return true
}

func clientAddr(w dns.ResponseWriter) netip.Addr {
	return addrPort(w.RemoteAddr()).Addr().Unmap().WithZone("")
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *visitor:
		return addrPort(a.Unwrap())
	case *net.UDPAddr:
		return a.AddrPort()
	case *net.TCPAddr:
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

// lower is strings.ToLower for ASCII, which names on the wire are.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
