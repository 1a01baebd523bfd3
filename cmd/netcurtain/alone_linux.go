package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/configs"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/enforce"
	"github.com/netcurtain/netcurtain/internal/buildinfo"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/store"
	"github.com/netcurtain/netcurtain/ui"
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

// askAlone asks the files of a house whose daemon does not run, through the same
// API. They are locked until the answer was read.
func (f ledgerFlags) askAlone(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	s, err := f.read()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{filepath.Join(s.House.State, "household.db"), filepath.Join(s.House.Volatile, "ledger.db")} {
		if _, err := os.Stat(name); err != nil {
			return nil, fmt.Errorf("no daemon answers, and its files are not there either: name the settings with --config: %w", err)
		}
	}
	lock, err := lockHouse(s.House.State)
	if err != nil {
		return nil, fmt.Errorf("no daemon answers, but %w", err)
	}
	house, pages, err := openAlone(ctx, &s)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	server := &http.Server{Handler: pages.Control(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	ours, theirs := net.Pipe()
	l := &oneConn{conn: make(chan net.Conn, 1), done: make(chan struct{})}
	l.conn <- theirs
	go func() { _ = server.Serve(l) }()
	end := func() error { return errors.Join(server.Close(), house.store.Close(), lock.Close()) }
	resp, err := ask(ctx, func(context.Context, string, string) (net.Conn, error) { return ours, nil }, method, path, query, body)
	if err == nil {
		resp, err = refused(resp)
	}
	if err != nil {
		return nil, errors.Join(err, end())
	}
	resp.Body = bodyOf{resp.Body, end}
	return resp, nil
}

// bodyOf is an answer whose end closes the house that gave it.
type bodyOf struct {
	io.ReadCloser
	end func() error
}

func (b bodyOf) Close() error { return errors.Join(b.ReadCloser.Close(), b.end()) }

// oneConn is a listener for a connection that is there already.
type oneConn struct {
	conn chan net.Conn
	done chan struct{}
	once sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *oneConn) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "alone", Net: "unix"} }

// aloneHouse is the house as its files know it: what was written down can be read
// and erased, and nothing else be changed, for nobody would obey.
type aloneHouse struct {
	ui.House // nil: only what is below is asked for by the commands that come here
	store    *store.Store
	registry *devices.Registry
}

func (h aloneHouse) Devices(now time.Time) []devices.Device { return h.registry.All(now) }

func (h aloneHouse) Erase(ctx context.Context, id devices.ID) (int64, error) {
	return eraseIn(ctx, h.store, id)
}

func (h aloneHouse) Forget(ctx context.Context, id devices.ID) (int64, error) {
	return forgetIn(ctx, h.store, id, "cli")
}

// openAlone opens a house's files, and pages that show them.
func openAlone(ctx context.Context, s *configs.Settings) (_ *aloneHouse, _ *ui.Server, err error) {
	cfg := storeConfig(s)
	h := &aloneHouse{}
	if h.store, err = store.Open(ctx, cfg); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.store.Close())
		}
	}()
	known, err := h.store.Known(ctx)
	if err != nil {
		return nil, nil, err
	}
	choices, err := h.store.Choices(ctx)
	if err != nil {
		return nil, nil, err
	}
	text, _, err := h.store.Setting(ctx, keySince)
	if err != nil {
		return nil, nil, err
	}
	since, _ := time.Parse(time.RFC3339, text) // never said yes: the zero time
	h.registry = devices.NewRegistry(devices.Config{Maker: atlas.Maker, Now: time.Now, Since: since})
	h.registry.Restore(known...)
	h.registry.Choose(choices)
	nobody, err := journal.NewRecorder(journal.Config{}) // there is nothing live
	if err != nil {
		return nil, nil, err
	}
	pages, err := ui.New(ui.Config{House: h, Ledger: h.store, Live: nobody, Version: buildinfo.Version})
	return h, pages, err
}
