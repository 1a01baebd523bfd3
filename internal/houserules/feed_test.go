package houserules_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// feed lays openwrt/ where a feed of OpenWrt has it, beside a stand-in for the SDK,
// and gives what make says there.
func feed(t *testing.T, args ...string) string {
	t.Helper()
	sdk := t.TempDir()
	if err := os.CopyFS(sdk, os.DirFS("testdata/sdk")); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(sdk, "net", "netcurtain")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "openwrt"))); err != nil {
		t.Fatal(err)
	}
	return makeIn(t, dir, append([]string{"TOPDIR=" + sdk}, args...)...)
}

func makeIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("make", append([]string{"-C", dir, "--no-print-directory"}, args...)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "GOFLAGS=") })
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("make %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// What is measured is what is installed: the binary of make build and that of the
// feed package are compiled in the same way.
func TestPackageIsBuiltAsMeasured(t *testing.T) {
	gcflags := regexp.MustCompile(`-gcflags=\S+`)
	ours, theirs := makeIn(t, root, "-n", "build"), feed(t, "-n", "compile")
	want := gcflags.FindAllString(ours, -1)
	if len(want) < 10 {
		t.Fatalf("make build has %d flags for the compiler:\n%s", len(want), ours)
	}
	if diff := cmp.Diff(want, gcflags.FindAllString(theirs, -1)); diff != "" {
		t.Errorf("compiler flags of make build (-) and of the package (+):\n%s", diff)
	}
	script, err := os.ReadFile(filepath.Join(root, "scripts", "test"))
	if err != nil {
		t.Fatal(err)
	}
	tags := regexp.MustCompile(`-tags "(\S+)"`).FindStringSubmatch(theirs)
	if tags == nil || !strings.Contains(string(script), "-tags="+tags[1]) {
		t.Errorf("the package is built with the tags %q, scripts/test with others", tags)
	}
	for _, flag := range []string{"-ffunction-sections", "-include /build/netcurtain-0.1.0/scripts/sqlite.h", "-Wl,--gc-sections"} {
		if !strings.Contains(theirs, flag) {
			t.Errorf("the package is built without %s:\n%s", flag, theirs)
		}
	}
	if chosen := feed(t, "-n", "compile", "GO_PKG_DEFAULT_GCFLAGS=-spectre all"); !strings.Contains(chosen, "-spectre all") || gcflags.MatchString(chosen) {
		t.Errorf("what the builder chose for all packages is overruled:\n%s", chosen)
	}
}

// Every file of the package is where the system looks for it, with its rights.
func TestPackageInstalls(t *testing.T) {
	to := t.TempDir()
	source, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	feed(t, "install", "ROOT="+to, "PKG_BUILD_DIR="+source)
	got := map[string]string{}
	err = filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		got[strings.TrimPrefix(path, to)] = info.Mode().String()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"/etc/init.d/netcurtain":         "-rwxr-xr-x",
		"/etc/config/netcurtain":         "-rw-------",
		"/lib/upgrade/keep.d/netcurtain": "-rw-r--r--",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("installed (-want +got):\n%s", diff)
	}
}

// Who removes the package loses the cut, too; who upgrades it keeps it.
func TestPackageRemoval(t *testing.T) {
	script := feed(t, "prerm")
	for upgrade, want := range map[string]string{"": "stop; nft delete table inet netcurtain_cut;", "1": ""} {
		cmd := exec.Command("sh", "-c", strings.ReplaceAll(script, "/etc/init.d/netcurtain", "service"))
		bin := t.TempDir()
		for name, text := range map[string]string{"service": `printf '%s; ' "$@"`, "nft": `printf 'nft %s;' "$*"`} {
			if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd.Env = []string{"PATH=" + bin, "PKG_UPGRADE=" + upgrade}
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != want {
			t.Errorf("with PKG_UPGRADE=%q it does %q (%v), want %q", upgrade, out, err, want)
		}
	}
}
