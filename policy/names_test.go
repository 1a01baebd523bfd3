package policy

import (
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// A name that is not in normal form would never match, and nobody would notice.
func TestOwnTablesHoldNames(t *testing.T) {
	for what, table := range map[string]string{"side doors": sideDoorNames, "local zones": localZoneNames} {
		seen := zones{}
		for line := range strings.Lines(table) {
			fields := strings.Fields(line)
			if len(fields) == 0 {
				continue
			}
			n, err := dnsname.Parse(fields[0])
			if err != nil || string(n) != fields[0] {
				t.Errorf("%s: %q is not in normal form: %v", what, fields[0], err)
			}
			if _, twice := seen[n]; twice {
				t.Errorf("%s: %s is there twice", what, n)
			}
			if above, ok := seen.of(n.Parent()); ok {
				t.Errorf("%s: %s is covered by %s", what, n, above)
			}
			seen[n] = struct{}{}
			if what == "side doors" && len(fields) < 2 {
				t.Errorf("%s: %s has no source", what, n)
			}
		}
	}
}
