package blocklist

import (
	"io"
	"math"
	"strings"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// Line is where a rule stands in its list.
type Line struct {
	Number int
	Text   string // without the blanks around it
}

// lineKey tells forms with their names from each other.
func lineKey(f form, name dnsname.Name) uint64 {
	h := hashStep(hashStart, byte(f)+1)
	for i := 0; i < len(name); i++ {
		h = hashStep(h, name[i])
	}
	return hashMix(h)
}

// Locate reads a list once more and finds the first line of each of the rules
// that decided in it. Those that it does not find keep the zero Line.
func Locate(src io.Reader, rules []Match) ([]Line, error) {
	wanted := make(map[uint64][]int, len(rules))
	for i, m := range rules {
		key := m.key
		if m.record == 0 {
			key = lineKey(m.form, m.Name)
		}
		wanted[key] = append(wanted[key], i)
	}
	found := make([]Line, len(rules))
	at := func(line int, text string, p parsed) {
		key := lineKey(p.form, p.name)
		if p.more != nil {
			if p.more.bad {
				return
			}
			key = p.more.identity()
		}
		for _, i := range wanted[key] {
			if found[i].Number == 0 {
				found[i] = Line{line, strings.Clone(strings.TrimSpace(text))}
			}
		}
	}
	limits := Limits{Bytes: math.MaxInt64, Rules: math.MaxInt}
	_, err := readLines("", src, limits, func(line int, text string, p parsed) (string, error) {
		at(line, text, p)
		return "", nil
	})
	return found, err
}
