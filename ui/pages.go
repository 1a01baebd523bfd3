package ui

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/ui/api"
)

// pageRoutes are the pages, their assets and their forms. Each form works
// without any script and ends in a redirect to the page it came from.
func (s *Server) pageRoutes() []route {
	return append([]route{
		{"GET", "/{$}", s.page("home", s.homePage)},
		{"GET", "/devices/{id}", s.page("device", s.devicePage)},
		{"GET", "/live", s.page("live", s.livePage)},
		{"GET", "/log", s.page("log", s.logPage)},
		{"GET", "/rules", s.page("rules", s.rulesPage)},
		{"GET", "/events", s.page("events", s.eventsPage)},
		{"GET", "/health", s.page("health", s.healthPage)},
		{"GET", "/about", s.page("about", s.aboutPage)},
		{"GET", "/assets/{hash}/{name}", s.serveAsset},
		{"POST", "/devices/{id}/mode", s.form(s.formMode)},
		{"POST", "/devices/{id}/log", s.form(s.formLog)},
		{"POST", "/devices/{id}/carry", s.form(s.formCarry)},
		{"POST", "/devices/{id}/strip", s.form(s.formStrip)},
		{"POST", "/devices/{id}/kind", s.form(s.formKind)},
		{"POST", "/devices/{id}/name", s.form(s.formName)},
		{"POST", "/devices/{id}/erase", s.form(s.formEraseDevice)},
		{"POST", "/devices/{id}/forget", s.form(s.formForget)},
		{"POST", "/devices/{id}/rule", s.form(s.formDeviceRule)},
		{"POST", "/rules", s.form(s.formRule)},
		{"POST", "/rules/{id}/remove", s.form(s.formRemoveRule)},
		{"POST", "/erase", s.form(s.formEraseAll)},
		{"POST", "/switch", s.form(s.formSwitch)},
		{"POST", "/dismiss", s.form(s.formDismiss)},
	}, s.listPages()...)
}

func (s *Server) parsePages() (map[string]*template.Template, error) {
	base, err := template.New("layout.html").Funcs(s.words()).Option("missingkey=error").ParseFS(files, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return nil, fmt.Errorf("ui: read templates: %w", err)
	}
	pages := map[string]*template.Template{}
	for _, name := range []string{"home", "device", "live", "log", "rules", "lists", "list", "why", "events", "health", "about", "failed"} {
		page, err := base.Clone()
		if err == nil {
			page, err = page.ParseFS(files, "templates/"+name+".html")
		}
		if err != nil {
			return nil, fmt.Errorf("ui: read page %q: %w", name, err)
		}
		pages[name] = page
	}
	return pages, nil
}

// view is what every page is given.
type view struct {
	Title string
	Here  string // the entry of the navigation that is this page
	On    bool
	Said  string // what the form before this page did
	Now   time.Time
	Page  any
}

// page turns a function that gathers into a handler that renders. Nothing is
// sent until the whole page stands: a page is whole or it is an error.
func (s *Server) page(name string, gather func(*http.Request) (view, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		v, err := gather(r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		v.Said = said(r.URL.Query().Get("did"))
		s.render(w, r, http.StatusOK, name, v)
		s.metrics.render.Observe(time.Since(begin).Seconds())
	}
}

func (s *Server) render(w http.ResponseWriter, r *http.Request, status int, name string, v view) {
	v.On, v.Now = s.cfg.House.On(), s.cfg.Now()
	var b bytes.Buffer
	if err := s.pages[name].ExecuteTemplate(&b, "layout.html", v); err != nil {
		s.cfg.Logger.Error("page not rendered", "page", name, "err", err)
		http.Error(w, "this page could not be made; the log says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the reader has gone: nobody to tell
}

func (s *Server) failPage(w http.ResponseWriter, r *http.Request, f *failure) {
	s.render(w, r, f.status, "failed", view{Title: failWord(f.status), Page: f.text})
}

// said are the words that follow a form. They come from here, never from the
// address, where anybody could write.
func said(did string) string {
	if name, n, ok := strings.Cut(did, "-"); ok {
		mode, err := devices.ParseMode(name)
		ended, bad := strconv.ParseUint(n, 10, 16)
		if words := endedWords(mode, int(ended)); err == nil && bad == nil && words != "" {
			return "Done. " + words
		}
	}
	switch did {
	case "mode":
		return "Done: this device is now treated so."
	case "log":
		return "Done: from now on, this much is written down."
	case "carry-on":
		return "Done: where the other side can, its readable requests leave the house encrypted."
	case "carry-off":
		return "Done: its requests leave the house as it sends them."
	case "strip-on":
		return "Done: trackers’ headers and cookies are taken out of its readable requests."
	case "strip-off":
		return "Done: nothing is taken out of its requests."
	case "kind":
		return "Done: this is what it is from now on."
	case "name":
		return "Done: the name is kept."
	case "allowed":
		return "Allowed for 15 minutes. Try again on the device."
	case "blocked":
		return "Blocked from now on."
	case "rule":
		return "The rule is kept and holds at once."
	case "removed":
		return "The rule is gone."
	case "forgotten":
		return "Forgotten. When it is seen again, it is a new device."
	case "list-added":
		return "The list is added. It works as soon as it is here; this page says how it goes."
	case "list-removed":
		return "The list is gone. To have it back, add it again."
	case "list-enabled":
		return "The list is used again."
	case "list-disabled":
		return "The list is kept and not used any more."
	case "list-devices":
		return "Done: these devices use the list."
	case "list-updating":
		return "It is asked for right now; this page says how it goes."
	case "dismissed":
		return "Done: it stays as it is, and nothing more is said of it."
	case "erased":
		return "Erased."
	case "on":
		return "Netcurtain is on."
	case "off":
		return "Netcurtain is off: everything passes, nothing is seen, until you switch it on."
	}
	return ""
}

// sums are the plain sentences on top of the home page.
type sums struct {
	Devices, Active, Readable, Blocked int
	BlockedCount                       int64
	ReadableBytes                      int64
	Out, In                            int64
	Organisations                      int
}

func sumUp(list []api.Device) sums {
	n := sums{Devices: len(list)}
	orgs := map[string]bool{}
	for _, d := range list {
		t := d.Totals
		if t.Flows+t.Lookups+t.Blocked > 0 {
			n.Active++
		}
		if t.ReadableFlows > 0 {
			n.Readable++
		}
		if t.Blocked > 0 {
			n.Blocked++
		}
		n.BlockedCount += t.Blocked
		n.ReadableBytes += t.ReadableBytes
		n.Out += t.BytesOut
		n.In += t.BytesIn
		for _, o := range t.Organisations {
			orgs[o] = true
		}
	}
	n.Organisations = len(orgs)
	return n
}

// feedView is the live feed as it stands when the page is made: what happened
// last, which a script then carries on.
type feedView struct {
	Latest []api.Live
	Keep   int // how many rows it holds
}

// latest are the last n things that were written down, newest first.
func (s *Server) latest(ctx context.Context, n int) (feedView, error) {
	v := feedView{Keep: n}
	lookups, err := s.cfg.Ledger.Lookups(ctx, journal.Filter{Limit: n})
	if err != nil {
		return v, fmt.Errorf("look-ups: %w", err)
	}
	flows, err := s.cfg.Ledger.Flows(ctx, journal.Filter{Limit: n})
	if err != nil {
		return v, fmt.Errorf("flows: %w", err)
	}
	name := s.namer()
	for _, l := range lookups {
		v.Latest = append(v.Latest, api.Live{
			At: l.At, What: "lookup", Device: string(l.Device), DeviceName: cmp.Or(name(l.Device), string(l.Device)),
			Name: l.Name, Organisation: l.Organisation, Verdict: l.Verdict, Noted: l.Noted, List: l.List,
		})
	}
	for _, f := range flows {
		v.Latest = append(v.Latest, api.Live{
			At: f.Last, What: "flow", Device: string(f.Device), DeviceName: cmp.Or(name(f.Device), string(f.Device)),
			Name: cmp.Or(f.Name, addrPort(f.Dst)), Organisation: f.Organisation, Protection: f.Protection, Harmless: f.Harmless, Why: f.Why,
			BytesOut: f.BytesOut, BytesIn: f.BytesIn, Verdict: f.Verdict, List: f.List,
		})
	}
	slices.SortStableFunc(v.Latest, func(a, b api.Live) int { return b.At.Compare(a.At) })
	v.Latest = v.Latest[:min(len(v.Latest), n)]
	return v, nil
}

// deviceNames are the devices for a form, in order, and what they are called.
func (s *Server) deviceNames() ([]api.Device, map[string]string) {
	var all []api.Device
	names := map[string]string{}
	for _, d := range s.cfg.House.Devices(s.cfg.Now()) {
		all = append(all, api.Device{ID: string(d.ID), Name: cmp.Or(d.Name, string(d.ID))})
		names[string(d.ID)] = cmp.Or(d.Name, string(d.ID))
	}
	slices.SortFunc(all, func(a, b api.Device) int { return strings.Compare(a.Name+a.ID, b.Name+b.ID) })
	return all, names
}

type homeView struct {
	Feed    feedView
	Sums    sums
	Devices []api.Device
	Health  api.Health
	Failing int
}

func (s *Server) homePage(r *http.Request) (view, error) {
	today, err := s.since("today", "")
	if err != nil {
		return view{}, err
	}
	list, err := s.devices(r.Context(), today)
	if err != nil {
		return view{}, err
	}
	// Who did something comes first, and whatever was readable before that.
	slices.SortStableFunc(list, func(a, b api.Device) int { return cmpDesc(a.Totals.ReadableFlows, b.Totals.ReadableFlows) })
	h := s.cfg.Health(r.Context())
	feed, err := s.latest(r.Context(), 6)
	return view{Title: "Who talked to whom today", Here: "home", Page: homeView{feed, sumUp(list), list, h, wellness(h.Lines)}}, err
}

// blocked is one thing that was blocked, maybe many times: devices ask again
// and again, and twenty equal lines tell less than one with a count.
type blocked struct {
	api.Block
	Times int
	From  time.Time // of the oldest
}

// gather joins equal blocks, newest first.
func gather(blocks []api.Block) []blocked {
	var out []blocked
	at := map[api.Block]int{}
	for _, b := range blocks {
		key := b
		key.At = time.Time{}
		if i, ok := at[key]; ok {
			out[i].Times++
			out[i].From = b.At
			continue
		}
		at[key] = len(out)
		out = append(out, blocked{Block: b, Times: 1, From: b.At})
	}
	return out[:min(len(out), lastBlocks)]
}

// blocksRead is how far back the page looks for the last blocks.
const blocksRead = 200

type deviceView struct {
	api.DeviceDetail
	Blocked       []blocked
	Span          string
	Organisations int   // that it reached: a look-up that was blocked reached nobody
	Strangers     int   // destinations that it reached and whose organisation is not known
	Carried       int64 // readable connections that left the house encrypted
	Days          []api.Day
}

func (s *Server) devicePage(r *http.Request) (view, error) {
	span := r.URL.Query().Get("since")
	since, err := s.since(span, "today")
	if err != nil {
		return view{}, err
	}
	d, err := s.find(r.PathValue("id"))
	if err != nil {
		return view{}, err
	}
	detail, err := s.detail(r.Context(), d, since)
	if err != nil {
		return view{}, err
	}
	blocks, err := s.blocks(r.Context(), d.ID, blocksRead)
	if err != nil {
		return view{}, err
	}
	long, err := s.days(r.Context(), d.ID, "")
	if err != nil {
		return view{}, err
	}
	v := deviceView{DeviceDetail: detail, Blocked: gather(blocks), Span: span, Days: long.Days}
	if span == "" {
		v.Span = "today"
	}
	slices.SortStableFunc(v.Destinations, func(a, b api.Destination) int { return cmpDesc(rank(a), rank(b)) })
	orgs := map[string]bool{}
	for _, one := range v.Destinations {
		v.Carried += one.Carried
		switch {
		case one.Flows == 0, one.Verdict == "block" && one.Blocked >= one.Flows:
		case one.Organisation != "":
			orgs[one.Organisation] = true
		default:
			v.Strangers++
		}
	}
	v.Organisations = len(orgs)
	return view{Title: show(detail.Device.Name), Here: "home", Page: v}, nil
}

// rank puts readable destinations first, then by what was sent.
func rank(d api.Destination) int64 {
	n := d.BytesOut
	if d.Readable > 0 {
		n += 1 << 60
	}
	return n
}

func (s *Server) livePage(r *http.Request) (view, error) {
	feed, err := s.latest(r.Context(), 60)
	return view{Title: "Live", Here: "live", Page: feed}, err
}

type logView struct {
	What     string // "lookups" or "flows"
	Lookups  []api.Lookup
	Flows    []api.Flow
	Devices  []api.Device
	Names    map[string]string
	Device   string
	Since    string
	Blocked  bool
	Readable bool
	Next     string   // address of the page that follows
	Save     []choice // addresses of all that fits, as a file
}

// logLimit is how many rows one page of the log shows.
const logLimit = 50

func (s *Server) logPage(r *http.Request) (view, error) {
	q := r.URL.Query()
	v := logView{What: "lookups"}
	if q.Get("what") == "flows" {
		v.What = "flows"
	}
	q.Set("limit", strconv.Itoa(logLimit))
	if !slices.Contains([]string{"", "today", "1h", "24h", "7d"}, q.Get("since")) {
		q.Del("since")
	}
	v.Since = q.Get("since")
	r = r.Clone(r.Context())
	r.URL.RawQuery = q.Encode()
	f, err := s.filter(r)
	if err != nil {
		return view{}, err
	}
	v.Device, v.Blocked, v.Readable = string(f.Device), f.Blocked, f.Readable
	var next int64
	if v.What == "flows" {
		page, err := s.flows(r)
		if err != nil {
			return view{}, err
		}
		v.Flows, next = page.Flows, page.Next
	} else {
		page, err := s.lookups(r)
		if err != nil {
			return view{}, err
		}
		v.Lookups, next = page.Lookups, page.Next
	}
	v.Devices, v.Names = s.deviceNames()
	v.Save = savedAs(v.What, q)
	if next > 0 {
		q.Del("limit")
		q.Set("before", strconv.FormatInt(next, 10))
		v.Next = "/log?" + q.Encode()
	}
	return view{Title: "Log", Here: "log", Page: v}, nil
}

// savedAs are where the rows of a page of the log can be had as a file, all of them.
func savedAs(what string, page url.Values) (out []choice) {
	q := url.Values{}
	for _, key := range []string{"device", "since", "blocked", "readable"} {
		if value := page.Get(key); value != "" {
			q.Set(key, value)
		}
	}
	for _, f := range []choice{{Value: "csv", Name: "a spreadsheet (CSV)"}, {Value: "jsonl", Name: "JSON lines"}, {Value: "zeek", Name: "a Zeek log"}} {
		q.Set("format", f.Value)
		out = append(out, choice{Value: "/api/v1/" + what + "?" + q.Encode(), Name: f.Name})
	}
	return out
}

type rulesView struct {
	Rules   []api.Rule
	Devices []api.Device
	Names   map[string]string
}

func (s *Server) rulesPage(r *http.Request) (view, error) {
	list, err := s.rules(r.Context())
	if err != nil {
		return view{}, err
	}
	v := rulesView{Rules: list}
	v.Devices, v.Names = s.deviceNames()
	return view{Title: "Your rules", Here: "rules", Page: v}, nil
}

type eventsView struct {
	Events []api.Event
	Names  map[string]string
	Next   string
}

func (s *Server) eventsPage(r *http.Request) (view, error) {
	events, err := s.events(r)
	if err != nil {
		return view{}, err
	}
	v := eventsView{Events: events.Events}
	_, v.Names = s.deviceNames()
	if events.Next > 0 {
		v.Next = "/events?" + url.Values{"before": {strconv.FormatInt(events.Next, 10)}}.Encode()
	}
	return view{Title: "Events", Here: "events", Page: v}, nil
}

func (s *Server) healthPage(r *http.Request) (view, error) {
	a, err := s.getStatus(r)
	return view{Title: "Health", Here: "health", Page: a}, err
}

type aboutView struct {
	Version string
	Kept    []string
	Egress  []api.Egress
}

func (s *Server) aboutPage(r *http.Request) (view, error) {
	sent, err := s.cfg.House.Egress(r.Context())
	return view{Title: "What we keep", Here: "about", Page: aboutView{s.cfg.Version, s.cfg.Kept(r.Context()), sent}}, err
}
