package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Bounds of the ledger that are not the household's business.
const (
	maxEvents = 4000 // rare events are pruned by number and not by age
	chunkRows = 1000 // deleted in one transaction, so that the write-ahead log stays small
)

// budget is what the main file of the ledger may use: the configured bytes
// without an eighth, or without 2.25 MB where that is more, for the write-ahead log
// and for growth between two looks.
func (s *Store) budget() int64 { return s.cfg.Bytes - max(s.cfg.Bytes/8, minBytes/2+256<<10) }

// used is how many bytes of the main file hold something.
func (l *ledger) used(ctx context.Context) int64 {
	var used int64
	err := l.db.QueryRowContext(ctx, `SELECT (page_count - freelist_count) * page_size
		FROM pragma_page_count, pragma_freelist_count, pragma_page_size`).Scan(&used)
	if err != nil {
		return 0 // the next write says what is wrong
	}
	return used
}

// prune removes the hours that are too old, and then as many of the oldest
// hours as it takes to use at most nine tenths of budget, if more than budget is used.
func (s *Store) prune(ctx context.Context, budget int64) error {
	l := s.ledger
	aged, err := l.dropBefore(ctx, hourOf(idOf(s.cfg.Now().Add(-s.cfg.Age))))
	if err != nil {
		return fmt.Errorf("removing what is older than %s: %w", s.cfg.Age, err)
	}
	over, err := l.shrink(ctx, budget)
	if err != nil {
		return fmt.Errorf("keeping to %d bytes: %w", budget, err)
	}
	trimmed, err := l.drop(ctx, `DELETE FROM event WHERE id <= (SELECT id FROM event ORDER BY id DESC LIMIT 1 OFFSET ?)`, maxEvents)
	if err != nil {
		return fmt.Errorf("keeping to %d events: %w", maxEvents, err)
	}
	if s.memory == nil { // nobody will ever take them
		if _, err := l.drop(ctx, "DELETE FROM unsaved WHERE day < ?", dayOf(s.cfg.Now().Add(-s.cfg.Age))); err != nil {
			return err
		}
	}
	rows := aged + over + trimmed
	if rows == 0 {
		return nil
	}
	s.metrics.pruned.Add(float64(rows))
	if over > 0 {
		s.cfg.Logger.Info("ledger pruned to its byte budget", "rows", over, "budget", budget)
	}
	if err := l.sweep(ctx); err != nil {
		return fmt.Errorf("sweeping dictionaries: %w", err)
	}
	return l.compact(ctx)
}

// shrink removes the oldest hours until at most nine tenths of budget are used,
// if more than budget is.
func (l *ledger) shrink(ctx context.Context, budget int64) (rows int64, err error) {
	if l.used(ctx) <= budget {
		return 0, nil
	}
	for used := l.used(ctx); used > budget*9/10; {
		var oldest int64
		err := l.db.QueryRowContext(ctx, "SELECT coalesce(min((SELECT min(hour) FROM hour WHERE device = d.id)), 0) FROM device d").Scan(&oldest)
		if err != nil {
			return rows, err
		}
		var n int64
		if oldest != 0 && oldest < hourOf(l.lastID) {
			n, err = l.dropBefore(ctx, oldest+1)
		} else {
			n, err = l.dropQuarter(ctx)
		}
		rows += n
		if err != nil {
			return rows, err
		}
		// Whole hours free pages; names go only with the sweep.
		if err := l.sweep(ctx); err != nil {
			return rows, err
		}
		now := l.used(ctx)
		if n == 0 && now >= used {
			return rows, errors.New("nothing is left that could be removed")
		}
		used = now
	}
	return rows, nil
}

// dropBefore removes all hours before the given one.
func (l *ledger) dropBefore(ctx context.Context, hour int64) (rows int64, err error) {
	for _, query := range []string{
		"DELETE FROM flow WHERE id IN (SELECT id FROM flow WHERE id < ?1 ORDER BY id LIMIT ?2)",
		"DELETE FROM lookup WHERE id IN (SELECT id FROM lookup WHERE id < ?1 ORDER BY id LIMIT ?2)",
	} {
		n, err := l.drop(ctx, query, firstOf(hour), chunkRows)
		rows += n
		if err != nil {
			return rows, err
		}
	}
	n, err := l.drop(ctx, `DELETE FROM hour WHERE (hour, device, destination, protection) IN
		(SELECT hour, device, destination, protection FROM hour WHERE device IN (SELECT id FROM device) AND hour < ?1 LIMIT ?2)`, hour, chunkRows)
	rows += n
	if err != nil {
		return rows, err
	}
	// These say nothing that the rows above did not: they are not counted.
	if _, err := l.drop(ctx, "DELETE FROM tally WHERE device IN (SELECT id FROM device) AND hour < ?1", hour); err != nil {
		return rows, err
	}
	_, err = l.drop(ctx, "DELETE FROM partner WHERE device IN (SELECT id FROM device) AND day <= ?1 / 24 AND hour < ?1", hour)
	return rows, err
}

// dropQuarter is for a device that floods within one hour: it removes the
// oldest quarter of the hour's rows, and lets the oldest quarter of its
// destinations go from the roll-ups, whose sums stay under no name, and the
// quarter that got least from those whom it reached.
func (l *ledger) dropQuarter(ctx context.Context) (rows int64, err error) {
	for _, table := range []string{"flow", "lookup"} {
		var until int64
		err := l.db.QueryRowContext(ctx, fmt.Sprintf(`SELECT coalesce((SELECT id FROM %[1]s ORDER BY id
			LIMIT 1 OFFSET (SELECT (count(*) + 3) / 4 - 1 FROM %[1]s)), 0)`, table)).Scan(&until)
		if err != nil {
			return rows, err
		}
		n, err := l.drop(ctx, fmt.Sprintf("DELETE FROM %[1]s WHERE id IN (SELECT id FROM %[1]s WHERE id <= ?1 ORDER BY id LIMIT ?2)", table), until, chunkRows)
		rows += n
		if err != nil {
			return rows, err
		}
	}
	var until int64
	err = l.db.QueryRowContext(ctx, `SELECT coalesce((SELECT last_ms FROM hour WHERE destination != 0 ORDER BY last_ms
		LIMIT 1 OFFSET (SELECT (count(*) + 3) / 4 - 1 FROM hour WHERE destination != 0)), -1)`).Scan(&until)
	if err != nil {
		return rows, err
	}
	err = inTx(ctx, l.db, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, foldHours+" AND last_ms <= ?"+foldedHours, until); err != nil {
			return err
		}
		done, err := tx.ExecContext(ctx, "DELETE FROM hour WHERE destination != 0 AND last_ms <= ?", until)
		if err != nil {
			return err
		}
		n, err := done.RowsAffected()
		rows += n
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM partner WHERE (device, day, known, name) IN (SELECT device, day, known, name FROM partner
			WHERE known = 0 ORDER BY hour, bytes_out LIMIT (SELECT (count(*) + 3) / 4 FROM partner WHERE known = 0))`)
		return err
	})
	return rows, err
}

// foldHours and foldedHours, around a further condition, add roll-ups to those
// without a name.
const (
	foldHours = `INSERT INTO hour (device, hour, destination, protection, bytes_out, bytes_in, flows, lookups, blocked, weak, carried, seen, verdict, first_ms, last_ms)
		SELECT device, hour, 0, protection, sum(bytes_out), sum(bytes_in), sum(flows), sum(lookups), sum(blocked), sum(weak), sum(carried), 0, 0, min(first_ms), max(last_ms)
		FROM hour WHERE destination != 0`
	foldedHours = " GROUP BY device, hour, protection " + addHour
)

// drop repeats a DELETE until it finds nothing, one transaction each.
func (l *ledger) drop(ctx context.Context, query string, args ...any) (rows int64, err error) {
	for {
		done, err := l.db.ExecContext(ctx, query, args...)
		if err != nil {
			return rows, err
		}
		n, err := done.RowsAffected()
		if err != nil || n == 0 {
			return rows, err
		}
		rows += n
	}
}

// sweep removes the dictionaries' rows that nothing points to any more.
func (l *ledger) sweep(ctx context.Context) error {
	l.forget()
	for _, query := range []string{
		"DELETE FROM destination WHERE id != 0 AND id NOT IN (SELECT destination FROM flow UNION SELECT destination FROM lookup UNION SELECT destination FROM hour)",
		"DELETE FROM verdict WHERE id != 0 AND id NOT IN (SELECT verdict FROM flow UNION SELECT verdict FROM lookup UNION SELECT verdict FROM hour)",
		"DELETE FROM seen WHERE id != 0 AND id NOT IN (SELECT seen FROM flow UNION SELECT seen FROM hour)",
		"DELETE FROM device WHERE id NOT IN (SELECT device FROM hour UNION SELECT device FROM flow UNION SELECT device FROM lookup)",
	} {
		if _, err := l.db.ExecContext(ctx, query); err != nil {
			return err
		}
	}
	return nil
}

// compact gives free pages back to the file system and empties the write-ahead log.
func (l *ledger) compact(ctx context.Context) error {
	// The pragma frees one page for each row that is read from it.
	rows, err := l.db.QueryContext(ctx, "PRAGMA incremental_vacuum")
	if err != nil {
		return err
	}
	for rows.Next() {
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	_, err = l.checkpoint(ctx)
	return err
}

// checkpoint folds the write-ahead log into the file and cuts it to nothing,
// and reports whether no reader stood in the way.
func (l *ledger) checkpoint(ctx context.Context) (done bool, err error) {
	var busy, frames, moved int
	err = l.db.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &moved)
	return busy == 0, err
}
