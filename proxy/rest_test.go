package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// waitForRest waits until n sockets are only waited for.
func (l *lab) waitForRest(n int) {
	l.t.Helper()
	deadline := time.Now().Add(patient)
	for l.parking.len() != n {
		if time.Now().After(deadline) {
			l.t.Fatalf("%d sockets rest, want %d", l.parking.len(), n)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func exchange1(t *testing.T, c net.Conn, br *bufio.Reader, path string) (*http.Response, string) {
	t.Helper()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: m.example\r\n\r\n", path)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return resp, string(b)
}

// Neither the device nor the origin sees that nobody serves their connection between
// two requests: it is the same one on both sides, and the origin's end is the device's.
func TestRestIsInvisible(t *testing.T) {
	t.Parallel()
	end := make(chan bool)
	origin := listen(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			who := c.RemoteAddr().String()
			if r.URL.Path == "/poll" {
				time.Sleep(linger + time.Second) // longer than a silence that is a rest
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(who), who)
			if r.URL.Path == "/last" {
				<-end
				return
			}
		}
	})
	l := newLab(t, nil)
	c := l.dial(origin)
	c.SetDeadline(time.Now().Add(patient))
	br := bufio.NewReader(c)
	_, first := exchange1(t, c, br, "/")
	for _, path := range []string{"/again", "/poll", "/last"} {
		l.waitForRest(2)
		if _, who := exchange1(t, c, br, path); who != first {
			t.Errorf("%s came from %s, the first request from %s", path, who, first)
		}
	}
	l.waitForRest(2)
	close(end)
	if _, err := br.ReadByte(); err != io.EOF {
		t.Errorf("the origin ended its side: the device sees %v, want the end", err)
	}
	if f := l.wait(t, 1); len(f) != 1 || f[0].Flow.Counters.Reply.Bytes == 0 {
		t.Errorf("%d flows for one connection", len(f))
	}
}

// net/http's transport lets go of connections that nobody ended, on a busy machine: the
// device does not notice. One of which the origin says that it ends, ends.
func TestWhoEndsAConnectionAtRest(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	from := map[string]bool{}
	var l *lab
	origin := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		from[r.RemoteAddr] = true
		mu.Unlock()
		switch r.URL.Path {
		case "/first":
			l.live.Range(func(key, _ any) bool {
				c := key.(*conn)
				c.mu.Lock()
				defer c.mu.Unlock()
				c.upstream.CloseIdleConnections() // this one, too, once it is answered
				return true
			})
		case "/last":
			w.Header().Set("Connection", "close")
		}
	})
	l = newLab(t, nil)
	c := l.dial(origin)
	br := bufio.NewReader(c)
	exchange1(t, c, br, "/first")
	l.waitForRest(1)
	exchange1(t, c, br, "/second")
	mu.Lock()
	if len(from) != 2 {
		t.Errorf("the origin was asked over %d connections, want 2", len(from))
	}
	mu.Unlock()
	exchange1(t, c, br, "/last")
	if _, err := br.ReadByte(); err != io.EOF {
		t.Errorf("the origin ended its side: the device sees %v, want the end", err)
	}
}

// A request that begins while its connection rests arrives whole, however it is cut.
func TestRequestInPiecesAfterARest(t *testing.T) {
	t.Parallel()
	o := newRawOrigin(t, ok204)
	l := newLab(t, nil)
	c := l.dial(o.addr)
	c.SetDeadline(time.Now().Add(patient))
	br := bufio.NewReader(c)
	exchange1(t, c, br, "/first")
	l.waitForRest(2)
	for _, piece := range []string{"G", "ET /second HT", "TP/1.1\r\nHost: m.exa", "mple\r\n\r\n"} {
		io.WriteString(c, piece)
		time.Sleep(50 * time.Millisecond)
	}
	if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 204 {
		t.Errorf("%v %v", resp, err)
	}
}

// A request that is pipelined so that its first octets came with the one before, when
// its connection comes to rest, arrives whole: net/http has these octets then, and is
// told to close.
func TestPipelinedAcrossARest(t *testing.T) {
	const next = "GET /second HTTP/1.1\r\nHost: m.example\r\n\r\n"
	var all sync.WaitGroup // they mostly wait: not only as many at a time as there are processors
	defer all.Wait()
	for held := range 6 {
		for name, first := range map[string]string{
			"GET":  "GET /first HTTP/1.1\r\nHost: m.example\r\n\r\n",
			"POST": "POST /first HTTP/1.1\r\nHost: m.example\r\nContent-Length: 3\r\n\r\nabc",
		} {
			all.Go(func() {
				t.Run(fmt.Sprintf("%s, %d octets", name, held), func(t *testing.T) {
					o := newRawOrigin(t, ok204)
					l := newLab(t, nil)
					c := l.dial(o.addr)
					c.SetDeadline(time.Now().Add(patient))
					br := bufio.NewReader(c)
					io.WriteString(c, first+next[:held])
					if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 204 {
						t.Fatalf("first: %v %v", resp, err)
					}
					if held < 4 {
						l.waitForRest(2)
					} // else the request has begun, and may take its time
					io.WriteString(c, next[held:])
					if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 204 {
						t.Fatalf("second: %v %v", resp, err)
					}
					if want := first + next; o.text() != want {
						t.Errorf("the origin got\n%q, want\n%q", o.text(), want)
					}
				})
			})
		}
	}
}

// The same at the very moment when connections come to rest.
func TestPipelinedAtTheMomentOfRest(t *testing.T) {
	t.Parallel()
	var arrived atomic.Int64
	origin := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/second" {
			arrived.Add(1)
		}
		w.WriteHeader(204)
	})
	l := newLab(t, nil)
	const next = "GET /second HTTP/1.1\r\nHost: m.example\r\n\r\n"
	var all sync.WaitGroup
	for i := range 200 {
		c := l.dial(origin)
		all.Go(func() {
			c.SetDeadline(time.Now().Add(patient))
			br := bufio.NewReader(c)
			held := i % 4
			io.WriteString(c, "GET /first HTTP/1.1\r\nHost: m.example\r\n\r\n"+next[:held])
			if _, err := http.ReadResponse(br, nil); err != nil {
				t.Errorf("first: %v", err)
				return
			}
			// From 10 ms before it rests to 10 ms after, octet by octet or at once.
			time.Sleep(linger + time.Duration(i-100)*100*time.Microsecond)
			if rest := next[held:]; i%3 == 0 {
				for j := range len(rest) {
					io.WriteString(c, rest[j:j+1])
				}
			} else {
				io.WriteString(c, rest)
			}
			if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 204 {
				t.Errorf("connection %d, %d octets early: %v %v", i, held, resp, err)
			}
		})
	}
	all.Wait()
	if n := arrived.Load(); n != 200 {
		t.Errorf("%d second requests arrived whole, want 200", n)
	}
}

// Empty lines between requests say nothing, before a rest and after it.
func TestEmptyLinesAroundARest(t *testing.T) {
	t.Parallel()
	o := newRawOrigin(t, ok204)
	l := newLab(t, nil)
	c := l.dial(o.addr)
	c.SetDeadline(time.Now().Add(patient))
	br := bufio.NewReader(c)
	io.WriteString(c, "\r\nPOST /first HTTP/1.1\r\nHost: m.example\r\nContent-Length: 3\r\n\r\nabc\r\n") // as old clients do
	if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 204 {
		t.Fatalf("first: %v %v", resp, err)
	}
	l.waitForRest(2)
	exchange1(t, c, br, "/second")
}

// Slow clients hold no place for long: not with a request that never ends, and not
// with one that never begins.
func TestSlowClientsAreLetGo(t *testing.T) {
	t.Parallel()
	o := newRawOrigin(t, ok204)
	l := newLab(t, func(c *Config) {
		c.PeekTimeout, c.IdleTimeout, c.SilentAfter = 500*time.Millisecond, 500*time.Millisecond, 50*time.Millisecond
	})
	dead := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), freePort(t))
	for _, c := range []struct {
		to  netip.AddrPort
		say string
	}{{o.addr, ""}, {dead, ""}, {o.addr, "GET / HT"}, {o.addr, "GET / HTTP/1.1\r\nHost: m.example\r\n"}} {
		conn := l.dial(c.to)
		conn.SetDeadline(time.Now().Add(patient))
		go func() { // a byte now and then
			io.WriteString(conn, c.say)
			for range 100 {
				if _, err := io.WriteString(conn, c.say[:min(len(c.say), 1)]); err != nil {
					return
				}
				time.Sleep(400 * time.Millisecond)
			}
		}()
	}
	deadline := time.Now().Add(patient)
	for len(l.slots) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%d slow clients still hold their places", len(l.slots))
		}
		time.Sleep(20 * time.Millisecond)
	}
}
