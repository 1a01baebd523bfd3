//go:build linux

// Package labtest builds houses for tests and skips loudly where none can stand.
package labtest

import (
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"

	"github.com/netcurtain/netcurtain/internal/netlab"
)

// NeedRoot skips, loudly, a test that needs root, namespaces and nft. Where
// NETCURTAIN_NEED_ROOT is set, as in CI, the test fails instead.
func NeedRoot(tb testing.TB) {
	tb.Helper()
	why := ""
	if os.Geteuid() != 0 {
		why = "needs root"
	}
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			why = "needs " + tool
		}
	}
	switch {
	case why == "":
	case os.Getenv("NETCURTAIN_NEED_ROOT") != "":
		tb.Fatalf("root ring: %s, and NETCURTAIN_NEED_ROOT forbids to skip", why)
	default:
		tb.Skipf("SKIPPED root ring: %s; run `make test` as root", why)
	}
}

var count atomic.Int32

// House builds a house for this test under a prefix of its own and takes it
// down at the end. It skips as NeedRoot does.
func House(tb testing.TB, p netlab.Plan) *netlab.House {
	tb.Helper()
	NeedRoot(tb)
	// Of one length, or house 0x23 of process 0x1 were house 0x3 of process 0x12.
	p.Prefix = fmt.Sprintf("%04x%x-", os.Getpid()%0x10000, count.Add(1))
	h, err := netlab.Build(tb.Context(), p)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := h.Close(); err != nil {
			tb.Errorf("taking the house down: %v", err)
		}
	})
	return h
}
