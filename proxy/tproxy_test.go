//go:build linux

package proxy

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/netlab"
	"github.com/netcurtain/netcurtain/internal/netlab/labtest"
	"github.com/netcurtain/netcurtain/journal"
)

// childEnv makes this test binary a proxy in the router's namespace.
const childEnv = "NETCURTAIN_PROXY_TEST_CHILD"

const (
	deliverMark = 0x01000000
	oursMark    = 0x02000000
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := child(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// toStdout writes what was carried as JSON, a line each.
type toStdout struct{}

func (toStdout) Record(e journal.Entry) {
	b, err := json.Marshal(map[string]any{
		"device": e.Device, "name": e.Flow.Name, "action": e.Flow.Verdict.Action.String(),
		"src": e.Flow.Tuple.SrcAddrPort(), "dst": e.Flow.Tuple.DstAddrPort(), "in": e.Flow.Counters.Reply.Bytes,
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(b))
}

func child() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	p, err := New(Config{
		HTTPPort: 8380, TLSPort: 8343, Transparent: true, MarkOurs: oursMark,
		Devices: devicesFunc(func(a netip.Addr) (devices.Device, bool) {
			return devices.Device{ID: devices.ID("at " + a.String()), Mode: devices.ModeGuard}, true
		}),
		Decider:  blocking("tracker.example"),
		Recorder: toStdout{},
	})
	if err != nil {
		return err
	}
	go func() {
		for p.Probe(ctx) != nil && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		fmt.Println("ready")
	}()
	return p.Run(ctx)
}

// handover is what enforce does, in its simplest form.
const handover = `
table inet test {
	chain pre {
		type filter hook prerouting priority mangle; policy accept;
		iifname != "br-lan" accept
		tcp dport { 80, 443 } socket transparent 1 meta mark set meta mark | 0x01000000 accept
		fib daddr type != unicast accept
		tcp dport 80 tproxy to :8380 meta mark set meta mark | 0x01000000 accept
		tcp dport 443 tproxy to :8343 meta mark set meta mark | 0x01000000 accept
	}
	chain out {
		type filter hook output priority filter; policy accept;
		oifname "wan0" tcp dport { 80, 443, 8300 } meta mark & 0x02000000 != 0 counter name marked
		oifname "wan0" tcp dport { 80, 443, 8300 } meta mark & 0x02000000 == 0 counter name unmarked
	}
	counter marked {}
	counter unmarked {}
}
`

// guarded is a house whose toy goes through the proxy, and an internet with one
// web server of each kind at each address.
type guarded struct {
	*testing.T
	house *netlab.House
	told  *bufio.Scanner // what the proxy recorded
}

var (
	site4  = netip.MustParseAddr("198.51.100.10")
	other4 = netip.MustParseAddr("198.51.100.20")
	site6  = netip.MustParseAddr("2001:db8:99::10")
	inner4 = netip.MustParseAddr("10.9.9.9") // behind the uplink, as a second router's network is
	fiveMB = []byte(strings.Repeat("0123456789abcdef", 5<<16))
)

func newGuarded(t *testing.T) *guarded {
	t.Helper()
	h := labtest.House(t, netlab.Plan{
		Devices:  []netlab.DevicePlan{{Name: "toy", Number: 12}},
		Internet: []netip.Addr{site4, other4, site6, inner4},
	})
	g := &guarded{T: t, house: h}
	sh := func(line string) {
		t.Helper()
		if out, err := h.Router.Command(t.Context(), "sh", "-ec", line).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
	for _, v := range []string{"-4", "-6"} {
		sh(fmt.Sprintf("ip %s rule add fwmark %#x/%#x lookup 4743; ip %s route add local default dev lo table 4743", v, deliverMark, deliverMark, v))
	}
	sh("nft -f - <<'END'\n" + handover + "END")

	cert := selfSigned(t)
	for _, a := range []netip.Addr{site4, other4, site6, inner4} {
		g.origin(a, 80, nil)
		g.origin(a, 443, &tls.Config{Certificates: []tls.Certificate{cert}})
	}
	cmd := h.Router.Command(context.Background(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the proxy: %v", err)
		}
	})
	g.told = bufio.NewScanner(out)
	if !g.told.Scan() || g.told.Text() != "ready" {
		t.Fatalf("the proxy did not start: %q", g.told.Text())
	}
	return g
}

// origin serves at an address of the internet: which address, who asked, and
// something big.
func (g *guarded) origin(a netip.Addr, port uint16, conf *tls.Config) {
	g.Helper()
	var ln net.Listener
	err := g.house.Internet.Do(func() (err error) {
		ln, err = net.Listen("tcp", netip.AddrPortFrom(a, port).String())
		return err
	})
	if err != nil {
		g.Fatal(err)
	}
	if conf != nil {
		ln = tls.NewListener(ln, conf)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/big" {
			w.Write(fiveMB)
			return
		}
		fmt.Fprintf(w, "%s %s", a, r.Host)
	})}
	go s.Serve(ln)
	g.Cleanup(func() { s.Close() })
}

// client dials, from the toy, the given address whatever the URL says.
func (g *guarded) client(dst netip.AddrPort) *http.Client {
	tr := &http.Transport{
		DialContext: func(context.Context, string, string) (c net.Conn, err error) {
			err = g.house.Devices["toy"].Do(func() error {
				c, err = net.DialTimeout("tcp", dst.String(), patient)
				return err
			})
			return c, err
		},
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}
	return &http.Client{Transport: tr, Timeout: patient}
}

// carried is the next thing that the proxy recorded.
func (g *guarded) carried() (e struct{ Device, Name, Action, Src, Dst string }) {
	g.Helper()
	if !g.told.Scan() {
		g.Fatal("the proxy recorded nothing more")
	}
	if err := json.Unmarshal(g.told.Bytes(), &e); err != nil {
		g.Fatal(err)
	}
	return e
}

func TestTransparentInAHouse(t *testing.T) {
	g := newGuarded(t)
	toy := g.house.Devices["toy"]
	for _, c := range []struct {
		dst  netip.Addr
		from netip.Addr
	}{{site4, toy.Addr4}, {other4, toy.Addr4}, {site6, toy.Addr6}} {
		for scheme, port := range map[string]uint16{"http": 80, "https": 443} {
			dst := netip.AddrPortFrom(c.dst, port)
			_, body := get(t, g.client(dst), scheme+"://maker.example/")
			if want := c.dst.String() + " maker.example"; body != want {
				t.Errorf("%s: %q, want %q", dst, body, want)
			}
			e := g.carried()
			if e.Dst != dst.String() || e.Name != "maker.example" || e.Device != "at "+c.from.String() || !strings.HasPrefix(e.Src, netip.AddrPortFrom(c.from, 0).String()[:len(c.from.String())]) {
				t.Errorf("%s: recorded %+v", dst, e)
			}
			_, body = get(t, g.client(dst), scheme+"://maker.example/big")
			if sha256.Sum256([]byte(body)) != sha256.Sum256(fiveMB) {
				t.Errorf("%s: %d bytes came, not those that were sent", dst, len(body))
			}
			g.carried()
		}
		resp, body := get(t, g.client(netip.AddrPortFrom(c.dst, 80)), "http://a.tracker.example/", "Accept", "text/html")
		if resp.StatusCode != 403 || !strings.Contains(body, "a.tracker.example") {
			t.Errorf("%s: %d %q, want the block page", c.dst, resp.StatusCode, body)
		}
		if e := g.carried(); e.Action != "block" {
			t.Errorf("recorded %+v", e)
		}
		if _, err := g.client(netip.AddrPortFrom(c.dst, 443)).Get("https://a.tracker.example/"); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v, want a reset", c.dst, err)
		}
		if e := g.carried(); e.Action != "block" {
			t.Errorf("recorded %+v", e)
		}
	}
}

// Whatever the client writes into Host, the original destination is dialled, and
// neither the router nor a network behind it is reached through us.
func TestNoWayAroundTheFirewall(t *testing.T) {
	g := newGuarded(t)
	if _, body := get(t, g.client(netip.AddrPortFrom(site4, 80)), "http://"+netlab.RouterLAN4.Addr().String()+":8300/"); !strings.HasPrefix(body, site4.String()) {
		t.Errorf("a spoofed Host led to %q", body)
	}
	g.carried()
	for _, dst := range []netip.AddrPort{
		netip.AddrPortFrom(inner4, 80), netip.AddrPortFrom(inner4, 443), // TPROXY brings it, we refuse it
		netip.AddrPortFrom(netlab.RouterLAN4.Addr(), 8380), netip.AddrPortFrom(netlab.RouterLAN6.Addr(), 8343), // straight to our listeners
	} {
		if resp, err := g.client(dst).Get("http://maker.example/"); err == nil {
			b, _ := io.ReadAll(resp.Body)
			t.Errorf("%s: reached: %q", dst, b)
		}
	}
	out, err := g.house.Router.Command(t.Context(), "nft", "list", "counters", "table", "inet", "test").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	var marked, unmarked string
	for _, block := range strings.Split(string(out), "counter ")[1:] {
		f := strings.Fields(block)
		switch f[0] {
		case "marked":
			marked = f[3]
		case "unmarked":
			unmarked = f[3]
		}
	}
	if marked == "0" || marked == "" || unmarked != "0" {
		t.Errorf("our own sockets: %q packets marked, %q not\n%s", marked, unmarked, out)
	}
}
