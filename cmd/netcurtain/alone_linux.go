package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/netcurtain/netcurtain/enforce"
	"github.com/netcurtain/netcurtain/store"
)

// lockHouse takes the state folder for this process, until the file is closed or
// the process ends, however it ends.
func lockHouse(state string) (*os.File, error) {
	path := filepath.Join(state, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the state folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 20))
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			pid := strings.TrimSpace(string(holder))
			return nil, fmt.Errorf("process %s holds %s already: if it hangs, end it with kill -9 %s, then try again", pid, state, pid)
		}
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintln(f, os.Getpid())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
	}
	return f, nil
}

// turnAlone switches the house while no daemon runs, and for off does to the
// kernel what the daemon would do.
func (f switchFlags) turnAlone(ctx context.Context, io std, on bool) (err error) {
	s, err := f.read()
	if err != nil {
		return err
	}
	path := filepath.Join(s.House.State, "household.db")
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("no daemon answers, and no household's choices are in %s: name the settings with --config: %w", s.House.State, err)
	}
	lock, err := lockHouse(s.House.State)
	if err != nil {
		return fmt.Errorf("no daemon answers, but %w", err)
	}
	defer lock.Close()
	if err := switchIn(ctx, path, on); err != nil {
		return err
	}
	if on {
		fmt.Fprintln(io.err, "No daemon runs. Netcurtain is switched on and takes hold, with whatever is cut, when it starts: netcurtain run")
		return nil
	}
	k, err := enforce.New(enforce.Config{Logger: slog.New(slog.DiscardHandler), CutFile: filepath.Join(s.House.State, "cut.nft")})
	if err != nil {
		return err
	}
	if err := errors.Join(enforce.Release(ctx), k.RemoveCut(ctx)); err != nil {
		return fmt.Errorf("netcurtain is switched off for its next start, but not all of it is out of the kernel: %w", err)
	}
	fmt.Fprintln(io.err, "No daemon runs. Netcurtain is switched off and nothing of it is in the kernel; devices that were cut have their internet. It stays off when it starts, until: netcurtain on")
	return nil
}

// switchIn writes the switch into a household.db.
func switchIn(ctx context.Context, path string, on bool) error {
	h, err := store.OpenHousehold(ctx, path, time.Now)
	if err != nil {
		return err
	}
	return errors.Join(h.Switch(ctx, on, "cli"), h.Close())
}
