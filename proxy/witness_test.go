package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// last is what the observer was told last of the flow to name.
func (l *carriedLog) last(name string) dissect.Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	var seen dissect.Result
	for _, c := range l.judged {
		if c.Flow.Name == name {
			seen = c.Flow.Seen
		}
	}
	return seen
}

// What a connection's later requests, and their bodies, give away is counted with
// what the first did; their values are in nothing that is told.
func TestIdentifiersAreSummed(t *testing.T) {
	told := &carriedLog{}
	origin := serve(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	l := newLab(t, func(c *Config) { c.Observer = told })
	c := l.dial(origin)
	const mac, mail = "a4:cf:12:9b:77:e1", "anna@mail.example"
	ask := func(method, target, field, body string) {
		t.Helper()
		fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: m.example\r\n%sContent-Length: %d\r\n\r\n%s", method, target, field, len(body), body)
		b := make([]byte, 400)
		if n, err := c.Read(b); err != nil || !strings.HasPrefix(string(b[:n]), "HTTP/1.1 200") {
			t.Fatalf("%s %s: %q %v", method, target, b[:n], err)
		}
	}
	ask("GET", "/a?mac="+mac, "", "")
	ask("GET", "/b?mac="+mac+"&mac="+mac, "", "")
	ask("GET", "/c", "X-User: "+mail+"\r\n", "")
	ask("POST", "/d", "Content-Type: application/x-www-form-urlencoded\r\n", "user=admin&password=admin&mac="+mac)
	ask("POST", "/e", "Content-Type: image/png\r\n", "mac="+mac)
	deadline := time.Now().Add(patient)
	for {
		seen := told.last("m.example")
		got := ""
		if seen.Exposure != nil {
			got = fmt.Sprint(seen.Exposure.Identifiers)
		}
		if got == "[{mac 4} {e-mail 1}]" && seen.Credentials == "http-form" && seen.Exposure.Default {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("told %s, credentials %q, %+v", got, seen.Credentials, seen.Exposure)
		}
		time.Sleep(time.Millisecond)
	}
	told.mu.Lock()
	defer told.mu.Unlock()
	for _, x := range told.judged {
		if all := fmt.Sprintf("%+v %+v", x.Flow, x.Flow.Seen.Exposure); strings.Contains(all, mac) || strings.Contains(all, mail) {
			t.Errorf("a value was kept: %s", all)
		}
	}
	if len(told.judged) != 4 {
		t.Errorf("told %d times, once for each request that gave something new away wanted", len(told.judged))
	}
}

// A connection whose first request is of no concern may go on with one that is.
func TestHarmlessIsNotForEver(t *testing.T) {
	told := &carriedLog{}
	origin := serve(t, func(http.ResponseWriter, *http.Request) {})
	l := newLab(t, func(c *Config) { c.Observer = told })
	c := l.client(origin)
	get(t, c, "http://m.example/ca.crl")
	if !told.last("m.example").Harmless {
		t.Fatal("a revocation list is not known as harmless")
	}
	get(t, c, "http://m.example/track?serial=AB12345")
	if told.last("m.example").Harmless {
		t.Error("what follows a harmless request counts as harmless")
	}
}

// A client that asks for ever is not looked at for ever, and what is counted is bounded.
func TestWitnessIsBounded(t *testing.T) {
	told := &carriedLog{}
	origin := serve(t, func(http.ResponseWriter, *http.Request) {})
	l := newLab(t, func(c *Config) { c.Observer = told })
	c := l.client(origin)
	for range maxWitnessed + 20 {
		get(t, c, "http://m.example/?mac=a4:cf:12:9b:77:e1&mac=a4:cf:12:9b:77:e1")
	}
	told.mu.Lock()
	n := len(told.judged)
	told.mu.Unlock()
	if ids := told.last("m.example").Exposure.Identifiers; n > maxWitnessed || ids[0].Count != 255 {
		t.Errorf("told %d times, counted %v", n, ids)
	}
}

// A request without a Host field is judged, and named, by what its device last looked up.
func TestNameOf(t *testing.T) {
	told := &carriedLog{}
	origin := serve(t, func(http.ResponseWriter, *http.Request) {})
	l := newLab(t, func(c *Config) {
		c.Observer = told
		c.NameOf = func(d devices.ID, a netip.Addr) dnsname.Name {
			if d == "toy" && a == origin.Addr() {
				return "a.tracker.example"
			}
			return ""
		}
	})
	if got := l.raw(origin, "GET / HTTP/1.0\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.0 403") || !strings.Contains(got, "a.tracker.example") {
		t.Errorf("%q", got)
	}
	if x := told.judged[0].Flow; x.Name != "a.tracker.example" || x.NameSource.String() != "dns-device" {
		t.Errorf("told %+v", x)
	}
}
