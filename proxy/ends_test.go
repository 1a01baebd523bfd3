package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
)

// holding is a lab in front of an origin, m.example at 192.0.2.1, whose connections go
// on until the other side ends them.
type holding struct {
	*lab
	rules    *policy.Engine
	mode     atomic.Value // devices.Mode, of the device
	carry    atomic.Bool
	barred   atomic.Bool // by the firewall
	explicit uint16
	open     atomic.Int64                       // connections that the origin holds
	got      chan string                        // the first line of what the origin was sent
	judging  atomic.Pointer[func(policy.Query)] // called when a name was judged
	looking  atomic.Pointer[func()]             // called when it was looked up how the device is treated
}

func newHolding(t *testing.T) *holding {
	t.Helper()
	h := &holding{rules: policy.NewEngine(nil), explicit: freePort(t), got: make(chan string, 64)}
	h.mode.Store(devices.ModeGuard)
	h.block()
	clear := listen(t, h.hold)
	banner := listen(t, func(c net.Conn) { io.WriteString(c, "220 hello\r\n"); h.hold(c) })
	ca, leaf := authority(t, "m.example")
	encrypted := listen(t, func(c net.Conn) { h.hold(tls.Server(c, &tls.Config{Certificates: []tls.Certificate{leaf}})) })
	device := func() devices.Device {
		d := devices.Device{ID: "toy", MACs: []devices.MAC{{2, 2}}, Mode: h.mode.Load().(devices.Mode), Log: devices.LogNames, CarryEncrypted: h.carry.Load()}
		if f := h.looking.Load(); f != nil {
			(*f)()
		}
		return d
	}
	h.lab = newLab(t, func(c *Config) {
		c.ExplicitPort, c.Roots, c.SilentAfter, c.PeekTimeout = h.explicit, ca, 50*time.Millisecond, time.Minute
		c.Decider = deciderFunc(func(q policy.Query) policy.Verdict {
			v := h.rules.Decide(q)
			if f := h.judging.Load(); f != nil {
				(*f)(q)
			}
			return v
		})
		c.Devices = household{device}
		c.GoesOn = func(d devices.Device, client netip.Addr, to netip.AddrPort) bool {
			if d.ID != "toy" || !client.IsLoopback() || to.Addr() != netip.MustParseAddr("192.0.2.1") {
				t.Errorf("the firewall is asked for %s from %s to %s", d.ID, client, to)
			}
			return !h.barred.Load()
		}
		c.LookUp = func(context.Context, netip.Addr, dnsname.Name) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
		}
		c.NameOf = func(devices.ID, netip.Addr) dnsname.Name { return "m.example" }
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			to := clear
			switch {
			case addr == "192.0.2.1:25":
				to = banner
			case addr == "192.0.2.1:443" && h.carry.Load():
				to = encrypted
			}
			return (&net.Dialer{}).DialContext(ctx, network, to.String())
		}
	})
	return h
}

// household knows one device, as it is treated now.
type household struct{ now func() devices.Device }

func (h household) ByAddr(netip.Addr) (devices.Device, bool) { return h.now(), true }
func (h household) ByID(devices.ID) (devices.Device, bool)   { return h.now(), true }

// block makes the household's rules: the names that are blocked.
func (h *holding) block(names ...dnsname.Name) {
	c := policy.Config{}
	for i, n := range names {
		c.Rules = append(c.Rules, policy.Rule{ID: int64(i + 1), Action: policy.Block, Name: n})
	}
	set, err := policy.Compile(c)
	if err != nil {
		panic(err)
	}
	h.rules.Swap(set)
}

// hold answers each request by its path, and holds the connection.
func (h *holding) hold(c net.Conn) {
	h.open.Add(1)
	defer h.open.Add(-1)
	br := bufio.NewReader(c)
	for {
		line, err := br.ReadString('\n')
		if line != "" {
			h.got <- line
		}
		if err != nil {
			return
		}
		for field := ""; field != "\r\n" && strings.Contains(line, "HTTP/1"); {
			if field, err = br.ReadString('\n'); err != nil {
				return
			}
		}
		switch path, _, _ := strings.Cut(line[strings.IndexByte(line, ' ')+1:], " "); path {
		case "/", "/keep":
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			continue
		case "/stream":
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
		case "/ws":
			io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nok")
		case "/large":
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\nok")
			c.Write(make([]byte, 1<<20))
		}
		io.Copy(io.Discard, br) // until the other side ends it
		return
	}
}

func (h *holding) askExplicit(t *testing.T, say string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 5)}}
	c, err := d.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", h.explicit))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	io.WriteString(c, say)
	return c
}

func (h *holding) ask(say string) net.Conn {
	c := h.dial(netip.MustParseAddrPort("192.0.2.1:80"))
	io.WriteString(c, say)
	return c
}

// hears reads what c is sent until it has heard what.
func hears(t *testing.T, c net.Conn, what string) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patient))
	var all []byte
	for b := make([]byte, 1); !strings.HasSuffix(string(all), what); {
		if _, err := c.Read(b); err != nil {
			t.Fatalf("heard %q, then %v; want %q", all, err, what)
		}
		all = append(all, b...)
	}
}

// running are all the kinds of connections that we carry, each as it runs.
var running = map[string]func(t *testing.T, h *holding) net.Conn{
	"HTTP between two requests": func(t *testing.T, h *holding) net.Conn {
		c := h.ask("GET /keep HTTP/1.1\r\nHost: m.example\r\n\r\n")
		hears(t, c, "\r\n\r\nok")
		return c
	},
	"HTTP at rest": func(t *testing.T, h *holding) net.Conn {
		c := h.ask("GET /keep HTTP/1.1\r\nHost: m.example\r\n\r\n")
		hears(t, c, "\r\n\r\nok")
		h.waitForRest(2)
		return c
	},
	"HTTP stream": func(t *testing.T, h *holding) net.Conn {
		c := h.ask("GET /stream HTTP/1.1\r\nHost: m.example\r\n\r\n")
		hears(t, c, "ok\r\n")
		return c
	},
	"HTTP large body": func(t *testing.T, h *holding) net.Conn {
		c := h.ask("GET /large HTTP/1.1\r\nHost: m.example\r\n\r\n")
		hears(t, c, "\r\n\r\nok")
		return c
	},
	"HTTP long poll": func(t *testing.T, h *holding) net.Conn {
		c := h.ask("GET /poll HTTP/1.1\r\nHost: m.example\r\n\r\n")
		<-h.got
		return c
	},
	"HTTP upload": func(t *testing.T, h *holding) net.Conn {
		c := h.ask("POST /up HTTP/1.1\r\nHost: m.example\r\nContent-Length: 1000000\r\n\r\nbegin" + strings.Repeat(".", 8<<10))
		<-h.got
		return c
	},
	"HTTP on port 443, first line": func(t *testing.T, h *holding) net.Conn {
		c := h.dial(netip.MustParseAddrPort("192.0.2.1:443"))
		io.WriteString(c, "GET /stream HTTP/1.1\r\nHost: m.example\r\n\r\n")
		hears(t, c, "ok\r\n")
		return c
	},
	"WebSocket": func(t *testing.T, h *holding) net.Conn {
		c := h.ask("GET /ws HTTP/1.1\r\nHost: m.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		hears(t, c, "\r\n\r\nok")
		return c
	},
	"WebSocket at rest": func(t *testing.T, h *holding) net.Conn {
		c := h.ask("GET /ws HTTP/1.1\r\nHost: m.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		hears(t, c, "\r\n\r\nok")
		h.waitForRest(2)
		return c
	},
	"TLS": func(t *testing.T, h *holding) net.Conn {
		c := h.ask(string(clientHello(t, "m.example")) + "\n")
		<-h.got
		return c
	},
	"TLS at rest": func(t *testing.T, h *holding) net.Conn {
		c := h.ask(string(clientHello(t, "m.example")) + "\n")
		<-h.got
		h.waitForRest(2)
		return c
	},
	"another protocol": func(t *testing.T, h *holding) net.Conn {
		c := h.ask("\x10\x0c\x00\x04MQTT\n")
		<-h.got
		return c
	},
	"nobody speaks": func(t *testing.T, h *holding) net.Conn {
		c := h.ask("")
		h.waitForRest(2)
		return c
	},
	"the server speaks first": func(t *testing.T, h *holding) net.Conn {
		c := h.dial(netip.MustParseAddrPort("192.0.2.1:25"))
		hears(t, c, "220 hello\r\n")
		return c
	},
	"carried encrypted": func(t *testing.T, h *holding) net.Conn {
		h.carry.Store(true)
		c := h.ask("GET /keep HTTP/1.1\r\nHost: m.example\r\n\r\n")
		hears(t, c, "\r\n\r\nok")
		for h.Asked().Able == 0 {
			time.Sleep(time.Millisecond)
		}
		io.WriteString(c, "GET /stream HTTP/1.1\r\nHost: m.example\r\n\r\n")
		hears(t, c, "ok\r\n")
		if n := h.open.Load(); n < 2 {
			t.Errorf("the origin holds %d connections: nothing goes over TLS", n)
		}
		return c
	},
	"explicit, tunnel": func(t *testing.T, h *holding) net.Conn {
		c := h.askExplicit(t, "CONNECT m.example:443 HTTP/1.1\r\nHost: m.example:443\r\n\r\n"+string(clientHello(t, "m.example"))+"\n")
		<-h.got
		return c
	},
	"explicit, tunnel at rest": func(t *testing.T, h *holding) net.Conn {
		c := h.askExplicit(t, "CONNECT m.example:443 HTTP/1.1\r\nHost: m.example:443\r\n\r\n"+string(clientHello(t, "m.example"))+"\n")
		<-h.got
		h.waitForRest(2)
		return c
	},
	"explicit, stream": func(t *testing.T, h *holding) net.Conn {
		c := h.askExplicit(t, "GET http://m.example/stream HTTP/1.1\r\nHost: m.example\r\n\r\n")
		hears(t, c, "ok\r\n")
		return c
	},
	"explicit, at rest": func(t *testing.T, h *holding) net.Conn {
		c := h.askExplicit(t, "GET http://m.example/keep HTTP/1.1\r\nHost: m.example\r\n\r\n")
		hears(t, c, "\r\n\r\nok")
		h.waitForRest(2)
		return c
	},
}

// What runs ends at once on both sides, with no byte more, when its device loses the
// internet or its destination is blocked, whatever it is and however it came to us.
func TestWhatIsRefusedNowEndsAtOnce(t *testing.T) {
	reasons := map[string]func(*holding){
		"the device is cut":    func(h *holding) { h.mode.Store(devices.ModeLocal) },
		"the name is blocked":  func(h *holding) { h.block("m.example") },
		"the firewall bars it": func(h *holding) { h.barred.Store(true) },
	}
	var all sync.WaitGroup // they mostly wait: not only as many at a time as there are processors
	defer all.Wait()
	for name, run := range running {
		for why, change := range reasons {
			all.Go(func() {
				t.Run(name+"/"+why, func(t *testing.T) {
					h := newHolding(t)
					c := run(t, h)
					for deadline := time.Now().Add(patient); h.open.Load() == 0; { // it has only just been taken up
						if time.Now().After(deadline) {
							t.Fatal("the origin holds no connection")
						}
						time.Sleep(time.Millisecond)
					}
					h.Reconsider() // of something else
					if n := h.open.Load(); n == 0 {
						t.Fatal("it ended for nothing")
					}
					change(h)
					h.Reconsider()
					c.SetReadDeadline(time.Now().Add(patient))
					if _, err := io.Copy(io.Discard, c); isTimeout(err) {
						t.Error("the device's side goes on")
					}
					deadline := time.Now().Add(patient)
					for h.open.Load() > 0 || len(h.slots) > 0 {
						if time.Now().After(deadline) {
							t.Fatalf("the origin holds %d connections, we %d", h.open.Load(), len(h.slots))
						}
						time.Sleep(time.Millisecond)
					}
				})
			})
		}
	}
}

// A choice that is made while a connection is being judged takes hold of it, too.
func TestChoicesMadeWhileJudging(t *testing.T) {
	for name, first := range map[string]string{
		"HTTP": "GET /stream HTTP/1.1\r\nHost: m.example\r\n\r\n",
		"TLS":  string(clientHello(t, "m.example")) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			h := newHolding(t)
			var once atomic.Bool
			h.judging.Store(new(func(q policy.Query) {
				if q.Name == "m.example" && once.CompareAndSwap(false, true) {
					h.block("m.example")
					h.Reconsider()
				}
			}))
			c := h.ask(first)
			c.SetReadDeadline(time.Now().Add(patient))
			if b, err := io.ReadAll(c); isTimeout(err) || strings.Contains(string(b), "200 OK") {
				t.Errorf("it is carried: %q %v", b, err)
			}
			select {
			case line := <-h.got:
				t.Errorf("the origin got %q", line)
			default:
			}
		})
	}
}

// Nor does it matter at which of the looks at a device it is cut.
func TestCutWhileLookedAt(t *testing.T) {
	for look := range int64(4) {
		t.Run(fmt.Sprint(look), func(t *testing.T) {
			h := newHolding(t)
			var looks atomic.Int64
			h.looking.Store(new(func() {
				if looks.Add(1) == look+1 {
					h.mode.Store(devices.ModeLocal)
					h.Reconsider()
				}
			}))
			c := h.ask("GET /stream HTTP/1.1\r\nHost: m.example\r\n\r\n")
			for deadline := time.Now().Add(patient); looks.Load() < 2; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("nobody looks at the device")
				}
			}
			if looks.Load() <= look {
				h.mode.Store(devices.ModeLocal) // it was not looked at so often
				h.Reconsider()
			}
			c.SetReadDeadline(time.Now().Add(patient))
			if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil && resp.StatusCode == 200 {
				if _, err := io.Copy(io.Discard, resp.Body); isTimeout(err) {
					t.Error("it is carried")
				}
			}
		})
	}
}

// Requests on a connection that goes on are judged by how its device is treated now.
func TestNextRequestIsJudgedByTodaysMode(t *testing.T) {
	h := newHolding(t)
	for target, ask := range map[string]func(first string) net.Conn{
		"/keep":                 func(first string) net.Conn { return h.ask(first) },
		"http://m.example/keep": func(first string) net.Conn { return h.askExplicit(t, first) },
	} {
		request := "GET " + target + " HTTP/1.1\r\nHost: m.example\r\n\r\n"
		h.mode.Store(devices.ModeGuard)
		c := ask(request)
		hears(t, c, "\r\n\r\nok")
		h.mode.Store(devices.ModeLocal)
		io.WriteString(c, request)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 403 {
			t.Errorf("%s: %v %v", target, resp, err)
		}
	}
}

// The proxy's own probe takes no place of a device's and ends nothing that rests; it
// says that there is no room only where a device would find none.
func TestProbeTakesNoPlace(t *testing.T) {
	h := newHolding(t)
	for len(h.slots) < cap(h.slots) {
		h.slots <- struct{}{} // others
	}
	if err := h.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "max_connections") {
		t.Errorf("all places are taken and nobody rests, yet the probe says %v", err)
	}
	<-h.slots
	c := h.ask("GET /keep HTTP/1.1\r\nHost: m.example\r\n\r\n")
	hears(t, c, "\r\n\r\nok")
	h.waitForRest(2)
	for range 20 {
		if err := h.Probe(t.Context()); err != nil {
			t.Errorf("who rests would make room, yet the probe says %v", err)
		}
	}
	if n := h.parking.len(); n != 2 {
		t.Errorf("%d sockets rest after the probes, want 2", n)
	}
	for len(h.slots) > 1 {
		<-h.slots
	}
}

// Asking a server by ourselves whether it answers encrypted takes no place, either.
func TestAskingTakesNoPlace(t *testing.T) {
	h := newHolding(t)
	h.carry.Store(true)
	for len(h.slots) < cap(h.slots)-1 {
		h.slots <- struct{}{}
	}
	c := h.ask("GET /keep HTTP/1.1\r\nHost: m.example\r\n\r\n")
	hears(t, c, "\r\n\r\nok")
	for deadline := time.Now().Add(patient); h.Asked().Able == 0; {
		if time.Now().After(deadline) {
			t.Fatalf("at the cap: %+v", h.Asked())
		}
		time.Sleep(time.Millisecond)
	}
	io.WriteString(c, "GET /keep HTTP/1.1\r\nHost: m.example\r\n\r\n")
	hears(t, c, "\r\n\r\nok")
	if n := len(h.slots); n != cap(h.slots) {
		t.Errorf("%d places are taken, want all %d and no connection ended", n, cap(h.slots))
	}
	for len(h.slots) > 1 {
		<-h.slots
	}
}
