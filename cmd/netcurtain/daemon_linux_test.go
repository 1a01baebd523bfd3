package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A folder below /tmp that another user put there is not written to: its owner
// could read the ledger along, or have it written elsewhere.
func TestOwnFolder(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "a", "mine")
	for range 2 { // made, then found
		if err := ownFolder(mine); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(mine); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v: others may look in", info.Mode(), err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(mine, link); err != nil {
		t.Fatal(err)
	}
	if err := ownFolder(link); err != nil {
		t.Errorf("the administrator's own link: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can give a folder away")
	}
	theirs := filepath.Join(dir, "theirs")
	if err := os.Mkdir(theirs, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(theirs, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(link, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{theirs, link} {
		if err := ownFolder(bad); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// The kernel leaves traffic alone while somebody still answers it; a room that
// fails ends all; one that hangs holds nobody up for long.
func TestTogether(t *testing.T) {
	wait := func(ctx context.Context) error { <-ctx.Done(); return nil }
	well := func(context.Context) error { return nil }
	fails := func(context.Context) error { time.Sleep(time.Second); return errors.New("no socket") }
	for name, c := range map[string]struct {
		first, prepare, room func(context.Context) error
		stop                 time.Duration // when the daemon is told to
		want                 string
		at                   time.Duration
	}{
		"stopped":      {wait, well, wait, time.Minute, "", time.Minute + time.Second},
		"a room fails": {wait, well, fails, time.Hour, "room: no socket", 2 * time.Second},
		"a room hangs": {wait, well, func(context.Context) error { time.Sleep(time.Hour); return nil },
			time.Minute, "room did not end within 4s", time.Minute + 5*time.Second},
		"the kernel refuses": {wait, fails, wait, time.Hour, "no socket", time.Second},
		"a first room fails while the kernel is prepared": {fails, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, wait,
			time.Hour, "first: no socket", time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), c.stop)
				defer cancel()
				var shut atomic.Bool
				err := together(ctx, []task{{"first", c.first}}, c.prepare, []task{{"room", c.room}, {"listener", func(ctx context.Context) error {
					if <-ctx.Done(); !shut.Load() && c.want != "room: no socket" {
						t.Error("nobody listens, and the kernel still brings traffic")
					}
					return nil
				}}}, []task{{"pulse", func(ctx context.Context) error {
					<-ctx.Done()
					time.Sleep(time.Second)
					shut.Store(true)
					return nil
				}}})
				if got := time.Since(began); got != c.at {
					t.Errorf("it ended after %s, %s was expected", got, c.at)
				}
				if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("%v", err)
				}
				time.Sleep(2 * time.Hour) // who hangs may go home
			})
		})
	}
}
