package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
)

// rawOrigin answers each request with the same bytes and keeps what it was sent.
type rawOrigin struct {
	addr netip.AddrPort
	mu   sync.Mutex
	got  bytes.Buffer
}

func newRawOrigin(t *testing.T, answer string) *rawOrigin {
	o := &rawOrigin{}
	o.addr = listen(t, func(c net.Conn) {
		br := bufio.NewReader(io.TeeReader(c, lockedWriter{o}))
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			io.Copy(io.Discard, r.Body)
			io.WriteString(c, answer)
			if strings.HasPrefix(answer, "HTTP/1.0") {
				return
			}
		}
	})
	return o
}

type lockedWriter struct{ o *rawOrigin }

func (w lockedWriter) Write(b []byte) (int, error) {
	w.o.mu.Lock()
	defer w.o.mu.Unlock()
	return w.o.got.Write(b)
}

func (o *rawOrigin) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.got.String()
}

const ok204 = "HTTP/1.1 204 No Content\r\n\r\n"

// raw sends bytes as they are and gives what comes back until the other side
// ends or is silent for a while.
func (l *lab) raw(dst netip.AddrPort, request string) string {
	l.t.Helper()
	c := l.dial(dst)
	defer c.Close()
	io.WriteString(c, request)
	// A busy machine may take its time to answer; what follows an answer comes at once.
	c.SetReadDeadline(time.Now().Add(3 * time.Second))
	b := make([]byte, 1)
	if n, _ := c.Read(b); n == 0 {
		return ""
	}
	c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	rest, _ := io.ReadAll(c)
	return string(b) + string(rest)
}

func TestRequestsReachTheOriginAsTheyWere(t *testing.T) {
	for name, c := range map[string]struct{ send, want string }{
		"nothing is added":      {"GET /a?b=%2F HTTP/1.1\r\nHost: Maker.Example:80\r\n\r\n", "GET /a?b=%2F HTTP/1.1\r\nHost: Maker.Example:80\r\n\r\n"},
		"user agent and coding": {"GET / HTTP/1.1\r\nHost: m.example\r\nUser-Agent: toy/1\r\nAccept-Encoding: br\r\n\r\n", "GET / HTTP/1.1\r\nHost: m.example\r\nUser-Agent: toy/1\r\nAccept-Encoding: br\r\n\r\n"},
		"escapes in the path":   {"GET /%7Euser/a%2fb//c HTTP/1.1\r\nHost: m.example\r\n\r\n", "GET /%7Euser/a%2fb//c HTTP/1.1\r\nHost: m.example\r\n\r\n"},
		"two slashes":           {"GET //x.example/a HTTP/1.1\r\nHost: m.example\r\n\r\n", "GET //x.example/a HTTP/1.1\r\nHost: m.example\r\n\r\n"},
		"the whole server":      {"OPTIONS * HTTP/1.1\r\nHost: m.example\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: m.example\r\n\r\n"},
		"an odd method":         {"PROPFIND / HTTP/1.1\r\nHost: m.example\r\n\r\n", "PROPFIND / HTTP/1.1\r\nHost: m.example\r\n\r\n"},
		"a body":                {"POST / HTTP/1.1\r\nHost: m.example\r\nContent-Length: 3\r\n\r\nabc", "POST / HTTP/1.1\r\nHost: m.example\r\nContent-Length: 3\r\n\r\nabc"},
		"credentials":           {"GET / HTTP/1.1\r\nHost: m.example\r\nAuthorization: Basic eDp5\r\n\r\n", "GET / HTTP/1.1\r\nHost: m.example\r\nAuthorization: Basic eDp5\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newRawOrigin(t, ok204)
			l := newLab(t, nil)
			if got := l.raw(o.addr, c.send); !strings.HasPrefix(got, "HTTP/1.1 204") {
				t.Errorf("answer %q", got)
			}
			if got := o.text(); got != c.want {
				t.Errorf("the origin got\n%q, want\n%q", got, c.want)
			}
		})
	}
}

// One path of a host is blocked, on a connection that goes on; a rule made while a
// later request runs takes hold of it.
func TestRulesByPath(t *testing.T) {
	hang := make(chan struct{})
	origin := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello")
		if r.URL.Path == "/stream" {
			w.(http.Flusher).Flush()
			<-hang
		}
	})
	defer close(hang)
	rules := policy.NewEngine(nil)
	block := func(paths ...string) {
		var c policy.Config
		for i, p := range paths {
			c.Rules = append(c.Rules, policy.Rule{ID: int64(i), Action: policy.Block, Name: "m.example", Path: p})
		}
		set, err := policy.Compile(c)
		if err != nil {
			t.Fatal(err)
		}
		rules.Swap(set)
	}
	block("/collect")
	l := newLab(t, func(c *Config) { c.Decider = rules })
	c := l.client(origin)
	for _, x := range []struct {
		path   string
		status int
	}{{"/", 200}, {"/collect", 403}, {"/%63ollect/x?y=1", 403}, {"/x/..//collect", 403}, {"/collected", 200}} {
		if resp, body := get(t, c, "http://m.example"+x.path); resp.StatusCode != x.status {
			t.Errorf("%s: %d %q, want %d", x.path, resp.StatusCode, body, x.status)
		}
	}
	if len(l.dsts) != 1 {
		t.Errorf("%d connections for one client", len(l.dsts))
	}
	resp, err := c.Get("http://m.example/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	l.Reconsider()
	io.ReadFull(resp.Body, make([]byte, 5))
	block("/collect", "/stream")
	l.Reconsider()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("a rule by path does not end what runs")
	}
}

func TestOldClientWithoutHost(t *testing.T) {
	o := newRawOrigin(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
	l := newLab(t, nil)
	got := l.raw(o.addr, "GET /old HTTP/1.0\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.0 200 OK\r\n") || !strings.HasSuffix(got, "\r\n\r\nhi") {
		t.Errorf("%q", got)
	}
	if !strings.HasPrefix(o.text(), "GET /old HTTP/1.1\r\nHost: "+o.addr.String()) {
		t.Errorf("the origin got %q", o.text())
	}
}

func TestAnswersReachTheClientAsTheyWere(t *testing.T) {
	for name, c := range map[string]struct{ send, answer, want string }{
		"no type is guessed": {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nDate: x\r\n\r\n<html>", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nDate: x\r\n\r\n<html>"},
		"length of a HEAD":   {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 6000\r\nDate: x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 6000\r\nDate: x\r\n\r\n"},
		"not modified":       {"GET", "HTTP/1.1 304 Not Modified\r\nDate: x\r\nEtag: \"y\"\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nDate: x\r\nEtag: \"y\"\r\n\r\n"},
		"gzip is left alone": {"GET", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\nDate: x\r\n\r\n\x1f\x8b", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\nDate: x\r\n\r\n\x1f\x8b"},
		"chunks":             {"GET", "HTTP/1.1 200 OK\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"},
		"several cookies":    {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: x\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newRawOrigin(t, c.answer)
			l := newLab(t, nil)
			if got := l.raw(o.addr, c.send+" / HTTP/1.1\r\nHost: m.example\r\n\r\n"); got != c.want {
				t.Errorf("the client got\n%q, want\n%q", got, c.want)
			}
		})
	}
}

func TestContinueAndTrailersPass(t *testing.T) {
	origin := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Sum")
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s", b)
		w.Header().Set("Sum", fmt.Sprint(len(b)))
	})
	l := newLab(t, nil)
	c := l.dial(origin)
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: m.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	br := bufio.NewReader(c)
	line, err := br.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Fatalf("%q %v, want to be told to go on", line, err)
	}
	br.ReadString('\n')
	io.WriteString(c, "12345")
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(resp.Body); string(b) != "12345" || resp.Trailer.Get("Sum") != "5" {
		t.Errorf("%q, trailer %v", b, resp.Trailer)
	}
}

// Shapes by which one request is hidden in another. Each is refused, or reaches
// the origin as the one request that it is.
func TestSmuggling(t *testing.T) {
	evil := "GET /evil HTTP/1.1\r\nHost: a.tracker.example\r\n\r\n"
	for name, send := range map[string]string{
		"length and chunked":       "POST / HTTP/1.1\r\nHost: m.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two lengths":              "POST / HTTP/1.1\r\nHost: m.example\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\n" + evil,
		"coding with a space":      "POST / HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + evil,
		"a coding nobody knows":    "POST / HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + evil,
		"a folded field":           "GET / HTTP/1.1\r\nHost: m.example\r\nX: a\r\n Content-Length: 40\r\n\r\n",
		"two hosts":                "GET / HTTP/1.1\r\nHost: m.example\r\nHost: a.tracker.example\r\n\r\n",
		"a bare CR":                "GET / HTTP/1.1\r\nHost: m.example\r\nX: a\rHost: a.tracker.example\r\n\r\n",
		"a NUL":                    "GET / HTTP/1.1\r\nHost: m.example\x00.tracker.example\r\n\r\n",
		"chunk size with rubbish":  "POST / HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + evil,
		"chunk longer than it is":  "POST / HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n" + evil,
		"negative length":          "POST / HTTP/1.1\r\nHost: m.example\r\nContent-Length: -1\r\n\r\n" + evil,
		"an empty line before":     "\r\n\r\nGET / HTTP/1.1\r\nHost: a.tracker.example\r\n\r\n",
		"host in the request line": "GET http://m.example/ HTTP/1.1\r\nHost: a.tracker.example\r\n\r\n",
		"lower-case method":        "get / HTTP/1.1\r\nHost: a.tracker.example\r\n\r\n",
		"version 1.9":              "GET / HTTP/1.9\r\nHost: a.tracker.example\r\n\r\n",
		"userinfo":                 "GET / HTTP/1.1\r\nHost: m.example@a.tracker.example\r\n\r\n",
		"a list of hosts":          "GET / HTTP/1.1\r\nHost: a.tracker.example, m.example\r\n\r\n",
		"blocked, then pipelined":  evil + evil,
	} {
		t.Run(name, func(t *testing.T) {
			o := newRawOrigin(t, ok204)
			l := newLab(t, nil)
			answer := l.raw(o.addr, send)
			got := o.text()
			if strings.Contains(got, "evil") || strings.Contains(strings.ToLower(got), "tracker") {
				t.Errorf("the origin got %q", got)
			}
			if n := strings.Count(got, "HTTP/1."); n > 1 {
				t.Errorf("%d requests reached the origin: %q", n, got)
			}
			if got == "" && !strings.HasPrefix(answer, "HTTP/1.1 4") && !strings.HasPrefix(answer, "HTTP/1.1 5") && answer != "" {
				t.Errorf("not carried, yet answered %q", answer)
			}
		})
	}
}

func TestNormalHost(t *testing.T) {
	for in, want := range map[string]string{
		"Maker.Example": "maker.example", "maker.example.": "maker.example", "maker.example:80": "maker.example", "maker.example.:8080": "maker.example",
		"": "", "bücher.example": "xn--bcher-kva.example", "_x.example": "_x.example", "maker.example:": "maker.example",
		"192.0.2.1": "=192.0.2.1", "192.0.2.1:80": "=192.0.2.1", "[2001:db8::1]": "=2001:db8::1", "[2001:db8::1]:80": "=2001:db8::1", "[::ffff:192.0.2.1]": "=192.0.2.1",
	} {
		n, a, err := normalHost(in)
		got := string(n)
		if a.IsValid() {
			got = "=" + a.String()
		}
		if err != nil || got != want {
			t.Errorf("%q: %q %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"a b", "a@b", "a/b", "a,b", "a:b", "a:80:80", ":80:", "a..b", ".", "a:999999", "[::1", "[::1]x", "[x]", "a%2eb", "a\\b", strings.Repeat("a", 64) + ".example"} {
		if n, a, err := normalHost(in); err == nil {
			t.Errorf("%q was taken as %q %s", in, n, a)
		}
	}
}

func FuzzNormalHost(f *testing.F) {
	for _, s := range []string{"maker.example:80", "[2001:db8::1]:80", "192.0.2.1", "MAKER.example.", "bücher.example", ":", "[]", "%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		n, a, err := normalHost(host)
		if err != nil {
			return
		}
		if n != "" && a.IsValid() {
			t.Errorf("%q is both %q and %s", host, n, a)
		}
		if p, err := dnsname.Parse(string(n)); err != nil || p != n {
			t.Errorf("%q became %q, which is not in normal form (%q, %v)", host, n, p, err)
		}
		if again, b, err := normalHost(string(n)); a == (netip.Addr{}) && (err != nil || again != n || b.IsValid()) {
			t.Errorf("%q became %q, which became %q %s %v", host, n, again, b, err)
		}
	})
}

// FuzzClassify: the answer never changes once it is given, whatever comes after.
func FuzzClassify(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), uint16(3))
	f.Add([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"), uint16(5))
	f.Add([]byte("\r\n\r\nEHLO x\r\n"), uint16(1))
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		whole, _ := classify(b)
		part, _ := classify(b[:min(int(cut), len(b))])
		if part != undetermined && part != whole {
			t.Errorf("%q: first %d, then %d", b, part, whole)
		}
		if whole == undetermined && len(b) >= maxPeek {
			t.Errorf("%d bytes and still nothing is known", len(b))
		}
	})
}
