package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/flow/capture"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/observe/inspect"
)

type inspectCmd struct {
	jsonFlag
	Files []string `arg:"" optional:"" name:"file" help:"pcap or pcapng files, gzip allowed; - is standard input. Without a file: a small sample."`
}

func (inspectCmd) Help() string {
	return `Link types: ` + capture.LinkTypes + `.
802.11 off the air (monitor mode) cannot be read: capture on the router's bridge instead.

Examples:
  netcurtain inspect                        a sample that is built in
  netcurtain inspect tv.pcap                a report, device by device
  netcurtain inspect --json *.pcapng        one JSON object a line per flow
  tcpdump -i br-lan -w - | netcurtain inspect -`
}

func (c inspectCmd) Run(ctx context.Context, io std) error {
	a, err := atlas.New()
	if err != nil {
		return err
	}
	return runInspect(ctx, c.Files, c.JSON, os.Stdin, io, inspect.Config{Atlas: benchAtlas{a}, Maker: atlas.Maker})
}

// benchAtlas fits the atlas to captures.
type benchAtlas struct{ atlas *atlas.Atlas }

func (b benchAtlas) Describe(name dnsname.Name, _ netip.Addr) atlas.Destination {
	d, _ := b.atlas.Lookup(name)
	return d
}

// runInspect reads each file and prints a report, or a JSON object a line per
// flow. A file that cannot be read, or breaks off, does not keep the others from
// being read; it is named on standard error, and the error says how many there were.
func runInspect(ctx context.Context, files []string, asJSON bool, stdin io.Reader, out std, cfg inspect.Config) error {
	w := bufio.NewWriter(out.out)
	defer w.Flush()
	rep := newReport()
	take := rep.add
	if asJSON {
		enc := json.NewEncoder(w)
		take = func(r inspect.Row) error { return enc.Encode(r) }
	}
	if len(files) == 0 {
		fmt.Fprintln(out.err, "no file named: this is the built-in sample; try: netcurtain inspect FILE")
	}
	broken := 0
	err := eachCapture(files, stdin, func(name string, r io.Reader) error {
		stats, err := inspect.Read(ctx, name, r, cfg, take)
		if errors.Is(err, context.Canceled) {
			return err
		}
		if err != nil {
			broken++
			fmt.Fprintf(out.err, "netcurtain: %s: %v\n", name, err)
		}
		rep.files = append(rep.files, fileLine(name, stats, err))
		return nil
	}, func(name string, err error) {
		broken++
		fmt.Fprintf(out.err, "netcurtain: %v\n", err)
	})
	if err != nil {
		return err
	}
	if !asJSON && len(rep.files) > 0 { // of files that could not even be opened there is nothing to report
		rep.print(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if broken > 0 {
		return fmt.Errorf("%d of %d files could not be read to their end", broken, max(len(files), 1))
	}
	return nil
}

// eachCapture opens one file after the other; "-" is standard input, and no file
// at all is the sample.
func eachCapture(files []string, stdin io.Reader, read func(string, io.Reader) error, failed func(string, error)) error {
	if len(files) == 0 {
		return read("sample", sample())
	}
	for _, name := range files {
		if name == "-" {
			if err := read("-", stdin); err != nil {
				return err
			}
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			failed(name, err)
			continue
		}
		err = read(name, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// fileLine says what was read of a file, and what was passed over.
func fileLine(name string, s capture.Stats, err error) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d packets, %s", clean(name), s.Packets, human(s.Bytes))
	for _, x := range []struct {
		n    int64
		what string
	}{
		{s.NotIP, "not IP"}, {s.Malformed, "malformed"}, {s.Fragments, "later fragments"},
		{s.Sealed, "encrypted on the air"},
		{s.Unknown, fmt.Sprintf("of %s, which is not understood", capture.LinkName(s.LinkType))},
	} {
		if x.n > 0 {
			fmt.Fprintf(&b, ", %d %s", x.n, x.what)
		}
	}
	if err != nil {
		b.WriteString(" (not read to its end)")
	}
	return b.String()
}

// maxLines bounds what a report holds, whatever the capture: destinations beyond
// it fall into one line.
const maxLines = 10_000

// others is what devices beyond maxLines are called.
const others = "others"

// report sums up flows: per device, per destination and protection.
type report struct {
	files   []string
	devices map[string]*deviceReport
	lines   int
	first   time.Time
	last    time.Time
}

type deviceReport struct {
	name    string
	maker   string
	lines   map[lineKey]*line
	out, in uint64
}

type lineKey struct{ to, port, protocol, protection string }

type line struct {
	lineKey
	organisation string
	reason       string
	credentials  string
	harmless     bool
	flows        int
	out, in      uint64
}

func newReport() *report { return &report{devices: make(map[string]*deviceReport)} }

func (r *report) add(row inspect.Row) error {
	d := r.devices[row.Device]
	if d == nil {
		if len(r.devices) >= maxLines {
			row.Device = others
		}
		if d = r.devices[row.Device]; d == nil {
			d = &deviceReport{lines: make(map[lineKey]*line)}
			r.devices[row.Device] = d
		}
	}
	if row.Device != others { // the newest name is the best one
		d.name, d.maker = cmp.Or(row.DeviceName, d.name), cmp.Or(row.Maker, d.maker)
	}
	d.out += row.BytesOut
	d.in += row.BytesIn
	r.first = earliest(r.first, row.First)
	if row.Last.After(r.last) {
		r.last = row.Last
	}
	k := lineKey{destination(row), fmt.Sprintf("%s/%d", row.L4, row.DstPort), row.Protocol, row.Protection}
	if row.L4 != "tcp" && row.L4 != "udp" {
		k.port = row.L4
	}
	l := d.lines[k]
	if l == nil {
		if r.lines >= maxLines {
			k = lineKey{to: "other destinations", protection: row.Protection}
			l = d.lines[k]
		}
		if l == nil {
			l = &line{lineKey: k, reason: row.Reason, organisation: row.Organisation, harmless: row.Harmless}
			d.lines[k] = l
			r.lines++
		}
	}
	l.flows++
	l.out += row.BytesOut
	l.in += row.BytesIn
	l.credentials = cmp.Or(l.credentials, row.Credentials)
	l.harmless = l.harmless && row.Harmless
	return nil
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// destination is what to call the other end of a flow.
func destination(r inspect.Row) string {
	if r.Name != "" {
		return r.Name
	}
	if r.ECH && r.ServerName != "" {
		return "hidden behind " + r.ServerName
	}
	return r.Dst
}

// print writes the devices, busiest first; of each, what travelled readable
// first, then the rest by bytes.
func (r *report) print(w io.Writer) {
	for _, f := range r.files {
		fmt.Fprintln(w, f)
	}
	if len(r.devices) == 0 {
		fmt.Fprintln(w, "No flows.")
		return
	}
	fmt.Fprintf(w, "From %s to %s.\n", r.first.Local().Format("2006-01-02 15:04:05"), r.last.Local().Format("2006-01-02 15:04:05"))
	ids := slices.SortedFunc(maps.Keys(r.devices), func(a, b string) int {
		x, y := r.devices[a], r.devices[b]
		return cmp.Or(cmp.Compare(y.out+y.in, x.out+x.in), cmp.Compare(a, b))
	})
	for _, id := range ids {
		r.devices[id].print(w, id)
	}
}

func (d *deviceReport) print(w io.Writer, id string) {
	fmt.Fprintf(w, "\n%s  sent %s, received %s\n", clean(d.called(id)), human(int64(d.out)), human(int64(d.in)))
	all := slices.SortedFunc(maps.Values(d.lines), func(a, b *line) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(b.out+b.in, a.out+a.in),
			cmp.Compare(a.to, b.to), cmp.Compare(a.port, b.port), cmp.Compare(a.protocol, b.protocol))
	})
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, l := range all {
		fmt.Fprintf(t, "  %s\t%s\t%s %s\t%s\t%s out\t%s in\t%s\n", l.word(), clean(l.to), l.protocol, l.port,
			clean(l.organisation), human(int64(l.out)), human(int64(l.in)), clean(l.why()))
	}
	t.Flush()
}

// called is what to call a device: by its own name, its maker, and always by its
// address, for the first is only its own word.
func (d *deviceReport) called(id string) string {
	switch {
	case d.name != "" && d.maker != "":
		return fmt.Sprintf("%s (%s, %s)", d.name, d.maker, id)
	case d.name != "" || d.maker != "":
		return fmt.Sprintf("%s (%s)", d.name+d.maker, id)
	}
	return id
}

// rank puts first what a person should read first.
func (l *line) rank() int {
	switch {
	case l.credentials != "":
		return 0
	case l.protection == "readable" && !l.harmless:
		return 1
	case l.protection == "cannot-tell":
		return 2
	case l.protection == "encrypted":
		return 3
	}
	return 4 // clear by design
}

func (l *line) word() string {
	switch {
	case l.protection == "readable" && l.harmless:
		return "Readable, harmless"
	case l.protection == "readable":
		return "READABLE"
	case l.protection == "encrypted":
		return "Encrypted"
	}
	return "Can't tell"
}

func (l *line) why() string {
	if l.credentials != "" {
		return "CREDENTIAL SENT READABLE (" + l.credentials + "): " + l.reason
	}
	return l.reason
}
