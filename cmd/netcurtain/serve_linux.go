package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"github.com/netcurtain/netcurtain/enforce"
	"github.com/netcurtain/netcurtain/internal/buildinfo"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/ui"
	"github.com/netcurtain/netcurtain/ui/api"
)

func (d *daemon) pages() (*ui.Server, error) {
	s := d.settings.Load()
	if err := errors.Join(d.metrics.Register(collectors.NewGoCollector()),
		d.metrics.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))); err != nil {
		return nil, err
	}
	return ui.New(ui.Config{
		House: household{d}, Ledger: d.store, Live: d.recorder, Health: d.report, Kept: d.kept, Carrying: d.tally,
		Gatherer: prometheus.Gatherers{d.metrics, ofCoreDNS{}}, Registerer: d.metrics,
		Hosts: s.Page.Hosts, Version: buildinfo.Version, Logger: d.log,
	})
}

// ofCoreDNS gathers CoreDNS's own metrics, which it registers globally, and
// leaves out what else lives there (the Go runtime's are ours already).
type ofCoreDNS struct{}

func (ofCoreDNS) Gather() ([]*dto.MetricFamily, error) {
	all, err := prometheus.DefaultGatherer.Gather()
	var out []*dto.MetricFamily
	for _, f := range all {
		if len(f.GetName()) > 8 && f.GetName()[:8] == "coredns_" {
			out = append(out, f)
		}
	}
	return out, err
}

// kept says what this box keeps, for the page.
func (d *daemon) kept(context.Context) []string {
	s := d.settings.Load()
	asked := "No server was asked by ourselves since the start."
	if d.carrier != nil {
		if a := d.carrier.Asked(); a.Servers > 0 {
			asked = fmt.Sprintf("Servers that we asked by ourselves since the start, for devices whose requests are to leave encrypted: %d, each once a week at most, the last at %s; %d of them answer encrypted.",
				a.Servers, a.Last.Format("15:04 on 2 January"), a.Able)
		}
	}
	return []string{
		fmt.Sprintf("Names of destinations, for devices whose log level is names: %s, at most %d MB, in %s.", s.Store.Age, s.Store.Bytes>>20, s.House.Volatile),
		fmt.Sprintf("Daily sums per device and company, without names for personal devices: at most %d MB, in %s.", s.Store.MemoryBytes>>20, s.House.State),
		"What the household chose: until it is changed.",
		"How often each list decided: sums, for as long as the list is there. What this box itself asked outside: hosts and sums, for ninety days after the last time.",
		"Nothing is sent anywhere. Look-ups go to the resolver that the router uses; lists are fetched from the addresses on the page Lists.",
		asked,
	}
}

// listen opens the page's port and the control socket.
func (d *daemon) listen(ctx context.Context) (page, control net.Listener, err error) {
	s := d.settings.Load()
	if d.cmd.PageFD > 0 {
		f := os.NewFile(uintptr(d.cmd.PageFD), "page")
		page, err = net.FileListener(f)
		err = errors.Join(err, f.Close())
	} else {
		page, err = (&net.ListenConfig{}).Listen(ctx, "tcp", s.Page.Listen.String())
	}
	if err != nil {
		return nil, nil, fmt.Errorf("the page: %w: is another program there? choose another in section page, option listen", err)
	}
	if control, err = listenControl(ctx, s.House.Socket); err != nil {
		return nil, nil, errors.Join(err, page.Close())
	}
	return page, control, nil
}

// listenControl opens the control socket for root and our own user. A socket
// that nobody answers on any more is taken over.
func listenControl(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("the control socket: %w", err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("the control socket %s: another netcurtain runs already", path)
	}
	_ = os.Remove(path)
	mask := syscall.Umask(0o177) // the socket must never be there with other rights
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	syscall.Umask(mask)
	if err != nil {
		return nil, fmt.Errorf("the control socket: %w", err)
	}
	return peersOnly{l.(*net.UnixListener)}, nil
}

// peersOnly lets root and our own user in, whatever the file's rights became.
type peersOnly struct{ *net.UnixListener }

func (l peersOnly) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if peerAllowed(c) {
			return c, nil
		}
		_ = c.Close()
	}
}

func peerAllowed(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	allowed := false
	err = raw.Control(func(fd uintptr) {
		cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		allowed = err == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
	})
	return err == nil && allowed
}

// serveUntil serves l until ctx ends, then gives requests under way a second.
func serveUntil(ctx context.Context, s *http.Server, l net.Listener) error {
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := s.Shutdown(short); err != nil {
		_ = s.Close() // live feeds never end by themselves
	}
	<-done
	return nil
}

// reload reads the settings again. What only a start can change stays as it was
// until then, and that is said: a rule for a port on which nobody listens would
// take the house's look-ups away.
func (d *daemon) reload(ctx context.Context) {
	const mend = "netcurtain check --config "
	read, err := d.cmd.read()
	if err != nil {
		d.reloaded.Set(0)
		d.health.set("settings", err, "", mend+d.cmd.Config)
		d.log.Error("the settings file is wrong; the old settings stay in force", "error", err)
		return
	}
	next, restart := d.settings.Load().Adopt(read)
	well := "The settings file is in force."
	if restart {
		well = "The settings file is in force, but for what needs a restart: interfaces, ports, upstreams, paths, budgets."
		d.log.Warn("some of the new settings (interfaces, ports, upstreams, paths, budgets) need a restart; the old ones stay in force until then")
	}
	d.reloaded.Set(1)
	d.health.set("settings", nil, well, "")
	d.settings.Store(&next)
	if err := d.reloadLists(ctx); err != nil {
		d.log.Error("the lists of the new settings", "error", err)
		if err := d.recompile(ctx); err != nil {
			d.log.Error("compiling the rules", "error", err)
		}
	}
	d.changed()
	d.log.Info("the settings were read again", "file", d.cmd.Config)
}

// mendable is an error that knows better than its reporter what mends it.
type mendable struct {
	error
	mend string
}

// health collects how the rooms are.
type health struct {
	recorder *journal.Recorder
	now      func() time.Time
	mu       sync.Mutex // guards what follows
	lines    map[string]api.HealthLine
}

func newHealth(r *journal.Recorder, now func() time.Time) *health {
	return &health{recorder: r, now: now, lines: map[string]api.HealthLine{}}
}

// set notes how one thing is: well, with its meaning, or wrong, with its error
// and what mends it. A change of it is an event.
func (h *health) set(name string, err error, well, mend string) {
	line := api.HealthLine{Name: name, OK: err == nil, Meaning: well}
	if err != nil {
		line.Meaning, line.Mend = err.Error(), mend
		var known mendable
		if errors.As(err, &known) {
			line.Mend = known.mend
		}
	}
	h.mu.Lock()
	before, known := h.lines[name]
	h.lines[name] = line
	h.mu.Unlock()
	if known && before.OK == line.OK || !known && line.OK {
		return
	}
	text := name + " is well again."
	if !line.OK {
		text = name + ": " + line.Meaning
	}
	h.recorder.Record(journal.Entry{At: h.now(), Event: &journal.Event{Kind: journal.EventHealth, Text: text}})
}

// report is the answer to "how is the house".
func (d *daemon) report(ctx context.Context) api.Health {
	s := d.settings.Load()
	r := api.Health{Dropped: map[string]int64{}}
	problems := *d.problems.Load()
	around, err := enforce.Look(s.House.LAN)
	if err != nil {
		d.log.Error("looking where this box stands", "error", err)
	} else {
		r.Place, problems = around.String(), append(around.Problems(), problems...)
	}
	if barred := d.kernel.Barred(); len(barred) > 0 {
		r.Place += "; the firewall keeps devices behind " + strings.Join(barred, " and ") + " from the internet, and nothing is carried for them"
	}
	problems = append(problems, d.secondResolvers(ctx)...)
	for _, p := range problems {
		r.Lines = append(r.Lines, api.HealthLine{Name: "this box", Meaning: p.What, Mend: p.Fix, Dismiss: p.About})
	}
	d.health.mu.Lock()
	for _, name := range slices.Sorted(maps.Keys(d.health.lines)) {
		r.Lines = append(r.Lines, d.health.lines[name])
	}
	d.health.mu.Unlock()
	for _, st := range d.keeper.Status() {
		line := api.HealthLine{Name: "list " + st.Name, OK: st.LastError == "" && st.Unfit == "", Meaning: fmt.Sprintf("%d rules", st.Rules)}
		switch {
		case st.Unfit != "":
			line.Meaning, line.Mend = st.Unfit, "choose a smaller list, or remove one: netcurtain lists"
		case st.LastError != "":
			line.Meaning, line.Mend = st.LastError, "the last good one stays in force; see: netcurtain lists show "+ui.ShellQuote(st.Name)
		}
		r.Lines = append(r.Lines, line)
	}
	if r.Dropped, err = lost(d.metrics); err != nil {
		return r
	}
	r.Lines = append(r.Lines, missed(r.Dropped))
	if err := d.tracker.Counts(); err != nil && d.on.Load() {
		r.Lines = append(r.Lines, api.HealthLine{Name: "counting", Meaning: "the kernel does not count what connections carry: " + err.Error(),
			Mend: "sysctl -w net.netfilter.nf_conntrack_acct=1; where there is no such setting, the kernel was built without it"})
	}
	return r
}

// lost is what the metrics say that was lost since the start, by metric and labels.
func lost(metrics prometheus.Gatherer) (map[string]int64, error) {
	families, err := metrics.Gather()
	dropped := map[string]int64{}
	for _, f := range families {
		name := f.GetName()
		if !isLoss(name) {
			continue
		}
		for _, m := range f.GetMetric() {
			what := name
			for _, l := range m.GetLabel() {
				what += " " + l.GetValue()
			}
			dropped[what] = int64(m.GetCounter().GetValue())
		}
	}
	return dropped, err
}

// losses are what can be lost of what is written down, by its metric and label, and
// what that means. Who only shows or guesses may miss something at any time.
var losses = [...]struct{ metric, means string }{
	{"netcurtain_journal_dropped_total store", "flows and look-ups came faster than they could be written down, and are not in the ledger"},
	{"netcurtain_store_rows_dropped_total", "flows and look-ups could not be written, and are not in the ledger"},
	{"netcurtain_observe_dropped_messages_total event", "news of connections came too fast: their last bytes may be missing"},
	{"netcurtain_conntrack_overflows_total", "times the kernel had no room for news of connections: the last bytes of some may be missing"},
	{"netcurtain_nflog_gaps_total", "first packets came faster than the kernel could hand them over: those connections are counted, and may lack a name"},
	{"netcurtain_observe_dropped_messages_total packet", "first packets came too fast to be read: those connections are counted, and may lack a name"},
	{"netcurtain_observe_dropped_messages_total carried", "connections that the proxy carried came too fast: they are counted, and may lack a name"},
	{"netcurtain_observe_dropped_messages_total name", "look-ups came too fast to name connections by"},
	{"netcurtain_observe_dropped_messages_total block", "connections that were to be stopped came too fast, and ran on"},
}

// missed says in words what was lost since the start. It is never a reason to mend
// something: what cannot be written has a line of its own.
func missed(dropped map[string]int64) api.HealthLine {
	line := api.HealthLine{Name: "what was missed", OK: true, Meaning: "nothing since the start"}
	var said []string
	for _, l := range losses {
		if n := dropped[l.metric]; n > 0 {
			said = append(said, fmt.Sprintf("%d %s", n, l.means))
		}
	}
	if len(said) > 0 {
		line.Meaning = "since the start " + strings.Join(said, "; ")
	}
	return line
}

// isLoss reports whether a metric counts what was lost.
func isLoss(name string) bool {
	for _, suffix := range []string{"_dropped_total", "_dropped_messages_total", "_gaps_total", "_overflows_total", "_lost_total"} {
		if len(name) > len(suffix) && name[len(name)-len(suffix):] == suffix {
			return true
		}
	}
	return false
}
