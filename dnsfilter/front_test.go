package dnsfilter

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
)

// noted is a Decider that notes of each name at which layer it was asked about, and
// whether that was in the loop that receives.
type noted struct {
	Decider
	mu   sync.Mutex
	seen []string
}

func (n *noted) Decide(q policy.Query) policy.Verdict {
	where := "behind"
	if strings.Contains(string(debug.Stack()), "(*front).answer") {
		where = "at once"
	}
	n.mu.Lock()
	n.seen = append(n.seen, string(q.Name)+" "+q.Layer.String()+" "+where)
	n.mu.Unlock()
	return n.Decider.Decide(q)
}

func (n *noted) take() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	defer func() { n.seen = nil }()
	return strings.Join(n.seen, ", ")
}

// What is blocked and what the cache has is answered where it is received. Policy is
// asked once about each question, for it counts what it is asked.
func TestWhatNeedsNoWaitingIsAnsweredAtOnce(t *testing.T) {
	u := startUpstream(t, testZone)
	n := &noted{Decider: blocking("tracker.example")}
	h := newHouse(t, func(c *Config) {
		plainUpstream(u)(c)
		c.Decider = n
		c.LocalZones = nil
	})
	for _, c := range []struct{ network, name, want string }{
		{"udp", "tracker.example.", "tracker.example dns at once"},
		{"udp", "good.example.", "good.example dns at once, good.example answer behind"},
		{"udp", "good.example.", "good.example dns at once, good.example answer at once"},
		{"udp", "cloaked.example.", "cloaked.example dns at once, x.tracker.example answer behind"},
		{"udp", "cloaked.example.", "cloaked.example dns at once, x.tracker.example answer at once"},
		{"tcp", "good.example.", "good.example dns behind, good.example answer behind"},
	} {
		h.ask(t, c.network, c.name, dns.TypeA)
		if got := n.take(); got != c.want {
			t.Errorf("%s %s: %s, want %s", c.network, c.name, got, c.want)
		}
	}
	if seen := u.seen.Load(); seen != 2 {
		t.Errorf("%d questions went upstream, 2 are needed", seen)
	}
}

// A panic costs one look-up, wherever it happens.
func TestPanicInTheLoopIsSurvived(t *testing.T) {
	u := startUpstream(t, testZone)
	h := newHouse(t, func(c *Config) {
		plainUpstream(u)(c)
		c.Decider = deciderFunc(func(q policy.Query) policy.Verdict {
			if q.Name == "panic.example" {
				panic("as the test wants")
			}
			return policy.Verdict{}
		})
	})
	if m := h.ask(t, "udp", "panic.example.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("answered %s", short(m))
	}
	if m := h.ask(t, "udp", "good.example.", dns.TypeA); short(m) != "NOERROR | A 192.0.2.7" {
		t.Errorf("afterwards: %s", short(m))
	}
}

// twins are two servers of the same house. The second has no chain to answer from
// where it receives: CoreDNS answers all of it.
type twins [2]net.Conn

func newTwins(t testing.TB) (two twins) {
	u := startUpstream(t, testZone)
	for i := range two {
		h := newHouse(t, func(c *Config) {
			plainUpstream(u)(c)
			c.LocalResolver, c.LocalZones = u.addr, []dnsname.Name{"lan"}
		})
		if i == 1 {
			h.world.Store(nil)
		}
		conn, err := net.Dial("udp", netip.AddrPortFrom(h.cfg.Listen[0], h.cfg.Port).String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		two[i] = conn
	}
	return two
}

// differ asks both and says how their answers differ; "" when they do not. Only the
// time that is left of an answer may, by what passed between the two.
func (two twins) differ(t *testing.T, packet []byte) string {
	t.Helper()
	var answers [2][]byte
	for i, conn := range two {
		if _, err := conn.Write(packet); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(patient)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64<<10)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("server %d does not answer %x: %v", i+1, packet, err)
		}
		answers[i] = timeless(t, buf[:n])
	}
	if bytes.Equal(answers[0], answers[1]) {
		return ""
	}
	return fmt.Sprintf("at once: %x\nCoreDNS: %x", answers[0], answers[1])
}

// timeless is packet with the life of its records taken out.
func timeless(t *testing.T, packet []byte) []byte {
	m := new(dns.Msg)
	if err := m.Unpack(packet); err != nil {
		t.Fatalf("an answer that nobody can read: %v", err)
	}
	for _, rr := range slices.Concat(m.Answer, m.Ns, m.Extra) {
		if rr.Header().Rrtype != dns.TypeOPT {
			rr.Header().Ttl = 0
		}
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return append(b, fmt.Sprint(len(packet))...)
}

// strangeQueries are questions of every kind, each in several ways of asking.
func strangeQueries(t testing.TB) (packets [][]byte) {
	add := func(m *dns.Msg) {
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, b)
	}
	for _, name := range []string{
		"good.example.", "GooD.eXample.", "tracker.example.", "deep.Tracker.example.", "cloaked.example.", "rebind.example.", "hint.example.",
		"big.example.", "nowhere.example.", "nas.lan.", "9.77.168.192.in-addr.arpa.", ".", "example.", "odd\\.label.example.", "\\200.example.", "use-application-dns.net.",
	} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeTXT, dns.TypeANY, dns.TypeDS, dns.TypeAXFR, 65280} {
			plain := new(dns.Msg).SetQuestion(name, qtype)
			add(plain)
			add(plain.Copy().SetEdns0(1232, true))
			small := plain.Copy().SetEdns0(512, false)
			small.CheckingDisabled, small.AuthenticatedData, small.RecursionDesired = true, true, false
			small.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"}}
			add(small)
		}
	}
	q := query("good.example.", dns.TypeA)
	q.IsEdns0().SetVersion(1)
	add(q)
	q = query("good.example.", dns.TypeA)
	q.Question[0].Qclass = dns.ClassCHAOS
	add(q)
	q = query("tracker.example.", dns.TypeA)
	q.Extra = append(q.Extra, &dns.A{Hdr: dns.RR_Header{Name: "x.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4zero})
	add(q)
	q = new(dns.Msg).SetQuestion("tracker.example.", dns.TypeA)
	q.Zero = true
	add(q)
	return packets
}

// Who is answered at once gets octet for octet what CoreDNS would have given.
func TestAnsweredAtOnceAsByCoreDNS(t *testing.T) {
	two := newTwins(t)
	for round := range 2 { // the second finds the cache filled
		for _, packet := range strangeQueries(t) {
			if d := two.differ(t, packet); d != "" {
				t.Errorf("round %d: %x\n%s", round+1, packet, d)
			}
		}
	}
}

// FuzzAnsweredAtOnce is the same for what nobody thought of. Packets that the front
// leaves alone by their header are CoreDNS's own matter, and some go unanswered.
func FuzzAnsweredAtOnce(f *testing.F) {
	for i, packet := range strangeQueries(f) {
		if i%7 == 0 || len(packet) > 60 {
			f.Add(packet)
		}
	}
	two := newTwins(f)
	f.Fuzz(func(t *testing.T, packet []byte) {
		if !ordinary(packet) || len(packet) > 512 {
			return
		}
		if d := two.differ(t, packet); d != "" {
			t.Errorf("%x\n%s", packet, d)
		}
	})
}
