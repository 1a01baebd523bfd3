package store

import (
	"context"
	"database/sql"
	"fmt"
	"os"

	"github.com/netcurtain/netcurtain/devices"
)

// Erase removes all that was ever written about what one device did: rows,
// roll-ups, events, the audit log's lines, what waits in memory, and the text
// that only it used; and then makes sure that no copy is left in write-ahead
// logs, journals, free pages or files put aside. It returns how many rows went.
// How the device is treated (its name, mode, rules) stays: see Unchoose and RemoveRule.
//
// A file system or a flash translation layer may keep old blocks of its own,
// which no program can reach.
func (s *Store) Erase(ctx context.Context, device devices.ID) (rows int64, err error) {
	return s.erase(ctx, device, false)
}

// EraseAll does what Erase does, for every device and the house itself.
func (s *Store) EraseAll(ctx context.Context) (rows int64, err error) {
	return s.erase(ctx, "", true)
}

// Forget removes what was written about a device while more was written down
// than now; offer it when a device's log level falls. It is Erase by another name,
// since of what was written no part is without names.
func (s *Store) Forget(ctx context.Context, device devices.ID) (rows int64, err error) {
	return s.Erase(ctx, device)
}

func (s *Store) erase(ctx context.Context, device devices.ID, all bool) (rows int64, err error) {
	err = s.asWriter(ctx, func() error {
		s.drain()
		rows += s.ledger.discard(device, all)
		n, err := s.ledger.erase(ctx, device, all)
		rows += n
		if err == nil {
			err = s.scrub(ctx)
		}
		if err != nil {
			return fmt.Errorf("ledger: %w", err)
		}
		if s.memory != nil {
			n, err := s.memory.erase(ctx, device, all)
			rows += n
			if err != nil {
				return fmt.Errorf("memory: %w", err)
			}
			if err := removeQuarantined(s.cfg.MemoryPath); err != nil {
				return err
			}
		}
		return removeQuarantined(s.cfg.LedgerPath)
	})
	if err == nil {
		err = s.eraseAudit(ctx, device, all)
	}
	if err != nil {
		return rows, fmt.Errorf("erasing: %w", err)
	}
	return rows, nil
}

// discardAll empties the batch.
func (l *ledger) discardAll() int64 { return l.discard("", true) }

// discard takes a device's entries out of the batch.
func (l *ledger) discard(device devices.ID, all bool) int64 {
	kept := l.batch[:0]
	for _, e := range l.batch {
		if !all && e.Device != device {
			kept = append(kept, e)
		}
	}
	gone := len(l.batch) - len(kept)
	clear(l.batch[len(kept):])
	l.batch = kept
	return int64(gone)
}

func (l *ledger) erase(ctx context.Context, device devices.ID, all bool) (rows int64, err error) {
	const numbered = "(?2 OR device = (SELECT id FROM device WHERE device = ?1))"
	err = inTx(ctx, l.db, func(tx *sql.Tx) error {
		for _, query := range []string{
			"DELETE FROM flow WHERE " + numbered,
			"DELETE FROM lookup WHERE " + numbered,
			"DELETE FROM hour WHERE " + numbered,
			"DELETE FROM unsaved WHERE ?2 OR device = ?1",
			"DELETE FROM event WHERE ?2 OR device = ?1 OR ?1 != '' AND instr(text, ?1)",
		} {
			done, err := tx.ExecContext(ctx, query, string(device), all)
			if err != nil {
				return err
			}
			n, err := done.RowsAffected()
			if err != nil {
				return err
			}
			rows += n
		}
		return nil
	})
	if err == nil {
		err = l.sweep(ctx)
	}
	return rows, err
}

// scrub writes the ledger anew and puts that in its place. Overwriting what is
// deleted (secure_delete) is not enough: when SQLite moves a cell to a
// neighbouring page, the old page keeps a stale copy between its cells, which no
// later delete knows of; the erase test finds it. A plain VACUUM would do, but needs the file's
// size twice over, in memory and in the write-ahead log, and the ledger may lie in RAM.
func (s *Store) scrub(ctx context.Context) error {
	path := s.cfg.LedgerPath
	clean := path + cleanSuffix
	if err := copyTo(ctx, s.ledger.db, clean); err != nil {
		return fmt.Errorf("rewriting the file, which needs its size in free space for a moment: %w", err)
	}
	return s.exchange(ctx, func() error {
		for _, p := range companions(path)[1:] {
			if err := removeIfThere(p); err != nil {
				return err
			}
		}
		return os.Rename(clean, path)
	})
}

func (m *memory) erase(ctx context.Context, device devices.ID, all bool) (rows int64, err error) {
	err = inTx(ctx, m.db, func(tx *sql.Tx) error {
		for _, query := range []string{
			"DELETE FROM day WHERE ?2 OR device = (SELECT id FROM device WHERE device = ?1)",
			"DELETE FROM event WHERE ?2 OR device = ?1 OR ?1 != '' AND instr(text, ?1)",
		} {
			done, err := tx.ExecContext(ctx, query, string(device), all)
			if err != nil {
				return err
			}
			n, err := done.RowsAffected()
			if err != nil {
				return err
			}
			rows += n
		}
		return m.sweep(ctx, tx)
	})
	if err == nil && rows > 0 {
		_, err = m.db.ExecContext(ctx, "VACUUM")
	}
	return rows, err
}
