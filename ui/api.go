package ui

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/ui/api"
)

// failure is an answer with a 4xx or 5xx: what is wrong and what to do.
type failure struct {
	status int
	text   string
}

func (f *failure) Error() string { return f.text }

// asFailure finds the status that an error deserves.
func asFailure(err error) *failure {
	var f *failure
	var big *http.MaxBytesError
	var wrong Mistake
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &wrong):
		return &failure{http.StatusBadRequest, wrong.Text}
	case errors.As(err, &big):
		return &failure{http.StatusRequestEntityTooLarge, fmt.Sprintf("body: at most %d bytes are read", big.Limit)}
	case errors.Is(err, fs.ErrNotExist):
		return &failure{http.StatusNotFound, err.Error()}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &failure{http.StatusServiceUnavailable, "the answer took too long: ask for a shorter span"}
	}
	return &failure{http.StatusInternalServerError, err.Error()}
}

func badRequest(format string, args ...any) error {
	return &failure{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// route is one line of the table of what is served.
type route struct {
	method, pattern string
	handle          http.HandlerFunc
}

// mux serves routes, and answers what is not among them in the tongue of the asker.
func (s *Server) mux(routes []route) http.Handler {
	mux := http.NewServeMux()
	methods := map[string]bool{}
	for _, r := range routes {
		mux.HandleFunc(r.method+" "+r.pattern, r.handle)
		methods[r.method] = true
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		var allowed []string
		for m := range methods {
			other := r.Clone(r.Context())
			other.Method = m
			if _, p := mux.Handler(other); p != "/" {
				allowed = append(allowed, m)
			}
		}
		if len(allowed) == 0 {
			s.fail(w, r, &failure{http.StatusNotFound, "there is no such page"})
			return
		}
		slices.Sort(allowed)
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		s.fail(w, r, &failure{http.StatusMethodNotAllowed, fmt.Sprintf("method %.10q is not for this: use %s", r.Method, strings.Join(allowed, " or "))})
	})
	return mux
}

// apiRoutes is the JSON API.
func (s *Server) apiRoutes() []route {
	routes := []route{
		{"GET", "/api/v1/status", s.answer(s.getStatus)},
		{"GET", "/api/v1/devices", s.answer(s.getDevices)},
		{"GET", "/api/v1/devices/{id}", s.answer(s.getDevice)},
		{"GET", "/api/v1/top", s.answer(s.getTop)},
		{"GET", "/api/v1/days", s.answer(s.getDays)},
		{"GET", "/api/v1/flows", listing(s, s.getFlows, s.flowSource)},
		{"GET", "/api/v1/lookups", listing(s, s.getLookups, s.lookupSource)},
		{"GET", "/api/v1/events", listing(s, s.getEvents, s.eventSource)},
		{"GET", "/api/v1/rules", s.answer(s.getRules)},
		{"GET", "/api/v1/live", s.serveLive},
		{"POST", "/api/v1/rules", s.answer(s.postRule)},
		{"DELETE", "/api/v1/rules/{id}", s.answer(s.deleteRule)},
		{"POST", "/api/v1/devices/{id}/mode", s.answer(s.postMode)},
		{"POST", "/api/v1/devices/{id}/log", s.answer(s.postLog)},
		{"POST", "/api/v1/devices/{id}/carry", s.answer(s.postCarry)},
		{"POST", "/api/v1/devices/{id}/strip", s.answer(s.postStrip)},
		{"POST", "/api/v1/devices/{id}/kind", s.answer(s.postKind)},
		{"POST", "/api/v1/devices/{id}/name", s.answer(s.postName)},
		{"POST", "/api/v1/devices/{id}/forget", s.answer(s.postForget)},
		{"POST", "/api/v1/erase", s.answer(s.postErase)},
		{"POST", "/api/v1/switch", s.answer(s.postSwitch)},
		{"POST", "/api/v1/dismiss", s.answer(s.postDismiss)},
		{"GET", "/healthz", s.serveHealth},
	}
	routes = append(routes, s.listRoutes()...)
	if s.cfg.Gatherer != nil {
		h := promhttp.HandlerFor(s.cfg.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 2, Timeout: 10 * time.Second})
		routes = append(routes, route{"GET", "/metrics", h.ServeHTTP})
	}
	return routes
}

// answer turns a function that returns a value into a handler that writes it as JSON.
func (s *Server) answer(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		status := http.StatusOK
		switch v.(type) {
		case api.Rule, api.List: // made just now
			status = http.StatusCreated
		}
		writeJSON(w, status, v)
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the reader has gone: nobody to tell
}

// fail answers with err: JSON for the API, a page for a person.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	f := asFailure(err)
	if f.status >= 500 && r.Context().Err() == nil {
		s.cfg.Logger.Warn("request failed", "route", r.Pattern, "status", f.status, "err", err)
	}
	if isAPI(r) || f.status == http.StatusMisdirectedRequest || s.pages == nil || r.URL.Path == "/healthz" {
		writeJSON(w, f.status, api.Error{Error: f.text})
		return
	}
	s.failPage(w, r, f)
}

// read decodes a JSON body strictly: one value, no unknown field.
func read(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("more than one JSON value")
		}
	}
	var big *http.MaxBytesError
	if err != nil && !errors.As(err, &big) {
		return badRequest("body: %.200s; one JSON object is needed", err)
	}
	return err
}

func (s *Server) getStatus(r *http.Request) (any, error) {
	h := s.cfg.Health(r.Context())
	now := s.cfg.Now()
	return api.Status{
		Version: s.cfg.Version,
		Started: s.started, UptimeSeconds: int64(now.Sub(s.started).Seconds()),
		On: s.cfg.House.On(), OK: wellness(h.Lines) == 0,
		Place: h.Place, Devices: len(s.cfg.House.Devices(now)), LiveReaders: len(s.readers),
		Health: orEmpty(h.Lines), Dropped: h.Dropped,
	}, nil
}

// wellness counts the lines that are not well.
func wellness(lines []api.HealthLine) (failing int) {
	for _, l := range lines {
		if !l.OK {
			failing++
		}
	}
	return failing
}

func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	failing := []string{}
	for _, l := range s.cfg.Health(r.Context()).Lines {
		if !l.OK {
			failing = append(failing, l.Name)
		}
	}
	status := http.StatusOK
	if len(failing) > 0 {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, map[string]any{"ok": len(failing) == 0, "failing": failing})
}

func (s *Server) getDevices(r *http.Request) (any, error) {
	since, err := s.since(r.FormValue("since"), "24h")
	if err != nil {
		return nil, err
	}
	list, err := s.devices(r.Context(), since)
	return api.Devices{Since: since, Devices: list}, err
}

// devices are all devices with their totals, the busiest first.
func (s *Server) devices(ctx context.Context, since time.Time) ([]api.Device, error) {
	totals, err := s.cfg.Ledger.Totals(ctx, since)
	if err != nil {
		return nil, fmt.Errorf("totals: %w", err)
	}
	by := make(map[devices.ID]journal.DeviceTotals, len(totals))
	for _, t := range totals {
		by[t.Device] = t
	}
	list := []api.Device{}
	for _, d := range s.cfg.House.Devices(s.cfg.Now()) {
		list = append(list, toDevice(d, by[d.ID]))
	}
	slices.SortFunc(list, func(a, b api.Device) int {
		if a.Totals.BytesOut != b.Totals.BytesOut {
			return cmpDesc(a.Totals.BytesOut, b.Totals.BytesOut)
		}
		return strings.Compare(a.Name+a.ID, b.Name+b.ID)
	})
	return list, nil
}

func (s *Server) getDevice(r *http.Request) (any, error) {
	since, err := s.since(r.FormValue("since"), "24h")
	if err != nil {
		return nil, err
	}
	d, err := s.find(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return s.detail(r.Context(), d, since)
}

// lastBlocks is how many blocks of a device are told.
const lastBlocks = 20

func (s *Server) detail(ctx context.Context, d devices.Device, since time.Time) (api.DeviceDetail, error) {
	out := api.DeviceDetail{Since: since, Destinations: []api.Destination{}}
	list, err := s.devices(ctx, since)
	if err != nil {
		return out, err
	}
	out.Device = toDevice(d, journal.DeviceTotals{})
	for _, one := range list {
		if one.ID == string(d.ID) {
			out.Device = one
		}
	}
	rows, err := s.cfg.Ledger.Destinations(ctx, d.ID, since)
	if err != nil {
		return out, fmt.Errorf("destinations: %w", err)
	}
	for _, row := range rows {
		out.Destinations = append(out.Destinations, toDestination(row))
	}
	out.Carrying = s.cfg.Carrying(d.ID)
	out.Blocks, err = s.blocks(ctx, d.ID, lastBlocks)
	return out, err
}

// blocks are the last blocked look-ups and flows of a device, newest first.
func (s *Server) blocks(ctx context.Context, id devices.ID, limit int) ([]api.Block, error) {
	f := journal.Filter{Device: id, Blocked: true, Limit: limit}
	lookups, err := s.cfg.Ledger.Lookups(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("look-ups: %w", err)
	}
	flows, err := s.cfg.Ledger.Flows(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("flows: %w", err)
	}
	blocks := make([]api.Block, 0, len(lookups)+len(flows))
	for _, l := range lookups {
		blocks = append(blocks, api.Block{At: l.At, What: "lookup", Name: l.Name, Organisation: l.Organisation, Reason: l.Reason, Rule: l.Rule, List: l.List})
	}
	for _, f := range flows {
		blocks = append(blocks, api.Block{At: f.Last, What: "flow", Name: f.Name, Address: addrPort(f.Dst), Organisation: f.Organisation, Reason: f.Reason, Rule: f.Rule, List: f.List})
	}
	slices.SortStableFunc(blocks, func(a, b api.Block) int { return b.At.Compare(a.At) })
	return blocks[:min(len(blocks), limit)], nil
}

// filter reads what flows, look-ups and events may be narrowed by.
func (s *Server) filter(r *http.Request) (f journal.Filter, err error) {
	q := r.URL.Query()
	if ref := q.Get("device"); ref != "" {
		d, err := s.find(ref)
		if err != nil {
			return f, err
		}
		f.Device = d.ID
	}
	if text := q.Get("since"); text != "" {
		if f.Since, err = s.since(text, ""); err != nil {
			return f, err
		}
	}
	if text := q.Get("until"); text != "" {
		if f.Until, err = s.moment("until", text); err != nil {
			return f, err
		}
	}
	if f.Before, err = number(q.Get("before"), "before"); err != nil {
		return f, err
	}
	limit, err := number(q.Get("limit"), "limit")
	if err != nil {
		return f, err
	}
	if limit == 0 {
		limit = 100
	}
	f.Limit = int(min(limit, 1000))
	if f.Readable, err = flag(q.Get("readable"), "readable"); err != nil {
		return f, err
	}
	f.Blocked, err = flag(q.Get("blocked"), "blocked")
	return f, err
}

func number(text, what string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, badRequest("%s %.40q: a whole number is needed", what, text)
	}
	return n, nil
}

func flag(text, what string) (bool, error) {
	switch text {
	case "", "0", "false":
		return false, nil
	case "1", "true":
		return true, nil
	}
	return false, badRequest("%s %.40q: 1 or 0 is needed", what, text)
}

func (s *Server) getTop(r *http.Request) (any, error) {
	since, err := s.since(r.FormValue("since"), "1h")
	if err != nil {
		return nil, err
	}
	limit, err := number(r.FormValue("limit"), "limit")
	if err != nil {
		return nil, err
	}
	words := []string{"destination", "organisation", "device"}
	by := slices.Index(words, cmp.Or(r.FormValue("by"), words[0]))
	if by < 0 {
		return nil, badRequest("by %.20q: %s is needed", r.FormValue("by"), strings.Join(words, ", "))
	}
	rows, err := s.cfg.Ledger.Top(r.Context(), since, journal.TopBy(by), int(min(limit, 1000)))
	if err != nil {
		return nil, fmt.Errorf("top: %w", err)
	}
	name := s.namer()
	out := api.Top{Since: since, By: words[by], Rows: []api.TopRow{}}
	for _, t := range rows {
		out.Rows = append(out.Rows, api.TopRow{
			Device: string(t.Device), DeviceName: name(t.Device), Name: t.Name, Organisation: t.Organisation, Purpose: t.Purpose, Country: t.Country,
			BytesOut: t.BytesOut, BytesIn: t.BytesIn, Flows: t.Flows, Readable: t.Readable, Blocked: t.Blocked, Last: t.Last,
		})
	}
	return out, nil
}

// longView is how far back the days are shown, unless asked otherwise.
const longView = "90d"

func (s *Server) getDays(r *http.Request) (any, error) {
	var device devices.ID
	if ref := r.FormValue("device"); ref != "" {
		d, err := s.find(ref)
		if err != nil {
			return nil, err
		}
		device = d.ID
	}
	return s.days(r.Context(), device, r.FormValue("since"))
}

// days is what one device, or all, did on each day.
func (s *Server) days(ctx context.Context, device devices.ID, span string) (out api.Days, err error) {
	if out.Since, err = s.since(span, longView); err != nil {
		return out, err
	}
	rows, err := s.cfg.Ledger.Days(ctx, device, out.Since)
	if err != nil {
		return out, fmt.Errorf("days: %w", err)
	}
	out.Days = toDays(rows)
	return out, nil
}

func (s *Server) getFlows(r *http.Request) (any, error) {
	f, err := s.filter(r)
	if err != nil {
		return nil, err
	}
	rows, err := s.cfg.Ledger.Flows(r.Context(), f)
	if err != nil {
		return nil, fmt.Errorf("flows: %w", err)
	}
	out := api.Flows{Flows: []api.Flow{}}
	for _, row := range rows {
		out.Flows = append(out.Flows, toFlow(row))
	}
	if n := len(rows); n > 0 && n == f.Limit {
		out.Next = rows[n-1].ID
	}
	return out, nil
}

func (s *Server) getLookups(r *http.Request) (any, error) {
	f, err := s.filter(r)
	if err != nil {
		return nil, err
	}
	rows, err := s.cfg.Ledger.Lookups(r.Context(), f)
	if err != nil {
		return nil, fmt.Errorf("look-ups: %w", err)
	}
	out := api.Lookups{Lookups: []api.Lookup{}}
	for _, row := range rows {
		out.Lookups = append(out.Lookups, toLookup(row))
	}
	if n := len(rows); n > 0 && n == f.Limit {
		out.Next = rows[n-1].ID
	}
	return out, nil
}

func (s *Server) getEvents(r *http.Request) (any, error) {
	f, err := s.filter(r)
	if err != nil {
		return nil, err
	}
	rows, err := s.cfg.Ledger.Events(r.Context(), f)
	if err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	out := api.Events{Events: []api.Event{}}
	for _, row := range rows {
		out.Events = append(out.Events, toEvent(row))
	}
	if n := len(rows); n > 0 && n == f.Limit {
		out.Next = rows[n-1].ID
	}
	return out, nil
}

func (s *Server) getRules(r *http.Request) (any, error) {
	list, err := s.rules(r.Context())
	return api.Rules{Rules: list}, err
}

func (s *Server) rules(ctx context.Context) ([]api.Rule, error) {
	rows, err := s.cfg.House.Rules(ctx)
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	list := []api.Rule{}
	for _, row := range rows {
		list = append(list, toRule(row))
	}
	return list, nil
}

func (s *Server) postRule(r *http.Request) (any, error) {
	var body api.NewRule
	if err := read(r, &body); err != nil {
		return nil, err
	}
	return s.addRule(r.Context(), body)
}

// addRule checks a wish and makes it a rule.
func (s *Server) addRule(ctx context.Context, n api.NewRule) (api.Rule, error) {
	rule := policy.Rule{Created: s.cfg.Now(), By: By(ctx)}
	switch n.Action {
	case "allow":
		rule.Action = policy.Allow
	case "block":
		rule.Action = policy.Block
	default:
		return api.Rule{}, badRequest("action %.20q: allow or block is needed", n.Action)
	}
	var err error
	if rule.Name, rule.Path, err = ruleTarget(n.Name); err != nil {
		return api.Rule{}, err
	}
	if n.For != "" {
		span, err := parseSpan(n.For)
		if err != nil {
			return api.Rule{}, badRequest("for %.20q: %s", n.For, err)
		}
		rule.Until = rule.Created.Add(span)
	}
	if n.Device != "" {
		d, err := s.find(n.Device)
		if err != nil {
			return api.Rule{}, err
		}
		rule.Device = d.ID
	}
	if rule, err = s.cfg.House.AddRule(ctx, rule); err != nil {
		return api.Rule{}, fmt.Errorf("keep rule: %w", err)
	}
	return toRule(rule), nil
}

// ruleTarget reads what a rule speaks of: ads.example.com, or ads.example.com/collect.
func ruleTarget(text string) (name dnsname.Name, path string, err error) {
	text = strings.TrimSpace(text)
	if i := strings.IndexByte(text, '/'); i > 0 && text[i-1] != ':' { // https:// is an address of a page
		if path, err = policy.ParsePath(text[i:]); err != nil {
			return "", "", badRequest("%s", err)
		}
		text = text[:i]
	}
	name, err = ruleName(text)
	return name, path, err
}

func ruleName(text string) (dnsname.Name, error) {
	text = strings.TrimSpace(text)
	if _, err := netip.ParseAddr(text); err == nil {
		return "", badRequest("name %.80q is an address: rules speak of names such as ads.example.com", text)
	}
	name, err := dnsname.Parse(text)
	if err != nil {
		return "", badRequest("%s", err)
	}
	if name == "" {
		return "", badRequest("name is empty: a name such as ads.example.com is needed")
	}
	if below, ok := strings.CutPrefix(text, "*."); ok {
		return "", badRequest("name %.80q: say %.80q; everything below a name is meant too", text, below)
	}
	if i := strings.IndexFunc(string(name), notInNames); i >= 0 {
		return "", badRequest("name %.80q: %q is not part of a name: one such as ads.example.com is needed, no address of a page", text, name[i])
	}
	return name, nil
}

// notInNames reports what no name that a household may mean has in it: a rule
// for "https://ads.example.com/" would be kept, and never match.
func notInNames(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
}

// since is when a span that is asked for began: "today", "24h", "7d" or a time
// in RFC 3339.
func (s *Server) since(text, fallback string) (time.Time, error) {
	if text == "" {
		text = fallback
	}
	return s.moment("since", text)
}

// moment reads a time, as since does; what it is for is named in the error.
func (s *Server) moment(what, text string) (time.Time, error) {
	now := s.cfg.Now()
	if text == "today" {
		y, m, d := now.In(s.cfg.Location).Date()
		return time.Date(y, m, d, 0, 0, 0, 0, s.cfg.Location), nil
	}
	if d, err := parseSpan(text); err == nil {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, &failure{http.StatusBadRequest, fmt.Sprintf("%s %.40q: today, a span such as 24h or 7d, or a time such as 2026-11-22T08:00:00Z is needed", what, text)}
	}
	return t, nil
}

// parseSpan reads "15m", "2h30m" or "7d": at least a second, at most a year.
func parseSpan(text string) (time.Duration, error) {
	var d time.Duration
	var err error
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		d = time.Duration(n) * 24 * time.Hour
	} else {
		d, err = time.ParseDuration(text)
	}
	if err != nil || d < time.Second || d > 366*24*time.Hour {
		return 0, errors.New("a span such as 15m, 2h or 7d is needed, at most 366d")
	}
	return d, nil
}

func (s *Server) deleteRule(r *http.Request) (any, error) {
	id, err := number(r.PathValue("id"), "rule")
	if err != nil {
		return nil, err
	}
	if err := s.cfg.House.RemoveRule(r.Context(), id); err != nil {
		return nil, fmt.Errorf("remove rule %d: %w", id, err)
	}
	return api.Done{OK: true}, nil
}

func (s *Server) postMode(r *http.Request) (any, error) {
	var body api.SetMode
	if err := read(r, &body); err != nil {
		return nil, err
	}
	return s.setMode(r, body.Mode)
}

func (s *Server) setMode(r *http.Request, text string) (any, error) {
	mode, err := devices.ParseMode(text)
	if err != nil {
		return nil, badRequest("%s", err)
	}
	var done api.ModeSet
	_, err = s.change(r, func(d devices.ID) (err error) {
		done.Ended, err = s.cfg.House.SetMode(r.Context(), d, mode)
		return err
	})
	done.OK, done.Note = true, endedWords(mode, done.Ended)
	return done, err
}

func (s *Server) postLog(r *http.Request) (any, error) {
	var body api.SetLog
	if err := read(r, &body); err != nil {
		return nil, err
	}
	return s.setLog(r, body.Level)
}

func (s *Server) setLog(r *http.Request, text string) (any, error) {
	level, err := devices.ParseLogLevel(text)
	if err != nil {
		return nil, badRequest("%s", err)
	}
	return s.change(r, func(d devices.ID) error { return s.cfg.House.SetLog(r.Context(), d, level) })
}

func (s *Server) postCarry(r *http.Request) (any, error) { return s.turn(r, s.cfg.House.SetCarry) }
func (s *Server) postStrip(r *http.Request) (any, error) { return s.turn(r, s.cfg.House.SetStrip) }

// turn switches something of one device on or off.
func (s *Server) turn(r *http.Request, set func(context.Context, devices.ID, bool) error) (any, error) {
	var body api.Switch
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if body.On == nil {
		return nil, badRequest(`{"on":true} or {"on":false} is needed`)
	}
	return s.change(r, func(d devices.ID) error { return set(r.Context(), d, *body.On) })
}

func (s *Server) postKind(r *http.Request) (any, error) {
	var body api.SetKind
	if err := read(r, &body); err != nil {
		return nil, err
	}
	return s.setKind(r, body.Kind)
}

func (s *Server) setKind(r *http.Request, text string) (any, error) {
	kind, err := devices.ParseKind(text)
	if err != nil {
		return nil, badRequest("%s", err)
	}
	return s.change(r, func(d devices.ID) error { return s.cfg.House.SetKind(r.Context(), d, kind) })
}

func (s *Server) postName(r *http.Request) (any, error) {
	var body api.SetName
	if err := read(r, &body); err != nil {
		return nil, err
	}
	return s.setName(r, body.Name)
}

// maxName bounds what a household calls a device, in characters.
const maxName = 60

func (s *Server) setName(r *http.Request, name string) (any, error) {
	name = strings.TrimSpace(name)
	if n := len([]rune(name)); n > maxName {
		return nil, badRequest("name of %d characters: at most %d are kept", n, maxName)
	}
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return nil, badRequest("name %.80q: only letters, digits, signs and spaces are kept", name)
	}
	return s.change(r, func(d devices.ID) error { return s.cfg.House.SetName(r.Context(), d, name) })
}

// change does something to the device that the path names.
func (s *Server) change(r *http.Request, do func(devices.ID) error) (any, error) {
	d, err := s.find(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if err := do(d.ID); err != nil {
		return nil, fmt.Errorf("change %.80q: %w", d.ID, err)
	}
	return api.Done{OK: true}, nil
}

func (s *Server) postErase(r *http.Request) (any, error) {
	var body api.Erase
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if body.All == (body.Device != "") {
		return nil, badRequest(`either {"device":"…"} or {"all":true} is needed`)
	}
	var id devices.ID
	if !body.All {
		d, err := s.find(body.Device)
		if err != nil {
			return nil, err
		}
		id = d.ID
	}
	rows, err := s.cfg.House.Erase(r.Context(), id)
	if err != nil {
		return nil, fmt.Errorf("erase: %w", err)
	}
	return api.Erased{Rows: rows}, nil
}

func (s *Server) postForget(r *http.Request) (any, error) {
	var body struct{}
	if err := read(r, &body); err != nil {
		return nil, err
	}
	return s.forget(r)
}

func (s *Server) forget(r *http.Request) (any, error) {
	d, err := s.find(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	rows, err := s.cfg.House.Forget(r.Context(), d.ID)
	if err != nil {
		return nil, fmt.Errorf("forget %.80q: %w", d.ID, err)
	}
	return api.Erased{Rows: rows}, nil
}

func (s *Server) postSwitch(r *http.Request) (any, error) {
	var body api.Switch
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if body.On == nil {
		return nil, badRequest(`{"on":true} or {"on":false} is needed`)
	}
	if err := s.cfg.House.Switch(r.Context(), *body.On); err != nil {
		return nil, fmt.Errorf("switch: %w", err)
	}
	return api.Done{OK: true}, nil
}

func (s *Server) postDismiss(r *http.Request) (any, error) {
	var body api.Dismiss
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if err := s.dismiss(r.Context(), body.What); err != nil {
		return nil, err
	}
	return api.Done{OK: true}, nil
}

// dismiss drops a proposal, one that is there.
func (s *Server) dismiss(ctx context.Context, what string) error {
	for _, l := range s.cfg.Health(ctx).Lines {
		if what != "" && l.Dismiss == what {
			return s.cfg.House.Dismiss(ctx, what)
		}
	}
	return badRequest("there is no proposal %.60q: status shows those that there are", what)
}

// find resolves what a person calls a device: its ID, a hardware or network
// address, its name in any case, or the beginning of either when only one fits.
func (s *Server) find(ref string) (devices.Device, error) {
	all := s.cfg.House.Devices(s.cfg.Now())
	for _, d := range all {
		if string(d.ID) == ref {
			return d, nil
		}
	}
	mac, macErr := devices.ParseMAC(ref)
	addr, addrErr := netip.ParseAddr(ref)
	low := strings.ToLower(ref)
	for _, fits := range []func(devices.Device) bool{
		func(d devices.Device) bool { return macErr == nil && slices.Contains(d.MACs, mac) },
		func(d devices.Device) bool { return addrErr == nil && slices.Contains(d.Addrs, addr.Unmap()) },
		func(d devices.Device) bool { return strings.EqualFold(d.Name, ref) },
		func(d devices.Device) bool {
			return len(ref) >= 2 && (strings.HasPrefix(strings.ToLower(d.Name), low) || strings.HasPrefix(string(d.ID), low))
		},
	} {
		switch found := slices.Collect(filterSeq(all, fits)); len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return devices.Device{}, ambiguous(ref, found)
		}
	}
	return devices.Device{}, &failure{http.StatusNotFound, fmt.Sprintf("device %.80q is not known: its ID, address or name is needed", ref)}
}

func ambiguous(ref string, found []devices.Device) error {
	var names []string
	for _, d := range found[:min(len(found), 5)] {
		names = append(names, fmt.Sprintf("%.60q (%s)", d.Name, d.ID))
	}
	return &failure{http.StatusConflict, fmt.Sprintf("device %.80q fits %d devices: say which by its ID: %s", ref, len(found), strings.Join(names, ", "))}
}
