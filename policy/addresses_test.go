package policy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// Each row has a name that is a side door itself, addresses that are public and
// stand once, and its source.
func TestDoorAddressesAreWellFormed(t *testing.T) {
	seen := map[netip.Addr]bool{}
	for line := range strings.Lines(strings.TrimSpace(doorAddresses)) {
		row, source, _ := strings.Cut(line, ";")
		fields := strings.Fields(row)
		if len(fields) < 2 || strings.TrimSpace(source) == "" {
			t.Errorf("row %q needs a name, addresses and a source", line)
			continue
		}
		if _, ok := sideDoors().of(dnsname.Name(fields[0])); !ok {
			t.Errorf("%s is no side door by name", fields[0])
		}
		for _, f := range fields[1:] {
			a, err := netip.ParseAddr(f)
			if err != nil || a.IsPrivate() || !a.IsGlobalUnicast() || seen[a] || a.String() != f {
				t.Errorf("%s: %q (twice: %v): %v", fields[0], f, seen[a], err)
			}
			seen[a] = true
		}
	}
}

func TestClosedAddresses(t *testing.T) {
	noon := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	google, quad9 := netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("9.9.9.9")
	compile := func(c Config) *Set {
		s, err := Compile(c)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	allowed := Rule{Action: Allow, Name: "google", Device: "tv", Until: noon.Add(time.Hour)}
	for why, c := range map[string]struct {
		set           *Set
		at            time.Time
		google, quad9 bool
	}{
		"all":                 {compile(Config{}), noon, true, true},
		"our upstream":        {compile(Config{Upstreams: []netip.Addr{quad9}}), noon, true, false},
		"somebody may":        {compile(Config{Rules: []Rule{allowed}}), noon, false, true},
		"until its rule ends": {compile(Config{Rules: []Rule{allowed}}), noon.Add(time.Hour), true, true},
		"switched off":        {compile(Config{Off: true}), noon, false, false},
		"nothing in force":    {nil, noon, false, false},
	} {
		got := c.set.ClosedAddresses(c.at)
		if slices.Contains(got, google) != c.google || slices.Contains(got, quad9) != c.quad9 {
			t.Errorf("%s: %v", why, got)
		}
	}
}
