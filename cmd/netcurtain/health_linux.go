package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/enforce"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/ui"
	"github.com/netcurtain/netcurtain/ui/api"
)

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
	{"netcurtain_journal_dropped_total flow store", "connections came faster than they could be written down, and are not in the ledger"},
	{"netcurtain_journal_dropped_total part store", "times what a connection did meanwhile could not be written down: its bytes are missing"},
	{"netcurtain_journal_dropped_total lookup store", "look-ups came faster than they could be written down, and are not in the ledger"},
	{"netcurtain_journal_dropped_total event store", "rare events came faster than they could be written down, and are not in the ledger"},
	{"netcurtain_store_rows_dropped_total", "flows and look-ups could not be written, and are not in the ledger"},
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
