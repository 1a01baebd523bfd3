package ui

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/ui/api"
)

// ListBook keeps the lists. Errors that wrap fs.ErrNotExist say that there is no such
// list, a Mistake what a person did wrong.
type ListBook interface {
	Lists(ctx context.Context) (api.Lists, error)
	List(ctx context.Context, name string) (api.ListDetail, error)
	Catalogue(ctx context.Context) ([]api.PublicList, error)
	// AddList adds a list for the devices of whose, or the house when there are none.
	AddList(ctx context.Context, n api.NewList, whose []devices.ID) (api.List, error)
	// RemoveList says which command adds the list again.
	RemoveList(ctx context.Context, name string) (undo string, err error)
	// SetList changes what is not nil.
	SetList(ctx context.Context, name string, enabled *bool, whose *[]devices.ID) error
	// UpdateLists fetches lists soon; it does not wait.
	UpdateLists(ctx context.Context, names []string) error
	TestList(ctx context.Context, n api.NewList) (api.ListTrial, error)
	// Explain says what is decided of q and why; q lacks what only the house knows of
	// a device. It counts nothing.
	Explain(q policy.Query) []policy.Step
	Egress(ctx context.Context) ([]api.Egress, error)
}

// Mistake is what a person did wrong, and what would be right.
type Mistake struct{ Text string }

func (m Mistake) Error() string { return m.Text }

func (s *Server) listRoutes() []route {
	return []route{
		{"GET", "/api/v1/lists", s.answer(s.getLists)},
		{"GET", "/api/v1/lists/{name}", s.answer(s.getList)},
		{"GET", "/api/v1/catalogue", s.answer(s.getCatalogue)},
		{"GET", "/api/v1/egress", s.answer(s.getEgress)},
		{"GET", "/api/v1/why", s.answer(s.getWhy)},
		{"POST", "/api/v1/lists", s.answer(s.postList)},
		{"POST", "/api/v1/lists/{name}", s.answer(s.postSetList)},
		{"POST", "/api/v1/lists/update", s.answer(s.postUpdateLists)},
		{"POST", "/api/v1/lists/test", s.slow(s.answer(s.postTestList))},
		{"DELETE", "/api/v1/lists/{name}", s.answer(s.deleteList)},
	}
}

func (s *Server) listPages() []route {
	return []route{
		{"GET", "/lists", s.page("lists", s.listsPage)},
		{"GET", "/lists/{name}", s.page("list", s.listPage)},
		{"GET", "/why", s.page("why", s.whyPage)},
		{"POST", "/lists", s.form(s.formAddList)},
		{"POST", "/lists/update", s.form(s.formUpdateLists)},
		{"POST", "/lists/{name}/{what}", s.form(s.formList)},
	}
}

// slowAnswer is how long fetching a list for a trial may take.
const slowAnswer = 5 * time.Minute

// slow gives a handler more time than the others have.
func (s *Server) slow(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(slowAnswer)) // else it is cut short, as told
		ctx, cancel := context.WithTimeout(r.Context(), slowAnswer-5*time.Second)
		defer cancel()
		h(w, r.WithContext(ctx))
	}
}

func (s *Server) getLists(r *http.Request) (any, error) { return s.cfg.House.Lists(r.Context()) }

func (s *Server) getList(r *http.Request) (any, error) {
	return s.cfg.House.List(r.Context(), r.PathValue("name"))
}

func (s *Server) getCatalogue(r *http.Request) (any, error) {
	all, err := s.cfg.House.Catalogue(r.Context())
	return api.Catalogue{Lists: orEmpty(all)}, err
}

func (s *Server) getEgress(r *http.Request) (any, error) {
	all, err := s.cfg.House.Egress(r.Context())
	return api.EgressList{Egress: orEmpty(all)}, err
}

func (s *Server) postList(r *http.Request) (any, error) {
	var body api.NewList
	if err := read(r, &body); err != nil {
		return nil, err
	}
	return s.addList(r.Context(), body)
}

func (s *Server) addList(ctx context.Context, n api.NewList) (any, error) {
	if err := checkNewList(n); err != nil {
		return nil, err
	}
	whose, err := s.findAll(n.Devices)
	if err != nil {
		return nil, err
	}
	made, err := s.cfg.House.AddList(ctx, n, whose)
	return made, err
}

func checkNewList(n api.NewList) error {
	given := 0
	for _, v := range []string{n.URL, n.File, n.Catalogue} {
		if v != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return badRequest("exactly one of url, file and catalogue is needed")
	case n.Kind != "" && n.Kind != "block" && n.Kind != "allow":
		return badRequest("kind %.20q: block or allow is needed", n.Kind)
	}
	return nil
}

// findAll resolves what a person calls some devices.
func (s *Server) findAll(refs []string) ([]devices.ID, error) {
	ids := []devices.ID{}
	for _, ref := range refs {
		d, err := s.find(ref)
		if err != nil {
			return nil, err
		}
		ids = append(ids, d.ID)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

func (s *Server) postSetList(r *http.Request) (any, error) {
	var body api.SetList
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if body.Enabled == nil && body.Devices == nil {
		return nil, badRequest(`{"enabled":false} or {"devices":["tv"]} is needed`)
	}
	return s.setList(r, r.PathValue("name"), body)
}

func (s *Server) setList(r *http.Request, name string, c api.SetList) (any, error) {
	var whose *[]devices.ID
	if c.Devices != nil {
		ids, err := s.findAll(*c.Devices)
		if err != nil {
			return nil, err
		}
		whose = &ids
	}
	return api.Done{OK: true}, s.cfg.House.SetList(r.Context(), name, c.Enabled, whose)
}

func (s *Server) postUpdateLists(r *http.Request) (any, error) {
	var body api.UpdateLists
	if err := read(r, &body); err != nil {
		return nil, err
	}
	return api.Done{OK: true}, s.cfg.House.UpdateLists(r.Context(), body.Names)
}

func (s *Server) postTestList(r *http.Request) (any, error) {
	var body api.NewList
	err := read(r, &body)
	if err == nil {
		err = checkNewList(body)
	}
	if err != nil {
		return nil, err
	}
	return s.cfg.House.TestList(r.Context(), body)
}

func (s *Server) deleteList(r *http.Request) (any, error) {
	undo, err := s.cfg.House.RemoveList(r.Context(), r.PathValue("name"))
	return api.RemovedList{OK: err == nil, Undo: undo}, err
}

// Pages.

type listsView struct {
	Lists     []api.List
	Most      int
	Folder    string
	Catalogue []api.PublicList // not added yet
	Devices   []api.Device
	Names     map[string]string
	Busy      bool // something is done with a list right now
}

func (s *Server) listsPage(r *http.Request) (view, error) {
	all, err := s.cfg.House.Lists(r.Context())
	if err != nil {
		return view{}, err
	}
	public, err := s.cfg.House.Catalogue(r.Context())
	if err != nil {
		return view{}, err
	}
	v := listsView{Lists: all.Lists, Most: all.Most, Folder: all.Folder}
	v.Busy = slices.ContainsFunc(v.Lists, func(l api.List) bool { return l.Doing != "" })
	v.Catalogue = slices.DeleteFunc(public, func(p api.PublicList) bool { return p.Added })
	slices.SortStableFunc(v.Catalogue, func(a, b api.PublicList) int { return cmp.Compare(b2i(b.Smart), b2i(a.Smart)) })
	v.Devices, v.Names = s.deviceNames()
	return view{Title: "Lists", Here: "lists", Page: v}, nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

type listView struct {
	api.ListDetail
	AllDevices []api.Device
	Names      map[string]string
}

func (s *Server) listPage(r *http.Request) (view, error) {
	one, err := s.cfg.House.List(r.Context(), r.PathValue("name"))
	if err != nil {
		return view{}, err
	}
	v := listView{ListDetail: one}
	v.AllDevices, v.Names = s.deviceNames()
	return view{Title: show(one.Name), Here: "lists", Page: v}, nil
}

func listURL(name string) string { return "/lists/" + url.PathEscape(name) }

func (s *Server) formAddList(r *http.Request) (string, string, error) {
	f := r.PostForm
	n := api.NewList{Name: strings.TrimSpace(f.Get("name")), Catalogue: f.Get("catalogue"), Kind: f.Get("kind"), Devices: f["device"]}
	if where := strings.TrimSpace(f.Get("where")); strings.Contains(where, "://") {
		n.URL = where
	} else {
		n.File = where
	}
	n.Devices = slices.DeleteFunc(n.Devices, func(d string) bool { return d == "" })
	_, err := s.addList(r.Context(), n)
	return "/lists", "list-added", err
}

func (s *Server) formUpdateLists(r *http.Request) (string, string, error) {
	return "/lists", "list-updating", s.cfg.House.UpdateLists(r.Context(), nil)
}

// formList is what the buttons beside a list do.
func (s *Server) formList(r *http.Request) (string, string, error) {
	name, f := r.PathValue("name"), r.PostForm
	switch what := r.PathValue("what"); what {
	case "enable", "disable":
		on := what == "enable"
		_, err := s.setList(r, name, api.SetList{Enabled: &on})
		return "/lists", "list-" + what + "d", err
	case "devices":
		whose := slices.DeleteFunc(f["device"], func(d string) bool { return d == "" })
		_, err := s.setList(r, name, api.SetList{Devices: &whose})
		return listURL(name), "list-devices", err
	case "update":
		return "/lists", "list-updating", s.cfg.House.UpdateLists(r.Context(), []string{name})
	case "remove":
		_, err := s.cfg.House.RemoveList(r.Context(), name)
		return "/lists", "list-removed", err
	}
	return "", "", &failure{http.StatusNotFound, "there is no such page"}
}
