package observe

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
)

const someSite = "www.some-longer-name.example"

// tlsFlight is what Go's own client and server say first, in TLS 1.3.
func tlsFlight(tb testing.TB) (hello, choice []byte) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{someSite}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	up, down := &tap{Conn: a}, &tap{Conn: b}
	done := make(chan error, 1)
	go func() {
		done <- tls.Server(down, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}).Handshake()
	}()
	if err := tls.Client(up, &tls.Config{ServerName: someSite, NextProtos: []string{"h2"}, InsecureSkipVerify: true}).Handshake(); err != nil { //nolint:gosec // nobody is trusted here
		tb.Fatal(err)
	}
	if err := <-done; err != nil {
		tb.Fatal(err)
	}
	return up.first, down.first
}

// tap keeps the first thing that is written.
type tap struct {
	net.Conn
	once  sync.Once
	first []byte
}

func (t *tap) Write(b []byte) (int, error) {
	t.once.Do(func() { t.first = bytes.Clone(b) })
	return t.Conn.Write(b)
}

// quicInitial is the first datagram of quic-go's client, whose hello is small
// enough for one.
func quicInitial(tb testing.TB) []byte {
	tb.Helper()
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		tb.Fatal(err)
	}
	defer server.Close()
	ctx, cancel := context.WithTimeout(tb.Context(), 10*time.Second)
	defer cancel()
	go func() {
		_, _ = quic.DialAddr(ctx, server.LocalAddr().String(), &tls.Config{ServerName: someSite, NextProtos: []string{"h3"}, //nolint:gosec // nobody is trusted here
			InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}}, nil)
	}()
	buf := make([]byte, 2048)
	_ = server.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := server.Read(buf)
	if err != nil {
		tb.Fatal(err)
	}
	return buf[:n:n]
}

func dnsQuery(name string) []byte {
	b, err := new(dns.Msg).SetQuestion(name+".", dns.TypeA).Pack()
	if err != nil {
		panic(err) // a fixed name
	}
	return b
}
