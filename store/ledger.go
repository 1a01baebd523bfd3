package store

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
)

// ledger writes ledger.db. It belongs to whoever is the writer (Store.writer).
type ledger struct {
	db     *sql.DB
	now    func() time.Time
	lastID int64
	lead   int64 // seconds by which an id is ahead of its row's clock, at most (migrations/ledger/002)
	batch  []journal.Entry
	dictionaries
	running map[runningFlow]soFar // flows that may go on
	reached map[partnerKey]int64  // the hour that partner is known to have
}

func openLedgerFile(ctx context.Context, cfg Config) (*ledger, error) {
	path := cfg.LedgerPath
	steps, err := scripts(migrations, "migrations/ledger")
	if err != nil {
		return nil, err
	}
	// A write-ahead log that is still there says that nobody closed the file.
	wal, statErr := os.Stat(path + "-wal")
	unclean := statErr == nil && wal.Size() > 0
	db := openFile(path, "rwc", 1,
		"PRAGMA auto_vacuum = INCREMENTAL", // only before the first table; a no-op later
		"PRAGMA journal_mode = WAL",
		cfg.synchronous("NORMAL"),
		"PRAGMA secure_delete = ON", // what is pruned or erased is overwritten
		"PRAGMA temp_store = MEMORY",
		"PRAGMA wal_autocheckpoint = 256", // pages: 1 MB
		"PRAGMA journal_size_limit = 1048576",
		"PRAGMA cache_size = -2048",
	)
	l := &ledger{db: db, now: cfg.Now, dictionaries: newDictionaries()}
	if unclean {
		err = quickCheck(ctx, db)
	}
	if err == nil {
		err = migrate(ctx, db, steps, nil)
	}
	if err == nil {
		err = l.begin(ctx)
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	return l, nil
}

// begin reads where the file left off.
func (l *ledger) begin(ctx context.Context) error {
	// The generation ties unsaved to memory.db (see memory.remember). The time
	// makes that of a new ledger differ from any before.
	_, err := l.db.ExecContext(ctx, "INSERT INTO meta (key, value) VALUES ('generation', ?) ON CONFLICT DO NOTHING", l.now().UnixNano())
	if err != nil {
		return err
	}
	return l.db.QueryRowContext(ctx, `SELECT max(coalesce((SELECT max(id) FROM flow), 0),
		coalesce((SELECT max(id) FROM lookup), 0), coalesce((SELECT max(id) FROM event), 0)),
		(SELECT value FROM meta WHERE key = 'lead')`).Scan(&l.lastID, &l.lead)
}

// An id is a Unix second and a sequence within it (migrations/ledger).
const idShift = 20

func idOf(t time.Time) int64   { return max(t.Unix(), 0) << idShift }
func hourOf(id int64) int64    { return id >> idShift / 3600 }
func firstOf(hour int64) int64 { return hour * 3600 << idShift }

func (l *ledger) nextID(at time.Time) int64 {
	// An entry from the future must not drag all ids after it there.
	if now := l.now(); at.After(now) {
		at = now
	}
	l.lastID = max(l.lastID+1, idOf(at))
	return l.lastID
}

// written notes the id and the time, in Unix milliseconds, of a row.
func (l *ledger) written(id, ms int64) { l.lead = max(l.lead, id>>idShift-ms/1000) }

// add takes an entry into the batch, if anything of it may be written at all.
func (l *ledger) add(e journal.Entry) {
	if e.Log != devices.LogNone {
		l.batch = append(l.batch, e)
	}
}

// touch writes as little as can be written.
func (l *ledger) touch(ctx context.Context) error {
	_, err := l.db.ExecContext(ctx, "UPDATE meta SET value = value WHERE key = 'generation'")
	return err
}

// flush writes the batch in one transaction. Written or not, the batch is
// empty afterwards: memory is bounded, and a row that breaks the file today breaks
// it tomorrow. Only while somebody else holds the file it waits for the next time.
func (l *ledger) flush(ctx context.Context) (rows, lost int, err error) {
	batch := l.batch
	defer func() {
		if isBusy(err) {
			return
		}
		clear(batch) // let go of the entries
		l.batch = batch[:0]
	}()
	lastID, lead := l.lastID, l.lead
	err = inTx(ctx, l.db, func(tx *sql.Tx) error {
		w := page{ctx: ctx, tx: tx, ledger: l, now: l.now(),
			lookups: map[lookupKey]*lookupSum{}, hours: map[hourKey]*sum{}, tallies: map[tallyKey]*tally{},
			partners: map[partnerKey]*partnerSum{}, days: map[dayKey]*sum{}}
		for _, e := range batch {
			if err := w.entry(e); err != nil {
				return err
			}
		}
		if l.lead > lead {
			if err := w.exec("UPDATE meta SET value = ? WHERE key = 'lead'", l.lead); err != nil {
				return err
			}
		}
		if err := w.sums(); err != nil {
			return err
		}
		return w.restate()
	})
	if err != nil {
		l.lastID, l.lead = lastID, lead
		l.forget()
		if lost = len(batch); isBusy(err) {
			lost = 0
		}
		return 0, lost, fmt.Errorf("writing %d rows: %w", len(batch), err)
	}
	return len(batch), 0, nil
}

// forget empties the caches of ids, which may not hold any more.
func (l *ledger) forget() {
	l.dictionaries.forget()
	l.running, l.reached = nil, nil
}
