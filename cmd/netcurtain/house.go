package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/ui/api"
)

type statusCmd struct {
	socketFlag
	jsonFlag
}

func (statusCmd) Help() string {
	return "Examples:\n  netcurtain status\n  netcurtain status --json"
}

func (c statusCmd) Run(ctx context.Context, io std) error {
	var s api.Status
	if err := c.get(ctx, "/api/v1/status", nil, &s); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(io.out, s)
	}
	state := "on"
	if !s.On {
		state = "OFF: nothing is filtered or seen; `netcurtain on` undoes it"
	}
	fmt.Fprintf(io.out, "netcurtain %s, up %s, %s\n%s\n%d devices\n", s.Version, time.Duration(s.UptimeSeconds)*time.Second, state, s.Place, s.Devices)
	for _, h := range s.Health {
		mark := "ok   "
		if !h.OK {
			mark = "WRONG"
		}
		fmt.Fprintf(io.out, "%s %-12s %s\n", mark, h.Name, h.Meaning)
		if !h.OK && h.Mend != "" {
			fmt.Fprintf(io.out, "      to mend it: %s\n", h.Mend)
		}
	}
	for _, what := range slices.Sorted(maps.Keys(s.Dropped)) {
		if n := s.Dropped[what]; n > 0 {
			fmt.Fprintf(io.out, "dropped since the start: %d of %s\n", n, what)
		}
	}
	return nil
}

type devicesCmd struct {
	ledgerFlags
	jsonFlag
	Since string `default:"24h" help:"How far back: 1h, 24h, 7d."`
}

func (devicesCmd) Help() string {
	return "Examples:\n  netcurtain devices\n  netcurtain devices --since 7d --json"
}

func (c devicesCmd) Run(ctx context.Context, io std) error {
	var d api.Devices
	if err := c.orAlone().get(ctx, "/api/v1/devices", url.Values{"since": {c.Since}}, &d); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(io.out, d)
	}
	t := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "DEVICE\tMAKER\tKIND\tMODE\tLOG\tOUT\tIN\tBLOCKED\tREADABLE\tTALKS TO")
	for _, x := range d.Devices {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", clean(x.Name), clean(x.Maker), x.Kind, x.Mode, x.Log,
			human(x.Totals.BytesOut), human(x.Totals.BytesIn), x.Totals.Blocked, x.Totals.ReadableFlows, clean(strings.Join(x.Totals.Organisations, ", ")))
	}
	return t.Flush()
}

type modeCmd struct {
	socketFlag
	Device string `arg:"" help:"Name, address or ID."`
	Mode   string `arg:"" enum:"off,watch,protect,guard,local" help:"off, watch, protect, guard or local."`
}

func (modeCmd) Help() string {
	return `From the loosest to the tightest:

  off      nothing is filtered, nothing is seen
  watch    everything is answered; what would be blocked is noted
  protect  look-ups are filtered, flows are seen
  guard    and web traffic is decided by name before it leaves the house
  local    no internet; what runs ends at once

Examples:
  netcurtain mode talking-bear guard
  netcurtain mode doorbell local`
}

func (c modeCmd) Run(ctx context.Context, io std) error {
	path, err := devicePath(c.Device, "/mode")
	if err != nil {
		return err
	}
	var done api.ModeSet
	if err := c.post(ctx, path, api.SetMode{Mode: c.Mode}, &done); err != nil {
		return err
	}
	if done.Note != "" {
		fmt.Fprintln(io.err, done.Note)
	}
	return nil
}

type logCmd struct {
	socketFlag
	Device string `arg:"" help:"Name, address or ID."`
	Level  string `arg:"" enum:"names,counts,none" help:"names, counts or none."`
}

func (logCmd) Help() string {
	return `names   where it goes is written down by name
counts  it is filtered and counted; names stay in memory
none    nothing is written down

Only its owner should say "names" for a phone or a computer.

Example:
  netcurtain log annas-phone none`
}

func (c logCmd) Run(ctx context.Context, io std) error {
	path, err := devicePath(c.Device, "/log")
	if err != nil {
		return err
	}
	return c.post(ctx, path, api.SetLog{Level: c.Level}, nil)
}

// turnFlags are common to carry and strip.
type turnFlags struct {
	socketFlag
	Device string `arg:"" help:"Name, address or ID."`
	To     string `arg:"" enum:"on,off" help:"on or off."`
}

func (f turnFlags) turn(ctx context.Context, io std, what string) error {
	path, err := devicePath(f.Device, what)
	if err != nil {
		return err
	}
	on := f.To == "on"
	if err := f.post(ctx, path, api.Switch{On: &on}, nil); err != nil || !on {
		return err
	}
	var d api.DeviceDetail
	if err := f.get(ctx, strings.TrimSuffix(path, what), nil, &d); err != nil {
		return err
	}
	if d.Device.Mode != "guard" {
		fmt.Fprintf(io.err, "it is in mode %s: this holds once it is in guard (netcurtain mode %s guard)\n", d.Device.Mode, clean(f.Device))
	}
	return nil
}

type carryCmd struct{ turnFlags }

func (carryCmd) Help() string {
	return `What a device in guard asks in clear (GET and HEAD) leaves the house encrypted where
the same server, at the same address, answers on port 443 with a certificate for that
name. Each server is asked once a week whether it can. Within the house the device's
words stay readable, and at the first thing that differs it is carried in clear again.

Examples:
  netcurtain carry talking-bear on
  netcurtain carry talking-bear off`
}

func (c carryCmd) Run(ctx context.Context, io std) error { return c.turn(ctx, io, "/carry") }

type stripCmd struct{ turnFlags }

func (stripCmd) Help() string {
	return `Known tracking headers, cookies of third parties and the path in referrers to other
sites are taken out of what a device in guard asks in clear; docs/proxy.md has the table.

Examples:
  netcurtain strip living-room-tv on
  netcurtain strip living-room-tv off`
}

func (c stripCmd) Run(ctx context.Context, io std) error { return c.turn(ctx, io, "/strip") }

// ruleFlags are common to allow and block.
type ruleFlags struct {
	socketFlag
	Name   string `arg:"" help:"Domain name, and everything below it; with a path (ads.example/collect) only that, in what guarded devices ask in clear."`
	Device string `help:"Only for this device: name, address or ID."`
	For    string `help:"Only for so long: 15m, 2h, 7d." placeholder:"TIME"`
	Undo   bool   `help:"Take such rules back instead."`
}

type allowCmd struct{ ruleFlags }

func (allowCmd) Help() string {
	return "Examples:\n  netcurtain allow www.example.com\n  netcurtain allow ads.example --device living-room-tv --for 15m\n  netcurtain allow ads.example --undo"
}

func (c allowCmd) Run(ctx context.Context, io std) error { return c.apply(ctx, io, "allow") }

type blockCmd struct{ ruleFlags }

func (blockCmd) Help() string {
	return "Examples:\n  netcurtain block tracker.example\n  netcurtain block video.example --device tv --for 2h\n  netcurtain block maker.example/telemetry --device tv\n  netcurtain block tracker.example --undo"
}

func (c blockCmd) Run(ctx context.Context, io std) error { return c.apply(ctx, io, "block") }

func (c ruleFlags) apply(ctx context.Context, io std, action string) error {
	if c.Undo {
		return c.undo(ctx, io, action)
	}
	var made api.Rule
	body := api.NewRule{Name: c.Name, Action: action, Device: c.Device, For: c.For}
	if err := c.post(ctx, "/api/v1/rules", body, &made); err != nil {
		return err
	}
	until := "until you take it back with --undo"
	if made.Until != nil {
		until = "until " + made.Until.Local().Format("15:04 on 2 January")
	}
	fmt.Fprintf(io.err, "%s %s and everything below it, %s\n", action, clean(made.Name+made.Path), until)
	if made.Path != "" {
		fmt.Fprintln(io.err, "it holds for what devices in guard ask in clear; in encrypted talk nobody sees paths")
	}
	return nil
}

func (c ruleFlags) undo(ctx context.Context, io std, action string) error {
	host, path := c.Name, ""
	if i := strings.IndexByte(host, '/'); i >= 0 {
		var err error
		if path, err = policy.ParsePath(host[i:]); err != nil {
			return usageError{err.Error()}
		}
		host = host[:i]
	}
	name, err := dnsname.Parse(host)
	if err != nil {
		return usageError{err.Error()}
	}
	var all api.Rules
	if err := c.get(ctx, "/api/v1/rules", nil, &all); err != nil {
		return err
	}
	device := ""
	if c.Device != "" {
		var d api.DeviceDetail
		path, err := devicePath(c.Device, "")
		if err != nil {
			return err
		}
		if err := c.get(ctx, path, nil, &d); err != nil {
			return err
		}
		device = d.Device.ID
	}
	mine := slices.DeleteFunc(all.Rules, func(r api.Rule) bool {
		return r.Name != string(name) || r.Path != path || r.Action != action || r.Device != device
	})
	if len(mine) == 0 {
		return fmt.Errorf("there is no rule to %s %s%s", action, name, path)
	}
	for _, r := range mine {
		if err := c.call(ctx, http.MethodDelete, fmt.Sprintf("/api/v1/rules/%d", r.ID), nil, struct{}{}, nil); err != nil {
			return err
		}
	}
	fmt.Fprintf(io.err, "rules taken back: %d\n", len(mine))
	return nil
}

type eraseCmd struct {
	ledgerFlags
	Device string `help:"Erase what was written about this device: name, address or ID." xor:"what" required:""`
	All    bool   `help:"Erase everything that was written about every device." xor:"what" required:""`
}

func (eraseCmd) Help() string {
	return `What is erased is gone: rows, dictionary, write-ahead log and free pages. Settings and rules stay.

Examples:
  netcurtain erase --device living-room-tv
  netcurtain erase --all`
}

func (c eraseCmd) Run(ctx context.Context, io std) error {
	if !c.All && c.Device == "" {
		return usageError{"--device: a name, address or ID is needed"}
	}
	var done api.Erased
	if err := c.orAlone().post(ctx, "/api/v1/erase", api.Erase{Device: c.Device, All: c.All}, &done); err != nil {
		return err
	}
	fmt.Fprintf(io.err, "%d rows erased\n", done.Rows)
	return nil
}

type forgetCmd struct {
	ledgerFlags
	Device string `arg:"" help:"Name, address or ID."`
}

func (forgetCmd) Help() string {
	return `Erases what was written down about it, as erase does, and its name, mode, log level and rules.
When it is seen again it is a new device. Works without a daemon, too.

Example:
  netcurtain forget old-phone`
}

func (c forgetCmd) Run(ctx context.Context, io std) error {
	path, err := devicePath(c.Device, "/forget")
	if err != nil {
		return err
	}
	var done api.Erased
	if err := c.orAlone().post(ctx, path, struct{}{}, &done); err != nil {
		return err
	}
	fmt.Fprintf(io.err, "forgotten, %d rows erased\n", done.Rows)
	return nil
}

type dismissCmd struct {
	socketFlag
	What string `arg:"" help:"What status says the proposal is about: an address."`
}

func (dismissCmd) Help() string {
	return "A second resolver in the house, say, that shall stay as it is: nothing more is said of it.\n\nExample:\n  netcurtain dismiss 192.168.1.5"
}

func (c dismissCmd) Run(ctx context.Context) error {
	return c.post(ctx, "/api/v1/dismiss", api.Dismiss{What: c.What}, new(api.Done))
}

// switchFlags are common to off and on. They work without a daemon, too: then the
// settings say where the household's choices are.
type switchFlags struct {
	socketFlag
	configFlag
}

type offCmd struct{ switchFlags }

func (offCmd) Help() string {
	return `Devices without internet get it back, too. It stays off over a reboot.
Where no daemon answers, the choice is written into household.db itself, and what
a daemon left in the kernel is taken out.

Example:
  netcurtain off`
}

func (c offCmd) Run(ctx context.Context, io std) error { return c.turn(ctx, io, false) }

type onCmd struct{ switchFlags }

func (onCmd) Help() string {
	return "Where no daemon answers, the next start is switched on.\n\nExample:\n  netcurtain on"
}

func (c onCmd) Run(ctx context.Context, io std) error { return c.turn(ctx, io, true) }

func (f switchFlags) turn(ctx context.Context, io std, on bool) error {
	err := f.post(ctx, "/api/v1/switch", api.Switch{On: &on}, nil)
	if !errors.Is(err, errNoDaemon) {
		return err
	}
	return f.turnAlone(ctx, io, on)
}

// human writes bytes as people read them: 999 B, 1.2 kB, 38 MB.
func human(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, i := float64(n)/unit, 0
	for ; value >= unit && i < 4; i++ {
		value /= unit
	}
	if value < 10 {
		return fmt.Sprintf("%.1f %cB", value, "kMGTP"[i])
	}
	return fmt.Sprintf("%.0f %cB", value, "kMGTP"[i])
}

// clean makes a device's string fit for a terminal: it is the attacker's.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
