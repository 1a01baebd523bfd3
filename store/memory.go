package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
)

// memory writes memory.db. It belongs to whoever is the writer (Store.writer).
type memory struct {
	db    *sql.DB
	path  string
	bytes int64
	day   int       // of the last writing, or of the start
	tried time.Time // and failed
}

// maxKept bounds the events in memory.db: as many as in the ledger, or fewer
// where the file is to be small, for the days need their room.
func (m *memory) maxKept() int64 { return min(maxEvents, m.bytes>>10) }

func openMemory(ctx context.Context, cfg Config) (*memory, error) {
	path := cfg.MemoryPath
	if err := prepare(path); err != nil {
		return nil, err
	}
	steps, err := scripts(migrations, "migrations/memory")
	if err != nil {
		return nil, err
	}
	open := func() (*sql.DB, error) {
		db := openFile(path, "rwc", 1,
			"PRAGMA auto_vacuum = INCREMENTAL",
			"PRAGMA journal_mode = TRUNCATE",
			cfg.synchronous("FULL"),
			"PRAGMA secure_delete = ON",
			"PRAGMA temp_store = MEMORY",
			"PRAGMA cache_size = -512",
		)
		if err := errors.Join(quickCheck(ctx, db), migrate(ctx, db, steps, nil)); err != nil {
			return nil, errors.Join(err, db.Close())
		}
		return db, nil
	}
	db, err := open()
	if why := putAside(err); why != "" {
		aside, moveErr := quarantine(path, why, cfg.Now())
		if moveErr != nil {
			return nil, errors.Join(err, moveErr)
		}
		cfg.Logger.Warn("memory put aside, a new one begins", "why", err, "aside", aside)
		db, err = open()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &memory{db: db, path: path, bytes: cfg.MemoryBytes, day: dayOf(cfg.Now())}, nil
}

// due reports whether another day has begun since the last writing. One that
// failed is tried again after an hour.
func (m *memory) due(now time.Time) bool {
	return dayOf(now) != m.day && now.Sub(m.tried).Abs() >= time.Hour
}

// dayRow is a row of unsaved.
type dayRow struct {
	dayKey
	sum
}

// remember moves what the ledger holds back into memory.db, in one
// transaction. Two files cannot be committed as one, so each portion has a
// number: memory.db keeps that of the last portion it took, and restore clears
// a portion that was taken but not cleared because the power went in between.
func (m *memory) remember(ctx context.Context, l *ledger, now time.Time) error {
	generation, err := l.generation(ctx)
	if err != nil {
		return err
	}
	days, err := l.unsaved(ctx)
	if err != nil {
		return err
	}
	var newest int64
	if err := m.db.QueryRowContext(ctx, "SELECT coalesce(max(id), 0) FROM event").Scan(&newest); err != nil {
		return err
	}
	events, err := eventsAfter(ctx, l.db, newest)
	if err != nil {
		return err
	}
	if len(days)+len(events) == 0 {
		m.day = dayOf(now)
		return nil // nothing to wear the flash for
	}
	if err := inTx(ctx, m.db, func(tx *sql.Tx) error { return m.take(ctx, tx, generation, days, events) }); err != nil {
		m.tried = now
		return fmt.Errorf("writing memory: %w", err)
	}
	m.day, m.tried = dayOf(now), time.Time{}
	return l.saved(ctx)
}

func (m *memory) take(ctx context.Context, tx *sql.Tx, generation int64, days []dayRow, events []journal.EventRow) error {
	for _, d := range days {
		if err := m.addDay(ctx, tx, d); err != nil {
			return err
		}
	}
	for _, e := range events {
		if _, err := tx.ExecContext(ctx, "INSERT OR IGNORE INTO event (id, at_ms, device, kind, subject, text) VALUES (?, ?, ?, ?, ?, ?)",
			e.ID, e.At.UnixMilli(), string(e.Device), string(e.Kind), e.Subject, e.Text); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, "INSERT INTO meta (key, value) VALUES ('taken', ?1) ON CONFLICT DO UPDATE SET value = ?1", generation); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM event WHERE id <= (SELECT id FROM event ORDER BY id DESC LIMIT 1 OFFSET ?)", m.maxKept()); err != nil {
		return err
	}
	return m.shrink(ctx, tx)
}

func (m *memory) addDay(ctx context.Context, tx *sql.Tx, d dayRow) error {
	for _, dictionary := range []struct{ query, text string }{
		{"INSERT OR IGNORE INTO device (device) VALUES (?)", d.device},
		{"INSERT OR IGNORE INTO organisation (name) VALUES (?)", d.organisation},
	} {
		if _, err := tx.ExecContext(ctx, dictionary.query, dictionary.text); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO day (day, device, organisation, protection, bytes_out, bytes_in, flows, lookups, blocked)
		SELECT ?, d.id, o.id, ?, ?, ?, ?, ?, ? FROM device d, organisation o WHERE d.device = ? AND o.name = ? `+addDay,
		d.day, d.protection, d.out, d.in, d.flows, d.lookups, d.blocked, d.device, d.organisation)
	return err
}

// shrink removes the oldest days, within the one transaction of the day, until
// the file keeps to its budget.
func (m *memory) shrink(ctx context.Context, tx *sql.Tx) error {
	shrunk := false
	for {
		var used, oldest int64
		if err := tx.QueryRowContext(ctx, `SELECT (page_count - freelist_count) * page_size, coalesce((SELECT min(day) FROM day), 0)
			FROM pragma_page_count, pragma_freelist_count, pragma_page_size`).Scan(&used, &oldest); err != nil {
			return err
		}
		if used <= m.bytes*7/8 || oldest == 0 {
			break
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM day WHERE day = ?", oldest); err != nil {
			return err
		}
		shrunk = true
	}
	if !shrunk {
		return nil
	}
	return m.sweep(ctx, tx)
}

func (m *memory) sweep(ctx context.Context, tx *sql.Tx) error {
	for _, query := range []string{
		"DELETE FROM organisation WHERE id NOT IN (SELECT organisation FROM day)",
		"DELETE FROM device WHERE id NOT IN (SELECT device FROM day)",
	} {
		if _, err := tx.ExecContext(ctx, query); err != nil {
			return err
		}
	}
	return nil
}

// restore gives the ledger the events that it lost with the power, and
// finishes a remember that the power interrupted.
func (m *memory) restore(ctx context.Context, l *ledger) error {
	generation, err := l.generation(ctx)
	if err != nil {
		return err
	}
	var taken bool
	if err := m.db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM meta WHERE key = 'taken' AND value = ?)", generation).Scan(&taken); err != nil {
		return err
	}
	if taken {
		if err := l.saved(ctx); err != nil {
			return err
		}
	}
	events, err := eventsAfter(ctx, m.db, 0)
	if err != nil {
		return err
	}
	return inTx(ctx, l.db, func(tx *sql.Tx) error {
		for _, e := range events {
			if _, err := tx.ExecContext(ctx, "INSERT OR IGNORE INTO event (id, at_ms, device, kind, subject, text) VALUES (?, ?, ?, ?, ?, ?)",
				e.ID, e.At.UnixMilli(), string(e.Device), string(e.Kind), e.Subject, e.Text); err != nil {
				return err
			}
			l.lastID = max(l.lastID, e.ID)
		}
		return nil
	})
}

// generation is the number of the portion that is in unsaved.
func (l *ledger) generation(ctx context.Context) (n int64, err error) {
	err = l.db.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = 'generation'").Scan(&n)
	return n, err
}

// saved clears unsaved and begins the next portion.
func (l *ledger) saved(ctx context.Context) error {
	return inTx(ctx, l.db, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM unsaved"); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "UPDATE meta SET value = value + 1 WHERE key = 'generation'")
		return err
	})
}

// unsaved is what memory.db does not know yet.
func (l *ledger) unsaved(ctx context.Context) ([]dayRow, error) {
	rows, err := l.db.QueryContext(ctx, "SELECT day, device, organisation, protection, bytes_out, bytes_in, flows, lookups, blocked FROM unsaved")
	if err != nil {
		return nil, err
	}
	return scanDays(rows)
}

// eventsAfter reads the events of either file whose id is above the given one.
func eventsAfter(ctx context.Context, db *sql.DB, id int64) ([]journal.EventRow, error) {
	rows, err := db.QueryContext(ctx, "SELECT id, at_ms, device, kind, subject, text FROM event WHERE id > ? ORDER BY id", id)
	if err != nil {
		return nil, err
	}
	return scanEvents(rows)
}

func scanEvents(rows *sql.Rows) ([]journal.EventRow, error) {
	defer rows.Close()
	var all []journal.EventRow
	for rows.Next() {
		var e journal.EventRow
		var at int64
		if err := rows.Scan(&e.ID, &at, &e.Device, &e.Kind, &e.Subject, &e.Text); err != nil {
			return nil, err
		}
		e.At = time.UnixMilli(at)
		all = append(all, e)
	}
	return all, rows.Err()
}

// Days is what devices did on each day since the given one, newest first: from
// memory.db and from what it does not know yet. device "" asks for all. It
// takes its turn with the writer, and is for pages that are looked at rarely.
func (s *Store) Days(ctx context.Context, device devices.ID, since time.Time) (all []journal.DayTotals, err error) {
	location := s.cfg.Now().Location()
	first := dayOf(since.In(location))
	err = s.asWriter(ctx, func() error {
		rows, err := s.ledger.unsaved(ctx)
		if err != nil {
			return err
		}
		if s.memory != nil {
			saved, err := s.memory.days(ctx, device, first)
			if err != nil {
				return err
			}
			rows = append(rows, saved...)
		}
		all = mergeDays(rows, device, first, location)
		return nil
	})
	return all, err
}

func (m *memory) days(ctx context.Context, device devices.ID, first int) ([]dayRow, error) {
	rows, err := m.db.QueryContext(ctx, `SELECT t.day, d.device, o.name, t.protection, t.bytes_out, t.bytes_in, t.flows, t.lookups, t.blocked
		FROM day t CROSS JOIN device d ON d.id = t.device CROSS JOIN organisation o ON o.id = t.organisation
		WHERE t.day >= ?1 AND (?2 = '' OR t.device = (SELECT id FROM device WHERE device = ?2))`, first, string(device))
	if err != nil {
		return nil, err
	}
	return scanDays(rows)
}

func scanDays(rows *sql.Rows) ([]dayRow, error) {
	defer rows.Close()
	var all []dayRow
	for rows.Next() {
		var d dayRow
		if err := rows.Scan(&d.day, &d.device, &d.organisation, &d.protection, &d.out, &d.in, &d.flows, &d.lookups, &d.blocked); err != nil {
			return nil, err
		}
		all = append(all, d)
	}
	return all, rows.Err()
}

// mergeDays adds up rows of the same key and puts the newest day first.
func mergeDays(rows []dayRow, device devices.ID, first int, location *time.Location) []journal.DayTotals {
	sums := map[dayKey]*sum{}
	for _, r := range rows {
		if r.day < first || device != "" && r.device != string(device) {
			continue
		}
		if have := sums[r.dayKey]; have != nil {
			have.add(r.sum)
		} else {
			sums[r.dayKey] = &r.sum
		}
	}
	all := make([]journal.DayTotals, 0, len(sums))
	for k, s := range sums {
		s.out, s.in, s.flows = max(s.out, 0), max(s.in, 0), max(s.flows, 0)
		if s.out == 0 && s.in == 0 && s.flows == 0 && s.lookups == 0 && s.blocked == 0 {
			continue // it was taken for something else first (restate)
		}
		all = append(all, journal.DayTotals{
			Day:    time.Date(k.day/10000, time.Month(k.day/100%100), k.day%100, 0, 0, 0, 0, location),
			Device: devices.ID(k.device), Organisation: k.organisation, Protection: rollWords[k.protection],
			BytesOut: s.out, BytesIn: s.in, Flows: s.flows, Lookups: s.lookups, Blocked: s.blocked,
		})
	}
	slices.SortFunc(all, func(a, b journal.DayTotals) int {
		return cmp.Or(b.Day.Compare(a.Day), cmp.Compare(a.Device, b.Device),
			cmp.Compare(a.Organisation, b.Organisation), cmp.Compare(a.Protection, b.Protection))
	})
	return all
}
