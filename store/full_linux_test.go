package store_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/store"
)

// brimful writes until nothing more fits, and returns how to make room again.
func brimful(t *testing.T, dir string) (drain func()) {
	t.Helper()
	path := filepath.Join(dir, "fill")
	f, err := os.Create(path)
	must(t, err)
	for _, size := range []int{1 << 16, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	must(t, f.Close())
	return func() { must(t, os.Remove(path)) }
}

// A file system that is full to the last byte keeps nobody from erasing.
func TestEraseOnAFullDisk(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		erase func(*house) (int64, error)
	}{
		{"all", func(h *house) (int64, error) { return h.EraseAll(t.Context()) }},
		{"one device", func(h *house) (int64, error) { return h.Erase(t.Context(), tv) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			small := filepath.Join(t.TempDir(), "small")
			mountSmall(t, small, 12<<20)
			h := open(t, t.TempDir(), func(c *store.Config) { c.LedgerPath, c.Bytes = filepath.Join(small, "ledger.db"), 64<<20 })
			plant(h, tv, "erasme", 10_000)
			must(t, h.Remember(t.Context()))
			drain := brimful(t, small)
			rows, err := c.erase(h)
			if err != nil || rows == 0 {
				t.Fatalf("%d rows, %v", rows, err)
			}
			for _, dir := range []string{small, filepath.Dir(h.cfg.MemoryPath)} {
				if bytes.Contains(raw(t, dir), []byte("erasme")) {
					t.Errorf("a name is left in %s", dir)
				}
			}
			drain()
			h.record(talk(tv, devices.LogNames, h.now(), "later.example", flow.Encrypted, 1, 1))
			if rows := flowsOf(t, h, tv); len(rows) != 1 {
				t.Errorf("afterwards %d flows are written, one wanted", len(rows))
			}
		})
	}
}
