package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
)

type deciderFunc func(policy.Query) policy.Verdict

func (f deciderFunc) Decide(q policy.Query) policy.Verdict { return f(q) }

// blocking blocks the given names and all below, and hellos that never end.
func blocking(names ...dnsname.Name) deciderFunc {
	return func(q policy.Query) policy.Verdict {
		if q.Hello == policy.HelloUnfinished {
			return policy.Verdict{Action: policy.Block, Reason: policy.ReasonUnread, Rule: "unfinished hello: refuse"}
		}
		for _, n := range names {
			if q.Name.IsAtOrBelow(n) && q.Name != "" {
				return policy.Verdict{Action: policy.Block, Reason: policy.ReasonList, Rule: "||" + string(n) + "^", List: "starter"}
			}
		}
		return policy.Verdict{}
	}
}

type devicesFunc func(netip.Addr) (devices.Device, bool)

func (f devicesFunc) ByAddr(a netip.Addr) (devices.Device, bool) { return f(a) }
func (devicesFunc) ByID(devices.ID) (devices.Device, bool)       { return devices.Device{}, false }

// patient is how long what must come may take: on two processors that all the tests
// share, half a minute of work may stand before it. Nobody waits so long for what comes.
const patient = time.Minute

// carriedLog keeps what the proxy tells: judged at once, ended with its bytes.
type carriedLog struct {
	mu     sync.Mutex
	judged []Carried
	ended  []journal.Entry
}

func (l *carriedLog) Proxied(c Carried) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.judged = append(l.judged, c)
}

func (l *carriedLog) Record(e journal.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = append(l.ended, e)
}

// wait gives what ended once there are n of them.
func (l *carriedLog) wait(t *testing.T, n int) []journal.Entry {
	t.Helper()
	deadline := time.Now().Add(patient)
	for {
		l.mu.Lock()
		all := slices.Clone(l.ended)
		l.mu.Unlock()
		if len(all) >= n {
			return all
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d ended, want %d", len(all), n)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// lab is a proxy on loopback. The kernel's part is played by the client's
// source address: what dials from 127.9.0.N was meant for dsts[N].
type lab struct {
	*Proxy
	carriedLog
	t    *testing.T
	mu   sync.Mutex
	dsts []netip.AddrPort
	port uint16
	stop func()
}

func newLab(t *testing.T, change func(*Config)) *lab {
	t.Helper()
	l := &lab{t: t, port: freePort(t)}
	cfg := Config{
		Listen:   []netip.Addr{netip.MustParseAddr("127.0.0.1")},
		HTTPPort: l.port,
		Devices: devicesFunc(func(a netip.Addr) (devices.Device, bool) {
			return devices.Device{ID: "toy", Name: "Talking <b>toy</b>", Mode: devices.ModeGuard, Kind: devices.KindToy}, true
		}),
		Decider:  blocking("tracker.example"),
		Recorder: &l.carriedLog,
		Own:      func(netip.Addr) bool { return false },
		Inside:   func(netip.Addr) bool { return false },
		Original: func(c net.Conn) netip.AddrPort {
			src := addrPort(c.RemoteAddr()).Addr().As4()
			if src[1] != 9 {
				return addrPort(c.LocalAddr())
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.dsts[src[3]]
		},
		PeekTimeout: 5 * time.Second, SilentAfter: patient, // who is slow here was held up
		Registerer: prometheus.NewPedanticRegistry(),
	}
	if change != nil {
		change(&cfg)
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l.Proxy = p
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	l.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(l.stop)
	deadline := time.Now().Add(patient)
	for p.Probe(t.Context()) != nil {
		if time.Now().After(deadline) {
			t.Fatalf("the proxy does not answer: %v", p.Probe(t.Context()))
		}
		time.Sleep(5 * time.Millisecond)
	}
	for len(p.slots) > 0 { // the probe's own
		time.Sleep(time.Millisecond)
	}
	return l
}

// freePort is a port that nobody has, and that the kernel gives to nobody by itself
// meanwhile: it takes those from 32768 on.
func freePort(t *testing.T) uint16 {
	t.Helper()
	for range 10_000 {
		port := uint16(10_000 + (uint32(os.Getpid())*131+lastPort.Add(1))%20_000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

var lastPort atomic.Uint32

// dial opens a connection that the client meant for dst.
func (l *lab) dial(dst netip.AddrPort) *net.TCPConn {
	l.t.Helper()
	c, err := l.tryDial(dst)
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// tryDial is dial, for what may be refused before the client knows that it is connected.
func (l *lab) tryDial(dst netip.AddrPort) (*net.TCPConn, error) {
	l.mu.Lock()
	l.dsts = append(l.dsts, dst)
	n := len(l.dsts) - 1
	l.mu.Unlock()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 9, 0, byte(n))}}
	c, err := d.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", l.port))
	if err != nil {
		return nil, err
	}
	l.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patient))
	return c.(*net.TCPConn), nil
}

// client is an HTTP client whose every new connection is meant for dst.
func (l *lab) client(dst netip.AddrPort) *http.Client {
	tr := &http.Transport{
		DialContext:     func(context.Context, string, string) (net.Conn, error) { return l.dial(dst), nil },
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	l.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patient}
}

// serve runs handler as an origin and gives its address.
func serve(t *testing.T, handler http.HandlerFunc) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: handler}
	go s.Serve(ln)
	t.Cleanup(func() { s.Close() })
	return addrPort(ln.Addr())
}

// listen runs handle for each connection to an origin of its own.
func listen(t *testing.T, handle func(net.Conn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
	return addrPort(ln.Addr())
}

func serveTLS(t *testing.T, body string) netip.AddrPort {
	t.Helper()
	cert := selfSigned(t)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, body) })}
	go s.Serve(ln)
	t.Cleanup(func() { s.Close() })
	return addrPort(ln.Addr())
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func get(t *testing.T, c *http.Client, url string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func TestHTTPPassesOrMeetsTheBlockPage(t *testing.T) {
	origin := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello %s", r.Host) })
	l := newLab(t, func(c *Config) { c.HouseName, c.HouseURL = "Casa <i>", "http://house.lan:8300/" })
	c := l.client(origin)
	if resp, body := get(t, c, "http://api.maker.example/x"); resp.StatusCode != 200 || body != "hello api.maker.example" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
	resp, body := get(t, c, "http://X.Tracker.Example:80/?id=1", "Accept", "text/html,*/*")
	if resp.StatusCode != 403 || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("blocked: %d %v", resp.StatusCode, resp.Header)
	}
	for _, want := range []string{"Talking &lt;b&gt;toy&lt;/b&gt;", "x.tracker.example", "A blocklist", "starter", "||tracker.example^", "Casa &lt;i&gt;", "http://house.lan:8300/"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not say %q:\n%s", want, body)
		}
	}
	_, style, _ := strings.Cut(body, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, base64.StdEncoding.EncodeToString(sum[:])) {
		t.Errorf("the page's own style is not allowed by %q", csp)
	}
	resp, body = get(t, c, "http://tracker.example/collect")
	if resp.StatusCode != 403 || body != "tracker.example: blocked by the household (list)\n" {
		t.Errorf("for a machine: %d %q", resp.StatusCode, body)
	}
	c.CloseIdleConnections()
	got := l.wait(t, 3)
	slices.SortFunc(got, func(a, b journal.Entry) int { return strings.Compare(a.Flow.Name, b.Flow.Name) })
	for i, want := range []struct {
		name   string
		action policy.Action
	}{{"api.maker.example", policy.Undecided}, {"tracker.example", policy.Block}, {"x.tracker.example", policy.Block}} {
		f := got[i].Flow
		if f.Name != want.name || f.NameSource != flow.NameFromHost || f.Verdict.Action != want.action || !f.Proxied ||
			f.Seen.App != "http" || f.Seen.Protection != flow.Readable || f.Tuple.DstAddrPort() != origin ||
			f.Counters.Orig.Bytes == 0 || f.Counters.Reply.Bytes == 0 || got[i].Device != "toy" {
			t.Errorf("carried %d: %+v", i, f)
		}
	}
}

func TestTLSByName(t *testing.T) {
	origin := serveTLS(t, "secret hello")
	l := newLab(t, nil)
	if _, body := get(t, l.client(origin), "https://api.maker.example/"); body != "secret hello" {
		t.Errorf("%q", body)
	}
	_, err := l.client(origin).Get("https://a.tracker.example/")
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("blocked by name: %v, want a reset", err)
	}
	got := l.wait(t, 1)
	if f := got[0].Flow; f.Name != "a.tracker.example" || f.Verdict.Action != policy.Block || f.Seen.App != "tls" ||
		f.Seen.TLS == nil || f.NameSource != flow.NameFromSNI || f.Counters.Reply.Bytes != 0 {
		t.Errorf("blocked: %+v", f)
	}
}

// A name may come in two segments, and in records of one byte each.
func TestHelloInPieces(t *testing.T) {
	origin := serveTLS(t, "x")
	l := newLab(t, nil)
	hello := clientHello(t, "a.tracker.example")
	fine := clientHello(t, "fine.example")
	if len(hello) < 1460 {
		t.Fatalf("the hello has only %d bytes", len(hello))
	}
	records := func(h []byte) []byte {
		var b []byte
		for _, c := range h[5:] {
			b = append(b, 22, 3, 1, 0, 1, c)
		}
		return b
	}
	for name, pieces := range map[string][][]byte{
		"two segments":    {hello[:1448], hello[1448:]},
		"a first byte":    {hello[:1], hello[1:]},
		"records of one":  {records(hello)},
		"cut in a header": {hello[:3], hello[3:700], hello[700:]},
	} {
		c := l.dial(origin)
		for _, p := range pieces {
			c.Write(p)
			time.Sleep(10 * time.Millisecond)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v, want a reset", name, err)
		}
	}
	c := l.dial(origin)
	c.Write(fine[:1448])
	time.Sleep(10 * time.Millisecond)
	c.Write(fine[1448:])
	b := make([]byte, 1)
	if _, err := c.Read(b); err != nil || b[0] != 22 {
		t.Errorf("an innocent hello in two segments: %v %d", err, b[0])
	}
}

// clientHello is what Go's own client sends first.
func clientHello(t *testing.T, name string) []byte {
	t.Helper()
	return firstFlight(t, &tls.Config{ServerName: name, InsecureSkipVerify: true})
}

func firstFlight(t *testing.T, conf *tls.Config) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer b.Close()
	go tls.Client(a, conf).Handshake()
	buf := make([]byte, 8192)
	n, err := io.ReadAtLeast(b, buf, 5)
	if err != nil {
		t.Fatal(err)
	}
	whole := 5 + int(buf[3])<<8 + int(buf[4])
	if _, err := io.ReadFull(b, buf[n:max(whole, n)]); err != nil {
		t.Fatal(err)
	}
	a.Close()
	return buf[:whole]
}

func TestWhatIsNeverCarried(t *testing.T) {
	dialled := make(chan string, 10)
	origin := listen(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	l := newLab(t, func(c *Config) {
		c.Inside = nil // the real rule
		c.Own = func(a netip.Addr) bool { return a == netip.MustParseAddr("203.0.113.2") }
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			dialled <- addr
			return net.Dial("tcp", origin.String())
		}
	})
	var refusals sync.WaitGroup
	for _, dst := range []string{
		"127.0.0.1:80", "127.0.0.53:443", "192.168.1.1:80", "10.0.0.1:443", "172.16.0.1:80", "169.254.169.254:80",
		"100.64.0.1:80", "224.0.0.1:80", "255.255.255.255:80", "0.0.0.0:80", "203.0.113.2:80", fmt.Sprintf("192.0.2.1:%d", l.port),
		"[::1]:80", "[fe80::1]:80", "[fd00::1]:443", "[ff02::1]:80", "[::ffff:192.168.1.1]:80", "[64:ff9b::a00:1]:80", "[2002:c0a8:101::1]:80", "[::]:80",
	} {
		c, err := l.tryDial(netip.MustParseAddrPort(dst))
		if errors.Is(err, syscall.ECONNRESET) {
			continue // refused already
		} else if err != nil {
			t.Fatal(err)
		}
		refusals.Go(func() {
			c.Write([]byte("GET / HTTP/1.1\r\nHost: fine.example\r\n\r\n"))
			if n, err := c.Read(make([]byte, 1)); err == nil || n > 0 {
				t.Errorf("%s: carried", dst)
			}
		})
	}
	refusals.Wait()
	select {
	case a := <-dialled:
		t.Errorf("%s was dialled", a)
	default:
	}
	c := l.dial(netip.MustParseAddrPort("192.0.2.1:80"))
	c.Write([]byte("GET / HTTP/1.1\r\nHost: 127.0.0.1:8300\r\n\r\n"))
	if a := <-dialled; a != "192.0.2.1:80" {
		t.Errorf("dialled %s, want the original destination", a)
	}
}

// Two destinations that are asked for the same Host never share a connection.
func TestPoolNeverMixesDestinations(t *testing.T) {
	l := newLab(t, nil)
	one := l.client(serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "one") }))
	two := l.client(serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "two") }))
	for range 3 {
		if _, body := get(t, one, "http://same.example/"); body != "one" {
			t.Fatalf("first destination answered %q", body)
		}
		if _, body := get(t, two, "http://same.example/"); body != "two" {
			t.Fatalf("second destination answered %q", body)
		}
	}
}

func TestKeepAliveIsOneConnectionOnBothSides(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]bool{}
	origin := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen[r.RemoteAddr] = true
	})
	l := newLab(t, nil)
	c := l.client(origin)
	for range 5 {
		get(t, c, "http://api.maker.example/")
	}
	if len(seen) != 1 || len(l.dsts) != 1 {
		t.Errorf("%d connections to the origin, %d to the proxy, want one each", len(seen), len(l.dsts))
	}
	c.CloseIdleConnections()
	if got := l.wait(t, 1); len(got) != 1 {
		t.Errorf("%d flows for one connection to one host", len(got))
	}
}

func TestObserverIsToldBeforeAnythingIsCarried(t *testing.T) {
	judged := &carriedLog{}
	origin := serve(t, func(w http.ResponseWriter, r *http.Request) {
		judged.mu.Lock()
		defer judged.mu.Unlock()
		fmt.Fprint(w, len(judged.judged))
	})
	l := newLab(t, func(c *Config) { c.Observer = judged })
	c := l.client(origin)
	for range 3 {
		if _, body := get(t, c, "http://api.maker.example/"); body != "1" {
			t.Errorf("told %s times when the request arrived, want once", body)
		}
	}
	if f := judged.judged[0].Flow; f.Name != "api.maker.example" || !f.Proxied || f.Seen.App != "http" {
		t.Errorf("told %+v", f)
	}
	c.CloseIdleConnections()
	l.stop()
	if len(l.ended) != 0 {
		t.Errorf("a flow that the observer records was recorded by us too: %v", l.ended)
	}
}

func TestLargeBodiesPassUnharmed(t *testing.T) {
	payload := make([]byte, 5<<20)
	rand.Read(payload)
	want := sha256.Sum256(payload)
	echo := func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			b, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%x", sha256.Sum256(b))
			return
		}
		if r.URL.Path == "/chunked" {
			w.(http.Flusher).Flush()
		}
		w.Write(payload)
	}
	plain := serve(t, echo)
	cert := selfSigned(t)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(echo)}
	go s.Serve(ln)
	t.Cleanup(func() { s.Close() })

	l := newLab(t, nil)
	for base, c := range map[string]*http.Client{
		"http://big.example":  l.client(plain),
		"https://big.example": l.client(addrPort(ln.Addr())),
	} {
		for _, path := range []string{"/length", "/chunked"} {
			_, body := get(t, c, base+path)
			if got := sha256.Sum256([]byte(body)); got != want {
				t.Errorf("%s%s: %d bytes arrived, another hash", base, path, len(body))
			}
		}
		resp, err := c.Post(base+"/post", "application/octet-stream", bytes.NewReader(payload))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		if string(b) != fmt.Sprintf("%x", want) {
			t.Errorf("%s: the origin got other bytes", base)
		}
		c.CloseIdleConnections()
	}
	for _, c := range l.wait(t, 2) {
		f := c.Flow.Counters
		if f.Orig.Bytes < 5<<20 || f.Orig.Bytes > 5<<20+100_000 || f.Reply.Bytes < 10<<20 || f.Reply.Bytes > 10<<20+200_000 {
			t.Errorf("%s: counted %d out, %d in", c.Flow.Seen.App, f.Orig.Bytes, f.Reply.Bytes)
		}
	}
}

func TestStreamsArriveAsTheyAreSent(t *testing.T) {
	next := make(chan bool)
	origin := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for i := range 3 {
			fmt.Fprintf(w, "part %d\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
	})
	l := newLab(t, nil)
	resp, err := l.client(origin).Get("http://stream.example/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i := range 3 {
		if !lines.Scan() || lines.Text() != fmt.Sprintf("part %d", i) {
			t.Fatalf("part %d: %q %v", i, lines.Text(), lines.Err())
		}
		next <- true
	}
}

func TestWebSocketPasses(t *testing.T) {
	origin := listen(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		r, err := http.ReadRequest(br)
		if err != nil || r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Connection") != "Upgrade" {
			fmt.Fprintf(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		b := make([]byte, 100)
		for {
			n, err := br.Read(b)
			if err != nil || bytes.Contains(b[:n], []byte("bye")) {
				return
			}
			c.Write(b[:n])
		}
	})
	l := newLab(t, nil)
	c := l.dial(origin)
	// The first frame comes in the same write as the request.
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: ws.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst")
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("%v %v", resp, err)
	}
	b := make([]byte, 100)
	for i, want := range []string{"first", "second", "third"} {
		if i > 0 {
			io.WriteString(c, want)
		}
		n, err := io.ReadFull(br, b[:len(want)])
		if err != nil || string(b[:n]) != want {
			t.Fatalf("echo %q, %v, want %q", b[:n], err, want)
		}
	}
	io.WriteString(c, "bye") // the origin closes: so must we
	if _, err := br.Read(b); err == nil {
		t.Error("the client's side stays open after the origin closed")
	}
	c.Close()
	if f := l.wait(t, 1)[0].Flow; f.Name != "ws.example" {
		t.Errorf("carried as %q", f.Name)
	}
}

func TestOtherProtocolsAreSpliced(t *testing.T) {
	origin := listen(t, func(c net.Conn) {
		b, _ := io.ReadAll(c) // until the client ends its half
		fmt.Fprintf(c, "got %d: %s", len(b), b)
	})
	l := newLab(t, nil)
	for _, first := range []string{"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", "EHLO me\r\n", "GET /\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x00\x01", "x"} {
		c := l.dial(origin)
		io.WriteString(c, first)
		c.CloseWrite()
		b, err := io.ReadAll(c)
		if want := fmt.Sprintf("got %d: %s", len(first), first); err != nil || string(b) != want {
			t.Errorf("%q: %q %v, want %q", first, b, err, want)
		}
	}
}

func TestHelloWithoutNameGoesByTheLastLookup(t *testing.T) {
	origin := serveTLS(t, "x")
	l := newLab(t, func(c *Config) {
		c.NameOf = func(d devices.ID, a netip.Addr) dnsname.Name { return "looked.tracker.example" }
	})
	c := l.dial(origin)
	c.Write(clientHello(t, "")) // no server name
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
	if f := l.wait(t, 1)[0].Flow; f.Name != "looked.tracker.example" || f.NameSource != flow.NameFromDNSDevice || f.Seen.ServerName != "" {
		t.Errorf("%+v", f)
	}
}

func TestForwardProxyRequestsAreRefused(t *testing.T) {
	origin := serve(t, func(w http.ResponseWriter, r *http.Request) { t.Error("carried:", r.Method, r.URL) })
	l := newLab(t, nil)
	for _, line := range []string{"GET http://fine.example/ HTTP/1.1", "CONNECT fine.example:443 HTTP/1.1"} {
		c := l.dial(origin)
		fmt.Fprintf(c, "%s\r\nHost: fine.example\r\n\r\n", line)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 400 {
			t.Errorf("%s: %v %v", line, resp, err)
		}
	}
}

// A name that dribbles in, or that is hidden in a hello of endless length, does
// not slip by.
func TestUnfinishedIsNotCarried(t *testing.T) {
	origin := listen(t, func(c net.Conn) { t.Error("something left the house before the verdict") })
	l := newLab(t, func(c *Config) { c.PeekTimeout = 200 * time.Millisecond })
	hello := clientHello(t, "a.tracker.example")
	long := append([]byte{22, 3, 1, 0x40, 0, 1, 0, 0x60, 0, 3, 3}, make([]byte, 20<<10)...)
	for name, b := range map[string][]byte{
		"half a hello": hello[:700], "half a line": []byte("GET / HT"), "endless hello": long,
		"endless line": append([]byte("GET /"), bytes.Repeat([]byte("x"), 80<<10)...),
	} {
		c := l.dial(origin)
		c.Write(b)
		answer, err := io.ReadAll(c)
		if errors.Is(err, os.ErrDeadlineExceeded) || len(answer) > 0 && !bytes.HasPrefix(answer, []byte("HTTP/1.1 4")) {
			t.Errorf("%s: %q %v, want it refused", name, answer, err)
		}
	}
}

func TestDeadOriginIsSaidSo(t *testing.T) {
	dead := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), freePort(t))
	l := newLab(t, nil)
	if resp, _ := get(t, l.client(dead), "http://fine.example/"); resp.StatusCode != 502 {
		t.Errorf("HTTP: %d", resp.StatusCode)
	}
	c := l.dial(dead)
	c.Write(clientHello(t, "fine.example"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("TLS: %v, want a reset", err)
	}
}

func TestCapRefusesAndProbeSaysSo(t *testing.T) {
	origin := listen(t, func(c net.Conn) { io.Copy(c, c) })
	l := newLab(t, func(c *Config) {
		c.MaxConns = 2
		c.Devices = devicesFunc(func(a netip.Addr) (devices.Device, bool) { return devices.Device{ID: devices.ID(a.String())}, true })
	})
	a, b := l.dial(origin), l.dial(origin)
	for _, c := range []net.Conn{a, b} {
		io.WriteString(c, "\x00hold")
		io.ReadFull(c, make([]byte, 5))
	}
	if err := l.Probe(t.Context()); err == nil {
		t.Error("Probe succeeds though no device would be carried")
	}
	a.Close()
	deadline := time.Now().Add(patient)
	for l.Probe(t.Context()) != nil {
		if time.Now().After(deadline) {
			t.Fatal("the place is not given back")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// One device never takes the places of all.
func TestADeviceHasHalfOfThePlaces(t *testing.T) {
	origin := listen(t, func(c net.Conn) { io.Copy(c, c) })
	var modest atomic.Bool
	l := newLab(t, func(c *Config) {
		c.MaxConns = 8
		c.Devices = devicesFunc(func(netip.Addr) (devices.Device, bool) {
			if modest.Load() {
				return devices.Device{ID: "modest"}, true
			}
			return devices.Device{ID: "greedy"}, true
		})
	})
	echoes := func() bool {
		c, err := l.tryDial(origin)
		if err != nil {
			return false
		}
		io.WriteString(c, "\x00hold")
		_, err = io.ReadFull(c, make([]byte, 5))
		return err == nil
	}
	for i := range 6 {
		if got, want := echoes(), i < 4; got != want {
			t.Errorf("the greedy device's connection %d: carried %v, want %v", i, got, want)
		}
	}
	modest.Store(true)
	if !echoes() {
		t.Error("another device finds no place")
	}
	if err := l.Probe(t.Context()); err != nil {
		t.Errorf("the proxy says that it is full: %v", err)
	}
}

// Who rests between two requests makes room for who has something to say.
func TestRestingConnectionsMakeRoom(t *testing.T) {
	var l *lab
	// While the third is answered, and before it rests as well.
	origin := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, l.parking.len()) })
	l = newLab(t, func(c *Config) { c.MaxConns = 4 })
	first, second := l.client(origin), l.client(origin)
	get(t, first, "http://fine.example/")
	get(t, second, "http://fine.example/")
	deadline := time.Now().Add(patient)
	for l.parking.len() < 4 { // both sides of both
		if time.Now().After(deadline) {
			t.Fatalf("%d sockets rest, want 4", l.parking.len())
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, body := get(t, l.client(origin), "http://fine.example/"); body != "2" {
		t.Errorf("%s sockets rest, want the 2 of one connection", body)
	}
}

func TestIdleConnectionsEnd(t *testing.T) {
	t.Parallel()
	origin := listen(t, func(c net.Conn) { io.Copy(c, c) })
	l := newLab(t, func(c *Config) { c.IdleTimeout = 4 * time.Second }) // a busy machine may hold us up for a while
	c := l.dial(origin)
	b := make([]byte, 2)
	for range 12 { // active for longer than the limit: stays
		io.WriteString(c, "\x00x")
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatalf("an active connection ended: %v", err)
		}
		time.Sleep(400 * time.Millisecond)
	}
	if _, err := c.Read(b); err == nil || isTimeout(err) {
		t.Errorf("an idle connection stays: %v", err)
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	origin := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "x") })
	secure := serveTLS(t, "x")
	l := newLab(t, nil)
	base := runtime.NumGoroutine()
	for range 20 {
		a, b := l.client(origin), l.client(secure)
		get(t, a, "http://fine.example/")
		get(t, a, "http://tracker.example/")
		get(t, b, "https://fine.example/")
		a.CloseIdleConnections()
		b.CloseIdleConnections()
	}
	deadline := time.Now().Add(patient)
	for runtime.NumGoroutine() > base {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines before, %d after\n%s", base, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(20 * time.Millisecond)
	}
	if n := len(l.slots); n != 0 {
		t.Errorf("%d places are still taken", n)
	}
	if n := len(l.wait(t, 60)); n != 60 {
		t.Errorf("%d flows told, want 60", n)
	}
}
