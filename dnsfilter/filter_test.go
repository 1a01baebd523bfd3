package dnsfilter

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/test"
	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
)

// written keeps what a plugin wrote.
type written struct {
	test.ResponseWriter
	msgs []*dns.Msg
}

func (w *written) WriteMsg(m *dns.Msg) error {
	w.msgs = append(w.msgs, m)
	return nil
}

// newFilter is the plugin without any server around it.
func newFilter(tb testing.TB, d Decider, next plugin.Handler) *filter {
	tb.Helper()
	s, err := New(Config{
		Listen: []netip.Addr{netip.IPv6Unspecified()}, Port: 5300,
		Upstreams: []Upstream{{Addr: netip.MustParseAddrPort("192.0.2.1:53")}},
		Devices: devicesFunc(func(netip.Addr) (devices.Device, bool) {
			return devices.Device{ID: "tv", Mode: devices.ModeProtect}, true
		}),
		Decider: d,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return &filter{Server: s, next: next}
}

func answering(m *dns.Msg) plugin.Handler {
	return plugin.HandlerFunc(func(_ context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		return dns.RcodeSuccess, w.WriteMsg(m)
	})
}

// The cache holds the message that passes through the tap, and shares it.
func TestAnswersAreNeverChangedInPlace(t *testing.T) {
	m := new(dns.Msg).SetQuestion("good.example.", dns.TypeA)
	m.Response = true
	m.Answer = []dns.RR{test.A("good.example. 60 IN A 192.0.2.1")}
	m.SetEdns0(4096, true)
	m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "00"}, &dns.EDNS0_EDE{InfoCode: 3, ExtraText: "stale"}}
	before := m.String()
	w := &written{}
	f := newFilter(t, blocking(), answering(m))
	if rc, err := f.ServeDNS(t.Context(), w, query("good.example.", dns.TypeA)); rc != dns.RcodeSuccess || err != nil {
		t.Fatal(rc, err)
	}
	if m.String() != before {
		t.Errorf("the shared answer was changed to\n%s", m)
	}
	if got := w.msgs[0].IsEdns0().Option; len(got) != 1 || got[0].Option() != dns.EDNS0EDE {
		t.Errorf("options for the client: %v, want the extended error only", got)
	}
}

func TestFailuresBelowAreAnsweredOnce(t *testing.T) {
	for _, c := range []struct {
		rcode int
		err   error
	}{{dns.RcodeServerFailure, errors.New("timeout")}, {dns.RcodeRefused, errors.New("too many")}, {dns.RcodeNotImplemented, nil}} {
		w := &written{}
		f := newFilter(t, blocking(), plugin.HandlerFunc(func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) { return c.rcode, c.err }))
		rc, err := f.ServeDNS(t.Context(), w, query("good.example.", dns.TypeA))
		if rc != dns.RcodeSuccess || err != nil || len(w.msgs) != 1 || w.msgs[0].Rcode != dns.RcodeServerFailure {
			t.Errorf("%d: returned %d %v, wrote %v", c.rcode, rc, err, w.msgs)
		}
	}
}

// A device whose mode is off is answered too when nobody below can answer.
func TestOffIsAnsweredWhenUpstreamsAreDead(t *testing.T) {
	w := &written{}
	f := newFilter(t, blocking(), plugin.HandlerFunc(func(context.Context, dns.ResponseWriter, *dns.Msg) (int, error) {
		return dns.RcodeServerFailure, errors.New("timeout")
	}))
	f.cfg.Devices = devicesFunc(func(netip.Addr) (devices.Device, bool) { return devices.Device{Mode: devices.ModeOff}, true })
	rc, err := f.ServeDNS(t.Context(), w, query("good.example.", dns.TypeA))
	if err != nil || !plugin.ClientWrite(rc) || len(w.msgs) != 1 {
		t.Errorf("returned %d %v and wrote %d replies: the client gets none or two", rc, err, len(w.msgs))
	}
}

func TestPolicyIsToldWhatItNeeds(t *testing.T) {
	var asked []policy.Query
	m := new(dns.Msg).SetReply(query("www.Shop.example.", dns.TypeA))
	m.Answer = []dns.RR{test.CNAME("www.Shop.example. 60 IN CNAME cdn.example."), test.A("cdn.example. 60 IN A 192.0.2.1")}
	f := newFilter(t, deciderFunc(func(q policy.Query) policy.Verdict { asked = append(asked, q); return policy.Verdict{} }), answering(m))
	if _, err := f.ServeDNS(t.Context(), &written{}, query("www.Shop.example.", dns.TypeA)); err != nil {
		t.Fatal(err)
	}
	want := []struct {
		layer       policy.Layer
		name, asked dnsname.Name
		addr        string
	}{
		{policy.LayerDNS, "www.shop.example", "www.shop.example", "invalid IP"},
		{policy.LayerAnswer, "cdn.example", "www.shop.example", "invalid IP"},
		{policy.LayerAnswer, "cdn.example", "www.shop.example", "192.0.2.1"},
	}
	if len(asked) != len(want) {
		t.Fatalf("asked %d times: %+v", len(asked), asked)
	}
	for i, w := range want {
		q := asked[i]
		if q.Layer != w.layer || q.Name != w.name || q.Asked != w.asked || q.Addr.String() != w.addr || q.Device != "tv" || q.Mode != devices.ModeProtect {
			t.Errorf("question %d: %+v", i, q)
		}
	}
}

// What is no question that a house asks never reaches an upstream.
func TestStrangeQuestionsStayHere(t *testing.T) {
	next := plugin.HandlerFunc(func(_ context.Context, _ dns.ResponseWriter, r *dns.Msg) (int, error) {
		t.Errorf("passed on: %s", r.Question[0].String())
		return dns.RcodeServerFailure, nil
	})
	long := strings.Repeat(strings.Repeat(`\000`, 60)+".", 4) // legal on the wire, 964 octets written out
	for name, c := range map[string]struct {
		change func(*dns.Msg)
		rcode  int
	}{
		"chaos class": {func(m *dns.Msg) {
			m.Question[0] = dns.Question{Name: "version.bind.", Qtype: dns.TypeTXT, Qclass: dns.ClassCHAOS}
		}, dns.RcodeRefused},
		"zone transfer":       {func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }, dns.RcodeRefused},
		"two questions":       {func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, dns.RcodeNotImplemented},
		"an update":           {func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, dns.RcodeNotImplemented},
		"a name that hides":   {func(m *dns.Msg) { m.Question[0].Name = long + "tracker.example." }, dns.RcodeRefused},
		"a private reverse":   {func(m *dns.Msg) { m.Question[0].Name = "1.0.0.10.in-addr.arpa." }, dns.RcodeNameError},
		"a link-local one":    {func(m *dns.Msg) { m.Question[0].Name = "1.0.8.e.f.ip6.arpa." }, dns.RcodeNameError},
		"a shared one":        {func(m *dns.Msg) { m.Question[0].Name = "1.0.64.100.in-addr.arpa." }, dns.RcodeNameError},
		"any type of a name":  {func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeANY }, dns.RcodeSuccess},
		"a blocked odd label": {func(m *dns.Msg) { m.Question[0].Name = `a\032b.tracker.example.` }, dns.RcodeNameError},
	} {
		r := query("good.example.", dns.TypeA)
		c.change(r)
		w := &written{}
		rc, err := newFilter(t, blocking("tracker.example"), next).ServeDNS(t.Context(), w, r)
		if rc != dns.RcodeSuccess || err != nil || len(w.msgs) != 1 || w.msgs[0].Rcode != c.rcode {
			t.Errorf("%s: returned %d %v, wrote %v", name, rc, err, w.msgs)
		}
	}
}

func TestWhoIsAnswered(t *testing.T) {
	known := netip.MustParseAddr("2001:db8::7")
	f := newFilter(t, blocking(), answering(new(dns.Msg).SetReply(query("good.example.", dns.TypeA))))
	f.cfg.Devices = devicesFunc(func(a netip.Addr) (devices.Device, bool) { return devices.Device{ID: "tv"}, a == known })
	for addr, want := range map[string]int{
		"192.168.1.2": dns.RcodeSuccess, "10.0.0.1": dns.RcodeSuccess, "fd00::1": dns.RcodeSuccess, "fe80::1": dns.RcodeSuccess,
		"127.0.0.1": dns.RcodeSuccess, known.String(): dns.RcodeSuccess,
		"198.51.100.1": dns.RcodeRefused, "2001:db8::8": dns.RcodeRefused,
	} {
		w, kept := &written{ResponseWriter: test.ResponseWriter{RemoteIP: addr}}, &journalled{}
		f.cfg.Recorder = kept
		if _, err := f.ServeDNS(t.Context(), w, query("good.example.", dns.TypeA)); err != nil || w.msgs[0].Rcode != want {
			t.Errorf("%s: %v %v, want %s", addr, err, w.msgs, dns.RcodeToString[want])
		}
		if want == dns.RcodeRefused && !strings.HasPrefix(ede(w.msgs[0]), "18 ") {
			t.Errorf("%s is refused with %q, want a prohibition", addr, ede(w.msgs[0]))
		}
		if (len(kept.entries) == 0) != (want == dns.RcodeRefused) {
			t.Errorf("of %s %d entries are kept", addr, len(kept.entries))
		}
	}
}

func TestExtraTextIsBoundedAndPrintable(t *testing.T) {
	v := policy.Verdict{Reason: policy.ReasonList, List: "x\x00\n<é>", Rule: strings.Repeat("r", 5000)}
	s := because(v)
	if len(s) > maxExtraText || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("%d octets: %q", len(s), s)
	}
}

func TestDNSOverTLSUpstream(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"dns.test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{Listener: l, Handler: &upstream{zone: testZone}}
	go s.ActivateAndServe()
	t.Cleanup(func() { s.Shutdown() })
	addr := netip.MustParseAddrPort(l.Addr().String())

	// The certificate is nobody's: a resolver that cannot show who it is is not asked.
	h := newHouse(t, func(c *Config) { c.Upstreams = []Upstream{{Addr: addr, TLS: true, ServerName: "dns.test"}} })
	for deadline := time.Now().Add(patient); ; {
		err := h.Upstream(t.Context())
		if errors.Is(err, context.DeadlineExceeded) && time.Now().Before(deadline) {
			continue // reading the certificates of all authorities took all the time
		}
		if err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("unknown certificate: %v", err)
		}
		break
	}
	if m := h.ask(t, "udp", "good.example.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("a resolver with an unknown certificate answered: %s", short(m))
	}
}

func TestSlowUpstreamDoesNotHoldOthers(t *testing.T) {
	slow := startUpstream(t, testZone)
	hold := make(chan struct{})
	slow.mu.Lock()
	slow.hold = hold
	slow.mu.Unlock()
	h := newHouse(t, plainUpstream(slow))
	other := make(chan struct{})
	go func() { defer close(other); h.ask(t, "udp", "good.example.", dns.TypeA) }()
	for deadline := time.Now().Add(patient); slow.seen.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the upstream is not asked")
		}
	}
	if m := h.ask(t, "udp", "tracker.example.", dns.TypeA); m.Rcode != dns.RcodeNameError {
		t.Error(short(m))
	}
	select {
	case <-other:
		t.Error("a blocked name waited for another's upstream")
	default:
	}
	close(hold)
	<-other
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	f := newFilter(t, blocking("tracker.example"), answering(new(dns.Msg).SetReply(query("good.example.", dns.TypeA))))
	m, err := newMetrics(reg)
	if err != nil {
		t.Fatal(err)
	}
	f.metrics = m
	for _, name := range []string{"good.example.", "tracker.example.", "x.tracker.example."} {
		if _, err := f.ServeDNS(t.Context(), &written{}, query(name, dns.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, fam := range families {
		for _, x := range fam.Metric {
			var labels []string
			for _, l := range x.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			got[fam.GetName()+" "+strings.Join(labels, " ")] = x.GetCounter().GetValue() + float64(x.GetHistogram().GetSampleCount())
		}
	}
	want := map[string]float64{
		"netcurtain_dnsfilter_lookups_total action=block layer=dns": 2,
		"netcurtain_dnsfilter_lookups_total action=none layer=dns":  1,
		"netcurtain_dnsfilter_lookup_duration_seconds ":             3,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("metrics (-want +got):\n%s", d)
	}
	if _, err := newMetrics(reg); err != nil {
		t.Errorf("a second server in the same process: %v", err)
	}
}

// CoreDNS must not write to the terminal: names are the household's.
func TestNothingIsPrinted(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, errOut := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = w, w
	defer func() { os.Stdout, os.Stderr = out, errOut }()
	h := newHouse(t, func(c *Config) {
		c.Upstreams = []Upstream{{Addr: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), freePort(t))}}
	})
	h.ask(t, "udp", "good.example.", dns.TypeA)
	h.ask(t, "tcp", "tracker.example.", dns.TypeA)
	h.stop()
	w.Close()
	buf := make([]byte, 1000)
	if n, _ := r.Read(buf); n > 0 {
		t.Errorf("printed: %s", buf[:n])
	}
}

// FuzzServeDNS: whatever comes from the LAN and from upstream, there is exactly
// one reply, nothing panics, and what policy blocks is never passed on.
func FuzzServeDNS(f *testing.F) {
	pack := func(m *dns.Msg, rrs ...string) []byte {
		for _, s := range rrs {
			rr, err := dns.NewRR(s)
			if err != nil {
				f.Fatal(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	q := query("a.example.", dns.TypeA)
	f.Add(pack(q), pack(new(dns.Msg).SetReply(q), "a.example. 1 IN CNAME X.tracker.EXAMPLE.", "x.tracker.example. 1 IN A 192.0.2.1"))
	f.Add(pack(query("tracker.example.", dns.TypeHTTPS)), pack(new(dns.Msg).SetReply(q), "a.example. 1 IN HTTPS 1 . ipv4hint=10.0.0.1 ipv6hint=::1"))
	f.Add(pack(query(`\000\255.example.`, dns.TypeANY)), pack(new(dns.Msg).SetReply(q), "a.example. 1 IN DNAME tracker.example."))
	f.Fuzz(func(t *testing.T, question, answer []byte) {
		r, m := new(dns.Msg), new(dns.Msg)
		if r.Unpack(question) != nil || m.Unpack(answer) != nil {
			return
		}
		w := &written{}
		rc, err := newFilter(t, blocking("tracker.example"), answering(m)).ServeDNS(t.Context(), w, r)
		if rc != dns.RcodeSuccess || err != nil || len(w.msgs) != 1 {
			t.Fatalf("returned %d %v, wrote %d replies", rc, err, len(w.msgs))
		}
		if _, err := w.msgs[0].Pack(); err != nil && r.Rcode <= 15 && m.Rcode <= 15 && len(m.Extra)+len(r.Extra) == 0 {
			t.Errorf("the reply cannot be sent: %v", err)
		}
		for _, rr := range w.msgs[0].Answer {
			if n, err := dnsname.Parse(targetOf(rr)); err == nil && n.IsAtOrBelow("tracker.example") {
				t.Errorf("a blocked name passed: %s", rr)
			}
			for a := range addrsOf(rr) {
				if a.IsPrivate() || a.IsLoopback() {
					t.Errorf("an address of the house passed: %s", rr)
				}
			}
		}
	})
}

func TestBlockedPathAllocates(t *testing.T) {
	f := newFilter(t, blocking("tracker.example"), nil)
	r := query("a.b.tracker.example.", dns.TypeA)
	w := &discard{}
	// Look-up, reply, question, SOA and its owner, OPT, extended error and its text.
	if n := testing.AllocsPerRun(1000, func() { f.ServeDNS(context.Background(), w, r) }); n > 18 {
		t.Errorf("%v allocations for a blocked look-up, 18 are allowed", n)
	}
}

// discard is a client that only counts.
type discard struct{ test.ResponseWriter }

var discardAddr = &net.UDPAddr{IP: net.IPv4(192, 168, 1, 2), Port: 1000}

func (*discard) RemoteAddr() net.Addr { return discardAddr }
func (*discard) LocalAddr() net.Addr  { return discardAddr }

func BenchmarkBlocked(b *testing.B) {
	f := newFilter(b, blocking("tracker.example"), nil)
	r := query("a.b.tracker.example.", dns.TypeA)
	w := &discard{}
	b.ReportAllocs()
	for b.Loop() {
		f.ServeDNS(context.Background(), w, r)
	}
}

func BenchmarkAllowed(b *testing.B) {
	m := new(dns.Msg).SetReply(query("www.example.", dns.TypeA))
	m.Answer = []dns.RR{test.CNAME("www.example. 60 IN CNAME cdn.example."), test.A("cdn.example. 60 IN A 192.0.2.1"), test.A("cdn.example. 60 IN A 192.0.2.2")}
	f := newFilter(b, blocking("tracker.example"), answering(m))
	r := query("www.example.", dns.TypeA)
	w := &discard{}
	b.ReportAllocs()
	for b.Loop() {
		f.ServeDNS(context.Background(), w, r)
	}
}
