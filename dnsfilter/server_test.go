package dnsfilter

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
)

// deciderFunc decides as the test says; a real policy.Set is tested in its own room.
type deciderFunc func(policy.Query) policy.Verdict

func (f deciderFunc) Decide(q policy.Query) policy.Verdict { return f(q) }

// blocking blocks the given names and all below, at any layer, and private
// addresses in answers.
func blocking(names ...dnsname.Name) deciderFunc {
	return func(q policy.Query) policy.Verdict {
		v := policy.Verdict{}
		if q.Layer == policy.LayerAnswer && q.Addr.IsValid() {
			if q.Addr.IsPrivate() || q.Addr.IsLoopback() {
				v = policy.Verdict{Action: policy.Block, Reason: policy.ReasonRebinding, Rule: q.Addr.String(), List: "household"}
			}
			return v
		}
		for _, n := range names {
			if q.Name.IsAtOrBelow(n) {
				v = policy.Verdict{Action: policy.Block, Reason: policy.ReasonList, Rule: "||" + string(n) + "^", List: "starter"}
				if q.Layer == policy.LayerAnswer {
					v.Reason = policy.ReasonCloaking
				}
				if q.Mode == devices.ModeWatch {
					v.Action, v.Noted = policy.Allow, true
				}
			}
		}
		return v
	}
}

type devicesFunc func(netip.Addr) (devices.Device, bool)

func (f devicesFunc) ByAddr(a netip.Addr) (devices.Device, bool) { return f(a) }

// journalled keeps what was recorded and learned.
type journalled struct {
	mu      sync.Mutex
	entries []journal.Entry
	learned []string
}

func (j *journalled) Record(e journal.Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, e)
}

func (j *journalled) Learn(d devices.ID, n dnsname.Name, a netip.Addr, ttl time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.learned = append(j.learned, fmt.Sprintf("%s %s %s %s", d, n, a, ttl))
}

func (j *journalled) last(t *testing.T) journal.Entry {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.entries) == 0 {
		t.Fatal("nothing was recorded")
	}
	return j.entries[len(j.entries)-1]
}

func (j *journalled) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.entries)
}

// upstream is a real DNS server that answers from a zone of records.
type upstream struct {
	addr netip.AddrPort
	seen atomic.Int64
	zone map[string][]string // "name TYPE" → records
	mu   sync.Mutex          // guards what follows
	last *dns.Msg
	hold chan struct{} // nil, or answers wait until it is closed
}

func startUpstream(t testing.TB, zone map[string][]string) *upstream {
	t.Helper()
	u := &upstream{zone: zone}
	l, p := listen(t)
	u.addr = netip.MustParseAddrPort(l.Addr().String())
	for _, s := range []*dns.Server{{Listener: l, Handler: u}, {PacketConn: p, Handler: u}} {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go s.ActivateAndServe()
		<-up
		t.Cleanup(func() { s.Shutdown() })
	}
	return u
}

func (u *upstream) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	u.seen.Add(1)
	u.mu.Lock()
	u.last = r.Copy()
	hold := u.hold
	u.mu.Unlock()
	if hold != nil {
		<-hold
	}
	m := new(dns.Msg).SetReply(r)
	m.RecursionAvailable = true
	key := strings.ToLower(r.Question[0].Name) + " " + dns.TypeToString[r.Question[0].Qtype]
	rrs, ok := u.zone[key]
	if !ok {
		m.Rcode = dns.RcodeNameError
	}
	for _, s := range rrs {
		rr, err := dns.NewRR(s)
		if err != nil {
			panic(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	if _, ok := w.RemoteAddr().(*net.UDPAddr); ok {
		size := dns.MinMsgSize
		if o := r.IsEdns0(); o != nil {
			size = int(o.UDPSize())
		}
		m.Truncate(size)
	}
	w.WriteMsg(m)
}

func (u *upstream) lastQuery() *dns.Msg {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.last
}

// patient is how long what must come may take: on two processors that all the tests
// share, half a minute of work may stand before it. Nobody waits so long for what comes.
const patient = time.Minute

// listen takes a port for TCP and UDP, one that the kernel gives to nobody by itself:
// it takes those from 32768 on.
func listen(t testing.TB) (net.Listener, net.PacketConn) {
	t.Helper()
	for range 10_000 {
		at := fmt.Sprintf("127.0.0.1:%d", 10_000+(uint32(os.Getpid())*131+lastPort.Add(1))%20_000)
		l, err := net.Listen("tcp", at)
		if err != nil {
			continue
		}
		if p, err := net.ListenPacket("udp", at); err == nil {
			return l, p
		}
		l.Close()
	}
	t.Fatal("no port is free")
	return nil, nil
}

var lastPort atomic.Uint32

// freePort gives a port that nobody has.
func freePort(t testing.TB) uint16 {
	t.Helper()
	l, p := listen(t)
	l.Close()
	p.Close()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

// house is a running server for tests.
type house struct {
	*Server
	*journalled
	cfg  Config
	stop func()
}

func newHouse(t testing.TB, change func(*Config)) *house {
	t.Helper()
	j := &journalled{}
	cfg := Config{
		Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")},
		Port:   freePort(t), RedirectPort: freePort(t),
		Devices: devicesFunc(func(netip.Addr) (devices.Device, bool) {
			return devices.Device{ID: "tv", Kind: devices.KindTV, Mode: devices.ModeProtect, Log: devices.LogNames}, true
		}),
		Decider:  blocking("tracker.example"),
		Names:    j,
		Recorder: j,
		Describe: func(n dnsname.Name) atlas.Destination {
			if n.IsAtOrBelow("tracker.example") {
				return atlas.Destination{Organisation: "Tracker Ltd"}
			}
			return atlas.Destination{}
		},
		Registerer: prometheus.NewPedanticRegistry(),
	}
	change(&cfg)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h := &house{Server: s, journalled: j, cfg: cfg}
	h.stop = run(t, s)
	return h
}

// run starts s, waits until it answers, and gives what stops it.
func run(t testing.TB, s *Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	deadline := time.Now().Add(patient)
	for s.Probe(t.Context()) != nil {
		if time.Now().After(deadline) {
			t.Fatalf("the server does not answer: %v", s.Probe(t.Context()))
		}
		time.Sleep(5 * time.Millisecond)
	}
	return stop
}

// ask sends one question with EDNS and gives the answer.
func (h *house) ask(t *testing.T, network, name string, qtype uint16) *dns.Msg {
	t.Helper()
	return h.askAt(t, network, h.cfg.Port, query(name, qtype))
}

func (h *house) askAt(t *testing.T, network string, port uint16, q *dns.Msg) *dns.Msg {
	t.Helper()
	c := &dns.Client{Net: network, Timeout: patient}
	m, _, err := c.Exchange(q, netip.AddrPortFrom(h.cfg.Listen[0], port).String())
	if err != nil {
		t.Fatalf("%s %s: %v", network, q.Question[0].Name, err)
	}
	return m
}

func query(name string, qtype uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(name, qtype).SetEdns0(1232, false)
}

// ede gives the Extended DNS Error of m as "code text".
func ede(m *dns.Msg) string {
	if o := m.IsEdns0(); o != nil {
		for _, e := range o.Option {
			if e, ok := e.(*dns.EDNS0_EDE); ok {
				return fmt.Sprintf("%d %s", e.InfoCode, e.ExtraText)
			}
		}
	}
	return ""
}

func short(m *dns.Msg) string {
	var b strings.Builder
	b.WriteString(dns.RcodeToString[m.Rcode])
	for _, rr := range m.Answer {
		f := strings.Fields(rr.String())
		fmt.Fprintf(&b, " | %s", strings.Join(f[3:], " "))
	}
	return b.String()
}

func plainUpstream(u *upstream) func(*Config) {
	return func(c *Config) { c.Upstreams = []Upstream{{Addr: u.addr}} }
}

var testZone = map[string][]string{
	"good.example. A":       {"good.example. 300 IN A 192.0.2.7"},
	"good.example. AAAA":    {"good.example. 300 IN AAAA 2001:db8::7"},
	"cloaked.example. A":    {"cloaked.example. 60 IN CNAME x.tracker.example.", "x.tracker.example. 60 IN A 192.0.2.8"},
	"rebind.example. A":     {"rebind.example. 60 IN A 192.168.1.1"},
	"hint.example. HTTPS":   {"hint.example. 60 IN HTTPS 1 . alpn=h2 ipv4hint=10.0.0.1"},
	"hint6.example. HTTPS":  {"hint6.example. 60 IN HTTPS 1 . ipv6hint=::1"},
	"alias.example. HTTPS":  {"alias.example. 60 IN HTTPS 0 svc.tracker.example."},
	"fine.example. HTTPS":   {"fine.example. 60 IN HTTPS 1 . alpn=h3 ipv4hint=192.0.2.9"},
	"nas.lan. A":            {"nas.lan. 60 IN A 192.168.77.9"},
	"big.example. TXT":      bigTXT("big.example."),
	". NS":                  {". 60 IN NS a.root.example."},
	"_dns.good.example. NS": nil,
}

func bigTXT(name string) []string {
	var out []string
	for i := range 20 {
		out = append(out, fmt.Sprintf("%s 60 IN TXT \"%d %s\"", name, i, strings.Repeat("x", 150)))
	}
	return out
}

func TestQuestionsThroughTheWholeServer(t *testing.T) {
	u := startUpstream(t, testZone)
	h := newHouse(t, plainUpstream(u))
	for _, c := range []struct {
		name, qtype string
		want        string // rcode and answer
		ede         string
		action      policy.Action
		reason      policy.Reason
	}{
		{"good.example.", "A", "NOERROR | A 192.0.2.7", "", policy.Undecided, 0},
		{"GOOD.example.", "AAAA", "NOERROR | AAAA 2001:db8::7", "", policy.Undecided, 0},
		{"none.example.", "A", "NXDOMAIN", "", policy.Undecided, 0},
		{"tracker.example.", "A", "NXDOMAIN", "15 list; list starter; rule ||tracker.example^", policy.Block, policy.ReasonList},
		{"a.B.TRACKER.example.", "HTTPS", "NXDOMAIN", "15 list; list starter; rule ||tracker.example^", policy.Block, policy.ReasonList},
		{"tracker.example.", "ANY", "NXDOMAIN", "15 list; list starter; rule ||tracker.example^", policy.Block, policy.ReasonList},
		{"good.example.", "ANY", `NOERROR | HINFO "RFC8482" ""`, "", policy.Undecided, 0},
		{"cloaked.example.", "A", "NXDOMAIN", "15 cloaking; list starter; rule ||tracker.example^", policy.Block, policy.ReasonCloaking},
		{"rebind.example.", "A", "NXDOMAIN", "15 rebinding; list household; rule 192.168.1.1", policy.Block, policy.ReasonRebinding},
		{"hint.example.", "HTTPS", "NXDOMAIN", "15 rebinding; list household; rule 10.0.0.1", policy.Block, policy.ReasonRebinding},
		{"hint6.example.", "HTTPS", "NXDOMAIN", "15 rebinding; list household; rule ::1", policy.Block, policy.ReasonRebinding},
		{"alias.example.", "HTTPS", "NXDOMAIN", "15 cloaking; list starter; rule ||tracker.example^", policy.Block, policy.ReasonCloaking},
		{"fine.example.", "HTTPS", `NOERROR | HTTPS 1 . alpn="h3" ipv4hint="192.0.2.9"`, "", policy.Undecided, 0},
		{"1.1.168.192.in-addr.arpa.", "PTR", "NXDOMAIN", "", policy.Undecided, 0},
	} {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(c.name+" "+c.qtype+" "+network, func(t *testing.T) {
				before := h.count()
				m := h.ask(t, network, c.name, dns.StringToType[c.qtype])
				if got := short(m); got != c.want {
					t.Errorf("answer %q, want %q", got, c.want)
				}
				if got := ede(m); got != c.ede {
					t.Errorf("extended error %q, want %q", got, c.ede)
				}
				if m.Question[0].Name != c.name {
					t.Errorf("the question came back as %q", m.Question[0].Name)
				}
				if m.Rcode == dns.RcodeNameError && c.action == policy.Block && len(m.Ns) != 1 {
					t.Errorf("blocked without an SOA: %v", m.Ns)
				}
				if got := h.count() - before; got != 1 {
					t.Errorf("recorded %d times, want once", got)
				}
				e := h.last(t)
				if e.Device != "tv" || e.Log != devices.LogNames || e.Lookup.Rcode != m.Rcode || e.Lookup.Redirected {
					t.Errorf("entry %+v %+v", e, e.Lookup)
				}
				if e.Lookup.Verdict.Action != c.action || e.Lookup.Verdict.Reason != c.reason {
					t.Errorf("verdict %+v", e.Lookup.Verdict)
				}
			})
		}
	}
	if got := h.last(t); got.Lookup.Name != "1.1.168.192.in-addr.arpa" {
		t.Errorf("name %q", got.Lookup.Name)
	}
	if n := u.seen.Load(); n == 0 || n > 14 {
		t.Errorf("the upstream saw %d questions; the cache takes repeats and the filter takes blocks", n)
	}
}

func TestBlockedLookupsCarryTheOrganisation(t *testing.T) {
	h := newHouse(t, plainUpstream(startUpstream(t, testZone)))
	h.ask(t, "udp", "x.tracker.example.", dns.TypeA)
	if got := h.last(t).Lookup.Destination.Organisation; got != "Tracker Ltd" {
		t.Errorf("organisation %q", got)
	}
}

func TestNamesAreLearnedFromWhatTheDeviceGot(t *testing.T) {
	h := newHouse(t, plainUpstream(startUpstream(t, testZone)))
	h.ask(t, "udp", "Good.Example.", dns.TypeA)
	h.ask(t, "udp", "fine.example.", dns.TypeHTTPS)
	h.ask(t, "udp", "rebind.example.", dns.TypeA) // blocked: nothing to learn
	want := "tv good.example 192.0.2.7 5m0s, tv fine.example 192.0.2.9 1m0s"
	if got := strings.Join(h.learned, ", "); got != want {
		t.Errorf("learned %q, want %q", got, want)
	}
}

func TestRedirectedPortIsTold(t *testing.T) {
	h := newHouse(t, plainUpstream(startUpstream(t, testZone)))
	for network, certain := range map[string]bool{"udp": true, "tcp": false} {
		h.askAt(t, network, h.cfg.RedirectPort, query("good.example.", dns.TypeA))
		if e := h.last(t); e.Lookup.Redirected != certain {
			t.Errorf("%s: a look-up on the redirect port is marked %v", network, !certain)
		}
	}
}

func TestBlockAnswerShapes(t *testing.T) {
	u := startUpstream(t, testZone)
	for _, c := range []struct {
		answer           BlockAnswer
		a, aaaa, txt     string
		wantSOAForOthers bool
	}{
		{BlockNXDomain, "NXDOMAIN", "NXDOMAIN", "NXDOMAIN", true},
		{BlockNull, "NOERROR | A 0.0.0.0", "NOERROR | AAAA ::", "NOERROR", true},
		{BlockNoData, "NOERROR", "NOERROR", "NOERROR", true},
		{BlockRefused, "REFUSED", "REFUSED", "REFUSED", false},
	} {
		t.Run(c.answer.String(), func(t *testing.T) {
			h := newHouse(t, func(cfg *Config) {
				cfg.Upstreams = []Upstream{{Addr: u.addr}}
				cfg.BlockAnswer, cfg.BlockTTL = c.answer, 42*time.Second
			})
			for _, q := range []struct {
				qtype uint16
				want  string
			}{{dns.TypeA, c.a}, {dns.TypeAAAA, c.aaaa}, {dns.TypeHTTPS, c.txt}} {
				m := h.ask(t, "udp", "tracker.example.", q.qtype)
				if got := short(m); got != q.want {
					t.Errorf("%s: %q, want %q", dns.TypeToString[q.qtype], got, q.want)
				}
				if len(m.Answer) > 0 && m.Answer[0].Header().Ttl != 42 {
					t.Errorf("TTL %d", m.Answer[0].Header().Ttl)
				}
				if len(m.Answer) == 0 && (len(m.Ns) == 1) != c.wantSOAForOthers {
					t.Errorf("authority section %v", m.Ns)
				}
			}
		})
	}
}

// A written REFUSED must be the only reply: CoreDNS sends a second one when a
// plugin returns the code after writing.
func TestRefusedIsAnsweredOnce(t *testing.T) {
	h := newHouse(t, func(c *Config) {
		c.Upstreams = []Upstream{{Addr: netip.MustParseAddrPort("192.0.2.1:53")}}
		c.BlockAnswer = BlockRefused
	})
	conn, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", h.cfg.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	wire, _ := query("tracker.example.", dns.TypeA).Pack()
	conn.Write(wire)
	buf := make([]byte, 1500)
	conn.SetReadDeadline(time.Now().Add(patient))
	if _, err := conn.Read(buf); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(150 * time.Millisecond))
	if n, err := conn.Read(buf); err == nil {
		m := new(dns.Msg)
		m.Unpack(buf[:n])
		t.Fatalf("a second reply came: %v", m)
	}
}

func TestDeadUpstreamIsSaidSo(t *testing.T) {
	// A port that is closed: the kernel says so at once.
	dead := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), freePort(t))
	h := newHouse(t, func(c *Config) { c.Upstreams = []Upstream{{Addr: dead}} })
	for range 2 { // the second comes from the cache of failures
		m := h.ask(t, "udp", "good.example.", dns.TypeA)
		if m.Rcode != dns.RcodeServerFailure || ede(m) == "" {
			t.Errorf("answer %s, extended error %q", short(m), ede(m))
		}
		if e := h.last(t); e.Lookup.Rcode != dns.RcodeServerFailure {
			t.Errorf("recorded rcode %d", e.Lookup.Rcode)
		}
	}
	if n := h.count(); n != 2 {
		t.Errorf("recorded %d, want 2", n)
	}
	if err := h.Upstream(t.Context()); err == nil {
		t.Error("Upstream says that a dead upstream answers")
	}
	if err := h.Probe(t.Context()); err != nil {
		t.Errorf("our own listeners work, Probe says: %v", err)
	}
}

func TestSecondUpstreamTakesOver(t *testing.T) {
	u := startUpstream(t, testZone)
	dead := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), freePort(t))
	h := newHouse(t, func(c *Config) { c.Upstreams = []Upstream{{Addr: dead}, {Addr: u.addr}} })
	if got := short(h.ask(t, "udp", "good.example.", dns.TypeA)); got != "NOERROR | A 192.0.2.7" {
		t.Errorf("answer %q", got)
	}
	if err := h.Upstream(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLocalZonesGoToTheRouter(t *testing.T) {
	u := startUpstream(t, testZone)
	router := startUpstream(t, map[string][]string{
		"nas.lan. A":                     {"nas.lan. 60 IN A 192.168.77.9"},
		"9.77.168.192.in-addr.arpa. PTR": {"9.77.168.192.in-addr.arpa. 60 IN PTR nas.lan."},
	})
	h := newHouse(t, func(c *Config) {
		c.Upstreams = []Upstream{{Addr: u.addr}}
		c.LocalResolver, c.LocalZones = router.addr, []dnsname.Name{"lan"}
	})
	for name, want := range map[string]string{
		"nas.lan.":                   "NOERROR | A 192.168.77.9",
		"9.77.168.192.in-addr.arpa.": "NOERROR | PTR nas.lan.",
	} {
		qtype := dns.TypeA
		if strings.HasSuffix(name, "arpa.") {
			qtype = dns.TypePTR
		}
		if got := short(h.ask(t, "udp", name, qtype)); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if n := u.seen.Load(); n != 0 {
		t.Errorf("%d private look-ups left the house", n)
	}
}

func TestModesOffAndWatch(t *testing.T) {
	u := startUpstream(t, map[string][]string{"tracker.example. A": {"tracker.example. 60 IN A 192.0.2.66"}})
	mode := devices.ModeOff
	h := newHouse(t, func(c *Config) {
		c.Upstreams = []Upstream{{Addr: u.addr}}
		c.Devices = devicesFunc(func(netip.Addr) (devices.Device, bool) { return devices.Device{ID: "d", Mode: mode}, true })
	})
	if got := short(h.ask(t, "udp", "tracker.example.", dns.TypeA)); got != "NOERROR | A 192.0.2.66" || h.count() != 0 || len(h.learned) != 0 {
		t.Errorf("off: %q, %d recorded, learned %v", got, h.count(), h.learned)
	}
	h.stop()

	mode = devices.ModeWatch
	h = newHouse(t, func(c *Config) {
		c.Upstreams = []Upstream{{Addr: u.addr}}
		c.Devices = devicesFunc(func(netip.Addr) (devices.Device, bool) { return devices.Device{ID: "d", Mode: mode}, true })
	})
	if got := short(h.ask(t, "udp", "tracker.example.", dns.TypeA)); got != "NOERROR | A 192.0.2.66" {
		t.Errorf("watch: %q", got)
	}
	if v := h.last(t).Lookup.Verdict; !v.Noted || v.Action != policy.Allow {
		t.Errorf("watch: verdict %+v", v)
	}
}

func TestUnknownClientIsLookedUp(t *testing.T) {
	u := startUpstream(t, testZone)
	h := newHouse(t, func(c *Config) {
		c.Upstreams = []Upstream{{Addr: u.addr}}
		c.Devices = devicesFunc(func(netip.Addr) (devices.Device, bool) { return devices.Device{}, false })
		c.Resolve = func(a netip.Addr) (devices.Device, bool) {
			return devices.Device{ID: "found-" + devices.ID(a.String())}, true
		}
	})
	h.ask(t, "udp", "good.example.", dns.TypeA)
	if got := h.last(t).Device; got != "found-127.0.0.1" {
		t.Errorf("device %q", got)
	}
}

func TestOptionsForUsStayWithUs(t *testing.T) {
	u := startUpstream(t, testZone)
	h := newHouse(t, plainUpstream(u))
	q := query("good.example.", dns.TypeA)
	q.AuthenticatedData = true
	o := q.IsEdns0()
	o.SetDo()
	o.Option = []dns.EDNS0{
		&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: net.IPv4(192, 168, 77, 0)},
		&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"},
	}
	h.askAt(t, "udp", h.cfg.Port, q)
	got := u.lastQuery()
	if n := len(got.IsEdns0().Option); n != 0 {
		t.Errorf("the upstream saw %d options: %v", n, got.IsEdns0().Option)
	}
	if !got.IsEdns0().Do() || !got.AuthenticatedData {
		t.Error("DO and AD were lost on the way")
	}
}

func TestLargeAnswerIsTruncatedAndComesWholeByTCP(t *testing.T) {
	h := newHouse(t, plainUpstream(startUpstream(t, testZone)))
	if m := h.ask(t, "udp", "big.example.", dns.TypeTXT); !m.Truncated {
		t.Errorf("not truncated: %d records", len(m.Answer))
	}
	if m := h.ask(t, "tcp", "big.example.", dns.TypeTXT); m.Truncated || len(m.Answer) != 20 {
		t.Errorf("by TCP: truncated %v, %d records", m.Truncated, len(m.Answer))
	}
}

func TestSideDoorsGetTheAnswerThatClosesThem(t *testing.T) {
	h := newHouse(t, func(c *Config) {
		c.Upstreams = []Upstream{{Addr: netip.MustParseAddrPort("192.0.2.1:53")}}
		c.BlockAnswer = BlockNull
		c.Decider = deciderFunc(func(policy.Query) policy.Verdict {
			return policy.Verdict{Action: policy.Block, Reason: policy.ReasonSideDoor}
		})
	})
	if got := short(h.ask(t, "udp", "use-application-dns.net.", dns.TypeA)); got != "NXDOMAIN" {
		t.Errorf("canary: %q", got)
	}
	if got := short(h.ask(t, "udp", "_dns.resolver.arpa.", dns.TypeSVCB)); got != "NOERROR" {
		t.Errorf("DDR: %q", got)
	}
}

func TestBothFamilies(t *testing.T) {
	u := startUpstream(t, testZone)
	h := newHouse(t, func(c *Config) {
		c.Upstreams = []Upstream{{Addr: u.addr}}
		c.Listen = []netip.Addr{netip.MustParseAddr("::")}
	})
	for _, host := range []string{"127.0.0.1", "::1"} {
		for _, network := range []string{"udp", "tcp"} {
			c := &dns.Client{Net: network, Timeout: patient}
			m, _, err := c.Exchange(query("good.example.", dns.TypeA), net.JoinHostPort(host, fmt.Sprint(h.cfg.Port)))
			if err != nil || short(m) != "NOERROR | A 192.0.2.7" {
				t.Errorf("%s %s: %v %v", network, host, m, err)
			}
		}
	}
}

// Stopping and starting anew in one process must work, with the same registerer
// and port, and leave no goroutine behind.
func TestAgainInOneProcess(t *testing.T) {
	u := startUpstream(t, testZone)
	h := newHouse(t, plainUpstream(u))
	h.ask(t, "tcp", "good.example.", dns.TypeA)
	h.stop()
	before := runtime.NumGoroutine()
	for range 3 {
		s, err := New(h.cfg)
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, s)
		h.ask(t, "udp", "good.example.", dns.TypeA)
		stop()
	}
	// CoreDNS ends the goroutines of its connection pools when the collector finds a
	// pool that nobody holds.
	for deadline := time.Now().Add(patient); runtime.NumGoroutine() > before; time.Sleep(20 * time.Millisecond) {
		runtime.GC()
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines before, %d after\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
		}
	}
}

func TestTakenPortIsAnError(t *testing.T) {
	u := startUpstream(t, testZone)
	h := newHouse(t, plainUpstream(u))
	s, err := New(h.cfg)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "address already in use") ||
		!strings.Contains(err.Error(), fmt.Sprint(h.cfg.Port)) && !strings.Contains(err.Error(), fmt.Sprint(h.cfg.RedirectPort)) {
		t.Errorf("second server on one port: %v", err)
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	good := func() Config {
		return Config{
			Listen: []netip.Addr{netip.MustParseAddr("::")}, Port: 5300, RedirectPort: 5301,
			Upstreams: []Upstream{{Addr: netip.MustParseAddrPort("192.0.2.1:53")}},
			Devices:   devicesFunc(nil), Decider: deciderFunc(nil),
		}
	}
	if _, err := New(good()); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"Devices is needed":            func(c *Config) { c.Devices = nil },
		"Decider is needed":            func(c *Config) { c.Decider = nil },
		"address to listen at":         func(c *Config) { c.Listen = nil },
		"two different ports":          func(c *Config) { c.RedirectPort = 5300 },
		"0 upstreams are configured":   func(c *Config) { c.Upstreams = nil },
		"is this server itself":        func(c *Config) { c.Upstreams[0].Addr = netip.MustParseAddrPort("127.0.0.1:5301") },
		"local resolver 127.0.0.1:530": func(c *Config) { c.LocalResolver = netip.MustParseAddrPort("127.0.0.1:5300") },
	} {
		c := good()
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
