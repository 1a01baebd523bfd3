package store_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/store"
	"github.com/netcurtain/netcurtain/store/storetest"
)

// written is how many bytes this process gave to write calls.
func written(t testing.TB) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skipf("the kernel does not count writes: %v", err)
	}
	for line := range strings.Lines(string(b)) {
		var n int64
		if _, err := fmt.Sscanf(line, "wchar: %d", &n); err == nil {
			return n
		}
	}
	t.Fatalf("no wchar in %s", b)
	return 0
}

// alone runs a test that counts what its process writes in a process of its own,
// beside the other tests. It reports whether this process has nothing more to do.
func alone(t *testing.T) bool {
	t.Helper()
	const inside = "NETCURTAIN_TEST_ALONE"
	if os.Getenv(inside) != "" {
		return false
	}
	t.Parallel()
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), inside+"=1")
	out, err := child.CombinedOutput()
	if err != nil {
		t.Errorf("%v", err)
	}
	t.Logf("%s", out)
	return true
}

// Flash wears: a day of fifty devices, with people changing things and two
// restarts, writes at most 2 MB to it, also when memory.db is
// full and the oldest days have to go.
func TestFlashWear(t *testing.T) {
	if alone(t) {
		return
	}
	const limit = 2 << 20
	dir := t.TempDir()
	g := storetest.New(1, 50, 5000)
	now := start
	for day := range 14 {
		h := open(t, dir, func(c *store.Config) { c.Synced(); c.MemoryBytes = 512 << 10 })
		h.advance(now.Sub(start))
		var memory, household int64
		count := func(sum *int64, change func() error) {
			t.Helper()
			before := written(t)
			must(t, change())
			*sum += written(t) - before
		}
		for part := range 3 {
			batch := make([]journal.Entry, 2000)
			for i := range batch {
				h.advance(14 * time.Second)
				batch[i] = g.Entry(h.now())
			}
			for range 10 {
				batch = append(batch, journal.Entry{At: h.now(), Device: tv, Log: devices.LogNames,
					Event: &journal.Event{Kind: journal.EventFirstContact, Text: "talks to an organisation for the first time, in about so many words"}})
			}
			h.record(batch...)
			must(t, h.Flush(t.Context())) // the ledger is no flash
			count(&memory, func() error { return h.Remember(t.Context()) })
			for i := range 10 {
				count(&household, func() error {
					return h.SetMode(t.Context(), storetest.DeviceID(i), devices.Mode(1+(i+part+day)%5), "page")
				})
			}
		}
		now = h.now()
		h.stop()
		if day == 0 || day == 13 {
			t.Logf("day %d: %d kB written to memory.db (%d kB big), %d kB to household.db (%d kB big)", day,
				memory>>10, bytesOf(t, h.cfg.MemoryPath)>>10, household>>10, bytesOf(t, h.cfg.HouseholdPath)>>10)
		}
		if sum := memory + household; sum > limit {
			t.Errorf("day %d: %d bytes written to flash, at most %d are allowed", day, sum, limit)
		}
	}
}

func TestOnlyWhatDiffersIsWritten(t *testing.T) {
	if alone(t) {
		return
	}
	h := open(t, t.TempDir(), (*store.Config).Synced)
	var all []devices.Device
	for i := range 200 {
		all = append(all, devices.Device{ID: storetest.DeviceID(i), Hostname: fmt.Sprintf("device number %d", i), FirstSeen: start})
	}
	cost := func(change func() error) int64 {
		t.Helper()
		before := written(t)
		must(t, change())
		return written(t) - before
	}
	set := func() error { return h.SetKnown(t.Context(), all) }
	must(t, set())
	if n := cost(func() error { return errors.Join(set(), set(), set()) }); n > 0 {
		t.Errorf("nothing changed, and %d bytes were written", n)
	}
	all[17].Hostname = "another"
	if n := cost(set); n == 0 || n > 8192 {
		t.Errorf("one name changed, and %d bytes were written", n)
	}
}
