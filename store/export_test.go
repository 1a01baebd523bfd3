package store

import (
	"context"
	"database/sql"
	"io/fs"
)

// Running reports whether somebody is the writer: in tests, that Run has begun.
func (s *Store) Running() bool { return len(s.writer) == 1 }

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
