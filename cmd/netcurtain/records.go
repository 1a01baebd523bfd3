package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/netcurtain/netcurtain/ui/api"
)

// recordFlags are common to the commands that list what was written down.
type recordFlags struct {
	ledgerFlags
	jsonFlag
	Device string `help:"Only this device: name, address or ID."`
	Since  string `default:"24h" help:"From when on: a span back from now (1h, 24h, 7d), today, or a time in RFC 3339."`
	Until  string `aliases:"to" help:"Until when, likewise; --to is the same."`
	Limit  *int   `help:"At most so many; 100 for a table or JSON, else all." placeholder:"N"`
}

// Of a table and of JSON, which are in memory as a whole, there is a page at most.
const (
	defaultRows = 100
	maxRows     = 1000
)

const exportHelp = `
Formats: table; json (a page, as the API gives it); jsonl and csv (all rows, streamed); zeek
(all rows, as Zeek writes %s). In csv, what a spreadsheet would take for a formula
begins with an apostrophe. Where no daemon answers, its files are read.`

// list asks for rows and prints them: as they come, or by table from a page.
func (f recordFlags) list(ctx context.Context, out io.Writer, path, format string, q url.Values, page any, table func(names map[string]string, t *tabwriter.Writer)) error {
	from := f.orAlone()
	if f.JSON {
		format = "json"
	}
	whole := format == "table" || format == "json"
	if f.Limit != nil && (*f.Limit < 1 || whole && *f.Limit > maxRows) {
		if whole {
			return usageError{fmt.Sprintf("--limit: a number from 1 to %d is needed; --format jsonl or csv have no limit", maxRows)}
		}
		return usageError{"--limit: a number from 1 on is needed"}
	}
	q.Set("since", f.Since)
	for key, value := range map[string]string{"until": f.Until, "device": f.Device} {
		if value != "" {
			q.Set(key, value)
		}
	}
	switch {
	case f.Limit != nil:
		q.Set("limit", strconv.Itoa(*f.Limit))
	case whole:
		q.Set("limit", strconv.Itoa(defaultRows))
	}
	if !whole {
		q.Set("format", format)
		return from.stream(ctx, path, q, out)
	}
	if err := from.get(ctx, path, q, page); err != nil {
		return err
	}
	if format == "json" {
		return printJSON(out, page)
	}
	names, err := from.names(ctx)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	table(names, t)
	return t.Flush()
}

// names maps the devices' IDs to what they are called.
func (f socketFlag) names(ctx context.Context) (map[string]string, error) {
	var d api.Devices
	err := f.get(ctx, "/api/v1/devices", nil, &d)
	names := map[string]string{}
	for _, x := range d.Devices {
		names[x.ID] = x.Name
	}
	return names, err
}

type flowsCmd struct {
	recordFlags
	Format   string `default:"table" enum:"table,json,jsonl,csv,zeek" help:"table, json, jsonl, csv or zeek."`
	Readable bool   `help:"Only what travelled readable."`
	Blocked  bool   `help:"Only what was blocked."`
}

func (flowsCmd) Help() string {
	return fmt.Sprintf(strings.TrimPrefix(exportHelp, "\n"), "conn.log") + `

Examples:
  netcurtain flows --readable
  netcurtain flows --device living-room-tv --since 7d --until 6d
  netcurtain flows --since 7d --format csv > flows.csv
  netcurtain flows --format zeek | zeek-cut id.resp_h server_name`
}

func (c flowsCmd) Run(ctx context.Context, io std) error {
	q := url.Values{}
	if c.Readable {
		q.Set("readable", "1")
	}
	if c.Blocked {
		q.Set("blocked", "1")
	}
	var f api.Flows
	return c.list(ctx, io.out, "/api/v1/flows", c.Format, q, &f, func(names map[string]string, t *tabwriter.Writer) {
		fmt.Fprintln(t, "WHEN\tDEVICE\tTO\tCOMPANY\tHOW\tOUT\tIN\tWHY")
		for _, x := range f.Flows {
			to := x.Name
			if to == "" {
				to = x.Dst
			}
			how, why := x.Protection, x.Why
			if x.Verdict == "block" {
				how, why = "blocked", strings.TrimSpace(x.Rule+" "+x.List)
			}
			why = strings.Join(append([]string{why}, notes(x)...), "; ")
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", when(x.Last), clean(cmp.Or(names[x.Device], x.Device)), clean(to), clean(x.Organisation),
				how, human(x.BytesOut), human(x.BytesIn), clean(why))
		}
	})
}

// when is a time of today, or of another day with its date.
func when(t time.Time) string {
	t = t.Local()
	if time.Now().Format(time.DateOnly) != t.Format(time.DateOnly) {
		return t.Format("2006-01-02 15:04:05")
	}
	return t.Format("15:04:05")
}

// notes are what a line should say of a flow beside why it is judged so.
func notes(x api.Flow) (out []string) {
	note := func(is bool, text string) {
		if is {
			out = append(out, text)
		}
	}
	note(x.Credentials != "", strings.TrimSpace("CREDENTIAL SENT READABLE "+x.Credentials+" "+x.CredentialUser))
	note(x.CredentialDefault, "a login that everybody knows")
	note(x.Identifiers != "", "told "+x.Identifiers)
	note(x.TLSWeak != "" && !strings.HasPrefix(x.Why, "TLS handshake seen, but"), "weak: "+x.TLSWeak)
	note(x.CarriedEncrypted, "carried encrypted by us")
	note(x.Inbound && !x.PortMapped, "opened from outside")
	note(x.PortMapped, "opened from outside through a mapped port")
	note(x.ByNameOnly, "by its name only")
	note(x.NameAmbiguous, "one of several names")
	return out
}

type lookupsCmd struct {
	recordFlags
	Format  string `default:"table" enum:"table,json,jsonl,csv,zeek" help:"table, json, jsonl, csv or zeek."`
	Blocked bool   `help:"Only what was blocked."`
}

func (lookupsCmd) Help() string {
	return fmt.Sprintf(strings.TrimPrefix(exportHelp, "\n"), "dns.log") + `

Examples:
  netcurtain lookups --blocked
  netcurtain lookups --device living-room-tv --since 1h
  netcurtain lookups --since 7d --format jsonl > lookups.jsonl`
}

func (c lookupsCmd) Run(ctx context.Context, io std) error {
	q := url.Values{}
	if c.Blocked {
		q.Set("blocked", "1")
	}
	var l api.Lookups
	return c.list(ctx, io.out, "/api/v1/lookups", c.Format, q, &l, func(names map[string]string, t *tabwriter.Writer) {
		fmt.Fprintln(t, "WHEN\tDEVICE\tNAME\tTYPE\tANSWER\tTIMES\tDECISION\tWHY")
		for _, x := range l.Lookups {
			decision := "allowed"
			switch {
			case x.Noted:
				decision = "would be blocked"
			case x.Verdict == "block":
				decision = "blocked"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", when(x.At), clean(cmp.Or(names[x.Device], x.Device)), clean(x.Name), x.Type, x.Rcode,
				x.Count, decision, clean(strings.TrimSpace(x.Rule+" "+x.List)))
		}
	})
}

type eventsCmd struct {
	recordFlags
	Format string `default:"table" enum:"table,json,jsonl,csv" help:"table, json, jsonl or csv."`
}

func (eventsCmd) Help() string {
	return `Rare things: a new device, a first contact with an organisation, a password that travelled
readable, weak encryption, a way round the filter. They outlive the flows.

Examples:
  netcurtain events --since 30d
  netcurtain events --device living-room-tv --since 366d --format csv`
}

func (c eventsCmd) Run(ctx context.Context, io std) error {
	var e api.Events
	return c.list(ctx, io.out, "/api/v1/events", c.Format, url.Values{}, &e, func(names map[string]string, t *tabwriter.Writer) {
		fmt.Fprintln(t, "WHEN\tDEVICE\tWHAT\tTEXT")
		for _, x := range e.Events {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", x.At.Local().Format("2006-01-02 15:04"), clean(cmp.Or(names[x.Device], x.Device)), x.Kind, clean(x.Text))
		}
	})
}
