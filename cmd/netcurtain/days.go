package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/netcurtain/netcurtain/ui/api"
)

type daysCmd struct {
	ledgerFlags
	jsonFlag
	Device string `help:"Only this device: name, address or ID."`
	Since  string `default:"90d" help:"How far back: 7d, 90d, 366d."`
}

func (daysCmd) Help() string {
	return `Sums by day outlive the flows and look-ups from which they were made, as long as there is room for them.
READABLE is what went out in connections that anyone on the way could read.

Examples:
  netcurtain days
  netcurtain days --device living-room-tv --since 366d
  netcurtain days --json`
}

func (c daysCmd) Run(ctx context.Context, io std) error {
	var d api.Days
	if err := c.orAlone().get(ctx, "/api/v1/days", url.Values{"device": {c.Device}, "since": {c.Since}}, &d); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(io.out, d)
	}
	t := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "DAY\tOUT\tIN\tFLOWS\tREADABLE\tLOOK-UPS\tBLOCKED\tTO")
	for _, x := range d.Days {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%d\t%d\t%s\n", x.Day, human(x.BytesOut), human(x.BytesIn), x.Flows,
			human(x.ReadableBytes), x.Lookups, x.Blocked, shorten(strings.Join(x.Organisations, ", ")))
	}
	return t.Flush()
}
