package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/netcurtain/netcurtain/ui/api"
)

type topCmd struct {
	ledgerFlags
	jsonFlag
	By    string        `default:"destination" enum:"destination,organisation,device" help:"Add up by destination, organisation or device."`
	Since string        `default:"1h" help:"Sums of how far back: 1h, 24h, today. Sums are kept by the hour."`
	Every time.Duration `default:"5s" help:"How often to look again."`
	Limit int           `default:"20" help:"So many rows."`
	Once  bool          `help:"Print it once."`
}

func (topCmd) Help() string {
	return `RATE is of the last minute, both ways; running flows tell their bytes every minute. Ends with Ctrl-C.

Examples:
  netcurtain top
  netcurtain top --by organisation --since today
  netcurtain top --once --json`
}

// maxTop bounds what is held of one look: more than is shown, so that most of who
// rises into what is shown was there before and has a rate.
const maxTop = 200

func (c topCmd) Run(ctx context.Context, io std) error {
	if c.Every < time.Second {
		return usageError{"--every: one second at least"}
	}
	if c.Limit < 1 || c.Limit > maxTop {
		return usageError{fmt.Sprintf("--limit: a number from 1 to %d is needed", maxTop)}
	}
	from := c.socketFlag
	if c.Once {
		from = c.orAlone()
	}
	var pace pace
	q := url.Values{"since": {c.Since}, "by": {c.By}, "limit": {strconv.Itoa(maxTop)}}
	for tick := time.NewTicker(c.Every); ; {
		var t api.Top
		if err := from.get(ctx, "/api/v1/top", q, &t); err != nil {
			return err
		}
		rates := pace.rates(time.Now(), t.Rows)
		t.Rows = t.Rows[:min(len(t.Rows), c.Limit)]
		if err := c.print(io.out, t, rates); err != nil || c.Once {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (c topCmd) print(w io.Writer, t api.Top, rates map[topKey]int64) error {
	switch {
	case c.JSON && c.Once:
		return printJSON(w, t)
	case c.JSON:
		return json.NewEncoder(w).Encode(t) // one a line
	}
	if !c.Once && isTerminal(w) {
		fmt.Fprint(w, "\x1b[H\x1b[2J") // to the corner, and clear
	}
	fmt.Fprintf(w, "Since %s, by %s\n", t.Since.Local().Format("15:04"), t.By)
	return printTop(w, t, rates)
}

func printTop(w io.Writer, t api.Top, rates map[topKey]int64) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, map[string]string{
		"destination": "DEVICE\tTO\tCOMPANY\tRATE\tOUT\tIN\tFLOWS\tREADABLE\tBLOCKED", "organisation": "COMPANY\tRATE\tOUT\tIN\tFLOWS\tREADABLE\tBLOCKED",
		"device": "DEVICE\tRATE\tOUT\tIN\tFLOWS\tREADABLE\tBLOCKED",
	}[t.By])
	for _, r := range t.Rows {
		switch t.By {
		case "destination":
			to := r.Name
			if to == "" {
				to = "(not by name)"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t", shorten(r.DeviceName), shorten(to), shorten(r.Organisation))
		case "organisation":
			fmt.Fprintf(table, "%s\t", shorten(r.Organisation))
		default:
			fmt.Fprintf(table, "%s\t", shorten(r.DeviceName))
		}
		rate := "–"
		if n, ok := rates[keyOf(r)]; ok {
			rate = human(n) + "/s"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%d\n", rate, human(r.BytesOut), human(r.BytesIn), r.Flows, r.Readable, r.Blocked)
	}
	return table.Flush()
}

// shorten keeps a line within a screen.
func shorten(text string) string {
	const most = 40
	if r := []rune(clean(text)); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return clean(text)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// pace knows how many bytes each had at the looks of the last minute.
type pace struct{ looks []look }

type look struct {
	at    time.Time
	bytes map[topKey]int64
}

type topKey struct{ device, name, organisation string }

func keyOf(r api.TopRow) topKey { return topKey{r.Device, r.Name, r.Organisation} }

// rates are bytes a second since the oldest look of the last minute, of those who
// were in that. An hour that leaves the span takes bytes away: then there is no rate.
func (p *pace) rates(now time.Time, rows []api.TopRow) map[topKey]int64 {
	l := look{now, make(map[topKey]int64, len(rows))}
	for _, r := range rows {
		l.bytes[keyOf(r)] += r.BytesOut + r.BytesIn
	}
	p.looks = append(p.looks, l)
	for len(p.looks) > 2 && now.Sub(p.looks[1].at) >= time.Minute {
		p.looks = p.looks[1:]
	}
	first := p.looks[0]
	seconds := int64(now.Sub(first.at) / time.Second)
	out := map[topKey]int64{}
	if seconds == 0 {
		return out
	}
	for k, n := range l.bytes {
		if before, ok := first.bytes[k]; ok && n >= before {
			out[k] = (n - before) / seconds
		}
	}
	return out
}
