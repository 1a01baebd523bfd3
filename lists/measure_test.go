package lists

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/policy/blocklist"
)

// A million rules through the whole room: what it costs to compile them, and how
// soon the next start blocks. The memory is a limit of the design; the times are
// for a person (go test -v -run Million ./lists).
func TestMillionRules(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles a million rules")
	}
	data := os.Getenv("NETCURTAIN_TRUTH")
	if data == "" {
		data = filepath.Join("..", "..", "shared", "data")
	}
	packed := filepath.Join(data, "lists", "one-million-domains.txt.xz")
	if _, err := os.Stat(packed); err != nil {
		t.Skipf("no test data: %v (NETCURTAIN_TRUTH names its folder)", err)
	}
	root := t.TempDir()
	plain, err := os.Create(filepath.Join(root, "million.txt"))
	if err != nil {
		t.Fatal(err)
	}
	xz := exec.Command("xz", "-dc", packed)
	xz.Stdout = plain
	if err := xz.Run(); err != nil {
		t.Skipf("unpacking: %v", err)
	}
	plain.Close()

	dir := t.TempDir()
	c := Config{Dir: dir, FileRoot: root, Sources: []Source{{Name: "million", File: "million.txt"}}}
	before := memory(t)
	for _, what := range []string{"first start, compiling", "next start, warm index"} {
		began := time.Now()
		first := make(chan *blocklist.Index, 10)
		c.OnIndex = func(x *blocklist.Index) { first <- x }
		l, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		x := <-first
		if got := blocked(x, "roiback.net", "allowed.example"); got != "roiback.net by million" {
			t.Errorf("%s: blocked %q", what, got)
		}
		took := time.Since(began)
		if what == "next start, warm index" {
			began := time.Now()
			more := append(c.Sources, Source{Name: "starter", Text: []byte("||ads.example^\n")})
			if err := l.Reload(ctx, more); err != nil {
				t.Fatal(err)
			}
			if got := blocked(<-first, "roiback.net", "ads.example"); got != "roiback.net by million, ads.example by starter" {
				t.Errorf("after a small list came: blocked %q", got)
			}
			t.Logf("a small list beside a million that are kept: %v", time.Since(began).Round(time.Millisecond))
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		after := memory(t)
		if peak := (after["VmHWM"] - before["VmRSS"]) >> 10; peak > 16 && !underRace {
			t.Errorf("%s: the peak was %d MB above what was there before, 16 are allowed", what, peak)
		}
		t.Logf("%s: blocks after %v; RSS peak %+d MB, now anonymous %+d MB, file %+d MB",
			what, took.Round(time.Millisecond), (after["VmHWM"]-before["VmRSS"])>>10, (after["RssAnon"]-before["RssAnon"])>>10, (after["RssFile"]-before["RssFile"])>>10)
	}
}

// memory is /proc/self/status in KiB.
func memory(t *testing.T) map[string]int {
	t.Helper()
	f, err := os.Open("/proc/self/status")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	out := map[string]int{}
	for s := bufio.NewScanner(f); s.Scan(); {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok {
			n, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(v), " kB"))
			out[k] = n
		}
	}
	return out
}
