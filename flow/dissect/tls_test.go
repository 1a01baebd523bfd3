package dissect

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netcurtain/netcurtain/flow"
)

const site = "camera.vendor.example"

func clientConfig() *tls.Config {
	return &tls.Config{ServerName: site, NextProtos: []string{"h2", "http/1.1"}, InsecureSkipVerify: true}
}

func TestParseClientHello(t *testing.T) {
	whole := goHello(t, clientConfig())
	h, st := ParseClientHello(whole)
	if st != Complete {
		t.Fatalf("status %v of a whole hello", st)
	}
	want := Hello{ServerName: site, TLS: TLS{Version: "1.3", ALPN: []string{"h2", "http/1.1"}, Hello: true, Offered: Offer{"1.3", WeakCBCSHA1}}}
	if d := cmp.Diff(want, h); d != "" {
		t.Error(d)
	}
}

func TestParseClientHelloNeedsEveryByte(t *testing.T) {
	whole := goHello(t, clientConfig())
	for n := range whole {
		if _, st := ParseClientHello(whole[:n]); st != NeedMore {
			t.Fatalf("%v after %d of %d bytes", st, n, len(whole))
		}
	}
}

func TestHelloOverManyRecords(t *testing.T) {
	whole := goHello(t, clientConfig())
	for _, n := range []int{1, 3, 4, 5, 100, 1000} {
		h, st := ParseClientHello(records(whole, n))
		if st != Complete || h.ServerName != site {
			t.Errorf("records of %d bytes: %v %q", n, st, h.ServerName)
		}
	}
}

// Every cut of a two-segment hello, in both orders of arrival, with the first
// segment sent twice.
func TestHelloOverSegments(t *testing.T) {
	whole := goHello(t, clientConfig())
	const seq = 0xffffff00 // wraps within the hello
	c := New(flow.TCP, 443)
	for cut := 1; cut < len(whole); cut++ {
		for _, order := range [][]int{{0, 1}, {1, 0}, {0, 0, 1}} {
			c.Reset(flow.TCP, 443)
			for _, part := range order {
				b, at := whole[:cut], uint32(seq)
				if part == 1 {
					b, at = whole[cut:], uint32(seq)+uint32(cut)
				}
				c.Feed(flow.Orig, packet(flow.TCP, flow.Orig, 443, at, bytes.Clone(b)))
			}
			if r := c.Result(); r.App != "tls" || r.ServerName != site || r.NameFrom != "sni" || r.Protection != flow.Encrypted {
				t.Fatalf("cut at %d, order %v: %+v", cut, order, r)
			}
		}
	}
}

// A real handshake for each version: what the server chose is noted.
func TestServerHello(t *testing.T) {
	cert := selfSigned(t)
	for _, tc := range []struct {
		max  uint16
		want string
	}{{tls.VersionTLS10, "1.0"}, {tls.VersionTLS11, "1.1"}, {tls.VersionTLS12, "1.2"}, {tls.VersionTLS13, "1.3"}} {
		t.Run(tc.want, func(t *testing.T) {
			client := clientConfig()
			client.MinVersion, client.MaxVersion = tls.VersionTLS10, tls.VersionTLS13
			up, down := handshake(t, client, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10, MaxVersion: tc.max})
			r := talk(flow.TCP, 8443, "> "+up, "< "+down)
			if r.TLS == nil || r.TLS.Version != tc.want || r.TLS.Cipher == 0 || r.ServerName != site {
				t.Errorf("got %+v %+v", r, r.TLS)
			}
		})
	}
}

func TestHelloRetryRequest(t *testing.T) {
	up, down := handshake(t, clientConfig(), &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, CurvePreferences: []tls.CurveID{tls.CurveP521}})
	r := talk(flow.TCP, 443, "> "+up, "< "+down)
	if r.TLS == nil || !r.TLS.Retried || r.TLS.Version != "1.3" {
		t.Errorf("got %+v %+v", r, r.TLS)
	}
}

// helloWith builds a minimal ClientHello with one extension.
func helloWith(ext int, body []byte) []byte {
	e := append([]byte{byte(ext >> 8), byte(ext), byte(len(body) >> 8), byte(len(body))}, body...)
	m := append([]byte{3, 3}, make([]byte, 32)...)
	m = append(m, 0, 0, 2, 0x13, 1, 1, 0)
	m = append(m, byte(len(e)>>8), byte(len(e)))
	m = append(m, e...)
	m = append([]byte{1, 0, byte(len(m) >> 8), byte(len(m))}, m...)
	return append([]byte{22, 3, 1, byte(len(m) >> 8), byte(len(m))}, m...)
}

func sni(name string) []byte {
	n := len(name)
	return append([]byte{byte((n + 3) >> 8), byte(n + 3), 0, byte(n >> 8), byte(n)}, name...)
}

func TestServerNameIsValidated(t *testing.T) {
	long := string(bytes.Repeat([]byte("a"), 64))
	for _, tc := range []struct{ sent, want string }{
		{"Api.Example.COM", "api.example.com"},
		{"_srv.example.com", "_srv.example.com"},
		{"example.com.", "example.com"},
		{"localhost", "localhost"},
		{"192.0.2.1", ""}, // an address is no name here (RFC 6066 §3)
		{"<script>.example", ""},
		{"a b.example", ""},
		{"evil\x00.example", ""},
		{"example.com:443", ""},
		{"..", ""},
		{"a..b", ""},
		{long + ".example", ""},
		{"bücher.example", ""},
		{"", ""},
	} {
		h, st := ParseClientHello(helloWith(extServerName, sni(tc.sent)))
		if st != Complete || h.ServerName != tc.want {
			t.Errorf("%q: %v %q, want %q", tc.sent, st, h.ServerName, tc.want)
		}
	}
}

func TestECHIsTrueOnlyForAnOuterName(t *testing.T) {
	grease := helloWith(extECH, make([]byte, 40))
	if h, _ := ParseClientHello(grease); !h.TLS.ECHOffered || h.TLS.ECH {
		t.Errorf("the extension alone: %+v", h.TLS)
	}
	outer := helloWith(extServerName, sni("cloudflare-ech.com"))
	ext := []byte{0xfe, 0x0d, 0, 2, 0, 0}
	outer = append(outer, ext...)
	outer[4] += byte(len(ext))                // record
	outer[8] += byte(len(ext))                // message
	outer[5+4+2+32+1+4+2+1] += byte(len(ext)) // extensions
	if h, st := ParseClientHello(outer); st != Complete || !h.TLS.ECH || h.ServerName != "cloudflare-ech.com" {
		t.Errorf("%v %+v", st, h)
	}
}

// Form tells GREASE that is but an empty shell, and the number of the key is noted.
func TestSealedECH(t *testing.T) {
	ech := func(kind, aead byte, key, payload int) []byte {
		b := []byte{kind, 0, 1, 0, aead, 0x2a}
		b = append(append(b, byte(key>>8), byte(key)), make([]byte, key)...)
		return append(append(b, byte(payload>>8), byte(payload)), make([]byte, payload)...)
	}
	for _, tc := range []struct {
		name string
		body []byte
		want bool
	}{
		{"real, or GREASE that is well made", ech(0, 1, 32, 208), true},
		{"with P-256", ech(0, 3, 65, 176), true},
		{"zeros", make([]byte, 40), false},
		{"an inner one", ech(1, 1, 32, 208), false},
		{"a key of no known size", ech(0, 1, 31, 208), false},
		{"an unknown cipher", ech(0, 9, 32, 208), false},
		{"no room for a hello", ech(0, 1, 32, 40), false},
		{"cut", ech(0, 1, 32, 208)[:200], false},
		{"trailing bytes", append(ech(0, 1, 32, 208), 0), false},
	} {
		h, st := ParseClientHello(helloWith(extECH, tc.body))
		if st != Complete || !h.TLS.ECHOffered || h.TLS.ECH || h.TLS.ECHSealed != tc.want || tc.want && h.TLS.ECHConfig != 0x2a {
			t.Errorf("%s: %v %+v", tc.name, st, h.TLS)
		}
	}
}

func TestNotTLS(t *testing.T) {
	for _, s := range []string{"GET / HTTP/1.1\r\n\r\n", "SSH-2.0-x\r\n", "\x16\x20\x00\x00\x05", "\x16\x03\x01\x00\x05\x02", "\x16\x03\x01\xff\xff\x01", "\x00", "\x80\x2e\x02"} {
		if _, st := ParseClientHello([]byte(s)); st != NotTLS {
			t.Errorf("%q: %v", s, st)
		}
	}
}

func TestSSLv2Hello(t *testing.T) {
	b := append([]byte{0x80, 0x1f, 1, 3, 1, 0, 6, 0, 0, 0, 16, 0, 0, 0x2f, 0, 0, 0x35}, make([]byte, 16)...)
	h, st := ParseClientHello(b)
	if st != Complete || h.TLS.Version != "1.0" {
		t.Errorf("%v %+v", st, h)
	}
	if r := talk(flow.TCP, 443, "> "+string(b)); r.App != "tls" || r.Protection != flow.Encrypted {
		t.Errorf("%+v", r)
	}
}

// Clear words behind six bytes that look like TLS are not called encrypted.
func TestDressedAsHello(t *testing.T) {
	r := talk(flow.TCP, 443, "> \x16\x03\x01\x00\x40\x01\x00\x00\x3c"+string(bytes.Repeat([]byte("name=bob;pw=x "), 5)))
	if r.Protection == flow.Encrypted {
		t.Errorf("%+v", r)
	}
}

// A handshake that agrees on a NULL cipher is readable, whatever its records look like.
func TestNullCipherIsReadable(t *testing.T) {
	sh := append([]byte{3, 3}, make([]byte, 32)...)
	sh = append(sh, 0, 0x00, 0x3b, 0)
	sh = append([]byte{22, 3, 3, 0, byte(len(sh) + 4), 2, 0, 0, byte(len(sh))}, sh...)
	r := talk(flow.TCP, 443, "> "+string(helloWith(extServerName, sni(site))), "< "+string(sh))
	if r.Protection != flow.Readable || r.TLS.Cipher != 0x3b {
		t.Errorf("%+v %+v", r, r.TLS)
	}
}

func TestRecordsWithoutHandshake(t *testing.T) {
	random := make([]byte, 300)
	rand.Read(random)
	app := append([]byte{23, 3, 3, 1, 44}, random...)
	text := append([]byte{23, 3, 3, 0, 64}, bytes.Repeat([]byte("user=bob"), 8)...)
	for _, tc := range []struct {
		name string
		sent []byte
		want flow.Protection
	}{
		{"one whole record", app, flow.Encrypted},
		{"records that began before", append(append(bytes.Clone(random[:50]), app...), 23, 3, 3, 0, 40, 1), flow.Encrypted},
		{"a record that goes on", app[:200], flow.Encrypted},
		{"text dressed as a record", text, flow.Readable},
		{"an alert", []byte{21, 3, 3, 0, 2, 1, 0}, flow.Encrypted},
		{"no alert", []byte{21, 3, 3, 0, 2, 7, 0}, flow.CannotTell},
		{"a cut header", []byte{23, 3, 3}, flow.CannotTell},
	} {
		if r := talk(flow.TCP, 443, "> "+string(tc.sent)); r.Protection != tc.want {
			t.Errorf("%s: %+v", tc.name, r)
		}
	}
}

// hear asks crypto/tls what it reads in a hello.
func hear(b []byte) (info tls.ClientHelloInfo, ok bool) {
	stop := errors.New("heard")
	c := tls.Server(ear{bytes.NewReader(b)}, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		info, ok = *h, true
		return nil, stop
	}})
	c.Handshake() //nolint:errcheck // always stops
	return info, ok
}

type ear struct{ r io.Reader }

func (e ear) Read(b []byte) (int, error)       { return e.r.Read(b) }
func (ear) Write([]byte) (int, error)          { return 0, io.EOF }
func (ear) Close() error                       { return nil }
func (ear) LocalAddr() net.Addr                { return nil }
func (ear) RemoteAddr() net.Addr               { return nil }
func (ear) SetDeadline(time.Time) error        { return nil }
func (ear) SetReadDeadline(time.Time) error    { return nil }
func (ear) SetWriteDeadline(t time.Time) error { return nil }

// FuzzClientHello holds the parser against crypto/tls: what that one accepts, we
// read with the same name and protocols.
func FuzzClientHello(f *testing.F) {
	whole := goHello(f, clientConfig())
	f.Add(whole)
	f.Add(records(whole, 97))
	f.Add(helloWith(extServerName, sni(site)))
	f.Add(helloWith(extECH, make([]byte, 40)))
	f.Add(append([]byte{0x80, 0x1f, 1, 3, 1, 0, 6, 0, 0, 0, 16, 0, 0, 0x2f, 0, 0, 0x35}, make([]byte, 16)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, st := ParseClientHello(b)
		if st != Complete && (h.ServerName != "" || h.TLS.Hello) {
			t.Errorf("%v, yet %+v", st, h)
		}
		info, ok := hear(b)
		if !ok || len(b) > maxHello || len(info.SupportedVersions) == 0 { // without a version it goes no further
			return
		}
		if st != Complete {
			t.Fatalf("crypto/tls reads a hello for %q, we say %v", info.ServerName, st)
		}
		if want := serverName([]byte(info.ServerName)); h.ServerName != want {
			t.Errorf("name %q, crypto/tls reads %q", h.ServerName, want)
		}
		for _, p := range h.TLS.ALPN {
			if len(p) < 32 && !slices.Contains(info.SupportedProtos, p) && bytes.IndexFunc([]byte(p), func(r rune) bool { return r > ' ' && r < 127 }) < 0 {
				t.Errorf("protocol %q, crypto/tls reads %q", p, info.SupportedProtos)
			}
		}
	})
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{site}}, &x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// recorder keeps what was written through it.
type recorder struct {
	net.Conn
	sent bytes.Buffer
}

func (r *recorder) Write(b []byte) (int, error) {
	r.sent.Write(b)
	return r.Conn.Write(b)
}

// handshake runs a real one over loopback, which unlike a pipe has a buffer, and
// returns what each side sent.
func handshake(t testing.TB, client, srv *tls.Config) (up, down string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	ca, cb := &recorder{Conn: a}, &recorder{Conn: b}
	done := make(chan error, 1)
	go func() { done <- tls.Server(cb, srv).Handshake() }()
	if err := tls.Client(ca, client).Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return ca.sent.String(), cb.sent.String()
}
