//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sync/errgroup"

	"github.com/netcurtain/netcurtain/internal/netlab"
	"github.com/netcurtain/netcurtain/internal/netlab/labtest"
	"github.com/netcurtain/netcurtain/internal/netlab/scene"
)

// TestStories runs every story of testdata with the binary built from this tree.
//
// In a story, besides testscript's own commands:
//
//	house FILE...            a house with these personas (files of the story), router and internet; no Netcurtain yet
//	world NAME...            further names that the internet knows; before house
//	netcurtain [FILE]        start the daemon with these settings on top of the test's, and wait until it is well
//	start [FILE]             the same, but only until it answers: well or not
//	netcurtain! REGEXP       start it, expecting that it ends with an error that matches
//	signal KILL|STOP|…       signal the daemon
//	act DEVICE VERB …        one act of a persona; its outcome is the command's stdout
//	act6 DEVICE VERB …       the same over IPv6
//	within 5s act …          repeat a command until its outcome matches the regexp that ends the line; a busy
//	                         machine is given more than the time, which is no promise
//	burst DEVICE N ADDRESS   N flows of one datagram each, as fast as it goes
//	counted DEVICE N         wait until the flows in the ledger and those told as lost are N
//	turns DEVICE HOST:UP:DOWN…  hosts one after the other on one connection; the ledger must say of each what the
//	                         kernel's counters up and down of table inet count said
//	steady DEVICE NAME 8s    look NAME up each second from one source port; prints each answer with its time
//	api GET PATH             ask the control socket; stdout is the JSON
//	router CMD…, internet CMD…, on DEVICE CMD…   run a program there
//	cgroup 96                the daemon may have so many MB of memory; before netcurtain
//	million FILE             a real list of a million names; skips where there is none
//	web FOLDER               serve a folder of the story in the internet, at $WEB
//	resolver DEVICE ADDRESS  DEVICE is a resolver for the house, which asks ADDRESS itself
//	rawfiles REGEXP          fail if the bytes of any database file match
//	promlint                 fail if a metric is badly named, or names somebody
//
// And for the fail table of ARCHITECTURE.md, where a promise in seconds is one of
// a machine that has time, and grows with its overload:
//
//	family [FILE]            a house with the daemon well: a filtered tv, a guarded toy, and a
//	                         camera without internet, which must never get out; on the tv eight stubborn clients ask
//	                         each second from one source port each: router and 8.8.8.8, UDP and TCP, IPv4 and IPv6
//	ours 5s, plain 6s        within the time all is filtered, or nothing but what is cut; stdout is what each client got
//	                         since; right after a start the time runs from that start; "look-ups" or "web" behind it
//	                         asks for these alone
//	outfor 1s                after the cut was taken out of the kernel: the camera got out for no longer than that
//	reboot                   power cut: a new router's kernel, empty memory file systems, cut.nft loaded, no daemon
//	hang FUNCTION            who calls this function of the daemon waits for ever, and the daemon lives
//	clock +26h|-9000h        the daemon's clock steps
//	ended                    the daemon has ended by itself
//	memory 0                 no page more of memory for the daemon
//	small DIR 4m             DIR is a memory file system of this size
//	lock FILE 5s             somebody holds a database of the daemon
//	soak                     connections by the thousand between tv, toy and the internet, which must leave nothing behind
//	idle DEVICE HOST N [tls] gets a page of HOST over N connections, which stay open; prints how many were refused
//	idle none                closes them
func TestStories(t *testing.T) { runStories(t, "testdata") }

// TestMain builds the daemon from this tree, once for all tests, or takes the one
// that NETCURTAIN_BINARY names.
func TestMain(m *testing.M) {
	// Stories wait more than they work: more of them at once than there are processors.
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "nc-bin-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil { // for the story of a person without rights
			panic(err)
		}
		bin := filepath.Join(dir, "netcurtain")
		build := exec.Command("go", "build", "-o", bin, "../cmd/netcurtain")
		if ready := os.Getenv("NETCURTAIN_BINARY"); ready != "" { // as it ships
			build = exec.Command("cp", ready, bin)
		}
		build.Env = append(os.Environ(), "GOFLAGS=-tags=netgo,osusergo,sqlite_omit_load_extension")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building the binary: %v\n%s", err, out)
			return 1
		}
		os.Setenv("NETCURTAIN_E2E_BINARY", bin)
		return m.Run()
	}())
}

// binary is the daemon that TestMain built.
func binary(t testing.TB) string {
	t.Helper()
	return os.Getenv("NETCURTAIN_E2E_BINARY")
}

func runStories(t *testing.T, dir string, more ...map[string]func(*testscript.TestScript, bool, []string)) {
	labtest.NeedRoot(t)
	bin := filepath.Dir(binary(t))
	params := testscript.Params{
		Dir: dir,
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("/run", "nc-e2e-") // short: it holds a socket
			if err != nil {
				return err
			}
			s := &story{dir: dir, t: env.T().(testing.TB), daemon: nil}
			env.Values["story"] = s
			env.Defer(func() { s.close() })
			env.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			env.Setenv("NETCURTAIN_SOCKET", filepath.Join(dir, "control.sock"))
			env.Setenv("STATE", dir)
			env.Setenv("BINARY", os.Getenv("NETCURTAIN_E2E_BINARY"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"world":       withStory((*story).world),
			"house":       withStory((*story).house),
			"netcurtain":  withStory((*story).netcurtain),
			"start":       withStory((*story).answers),
			"netcurtain!": withStory((*story).refuses),
			"signal":      withStory((*story).signal),
			"burst":       withStory((*story).burst),
			"turns":       withStory((*story).turns),
			"counted":     withStory((*story).counted),
			"act":         withStory((*story).act),
			"act6":        withStory((*story).act6),
			"within":      withStory((*story).within),
			"steady":      withStory((*story).steady),
			"api":         withStory((*story).api),
			"router":      withStory((*story).router),
			"on":          withStory((*story).on),
			"internet":    withStory((*story).internet),
			"resolver":    withStory((*story).resolver),
			"web":         withStory((*story).web),
			"cgroup":      withStory((*story).group),
			"million":     withStory((*story).million),
			"rawfiles":    withStory((*story).rawfiles),
			"promlint":    withStory((*story).promlint),
			"family":      withStory((*story).family),
			"ours":        withStory((*story).ours),
			"plain":       withStory((*story).plain),
			"outfor":      withStory((*story).outFor),
			"reboot":      withStory((*story).reboot),
			"hang":        withStory((*story).hang),
			"clock":       withStory((*story).clock),
			"ended":       withStory((*story).hasEnded),
			"memory":      withStory((*story).memory),
			"small":       withStory((*story).small),
			"lock":        withStory((*story).lock),
			"cpu":         withStory((*story).cpu),
			"soak":        withStory((*story).soak),
			"idle":        withStory((*story).idle),
		},
	}
	for _, m := range more {
		maps.Copy(params.Cmds, m)
	}
	testscript.Run(t, params)
}

func withStory(fn func(*story, *testscript.TestScript, []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		err := fn(ts.Value("story").(*story), ts, args)
		switch {
		case err != nil && !neg:
			ts.Fatalf("%v", err)
		case err == nil && neg:
			ts.Fatalf("it worked, and should not")
		case err != nil:
			ts.Logf("[failed as it should: %v]", err)
		}
	}
}

// story is one running house.
type story struct {
	t         testing.TB
	dir       string
	extra     []string
	lab       *netlab.House
	devices   map[string]*scene.Device
	ctx       context.Context // of the servers
	stop      context.CancelFunc
	servers   *errgroup.Group
	daemon    *exec.Cmd
	ended     chan struct{}
	daemonLog bytes.Buffer
	cgroup    string // folder of the control group that the daemon lives in; "" is none
	fam       *family
	idlers    []net.Conn
	crowded   bool           // holds crowd
	undo      []func() error // in reverse order, when the story ends
}

func (s *story) close() {
	if s.fam != nil {
		s.fam.close()
	}
	if s.daemon != nil {
		_ = s.daemon.Process.Signal(syscall.SIGCONT)
		_ = s.daemon.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.ended:
		case <-time.After(30 * time.Second):
			s.t.Errorf("the daemon did not stop within 30 s")
			_ = s.daemon.Process.Kill()
			<-s.ended
		}
		if s.t.Failed() {
			s.t.Logf("the daemon's log:\n%s", s.daemonLog.String())
		}
	}
	if s.stop != nil {
		s.stop()
		if err := s.servers.Wait(); err != nil {
			s.t.Errorf("the made-up internet: %v", err)
		}
	}
	for _, undo := range slices.Backward(s.undo) {
		if err := undo(); err != nil {
			s.t.Error(err)
		}
	}
	if err := os.RemoveAll(s.dir); err != nil {
		s.t.Error(err)
	}
}

func (s *story) world(_ *testscript.TestScript, names []string) error {
	s.extra = append(s.extra, names...)
	return nil
}

func (s *story) house(ts *testscript.TestScript, files []string) error {
	var all []scene.Persona
	for _, f := range files {
		p, err := scene.Parse(strings.NewReader(ts.ReadFile(f)), f)
		if err != nil {
			return err
		}
		all = append(all, p)
	}
	for _, n := range s.extra { // names that only acts of the story use
		a, err := scene.ParseAct("lookup", n)
		if err != nil {
			return err
		}
		all = append(all, scene.Persona{Acts: []scene.Act{a}})
	}
	in, err := scene.NewInternet(all)
	if err != nil {
		return err
	}
	all = all[:len(files)]
	plan := netlab.Plan{Internet: in.Addrs()}
	for _, p := range all {
		plan.Devices = append(plan.Devices, p.Plan())
	}
	s.lab = labtest.House(s.t, plan)
	s.devices = map[string]*scene.Device{}
	for _, p := range all {
		s.devices[p.Name] = &scene.Device{Persona: p, Host: s.lab.Devices[p.Name], Roots: in.Roots(), Addr: in.Addr}
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.servers, ctx = errgroup.WithContext(ctx)
	s.ctx = ctx
	ready := make(chan struct{}, 2)
	router := &scene.Router{Host: s.lab.Router, Leases: all}
	s.servers.Go(func() error { return in.Run(ctx, s.lab.Internet, func() { ready <- struct{}{} }) })
	s.servers.Go(func() error { return router.Run(ctx, func() { ready <- struct{}{} }) })
	for range 2 {
		select {
		case <-ready:
		case <-ctx.Done():
			return s.servers.Wait()
		}
	}
	if err := os.WriteFile(filepath.Join(s.dir, "ca.pem"), in.PEM(), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.dir, "resolv.conf"), []byte("nameserver "+scene.ProviderDNS.String()+"\n"), 0o600); err != nil {
		return err
	}
	return router.WriteLeases(filepath.Join(s.dir, "dhcp.leases"))
}

// web serves files as a maker of lists does: with Last-Modified, and 304 when asked.
func (s *story) web(ts *testscript.TestScript, args []string) error {
	var l net.Listener
	if err := s.lab.Internet.Do(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(scene.ProviderDNS, 8099).String())
		return err
	}); err != nil {
		return err
	}
	web := &http.Server{Handler: http.FileServer(http.Dir(ts.MkAbs(args[0]))), ReadHeaderTimeout: 5 * time.Second}
	s.servers.Go(func() error {
		if err := web.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	context.AfterFunc(s.ctx, func() { _ = web.Close() })
	ts.Setenv("WEB", "http://"+l.Addr().String())
	return nil
}

// settings are the test's own paths; a story adds sections and options.
func (s *story) settings(extra string) string {
	base := map[string]string{
		"house": strings.ReplaceAll("\tlist lan 'br-lan'\n\toption state 'DIR/state'\n\toption volatile 'DIR/volatile'\n\toption socket 'DIR/control.sock'\n\tlist leases 'DIR/dhcp.leases'\n", "DIR", s.dir),
		"dns":   "\tlist resolv '" + s.dir + "/resolv.conf'\n",
		"store": "\toption flush '1s'\n",
	}
	text := extra
	for section, options := range base {
		if head := "config " + section + "\n"; strings.Contains(text, head) {
			text = strings.Replace(text, head, head+options, 1)
		} else {
			text += head + options
		}
	}
	return text
}

func (s *story) start(ts *testscript.TestScript, args []string) error {
	extra := ""
	if len(args) > 0 {
		extra = ts.ReadFile(args[0])
	}
	path := filepath.Join(s.dir, "netcurtain")
	if err := os.WriteFile(path, []byte(s.settings(extra)), 0o600); err != nil {
		return err
	}
	bin := cmpOr(ts.Getenv("DAEMON"), binary(s.t))
	s.daemonLog.Reset()
	s.daemon = exec.Command(bin, "run", "--config", path)
	if s.cgroup != "" {
		s.daemon = exec.Command("sh", "-c", `echo $$ > "$0/cgroup.procs" && exec "$@"`, s.cgroup, bin, "run", "--config", path)
	}
	s.daemon.Env = append(os.Environ(), "SSL_CERT_FILE="+filepath.Join(s.dir, "ca.pem"), "PATH="+cmpOr(ts.Getenv("DAEMON_PATH"), os.Getenv("PATH")))
	s.daemon.Stdout, s.daemon.Stderr = &s.daemonLog, &s.daemonLog
	if s.fam != nil {
		s.fam.began = time.Now()
	}
	if err := s.lab.Router.Do(s.daemon.Start); err != nil {
		return err
	}
	s.ended = make(chan struct{})
	go func() { _ = s.daemon.Wait(); close(s.ended) }()
	return nil
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (s *story) netcurtain(ts *testscript.TestScript, args []string) error {
	return s.startUntil(ts, args, `(?s)"name": ?"dns",\s*"ok": ?true.*"name": ?"proxy",\s*"ok": ?true|"name": ?"proxy",\s*"ok": ?true.*"name": ?"dns",\s*"ok": ?true`)
}

func (s *story) answers(ts *testscript.TestScript, args []string) error {
	return s.startUntil(ts, args, `"uptime_seconds"`)
}

// startUntil starts the daemon and waits until its status matches.
func (s *story) startUntil(ts *testscript.TestScript, args []string, status string) error {
	if err := s.start(ts, args); err != nil {
		return err
	}
	want := regexp.MustCompile(status)
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		select {
		case <-s.ended:
			return fmt.Errorf("the daemon ended:\n%s", s.daemonLog.String())
		case <-time.After(100 * time.Millisecond):
		}
		if out, err := s.ask(ts, "/api/v1/status"); err == nil && want.MatchString(out) {
			return nil
		}
	}
	return fmt.Errorf("the house did not get well:\n%s", s.daemonLog.String())
}

// refuses starts the daemon and expects that it ends by itself, in words.
func (s *story) refuses(ts *testscript.TestScript, args []string) error {
	if err := s.start(ts, args[1:]); err != nil {
		return err
	}
	select {
	case <-s.ended:
	case <-time.After(time.Minute):
		return errors.New("the daemon runs, and should have refused")
	}
	if s.daemon.ProcessState.ExitCode() == 0 {
		return errors.New("the daemon ended with exit code 0")
	}
	defer func() { s.daemon = nil }()
	return match(args[0], s.daemonLog.String())
}

// hasEnded waits until the daemon has ended by itself.
func (s *story) hasEnded(_ *testscript.TestScript, _ []string) error {
	select {
	case <-s.ended:
		s.daemon = nil
		return nil
	case <-time.After(time.Minute):
		return errors.New("the daemon runs on")
	}
}

func match(pattern, text string) error {
	re, err := regexp.Compile("(?s)" + pattern)
	if err != nil {
		return err
	}
	if !re.MatchString(text) {
		return fmt.Errorf("%q does not match:\n%s", pattern, text)
	}
	return nil
}

func (s *story) signal(_ *testscript.TestScript, args []string) error {
	sig, ok := map[string]syscall.Signal{"KILL": syscall.SIGKILL, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP}[args[0]]
	if !ok {
		return fmt.Errorf("signal %q is not known", args[0])
	}
	if err := s.daemon.Process.Signal(sig); err != nil {
		return err
	}
	if sig == syscall.SIGKILL || sig == syscall.SIGTERM {
		select {
		case <-s.ended:
		case <-time.After(30 * time.Second):
			return errors.New("the daemon does not end")
		}
		s.daemon = nil
	}
	return nil
}

func (s *story) act(ts *testscript.TestScript, args []string) error  { return s.do(ts, args, false) }
func (s *story) act6(ts *testscript.TestScript, args []string) error { return s.do(ts, args, true) }

func (s *story) do(ts *testscript.TestScript, args []string, v6 bool) error {
	text, err := s.outcome(args, v6)
	if err != nil {
		text = "error: " + err.Error()
	}
	_, err = fmt.Fprintln(ts.Stdout(), text)
	return err
}

func (s *story) outcome(args []string, v6 bool) (string, error) {
	d, ok := s.devices[args[0]]
	if !ok {
		return "", fmt.Errorf("no device %q in this house", args[0])
	}
	a, err := scene.ParseAct(args[1:]...)
	if err != nil {
		return "", err
	}
	with := *d
	with.V6 = v6
	return with.Do(context.Background(), a)
}

// within repeats a command each 100 ms until what it prints matches.
func (s *story) within(ts *testscript.TestScript, args []string) error {
	patience, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	pattern, cmd := args[len(args)-1], args[1:len(args)-1]
	patience = max(15*time.Second, min(3*patience, patience+30*time.Second))
	began := time.Now()
	var last string
	for {
		switch cmd[0] {
		case "act", "act6":
			if last, err = s.outcome(cmd[1:], cmd[0] == "act6"); err != nil {
				last = "error: " + err.Error()
			}
		case "api":
			last, err = s.ask(ts, cmd[2])
		case "router":
			var out []byte
			out, err = commandOn(ts, s.lab.Router, cmd[1:]).CombinedOutput()
			last = string(out)
		case "on":
			out, _ := commandOn(ts, s.devices[cmd[1]].Host, cmd[2:]).CombinedOutput()
			last = string(out)
		default:
			return fmt.Errorf("within does not know %q", cmd[0])
		}
		if err := match(pattern, last); err == nil {
			ts.Logf("[after %.1f s: %.200s]", time.Since(began).Seconds(), last)
			return nil
		}
		if time.Since(began) > patience {
			return fmt.Errorf("after %s still: %s (%v)", patience, last, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// steady is a client that never gives its source port up: it asks every second
// and prints when which answer came.
func (s *story) steady(ts *testscript.TestScript, args []string) error {
	d := s.devices[args[0]]
	patience, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	server := netip.AddrPortFrom(netlab.RouterLAN4.Addr(), 53)
	if len(args) > 3 {
		server = netip.AddrPortFrom(netip.MustParseAddr(args[3]), 53)
	}
	var c net.Conn
	if err := d.Host.Do(func() (err error) {
		c, err = (&net.Dialer{LocalAddr: &net.UDPAddr{Port: 40000}}).Dial("udp", server.String())
		return err
	}); err != nil {
		return err
	}
	defer c.Close()
	began := time.Now()
	for time.Since(began) < patience {
		m := new(dns.Msg).SetQuestion(dns.Fqdn(args[1]), dns.TypeA)
		_ = c.SetDeadline(time.Now().Add(900 * time.Millisecond))
		co := &dns.Conn{Conn: c}
		answer := "no answer"
		if err := co.WriteMsg(m); err == nil {
			if r, err := co.ReadMsg(); err == nil && r.Id == m.Id {
				answer = dns.RcodeToString[r.Rcode]
			}
		}
		fmt.Fprintf(ts.Stdout(), "%.0fs %s\n", time.Since(began).Seconds(), answer)
		time.Sleep(time.Until(began.Add(time.Since(began).Truncate(time.Second) + time.Second)))
	}
	return nil
}

func (s *story) api(ts *testscript.TestScript, args []string) error {
	out, err := s.ask(ts, args[1])
	if err != nil {
		return err
	}
	_, err = io.WriteString(ts.Stdout(), out)
	return err
}

func (s *story) ask(ts *testscript.TestScript, path string) (string, error) {
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", ts.Getenv("NETCURTAIN_SOCKET"))
		},
	}}
	resp, err := client.Get("http://house" + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", resp.Status, b)
	}
	return string(b), err
}

func (s *story) router(ts *testscript.TestScript, args []string) error {
	return runOn(ts, s.lab.Router, args)
}

func (s *story) internet(ts *testscript.TestScript, args []string) error {
	return runOn(ts, s.lab.Internet, args)
}

// resolver makes a device answer look-ups with what it learns from another resolver.
func (s *story) resolver(_ *testscript.TestScript, args []string) error {
	d, ok := s.devices[args[0]]
	if !ok {
		return fmt.Errorf("no device %q in this house", args[0])
	}
	upstream := netip.AddrPortFrom(netip.MustParseAddr(args[1]), 53).String()
	forward := func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
		_ = d.Host.Do(func() error {
			a, _, err := (&dns.Client{Timeout: 2 * time.Second}).Exchange(q, upstream)
			if err == nil {
				m = a
			}
			return err
		})
		_ = w.WriteMsg(m)
	}
	return d.Host.Do(func() error { return scene.ServeDNS(s.ctx, s.servers, dns.HandlerFunc(forward)) })
}

func (s *story) on(ts *testscript.TestScript, args []string) error {
	d, ok := s.devices[args[0]]
	if !ok {
		return fmt.Errorf("no device %q in this house", args[0])
	}
	return runOn(ts, d.Host, args[1:])
}

func runOn(ts *testscript.TestScript, h *netlab.Host, args []string) error {
	cmd := commandOn(ts, h, args)
	cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
	return cmd.Run()
}

// commandOn is a program in a namespace with the story's environment.
func commandOn(ts *testscript.TestScript, h *netlab.Host, args []string) *exec.Cmd {
	cmd := h.Command(context.Background(), args[0], args[1:]...)
	cmd.Dir = ts.Getenv("WORK")
	cmd.Env = append(os.Environ(), "PATH="+ts.Getenv("PATH"), "NETCURTAIN_SOCKET="+ts.Getenv("NETCURTAIN_SOCKET"))
	return cmd
}

// promlint fails when a metric of the running daemon is named against the rules,
// or has a label that could name a device or where it goes.
func (s *story) promlint(ts *testscript.TestScript, _ []string) error {
	text, err := s.ask(ts, "/metrics")
	if err != nil {
		return err
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "netcurtain_") {
			errs = append(errs, fmt.Errorf("%s: %s", p.Metric, p.Text))
		}
	}
	for _, found := range regexp.MustCompile(`(?m)^netcurtain_.*\b(device|domain|name|address|addr|mac|client)=.*`).FindAllString(text, -1) {
		errs = append(errs, fmt.Errorf("a label that names somebody: %s", found))
	}
	if !strings.Contains(text, "netcurtain_dnsfilter_") || !strings.Contains(text, "coredns_") {
		errs = append(errs, errors.New("metrics of our rooms or of CoreDNS are missing"))
	}
	return errors.Join(errs...)
}

// rawfiles looks for what must not be there in the very bytes on the disk.
func (s *story) rawfiles(_ *testscript.TestScript, args []string) error {
	re, err := regexp.Compile(args[0])
	if err != nil {
		return err
	}
	n := 0
	err = filepath.Walk(s.dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() || !strings.Contains(path, ".db") {
			return err
		}
		n++
		b, err := os.ReadFile(path)
		if at := re.FindIndex(b); at != nil {
			return fmt.Errorf("%s holds %q at %s", filepath.Base(path), b[at[0]:at[1]], strconv.Itoa(at[0]))
		}
		return err
	})
	if err == nil && n < 3 {
		return fmt.Errorf("only %d database files: is this the right folder?", n)
	}
	return err
}
