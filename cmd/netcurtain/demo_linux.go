package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/netlab"
	"github.com/netcurtain/netcurtain/internal/netlab/scene"
	"github.com/netcurtain/netcurtain/internal/netlab/scene/personas"
	"github.com/netcurtain/netcurtain/ui/api"
)

const (
	demoFolder = "/run/netcurtain-demo"
	demoPrefix = "nc-"
)

// Run builds the house, lets it live and takes it down.
func (c demoCmd) Run(ctx context.Context, io std) error {
	if err := c.check(); err != nil {
		return err
	}
	all, err := c.loadPersonas()
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		if c.Verify {
			return errors.New("--verify: the house needs root: sudo netcurtain demo --verify --for 40s")
		}
		page, err := c.listenPage(ctx)
		if err != nil {
			return err
		}
		defer page.Close()
		fmt.Fprintln(io.err, "The house needs root (sudo netcurtain demo). Without it, here is a capture that was recorded from it.")
		return c.showSample(ctx, io, page)
	}
	for tool, pkg := range map[string]string{"nft": "nftables", "ip": "iproute2"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is missing: apt-get install %s", tool, pkg)
		}
	}
	unlock, err := lockDemo()
	if err != nil {
		return err
	}
	defer unlock()
	if left, err := netlab.Sweep(demoPrefix); err != nil {
		return fmt.Errorf("tidying up after an earlier demo: %w", err)
	} else if len(left) > 0 {
		fmt.Fprintf(io.err, "tidied up after an earlier demo: %d namespaces\n", len(left))
	}
	// After the tidying, for a daemon left behind holds the page; before anything
	// is made.
	page, err := c.listenPage(ctx)
	if err != nil {
		return err
	}
	defer page.Close()
	return c.live(ctx, io, all, page)
}

// lockDemo allows one demo at a time: the namespaces have stable names.
func lockDemo() (unlock func(), err error) {
	if err := os.MkdirAll(demoFolder, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(demoFolder, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("another demo is running on this machine (%s is locked)", f.Name())
	}
	return func() { _ = os.RemoveAll(demoFolder); _ = f.Close() }, nil
}

func (c demoCmd) live(ctx context.Context, io std, all []scene.Persona, page *net.TCPListener) (err error) {
	talk := demoTalk{to: io.err, began: time.Now(), last: map[string]string{}}
	in, err := scene.NewInternet(all)
	if err != nil {
		return err
	}
	plan := netlab.Plan{Prefix: demoPrefix, Internet: in.Addrs()}
	for _, p := range all {
		plan.Devices = append(plan.Devices, p.Plan())
	}
	house, err := netlab.Build(ctx, plan)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, house.Close()) }()
	talk.say("a house stands: %d devices, a router, an internet", len(all))

	if c.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.For+10*time.Second) // the verification's own time on top
		defer cancel()
	}
	world, stop := context.WithCancel(ctx)
	defer stop()
	g, world := errgroup.WithContext(world)
	if err := openWorld(world, g, house, in, all); err != nil {
		return err
	}
	talk.say("the internet answers: DNS, HTTP, TLS, QUIC, MQTT, NTP")

	daemon, err := startDaemon(house.Router, page)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, daemon.stop()) }()
	f := socketFlag{Socket: filepath.Join(demoFolder, "control.sock")}
	if err := daemon.wait(world, f); err != nil {
		return err
	}
	talk.say("netcurtain runs in the router's namespace (pid %d), its log is %s", daemon.cmd.Process.Pid, filepath.Join(demoFolder, "daemon.log"))

	if err := f.choose(world, all); err != nil {
		return err
	}
	if err := f.waitWell(world); err != nil {
		return err
	}
	talk.say("it answers look-ups and carries guarded connections; the devices begin to live")

	report := talk.report
	if c.Quiet {
		report = func(scene.Outcome) {}
	}
	for _, p := range all {
		d := &scene.Device{Persona: p, Host: house.Devices[p.Name], Roots: in.Roots(), Addr: in.Addr}
		g.Go(func() error { return d.Run(world, report) })
	}
	fmt.Fprintf(io.err, `
  The page:        http://%[1]s/     (from elsewhere: ssh -L 8300:%[1]s THIS-MACHINE)
  The same house:  netcurtain devices --socket %[2]s
  Step into it:    ip netns exec nc-tv ping 192.168.77.1
  Ctrl-C ends it and leaves nothing behind.

`, page.Addr(), f.Socket)

	end := make(<-chan time.Time)
	if c.For > 0 {
		end = time.After(c.For - time.Since(talk.began))
	}
	select {
	case <-world.Done():
	case <-daemon.done:
		return fmt.Errorf("the daemon ended by itself: %w; see %s", daemon.err, daemon.keepLog())
	case <-end:
	}
	if c.Verify {
		err = f.verify(ctx, io, all)
	}
	stop()
	return errors.Join(err, g.Wait())
}

// openWorld starts the internet and the router's own services in g, and waits until
// both answer.
func openWorld(ctx context.Context, g *errgroup.Group, house *netlab.House, in *scene.Internet, all []scene.Persona) error {
	router := &scene.Router{Host: house.Router, Leases: all}
	if err := router.WriteLeases(filepath.Join(demoFolder, "dhcp.leases")); err != nil {
		return err
	}
	ready := make(chan struct{}, 2)
	answers := func() { ready <- struct{}{} }
	g.Go(func() error { return in.Run(ctx, house.Internet, answers) })
	g.Go(func() error { return router.Run(ctx, answers) })
	for range 2 {
		select {
		case <-ready:
		case <-ctx.Done():
			return context.Cause(ctx) // what failed in g
		}
	}
	return nil
}

// demoTalk says what happens, and when since the demo began.
type demoTalk struct {
	to    io.Writer
	began time.Time

	mu   sync.Mutex
	last map[string]string // what each act of a device came to
}

func (t *demoTalk) say(format string, arg ...any) {
	fmt.Fprintf(t.to, "%5.1fs  "+format+"\n", append([]any{time.Since(t.began).Seconds()}, arg...)...)
}

// report says what came of an act, where that is new.
func (t *demoTalk) report(o scene.Outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := fmt.Sprint(o.Persona, o.Act.Line)
	if t.last[key] != o.Text {
		t.last[key] = o.Text
		t.say("%-8s %-6s %-34s %s", o.Persona, o.Act.Verb, o.Act.Host, o.Text)
	}
}

// choose tells the house what its people chose in their persona files.
func (f socketFlag) choose(ctx context.Context, all []scene.Persona) error {
	for _, p := range all {
		path := "/api/v1/devices/" + url.PathEscape(p.MAC.String())
		if err := f.waitFor(ctx, path); err != nil {
			return err
		}
		if p.Kind != devices.KindUnknown {
			if err := f.post(ctx, path+"/kind", api.SetKind{Kind: string(p.Kind)}, nil); err != nil {
				return fmt.Errorf("%s: %w", p.Name, err)
			}
		}
		if p.Mode != devices.ModeUnset {
			if err := f.post(ctx, path+"/mode", api.SetMode{Mode: p.Mode.String()}, nil); err != nil {
				return fmt.Errorf("%s: %w", p.Name, err)
			}
		}
		if p.LogSet {
			if err := f.post(ctx, path+"/log", api.SetLog{Level: p.Log.String()}, nil); err != nil {
				return fmt.Errorf("%s: %w", p.Name, err)
			}
		}
	}
	return nil
}

// waitWell waits until everything in the house is well and answers.
func (f socketFlag) waitWell(ctx context.Context) error {
	return until(ctx, 20*time.Second, func(ctx context.Context) error {
		var s api.Status
		err := f.get(ctx, "/api/v1/status", nil, &s)
		well := map[string]bool{}
		for _, h := range s.Health {
			well[h.Name] = h.OK
		}
		if err == nil && well["dns"] && well["proxy"] {
			return nil
		}
		if err != nil {
			return err
		}
		return fmt.Errorf("the house does not get well: %+v", s.Health)
	})
}

// waitFor waits until the house knows a device.
func (f socketFlag) waitFor(ctx context.Context, path string) error {
	return until(ctx, 15*time.Second, func(ctx context.Context) error {
		if err := f.get(ctx, path, nil, nil); err != nil {
			return fmt.Errorf("waiting for %s: %w", path, err)
		}
		return nil
	})
}

// until repeats try until it works. After patience its last error is the answer;
// when a person ends it all meanwhile, that is.
func until(ctx context.Context, patience time.Duration, try func(context.Context) error) error {
	short, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := try(short)
		if err == nil {
			return nil
		}
		select {
		case <-short.Done():
		case <-time.After(50 * time.Millisecond):
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
}

// child is the daemon's process.
type child struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of its end; read after done
}

// demoSettings wires the daemon for the made-up house; what it does not say is
// the default, as on a real router.
const demoSettings = `config house
	option name 'the demo house'
	list lan 'br-lan'
	option state '/run/netcurtain-demo/state'
	option volatile '/run/netcurtain-demo/volatile'
	option socket '/run/netcurtain-demo/control.sock'
	list leases '/run/netcurtain-demo/dhcp.leases'
	list destinations '/run/netcurtain-demo/destinations.tsv'
config dns
	list resolv '/run/netcurtain-demo/resolv.conf'
config store
	option flush '1s'
`

// startDaemon runs this very binary in the router's namespace and hands it the
// page's listener, which stays outside.
func startDaemon(router *netlab.Host, page *net.TCPListener) (*child, error) {
	for name, text := range map[string]string{
		"netcurtain": demoSettings, "destinations.tsv": personas.Destinations, "resolv.conf": "nameserver " + scene.ProviderDNS.String() + "\n",
	} {
		if err := os.WriteFile(filepath.Join(demoFolder, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	handed, err := page.File()
	if err != nil {
		return nil, err
	}
	defer handed.Close()
	log, err := os.Create(filepath.Join(demoFolder, "daemon.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(self, "run", "--config", filepath.Join(demoFolder, "netcurtain"), "--page-fd", "3", "--until-fd", "4")
	ours, theirs, err := os.Pipe() // theirs ends when we do, however we end
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{handed, ours}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to hand on, in order
	// The child inherits the namespace of the thread that forks it.
	if err := router.Do(cmd.Start); err != nil {
		return nil, fmt.Errorf("starting the daemon: %w", err)
	}
	c := &child{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		defer theirs.Close()
		c.err = cmd.Wait()
	}()
	return c, nil
}

// wait returns once the daemon answers on its control socket, or has ended.
func (c *child) wait(ctx context.Context, f socketFlag) error {
	err := until(ctx, 20*time.Second, func(ctx context.Context) error {
		select {
		case <-c.done:
			return nil
		default:
		}
		if err := f.get(ctx, "/api/v1/status", nil, nil); err != nil {
			return fmt.Errorf("the daemon does not answer: %w", err)
		}
		return nil
	})
	select {
	case <-c.done:
		text, _ := os.ReadFile(filepath.Join(demoFolder, "daemon.log"))
		return fmt.Errorf("the daemon ended at once (%w):\n%s", c.err, text)
	default:
		return err
	}
}

// stop ends the daemon as an init system would.
func (c *child) stop() error {
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(10 * time.Second):
		_ = c.cmd.Process.Kill()
		<-c.done
		return errors.New("the daemon did not stop within 10 s and was killed")
	}
	return nil
}

// keepLog moves the log to where it outlives the demo's folder.
func (c *child) keepLog() string {
	text, err := os.ReadFile(filepath.Join(demoFolder, "daemon.log"))
	if err != nil {
		return err.Error()
	}
	// A name that nobody can foresee: everybody may put links into this folder.
	to, err := os.CreateTemp("", "netcurtain-demo-*.log")
	if err != nil {
		return err.Error()
	}
	_, err = to.Write(text)
	if err := errors.Join(err, to.Close()); err != nil {
		return err.Error()
	}
	return to.Name()
}
