//go:build linux

package e2e

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/internal/netlab/labtest"
)

// TestOffload tells the stories beside a real flow table, where the kernel has
// one. Many have not: make vm brings its own.
func TestOffload(t *testing.T) {
	labtest.NeedRoot(t)
	try := exec.Command("nft", "-c", "-f", "-") // the kernel is asked, nothing is changed
	try.Stdin = strings.NewReader("table inet nc-try { flowtable f { hook ingress priority 0; devices = { lo }; }; }")
	if out, err := try.CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: this kernel has no flow tables, make vm brings one that has: %.200s", out)
	}
	runStories(t, "testdata/offload")
}
