package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/netcurtain/netcurtain/configs"
	"github.com/netcurtain/netcurtain/enforce"
	"github.com/netcurtain/netcurtain/ui/api"
)

type releaseCmd struct{}

func (releaseCmd) Help() string {
	return "Idempotent, needs no settings. The stop hook, the next start and a supervisor call it.\n\nExample:\n  netcurtain release"
}

// Run takes our rules out of the kernel.
func (releaseCmd) Run(ctx context.Context) error { return enforce.Release(ctx) }

// Run checks the settings file, then what the kernel can do.
func (c checkCmd) Run(ctx context.Context, io std) error {
	meaning, err := c.judge()
	lines := []api.HealthLine{{Name: "settings", OK: err == nil, Meaning: meaning}}
	if err != nil {
		lines[0].Mend = "edit " + c.Config
	}
	settings := configs.Defaults()
	if err == nil {
		settings, err = c.read()
	}
	if err != nil { // said already; the kernel is looked at all the same
		settings = configs.Defaults()
	}
	k, err := enforce.New(enforce.Config{Logger: slog.New(slog.DiscardHandler), CutFile: "/etc/netcurtain/cut.nft", Marks: marks(&settings)})
	if err != nil {
		return err
	}
	problems := k.Check(ctx, settings.House.LAN)
	if here, err := enforce.Look(settings.House.LAN); err == nil {
		lines = append(lines, api.HealthLine{Name: "place", OK: true, Meaning: here.String()})
		problems = append(problems, here.Problems()...)
	}
	for _, p := range problems {
		lines = append(lines, api.HealthLine{Name: "kernel", OK: !p.Fatal, Meaning: p.What, Mend: p.Fix})
	}
	if len(problems) == 0 {
		lines = append(lines, api.HealthLine{Name: "kernel", OK: true, Meaning: "it can do all that we ask"})
	}
	wrong := false
	for _, l := range lines {
		wrong = wrong || !l.OK
		if !c.JSON {
			fmt.Fprintf(io.out, "%s: %s\n", l.Name, l.Meaning)
			if l.Mend != "" {
				fmt.Fprintf(io.out, "  to mend it: %s\n", l.Mend)
			}
		}
	}
	if c.JSON {
		if err := printJSON(io.out, lines); err != nil {
			return err
		}
	}
	if wrong {
		return errors.New("this box is not ready; see above")
	}
	return nil
}
