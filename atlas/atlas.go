package atlas

import (
	"bufio"
	_ "embed" // the tables
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

//go:embed destinations.tsv
var destinations string

// Atlas knows destinations by name. It is immutable and safe for concurrent use.
type Atlas struct{ rows []row }

type row struct {
	suffix dnsname.Name
	Destination
}

// New reads the table that ships, and on top of it further ones in the same
// format, whose rows replace those with the same suffix. The format is said at
// the head of destinations.tsv.
func New(more ...io.Reader) (*Atlas, error) {
	a := &Atlas{}
	if err := a.read(strings.NewReader(destinations)); err != nil {
		return nil, fmt.Errorf("the table of destinations that ships: %w", err)
	}
	for _, r := range more {
		if err := a.read(r); err != nil {
			return nil, fmt.Errorf("table of destinations: %w", err)
		}
	}
	return a, nil
}

// maxRow bounds one line of a table, in octets.
const maxRow = 4096

func (a *Atlas) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxRow)
	n := 0
	for lines.Scan() {
		n++
		line := lines.Text()
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		parsed, err := parseRow(line)
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		a.rows = append(a.rows, parsed)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	a.order()
	return nil
}

// order sorts the rows by suffix and keeps the last one of equal ones.
func (a *Atlas) order() {
	sort.SliceStable(a.rows, func(i, j int) bool { return a.rows[i].suffix < a.rows[j].suffix })
	kept := a.rows[:0]
	for i, r := range a.rows {
		if i+1 < len(a.rows) && a.rows[i+1].suffix == r.suffix {
			continue
		}
		kept = append(kept, r)
	}
	a.rows = kept
}

func parseRow(line string) (row, error) {
	f := strings.Split(line, "\t")
	if len(f) != 7 {
		return row{}, fmt.Errorf("%d fields, 7 are needed: suffix, organisation, purpose, country, essential, breaks, evidence", len(f))
	}
	name, err := dnsname.Parse(f[0])
	switch {
	case err != nil:
		return row{}, fmt.Errorf("suffix: %w", err)
	case name == "":
		return row{}, fmt.Errorf("suffix %.80q would match everything", f[0])
	case f[1] == "":
		return row{}, fmt.Errorf("suffix %s: an organisation is needed", name)
	}
	d := Destination{Organisation: f[1], Purpose: Purpose(f[2]), Breaks: f[5], Evidence: f[6]}
	switch d.Purpose {
	case PurposeControl, PurposeUpdate, PurposeTime, PurposeContent, PurposeTelemetry, PurposeAds, PurposeConnectivity, PurposeInfra:
	default:
		return row{}, fmt.Errorf("purpose %.40q: control, update, time, content, telemetry, ads, connectivity or infra is needed", f[2])
	}
	if f[3] != "-" {
		if d.Country = f[3]; len(d.Country) != 2 || strings.ToUpper(d.Country) != d.Country {
			return row{}, fmt.Errorf("country %.40q: two capital letters of ISO 3166-1 are needed, or -", f[3])
		}
	}
	switch f[4] {
	case "yes":
		d.Essential = true
	case "no":
	default:
		return row{}, fmt.Errorf("essential %.40q: yes or no is needed", f[4])
	}
	return row{name, d}, nil
}

// Lookup returns what is known of name: of the longest suffix that the table
// has. It does not allocate.
func (a *Atlas) Lookup(name dnsname.Name) (Destination, bool) {
	for ; name != ""; name = name.Parent() {
		if i, found := a.find(name); found {
			return a.rows[i].Destination, true
		}
	}
	return Destination{}, false
}

func (a *Atlas) find(name dnsname.Name) (int, bool) {
	return sort.Find(len(a.rows), func(i int) int { return strings.Compare(string(name), string(a.rows[i].suffix)) })
}
