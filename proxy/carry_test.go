package proxy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/policy"
)

// sides is a server with a clear and an encrypted side, at 192.0.2.7.
type sides struct {
	*lab
	told           carriedLog
	addr           netip.AddrPort
	clear, tls     http.HandlerFunc // what they answer; nil: "clear PATH" and "tls PATH"
	cert           string           // the name in the certificate
	down           atomic.Bool      // nothing is reached
	noTLS          atomic.Bool
	decide         deciderFunc
	choice         atomic.Bool // whether the household chose to carry
	now            atomic.Int64
	mu             sync.Mutex
	gotClear       []string // requests, "GET /"
	gotTLS         []string
	dialled        map[string]int
	clearAt, tlsAt netip.AddrPort
}

func newSides(t *testing.T, change func(*sides)) *sides {
	t.Helper()
	s := &sides{addr: netip.MustParseAddrPort("192.0.2.7:80"), cert: "m.example", dialled: map[string]int{}}
	s.choice.Store(true)
	if change != nil {
		change(s)
	}
	s.clearAt = serve(t, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, "clear", s.clear, &s.gotClear) })
	ca, leaf := authority(t, s.cert)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{leaf}})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, "tls", s.tls, &s.gotTLS) }),
		ErrorLog: log.New(io.Discard, "", 0), // it is asked by whoever distrusts it
	}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	s.tlsAt = addrPort(ln.Addr())
	s.lab = newLab(t, func(c *Config) {
		if s.decide != nil {
			c.Decider = s.decide
		}
		c.Roots = ca
		c.Observer = &s.told
		c.Now = func() time.Time { return time.Now().Add(time.Duration(s.now.Load())) }
		c.Devices = devicesFunc(func(netip.Addr) (devices.Device, bool) {
			return devices.Device{ID: "toy", Name: "Toy", Mode: devices.ModeGuard, Log: devices.LogNames, CarryEncrypted: s.choice.Load()}, true
		})
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			s.mu.Lock()
			s.dialled[addr]++
			s.mu.Unlock()
			at := s.clearAt
			if s.down.Load() {
				return nil, fmt.Errorf("no route")
			}
			switch addr {
			case "192.0.2.7:443":
				if s.noTLS.Load() {
					return nil, fmt.Errorf("refused")
				}
				at = s.tlsAt
			case "192.0.2.7:80", "192.0.2.7:8080":
			default:
				return nil, fmt.Errorf("nobody may be dialled at %s", addr)
			}
			return (&net.Dialer{}).DialContext(ctx, network, at.String())
		}
	})
	return s
}

func (s *sides) serve(w http.ResponseWriter, r *http.Request, side string, answer http.HandlerFunc, got *[]string) {
	s.mu.Lock()
	*got = append(*got, r.Method+" "+r.RequestURI)
	s.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	fmt.Fprintf(w, "%s %s %s", side, r.Host, r.RequestURI)
}

// authority is a new certificate authority, and a certificate of its for name.
func authority(t *testing.T, name string) (*x509.CertPool, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(tmpl, parent *x509.Certificate) []byte {
		tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0)
		der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	parsed, err := x509.ParseCertificate(sign(ca, ca))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	leaf := sign(&x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{name}}, parsed)
	return pool, tls.Certificate{Certificate: [][]byte{leaf}, PrivateKey: key}
}

// asked waits until n servers were asked.
func (s *sides) asked(n int) {
	s.t.Helper()
	deadline := time.Now().Add(patient)
	for s.Asked().Servers < n {
		if time.Now().After(deadline) {
			s.t.Fatalf("%d servers were asked, want %d", s.Asked().Servers, n)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// learn makes the first request, which goes in clear, and waits until its server was asked.
func (s *sides) learn(c *http.Client) {
	s.t.Helper()
	get(s.t, c, "http://m.example/first")
	s.asked(1)
}

func TestCarriedEncrypted(t *testing.T) {
	s := newSides(t, nil)
	c := s.client(s.addr)
	if _, body := get(t, c, "http://m.example/first?x=1"); body != "clear m.example /first?x=1" {
		t.Errorf("first: %q", body)
	}
	s.asked(1)
	for _, path := range []string{"/second?y=%2F", "/third"} {
		if _, body := get(t, c, "http://m.example"+path, "Authorization", "Basic eDp5", "Range", "bytes=0-"); body != "tls m.example "+path {
			t.Errorf("%s: %q", path, body)
		}
	}
	if resp, err := c.Head("http://m.example/head"); err != nil || resp.StatusCode != 200 {
		t.Errorf("HEAD: %v %v", resp, err)
	}
	s.mu.Lock()
	clear, over := fmt.Sprint(s.gotClear), fmt.Sprint(s.gotTLS)
	if clear != "[GET /first?x=1]" || over != "[GET / GET /second?y=%2F GET /third HEAD /head]" {
		t.Errorf("in clear %s, over TLS %s", clear, over)
	}
	if s.dialled["192.0.2.7:443"] != 2 || s.dialled["192.0.2.7:80"] != 1 {
		t.Errorf("dialled %v: one connection for our question and one for the device wanted", s.dialled)
	}
	s.mu.Unlock()
	if got := s.Tally("toy"); got.Places != 1 || got.Encrypted != 1 {
		t.Errorf("tally %+v", got)
	}
	var ways []bool
	for _, x := range s.told.judged {
		ways = append(ways, x.Flow.CarriedEncrypted)
		if x.Flow.Seen.Protection.String() != "readable" {
			t.Errorf("what the device says is %s", x.Flow.Seen.Protection)
		}
	}
	if fmt.Sprint(ways[0], ways[len(ways)-1]) != "false true" {
		t.Errorf("told as carried encrypted: %v", ways)
	}
}

// What must not differ goes in clear, beside what goes over TLS.
func TestWhatIsNotCarriedEncrypted(t *testing.T) {
	for name, send := range map[string]string{
		"a body":               "POST /x HTTP/1.1\r\nHost: m.example\r\nContent-Length: 2\r\n\r\nhi",
		"a GET with a body":    "GET /x HTTP/1.1\r\nHost: m.example\r\nContent-Length: 2\r\n\r\nhi",
		"chunks":               "GET /x HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"a WebSocket":          "GET /x HTTP/1.1\r\nHost: m.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"Expect":               "GET /x HTTP/1.1\r\nHost: m.example\r\nExpect: 100-continue\r\n\r\n",
		"another method":       "OPTIONS /x HTTP/1.1\r\nHost: m.example\r\n\r\n",
		"another port":         "GET /x HTTP/1.1\r\nHost: m.example:8080\r\n\r\n",
		"no name":              "GET /x HTTP/1.1\r\nHost: 192.0.2.7\r\n\r\n",
		"no Host":              "GET /x HTTP/1.0\r\n\r\n",
		"a connectivity check": "GET /x/generate_204 HTTP/1.1\r\nHost: connectivitycheck.gstatic.com\r\n\r\n",
		"a revocation":         "GET /x/ca.crl HTTP/1.1\r\nHost: m.example\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := newSides(t, nil)
			s.learn(s.client(s.addr))
			s.raw(s.addr, send)
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.gotTLS) != 1 || len(s.gotClear) != 2 {
				t.Errorf("in clear %q, over TLS %q", s.gotClear, s.gotTLS)
			}
		})
	}
	t.Run("not chosen", func(t *testing.T) {
		s := newSides(t, func(s *sides) { s.choice.Store(false) })
		c := s.client(s.addr)
		for range 3 {
			get(t, c, "http://m.example/")
		}
		if s.dialled["192.0.2.7:443"] != 0 {
			t.Error("a server was asked for a household that did not choose it")
		}
		s.choice.Store(true) // takes hold on the connection that runs
		s.learn(c)
		if _, body := get(t, c, "http://m.example/a"); body != "tls m.example /a" {
			t.Errorf("chosen: %q", body)
		}
		s.choice.Store(false)
		if _, body := get(t, c, "http://m.example/b"); body != "clear m.example /b" {
			t.Errorf("taken back: %q", body)
		}
	})
	t.Run("what may not be reached on 443", func(t *testing.T) {
		s := newSides(t, func(s *sides) {
			s.decide = func(q policy.Query) policy.Verdict {
				if q.Port == 443 {
					return policy.Verdict{Action: policy.Block, Reason: policy.ReasonSideDoor}
				}
				return policy.Verdict{}
			}
		})
		c := s.client(s.addr)
		for range 3 {
			if _, body := get(t, c, "http://m.example/dns-query?dns=x"); body != "clear m.example /dns-query?dns=x" {
				t.Errorf("%q", body)
			}
		}
		if s.dialled["192.0.2.7:443"] != 0 {
			t.Error("a server was asked that the device may not reach")
		}
	})
	t.Run("the destination's port", func(t *testing.T) {
		s := newSides(t, nil)
		c := s.client(netip.MustParseAddrPort("192.0.2.7:8080"))
		for range 3 {
			get(t, c, "http://m.example/")
		}
		if s.dialled["192.0.2.7:443"] != 0 {
			t.Error("a server was asked for what was not on port 80")
		}
	})
}

// A server whose two sides are not the same is left alone; the device sees what the
// clear side says, at the request at which it turns out already.
func TestSidesThatDiffer(t *testing.T) {
	toHTTPS := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://m.example"+r.RequestURI, http.StatusMovedPermanently)
	}
	for name, c := range map[string]struct {
		change func(*sides)
		path   string
		want   string // what the second request is answered
		tls    int    // requests that the encrypted side may have got, our question included
	}{
		"the clear side leads to https": {func(s *sides) { s.clear = toHTTPS }, "/a", "301 https://m.example/a", 0},
		"it leads to www over https": {func(s *sides) {
			s.clear = func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "https://www.m.example/", http.StatusFound)
			}
		}, "/a", "302 https://www.m.example/", 0},
		"the other side leads back": {func(s *sides) {
			s.tls = func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://m.example"+r.RequestURI, http.StatusFound)
			}
		}, "/a", "200 clear m.example /a", 1},
		"it leads back at one path only": {func(s *sides) {
			s.tls = func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/" {
					http.Redirect(w, r, "http://m.example"+r.RequestURI, http.StatusFound)
				}
			}
		}, "/a", "200 clear m.example /a", 2},
		"it leads to itself": {func(s *sides) {
			s.tls = func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/" {
					toHTTPS(w, r)
				}
			}
		}, "/a", "200 clear m.example /a", 2},
		"HSTS": {func(s *sides) {
			s.tls = func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Strict-Transport-Security", "max-age=1") }
		}, "/a", "200 clear m.example /a", 1},
		"HSTS later": {func(s *sides) {
			s.tls = func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/" {
					w.Header().Set("Strict-Transport-Security", "max-age=1")
				}
			}
		}, "/a", "200 clear m.example /a", 2},
		"a cookie that is Secure": {func(s *sides) {
			s.tls = func(w http.ResponseWriter, r *http.Request) {
				http.SetCookie(w, &http.Cookie{Name: "a", Value: "b", Secure: true})
			}
		}, "/a", "200 clear m.example /a", 1},
		"not found over TLS": {func(s *sides) {
			s.tls = func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }
		}, "/a", "200 clear m.example /a", 2},
		"misdirected":           {func(s *sides) { s.tls = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(421) } }, "/a", "200 clear m.example /a", 1},
		"broken over TLS":       {func(s *sides) { s.tls = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) } }, "/a", "200 clear m.example /a", 1},
		"another's certificate": {func(s *sides) { s.cert = "other.example" }, "/a", "200 clear m.example /a", 0},
		"nothing on 443":        {func(s *sides) { s.noTLS.Store(true) }, "/a", "200 clear m.example /a", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSides(t, c.change)
			client := s.client(s.addr)
			client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			if get(t, client, "http://m.example/first"); s.clear == nil {
				s.asked(1)
			}
			for range 3 {
				resp, body := get(t, client, "http://m.example"+c.path)
				got := fmt.Sprint(resp.StatusCode, " ", body)
				if to := resp.Header.Get("Location"); to != "" {
					got = fmt.Sprint(resp.StatusCode, " ", to)
				}
				if got != c.want || resp.Header.Get("Strict-Transport-Security") != "" || resp.Header.Get("Set-Cookie") != "" {
					t.Errorf("got %q %v, want %q", got, resp.Header, c.want)
				}
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.clear != nil && s.dialled["192.0.2.7:443"] != 0 {
				t.Error("a server was asked that leads to https by itself")
			}
			if len(s.gotTLS) != c.tls {
				t.Errorf("the encrypted side was asked %q, want %d", s.gotTLS, c.tls)
			}
		})
	}
}

// An error that both sides give is no reason to go back to clear.
func TestErrorsThatAgree(t *testing.T) {
	gone := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/gone" {
			w.WriteHeader(http.StatusGone)
		}
	}
	s := newSides(t, func(s *sides) { s.clear, s.tls = gone, gone })
	c := s.client(s.addr)
	s.learn(c)
	for range 3 {
		if resp, _ := get(t, c, "http://m.example/gone"); resp.StatusCode != http.StatusGone {
			t.Errorf("status %d", resp.StatusCode)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if clear, over := fmt.Sprint(s.gotClear), fmt.Sprint(s.gotTLS); clear != "[GET /first GET /gone]" || over != "[GET / GET /gone GET /gone GET /gone]" {
		t.Errorf("in clear %s, over TLS %s", clear, over)
	}
}

// The encrypted side goes away: the device does not notice, and nobody knocks there
// again before a week has passed.
func TestTheEncryptedSideGoesAway(t *testing.T) {
	s := newSides(t, nil)
	c := s.client(s.addr)
	s.learn(c)
	if _, body := get(t, c, "http://m.example/a"); body != "tls m.example /a" {
		t.Fatalf("%q", body)
	}
	s.noTLS.Store(true)
	c.CloseIdleConnections()
	for range 3 {
		if _, body := get(t, c, "http://m.example/b"); body != "clear m.example /b" {
			t.Errorf("%q", body)
		}
	}
	if n := s.dialled["192.0.2.7:443"]; n != 3 {
		t.Errorf("port 443 was dialled %d times: for our question, for one request, and once in vain wanted", n)
	}
	if got := s.Tally("toy"); got.Places != 1 || got.Encrypted != 0 {
		t.Errorf("tally %+v", got)
	}
	s.noTLS.Store(false)
	s.now.Store(int64(askAgain - time.Minute))
	get(t, c, "http://m.example/c")
	if s.Asked().Servers != 1 {
		t.Error("asked again within a week")
	}
	s.now.Store(int64(askAgain + time.Minute))
	get(t, c, "http://m.example/d")
	s.asked(2)
	if _, body := get(t, c, "http://m.example/e"); body != "tls m.example /e" {
		t.Errorf("after a week: %q", body)
	}
}

// What goes in clear after all is counted as what it gives away in clear.
func TestWhatFallsBackGivesAway(t *testing.T) {
	s := newSides(t, nil)
	c := s.client(s.addr)
	s.learn(c)
	s.noTLS.Store(true)
	get(t, c, "http://m.example/a?mac=a4:cf:12:9b:77:e1")
	seen := s.told.last("m.example")
	if seen.Exposure == nil || len(seen.Exposure.Identifiers) != 1 {
		t.Errorf("told %+v", seen)
	}
	s.told.mu.Lock()
	defer s.told.mu.Unlock()
	for _, x := range s.told.judged {
		if x.Flow.CarriedEncrypted {
			t.Error("told as carried encrypted, and was not")
		}
	}
}

// A line that is down says nothing about a server: it is not left alone for it.
func TestTheLineIsDown(t *testing.T) {
	s := newSides(t, nil)
	c := s.client(s.addr)
	s.learn(c)
	get(t, c, "http://m.example/a")
	s.down.Store(true)
	c.CloseIdleConnections()
	if resp, _ := get(t, c, "http://m.example/b"); resp.StatusCode != http.StatusBadGateway {
		t.Errorf("status %d", resp.StatusCode)
	}
	s.down.Store(false)
	if _, body := get(t, c, "http://m.example/c"); body != "tls m.example /c" {
		t.Errorf("%q", body)
	}
}

// A connection to two hosts at one address: each has a session of its own name.
func TestTwoHostsAtOneAddress(t *testing.T) {
	s := newSides(t, nil)
	c := s.client(s.addr)
	s.learn(c)
	get(t, c, "http://other.example/")
	s.asked(2)
	for range 2 {
		if _, body := get(t, c, "http://other.example/x"); body != "clear other.example /x" {
			t.Errorf("a host without a certificate of its own: %q", body)
		}
		if _, body := get(t, c, "http://m.example/y"); body != "tls m.example /y" {
			t.Errorf("the other: %q", body)
		}
	}
	if got := s.Tally("toy"); got.Places != 2 || got.Encrypted != 1 {
		t.Errorf("tally %+v", got)
	}
}

// What a device invents must not make us knock everywhere, nor remember all of it.
func TestServersAreBounded(t *testing.T) {
	s := newServers()
	now := time.Now()
	taken := 0
	ok := &http.Response{StatusCode: 200}
	for i := range 3 * maxServers {
		sv := server{"m.example", netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}
		if s.heardClear(question{server: sv}, ok, "", 0, now); s.ready(sv, now) {
			t.Fatal("ready before it was asked")
		}
		select {
		case q := <-s.wanted:
			s.answered(q.server, "", now)
			taken++
		default:
		}
	}
	if len(s.all) > maxServers || taken != maxHourly {
		t.Errorf("%d remembered, %d asked in an hour; at most %d and %d wanted", len(s.all), taken, maxServers, maxHourly)
	}
	late := question{server: server{"new.example", netip.MustParseAddr("192.0.2.1")}}
	if s.heardClear(late, ok, "", 0, now.Add(time.Hour)); len(s.wanted) != 1 {
		t.Error("an hour later none is asked")
	}
	if s.forget(); len(s.all) != 0 {
		t.Error("what was learned is not forgotten")
	}
}

// A stream over TLS is neither kept back nor cut.
func TestStreamsOverTLS(t *testing.T) {
	next := make(chan struct{})
	s := newSides(t, func(s *sides) {
		s.tls = func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" {
				return
			}
			for range 3 {
				io.WriteString(w, "tick\n")
				w.(http.Flusher).Flush()
				<-next
			}
		}
	})
	c := s.client(s.addr)
	s.learn(c)
	resp, err := c.Get("http://m.example/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for range 3 {
		b := make([]byte, 5)
		if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "tick\n" {
			t.Fatalf("%q %v", b, err)
		}
		next <- struct{}{}
	}
}

// FuzzTellsApart: no answer of a server makes it panic, and one that names the clear
// side of the same host is always found out.
func FuzzTellsApart(f *testing.F) {
	f.Add(302, "http://m.example/x", "a=b; Secure")
	f.Add(301, "//m.example", "a=b; secure=1; Path=/")
	f.Add(200, "", "Secure")
	f.Add(308, "HTTP://M.EXAMPLE:80", ";;;")
	f.Fuzz(func(t *testing.T, status int, location, cookie string) {
		resp := &http.Response{StatusCode: status, Header: http.Header{"Location": {location}, "Set-Cookie": {cookie}}}
		why := tellsApart(resp, "m.example")
		if status/100 == 3 && strings.EqualFold(location, "http://m.example/") && why == "" {
			t.Errorf("%q was not found out", location)
		}
		leadsToHTTPS(resp, "m.example")
	})
}
