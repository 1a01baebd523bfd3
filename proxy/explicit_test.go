package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
)

// town is a lab whose explicit proxy knows three names: site is both a web server
// and a TLS one, by port; home is in the house; gone has no address.
type town struct {
	*lab
	told  *carriedLog
	port  uint16
	asked []dnsname.Name
}

func newTown(t *testing.T, change func(*Config)) *town {
	t.Helper()
	plain := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", r.Host, r.RequestURI) })
	secret := serveTLS(t, "secret")
	other := listen(t, func(c net.Conn) { io.WriteString(c, "220 hello\r\n"); io.Copy(c, c) })
	v := &town{told: &carriedLog{}, port: freePort(t)}
	v.lab = newLab(t, func(c *Config) {
		c.ExplicitPort, c.Observer = v.port, v.told
		c.SilentAfter = 50 * time.Millisecond
		c.Inside = nil // the real rule
		c.Own = func(a netip.Addr) bool { return a == netip.MustParseAddr("203.0.113.2") }
		c.FurtherPorts = func() []uint16 { return []uint16{8443} }
		c.Devices = devicesFunc(func(a netip.Addr) (devices.Device, bool) {
			switch a.As4()[3] {
			case 66:
				return devices.Device{}, false
			case 67:
				return devices.Device{ID: "off", MACs: []devices.MAC{{2, 1}}, Mode: devices.ModeOff}, true
			}
			return devices.Device{ID: "toy", MACs: []devices.MAC{{2, 2}}, Mode: devices.ModeProtect}, true
		})
		c.LookUp = func(_ context.Context, client netip.Addr, name dnsname.Name) ([]netip.Addr, error) {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.asked = append(v.asked, name)
			switch name {
			case "gone.example":
				return nil, errors.New("no address was found")
			case "home.example":
				return []netip.Addr{netip.MustParseAddr("192.168.77.9"), netip.MustParseAddr("203.0.113.2")}, nil
			}
			return []netip.Addr{netip.MustParseAddr("192.168.77.9"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}, nil
		}
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			to := map[string]netip.AddrPort{"192.0.2.1:80": plain, "192.0.2.2:443": secret, "192.0.2.1:8443": other}[addr]
			if !to.IsValid() {
				return nil, syscall.ECONNREFUSED // 192.0.2.1:443: the second address is the one
			}
			var d net.Dialer
			return d.DialContext(ctx, network, to.String())
		}
		if change != nil {
			change(c)
		}
	})
	return v
}

// from opens a connection to the explicit proxy from 127.0.0.N.
func (v *town) from(n byte) net.Conn {
	v.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, n)}}
	c, err := d.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", v.port))
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patient))
	return c
}

// browser is an HTTP client that uses the proxy.
func (v *town) browser() *http.Client {
	tr := &http.Transport{
		Proxy:           http.ProxyURL(&url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", v.port)}),
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	v.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patient}
}

func TestExplicitProxyCarriesByName(t *testing.T) {
	t.Parallel()
	v := newTown(t, nil)
	c := v.browser()
	for range 2 { // the second on the connection of the first
		if resp, body := get(t, c, "http://maker.example/a?b=1"); resp.StatusCode != 200 || body != "maker.example /a?b=1" {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
	}
	if _, body := get(t, c, "https://maker.example/"); body != "secret" {
		t.Errorf("by CONNECT: %q", body)
	}
	resp, body := get(t, c, "http://a.tracker.example/")
	if resp.StatusCode != 403 || !strings.Contains(body, "blocked by the household") {
		t.Errorf("blocked: %d %q", resp.StatusCode, body)
	}
	if _, err := c.Get("https://a.tracker.example/"); err == nil || !strings.Contains(err.Error(), "Forbidden") {
		t.Errorf("blocked, by CONNECT: %v", err)
	}
	if slices.Contains(v.asked, "a.tracker.example") {
		t.Error("a blocked name was looked up")
	}
	v.told.mu.Lock()
	defer v.told.mu.Unlock()
	var got []string
	for _, x := range v.told.judged {
		got = append(got, fmt.Sprintf("%s %s %s", x.Flow.Name, x.To, x.Flow.Verdict.Action))
		if x.Flow.Tuple.DstPort != v.port {
			t.Errorf("told the tuple %s, want the one that the kernel counts", x.Flow.Tuple.DstAddrPort())
		}
	}
	want := []string{"maker.example 192.0.2.1:80 none", "maker.example 192.0.2.1:443 none", "a.tracker.example invalid AddrPort block"}
	for i, w := range want {
		if i >= len(got) || !strings.HasPrefix(got[i], strings.TrimSuffix(w, " none")) {
			t.Errorf("told %q, want %q", got, want)
			break
		}
	}
}

// What is asked for by CONNECT and what is said inside must both pass.
func TestTunnelIsJudgedByBothNames(t *testing.T) {
	t.Parallel()
	v := newTown(t, nil)
	for name, c := range map[string]struct {
		connect string
		say     []byte
		want    string // "": a reset after the tunnel stands
		as      string
	}{
		"the same name":           {"maker.example:443", clientHello(t, "maker.example"), "\x16", "maker.example"},
		"another one inside":      {"maker.example:443", clientHello(t, "cdn.example"), "\x16", "cdn.example"},
		"a blocked one inside":    {"maker.example:443", clientHello(t, "a.tracker.example"), "", "a.tracker.example"},
		"none inside":             {"maker.example:443", clientHello(t, ""), "\x16", "maker.example"},
		"an encrypted one inside": {"maker.example:443", echHello(t, "cloudflare-ech.com", "x.example"), "\x16", "maker.example"},
		"HTTP inside":             {"maker.example:80", []byte("GET /in HTTP/1.1\r\nHost: maker.example\r\n\r\n"), "HTTP/1.1 200", "maker.example"},
		"blocked HTTP inside":     {"maker.example:80", []byte("GET /in HTTP/1.1\r\nHost: a.tracker.example\r\n\r\n"), "HTTP/1.1 403", "a.tracker.example"},
		"a server that greets":    {"maker.example:8443", nil, "220 hello", "maker.example"},
		"half a hello inside":     {"maker.example:443", clientHello(t, "maker.example")[:200], "", "maker.example"},
	} {
		conn := v.from(5)
		fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", c.connect, c.connect)
		if name == "the same name" {
			conn.Write(c.say) // without waiting for the answer
		}
		br := bufio.NewReader(conn)
		resp, err := http.ReadResponse(br, &http.Request{Method: "CONNECT"})
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("%s: %v %v", name, resp, err)
			continue
		}
		if name != "the same name" {
			conn.Write(c.say)
		}
		b := make([]byte, max(len(c.want), 1))
		n, err := io.ReadFull(br, b)
		if c.want != "" && string(b[:n]) != c.want || c.want == "" && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %q %v, want %q", name, b[:n], err, c.want)
		}
		v.told.mu.Lock()
		if last := v.told.judged[len(v.told.judged)-1]; last.Flow.Name != c.as {
			t.Errorf("%s: told as %q, want %q", name, last.Flow.Name, c.as)
		}
		v.told.mu.Unlock()
	}
}

func TestWhatTheExplicitProxyRefuses(t *testing.T) {
	t.Parallel()
	v := newTown(t, nil)
	for request, want := range map[string]string{
		"CONNECT 192.168.77.9:443":        "502", // in the house
		"CONNECT home.example:443":        "502", // in the house, and the router itself
		"CONNECT 127.0.0.1:443":           "502",
		"CONNECT 203.0.113.2:443":         "502", // the router
		"CONNECT [fe80::1]:443":           "502",
		"CONNECT [::ffff:10.0.0.1]:443":   "502",
		"CONNECT maker.example:25":        "403",
		"CONNECT maker.example:22":        "403",
		"CONNECT maker.example":           "400",
		"CONNECT maker.example:":          "400",
		"CONNECT :443":                    "400",
		"CONNECT a@maker.example:443":     "400",
		"CONNECT gone.example:443":        "502",
		"GET http://192.168.77.9/":        "502",
		"GET http://maker.example:8080/":  "403",
		"GET http://maker.example:99999/": "400",
		"GET https://maker.example/":      "400",
		"GET ftp://maker.example/":        "400",
		"GET http://me:pw@maker.example/": "400",
		"GET http://gone.example/":        "502",
		"GET /":                           "404",
		"POST /proxy.pac":                 "404",
		"GET /proxy.pac":                  "200",
		"GET http://maker.example/":       "200",
		"CONNECT maker.example:443":       "200",
	} {
		c := v.from(5)
		fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: x\r\n\r\n", request)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || !strings.HasPrefix(resp.Status, want) {
			t.Errorf("%s: %v %v, want %s", request, resp, err, want)
		}
		c.Close()
	}
	// Who is not of the house, or is not looked after, is reset: PAC says DIRECT then.
	for n, who := range map[byte]string{66: "a stranger", 67: "a device that is off"} {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, n)}, Timeout: patient}
		c, err := d.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", v.port))
		if err == nil {
			io.WriteString(c, "GET http://maker.example/ HTTP/1.1\r\nHost: maker.example\r\n\r\n")
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v, want a reset", who, err)
		}
	}
}

// A house that is switched off sees nothing: its devices go their own way.
func TestExplicitProxyOfAHouseThatIsOff(t *testing.T) {
	t.Parallel()
	set, err := policy.Compile(policy.Config{Off: true})
	if err != nil {
		t.Fatal(err)
	}
	v := newTown(t, func(c *Config) { c.Decider = set })
	if _, err := v.browser().Get("https://maker.example/"); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
		t.Errorf("%v, want a reset", err)
	}
}

func TestPACFile(t *testing.T) {
	t.Parallel()
	v := newTown(t, nil)
	for _, path := range []string{"/proxy.pac", "/wpad.dat"} {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", v.port, path))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.Header.Get("Content-Type") != "application/x-ns-proxy-autoconfig" {
			t.Errorf("%s: %v %v", path, resp.Header, err)
		}
		for _, want := range []string{
			"function FindProxyForURL(url, host) {", fmt.Sprintf(`return "PROXY 127.0.0.1:%d; DIRECT";`, v.port), "^(80|443|8443)$",
		} {
			if !strings.Contains(string(b), want) {
				t.Errorf("%s does not say %s:\n%s", path, want, b)
			}
		}
	}
}
