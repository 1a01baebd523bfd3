//go:build linux

package enforce

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// TestListsAreWhole: a list that somebody changes while it is told is told again;
// and Release takes out every rule of ours, although the tables of others that hold
// them change in the same moment.
func TestListsAreWhole(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const others = 100
	var many strings.Builder
	for i := range 600 {
		fmt.Fprintf(&many, "address add 10.20.%d.%d/32 dev lo\nroute add blackhole 10.30.%d.%d/32\n", i/250, i%250+1, i/250, i%250+1)
	}
	l.sh("ip -batch - <<'end'\n" + many.String() + "end\n")
	table := "table inet other%d { chain input { type filter hook input priority 5; policy drop; ct state established accept; meta l4proto ipv6-icmp accept; }; }\n"
	var rules strings.Builder
	for i := range others {
		fmt.Fprintf(&rules, table, i)
	}
	l.sh("nft -f - <<'end'\n" + rules.String() + "end\n")
	l.set(wanted())
	if n := strings.Count(l.sh("nft list ruleset"), passagePrefix); n < others {
		t.Fatalf("%d rules of ours in %d other tables", n, others)
	}
	ctx, stop := context.WithCancel(t.Context())
	churn := func(line string) {
		cmd := l.router.Command(ctx, "sh", "-c", "while :; do "+line+"; done")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stop(); _ = cmd.Wait() })
	}
	churn("ip address add 10.20.9.9/32 dev lo; ip address del 10.20.9.9/32 dev lo")
	churn("ip route add blackhole 10.30.9.9/32; ip route del blackhole 10.30.9.9/32")
	churn("nft 'delete table inet other7'; nft '" + strings.TrimSpace(fmt.Sprintf(table, 7)) + "'")
	var bad error
	l.in(func() error {
		for began := time.Now(); bad == nil && time.Since(began) < 3*time.Second; {
			house, err := onLink()
			ours, listed := whole(listPassages)
			_, ruled := listRules(netlink.FAMILY_V4, 4743)
			if out := waysOut(); err != nil || listed != nil || ruled != nil || len(house) < 600 || len(ours) < others-1 || len(out) != 1 {
				bad = fmt.Errorf("%d networks (%v), %d rules of ours (%v, %v), ways out %v", len(house), err, len(ours), listed, ruled, out)
			}
		}
		return Release(t.Context())
	})
	if bad != nil {
		t.Error(bad)
	}
	stop()
	if left := strings.Count(l.sh("nft list ruleset"), passagePrefix); left != 0 {
		t.Errorf("%d rules of ours are left in other tables", left)
	}
}
