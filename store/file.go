package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"
)

//go:embed migrations
var migrations embed.FS

// Errors that a caller may want to tell apart.
var (
	// ErrNewer says that a file was written by a later version of this program.
	ErrNewer = errors.New("written by a newer version of netcurtain")
	// ErrCorrupt says that a file is not, or no longer, a sound database.
	ErrCorrupt = errors.New("not a sound database")
)

// connector opens connections to one file and sets each up the same way. The
// DSN parameters of the driver could say most of it, but hide the order, which matters.
type connector struct {
	driver *sqlite3.SQLiteDriver
	dsn    string
}

func (c connector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }
func (c connector) Driver() driver.Driver                        { return c.driver }

// openFile gives a pool of at most conns connections on path, each set up with
// pragmas. Nothing is opened yet.
func openFile(path, mode string, conns int, pragmas ...string) *sql.DB {
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?mode=" + mode + "&_txlock=immediate&_busy_timeout=5000&_stmt_cache_size=32"
	script := strings.Join(pragmas, ";")
	db := sql.OpenDB(connector{dsn: dsn, driver: &sqlite3.SQLiteDriver{
		ConnectHook: func(c *sqlite3.SQLiteConn) error {
			_, err := c.Exec(script, nil)
			return err
		},
	}})
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db
}

// prepare makes sure that path can be a database: it says in words what SQLite
// only calls "unable to open database file", and lets nobody else read a new
// file (its journals get the same mode). What a crash left half made goes.
func prepare(path string) error {
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("directory %s does not exist: create it, or name another in the configuration", dir)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", dir)
	}
	probe, err := os.CreateTemp(dir, ".writable-*")
	if err != nil {
		return fmt.Errorf("directory %s cannot be written to: %w", dir, err)
	}
	if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
		return err
	}
	for _, half := range []string{path + partSuffix, path + cleanSuffix, path + cleanSuffix + partSuffix} {
		if err := removeAll(half); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// partSuffix marks a file that is not complete yet, cleanSuffix one that is
// about to take its place.
const (
	partSuffix  = ".part"
	cleanSuffix = ".clean"
)

// copyTo writes a copy of db to path, complete or not at all. The copy holds
// what can be read and nothing else: no free pages, no remains of what was deleted.
func copyTo(ctx context.Context, db *sql.DB, path string) error {
	part := path + partSuffix
	if err := removeAll(part); err != nil { // a journal of another part would be rolled back into this one
		return err
	}
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", part); err != nil {
		return errors.Join(err, removeAll(part))
	}
	f, err := os.OpenFile(part, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(0o600), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// removeIfThere is os.Remove for what may not exist.
func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeAll removes a database and its companions, as far as they are there.
func removeAll(path string) error {
	var errs []error
	for _, p := range companions(path) {
		errs = append(errs, removeIfThere(p))
	}
	return errors.Join(errs...)
}

// wipeAll overwrites a database and its companions with zeros and removes them,
// which needs no room on a file system that is full.
func wipeAll(path string) error {
	var errs []error
	for _, p := range companions(path) {
		errs = append(errs, wipe(p), removeIfThere(p))
	}
	return errors.Join(errs...)
}

func wipe(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return zero(f)
}

// zero overwrites what a file holds.
func zero(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	zeros := make([]byte, 64<<10)
	for left := info.Size(); left > 0; left -= int64(len(zeros)) {
		if _, err := f.Write(zeros[:min(left, int64(len(zeros)))]); err != nil {
			return nil // a file with holes on a full disk: removing it is what can be done
		}
	}
	return f.Sync()
}

// script is one step of a schema.
type script struct{ name, text string }

// scripts are the steps of one file's schema in order; the n-th leads to
// version n. fs.ReadDir sorts by name.
func scripts(fsys fs.FS, dir string) ([]script, error) {
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return nil, err
	}
	var all []script
	for _, e := range entries {
		b, err := fs.ReadFile(fsys, dir+"/"+e.Name())
		if err != nil {
			return nil, err
		}
		all = append(all, script{e.Name(), string(b)})
	}
	return all, nil
}

// migrate brings db to the newest version, each step in its own transaction.
// before is called once, when db holds something and a step is to be made.
func migrate(ctx context.Context, db *sql.DB, steps []script, before func(version int) error) error {
	var version int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > len(steps) {
		return fmt.Errorf("%w: it has version %d, this program knows %d", ErrNewer, version, len(steps))
	}
	if version > 0 && version < len(steps) && before != nil {
		if err := before(version); err != nil {
			return err
		}
	}
	for i := version; i < len(steps); i++ {
		err := inTx(ctx, db, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, steps[i].text); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", i+1))
			return err
		})
		if err != nil {
			return fmt.Errorf("migration %s: %w", steps[i].name, err)
		}
	}
	return nil
}

// inTx runs fn in a transaction that begins immediate, and ends it.
func inTx(ctx context.Context, db *sql.DB, fn func(tx *sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // says ErrTxDone after a commit, and nothing else that could be mended
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// quickCheck reads the whole file, and is for files that may have been hurt.
func quickCheck(ctx context.Context, db *sql.DB) error {
	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return fmt.Errorf("%w: %s", ErrCorrupt, verdict)
	}
	return nil
}

// isCorrupt reports whether err says that the file itself is bad.
func isCorrupt(err error) bool {
	var e sqlite3.Error
	return errors.Is(err, ErrCorrupt) || errors.As(err, &e) && (e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB)
}

// isFull reports whether err says that the device or the file is full.
func isFull(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && e.Code == sqlite3.ErrFull
}

// isBusy reports whether err says that another program holds the file.
func isBusy(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.Code == sqlite3.ErrBusy || e.Code == sqlite3.ErrLocked)
}

// companions are the files that SQLite keeps beside a database.
func companions(path string) []string {
	return []string{path, path + "-wal", path + "-shm", path + "-journal"}
}

// sizeOf is how many bytes path and its companions take.
func sizeOf(path string) int64 {
	var sum int64
	for _, p := range companions(path) {
		if info, err := os.Stat(p); err == nil {
			sum += info.Size()
		}
	}
	return sum
}

// quarantine moves a bad file out of the way and returns where to. One is kept
// at most: in a ledger that lies in RAM, a second would eat the router.
func quarantine(path, why string, now time.Time) (string, error) {
	if err := removeQuarantined(path); err != nil {
		return "", err
	}
	aside := fmt.Sprintf("%s.%s-%s", path, why, now.UTC().Format("20060102T150405Z"))
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	for _, p := range companions(path)[1:] {
		if err := removeIfThere(p); err != nil {
			return aside, err
		}
	}
	return aside, nil
}

// removeQuarantined deletes what quarantine put aside; it may hold names.
func removeQuarantined(path string) error {
	var errs []error
	for _, why := range []string{whyCorrupt, whyNewer} {
		old, err := filepath.Glob(globQuote(path) + "." + why + "-*")
		if err != nil {
			return err
		}
		for _, p := range old {
			errs = append(errs, os.Remove(p))
		}
	}
	return errors.Join(errs...)
}

// The words in the names of files put aside.
const (
	whyCorrupt = "corrupt"
	whyNewer   = "newer"
)

func globQuote(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(s)
}
