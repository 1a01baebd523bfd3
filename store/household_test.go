package store_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/store"
	"github.com/netcurtain/netcurtain/store/storetest"
)

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestChoicesOutliveARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir)
	ctx := t.Context()
	must(t,
		h.SetName(ctx, tv, "  Télévision <b>  ", "page"),
		h.SetKind(ctx, tv, devices.KindTV, "page"),
		h.SetMode(ctx, tv, devices.ModeGuard, "cli"),
		h.SetLog(ctx, tv, devices.LogCounts, "page"), // the zero level, and yet a choice
		h.SetMode(ctx, phone, devices.ModeOff, "page"),
		h.SetCarry(ctx, tv, true, "cli"),
		h.SetStrip(ctx, tv, true, "api"),
		h.SetStrip(ctx, phone, true, "page"),
		h.SetStrip(ctx, phone, false, "page"),
		h.SetName(ctx, "gone", "Gone", "page"),
		h.Unchoose(ctx, "gone", "page"),
		h.Switch(ctx, false, "cli"),
	)
	h.stop()
	h = open(t, dir)
	choices, err := h.Choices(ctx)
	must(t, err)
	counts := devices.LogCounts
	equal(t, "choices", choices, map[devices.ID]devices.Choice{
		tv:    {Name: "Télévision <b>", Kind: devices.KindTV, Mode: devices.ModeGuard, Log: &counts, CarryEncrypted: true, StripTracking: true},
		phone: {Mode: devices.ModeOff},
	})
	if on, err := h.On(ctx); err != nil || on {
		t.Errorf("the house is on (%v, %v), though it was switched off", on, err)
	}
	must(t, h.Switch(ctx, true, "cli"), h.SetMode(ctx, tv, devices.ModeUnset, "page"))
	if on, err := h.On(ctx); err != nil || !on {
		t.Errorf("the house is off (%v, %v), though it was switched on", on, err)
	}
	changes, err := h.Audit(ctx, 100)
	must(t, err)
	var audit []string
	for _, c := range changes {
		audit = append(audit, fmt.Sprintf("%s %s %s", c.By, c.Device, c.What))
	}
	equal(t, "audit", audit, []string{
		"page 02:00:5e:10:00:01 mode: not chosen",
		"cli  switched on: yes",
		"cli  switched on: no",
		"page gone all choices taken back",
		"page gone name: Gone",
		"page 02:00:5e:10:00:02 strip: no",
		"page 02:00:5e:10:00:02 strip: yes",
		"api 02:00:5e:10:00:01 strip: yes",
		"cli 02:00:5e:10:00:01 carry: yes",
		"page 02:00:5e:10:00:02 mode: off",
		"page 02:00:5e:10:00:01 log: counts",
		"cli 02:00:5e:10:00:01 mode: guard",
		"page 02:00:5e:10:00:01 kind: tv",
		"page 02:00:5e:10:00:01 name: Télévision <b>",
	})
}

func TestBadChoicesAreRefused(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	ctx := t.Context()
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"no device", h.SetMode(ctx, "", devices.ModeOff, "page"), "an ID of 1 to 64 octets"},
		{"long device", h.SetMode(ctx, devices.ID(strings.Repeat("x", 65)), devices.ModeOff, "page"), "an ID of 1 to 64 octets"},
		{"long name", h.SetName(ctx, tv, strings.Repeat("ä", 65), "page"), "at most 64 printable letters"},
		{"control letters", h.SetName(ctx, tv, "a\x1b[31m", "page"), "at most 64 printable letters"},
		{"override of direction", h.SetName(ctx, tv, "a\u202eb", "page"), "at most 64 printable letters"},
		{"no UTF-8", h.SetName(ctx, tv, "a\xff", "page"), "at most 64 printable letters"},
		{"no key", h.SetSetting(ctx, "", "x", "page"), "a key of at most 64"},
		{"big value", h.SetSetting(ctx, "k", strings.Repeat("x", 65537), "page"), "a value of at most 65536"},
		{"no such rule", h.RemoveRule(ctx, 7, "page"), "not found"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v, %q wanted in it", c.name, c.err, c.want)
		}
	}
	for _, c := range []struct {
		rule policy.Rule
		want string
	}{
		{policy.Rule{Action: policy.Block, Name: ""}, "a domain name is needed"},
		{policy.Rule{Action: policy.Block, Name: "a b"}, "is not allowed"},
		{policy.Rule{Action: policy.Block, Name: "a.example", Path: "/a/b/c"}, "first two segments"},
		{policy.Rule{Action: policy.Undecided, Name: "a.example"}, "allow or block is needed"},
		{policy.Rule{Action: policy.Block, Name: "a.example", Until: start.Add(-time.Second)}, "has passed"},
	} {
		if _, err := h.AddRule(ctx, c.rule); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, %q wanted in it", c.rule, err, c.want)
		}
	}
	if changes, err := h.Audit(ctx, 100); err != nil || len(changes) != 0 {
		t.Errorf("what was refused is in the audit log: %v, %v", changes, err)
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir)
	ctx := t.Context()
	add := func(r policy.Rule) policy.Rule {
		t.Helper()
		r, err := h.AddRule(ctx, r)
		must(t, err)
		return r
	}
	rules := func() []policy.Rule {
		t.Helper()
		all, err := h.Rules(ctx)
		must(t, err)
		return all
	}
	block := add(policy.Rule{Action: policy.Block, Name: "ADS.Example.", By: "page"})
	quarter := add(policy.Rule{Action: policy.Allow, Name: "ads.example", Device: tv, Until: h.now().Add(15 * time.Minute), By: "page"})
	equal(t, "rules", rules(), []policy.Rule{
		{ID: block.ID, Action: policy.Block, Name: "ads.example", Created: start, By: "page"},
		{ID: quarter.ID, Action: policy.Allow, Name: "ads.example", Device: tv, Until: start.Add(15 * time.Minute), Created: start, By: "page"},
	})
	h.advance(10 * time.Minute)
	again := add(policy.Rule{Action: policy.Allow, Name: "ads.example", Device: tv, Until: h.now().Add(15 * time.Minute), By: "cli"})
	if again.ID != quarter.ID || !again.Until.Equal(start.Add(25*time.Minute)) || again.By != "page" {
		t.Errorf("the same rule again is %+v, the later end wanted", again)
	}
	shorter := add(policy.Rule{Action: policy.Allow, Name: "ads.example", Device: tv, Until: h.now().Add(time.Minute), By: "cli"})
	if !shorter.Until.Equal(start.Add(25 * time.Minute)) {
		t.Errorf("a shorter one cuts it to %s", shorter.Until)
	}
	h.advance(15 * time.Minute)
	if all := rules(); len(all) != 1 || all[0].ID != block.ID {
		t.Errorf("after its end: %+v", all)
	}
	must(t, h.Tidy(ctx))
	if got := ask(t, h.cfg.HouseholdPath, "SELECT count(*) FROM rule"); got != "1" {
		t.Errorf("%s rules in the file, the ended one is to be removed", got)
	}
	forever := add(policy.Rule{Action: policy.Allow, Name: "ads.example", Device: tv})
	if forever.ID <= quarter.ID {
		t.Errorf("id %d was given again", forever.ID)
	}
	if kept := add(policy.Rule{Action: policy.Allow, Name: "ads.example", Device: tv, Until: h.now().Add(time.Hour)}); !kept.Until.IsZero() {
		t.Errorf("a rule for ever now ends %s", kept.Until)
	}
	must(t, h.RemoveRule(ctx, block.ID, "cli"))
	if err := h.RemoveRule(ctx, block.ID, "cli"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("removing it twice: %v", err)
	}
	h.stop()
	h = open(t, dir)
	if all := rules(); len(all) != 1 || all[0].ID != forever.ID {
		t.Errorf("after a restart: %+v", all)
	}
}

// A path is part of what makes a rule the same rule.
func TestRulesWithAPath(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	ctx := t.Context()
	var ids []int64
	for _, path := range []string{"", "/collect", "//%63ollect/", "/feed"} {
		r, err := h.AddRule(ctx, policy.Rule{Action: policy.Block, Name: "ads.example", Path: path, By: "page"})
		must(t, err)
		ids = append(ids, r.ID)
	}
	must(t, h.RemoveRule(ctx, ids[3], "page"))
	all, err := h.Rules(ctx)
	must(t, err)
	equal(t, "rules", all, []policy.Rule{
		{ID: ids[0], Action: policy.Block, Name: "ads.example", Created: start, By: "page"},
		{ID: ids[1], Action: policy.Block, Name: "ads.example", Path: "/collect", Created: start, By: "page"},
	})
	if ids[2] != ids[1] {
		t.Errorf("the same path in another spelling is another rule: %v", ids)
	}
	if changes, err := h.Audit(ctx, 1); err != nil || changes[0].What != "rule taken back: block ads.example/feed" {
		t.Errorf("audit: %+v, %v", changes, err)
	}
}

// What a house chose before there were paths stays, and no id is given again.
func TestTheFirstHouseholdMovesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := config(dir).HouseholdPath
	first, err := os.ReadFile("migrations/household/001_choices.sql")
	must(t, err)
	must(t, store.Migrate(t.Context(), path, fstest.MapFS{"m/001_choices.sql": {Data: first}}, nil))
	tell(t, path, `INSERT INTO choice VALUES ('02:00:5e:10:00:01', 'Television', 'tv', 'guard', 'names', 1, 'page');
		INSERT INTO rule VALUES (3, 'block', 'ads.example', '', 0, 1000, 'page'), (9, 'allow', 'gone.example', '', 0, 1000, 'page');
		DELETE FROM rule WHERE id = 9`)
	h := open(t, dir)
	names := devices.LogNames
	choices, err := h.Choices(t.Context())
	must(t, err)
	equal(t, "choices", choices, map[devices.ID]devices.Choice{tv: {Name: "Television", Kind: devices.KindTV, Mode: devices.ModeGuard, Log: &names}})
	made, err := h.AddRule(t.Context(), policy.Rule{Action: policy.Block, Name: "ads.example", Path: "/x", By: "page"})
	must(t, err)
	if made.ID != 10 {
		t.Errorf("the next rule has the id %d, 10 wanted", made.ID)
	}
	rules, err := h.Rules(t.Context())
	must(t, err)
	equal(t, "rules", rules, []policy.Rule{
		{ID: 3, Action: policy.Block, Name: "ads.example", Created: time.UnixMilli(1000), By: "page"},
		{ID: 10, Action: policy.Block, Name: "ads.example", Path: "/x", Created: start, By: "page"},
	})
	if got := ask(t, path+".version-1", "SELECT count(*) FROM rule"); got != "1" {
		t.Errorf("the copy made before has %s rules", got)
	}
}

// Pages, API and command line change things at the same time.
func TestChangesTakeTurns(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 5 {
				if _, err := h.AddRule(t.Context(), policy.Rule{Action: policy.Block, Name: "a.example", Device: storetest.DeviceID(100*i + j), By: "api"}); err != nil {
					t.Error(err)
				}
				if err := h.SetName(t.Context(), storetest.DeviceID(j), fmt.Sprint(i), "api"); err != nil {
					t.Error(err)
				}
				if _, err := h.Rules(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if rules, err := h.Rules(t.Context()); err != nil || len(rules) != 40 {
		t.Errorf("%d rules, %v", len(rules), err)
	}
}

// The audit log is bounded: a script in a loop must not fill the flash.
func TestTheHouseholdStaysSmall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open(t, dir).stop()
	tell(t, config(dir).HouseholdPath, `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
		INSERT INTO audit (at_ms, who, device, what) SELECT i, 'script', '', 'setting k' FROM n`)
	h := open(t, dir)
	for i := range 60 {
		must(t, h.SetSetting(t.Context(), "k", fmt.Sprint(i), "script"))
	}
	if changes, err := h.Audit(t.Context(), 1<<30); err != nil || len(changes) != 1000 {
		t.Errorf("%d lines in the audit log, %v", len(changes), err)
	}
	if v, ok, err := h.Setting(t.Context(), "k"); v != "59" || !ok || err != nil {
		t.Errorf("the setting is %q, %v, %v", v, ok, err)
	}
	if _, ok, err := h.Setting(t.Context(), "absent"); ok || err != nil {
		t.Errorf("an absent setting is there: %v, %v", ok, err)
	}
	if n := bytesOf(t, h.cfg.HouseholdPath); n > 200_000 {
		t.Errorf("household.db takes %d bytes", n)
	}
}
