package proxy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
)

// benchLab is a proxy on loopback in front of one origin, with no journal.
func benchLab(b *testing.B, origin netip.AddrPort, conns int) (addr string, p *Proxy) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	port := addrPort(l.Addr()).Port()
	l.Close()
	p, err = New(Config{
		Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, HTTPPort: port, MaxConns: conns,
		Devices: devicesFunc(func(netip.Addr) (devices.Device, bool) {
			return devices.Device{ID: "toy", Mode: devices.ModeGuard}, true
		}),
		Decider:  blocking("tracker.example"),
		Own:      func(netip.Addr) bool { return false },
		Inside:   func(netip.Addr) bool { return false },
		Original: func(net.Conn) netip.AddrPort { return origin },
	})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.Run(b.Context()) }()
	b.Cleanup(func() {
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	addr = fmt.Sprintf("127.0.0.1:%d", port)
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return addr, p
		}
		time.Sleep(time.Millisecond)
	}
}

// benchOrigin serves with handle until the benchmark ends.
func benchOrigin(b *testing.B, handle func(net.Conn)) netip.AddrPort {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { handle(c); c.Close() }()
		}
	}()
	return addrPort(l.Addr())
}

func BenchmarkSplicedBytes(b *testing.B) {
	block := make([]byte, 1<<20)
	origin := benchOrigin(b, func(c net.Conn) {
		for {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	proxied, _ := benchLab(b, origin, 16)
	for name, addr := range map[string]string{"direct": origin.String(), "spliced": proxied} {
		b.Run(name, func(b *testing.B) {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, "\x00")
			b.SetBytes(1 << 20)
			buf := make([]byte, 1<<20)
			for b.Loop() {
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkConnection(b *testing.B) {
	origin := benchOrigin(b, func(c net.Conn) { io.Copy(c, c) })
	proxied, _ := benchLab(b, origin, 64)
	for name, addr := range map[string]string{"direct": origin.String(), "spliced": proxied} {
		b.Run(name, func(b *testing.B) {
			buf := make([]byte, 5)
			b.ReportAllocs()
			for b.Loop() {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					b.Fatal(err)
				}
				io.WriteString(c, "\x00ping")
				if _, err := io.ReadFull(c, buf); err != nil {
					b.Fatal(err)
				}
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
		})
	}
}

func BenchmarkRequest(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })}
	go s.Serve(l)
	b.Cleanup(func() { s.Close() })
	proxied, _ := benchLab(b, addrPort(l.Addr()), 64)
	for name, addr := range map[string]string{"direct": l.Addr().String(), "proxied": proxied} {
		b.Run(name, func(b *testing.B) {
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			c := &http.Client{Transport: tr}
			b.ReportAllocs()
			for b.Loop() {
				resp, err := c.Get("http://" + addr + "/")
				if err != nil {
					b.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
}

// BenchmarkIdle reports what an idle connection holds, heap and stacks: the two
// sockets of the proxy, and the two of the benchmark's own sides.
func BenchmarkIdle(b *testing.B) {
	first := map[string]string{
		"spliced": "\x00x", "http": "GET / HTTP/1.1\r\nHost: m.example\r\n\r\n",
		"websocket": "GET / HTTP/1.1\r\nHost: m.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
	}
	answers := map[string]string{
		"http":      "HTTP/1.1 204 No Content\r\n\r\n", // now between two requests
		"websocket": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
	}
	for name, say := range first {
		b.Run(name, func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			const conns = 500
			addr, p := benchLab(b, addrPort(l.Addr()), 2*conns+2)
			for b.Loop() {
				var all []net.Conn
				before := memory()
				for range conns {
					c, err := net.Dial("tcp", addr)
					if err != nil {
						b.Fatal(err)
					}
					io.WriteString(c, say)
					o, err := l.Accept()
					if err != nil {
						b.Fatal(err)
					}
					if answer := answers[name]; answer != "" {
						buf := make([]byte, 200)
						o.Read(buf)
						io.WriteString(o, answer)
						c.Read(buf)
					}
					all = append(all, c, o)
				}
				for p.parking.len() < 2*conns { // until every one of them rests
					time.Sleep(10 * time.Millisecond)
				}
				b.ReportMetric(float64(memory()-before)/conns, "B/conn")
				for _, c := range all {
					c.Close()
				}
				for len(p.slots) > 0 {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
}

func memory() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// BenchmarkWitness is what looking at one more request costs.
func BenchmarkWitness(b *testing.B) {
	r, err := http.NewRequest("GET", "http://m.example/v1/event?id=7&mac=a4:cf:12:9b:77:e1", nil)
	if err != nil {
		b.Fatal(err)
	}
	r.RequestURI, r.Header = r.URL.RequestURI(), http.Header{
		"User-Agent": {"toy/1.2 (Linux; armv7l)"}, "Accept": {"*/*"}, "Cookie": {"session=0123456789abcdef"}, "X-Firmware": {"1.2.3"},
	}
	c := &conn{src: netip.MustParseAddrPort("192.168.1.7:40000"), dst: netip.MustParseAddrPort("192.0.2.1:80")}
	b.ReportAllocs()
	for b.Loop() {
		if c.dissectRequest(r, nil).Exposure == nil {
			b.Fatal("nothing was seen")
		}
	}
}

// BenchmarkStrip is what taking trackers out of one request costs.
func BenchmarkStrip(b *testing.B) {
	p := &Proxy{tracking: readTrackingHeaders()}
	header := http.Header{"User-Agent": {"toy/1.2"}, "Accept": {"*/*"}, "Cookie": {"a=b"}, "Referer": {"http://news.example/a"}, "X-Uidh": {"x"}}
	b.ReportAllocs()
	for b.Loop() {
		r := &http.Request{Host: "cdn.tracker.example", Header: header.Clone()}
		p.strip(r, func(string) {})
	}
}
