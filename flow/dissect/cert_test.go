package dissect

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netcurtain/netcurtain/flow"
)

var certStart = time.Date(2024, 5, 1, 0, 0, 0, 0, time.UTC)

// certificate is one of our own making: for the names, a year from certStart on.
func certificate(t testing.TB, names []string, issuer string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "box"}, DNSNames: names,
		IPAddresses: []net.IP{net.IPv4(192, 168, 1, 9)}, NotBefore: certStart, NotAfter: certStart.AddDate(1, 0, 0),
	}
	parent := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: issuer}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, parent, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// tls12 is a handshake in which the certificate travels in clear.
func tls12(t testing.TB, cert tls.Certificate, suite uint16) (up, down string) {
	client := clientConfig()
	client.MaxVersion, client.CipherSuites = tls.VersionTLS12, []uint16{suite}
	return handshake(t, client, &tls.Config{Certificates: []tls.Certificate{cert}, CipherSuites: client.CipherSuites})
}

// show feeds both sides at a time, the server's cut into segments of n bytes.
func show(up, down string, at time.Time, n int) Result {
	c := New(flow.TCP, 443)
	feed := func(dir flow.Dir, seq int, s string) {
		p := packet(flow.TCP, dir, 443, uint32(seq), []byte(s))
		p.At = at
		c.Feed(dir, p)
	}
	feed(flow.Orig, 0, up)
	for i := 0; i < len(down); i += n {
		feed(flow.Reply, i, down[i:min(i+n, len(down))])
	}
	return c.Result()
}

func TestCertificate(t *testing.T) {
	const good = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
	for _, tc := range []struct {
		name   string
		names  []string
		issuer string
		suite  uint16
		at     time.Time
		want   Cert
		weak   []string
	}{
		{"in order", []string{site, "*.vendor.example"}, "a ca", good, certStart.AddDate(0, 1, 0),
			Cert{Names: []string{site, "*.vendor.example", "192.168.1.9"}}, nil},
		{"expired", []string{site}, "a ca", good, certStart.AddDate(2, 0, 0),
			Cert{Names: []string{site, "192.168.1.9"}, Expired: true}, []string{"the certificate expired on 2025-05-01"}},
		{"not yet", []string{site}, "a ca", good, certStart.AddDate(-1, 0, 0),
			Cert{Names: []string{site, "192.168.1.9"}, NotYet: true}, []string{"the certificate is valid only from 2024-05-01"}},
		{"self-signed and for another, with an old cipher", []string{"other.example", "<b>", "UPPER.example"}, "box", tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, time.Time{},
			Cert{Names: []string{"other.example", "upper.example", "192.168.1.9"}, SelfSigned: true, OtherName: true},
			[]string{"the cipher is CBC with SHA-1", "the certificate is self-signed", "the certificate is for another name"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			up, down := tls12(t, certificate(t, tc.names, tc.issuer), tc.suite)
			tc.want.NotBefore, tc.want.NotAfter = certStart, certStart.AddDate(1, 0, 0)
			for _, n := range []int{4096, 200, 130} {
				r := show(up, down, tc.at, n)
				if r.TLS == nil || r.TLS.Cert == nil || r.ServerName != site || r.Protection != flow.Encrypted {
					t.Fatalf("segments of %d bytes: %+v %+v", n, r, r.TLS)
				}
				if d := cmp.Diff(tc.want, *r.TLS.Cert); d != "" {
					t.Error(d)
				}
				if d := cmp.Diff(tc.weak, r.TLS.Weak); d != "" {
					t.Error(d)
				}
			}
		})
	}
}

// Who speaks again has heard the server out: nobody waits longer for a certificate
// that was lost, and in TLS 1.3 nobody waits at all.
func TestNoWaitForCertificate(t *testing.T) {
	up, down := tls12(t, certificate(t, []string{site}, "a ca"), tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
	c := New(flow.TCP, 443)
	c.Feed(flow.Orig, packet(flow.TCP, flow.Orig, 443, 0, []byte(up[:len(up)/2])))
	c.Feed(flow.Orig, packet(flow.TCP, flow.Orig, 443, uint32(len(up)/2), []byte(up[len(up)/2:])))
	c.Feed(flow.Reply, packet(flow.TCP, flow.Reply, 443, 0, []byte(down[:100])))
	if c.Done() {
		t.Fatal("done before the certificate")
	}
	c.Feed(flow.Orig, packet(flow.TCP, flow.Orig, 443, uint32(len(up)), []byte("\x16\x03\x03\x00\x04next")))
	if r := c.Result(); !c.Done() || r.TLS.Version != "1.2" || r.TLS.Cert != nil {
		t.Errorf("%+v %+v", r, r.TLS)
	}

	up, down = handshake(t, clientConfig(), &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519}, Certificates: []tls.Certificate{selfSigned(t)}})
	c = New(flow.TCP, 443)
	c.Feed(flow.Orig, packet(flow.TCP, flow.Orig, 443, 0, []byte(up)))
	c.Feed(flow.Reply, packet(flow.TCP, flow.Reply, 443, 0, []byte(down[:150])))
	if !c.Done() {
		t.Error("waits in TLS 1.3")
	}
}

// What was offered and what was chosen stand apart.
func TestOfferedAndChosen(t *testing.T) {
	client := clientConfig()
	client.MaxVersion = tls.VersionTLS12
	client.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_RC4_128_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}
	up, down := handshake(t, client, &tls.Config{Certificates: []tls.Certificate{certificate(t, []string{site}, "a ca")}})
	r := show(up, down, time.Time{}, 4096)
	if got := r.TLS.Offered; got != (Offer{"1.2", WeakRC4 | WeakDES}) || r.TLS.Weak != nil {
		t.Errorf("offered %+v, weak %q", got, r.TLS.Weak)
	}
	client.MinVersion, client.MaxVersion, client.CipherSuites = tls.VersionTLS10, tls.VersionTLS10, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
	up, down = handshake(t, client, &tls.Config{MinVersion: tls.VersionTLS10, Certificates: []tls.Certificate{certificate(t, []string{site}, "a ca")}})
	r = show(up, down, time.Time{}, 4096)
	if d := cmp.Diff([]string{"its version (1.0) is outdated", "the cipher is CBC with SHA-1"}, r.TLS.Weak); d != "" {
		t.Error(d)
	}
}

// FuzzServerFlight feeds a server's side that may be anything, cut anywhere.
func FuzzServerFlight(f *testing.F) {
	cert := certificate(f, []string{site}, "box")
	up, down := tls12(f, cert, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
	f.Add([]byte(down), uint16(300))
	f.Add([]byte(down[:200]), uint16(7))
	f.Add(records([]byte(down[:5+120]), 9), uint16(90))
	f.Fuzz(func(t *testing.T, down []byte, cut uint16) {
		c := New(flow.TCP, 443)
		n := min(int(cut), len(down))
		c.Feed(flow.Orig, packet(flow.TCP, flow.Orig, 443, 1, []byte(up)))
		c.Feed(flow.Reply, packet(flow.TCP, flow.Reply, 443, 1, bytes.Clone(down[:n])))
		c.Feed(flow.Reply, packet(flow.TCP, flow.Reply, 443, 1+uint32(n), bytes.Clone(down[n:])))
		c.Close()
		r := c.Result()
		if r.ServerName != site || r.TLS == nil {
			t.Fatalf("%+v", r)
		}
		if x := r.TLS.Cert; x != nil {
			if len(x.Names) > maxCertNames || !before13(r.TLS.Version) {
				t.Errorf("%+v %+v", r.TLS, x)
			}
			for _, name := range x.Names {
				if len(name) > 255 || bytes.ContainsAny([]byte(name), "<>\"'&\x00 \n/%") {
					t.Errorf("a dangerous name: %q", name)
				}
			}
		}
	})
}
