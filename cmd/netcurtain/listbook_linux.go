package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
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
	src, _ := h.d.sourceOf(l)
	if err := h.d.keeper.Check(src); err != nil {
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
	src, _ := h.d.sourceOf(l)
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
