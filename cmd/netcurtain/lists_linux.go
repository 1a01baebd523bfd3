package main

// The household's lists: what it chose, what the settings file says and what the
// keeper has, put together.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/netcurtain/netcurtain/configs"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/lists"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/policy/blocklist"
	"github.com/netcurtain/netcurtain/store"
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
			one.source, one.public = d.sourceOf(l)
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

// sourceOf is a list of the household's as the keeper gets it, and what the catalogue
// says of it. One that has left the catalogue has no address any more, which its status
// says.
func (d *daemon) sourceOf(l store.List) (s lists.Source, public configs.PublicList) {
	s = lists.Source{Name: l.Name, Allow: l.Allow, AllowHTTP: l.Insecure}
	switch l.Source {
	case store.ListFromFile:
		s.File = l.Address
	case store.ListFromCatalogue:
		public = d.inCatalogue(l.Address)
		s.URL, s.Rules = cmp.Or(public.URL, "https://gone.invalid/"+l.Address), public.Rules
		for p := public; p.Smaller != ""; {
			p = d.inCatalogue(p.Smaller)
			s.Smaller = append(s.Smaller, lists.Smaller{Name: p.Name, URL: p.URL, Rules: p.Rules})
		}
	default:
		s.URL = l.Address
	}
	return s, public
}

// inCatalogue is the public list of that name; the zero one where there is none.
func (d *daemon) inCatalogue(name string) configs.PublicList {
	i := slices.IndexFunc(d.catalogue, func(p configs.PublicList) bool { return p.Name == name })
	if i < 0 {
		return configs.PublicList{}
	}
	return d.catalogue[i]
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

// tell notes what the household changed.
func (d *daemon) tell(text string) {
	d.recorder.Record(journal.Entry{At: time.Now(), Event: &journal.Event{Kind: journal.EventHouseholdChange, Text: text}})
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
