package proxy

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
)

// echHello is a real encrypted hello: inner is hidden, outer is what can be read.
func echHello(t *testing.T, outer, inner string) []byte {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// ECHConfigList with one ECHConfig (RFC 9849 §4).
	contents := append([]byte{7, 0, 0x20, 0, 32}, key.PublicKey().Bytes()...)
	contents = append(contents, 0, 4, 0, 1, 0, 1, 64, byte(len(outer)))
	contents = append(contents, outer...)
	contents = append(contents, 0, 0)
	config := append([]byte{0xfe, 0x0d, 0, byte(len(contents))}, contents...)
	return firstFlight(t, &tls.Config{
		ServerName: inner, MinVersion: tls.VersionTLS13,
		EncryptedClientHelloConfigList: append([]byte{0, byte(len(config))}, config...),
	})
}

// witness is an origin that only remembers what reached it.
type witness struct {
	mu       sync.Mutex
	dials    int
	got      bytes.Buffer
	greeting string // what it says first
}

func (w *witness) dial(t *testing.T) func(context.Context, string, string) (net.Conn, error) {
	origin := listen(t, func(c net.Conn) {
		io.WriteString(c, w.greeting)
		b := make([]byte, 64<<10)
		for {
			n, err := c.Read(b)
			w.mu.Lock()
			w.got.Write(b[:n])
			w.mu.Unlock()
			if err != nil {
				return
			}
			if bytes.HasPrefix(b[:n], []byte("GET")) {
				io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
				continue
			}
			io.WriteString(c, "ok")
		}
	})
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		w.mu.Lock()
		w.dials++
		w.mu.Unlock()
		var d net.Dialer
		return d.DialContext(ctx, network, origin.String())
	}
}

func (w *witness) saw() (dials int, got []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dials, slices.Clone(w.got.Bytes())
}

// TestNoByteLeavesBeforeTheVerdict: whatever a client says first and whatever the
// rule for it is, the origin hears of a refused connection nothing at all, of a
// carried one every byte, and none before policy has spoken; and the observer is
// told of each with its tuple.
func TestNoByteLeavesBeforeTheVerdict(t *testing.T) {
	t.Parallel()
	hello := clientHello(t, "fine.example")
	set := func(h policy.Hello, r policy.HelloRule) (s policy.Hellos) { s[h] = r; return s }
	const tracker, fine = "a.tracker.example", "fine.example"
	for name, c := range map[string]struct {
		say     []byte
		port    uint16 // 0 is 443
		looked  dnsname.Name
		hellos  policy.Hellos
		carried bool
		as      string // name that is told
		reason  policy.Reason
	}{
		"a name":                        {say: hello, carried: true, as: fine},
		"a blocked name":                {say: clientHello(t, tracker), as: tracker, reason: policy.ReasonList},
		"a blocked name on 8443":        {say: clientHello(t, tracker), port: 8443, as: tracker, reason: policy.ReasonList},
		"half a hello":                  {say: hello[:300], looked: fine, as: fine, reason: policy.ReasonUnread},
		"half a hello, by address":      {say: hello[:300], looked: fine, hellos: set(policy.HelloUnfinished, policy.HelloByAddress), carried: true, as: fine},
		"half a hello, blocked address": {say: hello[:300], looked: tracker, hellos: set(policy.HelloUnfinished, policy.HelloByAddress), as: tracker, reason: policy.ReasonList},
		"half a hello, carried":         {say: hello[:300], looked: tracker, hellos: set(policy.HelloUnfinished, policy.HelloCarry), carried: true, as: tracker, reason: policy.ReasonUnread},
		"an endless hello":              {say: append([]byte{22, 3, 1, 0x40, 0, 1, 0, 0x60, 0, 3, 3}, make([]byte, 16<<10)...), reason: policy.ReasonUnread},
		"no name":                       {say: clientHello(t, ""), carried: true},
		"no name, by address":           {say: clientHello(t, ""), looked: tracker, as: tracker, reason: policy.ReasonList},
		"no name, carried":              {say: clientHello(t, ""), looked: tracker, hellos: set(policy.HelloNameless, policy.HelloCarry), carried: true, as: tracker, reason: policy.ReasonUnread},
		"no name, refused":              {say: clientHello(t, ""), looked: fine, hellos: set(policy.HelloNameless, policy.HelloRefuse), as: fine, reason: policy.ReasonUnread},
		"a hidden name":                 {say: echHello(t, "cloudflare-ech.com", tracker), looked: fine, carried: true, as: fine},
		"a hidden name, by address":     {say: echHello(t, "cloudflare-ech.com", fine), looked: tracker, as: tracker, reason: policy.ReasonList},
		"a hidden name, refused":        {say: echHello(t, "cloudflare-ech.com", fine), looked: fine, hellos: set(policy.HelloHidden, policy.HelloRefuse), as: fine, reason: policy.ReasonUnread},
		"a blocked outer name":          {say: echHello(t, "cover.defo.ie", fine), looked: fine, as: fine, reason: policy.ReasonRule},
		"GREASE is no hidden name":      {say: echHello(t, fine, tracker), looked: tracker, hellos: set(policy.HelloHidden, policy.HelloRefuse), carried: true, as: fine},
		"not TLS":                       {say: []byte("\x00\x01\x02"), carried: true},
		"not TLS, by address":           {say: []byte("EHLO me\r\n"), looked: tracker, as: tracker, reason: policy.ReasonList},
		"not TLS, refused":              {say: []byte("\x00\x01\x02"), looked: fine, hellos: set(policy.HelloNotTLS, policy.HelloRefuse), as: fine, reason: policy.ReasonUnread},
		"not TLS, on another port":      {say: []byte("\x00\x01\x02"), port: 8443, hellos: set(policy.HelloNotTLS, policy.HelloRefuse), carried: true},
		"HTTP on 443":                   {say: []byte("GET / HTTP/1.0\r\nHost: fine.example\r\n\r\n"), carried: true, as: fine},
		"HTTP on 443, refused":          {say: []byte("GET / HTTP/1.0\r\nHost: fine.example\r\n\r\n"), hellos: set(policy.HelloNotTLS, policy.HelloRefuse), as: fine, reason: policy.ReasonUnread},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set, err := policy.Compile(policy.Config{
				Hellos: c.hellos,
				Rules:  []policy.Rule{{ID: 1, Action: policy.Block, Name: "cover.defo.ie"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			lists := blocking(tracker)
			var judged atomic.Bool
			w, told := &witness{}, &carriedLog{}
			l := newLab(t, func(cfg *Config) {
				cfg.Observer = told
				if bytes.HasPrefix(hello, c.say) && len(c.say) < len(hello) { // what is said after that is late
					cfg.PeekTimeout = time.Second
				}
				cfg.NameOf = func(devices.ID, netip.Addr) dnsname.Name { return c.looked }
				cfg.Decider = deciderFunc(func(q policy.Query) policy.Verdict {
					if q.Name == "probe.invalid" {
						return policy.Verdict{}
					}
					time.Sleep(20 * time.Millisecond) // what leaves early is caught
					if dials, got := w.saw(); dials > 0 || len(got) > 0 {
						t.Errorf("%d connections and %q before the verdict", dials, got)
					}
					judged.Store(true)
					if v := set.Decide(q); v.Action != policy.Undecided {
						return v
					}
					q.Hello = policy.HelloRead
					return lists(q)
				})
				cfg.Dial = w.dial(t)
			})
			dst := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), orElse(c.port, 443))
			conn := l.dial(dst)
			conn.Write(c.say)
			answer := make([]byte, 64)
			n, err := conn.Read(answer)
			switch dials, got := w.saw(); {
			case !judged.Load():
				t.Error("policy was never asked")
			case c.carried && (err != nil || string(answer[:n]) != "ok" && !bytes.HasPrefix(answer, []byte("HTTP/"))):
				t.Errorf("answer %q, %v; want it carried", answer[:n], err)
			case c.carried && !bytes.HasPrefix(got, c.say[:min(len(c.say), 4)]):
				t.Errorf("the origin got %q, sent was %q", got, c.say)
			case c.carried && c.say[0] != 'G' && !bytes.Equal(got, c.say):
				t.Errorf("the origin got %d bytes, sent were %d, or others", len(got), len(c.say))
			case !c.carried && (dials > 0 || len(got) > 0):
				t.Errorf("refused, yet the origin saw %d connections and %q", dials, got)
			case !c.carried && !errors.Is(err, syscall.ECONNRESET) && !strings.HasPrefix(string(answer[:n]), "HTTP/1.0 403"):
				t.Errorf("answer %q, %v; want a reset", answer[:n], err)
			}
			told.mu.Lock()
			defer told.mu.Unlock()
			if len(told.judged) != 1 {
				t.Fatalf("told %d times, want once", len(told.judged))
			}
			f := told.judged[0].Flow
			if f.Tuple.DstAddrPort() != dst || f.Tuple.SrcAddrPort() != addrPort(conn.LocalAddr()) || !f.Proxied || f.Seen.App == "" {
				t.Errorf("told %+v", f)
			}
			if f.Name != c.as || f.Verdict.Reason != c.reason || c.carried == (f.Verdict.Action == policy.Block) {
				t.Errorf("told %q, %+v; want %q, reason %q", f.Name, f.Verdict, c.as, c.reason)
			}
		})
	}
}

// TestSilentClients: a server that speaks first is let speak; a client that was
// only slow is judged by what it then says, and nothing of it left before.
func TestSilentClients(t *testing.T) {
	t.Parallel()
	refuseSilent := policy.Hellos{}
	refuseSilent[policy.HelloSilent] = policy.HelloRefuse
	for name, c := range map[string]struct {
		greeting, say, want string
		hellos              policy.Hellos
		looked              dnsname.Name
	}{
		"the server speaks first":     {greeting: "220 mail\r\n", want: "220 mail\r\n"},
		"where its address is no bad": {greeting: "220 mail\r\n", looked: "fine.example", want: "220 mail\r\n"},
		"where its address is":        {greeting: "220 mail\r\n", looked: "a.tracker.example"},
		"not where that is refused":   {greeting: "220 mail\r\n", hellos: refuseSilent},
		"a slow client":               {say: string(clientHello(t, "fine.example")), want: "ok"},
		"a slow client, blocked":      {say: string(clientHello(t, "a.tracker.example"))},
		"a slow request":              {say: "GET / HTTP/1.1\r\nHost: a.tracker.example\r\n\r\n", want: "HTTP/1.1 403"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set, err := policy.Compile(policy.Config{Hellos: c.hellos})
			if err != nil {
				t.Fatal(err)
			}
			w, told, lists := &witness{greeting: c.greeting}, &carriedLog{}, blocking("tracker.example")
			l := newLab(t, func(cfg *Config) {
				cfg.SilentAfter, cfg.Observer, cfg.Dial = 50*time.Millisecond, told, w.dial(t)
				cfg.NameOf = func(devices.ID, netip.Addr) dnsname.Name { return c.looked }
				cfg.Decider = deciderFunc(func(q policy.Query) policy.Verdict {
					if v := set.Decide(q); v.Action == policy.Block {
						return v
					}
					return lists(q)
				})
			})
			conn := l.dial(netip.MustParseAddrPort("192.0.2.1:587"))
			if c.say != "" {
				deadline := time.Now().Add(patient)
				for dials := 0; dials == 0 && time.Now().Before(deadline); dials, _ = w.saw() {
					time.Sleep(5 * time.Millisecond)
				}
				io.WriteString(conn, c.say)
			}
			answer := make([]byte, 64)
			n, err := conn.Read(answer)
			if c.want == "" && !errors.Is(err, syscall.ECONNRESET) || c.want != "" && !strings.HasPrefix(string(answer[:n]), c.want) {
				t.Errorf("answer %q, %v; want %q", answer[:n], err, c.want)
			}
			if _, got := w.saw(); c.want != "ok" && len(got) > 0 {
				t.Errorf("the origin got %q", got)
			}
			told.mu.Lock()
			defer told.mu.Unlock()
			if len(told.judged) != 1 || told.judged[0].Flow.NameSource == flow.NameFromSNI && c.say == "" {
				t.Errorf("told %+v", told.judged)
			}
		})
	}
}
