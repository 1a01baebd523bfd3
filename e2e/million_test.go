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
	"github.com/netcurtain/netcurtain/internal/netlab/scene"
)

func millionCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"sweep":   withStory((*story).sweep),
		"refresh": withStory((*story).refresh),
		"warm":    withStory((*story).warm),
		"peers":   withStory((*story).peers),
	}
}

// TestMillion is a bench: a million rules in the real daemon, their refresh under
// load, and the next start. scripts/bench runs it; it needs the test data.
//
//	sweep                    asks for 100,000 listed names, none twice; prints what the daemon's memory comes to
//	peers                    prints what blocking the same names costs the daemon, and dnsmasq and unbound where installed
//	refresh DEVICE N         N times: 3 s of look-ups, then the same while the list is refreshed; prints what it cost
//	warm [SETTINGS]          kills the daemon and starts it again; prints how soon a listed name is blocked
func TestMillion(t *testing.T) {
	if os.Getenv("NETCURTAIN_BENCH") == "" {
		t.Skip("a bench: scripts/bench runs it (NETCURTAIN_BENCH=1)")
	}
	if _, err := os.Stat(testData("one-million-domains.txt.xz")); err != nil {
		t.Skipf("SKIPPED: no test data: %v (NETCURTAIN_TRUTH names its folder)", err)
	}
	runStories(t, "testdata/bench/lists", millionCommands())
}

func testData(list string) string {
	dir := os.Getenv("NETCURTAIN_TRUTH")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "data")
	}
	return filepath.Join(dir, "lists", list)
}

func (s *story) ownList() string { return filepath.Join(s.dir, "state", "lists", "own.txt") }

// listed is every thousandth name of the list.
func (s *story) listed() ([]string, error) { return s.listedEvery(1000) }

func (s *story) listedEvery(n int) (names []string, err error) {
	f, err := os.Open(s.ownList())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for i, lines := 0, bufio.NewScanner(f); lines.Scan(); i++ {
		if i%n == 0 {
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

func (s *story) sweep(ts *testscript.TestScript, _ []string) error {
	names, err := s.listedEvery(10)
	if err != nil {
		return err
	}
	a, err := s.asker("", netip.MustParseAddrPort("127.0.0.1:5300"))
	if err != nil {
		return err
	}
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	steady, cpu := s.status("VmRSS"), cpuOf(s.daemon.Process.Pid)
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.daemon.Process.Pid), []byte("5"), 0); err != nil { // the peak begins anew
		return err
	}
	for _, name := range names {
		if rcode, _, err := a.ask(name, 2*time.Second); err != nil || rcode != dns.RcodeNameError {
			return fmt.Errorf("%s: rcode %d: %w", name, rcode, err)
		}
	}
	fmt.Fprintf(ts.Stdout(), "sweep over %d listed names: RSS %.1f MB, then %.1f (%.1f anonymous, %.1f file), peak %.1f; %v of processor\n", len(names),
		mb(steady), mb(s.status("VmRSS")), mb(s.status("RssAnon")), mb(s.status("RssFile")), mb(s.status("VmHWM")), cpuOf(s.daemon.Process.Pid)-cpu)
	return nil
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
		steady, anonymous := s.status("VmRSS"), s.status("RssAnon")
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
		fmt.Fprintf(ts.Stdout(), "refresh %d: in force after %v; p50 %v, p99 %v (quiet %v, %v); %d look-ups, %d lost; RSS %.1f MB (%.1f anonymous), peak %.1f MB (+%.1f)\n",
			round+1, time.Since(began).Round(10*time.Millisecond), busy.percentile(.5).Round(time.Microsecond), b.Round(time.Microsecond),
			quiet.percentile(.5).Round(time.Microsecond), q.Round(time.Microsecond), len(busy.took), busy.lost,
			mb(steady), mb(anonymous), mb(s.status("VmHWM")), mb(s.status("VmHWM")-steady))
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
		if err := s.start(ts, args); err != nil {
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
		fmt.Fprintf(ts.Stdout(), "warm start: a listed name blocked %v after the start of the process, which used %v of processor\n",
			took.Round(time.Millisecond), cpuOf(s.daemon.Process.Pid))
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

// peer is a resolver that blocks the list.
type peer struct {
	name, port string
	first      time.Duration // until it blocked; 0 where it was running already
	pid        int
	asks       asker
	took, cpu  [2][]time.Duration // of blocked and allowed: each look-up, and the processor in each round
}

// peers asks all of them in turn, round after round: what the machine does beside,
// it does to all of them.
func (s *story) peers(ts *testscript.TestScript, _ []string) (err error) {
	names, err := s.listed()
	if err != nil {
		return err
	}
	running := []*peer{{name: "netcurtain", port: "5300", pid: s.daemon.Process.Pid}}
	if running[0].asks, err = s.asker("", netip.MustParseAddrPort("127.0.0.1:5300")); err != nil {
		return err
	}
	head := map[string]string{
		"dnsmasq": "port=5453\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nno-daemon\nuser=root\nserver=" + scene.ProviderDNS.String() + "\n",
		"unbound": "server:\n interface: 127.0.0.1@5553\n do-daemonize: no\n use-syslog: no\n chroot: \"\"\n username: \"\"\n pidfile: \"\"\n module-config: \"iterator\"\n do-not-query-localhost: no\n",
	}
	for _, p := range []struct {
		*peer
		args        []string
		line, after string
	}{
		{&peer{name: "dnsmasq", port: "5453"}, []string{"-k", "-C"}, "local=/%s/\n", ""},
		{&peer{name: "unbound", port: "5553"}, []string{"-d", "-c"}, " local-zone: \"%s.\" always_nxdomain\n", "forward-zone:\n name: \".\"\n forward-addr: " + scene.ProviderDNS.String() + "\n"},
	} {
		path, err := exec.LookPath(p.name)
		if err != nil {
			fmt.Fprintf(ts.Stdout(), "%-12s SKIPPED: %v\n", p.name, err)
			continue
		}
		conf := filepath.Join(s.dir, p.name+".conf")
		if err := s.writeConf(conf, head[p.name], p.line, p.after); err != nil {
			return err
		}
		end, err := s.runPeer(p.peer, path, append(p.args, conf), names[1])
		if err != nil {
			return err
		}
		defer end()
		running = append(running, p.peer)
	}
	const rounds = 5
	for range rounds {
		for _, p := range running {
			if err := p.round(names); err != nil {
				return err
			}
		}
	}
	for _, p := range running {
		first := ""
		if p.first > 0 {
			first = fmt.Sprintf("first block after %v; ", p.first.Round(10*time.Millisecond))
		}
		fmt.Fprintf(ts.Stdout(), "%-12s RSS %.1f MB (%.1f anonymous); %sblocked: %s; allowed: %s\n",
			p.name, mb(statusOf(p.pid, "VmRSS")), mb(statusOf(p.pid, "RssAnon")), first, p.cost(0), p.cost(1))
	}
	return nil
}

// writeConf gives each name of the list a line between head and after.
func (s *story) writeConf(path, head, line, after string) error {
	in, err := os.Open(s.ownList())
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(out)
	fmt.Fprint(w, head)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		fmt.Fprintf(w, line, lines.Text())
	}
	fmt.Fprint(w, after)
	return errors.Join(w.Flush(), out.Close())
}

// runPeer starts p and waits until it blocks name.
func (s *story) runPeer(p *peer, path string, args []string, name string) (end func(), err error) {
	cmd := exec.Command(path, args...)
	began := time.Now()
	if err := s.lab.Router.Do(cmd.Start); err != nil {
		return nil, err
	}
	end = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for time.Since(began) < 2*time.Minute {
		if p.asks, err = s.asker("", netip.MustParseAddrPort("127.0.0.1:"+p.port)); err != nil {
			end()
			return nil, err
		}
		if rcode, _, err := p.asks.ask(name, 100*time.Millisecond); err == nil && rcode == dns.RcodeNameError {
			p.first, p.pid = time.Since(began), cmd.Process.Pid
			return end, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	end()
	return nil, fmt.Errorf("%s blocks nothing after two minutes", p.name)
}

// questions is how many one peer is asked in a round, one after the other, of
// listed names and as many of one that is not.
const questions = 20_000

func (p *peer) round(names []string) error {
	for what := range p.took {
		before := cpuOf(p.pid)
		for i := range questions {
			name := "www.maker.example"
			if what == 0 {
				name = names[i%len(names)]
			}
			_, took, err := p.asks.ask(name, 2*time.Second)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", p.name, name, err)
			}
			p.took[what] = append(p.took[what], took)
		}
		p.cpu[what] = append(p.cpu[what], cpuOf(p.pid)-before)
	}
	return nil
}

func (p *peer) cost(what int) string {
	slices.Sort(p.cpu[what])
	cpu := p.cpu[what]
	per := func(d time.Duration) float64 { return d.Seconds() * 100_000 / questions }
	return fmt.Sprintf("p50 %v, %.1f s of processor for 100,000 (%.1f to %.1f)", (&load{took: p.took[what]}).percentile(.5).Round(time.Microsecond),
		per(cpu[len(cpu)/2]), per(cpu[0]), per(cpu[len(cpu)-1]))
}

// cpuOf is what a process has used of the processors, from /proc/PID/stat.
func cpuOf(pid int) time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

// status is a line of the daemon's /proc/PID/status, in octets.
func (s *story) status(key string) int { return statusOf(s.daemon.Process.Pid, key) }

func statusOf(pid int, key string) int {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
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
