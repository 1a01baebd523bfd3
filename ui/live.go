package ui

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/ui/api"
)

const (
	heartbeat = 15 * time.Second
	// writePatience is how long one write to a live feed may take. A reader
	// that is slower is let go: it reconnects by itself.
	writePatience = 10 * time.Second
	// liveQueue is how many entries wait for one reader; what comes on top is
	// lost to it, and only to it.
	liveQueue = 256
	// namesFor is how long a feed trusts what it knows of the devices.
	namesFor = 2 * time.Second
)

// serveLive streams what happens as server-sent events, within each device's log level.
func (s *Server) serveLive(w http.ResponseWriter, r *http.Request) {
	var only devices.ID
	if ref := r.FormValue("device"); ref != "" {
		d, err := s.find(ref)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		only = d.ID
	}
	select {
	case s.readers <- struct{}{}:
		defer func() { <-s.readers }()
	default:
		s.metrics.refused.Inc()
		w.Header().Set("Retry-After", "30")
		s.fail(w, r, &failure{http.StatusServiceUnavailable, fmt.Sprintf("%d live feeds are open, which is all there are: close a page", maxLiveReaders)})
		return
	}
	entries := s.cfg.Live.Subscribe("live", liveQueue)
	defer entries.Close()
	feed := feed{s: s, rc: http.NewResponseController(w), w: w}
	w.Header().Set("Content-Type", "text/event-stream")
	if feed.write("retry: 5000\n: a heartbeat follows every 15 seconds\n\n") != nil {
		return
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		var err error
		select {
		case <-r.Context().Done():
			return
		case <-beat.C:
			err = feed.write(": still here\n\n")
		case e, open := <-entries.C:
			if !open {
				return
			}
			if only == "" || e.Device == only {
				err = feed.entry(e)
			}
		}
		if err != nil {
			return
		}
	}
}

// feed writes one live feed. Only its request's goroutine uses it.
type feed struct {
	s       *Server
	w       http.ResponseWriter
	rc      *http.ResponseController
	devices map[devices.ID]devices.Device
	known   time.Time // when devices were asked for
}

func (f *feed) write(text string) error {
	// A writer without deadlines (a test's recorder) is written to without.
	_ = f.rc.SetWriteDeadline(time.Now().Add(writePatience))
	if _, err := f.w.Write([]byte(text)); err != nil {
		return err
	}
	return f.rc.Flush()
}

func (f *feed) entry(e journal.Entry) error {
	now := f.s.cfg.Now()
	_, known := f.devices[e.Device]
	if age := now.Sub(f.known); f.devices == nil || age > namesFor || !known && age > namesFor/4 {
		f.devices = map[devices.ID]devices.Device{}
		for _, d := range f.s.cfg.House.Devices(now) {
			f.devices[d.ID] = d
		}
		f.known = now
	}
	live, ok := toLive(e, f.devices[e.Device])
	if !ok {
		return nil
	}
	data, err := json.Marshal(live)
	if err != nil {
		return nil // cannot happen: Live holds only strings, numbers and a time
	}
	f.s.metrics.sent.Inc()
	return f.write("event: " + live.What + "\ndata: " + string(data) + "\n\n")
}

// modest is the lower of two log levels: names, counts, none.
func modest(a, b devices.LogLevel) devices.LogLevel {
	switch {
	case a == devices.LogNone || b == devices.LogNone:
		return devices.LogNone
	case a == devices.LogCounts || b == devices.LogCounts:
		return devices.LogCounts
	}
	return devices.LogNames
}

// toLive shows e as far as the device's log level allows, then and now:
// nothing at none; at counts what happened and how much, but not where.
func toLive(e journal.Entry, d devices.Device) (api.Live, bool) {
	level := e.Log
	if d.ID != "" {
		level = modest(level, d.Log)
	}
	out := api.Live{At: e.At, Device: string(e.Device), DeviceName: d.Name, Log: level.String()}
	if out.DeviceName == "" {
		out.DeviceName = out.Device
	}
	if e.Device == "" { // the house itself has no log level
		level, out.Log = devices.LogNames, ""
	}
	if level == devices.LogNone {
		return out, false
	}
	named := level == devices.LogNames
	switch {
	case e.Lookup != nil:
		l := e.Lookup
		out.What, out.Type = "lookup", typeName(l.Type)
		out.Verdict, out.Noted, out.Reason = l.Verdict.Action.String(), l.Verdict.Noted, l.Verdict.Reason.String()
		if named {
			out.Name, out.Organisation, out.Purpose, out.Country = string(l.Name), l.Destination.Organisation, string(l.Destination.Purpose), l.Destination.Country
			out.Rule, out.List = l.Verdict.Rule, l.Verdict.List
		}
	case e.Flow != nil:
		f := e.Flow
		out.What, out.Protocol = "flow", f.Seen.App
		out.Protection, out.Harmless = f.Seen.Protection.String(), f.Seen.Harmless
		out.BytesOut, out.BytesIn = int64(f.Counters.Orig.Bytes), int64(f.Counters.Reply.Bytes)
		far := f.Tuple.DstAddr()
		if slices.Contains(d.Addrs, far) { // opened from outside
			far = f.Tuple.SrcAddr()
			out.BytesOut, out.BytesIn = out.BytesIn, out.BytesOut
		}
		out.Verdict, out.Noted, out.Reason = f.Verdict.Action.String(), f.Verdict.Noted, f.Verdict.Reason.String()
		if named {
			out.Name, out.Organisation, out.Purpose, out.Country = cmp.Or(f.Name, far.String()), f.Destination.Organisation, string(f.Destination.Purpose), f.Destination.Country
			out.Why, out.Rule, out.List = f.Seen.Reason, f.Verdict.Rule, f.Verdict.List
		}
	case e.Event != nil:
		out.What, out.Kind = "event", string(e.Event.Kind)
		if named || tellsNoDestination(e.Event.Kind) {
			out.Text = e.Event.Text
		}
	default:
		return out, false
	}
	return out, true
}

// tellsNoDestination are the kinds of event whose words are about the device
// or the house, never about where a person's device went.
func tellsNoDestination(k journal.EventKind) bool {
	return k == journal.EventNewDevice || k == journal.EventHealth || k == journal.EventHouseholdChange
}
