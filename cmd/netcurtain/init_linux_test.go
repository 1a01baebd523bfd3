package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// procd is a stand-in for what OpenWrt's rc.common and procd.sh give a service: it
// says what it is asked for. The shell is busybox's, as there.
const procd = `
say() { echo "$*"; }
procd_open_instance() { say open "$@"; }
procd_set_param() { say param "$@"; }
procd_close_instance() { say close "$@"; }
procd_add_reload_trigger() { say trigger "$@"; }
procd_send_signal() { say signal "$@"; }
nft() { say nft "$@"; }
. "$1"
PROG=netcurtain
CUT=$3
netcurtain() { say netcurtain "$@"; }
for extra in $EXTRA_COMMANDS; do type "$extra" >/dev/null; done
"$2"
`

// The service script of the OpenWrt package asks procd and the daemon for what there is.
func TestInitScript(t *testing.T) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		if os.Getenv("NETCURTAIN_NEED_ROOT") != "" {
			t.Fatal("there is no busybox: apt-get install busybox-static")
		}
		t.Skip("SKIPPED: no busybox (apt-get install busybox-static): the init script was not run")
	}
	cut := filepath.Join(t.TempDir(), "cut.nft")
	if err := os.WriteFile(cut, []byte("table inet netcurtain_cut {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ function, cut, want string }{
		{"start_service", cut, `nft -f ` + cut + `
open
param command netcurtain run
param respawn 3600 5 0
param limits nofile=16384 16384
param stdout 1
param stderr 1
close
`},
		{"start_service", cut + ".none", `open
param command netcurtain run
param respawn 3600 5 0
param limits nofile=16384 16384
param stdout 1
param stderr 1
close
`},
		{"service_stopped", cut, "netcurtain release\n"},
		{"service_triggers", cut, "trigger netcurtain\n"},
		{"reload_service", cut, "signal netcurtain * HUP\n"},
		{"check", cut, "netcurtain check\n"},
		{"release", cut, "netcurtain release\n"},
	} {
		cmd := exec.Command(busybox, "ash", "-euc", procd, "rc.common", "../../openwrt/files/netcurtain.init", tc.function, tc.cut)
		out, err := cmd.CombinedOutput()
		if diff := cmp.Diff(tc.want, string(out)); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", tc.function, err, diff)
		}
		for line := range strings.Lines(string(out)) {
			_, args, ok := strings.Cut(strings.TrimSpace(line), "netcurtain ")
			if !ok || !strings.HasPrefix(line, "netcurtain") && !strings.HasPrefix(line, "param command") {
				continue
			}
			parser, err := newParser(&cli{}, std{new(bytes.Buffer), new(bytes.Buffer)}, func(int) {})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parser.Parse(strings.Fields(args)); err != nil {
				t.Errorf("%s asks the daemon for %q: %v", tc.function, args, err)
			}
		}
	}
}
