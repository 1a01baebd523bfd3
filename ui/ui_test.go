package ui_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"golang.org/x/net/html"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/ui"
	"github.com/netcurtain/netcurtain/ui/api"
)

var update = flag.Bool("update", false, "write the golden files")

// ask sends one request to h as a browser on this machine would.
func ask(h http.Handler, method, target, kind, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "localhost:8300"
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

const (
	asJSON = "application/json"
	asForm = "application/x-www-form-urlencoded"
)

// golden compares got with a file under testdata, or writes it with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", filepath.FromSlash(name))
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got, -update writes it):\n%s", file, diff)
	}
}

// assetHash is what changes in a page whenever an asset does.
var assetHash = regexp.MustCompile(`/assets/[0-9a-f]{12}/`)

func TestPagesGolden(t *testing.T) {
	s := newServer(t, family())
	for name, path := range map[string]string{
		"home": "/", "device": tvPage, "phone": "/devices/00:00:5e:10:00:2a", "rules": "/rules", "health": "/health",
		"flows": "/log?what=flows", "toy": "/devices/talking%20bear?since=24h",
		"lists": "/lists", "list": "/lists/ads", "why": "/why?name=ads.doubleclick.net&device=Living-room+TV", "about": "/about",
	} {
		w := ask(s.TCP(), "GET", path, "", "")
		if w.Code != http.StatusOK {
			t.Errorf("%s: status %d", path, w.Code)
		}
		golden(t, "pages/"+name+".html", assetHash.ReplaceAll(w.Body.Bytes(), []byte("/assets/HASH/")))
	}
}

func TestAPIGolden(t *testing.T) {
	s := newServer(t, family())
	for name, path := range map[string]string{
		"status": "/api/v1/status", "devices": "/api/v1/devices?since=today", "device": "/api/v1/devices/talking%20bear?since=24h",
		"flows": "/api/v1/flows?readable=1", "flows_page": "/api/v1/flows?limit=2&before=12", "lookups": "/api/v1/lookups?device=Living-room%20TV&blocked=1&limit=2",
		"events": "/api/v1/events", "days": "/api/v1/days?device=Living-room%20TV", "top": "/api/v1/top", "top_by": "/api/v1/top?by=organisation&since=24h", "rules": "/api/v1/rules", "healthz": "/healthz",
		"lists": "/api/v1/lists", "list": "/api/v1/lists/ads", "catalogue": "/api/v1/catalogue", "egress": "/api/v1/egress",
		"why":            "/api/v1/why?name=ads.doubleclick.net&device=Living-room%20TV",
		"unknown_device": "/api/v1/devices/nobody", "unknown_path": "/api/v1/nothing",
	} {
		w := ask(s.Control(), "GET", path, "", "", "Host", "netcurtain")
		if got := w.Header().Get("Content-Type"); got != "application/json; charset=utf-8" {
			t.Errorf("%s: content type %q", path, got)
		}
		var pretty bytes.Buffer
		fmt.Fprintf(&pretty, "// GET %s\n// %d\n", path, w.Code)
		if err := json.Indent(&pretty, w.Body.Bytes(), "", "  "); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		golden(t, "api/"+name+".json", pretty.Bytes())
	}
}

// TestGetChangesNothing calls every route, whatever its method, by GET and
// HEAD with every parameter that a form could send.
func TestGetChangesNothing(t *testing.T) {
	h := family()
	s := newServer(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a live feed ends at once
	for _, route := range s.Routes() {
		path := strings.NewReplacer("{$}", "", "{id}", "1", "{hash}", "0", "{name}", "style.css").Replace(route[1])
		for _, p := range []string{path, strings.Replace(path, "/1", "/00:00:5e:10:00:14", 1)} {
			for _, method := range []string{"GET", "HEAD"} {
				r := httptest.NewRequestWithContext(ctx, method, p+"?mode=off&level=none&name=x.example&action=block&sure=yes&to=off&device=plug&all=true&on=false", nil)
				r.Host = "localhost"
				s.TCP().ServeHTTP(httptest.NewRecorder(), r)
				if h.changed() != 0 {
					t.Fatalf("%s %s changed something", method, p)
				}
			}
		}
	}
}

// TestEveryChangeIsGuarded walks every route that changes something and finds
// that no foreign page can call it.
func TestEveryChangeIsGuarded(t *testing.T) {
	h := family()
	s := newServer(t, h)
	n := 0
	for _, route := range s.Routes() {
		method, path := route[0], strings.Replace(route[1], "{id}", "00:00:5e:10:00:14", 1)
		if method == "GET" {
			continue
		}
		n++
		kind, body := asForm, "mode=off&level=none&name=x.example&action=block&sure=yes&to=off"
		if strings.HasPrefix(path, "/api/") {
			kind, body = asJSON, `{}`
		}
		for name, c := range map[string]struct {
			status  int
			kind    string
			headers []string
		}{
			"foreign origin":     {http.StatusForbidden, kind, []string{"Origin", "https://evil.example"}},
			"foreign fetch site": {http.StatusForbidden, kind, []string{"Sec-Fetch-Site", "cross-site"}},
			"same site":          {http.StatusForbidden, kind, []string{"Sec-Fetch-Site", "same-site"}},
			"opaque origin":      {http.StatusForbidden, kind, []string{"Origin", "null"}},
			"foreign host":       {http.StatusMisdirectedRequest, kind, []string{"Host", "evil.example"}},
			"rebound host":       {http.StatusMisdirectedRequest, kind, []string{"Host", "evil.example:8300", "Origin", "http://evil.example:8300", "Sec-Fetch-Site", "same-origin"}},
			"text":               {http.StatusUnsupportedMediaType, "text/plain", nil},
			"no type":            {http.StatusUnsupportedMediaType, "", nil},
			"multipart":          {http.StatusUnsupportedMediaType, "multipart/form-data; boundary=x", nil},
		} {
			if method == "DELETE" && c.status == http.StatusUnsupportedMediaType {
				continue // has no body, and no form can send it
			}
			if w := ask(s.TCP(), method, path, c.kind, body, c.headers...); w.Code != c.status {
				t.Errorf("%s %s, %s: status %d, want %d", method, path, name, w.Code, c.status)
			}
		}
		if big := ask(s.TCP(), method, path, kind, `{"name":"`+strings.Repeat("a", 65<<10)+`"}`); big.Code != http.StatusRequestEntityTooLarge {
			t.Errorf("%s %s: 65 KiB of body: status %d", method, path, big.Code)
		}
	}
	if n < 14 {
		t.Errorf("only %d routes change something: the table is not what this test thinks", n)
	}
	if h.changed() != 0 {
		t.Errorf("something was changed %d times", h.changed())
	}
}

// A script of another site can read nothing here, and cannot keep the box busy
// either; a link from there may be followed.
func TestOtherSitesReadNothing(t *testing.T) {
	s := newServer(t, family())
	for _, path := range []string{"/", "/log", "/api/v1/live", "/api/v1/flows", "/metrics"} {
		for mode, want := range map[string]int{"no-cors": 403, "cors": 403, "": 403, "navigate": 200} {
			if mode == "navigate" && (strings.HasSuffix(path, "live") || path == "/metrics") {
				continue // a stream without an end; not served here
			}
			if w := ask(s.TCP(), "GET", path, "", "", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", mode); w.Code != want {
				t.Errorf("%s, mode %q: status %d, want %d", path, mode, w.Code, want)
			}
		}
	}
}

func TestHosts(t *testing.T) {
	h := family()
	s, err := ui.New(ui.Config{House: h, Ledger: h, Live: mustRecorder(t), Hosts: []string{"Router.lan", "192.168.7.1", "fd00::1"}})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]int{
		"localhost": 200, "localhost:8300": 200, "LOCALHOST:1": 200, "127.0.0.1:8300": 200, "[::1]:8300": 200, "[::1]": 200,
		"router.lan": 200, "router.lan:8300": 200, "192.168.7.1:80": 200, "[fd00::1]:8300": 200,
		"": 421, "evil.example": 421, "localhost.evil.example": 421, "127.0.0.1.nip.io:8300": 421, "0.0.0.0:8300": 421, "localhost:8300@evil.example": 421,
		"router.lan.": 421, "192.168.7.2": 421, "[::1%lo]:8300": 421,
	} {
		for _, path := range []string{"/", "/api/v1/devices", "/healthz", "/assets/0/x"} {
			w := ask(s.TCP(), "GET", path, "", "", "Host", host)
			if (w.Code == 421) != (want == 421) {
				t.Errorf("host %q, %s: status %d, want %d", host, path, w.Code, want)
			}
		}
		if w := ask(s.Control(), "GET", "/api/v1/status", "", "", "Host", host); w.Code != 200 {
			t.Errorf("control socket, host %q: status %d", host, w.Code)
		}
	}
	if w := ask(s.Control(), "GET", "/", "", ""); w.Code != http.StatusNotFound {
		t.Errorf("the control socket serves pages: status %d", w.Code)
	}
}

// A page says what went wrong in plain words; the API says it in JSON.
func TestFailuresInPlainWords(t *testing.T) {
	s := newServer(t, family())
	for path, want := range map[string]string{
		"/nowhere":            "That is not here",
		"/devices/nobody":     "That is not here",
		"/log?device=nobody":  "That is not here",
		"/log?before=yester":  "That did not work",
		"/api/v1/nowhere":     `{"error":"there is no such page"}`,
		"/devices/%00%00%ff/": "That is not here",
	} {
		if w := ask(s.TCP(), "GET", path, "", ""); w.Code < 400 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %.200s", path, w.Code, w.Body)
		}
	}
}

func TestHeaders(t *testing.T) {
	s := newServer(t, family())
	for _, path := range []string{"/", tvPage, "/nope", "/api/v1/status", "/healthz"} {
		h := ask(s.TCP(), "GET", path, "", "").Header()
		csp := h.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'self'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: content security policy %q", path, csp)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" || h.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: headers %v", path, h)
		}
		if h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s is open to other sites", path)
		}
	}
}

// TestHostileStrings parses every page of a house in which every string that a
// device can choose is an attack, and finds only our own elements in it.
func TestHostileStrings(t *testing.T) {
	h := hostile()
	s := newServer(t, h)
	paths := []string{"/", "/live", "/log", "/log?what=flows", "/rules", "/lists", "/why?name=x.example", "/events", "/health", "/about"}
	for _, l := range h.lists {
		paths = append(paths, "/lists/"+url.PathEscape(l.Name))
	}
	for _, d := range h.devices {
		paths = append(paths, "/devices/"+string(d.ID))
	}
	for _, bad := range spite { // what a person's link may bring
		q := url.QueryEscape(bad)
		paths = append(paths, "/devices/"+url.PathEscape(bad), "/nope/"+url.PathEscape(bad), "/log?device="+q, "/log?since="+q, "/log?before="+q, "/?did="+q, tvPage+"?since="+q, "/rules?did="+q, "/why?name="+q, "/why?name=x.example&device="+q+"&type="+q, "/lists/"+url.PathEscape(bad))
	}
	for _, path := range paths {
		if len(path) > 8000 {
			path = path[:8000] // as much as our server reads
		}
		w := ask(s.TCP(), "GET", path, "", "")
		if w.Code >= 500 {
			t.Errorf("%.80s: status %d", path, w.Code)
		}
		if loc := w.Header().Get("Location"); loc != "" && !strings.HasPrefix(loc, "/") {
			t.Errorf("%.80s sends the browser to %.80q", path, loc)
		}
		if strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") && w.Code != http.StatusMovedPermanently && w.Code != http.StatusTemporaryRedirect {
			innocent(t, path, w.Body.Bytes())
		}
	}
}

// innocent reports what is on a page that we did not put there.
func innocent(t testing.TB, path string, page []byte) {
	t.Helper()
	path = ui.Show(path)
	if len(page) > 1<<20 {
		t.Errorf("%s: the page has %d bytes", path, len(page))
	}
	for _, r := range string(page) {
		if !ui.Visible(r) && r != '\n' && r != '\ufffd' {
			t.Errorf("%s: the page holds %U", path, r)
			break
		}
	}
	doc, err := html.Parse(bytes.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	scripts := 0
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "script":
			scripts++
			if n.FirstChild != nil {
				t.Errorf("%s: an inline script: %.80q", path, n.FirstChild.Data)
			}
		case "style", "iframe", "object", "embed", "base", "svg", "math":
			t.Errorf("%s: an element <%s>", path, n.Data)
		}
		for _, a := range n.Attr {
			switch {
			case strings.HasPrefix(a.Key, "on"), a.Key == "style", a.Key == "srcdoc":
				t.Errorf("%s: attribute %s=%.80q", path, a.Key, a.Val)
			case a.Key == "href" && !strings.HasPrefix(a.Val, "/") && a.Val != "#main", a.Key == "src" && !strings.HasPrefix(a.Val, "/assets/"), a.Key == "action" && !strings.HasPrefix(a.Val, "/"):
				t.Errorf("%s: <%s %s=%.80q> leads out of the house", path, n.Data, a.Key, a.Val)
			case (a.Key == "href" || a.Key == "action") && strings.HasPrefix(a.Val, "//"):
				t.Errorf("%s: <%s %s=%.80q> leads out of the house", path, n.Data, a.Key, a.Val)
			}
		}
	}
	if scripts != 2 {
		t.Errorf("%s: %d scripts, ours are 2", path, scripts)
	}
}

func FuzzDeviceStrings(f *testing.F) {
	for _, s := range spite {
		f.Add(s[:min(len(s), 1000)])
	}
	f.Fuzz(func(t *testing.T, text string) {
		h := family()
		d := &h.devices[0]
		d.Name, d.Hostname, d.Maker, d.KindFrom = text, text, text, text
		h.destinations[d.ID][0].Name, h.destinations[d.ID][0].Why = text, text
		h.lookups[0].Name = text
		s := newServer(t, h)
		for _, path := range []string{"/", tvPage, "/log"} {
			w := ask(s.TCP(), "GET", path, "", "")
			if w.Code != 200 {
				t.Fatalf("%s: status %d", path, w.Code)
			}
			innocent(t, path, w.Body.Bytes())
		}
	})
}

// TestFormsWorkWithoutScript finds every form on every page and sends it as a
// browser without JavaScript does: each changes the house once and leads back
// to a page.
func TestFormsWorkWithoutScript(t *testing.T) {
	sent := 0
	for _, path := range []string{"/", tvPage, "/devices/00:00:5e:10:00:2a", "/rules", "/about", "/log"} {
		page := ask(newServer(t, family()).TCP(), "GET", path, "", "").Body
		for i, form := range forms(t, page) {
			h := family()
			s := newServer(t, h)
			if form.method == "get" {
				if w := ask(s.TCP(), "GET", form.action+"?"+form.values.Encode(), "", ""); w.Code != 200 {
					t.Errorf("%s form %d: status %d", path, i, w.Code)
				}
				continue
			}
			w := ask(s.TCP(), "POST", form.action, asForm, form.values.Encode(), "Origin", "http://localhost:8300")
			if w.Code != http.StatusSeeOther || h.changed() != 1 {
				t.Errorf("%s form %d to %s with %v: status %d, %d changes: %.200s", path, i, form.action, form.values, w.Code, h.changed(), w.Body)
				continue
			}
			back := ask(s.TCP(), "GET", w.Header().Get("Location"), "", "")
			if back.Code != 200 || !strings.Contains(back.Body.String(), `class="said" role="status"`) {
				t.Errorf("%s form %d leads to %s: status %d, and says nothing", path, i, w.Header().Get("Location"), back.Code)
			}
			sent++
		}
	}
	if sent < 15 {
		t.Errorf("only %d forms were sent", sent)
	}
}

type sentForm struct {
	method, action string
	values         url.Values
}

// forms reads the forms of a page and fills them: what is chosen stays, a box
// that must be ticked is ticked, a text that must be there is a name.
func forms(t *testing.T, page io.Reader) []sentForm {
	t.Helper()
	doc, err := html.Parse(page)
	if err != nil {
		t.Fatal(err)
	}
	var out []sentForm
	for n := range doc.Descendants() {
		if n.Data != "form" {
			continue
		}
		form := sentForm{attr(n, "method"), attr(n, "action"), url.Values{}}
		for e := range n.Descendants() {
			name, value := attr(e, "name"), attr(e, "value")
			switch {
			case e.Data == "select":
				form.values.Set(name, attr(e.FirstChild, "value"))
			case e.Data == "button" && name != "":
				form.values.Set(name, value)
			case e.Data != "input":
			case attr(e, "type") == "radio" && !has(e, "checked"), attr(e, "type") == "checkbox" && !has(e, "required"):
			case has(e, "required") && value == "":
				form.values.Set(name, "ads.example.com")
			default:
				form.values.Set(name, value)
			}
		}
		out = append(out, form)
	}
	return out
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func has(n *html.Node, key string) bool {
	for _, a := range n.Attr {
		if a.Key == key {
			return true
		}
	}
	return false
}

func TestFormsRefuse(t *testing.T) {
	for name, c := range map[string]struct{ path, form, says string }{
		"not sure":          {tvPage + "/erase", "", "tick the box"},
		"not sure of all":   {"/erase", "sure=no", "tick the box"},
		"a person's names":  {"/devices/00:00:5e:10:00:2a/log", "level=names", "only its owner"},
		"unknown mode":      {tvPage + "/mode", "mode=<b>", "off, watch, protect, guard or local is needed"},
		"unknown switch":    {"/switch", "to=maybe", "on or off is needed"},
		"unknown carrying":  {tvPage + "/carry", "to=maybe", "on or off is needed"},
		"a path with query": {"/rules", "action=block&name=ads.example/a%3Fb", "leave out"},
		"an address":        {"/rules", "action=block&name=192.0.2.1", "rules speak of names"},
		"the whole of DNS":  {"/rules", "action=block&name=.", "name is empty"},
		"a page's address":  {"/rules", "action=block&name=http://ads.example/", "not part of a name"},
		"an asterisk":       {"/rules", "action=block&name=*.ads.example", "everything below a name is meant too"},
		"a name too long":   {tvPage + "/name", "name=" + strings.Repeat("a", 61), "at most 60"},
		"a name that turns": {tvPage + "/name", "name=%E2%80%AE", "only letters"},
	} {
		h := family()
		w := ask(newServer(t, h).TCP(), "POST", c.path, asForm, c.form)
		text, _ := html.Parse(w.Body)
		if w.Code != http.StatusBadRequest || !strings.Contains(words(text), c.says) || h.changed() != 0 {
			t.Errorf("%s: status %d, %d changes: %s", name, w.Code, h.changed(), words(text))
		}
	}
	h := family()
	if w := ask(newServer(t, h).TCP(), "POST", "/devices/00:00:5e:10:00:2a/log", asForm, "level=names&owner=agrees"); w.Code != http.StatusSeeOther || h.devices[5].Log != devices.LogNames {
		t.Errorf("its owner agrees: status %d, level %s", w.Code, h.devices[5].Log)
	}
}

func words(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(strings.TrimSpace(d.Data) + " ")
		}
	}
	return b.String()
}

func TestAPIChanges(t *testing.T) {
	const tv, phone = "00:00:5e:10:00:14", "00:00:5e:10:00:2a"
	type state struct {
		Status  int
		Answer  string
		Changes int
	}
	for name, c := range map[string]struct {
		method, path, body string
		want               state
		check              func(*house) bool
	}{
		"mode":             {"POST", "/api/v1/devices/" + tv + "/mode", `{"mode":"guard"}`, state{200, `{"ok":true}`, 1}, func(h *house) bool { return h.devices[0].Mode == devices.ModeGuard }},
		"mode by name":     {"POST", "/api/v1/devices/living-ROOM%20tv/mode", `{"mode":"local"}`, state{200, `{"ok":true}`, 1}, func(h *house) bool { return h.devices[0].Mode == devices.ModeLocal }},
		"log":              {"POST", "/api/v1/devices/" + phone + "/log", `{"level":"none"}`, state{200, `{"ok":true}`, 1}, func(h *house) bool { return h.devices[5].Log == devices.LogNone }},
		"name":             {"POST", "/api/v1/devices/" + tv + "/name", `{"name":" Télé "}`, state{200, `{"ok":true}`, 1}, func(h *house) bool { return h.devices[0].Name == "Télé" }},
		"carry":            {"POST", "/api/v1/devices/" + tv + "/carry", `{"on":true}`, state{200, `{"ok":true}`, 1}, func(h *house) bool { return h.devices[0].CarryEncrypted && !h.devices[0].StripTracking }},
		"strip":            {"POST", "/api/v1/devices/" + tv + "/strip", `{"on":true}`, state{200, `{"ok":true}`, 1}, func(h *house) bool { return h.devices[0].StripTracking && !h.devices[0].CarryEncrypted }},
		"rule for a path":  {"POST", "/api/v1/rules", `{"name":"Ads.Example//collect/","action":"block"}`, state{201, `{"id":3,"action":"block","name":"ads.example","path":"/collect","device":"","until":null,"created":"2026-11-22T12:00:00Z","by":"cli"}`, 1}, func(h *house) bool { return h.rules[2].Path == "/collect" }},
		"kind":             {"POST", "/api/v1/devices/" + phone + "/kind", `{"kind":"tv"}`, state{200, `{"ok":true}`, 1}, func(h *house) bool { return h.devices[5].Kind == devices.KindTV }},
		"erase one":        {"POST", "/api/v1/erase", `{"device":"plug"}`, state{200, `{"rows":7}`, 1}, func(h *house) bool { return h.erased[0] == h.devices[4].ID }},
		"erase all":        {"POST", "/api/v1/erase", `{"all":true}`, state{200, `{"rows":7}`, 1}, func(h *house) bool { return h.erased[0] == "" }},
		"switch":           {"POST", "/api/v1/switch", `{"on":false}`, state{200, `{"ok":true}`, 1}, func(h *house) bool { return !h.on }},
		"dismiss":          {"POST", "/api/v1/dismiss", `{"what":"192.168.7.5"}`, state{200, `{"ok":true}`, 1}, func(h *house) bool { return h.dismissed == "192.168.7.5" }},
		"no such proposal": {"POST", "/api/v1/dismiss", `{"what":"lists"}`, state{400, `{"error":"there is no proposal \"lists\": status shows those that there are"}`, 0}, nil},
		"remove":           {"DELETE", "/api/v1/rules/2", ``, state{200, `{"ok":true}`, 1}, func(h *house) bool { return len(h.rules) == 1 }},
		"rule for a while": {"POST", "/api/v1/rules", `{"name":"Ads.Example.","action":"allow","device":"Doorbell","for":"15m"}`, state{201, `{"id":3,"action":"allow","name":"ads.example","path":"","device":"00:00:5e:10:00:18","until":"2026-11-22T12:15:00Z","created":"2026-11-22T12:00:00Z","by":"cli"}`, 1}, nil},
		"rule for ever":    {"POST", "/api/v1/rules", `{"name":"bücher.example","action":"block"}`, state{201, `{"id":3,"action":"block","name":"xn--bcher-kva.example","path":"","device":"","until":null,"created":"2026-11-22T12:00:00Z","by":"cli"}`, 1}, func(h *house) bool { return h.rules[2].Action == policy.Block }},

		"carry nothing":   {"POST", "/api/v1/devices/plug/carry", `{}`, state{400, `{"error":"{\"on\":true} or {\"on\":false} is needed"}`, 0}, nil},
		"path too long":   {"POST", "/api/v1/rules", `{"name":"a.example/b/c/d","action":"block"}`, state{400, `{"error":"path \"/b/c/d\": rules look at the first two segments: say \"/b/c\""}`, 0}, nil},
		"unknown field":   {"POST", "/api/v1/switch", `{"on":true,"off":true}`, state{400, `{"error":"body: json: unknown field \"off\"; one JSON object is needed"}`, 0}, nil},
		"two values":      {"POST", "/api/v1/switch", `{"on":true}{"on":false}`, state{400, `{"error":"body: more than one JSON value; one JSON object is needed"}`, 0}, nil},
		"nothing said":    {"POST", "/api/v1/switch", `{}`, state{400, `{"error":"{\"on\":true} or {\"on\":false} is needed"}`, 0}, nil},
		"erase nothing":   {"POST", "/api/v1/erase", `{}`, state{400, `{"error":"either {\"device\":\"…\"} or {\"all\":true} is needed"}`, 0}, nil},
		"erase both":      {"POST", "/api/v1/erase", `{"all":true,"device":"plug"}`, state{400, `{"error":"either {\"device\":\"…\"} or {\"all\":true} is needed"}`, 0}, nil},
		"unknown device":  {"POST", "/api/v1/erase", `{"device":"fridge"}`, state{404, `{"error":"device \"fridge\" is not known: its ID, address or name is needed"}`, 0}, nil},
		"unknown rule":    {"DELETE", "/api/v1/rules/77", ``, state{404, `{"error":"remove rule 77: rule 77: file does not exist"}`, 0}, nil},
		"rule not number": {"DELETE", "/api/v1/rules/x", ``, state{400, `{"error":"rule \"x\": a whole number is needed"}`, 0}, nil},
		"unknown action":  {"POST", "/api/v1/rules", `{"name":"a.example","action":"drop"}`, state{400, `{"error":"action \"drop\": allow or block is needed"}`, 0}, nil},
		"bad span":        {"POST", "/api/v1/rules", `{"name":"a.example","action":"block","for":"-5m"}`, state{400, `{"error":"for \"-5m\": a span such as 15m, 2h or 7d is needed, at most 366d"}`, 0}, nil},
		"bad level":       {"POST", "/api/v1/devices/plug/log", `{"level":"all"}`, state{400, `{"error":"log level \"all\": names, counts or none is needed"}`, 0}, nil},
		"wrong method":    {"PUT", "/api/v1/switch", `{"on":true}`, state{405, `{"error":"method \"PUT\" is not for this: use POST"}`, 0}, nil},
		"get of a change": {"GET", "/api/v1/erase", ``, state{405, `{"error":"method \"GET\" is not for this: use POST"}`, 0}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := family()
			w := ask(newServer(t, h).Control(), c.method, c.path, asJSON, c.body)
			got := state{w.Code, strings.TrimSpace(w.Body.String()), h.changed()}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if c.check != nil && !c.check(h) {
				t.Error("the house is not as it was asked to be")
			}
		})
	}
}

// The device's page says what was done to what it asks in clear.
func TestPageTellsOfCarrying(t *testing.T) {
	for name, c := range map[string]struct {
		carry bool
		api.Carrying
		want, not string
	}{
		"some":         {true, api.Carrying{Places: 4, Encrypted: 3}, "3 of its 4 readable talks now leave this house encrypted; within it anyone can still read along.", "Taken out"},
		"one of one":   {true, api.Carrying{Places: 1, Encrypted: 1}, "1 of its 1 readable talk now leaves this house encrypted", "Taken out"},
		"not chosen":   {false, api.Carrying{Places: 4}, "Send it encrypted: off", "readable talk"},
		"nothing yet":  {true, api.Carrying{}, "Send it encrypted: on", "readable talk"},
		"all is taken": {false, api.Carrying{Headers: 1, Referrers: 2, Cookies: 12}, "since the last start: 1 tracking header, 2 referrers, 12 third parties’ cookies.", "readable talk"},
	} {
		t.Run(name, func(t *testing.T) {
			h := family()
			h.devices[0].CarryEncrypted = c.carry
			h.carrying = c.Carrying
			page, err := html.Parse(ask(newServer(t, h).TCP(), "GET", "/devices/00:00:5e:10:00:14", "", "").Body)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Join(strings.Fields(words(page)), " ")
			if !strings.Contains(text, c.want) || strings.Contains(text, c.not) {
				t.Errorf("%q wanted, %q not, in: %s", c.want, c.not, text)
			}
		})
	}
}

func TestFindDevice(t *testing.T) {
	h := family()
	h.devices = append(h.devices,
		devices.Device{ID: "00:00:5e:10:00:63", Name: "Plug 2"},
		devices.Device{ID: "00:00:5e:10:00:64", Name: "Twin"}, devices.Device{ID: "00:00:5e:10:00:65", Name: "twin"},
		devices.Device{ID: "fe80::9", Name: "a/b?c#d"})
	s := newServer(t, h)
	for ref, want := range map[string]string{
		"00:00:5e:10:00:14": "Living-room TV", "00-00-5E-10-00-14": "Living-room TV", "192.168.7.20": "Living-room TV", "::ffff:192.168.7.20": "Living-room TV",
		"living-room tv": "Living-room TV", "Livi": "Living-room TV", "plug": "Plug", "plug 2": "Plug 2", "fe80::9": "a/b?c#d", "a/b?c#d": "a/b?c#d",
		"pl": "409", "twin": "409", "l": "404", "": "404", "192.168.7.99": "404", "television": "404",
	} {
		w := ask(s.Control(), "GET", "/api/v1/devices/"+url.PathEscape(ref), "", "")
		var got struct {
			Device struct{ Name string }
			Error  string
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil && ref != "" {
			t.Fatalf("%q: %v", ref, err)
		}
		if w.Code != 200 {
			got.Device.Name = fmt.Sprint(w.Code)
		}
		if got.Device.Name != want {
			t.Errorf("%q finds %q, want %q (%s)", ref, got.Device.Name, want, got.Error)
		}
		if ref == "twin" && !strings.Contains(got.Error, "00:00:5e:10:00:64") {
			t.Errorf("%q is ambiguous, and the answer does not list the IDs: %s", ref, got.Error)
		}
	}
}

func TestPagingByKey(t *testing.T) {
	h := crowd(3)
	s := newServer(t, h)
	seen := map[int64]bool{}
	path := "/api/v1/lookups?limit=200"
	for pages := 0; ; pages++ {
		var got struct {
			Lookups []struct{ ID int64 }
			Next    int64
		}
		if err := json.Unmarshal(ask(s.TCP(), "GET", path, "", "").Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		for _, l := range got.Lookups {
			if seen[l.ID] {
				t.Fatalf("row %d came twice", l.ID)
			}
			seen[l.ID] = true
		}
		if got.Next == 0 {
			break
		}
		if pages > 3 {
			t.Fatal("the pages do not end")
		}
		path = fmt.Sprintf("/api/v1/lookups?limit=200&before=%d", got.Next)
	}
	if len(seen) != len(h.lookups) {
		t.Errorf("%d rows of %d came", len(seen), len(h.lookups))
	}
	// The page's own link leads on, filters and all.
	first := ask(s.TCP(), "GET", "/log?device=00:00:5e:10:00:01&since=7d", "", "").Body.String()
	link := regexp.MustCompile(`rel="next" href="([^"]+)"`).FindStringSubmatch(first)
	if link == nil {
		t.Fatal("the log has no next page")
	}
	next := html.UnescapeString(link[1])
	if q, _ := url.ParseQuery(strings.TrimPrefix(next, "/log?")); q.Get("device") == "" || q.Get("since") != "7d" || q.Get("before") == "" {
		t.Errorf("the next page is %s", next)
	}
	if w := ask(s.TCP(), "GET", next, "", ""); w.Code != 200 || w.Body.String() == first {
		t.Errorf("the next page: status %d", w.Code)
	}
}

// TestTrouble: a ledger that cannot answer, and a mistake of ours, end in an
// answer that says so, never in silence.
func TestTrouble(t *testing.T) {
	h := family()
	h.broken = errors.New("disk is full")
	s := newServer(t, h)
	for _, path := range []string{"/", tvPage, "/log", "/events", "/api/v1/devices", "/api/v1/flows"} {
		if w := ask(s.TCP(), "GET", path, "", ""); w.Code != 500 || !strings.Contains(w.Body.String(), "disk is full") {
			t.Errorf("%s: status %d: %.200s", path, w.Code, w.Body)
		}
	}
	s, err := ui.New(ui.Config{House: family(), Ledger: panicky{h}, Live: mustRecorder(t)})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/", "/api/v1/devices"} {
		if w := ask(s.TCP(), "GET", path, "", ""); w.Code != 500 || !strings.Contains(w.Body.String(), "a mistake of ours") || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s: status %d: %.200s", path, w.Code, w.Body)
		}
	}
}

type panicky struct{ *house }

func (panicky) Totals(context.Context, time.Time) ([]journal.DeviceTotals, error) {
	panic("secret of the inside")
}

func mustRecorder(t *testing.T) *journal.Recorder {
	t.Helper()
	r, err := journal.NewRecorder(journal.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestNewRefuses(t *testing.T) {
	h := family()
	if _, err := ui.New(ui.Config{House: h, Ledger: h}); err == nil {
		t.Error("a server without a live feed was made")
	}
	reg := prometheus.NewRegistry()
	c := ui.Config{House: h, Ledger: h, Live: mustRecorder(t), Registerer: reg}
	if _, err := ui.New(c); err != nil {
		t.Fatal(err)
	}
	if _, err := ui.New(c); err == nil {
		t.Error("the same metrics were registered twice")
	}
}

func TestMetrics(t *testing.T) {
	h := family()
	reg := prometheus.NewPedanticRegistry()
	s, err := ui.New(ui.Config{House: h, Ledger: h, Live: mustRecorder(t), Registerer: reg, Gatherer: reg})
	if err != nil {
		t.Fatal(err)
	}
	ask(s.TCP(), "GET", "/", "", "")
	ask(s.TCP(), "GET", "/nope", "", "")
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
	body := ask(s.TCP(), "GET", "/metrics", "", "").Body.String()
	for _, want := range []string{
		`netcurtain_ui_requests_total{status="2xx",surface="tcp"} 1`, `netcurtain_ui_requests_total{status="4xx",surface="tcp"} 1`,
		`netcurtain_ui_live_readers 0`, `netcurtain_ui_page_seconds_count 1`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics does not say %s", want)
		}
	}
	if strings.Contains(body, "Living") || strings.Contains(body, "5e:10") {
		t.Error("/metrics names a device")
	}
}

func TestAssets(t *testing.T) {
	s := newServer(t, family())
	home := ask(s.TCP(), "GET", "/", "", "").Body.String()
	links := regexp.MustCompile(`/assets/[0-9a-f]{12}/[a-z.]+`).FindAllString(home, -1)
	if len(links) < 4 {
		t.Fatalf("the page refers to %v", links)
	}
	for _, link := range links {
		plain, packed := ask(s.TCP(), "GET", link, "", ""), ask(s.TCP(), "GET", link, "", "", "Accept-Encoding", "gzip, br")
		if plain.Code != 200 || packed.Code != 200 || packed.Header().Get("Content-Encoding") != "gzip" || packed.Body.Len() >= plain.Body.Len() {
			t.Errorf("%s: %d, %d bytes plain, %d packed", link, plain.Code, plain.Body.Len(), packed.Body.Len())
		}
		if !strings.Contains(plain.Header().Get("Cache-Control"), "immutable") || strings.HasSuffix(link, "js") != strings.HasPrefix(plain.Header().Get("Content-Type"), "text/javascript") {
			t.Errorf("%s: headers %v", link, plain.Header())
		}
	}
	if w := ask(s.TCP(), "GET", "/assets/000000000000/style.css", "", ""); w.Code != 404 {
		t.Errorf("an asset with a wrong hash: status %d", w.Code)
	}
	t.Logf("assets: %d bytes packed", s.Packed())
	if s.Packed() > 60_000 {
		t.Errorf("the assets take %d bytes packed, 60000 are allowed", s.Packed())
	}
}

func TestRender(t *testing.T) {
	for name, h := range map[string]*house{"empty": {on: true}, "off": {}, "one": crowd(1), "fifty": crowd(50)} {
		s := newServer(t, h)
		for _, path := range []string{"/", "/live", "/log", "/log?what=flows", "/rules", "/events", "/health", "/about", "/devices/00:00:5e:10:00:00"} {
			w := ask(s.TCP(), "GET", path, "", "")
			if w.Code != 200 && !(w.Code == 404 && len(h.devices) == 0) {
				t.Errorf("%s %s: status %d", name, path, w.Code)
			}
			if off := strings.Contains(w.Body.String(), "Netcurtain is off."); off == h.on {
				t.Errorf("%s %s: says it is off: %v", name, path, off)
			}
		}
	}
}

func TestTodayBeginsAtLocalMidnight(t *testing.T) {
	zone := time.FixedZone("far", 13*3600)
	h := family()
	s, err := ui.New(ui.Config{House: h, Ledger: h, Live: mustRecorder(t), Location: zone, Now: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Since time.Time }
	if err := json.Unmarshal(ask(s.TCP(), "GET", "/api/v1/devices?since=today", "", "").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2026, 11, 23, 0, 0, 0, 0, zone); !got.Since.Equal(want) {
		t.Errorf("today began %s, want %s", got.Since, want)
	}
	if body := ask(s.TCP(), "GET", "/", "", "").Body.String(); !strings.Contains(body, "Monday 23 November 2026") {
		t.Error("the page is dated in another zone")
	}
}

func TestWords(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 1549: "1.5 kB", 9_949: "9.9 kB", 9_960: "10 kB", 999_499: "999 kB", 999_600: "1.0 MB", 48_210_334: "48 MB", 2_310_422_118: "2.3 GB", 1 << 62: "4.6 EB"} {
		if got := strings.ReplaceAll(ui.HumanBytes(n), "\u00a0", " "); got != want {
			t.Errorf("%d bytes are %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1 000", 1234567: "1 234 567", -1000: "-1 000", -100: "-100"} {
		if got := strings.ReplaceAll(ui.Grouped(n), "\u202f", " "); got != want {
			t.Errorf("%d is written %q, want %q", n, got, want)
		}
	}
	for text, want := range map[string]time.Duration{"15m": 15 * time.Minute, "7d": 168 * time.Hour, "2h30m": 150 * time.Minute, "366d": 366 * 24 * time.Hour, "0s": 0, "-1h": 0, "367d": 0, "d": 0, "": 0, "1.5d": 0, "99999999999999999d": 0} {
		if got, err := ui.ParseSpan(text); got != want || (err != nil) != (want == 0) {
			t.Errorf("span %q is %s (%v), want %s", text, got, err, want)
		}
	}
	if got := ui.Show("a\u202eb\x00c\xffd"); got != "a\ufffdb\ufffdc\ufffdd" {
		t.Errorf("shown as %q", got)
	}
	if got := []rune(ui.Show(strings.Repeat("ä", 64<<10))); len(got) != ui.MaxShown+1 {
		t.Errorf("64 KiB are shown as %d characters", len(got))
	}
}

func TestHTTPServerHasLimits(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	srv := ui.HTTPServer(ctx, http.NotFoundHandler(), nil)
	if srv.ReadHeaderTimeout == 0 || srv.ReadTimeout == 0 || srv.WriteTimeout == 0 || srv.IdleTimeout == 0 || srv.MaxHeaderBytes == 0 {
		t.Errorf("a limit is missing: %+v", srv)
	}
	cancel()
	if srv.BaseContext(nil).Err() == nil {
		t.Error("requests outlive the server's context")
	}
}

func BenchmarkHome50(b *testing.B)   { benchmarkPage(b, "/") }
func BenchmarkDevice50(b *testing.B) { benchmarkPage(b, "/devices/00:00:5e:10:00:01") }
func BenchmarkLog50(b *testing.B)    { benchmarkPage(b, "/log") }

func benchmarkPage(b *testing.B, path string) {
	s := newServer(b, crowd(50))
	b.ReportAllocs()
	for b.Loop() {
		if w := ask(s.TCP(), "GET", path, "", ""); w.Code != 200 {
			b.Fatal(w.Code)
		}
	}
}

// TestModeSaysWhatEnded: whoever guards or cuts a device is told that running
// connections ended for it, and why, by the API and on the page.
func TestModeSaysWhatEnded(t *testing.T) {
	for _, c := range []struct {
		mode  string
		ended int
		want  string
	}{
		{"guard", 7, "Its 7 open connections were ended on purpose, so that Netcurtain sees them begin again and decides by name."},
		{"guard", 1, "Its one open connection was ended on purpose, so that Netcurtain sees them begin again and decides by name."},
		{"local", 2, "Its 2 open connections were ended: it has no internet from now on."},
		{"guard", 0, ""}, {"protect", 0, ""},
	} {
		h := family()
		h.ended = c.ended
		s := newServer(t, h)
		w := ask(s.Control(), "POST", "/api/v1"+tvPage+"/mode", asJSON, fmt.Sprintf(`{"mode":%q}`, c.mode))
		if got := strings.TrimSpace(w.Body.String()); c.want != "" && got != fmt.Sprintf(`{"ok":true,"ended":%d,"note":%q}`, c.ended, c.want) || c.want == "" && got != `{"ok":true}` {
			t.Errorf("%s, %d: %s", c.mode, c.ended, got)
		}
	}
	for did, want := range map[string]bool{"guard-7": true, "local-2": true, "guard-0": false, "guard-x": false, "watch-3": false, "guard--1": false, "guard-99999999": false} {
		w := ask(newServer(t, family()).TCP(), "GET", tvPage+"?did="+did, "", "")
		if got := strings.Contains(w.Body.String(), "ended"); got != want {
			t.Errorf("?did=%s says that connections ended: %v", did, got)
		}
	}
}
