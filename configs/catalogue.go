package configs

import (
	_ "embed"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

//go:embed catalogue.tsv
var catalogue string

// PublicList is one of the catalogue: a well-known list that a household may add by
// its name.
type PublicList struct {
	Name     string
	URL      string
	Licence  string // SPDX, or an address where its maker says
	Homepage string
	Size     string // S, M, L or XL
	Rules    int    // about how many
	Smaller  string // the one that stands in where there is no room; "" is none
	Smart    bool   // suits a house of smart devices
	Seen     string // "2026-09", when its maker's file was that large; "" is an estimate
	For      string // what it is for
}

// StarterName is what the starter list is called.
const StarterName = "netcurtain-starter"

// Catalogue is every list of catalogue.tsv, in its order.
func Catalogue() ([]PublicList, error) { return parseCatalogue(catalogue) }

func parseCatalogue(table string) (all []PublicList, err error) {
	head, known := true, map[string]bool{}
	n := 0
	for line := range strings.Lines(table) {
		n++
		line = strings.TrimRight(line, "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		w := strings.Split(line, "\t")
		if head {
			if strings.Join(w, " ") != "name url licence homepage size rules smaller smart seen for" {
				return nil, fmt.Errorf("catalogue.tsv:%d: the columns are %q", n, line)
			}
			head = false
			continue
		}
		l, err := publicList(w)
		switch {
		case err != nil:
		case known[l.Name]:
			err = fmt.Errorf("%s stands there twice", l.Name)
		case l.Smaller != "" && !known[l.Smaller]:
			err = fmt.Errorf("%s, its smaller one, must stand above it", l.Smaller)
		}
		if err != nil {
			return nil, fmt.Errorf("catalogue.tsv:%d: %w", n, err)
		}
		known[l.Name] = true
		all = append(all, l)
	}
	return all, nil
}

func publicList(w []string) (l PublicList, err error) {
	if len(w) != 10 {
		return l, fmt.Errorf("%d columns, 10 are needed", len(w))
	}
	l = PublicList{Name: w[0], URL: w[1], Licence: w[2], Homepage: w[3], Size: w[4], Smaller: w[6], Smart: w[7] == "yes", Seen: w[8], For: w[9]}
	if l.Smaller == "-" {
		l.Smaller = ""
	}
	if l.Seen == "-" {
		l.Seen = ""
	} else if _, err := time.Parse("2006-01", l.Seen); err != nil {
		return l, fmt.Errorf("seen %q: a month such as 2026-09 is needed, or -", l.Seen)
	}
	for _, address := range []string{l.URL, l.Homepage} {
		if u, err := url.Parse(address); err != nil || u.Scheme != "https" || u.Hostname() == "" {
			return l, fmt.Errorf("%q: an https address is needed", address)
		}
	}
	most := map[string]int{"S": 10_000, "M": 100_000, "L": 300_000, "XL": 5_000_000}[l.Size]
	if l.Rules, err = strconv.Atoi(w[5]); err != nil || l.Rules < 1 || l.Rules > most {
		return l, fmt.Errorf("%q rules do not fit the size %q", w[5], l.Size)
	}
	if l.Name == "" || l.Licence == "" || l.For == "" || w[7] != "yes" && w[7] != "no" {
		return l, fmt.Errorf("%q: name, licence, smart and for are needed", w[0])
	}
	return l, nil
}
