package dissect

import (
	"bytes"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/internal/dnsname"
)

func TestDoneFreesTheBytes(t *testing.T) {
	c := New(flow.TCP, 80)
	c.Feed(flow.Orig, packet(flow.TCP, flow.Orig, 80, 1, []byte("GET / HTTP/1.1\r\nHost: a.example\r\n")))
	if c.Done() {
		t.Fatal("done before the head's end")
	}
	c.Feed(flow.Orig, packet(flow.TCP, flow.Orig, 80, 34, []byte("\r\n")))
	if !c.Done() || len(c.dir[0].held.buf) != 0 {
		t.Error("not done, or bytes are held still")
	}
	before := c.Result()
	c.Feed(flow.Reply, packet(flow.TCP, flow.Reply, 80, 1, []byte("SSH-2.0-late\r\n")))
	if c.Result() != before {
		t.Error("a done conversation changed its mind")
	}
}

func TestEveryConversationEnds(t *testing.T) {
	for _, p := range []flow.Proto{flow.TCP, flow.UDP} {
		c := New(p, 4711)
		for i := range uint32(100) {
			dir := flow.Dir(i & 1)
			c.Feed(dir, packet(p, dir, 4711, i*100, []byte{byte(i), 0xf3, 0x91}))
		}
		if !c.Done() {
			t.Errorf("%v is never done", p)
		}
		if r := c.Result(); r.App != "unknown" || r.Reason == "" {
			t.Errorf("%+v", r)
		}
	}
}

func TestHelloThatNeverEnds(t *testing.T) {
	hello := goHello(t, clientConfig())
	c := New(flow.TCP, 443)
	for i := range 20 { // a byte per packet, beyond what is waited for
		c.Feed(flow.Orig, packet(flow.TCP, flow.Orig, 443, uint32(i), hello[i:i+1]))
	}
	if r := c.Result(); r.App != "tls" || r.ServerName != "" || r.Protection != flow.Encrypted {
		t.Errorf("%+v", r)
	}
}

func TestOtherProtocols(t *testing.T) {
	for p, want := range map[flow.Proto]string{flow.ICMP: "icmp", 50: "esp", 51: "ah", 47: "gre", 99: "unknown"} {
		c := New(p, 0)
		c.Feed(flow.Orig, &flow.Packet{Payload: []byte("x")})
		if r := c.Result(); r.App != want || r.Reason == "" {
			t.Errorf("%v: %+v", p, r)
		}
	}
}

// The common paths, with a conversation used again, and the cost of each.
func TestAllocations(t *testing.T) {
	hello := goHello(t, clientConfig())
	for _, tc := range []struct {
		name   string
		proto  flow.Proto
		port   uint16
		sent   []byte
		budget float64
	}{
		{"tls hello in one segment", flow.TCP, 443, hello, 3}, // name, protocols, Result.TLS
		{"http request", flow.TCP, 80, []byte("GET /a/b HTTP/1.1\r\nHost: a.example\r\nUser-Agent: x\r\n\r\n"), 4},
		{"dns query", flow.UDP, 53, []byte(query(t, "a.example.")), 1},
		{"ntp", flow.UDP, 123, append([]byte{0x23}, make([]byte, 47)...), 0},
		{"unknown datagram", flow.UDP, 9, bytes.Repeat([]byte{0xf1, 3}, 100), 0},
		{"unknown segment", flow.TCP, 9, bytes.Repeat([]byte{0xf1, 3}, 100), 0},
	} {
		c := New(tc.proto, tc.port)
		p := packet(tc.proto, flow.Orig, tc.port, 1, tc.sent)
		got := testing.AllocsPerRun(200, func() {
			c.Reset(tc.proto, tc.port)
			c.Feed(flow.Orig, p)
			c.Result()
		})
		if got > tc.budget {
			t.Errorf("%s: %v allocations, at most %v", tc.name, got, tc.budget)
		}
	}
}

func BenchmarkTLSHello(b *testing.B) { benchmark(b, flow.TCP, 443, goHello(b, clientConfig())) }
func BenchmarkHTTP(b *testing.B) {
	benchmark(b, flow.TCP, 80, []byte("GET /a/b HTTP/1.1\r\nHost: a.example\r\nUser-Agent: x\r\n\r\n"))
}
func BenchmarkDNS(b *testing.B)        { benchmark(b, flow.UDP, 53, []byte(query(b, "a.example."))) }
func BenchmarkUnknownTCP(b *testing.B) { benchmark(b, flow.TCP, 9, bytes.Repeat([]byte{0xf1, 3}, 100)) }
func BenchmarkQUICInitial(b *testing.B) {
	dcid := []byte("\x83\x94\xc8\xf0\x3e\x51\x57\x08")
	benchmark(b, flow.UDP, 443, initial(b, quicV1, dcid, dcid, 0, unhex(b, rfcCrypto)))
}

func benchmark(b *testing.B, proto flow.Proto, port uint16, sent []byte) {
	c := New(proto, port)
	p := packet(proto, flow.Orig, port, 1, sent)
	b.ReportAllocs()
	for b.Loop() {
		c.Reset(proto, port)
		c.Feed(flow.Orig, p)
		c.Result()
	}
}

// FuzzConversation feeds anything at all, cut anywhere: no panic, no name that is
// no name, no reason missing, and never Encrypted for what is text throughout.
func FuzzConversation(f *testing.F) {
	hello := goHello(f, clientConfig())
	dcid := []byte("\x83\x94\xc8\xf0\x3e\x51\x57\x08")
	f.Add(true, uint16(443), hello, []byte{22, 3, 3, 0, 2, 2, 0}, uint16(700))
	f.Add(false, uint16(443), initial(f, quicV1, dcid, dcid, 0, unhex(f, rfcCrypto)), []byte{}, uint16(0))
	f.Add(true, uint16(80), []byte("GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n"), []byte("HTTP/1.1 200 OK\r\n\r\n"), uint16(9))
	f.Add(true, uint16(25), []byte("EHLO x\r\nSTARTTLS\r\n"+string(hello)), []byte("220 x ESMTP\r\n220 go\r\n"), uint16(18))
	f.Add(true, uint16(1883), []byte(mqttHello("MQTT", 5, 0xc2)), []byte("\x20\x02\x00\x00"), uint16(3))
	f.Add(false, uint16(53), []byte(query(f, "a.example.")), []byte{}, uint16(0))
	f.Add(false, uint16(67), []byte(dhcp(1, "tv")), []byte(dhcp(2, "tv")), uint16(0))
	f.Add(true, uint16(445), []byte("\x00\x00\x00\x20\xffSMB\x72"+strings.Repeat("\x00", 27)), []byte{}, uint16(5))
	f.Add(true, uint16(389), []byte("\x30\x11\x02\x01\x01\x60\x0c\x02\x01\x03\x04\x03cn=\x80\x02pw"), []byte{}, uint16(5))
	f.Add(false, uint16(161), []byte("\x30\x1d\x02\x01\x01\x04\x06public\xa0\x10\x02\x01\x01\x02\x01\x00\x02\x01\x00"), []byte{}, uint16(5))
	f.Fuzz(func(t *testing.T, tcp bool, port uint16, up, down []byte, cut uint16) {
		p := flow.UDP
		if tcp {
			p = flow.TCP
		}
		c := New(p, port)
		n := min(int(cut), len(up))
		c.Feed(flow.Orig, packet(p, flow.Orig, port, 1, bytes.Clone(up[:n])))
		c.Feed(flow.Reply, packet(p, flow.Reply, port, 1, bytes.Clone(down)))
		c.Feed(flow.Orig, packet(p, flow.Orig, port, 1+uint32(n), bytes.Clone(up[n:])))
		c.Feed(flow.Orig, packet(p, flow.Orig, port, uint32(cut)*7, bytes.Clone(down)))
		r := c.Result()
		c.Close()
		if sound(t, r); !c.Done() {
			t.Errorf("not done: %+v", r)
		}
		if name, err := dnsname.Parse(r.ServerName); r.NameFrom != "host" && (err != nil || string(name) != r.ServerName) {
			t.Errorf("no name: %q", r.ServerName)
		}
		if len(r.Path) > 100 || strings.ContainsAny(r.Path, "\x00\r\n?") {
			t.Errorf("path %q", r.Path)
		}
		all := append(bytes.Clone(up), down...)
		if text := looksReadable(all) && !bytes.Contains(all, []byte("SSH-")) && !bytes.Contains(all, []byte{3}) && bytes.IndexFunc(all, func(r rune) bool { return r > '~' || r == 0 }) < 0; text && r.Protection == flow.Encrypted {
			t.Errorf("text called encrypted: %+v", r)
		}
		if r.App == "unknown" && r.Protection == flow.Encrypted {
			t.Errorf("unknown called encrypted: %+v", r)
		}
	})
}
