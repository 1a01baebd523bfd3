package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"flag"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/miekg/dns"

	"github.com/netcurtain/netcurtain/observe/inspect"
)

var update = flag.Bool("update", false, "write golden files and the sample anew")

// TestSample keeps the built-in capture worth reading: a look-up, a clear
// request with an identifier, a password in clear MQTT, and a TLS connection
// whose name is its own.
func TestSample(t *testing.T) {
	if *update {
		if err := os.WriteFile("sample.pcap", makeSample(t), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var rows []inspect.Row
	data, err := os.ReadFile("sample.pcap")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inspect.Read(t.Context(), "sample", bytes.NewReader(data), inspect.Config{}, func(r inspect.Row) error {
		rows = append(rows, r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ protocol, protection, name, source string }{
		{"dns", "readable", "", "address"},
		{"http", "readable", "api.toymaker.example", "host"},
		{"mqtt", "readable", "broker.plug.example", "dns-device"},
		{"tls", "encrypted", "ads.tracker.example", "sni"},
	} {
		if !slices.ContainsFunc(rows, func(r inspect.Row) bool {
			return r.Protocol == want.protocol && r.Protection == want.protection && r.Name == want.name && r.NameSource == want.source
		}) {
			t.Errorf("no flow like %+v in the sample:\n%+v", want, rows)
		}
	}
}

// makeSample writes a minute of three made-up devices.
func makeSample(t *testing.T) []byte {
	t.Helper()
	s := &sampleWriter{now: time.Date(2026, 3, 1, 7, 30, 0, 0, time.UTC)}
	w := pcapgo.NewWriter(&s.buf)
	if err := w.WriteFileHeader(65536, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	s.w = w
	toy := sampleEnd{"02:00:5e:00:53:01", "192.168.1.21", 41001}
	plug := sampleEnd{"02:00:5e:00:53:02", "192.168.1.22", 41002}
	tv := sampleEnd{"02:00:5e:00:53:03", "192.168.1.23", 41003}
	s.lookUp(toy, "api.toymaker.example", "198.51.100.10")
	s.tcp(toy, "198.51.100.10:80", []said{
		{up: true, b: []byte("GET /v1/hello?id=toy-7f3a HTTP/1.1\r\nHost: api.toymaker.example\r\nUser-Agent: toy/1.0\r\n\r\n")},
		{b: []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nhi")},
	})
	s.lookUp(plug, "broker.plug.example", "198.51.100.20")
	s.tcp(plug, "198.51.100.20:1883", []said{
		{up: true, b: mqttConnect("plug-22", "plug", "secret")},
		{b: []byte{0x20, 2, 0, 0}},
		{up: true, b: []byte("\x30\x10\x00\x0bhome/plug22on!")},
	})
	s.lookUp(tv, "ads.tracker.example", "203.0.113.30")
	s.tcp(tv, "203.0.113.30:443", handshake(t, "ads.tracker.example"))
	return s.buf.Bytes()
}

type sampleEnd struct {
	mac, addr string
	port      uint16
}

const sampleRouterMAC, sampleRouter = "02:00:5e:00:53:ff", "192.168.1.1"

type said struct {
	up bool
	b  []byte
}

// sampleWriter writes Ethernet frames, a few milliseconds apart.
type sampleWriter struct {
	buf bytes.Buffer
	w   *pcapgo.Writer
	now time.Time
	err error
}

func (s *sampleWriter) frame(from, to sampleEnd, proto byte, transport []byte) {
	mac := func(a string) net.HardwareAddr { m, _ := net.ParseMAC(a); return m }
	addr := func(a string) []byte { b := netip.MustParseAddr(a).As4(); return b[:] }
	b := append(append(slices.Clone(mac(to.mac)), mac(from.mac)...), 0x08, 0x00)
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, proto, 0, 0}
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(transport)))
	ip = append(append(ip, addr(from.addr)...), addr(to.addr)...)
	b = append(append(b, ip...), transport...)
	s.now = s.now.Add(7 * time.Millisecond)
	err := s.w.WritePacket(gopacket.CaptureInfo{Timestamp: s.now, CaptureLength: len(b), Length: len(b)}, b)
	if s.err == nil {
		s.err = err
	}
}

func ports(from, to sampleEnd) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from.port), to.port)
}

func (s *sampleWriter) lookUp(d sampleEnd, name, addr string) {
	s.now = s.now.Add(5 * time.Second)
	q := new(dns.Msg).SetQuestion(name+".", dns.TypeA)
	q.Id = 7
	a := new(dns.Msg).SetReply(q)
	rr, _ := dns.NewRR(name + ". 300 IN A " + addr)
	a.Answer = append(a.Answer, rr)
	router := sampleEnd{sampleRouterMAC, sampleRouter, 53}
	for _, m := range []*dns.Msg{q, a} {
		from, to := d, router
		if m == a {
			from, to = to, from
		}
		b, _ := m.Pack()
		head := binary.BigEndian.AppendUint16(ports(from, to), uint16(8+len(b)))
		s.frame(from, to, 17, append(append(head, 0, 0), b...))
	}
}

// tcp writes a whole connection; long messages go in segments of 1400 octets.
func (s *sampleWriter) tcp(d sampleEnd, to string, talk []said) {
	dst := netip.MustParseAddrPort(to)
	far := sampleEnd{sampleRouterMAC, dst.Addr().String(), dst.Port()}
	seq := [2]uint32{1000, 5000}
	send := func(up bool, flags byte, b []byte) {
		from, to, me, you := d, far, 0, 1
		if !up {
			from, to, me, you = far, d, 1, 0
		}
		h := binary.BigEndian.AppendUint32(ports(from, to), seq[me])
		h = binary.BigEndian.AppendUint32(h, seq[you])
		h = append(h, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0)
		s.frame(from, to, 6, append(h, b...))
		seq[me] += uint32(len(b))
		if flags&3 != 0 {
			seq[me]++
		}
	}
	send(true, 0x02, nil)
	send(false, 0x12, nil)
	send(true, 0x10, nil)
	for _, x := range talk {
		for part := range slices.Chunk(x.b, 1400) {
			send(x.up, 0x18, part)
		}
	}
	send(true, 0x11, nil)
	send(false, 0x11, nil)
	send(true, 0x10, nil)
}

func mqttConnect(id, user, password string) []byte {
	field := func(s string) []byte { return append([]byte{0, byte(len(s))}, s...) }
	b := append(field("MQTT"), 4, 0xc2, 0, 60)
	b = slices.Concat(b, field(id), field(user), field(password))
	return append([]byte{0x10, byte(len(b))}, b...)
}

// handshake is what a real TLS connection says.
func handshake(t *testing.T, name string) []said {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	rec := &recorder{}
	server := tls.Server(b, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	go func() {
		_, _ = io.Copy(io.Discard, server)
		_ = server.Close()
	}()
	client := tls.Client(&recorded{a, rec}, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if _, err := io.Copy(client, strings.NewReader(strings.Repeat("tracking ", 200))); err != nil {
		t.Fatal(err)
	}
	client.Close()
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return rec.talk
}

// recorder notes both directions of a connection, as its client has them.
type recorder struct {
	mu   sync.Mutex
	talk []said
}

type recorded struct {
	net.Conn
	rec *recorder
}

func (r *recorder) note(up bool, b []byte) {
	if len(b) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.talk = append(r.talk, said{up, slices.Clone(b)})
}

func (c *recorded) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.rec.note(false, b[:n])
	return n, err
}

func (c *recorded) Write(b []byte) (int, error) {
	c.rec.note(true, b)
	return c.Conn.Write(b)
}
