//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/netcurtain/netcurtain/internal/netlab"
	"github.com/netcurtain/netcurtain/internal/netlab/scene"
)

// The house of the fail table: a filtered tv, a guarded toy, and a camera
// without internet.
var familyPersonas = map[string]string{
	"tv":     "device living-room-tv\nmac a8:23:fe:00:00:10\naddress 10\nkind tv\nevery 1h lookup ad.lgappstv.com\nevery 1h https www.maker.example\n",
	"toy":    "device talking-bear\nmac 02:00:5e:00:00:13\naddress 13\nkind toy\nevery 1h http api.talkbear.example\nevery 1h http app-measurement.com\n",
	"camera": "device doorbell\nmac 02:00:5e:00:00:11\naddress 11\nkind camera\nevery 1h https media.doorview.example\n",
}

const blocked = "ad.lgappstv.com" // by the starter list

// family is a house whose every promise is watched from now on.
type family struct {
	stubborn []*stubborn
	cut      *cutWatch
	stop     context.CancelFunc
	done     sync.WaitGroup
	began    time.Time // when the daemon was last started, and nothing has been asked of the family since; else zero
}

// family builds the house, starts the daemon with these settings, tells it how
// each device is treated, and lets the clients begin.
func (s *story) family(ts *testscript.TestScript, args []string) error {
	for name, p := range familyPersonas {
		if err := os.WriteFile(ts.MkAbs(name), []byte(p), 0o600); err != nil {
			return err
		}
	}
	if err := s.house(ts, []string{"tv", "toy", "camera"}); err != nil {
		return err
	}
	if err := s.netcurtain(ts, args); err != nil {
		return err
	}
	for _, c := range [][]string{{"mode", "doorbell", "local"}, {"mode", "talking-bear", "guard"}} {
		if err := ts.Exec("netcurtain", c...); err != nil {
			return err
		}
	}
	if err := s.within(ts, []string{"10s", "act", "camera", "https", "media.doorview.example", "direct", "error"}); err != nil {
		return err
	}
	s.watchFamily()
	s.fam.began = time.Time{}
	return s.ours(ts, []string{"5s"})
}

// watchFamily starts the stubborn clients and the watch over the cut.
func (s *story) watchFamily() {
	f := &family{cut: &cutWatch{}}
	ctx, stop := context.WithCancel(context.Background())
	f.stop = stop
	s.fam = f
	d := s.devices["tv"]
	for i, who := range []struct {
		network, name string
		server        netip.Addr
	}{
		{"udp", "router", netlab.RouterLAN4.Addr()}, {"tcp", "router", netlab.RouterLAN4.Addr()},
		{"udp", "router", netlab.RouterLAN6.Addr()}, {"tcp", "router", netlab.RouterLAN6.Addr()},
		{"udp", "8.8.8.8", scene.Google}, {"tcp", "8.8.8.8", scene.Google},
		{"udp", "8.8.8.8", scene.Google6}, {"tcp", "8.8.8.8", scene.Google6},
	} {
		c := &stubborn{network: who.network, server: netip.AddrPortFrom(who.server, 53), port: 20001 + i, host: d.Host}
		c.name = fmt.Sprintf("%s%d %s", who.network, map[bool]int{true: 4, false: 6}[who.server.Is4()], who.name)
		f.stubborn = append(f.stubborn, c)
		f.done.Go(func() { c.run(ctx) })
	}
	at := s.devices["camera"].Addr("media.doorview.example")
	f.done.Go(func() { f.cut.run(ctx, s.devices["camera"].Host, netip.AddrPortFrom(at, 443)) })
}

func (f *family) close() {
	f.stop()
	f.done.Wait()
}

// ours passes when, within the time, every client of the house is filtered and
// nothing else: all stubborn clients are refused, the toy's tracker is too, its
// maker's API passes. Right after a start the time runs from that start.
func (s *story) ours(ts *testscript.TestScript, args []string) error {
	return s.familyGets(ts, args, "NXDOMAIN", map[string]string{
		"app-measurement.com":   "^403|^451",
		"api.talkbear.example/": "got 10 bytes",
	})
}

// plain passes when, within the time, the house has the internet of a router
// without us.
func (s *story) plain(ts *testscript.TestScript, args []string) error {
	return s.familyGets(ts, args, "NOERROR", map[string]string{
		"app-measurement.com":   "got 10 bytes",
		"api.talkbear.example/": "got 10 bytes",
	})
}

func (s *story) familyGets(ts *testscript.TestScript, args []string, answer string, web map[string]string) error {
	limit, part := args[0], strings.Join(args[1:], "")
	patience, err := time.ParseDuration(limit)
	if err != nil {
		return err
	}
	since := time.Now()
	if !s.fam.began.IsZero() {
		since, s.fam.began = s.fam.began, time.Time{}
	}
	busy := 1.0
	wait := func(what string, good func() (string, bool)) error {
		for {
			got, ok := good()
			busy = max(busy, overload())
			deadline := since.Add(time.Duration(float64(patience) * busy))
			if ok {
				ts.Logf("[%s after %.1f s]", what, time.Since(since).Seconds())
				return nil
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s: not within %s: %s", what, limit, got)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	for _, c := range s.fam.stubborn {
		if part == "web" {
			break
		}
		if err := wait(c.name+" "+answer, func() (string, bool) { got := c.latest(since); return got, got == answer }); err != nil {
			return err
		}
	}
	for what, want := range web {
		if part == "look-ups" {
			break
		}
		re := regexp.MustCompile(want)
		if err := wait("toy: "+what, func() (string, bool) {
			got, err := s.outcome([]string{"toy", "http", what, "down", "10", "direct"}, false)
			return fmt.Sprint(got, err), err == nil && re.MatchString(got)
		}); err != nil {
			return err
		}
	}
	for _, c := range s.fam.stubborn {
		fmt.Fprintln(ts.Stdout(), c.story())
	}
	return s.fam.cut.leaked()
}

// overload is how many times more work this machine has than it can do, in the last
// minute or now: promises in seconds are made for a machine that has time.
func overload() float64 {
	var minute, ignored, now float64
	b, err := os.ReadFile("/proc/loadavg") // 4.20 3.10 2.00 7/321 4711
	if err == nil {
		_, err = fmt.Sscanf(string(b), "%f %f %f %f/", &minute, &ignored, &ignored, &now)
	}
	if err != nil {
		return 1
	}
	return max(1, minute/float64(runtime.NumCPU()), now/float64(runtime.NumCPU()))
}

// stubborn is a client that asks for a blocked name each second and never gives
// its source port up, whatever it gets.
type stubborn struct {
	name, network string
	server        netip.AddrPort
	port          int // none that the device would take for others
	host          *netlab.Host

	mu  sync.Mutex
	got []got
}

type got struct {
	asked time.Time
	what  string // rcode, or "silence", or "refused"
}

func (c *stubborn) run(ctx context.Context) {
	var conn net.Conn
	for {
		began := time.Now()
		what := "refused"
		var err error
		if conn == nil {
			conn, err = c.dial(ctx, began.Add(900*time.Millisecond))
		}
		if err == nil {
			what, err = c.ask(conn, began.Add(900*time.Millisecond))
		}
		if ctx.Err() != nil {
			if conn != nil {
				conn.Close()
			}
			return
		}
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			what = "silence"
		}
		c.mu.Lock()
		c.got = append(c.got, got{began, what})
		c.mu.Unlock()
		if conn != nil && c.network == "tcp" { // the next question dials again, from the same port
			conn.Close()
			conn = nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(began.Add(time.Second))):
		}
	}
}

func (c *stubborn) dial(ctx context.Context, deadline time.Time) (conn net.Conn, err error) {
	local := c.host.Addr4
	if c.server.Addr().Is6() {
		local = c.host.Addr6
	}
	at := netip.AddrPortFrom(local, uint16(c.port))
	d := net.Dialer{Deadline: deadline, LocalAddr: net.UDPAddrFromAddrPort(at)}
	if c.network == "tcp" {
		d.LocalAddr = net.TCPAddrFromAddrPort(at)
		d.SetMultipathTCP(false)
		d.Control = func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) {
				_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
			})
		}
	}
	err = c.host.Do(func() error { conn, err = d.DialContext(ctx, c.network, c.server.String()); return err })
	if t, ok := conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // no TIME_WAIT, which would keep the port
	}
	return conn, err
}

func (c *stubborn) ask(conn net.Conn, deadline time.Time) (string, error) {
	m := new(dns.Msg).SetQuestion(blocked+".", dns.TypeA)
	_ = conn.SetDeadline(deadline)
	co := &dns.Conn{Conn: conn}
	if err := co.WriteMsg(m); err != nil {
		return "refused", err
	}
	for {
		r, err := co.ReadMsg()
		if err != nil {
			return "refused", err
		}
		if r.Id == m.Id {
			return dns.RcodeToString[r.Rcode], nil
		}
	}
}

// latest is what the last question got that was asked after since.
func (c *stubborn) latest(since time.Time) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.got); n > 0 && c.got[n-1].asked.After(since) {
		return c.got[n-1].what
	}
	return "nothing yet"
}

// story says what the client got since it last told, as "udp4 router: 3 NXDOMAIN, 2 silence, 1 NOERROR".
func (c *stubborn) story() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%s:", c.name)
	for i, n := 0, 0; i < len(c.got); i++ {
		if n++; i+1 < len(c.got) && c.got[i+1].what == c.got[i].what {
			continue
		}
		fmt.Fprintf(&b, " %d %s,", n, c.got[i].what)
		n = 0
	}
	if n := len(c.got); n > 0 {
		c.got = c.got[n-1:]
	}
	return strings.TrimSuffix(b.String(), ",")
}

// cutWatch knocks several times a second from a device that was cut, and never
// may anybody open.
type cutWatch struct {
	mu    sync.Mutex
	leaks []time.Time
}

func (w *cutWatch) run(ctx context.Context, from *netlab.Host, to netip.AddrPort) {
	for ctx.Err() == nil {
		var c net.Conn
		err := from.Do(func() (err error) {
			c, err = (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", to.String())
			return err
		})
		if err == nil {
			c.Close()
			w.mu.Lock()
			w.leaks = append(w.leaks, time.Now())
			w.mu.Unlock()
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// leaked says that the cut device got out since it was last asked.
func (w *cutWatch) leaked() error {
	if span, first := w.span(); !first.IsZero() {
		return fmt.Errorf("the device without internet got out from %s on, over %s", first.Format("15:04:05.000"), span)
	}
	return nil
}

// span is over how long the cut device got out since it was last asked, and when first.
func (w *cutWatch) span() (span time.Duration, first time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.leaks); n > 0 {
		first, span = w.leaks[0], w.leaks[n-1].Sub(w.leaks[0])
	}
	w.leaks = nil
	return span, first
}

// outFor passes when the cut device could get out for no longer than this: right
// after somebody took the cut itself out of the kernel.
func (s *story) outFor(ts *testscript.TestScript, args []string) error {
	most, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	most = time.Duration(float64(most) * overload())
	time.Sleep(most + 500*time.Millisecond)
	span, _ := s.fam.cut.span()
	ts.Logf("[the cut was out of the kernel for some %s]", span)
	if span > most {
		return fmt.Errorf("the device without internet got out over %s", span)
	}
	return nil
}

// reboot is what a power cut and the boot after it are: the router's kernel has
// forgotten all, memory file systems are empty, and the init script loads the cut
// before it starts the daemon, which the story does next.
func (s *story) reboot(ts *testscript.TestScript, _ []string) error {
	if err := s.signal(ts, []string{"KILL"}); err != nil {
		return err
	}
	s.fam.close()
	s.stop()
	if err := s.servers.Wait(); err != nil {
		return err
	}
	if err := errors.Join(s.lab.Close(), os.RemoveAll(filepath.Join(s.dir, "volatile"))); err != nil {
		return err
	}
	if err := s.house(ts, []string{"tv", "toy", "camera"}); err != nil {
		return err
	}
	out, err := s.lab.Router.Command(context.Background(), "nft", "-f", filepath.Join(s.dir, "state", "cut.nft")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("loading the cut as the init script does: %w: %s", err, out)
	}
	s.watchFamily()
	return nil
}
