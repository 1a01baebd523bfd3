package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/netcurtain/netcurtain/ui/api"
)

// listsCmd is everything about lists; alone it shows them.
type listsCmd struct {
	All       listsAllCmd       `cmd:"" default:"withargs" help:"Show the lists and how they fare; what lists alone does."`
	Catalogue listsCatalogueCmd `cmd:"" help:"Show well-known public lists that can be added by name."`
	Add       listsAddCmd       `cmd:"" help:"Add a list: an address, a file, or a name of the catalogue."`
	Remove    listsRemoveCmd    `cmd:"" help:"Remove a list; says how to get it back."`
	Enable    listsEnableCmd    `cmd:"" help:"Use a list again."`
	Disable   listsDisableCmd   `cmd:"" help:"Keep a list and use it no more."`
	Devices   listsDevicesCmd   `cmd:"" help:"Say which devices use a list."`
	Update    listsUpdateCmd    `cmd:"" help:"Ask for lists now and show how it goes."`
	Show      listsShowCmd      `cmd:"" help:"Show one list: overlap, lines not understood, errors."`
	Test      listsTestCmd      `cmd:"" help:"Fetch and read a list without adding it."`
}

func (listsCmd) Help() string {
	return `Examples:
  netcurtain lists
  netcurtain lists add hagezi-light
  netcurtain lists add https://lists.example/ads.txt --name ads --device childs-tablet
  netcurtain lists update ads
  netcurtain why ads.example.com`
}

type listsAllCmd struct {
	socketFlag
	jsonFlag
}

func (listsAllCmd) Help() string { return "Examples:\n  netcurtain lists\n  netcurtain lists --json" }

func (c listsAllCmd) Run(ctx context.Context, io std) error {
	var all api.Lists
	if err := c.get(ctx, "/api/v1/lists", nil, &all); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(io.out, all)
	}
	names, err := c.names(ctx)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "LIST\tKIND\tSTATE\tRULES\tONLY HERE\tHITS\tLAST HIT\tLAST HAD\tFOR\tOF")
	for _, l := range all.Lists {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n", clean(l.Name), l.Kind, listState(l), l.Rules, l.Unique, l.Hits,
			day(l.LastHit), day(l.Success), clean(whose(l.Devices, names)), l.Owner)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, l := range all.Lists {
		if l.Unfit != "" {
			fmt.Fprintf(io.out, "%s: %s\n", clean(l.Name), clean(l.Unfit))
		}
		if l.LastError != "" {
			fmt.Fprintf(io.out, "%s: %s; the old one stays\n", clean(l.Name), clean(l.LastError))
		}
	}
	return nil
}

// listState says how a list is in a word or two.
func listState(l api.List) string {
	switch {
	case l.Shadowed:
		return "not used"
	case !l.Enabled:
		return "disabled"
	case l.Doing != "":
		return l.Doing
	case l.LastError != "":
		return "failing"
	case l.Using != "":
		return "smaller one"
	case l.Unfit != "":
		return "no room"
	case l.Pending:
		return "not here yet"
	}
	return "in use"
}

func day(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.Local().Format("2 Jan 15:04")
}

func whose(ids []string, names map[string]string) string {
	if len(ids) == 0 {
		return "the house"
	}
	var out []string
	for _, id := range ids {
		out = append(out, cmp.Or(names[id], id))
	}
	return strings.Join(out, ", ")
}

type listsCatalogueCmd struct {
	socketFlag
	jsonFlag
}

func (listsCatalogueCmd) Help() string {
	return "None of them is part of Netcurtain: each is fetched from its maker, under its maker's licence.\n\nExamples:\n  netcurtain lists catalogue\n  netcurtain lists catalogue --json"
}

func (c listsCatalogueCmd) Run(ctx context.Context, io std) error {
	var all api.Catalogue
	if err := c.get(ctx, "/api/v1/catalogue", nil, &all); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(io.out, all)
	}
	t := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSIZE\tABOUT\tLICENCE\tSMART\tADDED\tFOR")
	for _, p := range all.Lists {
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", p.Name, p.Size, p.Rules, p.Licence, yesNo(p.Smart), yesNo(p.Added), p.For)
	}
	return t.Flush()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "-"
}

type listsAddCmd struct {
	socketFlag
	Source   string   `arg:"" help:"An https address, a file below the lists folder, or a name of the catalogue."`
	Name     string   `help:"What to call it; of an address or file its last part when left out."`
	Allow    bool     `help:"Its rules allow."`
	Device   []string `help:"Only for this device: name, address or ID; repeat it for more." sep:"none"`
	Insecure bool     `help:"Let it come over http, though anybody on the way may change it."`
	Rewrite  bool     `help:"Let its rules answer with other addresses than the name's own; a file may in any case."`
}

func (listsAddCmd) Help() string {
	return `A file lies in the folder lists below the state folder (/etc/netcurtain/lists), where nothing but files is read: no link, no "..".

Examples:
  netcurtain lists add hagezi-light
  netcurtain lists add https://lists.example/ads.txt --name ads
  netcurtain lists add own.txt --allow
  netcurtain lists add perflyst-smart-tv --device living-room-tv --device bedroom-tv`
}

func (c listsAddCmd) Run(ctx context.Context, io std) error {
	n, err := c.body(ctx)
	if err != nil {
		return err
	}
	var made api.List
	if err := c.post(ctx, "/api/v1/lists", n, &made); err != nil {
		return err
	}
	fmt.Fprintf(io.err, "list %s is added\n", clean(made.Name))
	return c.follow(ctx, io.err, []string{made.Name})
}

// body is what to add. An address says what it is, the catalogue knows its names,
// all else is a file.
func (c listsAddCmd) body(ctx context.Context) (api.NewList, error) {
	n, err := c.source(ctx, c.Source)
	n.Name, n.Insecure, n.Rewrite, n.Devices = c.Name, c.Insecure, c.Rewrite, c.Device
	if c.Allow {
		n.Kind = "allow"
	}
	if n.Name == "" && n.Catalogue == "" {
		n.Name = shortName(c.Source)
	}
	return n, err
}

func (f socketFlag) source(ctx context.Context, text string) (n api.NewList, err error) {
	if strings.Contains(text, "://") {
		n.URL = text
		return n, nil
	}
	var known api.Catalogue
	if err := f.get(ctx, "/api/v1/catalogue", nil, &known); err != nil {
		return n, err
	}
	if slices.ContainsFunc(known.Lists, func(p api.PublicList) bool { return p.Name == text }) {
		n.Catalogue = text
	} else {
		n.File = text
	}
	return n, nil
}

// shortName is what a list is called when nobody says.
func shortName(source string) string {
	name := source
	if u, err := url.Parse(source); err == nil && u.Host != "" {
		if name = path.Base(u.Path); name == "." || name == "/" {
			name = u.Hostname()
		}
	}
	name = filepath.Base(name)
	return strings.TrimSuffix(name, filepath.Ext(name))
}

// listPath is where the API keeps a list.
func listPath(name string) (string, error) {
	if name == "" || name == "." || name == ".." {
		return "", usageError{"the name of a list is needed; netcurtain lists shows them"}
	}
	return "/api/v1/lists/" + url.PathEscape(name), nil
}

type listFlag struct {
	socketFlag
	Name string `arg:"" help:"Name of the list."`
}

func (f listFlag) set(ctx context.Context, change api.SetList) error {
	at, err := listPath(f.Name)
	if err != nil {
		return err
	}
	return f.post(ctx, at, change, nil)
}

type listsRemoveCmd struct{ listFlag }

func (listsRemoveCmd) Help() string { return "Example:\n  netcurtain lists remove ads" }

func (c listsRemoveCmd) Run(ctx context.Context, io std) error {
	at, err := listPath(c.Name)
	if err != nil {
		return err
	}
	var done api.RemovedList
	if err := c.call(ctx, http.MethodDelete, at, nil, struct{}{}, &done); err != nil {
		return err
	}
	fmt.Fprintf(io.err, "list %s is removed; to have it back: %s\n", clean(c.Name), clean(done.Undo))
	return nil
}

type listsEnableCmd struct{ listFlag }

func (listsEnableCmd) Help() string { return "Example:\n  netcurtain lists enable ads" }

func (c listsEnableCmd) Run(ctx context.Context) error {
	on := true
	return c.set(ctx, api.SetList{Enabled: &on})
}

type listsDisableCmd struct{ listFlag }

func (listsDisableCmd) Help() string {
	return "What this box has of the list stays, so that it is there at once when it is enabled again.\n\nExample:\n  netcurtain lists disable ads"
}

func (c listsDisableCmd) Run(ctx context.Context) error {
	on := false
	return c.set(ctx, api.SetList{Enabled: &on})
}

type listsDevicesCmd struct {
	listFlag
	Device []string `arg:"" optional:"" help:"Devices by name, address or ID; none is the whole house."`
}

func (listsDevicesCmd) Help() string {
	return "Examples:\n  netcurtain lists devices ads living-room-tv childs-tablet\n  netcurtain lists devices ads    (the whole house again)"
}

func (c listsDevicesCmd) Run(ctx context.Context) error {
	whose := append([]string{}, c.Device...)
	return c.set(ctx, api.SetList{Devices: &whose})
}

type listsUpdateCmd struct {
	socketFlag
	Name []string `arg:"" optional:"" help:"Lists to ask for; all when none is named."`
}

func (listsUpdateCmd) Help() string {
	return "Exit code 1 when a list could not be had; its old rules stay.\n\nExamples:\n  netcurtain lists update\n  netcurtain lists update ads"
}

func (c listsUpdateCmd) Run(ctx context.Context, io std) error {
	if err := c.post(ctx, "/api/v1/lists/update", api.UpdateLists{Names: c.Name}, nil); err != nil {
		return err
	}
	return c.follow(ctx, io.err, c.Name)
}

// follow shows how lists are fetched until all of them are had or have failed.
func (f socketFlag) follow(ctx context.Context, talk io.Writer, names []string) error {
	said := map[string]string{}
	wait := time.NewTicker(300 * time.Millisecond)
	defer wait.Stop()
	for {
		var all api.Lists
		if err := f.get(ctx, "/api/v1/lists", nil, &all); err != nil {
			return err
		}
		busy := false
		var failed []string
		for _, l := range all.Lists {
			if len(names) > 0 && !slices.Contains(names, l.Name) || !l.Enabled {
				continue
			}
			busy = busy || l.Doing != "" || l.Pending && l.LastError == "" && l.Unfit == ""
			if text := progress(l); text != said[l.Name] {
				fmt.Fprintf(talk, "%s: %s\n", clean(l.Name), clean(text))
				said[l.Name] = text
			}
			if l.LastError != "" {
				failed = append(failed, l.Name)
			}
		}
		switch {
		case busy:
		case len(failed) > 0:
			return fmt.Errorf("not had: %s; what was there before stays", clean(strings.Join(failed, ", ")))
		default:
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-wait.C:
		}
	}
}

// progress says how it goes with one list; of a download each megabyte.
func progress(l api.List) string {
	switch {
	case l.Doing == "downloading" && l.Of > 0:
		return fmt.Sprintf("downloading, %d of %s", l.Bytes/1_000_000, human(l.Of))
	case l.Doing == "downloading" && l.Bytes >= 1_000_000:
		return fmt.Sprintf("downloading, %d MB", l.Bytes/1_000_000)
	case l.Doing != "":
		return l.Doing
	case l.LastError != "":
		return l.LastError
	case l.Unfit != "":
		return l.Unfit
	case l.Pending:
		return "not here yet"
	}
	return fmt.Sprintf("%d rules", l.Rules)
}

type listsShowCmd struct {
	listFlag
	jsonFlag
}

func (listsShowCmd) Help() string {
	return "Examples:\n  netcurtain lists show ads\n  netcurtain lists show ads --json"
}

func (c listsShowCmd) Run(ctx context.Context, io std) error {
	at, err := listPath(c.Name)
	if err != nil {
		return err
	}
	var l api.ListDetail
	if err := c.get(ctx, at, nil, &l); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(io.out, l)
	}
	names, err := c.names(ctx)
	if err != nil {
		return err
	}
	row := func(what, text string) {
		if text != "" {
			fmt.Fprintf(io.out, "%-14s %s\n", what, clean(text))
		}
	}
	row("list", l.Name)
	row("kind", l.Kind)
	row("of", l.Owner)
	row("from", strings.TrimSpace(l.Source+" "+l.Address))
	row("licence", l.Licence)
	row("state", listState(l.List))
	row("", l.Unfit)
	row("for", whose(l.Devices, names))
	row("rules", fmt.Sprintf("%d, %d of them on no other list here", l.Rules, l.Unique))
	row("hits", fmt.Sprintf("%d, the last %s", l.Hits, day(l.LastHit)))
	row("last had", day(l.Success))
	if l.LastError != "" {
		row("failing since", day(l.Failing)+": "+l.LastError+"; the old one stays")
	}
	if l.Next != nil {
		row("asked again", day(l.Next))
	}
	for _, o := range l.Overlap {
		row("in common", fmt.Sprintf("%d with %s", o.Shared, o.List))
	}
	if l.Rejected > 0 {
		row("not understood", fmt.Sprintf("%d lines", l.Rejected))
		for _, r := range l.Rejects {
			fmt.Fprintf(io.out, "  %s\n", clean(r))
		}
	}
	return nil
}

type listsTestCmd struct {
	socketFlag
	jsonFlag
	Source   string `arg:"" help:"An https address, a file below the lists folder, or a name of the catalogue."`
	Insecure bool   `help:"Let it come over http."`
}

func (listsTestCmd) Help() string {
	return `Says what a list holds, what of it is not understood, and which names that devices asked for lately it would block.

Examples:
  netcurtain lists test https://lists.example/ads.txt
  netcurtain lists test own.txt --json`
}

func (c listsTestCmd) Run(ctx context.Context, io std) error {
	n, err := c.source(ctx, c.Source)
	if err != nil {
		return err
	}
	n.Insecure = c.Insecure
	var got api.ListTrial
	if err := c.patient().post(ctx, "/api/v1/lists/test", n, &got); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(io.out, got)
	}
	fmt.Fprintf(io.out, "%d rules in %d lines, %s; %d lines not understood\n", got.Rules, got.Lines, human(got.Bytes), got.Rejected)
	for _, r := range got.Rejects {
		fmt.Fprintf(io.out, "  %s\n", clean(r))
	}
	fmt.Fprintf(io.out, "of %d names asked for lately it would newly block %d\n", got.Asked, len(got.Blocks))
	for _, b := range got.Blocks {
		fmt.Fprintf(io.out, "  %s  by %s\n", clean(b.Name), clean(b.Rule))
	}
	return nil
}

type whyCmd struct {
	socketFlag
	jsonFlag
	Name   string `arg:"" help:"Domain name."`
	Device string `help:"Asked by this device: name, address or ID." placeholder:"DEVICE"`
	Type   string `default:"A" help:"The DNS type that is asked for."`
	Answer string `help:"And if it leads to this address?" placeholder:"ADDRESS"`
}

func (whyCmd) Help() string {
	return `Tells every rule that covers a name, in the order in which they are asked, which one decides, and what would change it.

Examples:
  netcurtain why ads.example.com
  netcurtain why ads.example.com --device living-room-tv --type AAAA
  netcurtain why nas.example.com --answer 192.168.1.5`
}

func (c whyCmd) Run(ctx context.Context, io std) error {
	q := url.Values{"name": {c.Name}, "type": {c.Type}}
	if c.Device != "" {
		q.Set("device", c.Device)
	}
	if c.Answer != "" {
		q.Set("answer", c.Answer)
	}
	var why api.Why
	if err := c.get(ctx, "/api/v1/why", q, &why); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(io.out, why)
	}
	names := map[string]string{}
	if slices.ContainsFunc(why.Steps, func(s api.Step) bool { return s.Device != "" }) {
		var err error
		if names, err = c.names(ctx); err != nil {
			return err
		}
	}
	outcome := map[string]string{"none": "allowed: no rule speaks", "allow": "allowed", "block": "blocked", "rewrite": "answered otherwise"}[why.Verdict]
	if why.Noted {
		outcome = "allowed, for the device is only watched; it would be blocked"
	}
	fmt.Fprintf(io.out, "%s %s: %s\n", clean(why.Name), why.Type, outcome)
	t := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
	for _, s := range why.Steps {
		of := s.List
		if s.Device != "" {
			of += " for " + cmp.Or(names[s.Device], s.Device)
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", s.Action, clean(s.Rule), clean(of), s.Means)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, ch := range why.Changes {
		fmt.Fprintf(io.out, "to change it: %s\n              %s\n", clean(ch.Command), clean(ch.Means))
	}
	return nil
}
