//go:build linux

package netlab_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/internal/netlab"
	"github.com/netcurtain/netcurtain/internal/netlab/labtest"
)

func TestHouseRoutes(t *testing.T) {
	google := netip.MustParseAddr("8.8.8.8")
	h := labtest.House(t, netlab.Plan{
		Devices:  []netlab.DevicePlan{{Name: "tv", Number: 10}},
		Internet: []netip.Addr{google},
	})
	tv := h.Devices["tv"]
	for _, dst := range []netip.Addr{netlab.RouterLAN4.Addr(), google, netlab.RouterLAN6.Addr()} {
		if out, err := tv.Command(t.Context(), "ping", "-c1", "-W20", dst.String()).CombinedOutput(); err != nil {
			t.Errorf("tv cannot reach %s: %v\n%s", dst, err, out)
		}
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	left, err := netlab.Sweep(strings.TrimSuffix(tv.NS, "tv"))
	if err != nil || len(left) > 0 {
		t.Errorf("Close left %v (%v)", left, err)
	}
}
