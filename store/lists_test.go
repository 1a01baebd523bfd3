package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/store"
)

func TestListsOutliveARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir)
	ctx := t.Context()
	ads := store.List{Name: "ads", Source: store.ListFromURL, Address: "https://lists.example/ads.txt", Enabled: true, By: "page"}
	mine := store.List{Name: "my own", Source: store.ListFromFile, Address: "own.txt", Allow: true, Rewrite: true, Enabled: true, Devices: []devices.ID{tv, phone}, By: "cli"}
	must(t, h.AddList(ctx, ads), h.AddList(ctx, mine), h.SetList(ctx, "of the settings", false, nil, "page"), h.SetList(ctx, "ads", false, []devices.ID{tv}, "page"))
	if err := h.AddList(ctx, ads); !errors.Is(err, store.ErrExists) {
		t.Errorf("the same name twice: %v", err)
	}
	h.stop()
	h = open(t, dir)
	all, err := h.Lists(ctx)
	must(t, err)
	for i := range all {
		if all[i].Created.IsZero() {
			t.Errorf("%s was never created", all[i].Name)
		}
		all[i].Created = time.Time{}
	}
	ads.Enabled, ads.Devices = false, []devices.ID{tv}
	equal(t, "lists", all, []store.List{ads, mine, {Name: "of the settings", Source: store.ListFromSettings, By: "page"}})

	gone, err := h.RemoveList(ctx, "my own", "page")
	must(t, err)
	gone.Created = time.Time{}
	equal(t, "what was removed", gone, mine)
	if _, err := h.RemoveList(ctx, "my own", "page"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	changes, err := h.Audit(ctx, 2)
	must(t, err)
	equal(t, "audit", changes[0].What, "list removed: my own")
}

// A list that was for one device alone does not become the whole house's when that
// device is forgotten.
func TestUnlist(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	ctx := t.Context()
	for name, whose := range map[string][]devices.ID{"house": nil, "one": {tv}, "two": {tv, phone}} {
		must(t, h.AddList(ctx, store.List{Name: name, Source: store.ListFromURL, Address: "https://x.example", Enabled: true, Devices: whose}))
	}
	must(t, h.Unlist(ctx, tv))
	all, err := h.Lists(ctx)
	must(t, err)
	got := map[string]string{}
	for _, l := range all {
		got[l.Name] = fmt.Sprint(l.Enabled, l.Devices)
	}
	equal(t, "lists", got, map[string]string{"house": "true []", "one": "false []", "two": fmt.Sprint(true, []devices.ID{phone})})
}

func TestListsAreBounded(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	ctx := t.Context()
	for _, name := range []string{"", "a/b", "..", " x", "tab\t", strings.Repeat("x", 65), "\xff"} {
		if err := h.AddList(ctx, store.List{Name: name, Source: store.ListFromURL, Address: "https://x.example"}); err == nil {
			t.Errorf("the name %q is kept", name)
		}
	}
	if err := h.AddList(ctx, store.List{Name: "long", Source: store.ListFromURL, Address: strings.Repeat("x", 3000)}); err == nil {
		t.Error("an address of 3,000 octets is kept")
	}
	for i := range 64 {
		must(t, h.AddList(ctx, store.List{Name: fmt.Sprint(i), Source: store.ListFromURL, Address: "https://x.example"}))
	}
	if err := h.AddList(ctx, store.List{Name: "one more", Source: store.ListFromURL, Address: "https://x.example"}); !errors.Is(err, store.ErrTooMany) {
		t.Errorf("the 65th list: %v", err)
	}
}

func TestHowListsFareOutlivesARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir)
	ctx := t.Context()
	at := time.UnixMilli(1_790_000_000_000)
	want := map[string]store.ListState{
		"ads":    {Success: at, Hits: 12, Hit: at.Add(time.Minute)},
		"broken": {Failure: at, Error: "the server answered 503"},
	}
	must(t, h.KeepListStates(ctx, map[string]store.ListState{"gone": {Hits: 1}}), h.KeepListStates(ctx, want))
	h.stop()
	h = open(t, dir)
	got, err := h.ListStates(ctx)
	must(t, err)
	equal(t, "states", got, want)
}

func TestEgressAddsUpAndEnds(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	ctx := t.Context()
	now := h.cfg.Now()
	must(t,
		h.AddEgress(ctx, []store.Egress{{What: "list ads", Host: "lists.example", Requests: 1, Bytes: 100, First: now, Last: now}}),
		h.AddEgress(ctx, []store.Egress{{What: "list ads", Host: "lists.example", Requests: 2, Bytes: 50, First: now.Add(time.Hour), Last: now.Add(time.Hour)}}),
		h.AddEgress(ctx, []store.Egress{{What: "list old", Host: "old.example", Requests: 1, First: now.Add(-100 * 24 * time.Hour), Last: now.Add(-91 * 24 * time.Hour)}}),
	)
	got, err := h.Egress(ctx)
	must(t, err)
	equal(t, "egress", got, []store.Egress{{
		What: "list ads", Host: "lists.example", Requests: 3, Bytes: 150,
		First: now.Truncate(time.Millisecond), Last: now.Add(time.Hour).Truncate(time.Millisecond),
	}})
}
