package main

// The household's lists: what it chose, what the settings file says and what the
// keeper has, put together.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/netcurtain/netcurtain/configs"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/lists"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/policy/blocklist"
	"github.com/netcurtain/netcurtain/store"
	"github.com/netcurtain/netcurtain/ui"
	"github.com/netcurtain/netcurtain/ui/api"
)

// listed is one list as the house has it.
type listed struct {
	store.List
	owner    string             // as the API says it
	shadowed bool               // the settings file has one of this name
	surplus  bool               // there are more than an index can hold
	public   configs.PublicList // of the catalogue
	source   lists.Source       // "" as its Name when it is not to be kept
}

// listed are all lists: ours, the administrator's, the household's.
func (d *daemon) listed(ctx context.Context) ([]listed, error) {
	kept, err := d.store.Lists(ctx)
	if err != nil {
		return nil, err
	}
	word := map[string]store.List{} // the household's, on lists that are not its own
	for _, l := range kept {
		if l.Source == store.ListFromSettings {
			word[l.Name] = l
		}
	}
	owned := func(l listed, enabled bool) listed {
		l.Enabled = enabled
		if w, ok := word[l.Name]; ok {
			l.Enabled, l.Devices = w.Enabled, w.Devices
		}
		return l
	}
	all := []listed{owned(listed{
		List: store.List{Name: configs.StarterName}, owner: "netcurtain",
		source: lists.Source{Name: configs.StarterName, Text: configs.Starter},
	}, true)}
	for _, l := range d.settings.Load().Lists {
		one := store.List{Name: l.Name, Source: store.ListFromURL, Address: l.URL, Allow: l.Allow, Insecure: l.Insecure, Rewrite: l.Rewrite || l.File != ""}
		if l.File != "" {
			one.Source, one.Address = store.ListFromFile, l.File
		}
		all = append(all, owned(listed{
			List: one, owner: "administrator",
			source: lists.Source{Name: l.Name, Allow: l.Allow, URL: l.URL, File: l.File, AllowHTTP: l.Insecure},
		}, l.Enabled))
	}
	for _, l := range kept {
		if l.Source == store.ListFromSettings {
			continue
		}
		one := listed{List: l, owner: "household"}
		if one.shadowed = slices.ContainsFunc(all, func(o listed) bool { return o.Name == l.Name }); !one.shadowed {
			one.source = lists.Source{Name: l.Name, Allow: l.Allow, AllowHTTP: l.Insecure}
			switch l.Source {
			case store.ListFromFile:
				one.source.File = l.Address
			case store.ListFromCatalogue:
				d.fromCatalogue(&one)
			default:
				one.source.URL = l.Address
			}
		}
		all = append(all, one)
	}
	n := 0
	for i := range all {
		l := &all[i]
		if l.source.Disabled = !l.Enabled; l.source.Name != "" {
			n++
		}
		if l.surplus = n > blocklist.MaxLists && l.owner == "household"; l.surplus {
			l.source = lists.Source{}
		}
	}
	return all, nil
}

// fromCatalogue fills in what the catalogue knows. A list that has left it has no
// address any more, which its status says.
func (d *daemon) fromCatalogue(l *listed) {
	l.source.URL = "https://gone.invalid/" + l.Address
	for i, p := range d.catalogue {
		if p.Name != l.Address {
			continue
		}
		l.public = d.catalogue[i]
		l.source.URL, l.source.Rules = p.URL, p.Rules
		for p.Smaller != "" {
			p = d.catalogue[slices.IndexFunc(d.catalogue, func(o configs.PublicList) bool { return o.Name == p.Smaller })]
			l.source.Smaller = append(l.source.Smaller, lists.Smaller{Name: p.Name, URL: p.URL, Rules: p.Rules})
		}
	}
}

// listSources are what the keeper is to keep.
func (d *daemon) listSources(ctx context.Context) ([]lists.Source, error) {
	all, err := d.listed(ctx)
	var out []lists.Source
	for _, l := range all {
		if l.source.Name != "" {
			out = append(out, l.source)
		}
	}
	return out, err
}

// listUse says who uses which lists of an index.
func listUse(all []listed, x *blocklist.Index) *policy.ListUse {
	use := &policy.ListUse{Devices: map[devices.ID]uint64{}}
	if x == nil {
		return use
	}
	for _, l := range all {
		switch bit := x.Mask(l.source.Name); {
		case !l.Enabled || l.source.Name == "":
		case len(l.Devices) == 0:
			use.House |= bit
		default:
			for _, id := range l.Devices {
				use.Devices[id] |= bit
			}
		}
	}
	return use
}

// rewriters is the mask of the lists that may lead the house's look-ups elsewhere: those
// that are files, for the household put them there, and those that it trusts so far.
func rewriters(all []listed, x *blocklist.Index) (mask uint64) {
	for _, l := range all {
		if x != nil && l.Rewrite {
			mask |= x.Mask(l.source.Name)
		}
	}
	return mask
}

// reloadLists brings into force what the household chose about lists.
func (d *daemon) reloadLists(ctx context.Context) error {
	sources, err := d.listSources(ctx)
	if err != nil {
		return err
	}
	// A small box may be compiling: then it follows, and whoever chose need not wait.
	soon, cancel := context.WithTimeout(ctx, reloadWait)
	defer cancel()
	if err := d.keeper.Reload(soon, sources); err != nil && (ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded)) {
		return err
	}
	return d.recompile(ctx)
}

// reloadWait is how long a choice about lists may keep its caller.
const reloadWait = 10 * time.Second

// listCounts are what lists did and what they asked outside, until it is written down.
type listCounts struct {
	mu     sync.Mutex // guards all
	hits   map[string]*policy.Hits
	before map[string]store.ListState // as written down
	asked  map[[2]string]store.Egress

	written map[string]store.ListState // of writeListCounts alone
}

// of gives each list of an index its counter.
func (c *listCounts) of(x *blocklist.Index) map[string]*policy.Hits {
	if x == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]*policy.Hits{}
	for _, info := range x.Lists() {
		if c.hits[info.Name] == nil {
			c.hits[info.Name] = new(policy.Hits)
		}
		out[info.Name] = c.hits[info.Name]
	}
	return out
}

// fetched notes a request of ours.
func (c *listCounts) fetched(f lists.Fetch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	what := "list " + f.List
	e := c.asked[[2]string{what, f.Host}]
	if e.Requests == 0 {
		e = store.Egress{What: what, Host: f.Host, First: f.At}
	}
	e.Requests, e.Bytes, e.Last = e.Requests+1, e.Bytes+f.Bytes, f.At
	c.asked[[2]string{what, f.Host}] = e
}

// hitsOf is how often a list decided, since ever.
func (c *listCounts) hitsOf(name string) (n int64, last time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, last = c.before[name].Hits, c.before[name].Hit
	if h := c.hits[name]; h != nil {
		if more, at := h.Count(); more > 0 {
			n, last = n+more, time.Unix(at, 0)
		}
	}
	return n, last
}

// readListCounts reads what was written down before.
func (d *daemon) readListCounts(ctx context.Context) error {
	before, err := d.store.ListStates(ctx)
	d.counts = &listCounts{hits: map[string]*policy.Hits{}, before: before, asked: map[[2]string]store.Egress{}}
	return err
}

// keepListCounts writes down how lists fare: each hour, and when we stop. A look-up
// costs no write.
func (d *daemon) keepListCounts(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			d.writeListCounts(context.WithoutCancel(ctx))
			return nil
		case <-time.After(time.Hour):
		}
		d.writeListCounts(ctx)
	}
}

func (d *daemon) writeListCounts(ctx context.Context) {
	d.counts.mu.Lock()
	var asked []store.Egress
	for _, e := range d.counts.asked {
		asked = append(asked, e)
	}
	clear(d.counts.asked)
	d.counts.mu.Unlock()
	states := map[string]store.ListState{}
	for _, st := range d.keeper.Status() {
		n, last := d.counts.hitsOf(st.Name)
		states[st.Name] = store.ListState{Success: st.LastSuccess, Failure: st.LastFailure, Error: st.LastError, Hits: n, Hit: last}
	}
	var err error
	if !maps.EqualFunc(states, d.counts.written, sameState) { // flash wears
		if err = d.store.KeepListStates(ctx, states); err == nil {
			d.counts.written = states
		}
	}
	if len(asked) > 0 {
		err = errors.Join(err, d.store.AddEgress(ctx, asked))
	}
	if err != nil {
		d.log.Error("writing down how the lists fare", "error", err)
	}
}

func sameState(a, b store.ListState) bool {
	return a.Success.Equal(b.Success) && a.Failure.Equal(b.Failure) && a.Error == b.Error && a.Hits == b.Hits
}

// kept is what the keeper needs to know of before.
func (c *listCounts) kept() map[string]lists.State {
	out := map[string]lists.State{}
	for name, s := range c.before {
		out[name] = lists.State{LastSuccess: s.Success, LastFailure: s.Failure, LastError: s.Error}
	}
	return out
}

var _ ui.ListBook = household{}

func (h household) Lists(ctx context.Context) (api.Lists, error) {
	out := api.Lists{Lists: []api.List{}, Most: blocklist.MaxLists, Folder: h.d.listFolder()}
	all, err := h.d.listed(ctx)
	if err != nil {
		return out, err
	}
	status := map[string]lists.Status{}
	for _, st := range h.d.keeper.Status() {
		status[st.Name] = st
	}
	for _, l := range all {
		out.Lists = append(out.Lists, h.d.toList(l, status[l.source.Name]))
	}
	return out, nil
}

func (d *daemon) toList(l listed, st lists.Status) api.List {
	out := api.List{
		Name: l.Name, Owner: l.owner, Source: cmp.Or(string(l.Source), "built-in"), Address: l.Address, Kind: "block",
		Enabled: l.Enabled, Devices: []string{}, Insecure: l.Insecure, Rewrite: l.Rewrite, Licence: l.public.Licence, Shadowed: l.shadowed,
	}
	if l.Allow {
		out.Kind = "allow"
	}
	for _, id := range l.Devices {
		out.Devices = append(out.Devices, string(id))
	}
	switch {
	case l.surplus:
		out.Unfit = fmt.Sprintf("it is off: there are more than %d lists, remove some", blocklist.MaxLists)
		fallthrough
	case l.shadowed:
		return out
	}
	n, last := d.counts.hitsOf(l.Name)
	out.Rules, out.Unique, out.Rejected, out.Hits, out.LastHit = st.Rules, st.Unique, st.Rejected, n, orNull(last)
	out.Pending, out.Success, out.Failing, out.LastError, out.Next = st.Pending && l.Enabled, orNull(st.LastSuccess), orNull(st.LastFailure), st.LastError, orNull(st.Next)
	out.Using, out.Unfit, out.Doing, out.Bytes, out.Of = st.Using, st.Unfit, st.Doing, st.Bytes, st.Of
	return out
}

// orNull is nil for a time that is not known.
func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (d *daemon) findListed(ctx context.Context, name string) (listed, error) {
	all, err := d.listed(ctx)
	if err != nil {
		return listed{}, err
	}
	for _, l := range all {
		if l.Name == name && !l.shadowed {
			return l, nil
		}
	}
	for _, l := range all {
		if l.Name == name {
			return l, nil
		}
	}
	return listed{}, fmt.Errorf("list %.80q is not known; netcurtain lists shows them: %w", name, fs.ErrNotExist)
}

func (h household) List(ctx context.Context, name string) (api.ListDetail, error) {
	out := api.ListDetail{Overlap: []api.Overlap{}, Rejects: []string{}}
	l, err := h.d.findListed(ctx, name)
	if err != nil {
		return out, err
	}
	var st lists.Status
	for _, s := range h.d.keeper.Status() {
		if s.Name == l.source.Name {
			st = s
		}
	}
	out.List = h.d.toList(l, st)
	for other, n := range st.Shared {
		out.Overlap = append(out.Overlap, api.Overlap{List: other, Shared: n})
	}
	slices.SortFunc(out.Overlap, func(a, b api.Overlap) int {
		return cmp.Or(cmp.Compare(b.Shared, a.Shared), strings.Compare(a.List, b.List))
	})
	for _, r := range st.Rejects {
		out.Rejects = append(out.Rejects, r.String())
	}
	return out, nil
}

func (h household) Catalogue(ctx context.Context) ([]api.PublicList, error) {
	all, err := h.d.listed(ctx)
	if err != nil {
		return nil, err
	}
	var out []api.PublicList
	for _, p := range h.d.catalogue {
		out = append(out, api.PublicList{
			Name: p.Name, URL: p.URL, Licence: p.Licence, Homepage: p.Homepage, Size: p.Size, Rules: p.Rules, Smaller: p.Smaller, Smart: p.Smart, For: p.For,
			Added: slices.ContainsFunc(all, func(l listed) bool { return l.public.Name == p.Name || l.Address == p.URL }),
		})
	}
	return out, nil
}

// newList is what n asks for.
func (d *daemon) newList(n api.NewList) (store.List, error) {
	l := store.List{Name: n.Name, Source: store.ListFromURL, Address: n.URL, Allow: n.Kind == "allow", Insecure: n.Insecure, Rewrite: n.Rewrite || n.File != "", Enabled: true}
	switch {
	case n.File != "":
		l.Source = store.ListFromFile
		l.Address = n.File
		if below, err := filepath.Rel(d.listFolder(), n.File); err == nil && filepath.IsAbs(n.File) && filepath.IsLocal(below) {
			l.Address = below
		}
		if !filepath.IsLocal(l.Address) || filepath.Clean(l.Address) != l.Address {
			return l, ui.Mistake{Text: fmt.Sprintf("file %.80q: list files lie below %s and are called by their name there; copy it: cp FILE %s/", n.File, d.listFolder(), d.listFolder())}
		}
	case n.Catalogue != "":
		if !slices.ContainsFunc(d.catalogue, func(p configs.PublicList) bool { return p.Name == n.Catalogue }) {
			return l, ui.Mistake{Text: fmt.Sprintf("list %.80q is not in the catalogue; netcurtain lists catalogue shows it", n.Catalogue)}
		}
		l.Source, l.Address, l.Name = store.ListFromCatalogue, n.Catalogue, cmp.Or(n.Name, n.Catalogue)
	}
	return l, nil
}

// sourceOf is what the keeper gets of a list that is not kept yet.
func (d *daemon) sourceOf(l store.List) lists.Source {
	one := listed{List: l, source: lists.Source{Name: l.Name, Allow: l.Allow, AllowHTTP: l.Insecure}}
	switch l.Source {
	case store.ListFromFile:
		one.source.File = l.Address
	case store.ListFromCatalogue:
		d.fromCatalogue(&one)
	default:
		one.source.URL = l.Address
	}
	return one.source
}

func (h household) AddList(ctx context.Context, n api.NewList, whose []devices.ID) (api.List, error) {
	l, err := h.d.newList(n)
	if err != nil {
		return api.List{}, err
	}
	if err := store.CheckListName(l.Name); err != nil {
		return api.List{}, ui.Mistake{Text: err.Error()}
	}
	l.By, l.Devices = ui.By(ctx), whose
	all, err := h.d.listed(ctx)
	switch {
	case err != nil:
		return api.List{}, err
	case slices.ContainsFunc(all, func(o listed) bool { return o.Name == l.Name }), slices.Contains([]string{"update", "test"}, l.Name):
		return api.List{}, ui.Mistake{Text: fmt.Sprintf("a list cannot be called %.80q: the name is taken; choose another with --name", l.Name)}
	case len(all) >= blocklist.MaxLists:
		return api.List{}, ui.Mistake{Text: fmt.Sprintf("there are %d lists, and %d are the most: remove one first", len(all), blocklist.MaxLists)}
	}
	if err := h.d.keeper.Check(h.d.sourceOf(l)); err != nil {
		return api.List{}, ui.Mistake{Text: err.Error()}
	}
	if err := h.d.store.AddList(ctx, l); err != nil {
		return api.List{}, err
	}
	h.d.tell("The list “" + l.Name + "” was added.")
	if err := h.d.reloadLists(ctx); err != nil {
		return api.List{}, err
	}
	made, err := h.List(ctx, l.Name)
	return made.List, err
}

// tell notes what the household changed.
func (d *daemon) tell(text string) {
	d.recorder.Record(journal.Entry{At: time.Now(), Event: &journal.Event{Kind: journal.EventHouseholdChange, Text: text}})
}

func (h household) RemoveList(ctx context.Context, name string) (undo string, err error) {
	l, err := h.d.findListed(ctx, name)
	if err != nil {
		return "", err
	}
	kept, err := h.d.store.Lists(ctx)
	if err != nil {
		return "", err
	}
	if !slices.ContainsFunc(kept, func(k store.List) bool { return k.Name == name && k.Source != store.ListFromSettings }) {
		return "", ui.Mistake{Text: fmt.Sprintf("list %.80q is %s and cannot be removed; switch it off with: netcurtain lists disable %s", name,
			map[string]string{"netcurtain": "our starter list", "administrator": "of the settings file"}[l.owner], name)}
	}
	gone, err := h.d.store.RemoveList(ctx, name, ui.By(ctx))
	if err != nil {
		return "", notThere(err)
	}
	h.d.tell("The list “" + name + "” was removed.")
	h.d.counts.forget(name)
	return howToAdd(gone), h.d.reloadLists(ctx)
}

// forget begins a list's count anew.
func (c *listCounts) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.before, name)
	delete(c.hits, name)
}

// howToAdd is the command that adds a list as it was.
func howToAdd(l store.List) string {
	command := "netcurtain lists add " + ui.ShellQuote(l.Address)
	if l.Name != l.Address {
		command += " --name " + ui.ShellQuote(l.Name)
	}
	for _, f := range []struct {
		flag string
		on   bool
	}{{" --allow", l.Allow}, {" --insecure", l.Insecure}, {" --rewrite", l.Rewrite && l.Source != store.ListFromFile}} {
		if f.on {
			command += f.flag
		}
	}
	for _, id := range l.Devices {
		command += " --device " + ui.ShellQuote(string(id))
	}
	return command
}

func (h household) SetList(ctx context.Context, name string, enabled *bool, whose *[]devices.ID) error {
	l, err := h.d.findListed(ctx, name)
	if err != nil {
		return err
	}
	if enabled != nil {
		l.Enabled = *enabled
	}
	if whose != nil {
		l.Devices = *whose
	}
	if err := h.d.store.SetList(ctx, name, l.Enabled, l.Devices, ui.By(ctx)); err != nil {
		return err
	}
	if enabled != nil {
		h.d.tell("The list “" + name + "” was " + map[bool]string{true: "enabled", false: "disabled"}[l.Enabled] + ".")
		return h.d.reloadLists(ctx)
	}
	h.d.tell("Who uses the list “" + name + "” was changed.")
	return h.d.recompile(ctx)
}

func (h household) UpdateLists(ctx context.Context, names []string) error {
	for _, n := range names {
		if l, err := h.d.findListed(ctx, n); err != nil {
			return err
		} else if !l.Enabled {
			return ui.Mistake{Text: fmt.Sprintf("list %.80q is disabled, and so not asked for: netcurtain lists enable %s", n, n)}
		}
	}
	h.d.keeper.Refresh(names...)
	return nil
}

// tried is how many look-ups a list is tried on: as many as one page of the log may have.
const tried = 1000

func (h household) TestList(ctx context.Context, n api.NewList) (api.ListTrial, error) {
	out := api.ListTrial{Rejects: []string{}, Blocks: []api.Covered{}}
	l, err := h.d.newList(n)
	if err != nil {
		return out, err
	}
	rows, err := h.d.store.Lookups(ctx, journal.Filter{Limit: tried})
	if err != nil {
		return out, err
	}
	var names []dnsname.Name
	blocked := map[dnsname.Name]bool{}
	for _, r := range rows {
		if name := dnsname.Name(r.Name); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
			blocked[name] = r.Verdict == policy.Block.String()
		}
	}
	src := h.d.sourceOf(l)
	if err := h.d.keeper.Check(named(src)); err != nil {
		return out, ui.Mistake{Text: err.Error()}
	}
	got, err := h.d.keeper.Try(ctx, src, names)
	out.Rules, out.Lines, out.Bytes, out.Rejected, out.Asked = got.Rules, got.Lines, got.Bytes, got.Rejected, len(names)
	for _, r := range got.Rejects {
		out.Rejects = append(out.Rejects, r.String())
	}
	for _, name := range names {
		if rule, ok := got.Covers[name]; ok && !blocked[name] {
			out.Blocks = append(out.Blocks, api.Covered{Name: string(name), Rule: rule})
		}
	}
	if err != nil {
		return out, ui.Mistake{Text: err.Error()}
	}
	return out, nil
}

func named(s lists.Source) lists.Source {
	s.Name = cmp.Or(s.Name, "the list")
	return s
}

func (h household) Explain(q policy.Query) []policy.Step { return h.d.engine.Explain(q) }

func (h household) Egress(ctx context.Context) ([]api.Egress, error) {
	rows, err := h.d.store.Egress(ctx)
	if err != nil {
		return nil, err
	}
	out := []api.Egress{}
	for _, e := range h.d.counts.andAsked(rows) {
		out = append(out, api.Egress{What: e.What, Host: e.Host, Requests: e.Requests, Bytes: e.Bytes, First: e.First, Last: e.Last})
	}
	return out, nil
}

// andAsked adds what is not written down yet to rows, the newest first.
func (c *listCounts) andAsked(rows []store.Egress) []store.Egress {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, e := range c.asked {
		i := slices.IndexFunc(rows, func(r store.Egress) bool { return r.What == key[0] && r.Host == key[1] })
		if i < 0 {
			rows = append(rows, e)
			continue
		}
		r := &rows[i]
		r.Requests, r.Bytes, r.Last = r.Requests+e.Requests, r.Bytes+e.Bytes, e.Last
	}
	slices.SortStableFunc(rows, func(a, b store.Egress) int { return b.Last.Compare(a.Last) })
	return rows
}

// listFolder is where list files lie.
func (d *daemon) listFolder() string {
	return filepath.Join(d.settings.Load().House.State, "lists")
}

// room is what this box can spare for lists.
func (d *daemon) room() *lists.Room {
	s := d.settings.Load()
	free, ok := memoryFree(os.DirFS("/"))
	if !ok {
		return nil
	}
	flash, inMemory := spaceOf(s.House.State)
	_, scratchInMemory := spaceOf(s.House.Volatile)
	return &lists.Room{Memory: free - keepFree, Flash: flash - flashKept, ScratchInMemory: scratchInMemory, IndexInMemory: inMemory}
}

// What the house keeps when lists take the rest.
const (
	keepFree  = 24 << 20 // of memory, for traffic, look-ups and the other programs
	flashKept = 1 << 20
)
