package main

import (
	"context"
)

// reloadOnHangup reads the settings file again on SIGHUP. What is wrong keeps the
// old settings in force and is said.
func (d *daemon) reloadOnHangup(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.hangup:
			d.reload(ctx)
		}
	}
}

// reload reads the settings again. What only a start can change stays as it was
// until then, and that is said: a rule for a port on which nobody listens would
// take the house's look-ups away.
func (d *daemon) reload(ctx context.Context) {
	const mend = "netcurtain check --config "
	read, err := d.cmd.read()
	if err != nil {
		d.reloaded.Set(0)
		d.health.set("settings", err, "", mend+d.cmd.Config)
		d.log.Error("the settings file is wrong; the old settings stay in force", "error", err)
		return
	}
	next, restart := d.settings.Load().Adopt(read)
	well := "The settings file is in force."
	if restart {
		well = "The settings file is in force, but for what needs a restart: interfaces, ports, upstreams, paths, budgets."
		d.log.Warn("some of the new settings (interfaces, ports, upstreams, paths, budgets) need a restart; the old ones stay in force until then")
	}
	d.reloaded.Set(1)
	d.health.set("settings", nil, well, "")
	d.settings.Store(&next)
	if err := d.reloadLists(ctx); err != nil {
		d.log.Error("the lists of the new settings", "error", err)
		if err := d.recompile(ctx); err != nil {
			d.log.Error("compiling the rules", "error", err)
		}
	}
	d.changed()
	d.log.Info("the settings were read again", "file", d.cmd.Config)
}
