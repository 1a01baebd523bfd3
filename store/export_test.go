package store

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
)

// Running reports whether somebody is the writer: in tests, that Run has begun.
func (s *Store) Running() bool { return len(s.writer) == 1 }

// Unsynced makes nothing durable: a test of anything else need not wait for a disk.
func (c *Config) Unsynced() { c.unsynced = true }

// Synced undoes Unsynced.
func (c *Config) Synced() { c.unsynced = false }

// Durability is what each file's connections say of PRAGMA synchronous.
func (s *Store) Durability(ctx context.Context) (household, ledger, memory string, err error) {
	for _, f := range []struct {
		db *sql.DB
		to *string
	}{{s.Household.db, &household}, {s.ledger.db, &ledger}, {s.memory.db, &memory}} {
		err = errors.Join(err, f.db.QueryRowContext(ctx, "PRAGMA synchronous").Scan(f.to))
	}
	return household, ledger, memory, err
}

// Migrate runs the migrations under m/ of fsys on a file of its own.
func Migrate(ctx context.Context, path string, fsys fs.FS, before func(int) error) error {
	steps, err := scripts(fsys, "m")
	if err != nil {
		return err
	}
	db := openFile(path, "rwc", 1)
	defer db.Close()
	return migrate(ctx, db, steps, before)
}

// CopyBefore is what happens to household.db before a migration.
func (h *Household) CopyBefore(ctx context.Context, path string, version int) error {
	return copyBefore(ctx, h.db, path, version)
}

// Ask reads the ledger as the pages' queries do.
func (s *Store) Ask(ctx context.Context, query func(context.Context) error) error {
	_, err := ask(ctx, s, func(ctx context.Context, _ *sql.DB) (struct{}, error) { return struct{}{}, query(ctx) })
	return err
}

// Flush writes all that was recorded before the call, so that it can be read.
func (s *Store) Flush(ctx context.Context) error {
	return s.asWriter(ctx, func() error {
		s.drain()
		return s.flush(ctx)
	})
}

// Tidy enforces age and byte budget now, as Run does by itself.
func (s *Store) Tidy(ctx context.Context) error {
	return s.asWriter(ctx, func() error { return s.tidy(ctx) })
}

// Remember writes the daily roll-ups and rare events to memory.db now, as Run does
// once a day and when it ends.
func (s *Store) Remember(ctx context.Context) error {
	return s.asWriter(ctx, func() error { return s.remember(ctx) })
}
