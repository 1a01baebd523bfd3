package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
)

// Erase removes all that was ever written about what one device did: rows,
// roll-ups, events, the audit log's lines, what waits in memory, and the text
// that only it used; and then makes sure that no copy is left in write-ahead
// logs, journals, free pages or files put aside. It returns how many rows went.
// How the device is treated stays: see Unchoose (its name and mode), RemoveRule
// and RemoveKnown (who it is: without that it would be a stranger in its house).
//
// A file system or a flash translation layer may keep old blocks of its own,
// which no program can reach.
func (s *Store) Erase(ctx context.Context, device devices.ID) (rows int64, err error) {
	return s.erase(ctx, erasure{device: device})
}

// EraseAll does what Erase does, for every device and the house itself. Choices,
// rules and known devices stay here, too. It begins both files anew, which works
// where nothing else does: on a file system that is full to the last byte.
func (s *Store) EraseAll(ctx context.Context) (rows int64, err error) {
	err = s.asWriter(ctx, func() error {
		ctx := context.WithoutCancel(ctx) // once begun, it is finished
		s.drain()
		rows = s.ledger.discard(erasure{all: true}) + s.ledger.count(ctx)
		// The memory first: what it keeps would come back with the new ledger.
		if s.memory != nil {
			rows += s.memory.count(ctx)
			if err := s.eraseMemory(ctx); err != nil {
				return fmt.Errorf("memory: %w", err)
			}
		}
		if err := s.exchange(ctx, func() error { return wipeAll(s.cfg.LedgerPath) }); err != nil {
			return fmt.Errorf("ledger: %w", err)
		}
		return removeQuarantined(s.cfg.LedgerPath)
	})
	if err == nil {
		err = s.eraseAudit(context.WithoutCancel(ctx), "", true)
	}
	if err != nil {
		return rows, fmt.Errorf("erasing: %w", err)
	}
	return rows, nil
}

func (s *Store) eraseMemory(ctx context.Context) error {
	// Neither a corrupt file nor a full disk need close well.
	s.memory.db.Close()
	if err := errors.Join(wipeAll(s.cfg.MemoryPath), removeQuarantined(s.cfg.MemoryPath)); err != nil {
		return err
	}
	m, err := openMemory(ctx, s.cfg)
	if err != nil {
		return err
	}
	s.memory = m
	return nil
}

// count is how many rows of what devices did there are, sums included; 0 when
// that cannot be read.
func (l *ledger) count(ctx context.Context) int64 {
	return countIn(ctx, l.db, "flow", "lookup", "hour", "unsaved", "event")
}

func (m *memory) count(ctx context.Context) int64 { return countIn(ctx, m.db, "day", "event") }

func countIn(ctx context.Context, db *sql.DB, tables ...string) (sum int64) {
	for _, t := range tables {
		var n int64
		if db.QueryRowContext(ctx, "SELECT count(*) FROM "+t).Scan(&n) == nil {
			sum += n
		}
	}
	return sum
}

// Forget removes what was written about a device beyond counts, as thoroughly
// as Erase does, and leaves what would have been written had it been counted
// from the beginning. Offer it when a device's log level falls.
func (s *Store) Forget(ctx context.Context, device devices.ID) (rows int64, err error) {
	return s.erase(ctx, erasure{device: device, counts: true})
}

// erasure says whose traces go, and which.
type erasure struct {
	device devices.ID
	all    bool // of every device, and of the house: of what waits to be written
	counts bool // the counts stay
}

func (s *Store) erase(ctx context.Context, x erasure) (rows int64, err error) {
	err = s.asWriter(ctx, func() error {
		ctx := context.WithoutCancel(ctx) // once begun, it is finished
		s.drain()
		rows += s.ledger.discard(x)
		n, err := s.eraseLedger(ctx, x)
		if isFull(err) { // the oldest hours give their room
			if err = s.makeRoom(ctx); err == nil {
				n, err = s.eraseLedger(ctx, x)
			}
		}
		rows += n
		if err != nil {
			return fmt.Errorf("ledger: %w", err)
		}
		if s.memory != nil {
			n, err := s.memory.erase(ctx, x)
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
	if err == nil && !x.counts {
		err = s.eraseAudit(context.WithoutCancel(ctx), x.device, false)
	}
	if err != nil {
		return rows, fmt.Errorf("erasing: %w", err)
	}
	return rows, nil
}

func (s *Store) eraseLedger(ctx context.Context, x erasure) (rows int64, err error) {
	if rows, err = s.ledger.erase(ctx, x); err == nil {
		err = s.scrub(ctx)
	}
	return rows, err
}

// discard takes entries out of the batch, or their names, and says how many went.
func (l *ledger) discard(x erasure) int64 {
	kept := l.batch[:0]
	for _, e := range l.batch {
		switch {
		case !x.all && e.Device != x.device:
			kept = append(kept, e)
		case x.counts:
			e.Log = devices.LogCounts
			kept = append(kept, e)
		}
	}
	gone := len(l.batch) - len(kept)
	clear(l.batch[len(kept):])
	l.batch = kept
	return int64(gone)
}

// step is one statement of an erasure; counted says whether its rows are told.
type step struct {
	query   string
	counted bool
}

func (x erasure) run(ctx context.Context, tx *sql.Tx, steps []step) (rows int64, err error) {
	for _, s := range steps {
		done, err := tx.ExecContext(ctx, s.query, string(x.device))
		if err != nil {
			return rows, err
		}
		if s.counted {
			n, err := done.RowsAffected()
			if err != nil {
				return rows, err
			}
			rows += n
		}
	}
	return rows, nil
}

// forgetEvents leaves of a device's events what a counted device's events are
// (page.event), and nothing that another's event says of it.
var forgetEvents = []step{
	{fmt.Sprintf("UPDATE event SET subject = '', text = '' WHERE device = ?1 AND kind NOT IN ('%s', '%s')", journal.EventNewDevice, journal.EventHealth), false},
	{"DELETE FROM event WHERE device != ?1 AND ?1 != '' AND instr(text, ?1)", true},
}

func (l *ledger) erase(ctx context.Context, x erasure) (rows int64, err error) {
	const whose = "device = (SELECT id FROM device WHERE device = ?1)"
	steps := []step{
		{"DELETE FROM flow WHERE " + whose, true},
		{"DELETE FROM lookup WHERE " + whose, true},
		{"DELETE FROM partner WHERE " + whose, false},
	}
	if x.counts {
		steps = append(steps,
			step{foldHours + " AND " + whose + foldedHours, false},
			step{"DELETE FROM hour WHERE destination != 0 AND " + whose, true},
			step{`INSERT INTO unsaved SELECT day, device, '', protection, sum(bytes_out), sum(bytes_in), sum(flows), sum(lookups), sum(blocked)
				FROM unsaved WHERE organisation != '' AND device = ?1 GROUP BY day, protection ` + addDay, false},
			step{"DELETE FROM unsaved WHERE organisation != '' AND device = ?1", false})
		steps = append(steps, forgetEvents...)
	} else {
		steps = append(steps,
			step{"DELETE FROM hour WHERE " + whose, true},
			step{"DELETE FROM tally WHERE " + whose, false},
			step{"DELETE FROM unsaved WHERE device = ?1", true},
			step{"DELETE FROM event WHERE device = ?1 OR ?1 != '' AND instr(text, ?1)", true})
	}
	err = inTx(ctx, l.db, func(tx *sql.Tx) error {
		rows, err = x.run(ctx, tx, steps)
		return err
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
		old, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer old.Close()
		for _, p := range companions(path)[1:] {
			if err := errors.Join(wipe(p), removeIfThere(p)); err != nil {
				return err
			}
		}
		if err := os.Rename(clean, path); err != nil {
			return err
		}
		return zero(old) // only now: until then it was the ledger
	})
}

func (m *memory) erase(ctx context.Context, x erasure) (rows int64, err error) {
	const whose = "device = (SELECT id FROM device WHERE device = ?1)"
	var steps []step
	if x.counts {
		const none = "(SELECT id FROM organisation WHERE name = '')"
		steps = append([]step{
			{"INSERT OR IGNORE INTO organisation (name) VALUES ('')", false},
			{`INSERT INTO day SELECT day, device, ` + none + `, protection, sum(bytes_out), sum(bytes_in), sum(flows), sum(lookups), sum(blocked)
				FROM day WHERE organisation != ` + none + ` AND ` + whose + ` GROUP BY day, device, protection ` + addDay, false},
			{"DELETE FROM day WHERE organisation != " + none + " AND " + whose, true},
		}, forgetEvents...)
	} else {
		steps = []step{
			{"DELETE FROM day WHERE " + whose, true},
			{"DELETE FROM event WHERE device = ?1 OR ?1 != '' AND instr(text, ?1)", true},
		}
	}
	err = inTx(ctx, m.db, func(tx *sql.Tx) error {
		if rows, err = x.run(ctx, tx, steps); err != nil {
			return err
		}
		return m.sweep(ctx, tx)
	})
	if err == nil {
		_, err = m.db.ExecContext(ctx, "VACUUM") // stale copies, as in scrub; the file is small
	}
	return rows, err
}
