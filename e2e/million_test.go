package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/netcurtain/netcurtain/internal/netlab"
)

func millionCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"million": withStory((*story).million),
		"refresh": withStory((*story).refresh),
		"warm":    withStory((*story).warm),
	}
}

// TestMillion is a bench: a million rules in the real daemon, their refresh under
// load, and the next start. scripts/bench runs it; it needs the test data.
//
//	million FILE             a list of the test data becomes the house's list own.txt
//	refresh DEVICE N         N times: 3 s of look-ups, then the same while the list is refreshed; prints what it cost
//	warm DEVICE              kills the daemon and starts it again; prints how soon a listed name is blocked
func TestMillion(t *testing.T) {
	if os.Getenv("NETCURTAIN_BENCH") == "" {
		t.Skip("a bench: scripts/bench runs it (NETCURTAIN_BENCH=1)")
	}
	if _, err := os.Stat(testData("one-million-domains.txt.xz")); err != nil {
		t.Skipf("SKIPPED: no test data: %v (NETCURTAIN_TRUTH names its folder)", err)
	}
	runStories(t, "testdata/bench", millionCommands())
}

func testData(list string) string {
	dir := os.Getenv("NETCURTAIN_TRUTH")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "data")
	}
	return filepath.Join(dir, "lists", list)
}

func (s *story) ownList() string { return filepath.Join(s.dir, "state", "lists", "own.txt") }

func (s *story) million(_ *testscript.TestScript, args []string) error {
	if err := os.MkdirAll(filepath.Dir(s.ownList()), 0o755); err != nil {
		return err
	}
	f, err := os.Create(s.ownList())
	if err != nil {
		return err
	}
	xz := exec.Command("xz", "-dc", testData(args[0]))
	xz.Stdout = f
	return errors.Join(xz.Run(), f.Close())
}

// listed is every thousandth name of the list.
func (s *story) listed() (names []string, err error) {
	f, err := os.Open(s.ownList())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for i, lines := 0, bufio.NewScanner(f); lines.Scan(); i++ {
		if i%1000 == 0 {
			names = append(names, lines.Text())
		}
	}
	return names, nil
}

// asker asks from one socket of a device.
type asker struct{ conn *dns.Conn }

func (s *story) asker(device string, server netip.AddrPort) (a asker, err error) {
	host := s.lab.Router
	if device != "" {
		host = s.devices[device].Host
	}
	err = host.Do(func() error {
		c, err := net.Dial("udp", server.String())
		a.conn = &dns.Conn{Conn: c}
		return err
	})
	return a, err
}

// ask returns the response code, or an error after timeout; late answers to earlier
// questions are not taken for this one's.
func (a asker) ask(name string, timeout time.Duration) (rcode int, took time.Duration, err error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	began := time.Now()
	if err := errors.Join(a.conn.SetDeadline(began.Add(timeout)), a.conn.WriteMsg(m)); err != nil {
		return 0, 0, err
	}
	for {
		r, err := a.conn.ReadMsg()
		if err != nil {
			return 0, time.Since(began), err
		}
		if r.Id == m.Id {
			return r.Rcode, time.Since(began), nil
		}
	}
}

// load is what one stretch of look-ups saw.
type load struct {
	took []time.Duration
	lost int
}

func (l *load) percentile(p float64) time.Duration {
	if len(l.took) == 0 {
		return 0
	}
	slices.Sort(l.took)
	return l.took[min(int(float64(len(l.took))*p), len(l.took)-1)]
}

// run asks 500 times a second from one socket, a listed name in five, until stop.
func (a asker) run(names []string, stop <-chan struct{}) (l load) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return l
		case <-tick.C:
		}
		name, want := "www.maker.example", dns.RcodeSuccess
		if rand.IntN(5) == 0 {
			name, want = names[rand.IntN(len(names))], dns.RcodeNameError
		}
		if rcode, took, err := a.ask(name, 2*time.Second); err != nil || rcode != want {
			l.lost++
		} else {
			l.took = append(l.took, took)
		}
	}
}

func (s *story) refresh(ts *testscript.TestScript, args []string) error {
	rounds, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	names, err := s.listed()
	if err != nil {
		return err
	}
	server := netip.AddrPortFrom(netlab.RouterLAN4.Addr(), 53)
	asks, err := s.asker(args[0], server)
	if err != nil {
		return err
	}
	looks, err := s.asker(args[0], server)
	if err != nil {
		return err
	}
	lost, worse := 0, 0
	for round := range rounds {
		stretch := func(during func() error) (load, error) {
			stop, done := make(chan struct{}), make(chan load)
			go func() { done <- asks.run(names, stop) }()
			err := during()
			close(stop)
			return <-done, err
		}
		quiet, err := stretch(func() error { time.Sleep(3 * time.Second); return nil })
		if err != nil {
			return err
		}
		steady := s.status("VmRSS")
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.daemon.Process.Pid), []byte("5"), 0); err != nil { // the peak begins anew
			return err
		}
		began := time.Now()
		busy, err := stretch(func() error { return s.oneRefresh(looks, fmt.Sprintf("round%d.refresh.example", round)) })
		if err != nil {
			return err
		}
		lost += quiet.lost + busy.lost
		q, b := quiet.percentile(.99), busy.percentile(.99)
		if b > max(2*q, 5*time.Millisecond) {
			worse++
		}
		fmt.Fprintf(ts.Stdout(), "refresh %d: in force after %v; p50 %v, p99 %v (quiet %v, %v); %d look-ups, %d lost; RSS %.1f MB, peak %.1f MB (+%.1f)\n",
			round+1, time.Since(began).Round(10*time.Millisecond), busy.percentile(.5).Round(time.Microsecond), b.Round(time.Microsecond),
			quiet.percentile(.5).Round(time.Microsecond), q.Round(time.Microsecond), len(busy.took), busy.lost,
			mb(steady), mb(s.status("VmHWM")), mb(s.status("VmHWM")-steady))
	}
	fmt.Fprintf(ts.Stdout(), "refreshes: %d look-ups lost, %d of %d rounds over max(2 x quiet, 5 ms)\n", lost, worse, rounds)
	return nil
}

// oneRefresh gives the list one more name, which exists, and waits until it is blocked.
func (s *story) oneRefresh(looks asker, name string) error {
	f, err := os.OpenFile(s.ownList(), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, name)
	if err := errors.Join(err, f.Close(), s.daemon.Process.Signal(syscall.SIGHUP)); err != nil {
		return err
	}
	for began := time.Now(); time.Since(began) < 2*time.Minute; time.Sleep(50 * time.Millisecond) {
		if rcode, _, err := looks.ask(name, time.Second); err == nil && rcode == dns.RcodeNameError {
			return nil
		}
	}
	return fmt.Errorf("%s is not blocked two minutes after the list had it", name)
}

func (s *story) warm(ts *testscript.TestScript, args []string) error {
	names, err := s.listed()
	if err != nil {
		return err
	}
	for range 3 {
		if err := errors.Join(s.daemon.Process.Kill(), wait(s.ended)); err != nil {
			return err
		}
		began := time.Now()
		if err := s.start(ts, args[1:]); err != nil {
			return err
		}
		own, err := s.asker("", netip.MustParseAddrPort("127.0.0.1:5300"))
		if err != nil {
			return err
		}
		var took time.Duration
		for took == 0 && time.Since(began) < 20*time.Second {
			if rcode, _, err := own.ask(names[1], 20*time.Millisecond); err == nil && rcode == dns.RcodeNameError {
				took = time.Since(began)
			} else {
				time.Sleep(time.Millisecond)
			}
		}
		if took == 0 {
			return errors.New("nothing was blocked within 20 s")
		}
		fmt.Fprintf(ts.Stdout(), "warm start: a listed name blocked %v after the start of the process\n", took.Round(time.Millisecond))
	}
	return nil
}

func wait(ended <-chan struct{}) error {
	select {
	case <-ended:
		return nil
	case <-time.After(10 * time.Second):
		return errors.New("the daemon does not end")
	}
}

// status is a line of the daemon's /proc/PID/status, in octets.
func (s *story) status(key string) int {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.daemon.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if k, v, ok := strings.Cut(line, ":"); ok && k == key {
			n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(v), " kB"))
			return n << 10
		}
	}
	return 0
}

func mb(n int) float64 { return float64(n) / 1e6 }
