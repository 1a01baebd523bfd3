package proxy

import (
	"bytes"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/elazarl/goproxy"
)

// What goproxy leaves at defaults that are dangerous or lossy in our place, each set
// otherwise, and each seen to hold from outside.

func TestGoproxyReadsNoEnvironment(t *testing.T) {
	asked := make(chan struct{}, 8)
	other := listen(t, func(net.Conn) { asked <- struct{}{} })
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy"} {
		t.Setenv(name, "http://"+other.String())
	}
	l := newLab(t, nil)
	if l.goproxy.Tr.Proxy != nil || l.goproxy.ConnectDial != nil || l.goproxy.ConnectDialWithReq != nil {
		t.Error("goproxy's own transport follows a proxy of the environment")
	}
	origin := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "direct") })
	if got := l.raw(origin, "GET / HTTP/1.1\r\nHost: m.example\r\n\r\n"); !strings.HasSuffix(got, "direct") {
		t.Errorf("%q", got)
	}
	select {
	case <-asked:
		t.Error("the proxy of the environment was asked")
	default:
	}
}

// Nothing dials by name: goproxy's own transport, which would, cannot.
func TestGoproxyCannotDial(t *testing.T) {
	origin := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("dialled") })
	l := newLab(t, nil)
	r, err := http.NewRequest("GET", "http://"+origin.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.goproxy.Tr.RoundTrip(r); err == nil {
		t.Error("goproxy's own transport answers")
	}
}

func TestGoproxyKeepsAcceptEncoding(t *testing.T) {
	for name, field := range map[string]string{"as said": "Accept-Encoding: br, gzip\r\n", "none is added": ""} {
		o := newRawOrigin(t, ok204)
		l := newLab(t, nil)
		l.raw(o.addr, "GET / HTTP/1.1\r\nHost: m.example\r\n"+field+"\r\n")
		if got := strings.Contains(o.text(), "Accept-Encoding"); got != (field != "") || !strings.Contains(o.text(), field) {
			t.Errorf("%s: the origin got %q", name, o.text())
		}
	}
}

// goproxy's own authority is public, its key too. No certificate of it, or of any
// other, is ever shown: TLS passes as it is, and CONNECT is refused.
func TestGoproxyNeverTerminatesTLS(t *testing.T) {
	l := newLab(t, nil)
	if l.goproxy.CertStore != nil {
		t.Error("there is a store of forged certificates")
	}
	o := newRawOrigin(t, ok204)
	for _, ask := range []string{
		"CONNECT " + o.addr.String() + " HTTP/1.1\r\nHost: m.example\r\n\r\n",
		"CONNECT m.example:443 HTTP/1.1\r\nHost: m.example:443\r\n\r\n",
		"GET http://m.example/ HTTP/1.1\r\nHost: m.example\r\n\r\n",
		"GET https://m.example/ HTTP/1.1\r\nHost: m.example\r\n\r\n",
	} {
		if got := l.raw(o.addr, ask); !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, "Connection: close") {
			t.Errorf("%q: answered %q", ask, got)
		}
	}
	if o.text() != "" {
		t.Errorf("the origin got %q", o.text())
	}
	public, err := x509.ParseCertificate(goproxy.GoproxyCa.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	origin := serveTLS(t, "x")
	resp, _ := get(t, l.client(origin), "https://m.example/")
	for _, shown := range resp.TLS.PeerCertificates {
		if shown.Issuer.String() == public.Subject.String() {
			t.Error("a forged certificate was shown")
		}
	}
}

// Names of a device's destinations must not reach standard error.
func TestGoproxyIsSilent(t *testing.T) {
	var global bytes.Buffer
	log.SetOutput(&global)
	defer log.SetOutput(os.Stderr)
	l := newLab(t, nil)
	if l.goproxy.Verbose {
		t.Error("goproxy is verbose")
	}
	l.goproxy.Logger.Printf("secret.example")
	dead := listen(t, func(c net.Conn) {}) // closes at once: an error of which goproxy would speak
	l.raw(dead, "GET /secret HTTP/1.1\r\nHost: secret.example\r\n\r\n")
	l.raw(dead, "GET /secret HTTP/1.1\r\nHost: secret.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	l.stop()
	if global.Len() > 0 {
		t.Errorf("logged: %s", &global)
	}
}

// goproxy's 502 tells addresses and errors of ours; the device gets one line.
func TestGoproxyTellsNoErrors(t *testing.T) {
	l := newLab(t, nil)
	dead := listen(t, func(c net.Conn) {})
	if got := l.raw(dead, "GET / HTTP/1.1\r\nHost: m.example\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 502 ") || !strings.HasSuffix(got, "\r\n\r\nthe server does not answer\n") {
		t.Errorf("%q", got)
	}
}

// net/http waits for a head for ever unless it is told; goproxy's server would, too.
func TestServerHasLimits(t *testing.T) {
	s := newLab(t, nil).http
	if s.ReadHeaderTimeout <= 0 || s.ReadHeaderTimeout > 15*time.Second || s.IdleTimeout <= 0 || s.IdleTimeout > 5*time.Minute || s.MaxHeaderBytes > 64<<10 {
		t.Errorf("limits: %s, %s, %d", s.ReadHeaderTimeout, s.IdleTimeout, s.MaxHeaderBytes)
	}
	if s.ReadTimeout != 0 || s.WriteTimeout != 0 {
		t.Error("long polls and streams would be cut")
	}
}
