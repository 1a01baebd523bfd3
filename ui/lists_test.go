package ui_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/policy/blocklist"
	"github.com/netcurtain/netcurtain/ui"
	"github.com/netcurtain/netcurtain/ui/api"
)

func (h *house) Lists(context.Context) (api.Lists, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := api.Lists{Most: 64, Folder: "/etc/netcurtain/lists", Lists: []api.List{}}
	for _, l := range h.lists {
		out.Lists = append(out.Lists, l.List)
	}
	return out, nil
}

func (h *house) find(name string) (int, error) {
	i := slices.IndexFunc(h.lists, func(l api.ListDetail) bool { return l.Name == name })
	if i < 0 {
		return i, fmt.Errorf("list %q: %w", name, fs.ErrNotExist)
	}
	return i, nil
}

func (h *house) List(_ context.Context, name string) (api.ListDetail, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i, err := h.find(name)
	if err != nil {
		return api.ListDetail{}, err
	}
	return h.lists[i], nil
}

func (h *house) Catalogue(context.Context) ([]api.PublicList, error) {
	return []api.PublicList{
		{Name: "big-ads", URL: "https://lists.example/big.txt", Licence: "MIT", Homepage: "https://lists.example", Size: "L", Rules: 200_000, Smaller: "small-ads", For: "ads"},
		{Name: "tv", URL: "https://lists.example/tv.txt", Licence: "GPL-3.0", Homepage: "https://lists.example", Size: "S", Rules: 300, Smart: true, For: "what televisions tell"},
	}, nil
}

func (h *house) AddList(_ context.Context, n api.NewList, whose []devices.ID) (api.List, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n.File != "" {
		return api.List{}, ui.Mistake{Text: "that file cannot be read"}
	}
	h.changes++
	l := api.List{Name: n.Name, Owner: "household", Source: "url", Address: n.URL, Kind: n.Kind, Enabled: true, Pending: true, Devices: []string{}}
	for _, d := range whose {
		l.Devices = append(l.Devices, string(d))
	}
	h.lists = append(h.lists, api.ListDetail{List: l})
	return l, nil
}

func (h *house) RemoveList(_ context.Context, name string) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i, err := h.find(name)
	if err != nil {
		return "", err
	}
	h.changes++
	h.lists = slices.Delete(h.lists, i, i+1)
	return "netcurtain lists add " + name, nil
}

func (h *house) SetList(_ context.Context, name string, enabled *bool, whose *[]devices.ID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	i, err := h.find(name)
	if err != nil {
		return err
	}
	h.changes++
	if enabled != nil {
		h.lists[i].Enabled = *enabled
	}
	if whose != nil {
		h.lists[i].Devices = []string{}
		for _, d := range *whose {
			h.lists[i].Devices = append(h.lists[i].Devices, string(d))
		}
	}
	return nil
}

func (h *house) UpdateLists(_ context.Context, names []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes++
	h.updated = append(h.updated, names...)
	return nil
}

func (h *house) TestList(context.Context, api.NewList) (api.ListTrial, error) {
	return api.ListTrial{Rules: 3, Lines: 5, Bytes: 80, Rejected: 1, Rejects: []string{"the list:4: x: no"}, Asked: 7, Blocks: []api.Covered{{Name: "a.example", Rule: "||a.example^"}}}, nil
}

func (h *house) Explain(q policy.Query) []policy.Step {
	h.mu.Lock()
	defer h.mu.Unlock()
	index, _, err := blocklist.Compile(
		blocklist.Text{Source: blocklist.Source{Name: "starter"}, Text: strings.NewReader("||doubleclick.net^\n||flurry.com^\n")},
		blocklist.Text{Source: blocklist.Source{Name: "of the bear's"}, Text: strings.NewReader("||doubleclick.net^\n")},
	)
	if err != nil {
		panic(err)
	}
	set, err := policy.Compile(policy.Config{Index: index, Rules: h.rules, Lists: &policy.ListUse{
		House: index.Mask("starter"), Devices: map[devices.ID]uint64{h.devices[3].ID: index.Mask("of the bear's")},
	}})
	if err != nil {
		panic(err)
	}
	return set.Explain(q)
}

func (h *house) Egress(context.Context) ([]api.Egress, error) {
	return []api.Egress{{What: "list ads", Host: "lists.example", Requests: 3, Bytes: 48_210, First: noon, Last: noon}}, nil
}

// someLists are lists in every state that there is.
func someLists(tv devices.ID) []api.ListDetail {
	long := noon.AddDate(0, 0, -3)
	return []api.ListDetail{
		{List: api.List{Name: "netcurtain-starter", Owner: "netcurtain", Source: "built-in", Kind: "block", Enabled: true, Devices: []string{}, Rules: 367, Unique: 360, Hits: 1204, LastHit: &noon}},
		{List: api.List{Name: "ads", Owner: "household", Source: "url", Address: "https://lists.example/ads.txt", Kind: "block", Enabled: true, Devices: []string{string(tv)}, Rules: 58_000, Unique: 51_000, Rejected: 2, Hits: 9, LastHit: &long, Success: &long, Failing: &noon, LastError: "the server answered 503 Service Unavailable", Next: &noon},
			Overlap: []api.Overlap{{List: "netcurtain-starter", Shared: 7}}, Rejects: []string{"ads:7: <b>: an address of a page, not a name", "ads:9: x y: no rule"}},
		{List: api.List{Name: "mine", Owner: "administrator", Source: "file", Address: "mine.txt", Kind: "allow", Enabled: false, Devices: []string{}, Rules: 3}},
		{List: api.List{Name: "huge", Owner: "household", Source: "catalogue", Address: "huge", Licence: "MIT", Kind: "block", Enabled: true, Devices: []string{}, Using: "small", Unfit: "small stands in for it: this box has room for about 100000 rules in all, and this list has about 900000"}},
		{List: api.List{Name: "coming", Owner: "household", Source: "url", Address: "https://lists.example/c.txt", Kind: "block", Enabled: true, Devices: []string{}, Pending: true, Doing: "downloading", Bytes: 2_100_000, Of: 4_000_000}},
	}
}

func TestListsAPI(t *testing.T) {
	h := family()
	s := newServer(t, h)
	do := func(method, path, body string, want int) string {
		t.Helper()
		w := ask(s.Control(), method, path, asJSON, body)
		if w.Code != want {
			t.Errorf("%s %s %s: status %d, want %d: %s", method, path, body, w.Code, want, w.Body)
		}
		return w.Body.String()
	}
	do("POST", "/api/v1/lists", `{"name":"new","url":"https://x.example/l.txt","devices":["talking bear"]}`, 201)
	if got := h.lists[len(h.lists)-1]; got.Name != "new" || len(got.Devices) != 1 || got.Devices[0] != string(h.devices[3].ID) {
		t.Errorf("made %+v", got)
	}
	do("POST", "/api/v1/lists", `{"name":"new"}`, 400)
	do("POST", "/api/v1/lists", `{"name":"new","url":"https://x.example","file":"x"}`, 400)
	do("POST", "/api/v1/lists", `{"name":"new","url":"https://x.example","kind":"sometimes"}`, 400)
	do("POST", "/api/v1/lists", `{"name":"new","url":"https://x.example","devices":["nobody"]}`, 404)
	if got := do("POST", "/api/v1/lists", `{"name":"f","file":"f.txt"}`, 400); !strings.Contains(got, "that file cannot be read") {
		t.Errorf("a mistake is told as %s", got)
	}
	do("POST", "/api/v1/lists/new", `{"enabled":false}`, 200)
	do("POST", "/api/v1/lists/new", `{"devices":[]}`, 200)
	if got := h.lists[len(h.lists)-1]; got.Enabled || len(got.Devices) != 0 {
		t.Errorf("changed to %+v", got)
	}
	do("POST", "/api/v1/lists/new", `{}`, 400)
	do("POST", "/api/v1/lists/nothing", `{"enabled":false}`, 404)
	do("POST", "/api/v1/lists/update", `{"names":["new"]}`, 200)
	if !slices.Equal(h.updated, []string{"new"}) {
		t.Errorf("updated %v", h.updated)
	}
	do("POST", "/api/v1/lists/test", `{"url":"https://x.example"}`, 200)
	if got := do("DELETE", "/api/v1/lists/new", "", 200); !strings.Contains(got, `"undo":"netcurtain lists add new"`) {
		t.Errorf("removing says %s", got)
	}
	do("DELETE", "/api/v1/lists/new", "", 404)
	do("GET", "/api/v1/lists/nothing", "", 404)
}

func TestWhy(t *testing.T) {
	h := family()
	s := newServer(t, h)
	why := func(query string, status int) (w api.Why) {
		t.Helper()
		r := ask(s.Control(), "GET", "/api/v1/why?"+query, "", "")
		if r.Code != status {
			t.Fatalf("%s: status %d: %s", query, r.Code, r.Body)
		}
		if status == http.StatusOK {
			if err := json.Unmarshal(r.Body.Bytes(), &w); err != nil {
				t.Fatal(err)
			}
		}
		return w
	}
	// Each winner names what would change it, in words that a shell takes.
	for query, want := range map[string]string{
		"name=ads.doubleclick.net":                                 "block rule household: netcurtain block doubleclick.net --undo",
		"name=data.flurry.com&device=Living-room%20TV":             "block list starter: netcurtain allow data.flurry.com --device 'Living-room TV' --for 15m",
		"name=data.flurry.com&device=kitchen&type=aaaa":            "allow list starter: netcurtain allow data.flurry.com --device 'Kitchen speaker' --for 15m", // only watched
		"name=www.example":                                         "none  : netcurtain block www.example",
		"name=dns.google&device=Plug":                              "block side-door side doors: netcurtain allow dns.google --device Plug",
		"name=api.cuddlecloud.example&device=talking":              "allow rule household: netcurtain allow api.cuddlecloud.example --device 'Talking bear' --undo",
		"name=www.example&answer=192.168.1.1":                      "block rebinding rebinding: list rebinding_exempt 'www.example'",
		"name=data.flurry.com&device=" + url.QueryEscape("Anna’s"): "block list starter: netcurtain allow data.flurry.com --device 'Anna’s phone' --for 15m",
	} {
		w := why(query, 200)
		if len(w.Changes) == 0 {
			t.Errorf("%s: nothing would change %+v", query, w)
			continue
		}
		if got := fmt.Sprintf("%s %s %s: %s", w.Verdict, w.Reason, w.List, w.Changes[0].Command); got != want {
			t.Errorf("%s\n got %s\nwant %s", query, got, want)
		}
	}
	w := why("name=ads.doubleclick.net", 200)
	var states []string
	for _, st := range w.Steps {
		states = append(states, st.State+" "+st.List)
	}
	if got := strings.Join(states, ", "); got != "decides household, beaten starter, others of the bear's" {
		t.Errorf("steps: %s", got)
	}
	why("name=", 400)
	why("name=https://x.example/", 400)
	why("name=x.example&type=NOPE", 400)
	why("name=x.example&device=nobody", 404)
	why("name=x.example&answer=nonsense", 400)
}

func TestListForms(t *testing.T) {
	h := family()
	s := newServer(t, h)
	post := func(path, form string) string {
		t.Helper()
		w := ask(s.TCP(), "POST", path, asForm, form)
		if w.Code != http.StatusSeeOther {
			t.Errorf("%s: status %d: %s", path, w.Code, w.Body)
		}
		return w.Header().Get("Location")
	}
	if got := post("/lists", "where=https%3A%2F%2Fx.example%2Fl&name=my+list&kind=block&device="); got != "/lists?did=list-added" {
		t.Error(got)
	}
	if got := post("/lists/my%20list/disable", ""); got != "/lists?did=list-disabled" || h.lists[len(h.lists)-1].Enabled {
		t.Error(got)
	}
	if got := post("/lists/my%20list/devices", "device="+url.QueryEscape(string(h.devices[0].ID))); got != "/lists/my%20list?did=list-devices" {
		t.Error(got)
	}
	post("/lists/my%20list/update", "")
	post("/lists/update", "")
	if got := post("/lists/my%20list/remove", ""); got != "/lists?did=list-removed" {
		t.Error(got)
	}
	if w := ask(s.TCP(), "POST", "/lists/ads/explode", asForm, ""); w.Code != 404 {
		t.Errorf("status %d", w.Code)
	}
	if _, err := h.find("my list"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the list is still there")
	}
}
