package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
)

// ledger writes ledger.db. It belongs to whoever is the writer (Store.writer).
type ledger struct {
	db      *sql.DB
	now     func() time.Time
	lastID  int64
	lead    int64 // seconds by which an id is ahead of its row's clock, at most (migrations/ledger/002)
	batch   []journal.Entry
	devices dictionary[devices.ID]
	places  dictionary[place]
	rulings dictionary[ruling]
	looks   dictionary[look]
	running map[runningFlow]int64 // rows of flows that may go on
	reached map[partnerKey]int64  // the hour that partner is known to have
}

// Bounds of text from the network and from rules, in bytes.
const (
	maxHost = 253
	maxWhy  = 200
	maxRule = 300
	maxText = 500
)

// place, ruling and look are rows of the dictionaries destination, verdict and seen.
type (
	place  struct{ name, organisation, purpose, country, breaks string }
	ruling struct {
		action, reason, rule, list string
		noted                      bool
	}
	look struct {
		app, protection                          string
		harmless                                 bool
		why, nameSource, tlsVersion, credentials string
		journal.Findings
		ambiguous, inbound, portMapped, byNameOnly, carried bool
	}
)

// readers is how many queries run at a time: more than there are cores in a
// router, so that a quick one need not wait for two slow ones.
const readers = 4

// openLedger opens ledger.db and its read-only pool. Only a directory that
// cannot be used is an error: a file that cannot is put aside.
func (s *Store) openLedger(ctx context.Context) error {
	path := s.cfg.LedgerPath
	if err := prepare(path); err != nil {
		return err
	}
	l, err := openLedgerFile(ctx, s.cfg)
	if why := putAside(err); why != "" {
		aside, moveErr := quarantine(path, why, s.cfg.Now())
		if moveErr != nil {
			return errors.Join(err, moveErr)
		}
		s.cfg.Logger.Warn("ledger put aside, a new one begins", "why", err, "aside", aside)
		l, err = openLedgerFile(ctx, s.cfg)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	s.ledger = l
	s.read = openFile(path, "ro", readers,
		"PRAGMA query_only = ON",
		"PRAGMA temp_store = MEMORY", // sorting leaves no names on a disk
		"PRAGMA cache_size = -512",
	)
	return nil
}

// putAside says why the file that gave err is to be put aside; "" when it is not.
func putAside(err error) string {
	switch {
	case errors.Is(err, ErrNewer):
		return whyNewer
	case isCorrupt(err):
		return whyCorrupt
	}
	return ""
}

// heal opens the ledger again after an exchange that could not; perhaps the disk is back.
func (s *Store) heal(ctx context.Context) error {
	if !s.lost {
		return nil
	}
	return s.exchange(ctx, func() error { return nil })
}

// exchange closes the ledger, lets swap put another file in its place, and
// opens that. Readers begin again with the new file. The batch goes over. Where there is nothing
// to open afterwards, heal tries again.
func (s *Store) exchange(ctx context.Context, swap func() error) error {
	ctx = context.WithoutCancel(ctx) // half an exchange is none
	s.interrupt()
	s.reading.Lock()
	defer s.reading.Unlock()
	s.readable, s.interrupt = context.WithCancel(context.Background())
	batch := s.ledger.batch
	s.lost = true
	// Neither a corrupt file nor a full disk need close well.
	s.read.Close()
	s.ledger.db.Close()
	swapErr := swap()
	if err := s.openLedger(ctx); err != nil {
		return errors.Join(swapErr, err)
	}
	s.lost = false
	s.ledger.batch = batch
	return swapErr
}

// replaceLedger begins a new ledger while running. The old one is kept aside,
// or removed.
func (s *Store) replaceLedger(ctx context.Context, why error, keep bool) error {
	s.metrics.replaced.Inc()
	path := s.cfg.LedgerPath
	err := s.exchange(ctx, func() error {
		if keep {
			aside, err := quarantine(path, whyCorrupt, s.cfg.Now())
			s.cfg.Logger.Warn("ledger put aside, a new one begins", "why", why, "aside", aside)
			return err
		}
		s.cfg.Logger.Warn("ledger removed, a new one begins", "why", why)
		return removeAll(path)
	})
	if err != nil || s.memory == nil {
		return err
	}
	return s.memory.restore(ctx, s.ledger)
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
	l := &ledger{
		db:  db,
		now: cfg.Now,
		devices: dictionary[devices.ID]{
			find:   "SELECT id FROM device WHERE device = ?",
			insert: "INSERT INTO device (device) VALUES (?)",
			args:   func(d devices.ID) []any { return []any{string(d)} },
		},
		places: dictionary[place]{
			find:   "SELECT id FROM destination WHERE name = ? AND organisation = ? AND purpose = ? AND country = ? AND breaks = ?",
			insert: "INSERT INTO destination (name, organisation, purpose, country, breaks) VALUES (?, ?, ?, ?, ?)",
			args:   func(p place) []any { return []any{p.name, p.organisation, p.purpose, p.country, p.breaks} },
		},
		rulings: dictionary[ruling]{
			find:   "SELECT id FROM verdict WHERE action = ? AND reason = ? AND rule = ? AND list = ? AND noted = ?",
			insert: "INSERT INTO verdict (action, reason, rule, list, noted) VALUES (?, ?, ?, ?, ?)",
			args:   func(r ruling) []any { return []any{r.action, r.reason, r.rule, r.list, r.noted} },
		},
		looks: dictionary[look]{
			find: `SELECT id FROM seen WHERE app = ? AND protection = ? AND harmless = ? AND why = ?
				AND name_source = ? AND tls_version = ? AND credentials = ?
				AND quic_version = ? AND ech = ? AND tls_cipher = ? AND tls_weak = ? AND certificate = ?
				AND credential_user = ? AND credential_default = ? AND identifiers = ?
				AND ambiguous = ? AND inbound = ? AND port_mapped = ? AND by_name_only = ? AND carried = ?`,
			insert: `INSERT INTO seen (app, protection, harmless, why, name_source, tls_version, credentials,
				quic_version, ech, tls_cipher, tls_weak, certificate, credential_user, credential_default, identifiers,
				ambiguous, inbound, port_mapped, by_name_only, carried)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			args: func(k look) []any {
				return []any{k.app, k.protection, k.harmless, k.why, k.nameSource, k.tlsVersion, k.credentials,
					k.QUICVersion, k.ECH, k.TLSCipher, k.TLSWeak, k.Certificate, k.CredentialUser, k.CredentialDefault, k.Identifiers,
					k.ambiguous, k.inbound, k.portMapped, k.byNameOnly, k.carried}
			},
		},
	}
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
		return w.sums()
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

// forget empties the caches of the dictionaries, whose ids may not hold any more.
func (l *ledger) forget() {
	l.devices.ids, l.places.ids, l.rulings.ids, l.looks.ids = nil, nil, nil, nil
	l.running, l.reached = nil, nil
}

// dictionary gives each distinct text one row, and remembers the ids of some.
type dictionary[K comparable] struct {
	ids          map[K]int64
	find, insert string
	args         func(K) []any
}

const maxRemembered = 2048

func (d *dictionary[K]) id(ctx context.Context, tx *sql.Tx, key K) (int64, error) {
	if id, ok := d.ids[key]; ok {
		return id, nil
	}
	args := d.args(key)
	var id int64
	err := tx.QueryRowContext(ctx, d.find, args...).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		var done sql.Result
		if done, err = tx.ExecContext(ctx, d.insert, args...); err == nil {
			id, err = done.LastInsertId()
		}
	}
	if err != nil {
		return 0, err
	}
	if d.ids == nil || len(d.ids) >= maxRemembered {
		d.ids = make(map[K]int64)
	}
	d.ids[key] = id
	return id, nil
}

// page is one batch on its way into the file.
type page struct {
	ctx      context.Context
	tx       *sql.Tx
	ledger   *ledger
	now      time.Time
	lookups  map[lookupKey]*lookupSum
	order    []*lookupSum // of lookups, by id: a table that only grows at its end stays dense
	hours    map[hourKey]*sum
	tallies  map[tallyKey]*tally
	partners map[partnerKey]*partnerSum
	days     map[dayKey]*sum
}

// Protections of the roll-ups (migrations/ledger).
const (
	rollNone = iota
	rollCannotTell
	rollEncrypted
	rollReadable
	rollHarmless
)

var rollWords = [...]string{"", "cannot-tell", "encrypted", "readable", "harmless"}

type (
	lookupKey struct {
		device, place, ruling int64
		qtype                 uint16
		rcode                 int
		redirected            bool
	}
	lookupSum struct {
		lookupKey
		id, at, count int64
		blocked       bool
	}
	hourKey struct {
		hour, device, place int64
		protection          int
	}
	tallyKey struct{ hour, device int64 }
	tally    struct {
		sum
		readableFlows, readableBytes int64
	}
	dayKey struct {
		day                  int
		device, organisation string
		protection           int
	}
	sum struct {
		out, in, flows, lookups, blocked int64
		weak, carried                    int64 // flows; kept by the hour only
		look, ruling                     int64
		first, last                      int64 // Unix milliseconds
	}
)

func (s *sum) add(o sum) {
	s.out += o.out
	s.in += o.in
	s.flows += o.flows
	s.lookups += o.lookups
	s.blocked += o.blocked
	s.weak += o.weak
	s.carried += o.carried
	s.look, s.ruling = o.look, o.ruling
	s.first, s.last = min(s.first, o.first), max(s.last, o.last)
}

func (w *page) entry(e journal.Entry) error {
	if e.At.IsZero() {
		e.At = w.now
	}
	e.Device = devices.ID(clip(string(e.Device), maxID))
	switch {
	case e.Event != nil:
		return w.event(e)
	case e.Flow != nil:
		return w.flow(e)
	case e.Lookup != nil:
		return w.lookup(e)
	}
	return nil
}

// event keeps the text of what concerns a counted device only where the text is about the
// device itself: elsewhere it says where the device went.
func (w *page) event(e journal.Entry) error {
	subject, text := clip(e.Event.Subject, maxText), clip(e.Event.Text, maxText)
	if e.Device != "" && e.Log != devices.LogNames {
		subject = ""
		if e.Event.Kind != journal.EventNewDevice && e.Event.Kind != journal.EventHealth {
			text = ""
		}
	}
	return w.exec("INSERT INTO event (id, at_ms, device, kind, subject, text) VALUES (?, ?, ?, ?, ?, ?)",
		w.ledger.nextID(e.At), e.At.UnixMilli(), string(e.Device), clip(string(e.Event.Kind), maxID), subject, text)
}

func (w *page) flow(e journal.Entry) error {
	f := e.Flow
	first, last := f.First, f.Last
	if first.IsZero() {
		first = e.At
	}
	if last.IsZero() {
		last = e.At
	}
	out, in := f.Counters.Orig, f.Counters.Reply
	if f.Inbound {
		out, in = in, out
	}
	s := sum{out: clamp(out.Bytes), in: clamp(in.Bytes), flows: 1, first: first.UnixMilli(), last: max(last.UnixMilli(), 0)}
	more := f.Part > 0 // of a flow that was counted before
	if more {
		s.flows = 0
	}
	news := f.News()
	s.blocked, s.weak, s.carried = one(news&journal.Blocked), one(news&journal.Weak), one(news&journal.Carried)
	refused := f.Verdict.Action == policy.Block
	protection := protectionOf(f)
	if e.Log != devices.LogNames {
		return w.count(e, protection, s)
	}
	name := f.Name
	if name == "" {
		name = f.Tuple.DstAddr().String()
		if f.Inbound {
			name = f.Tuple.SrcAddr().String()
		}
	}
	p := placeOf(name, e.Flow.Destination.Organisation, string(f.Destination.Purpose), f.Destination.Country, f.Destination.Breaks)
	k := lookOf(f)
	device, dest, ruled, seen, err := w.ids(e.Device, p, rulingOf(f.Verdict), &k)
	if err != nil {
		return err
	}
	s.look, s.ruling = seen, ruled
	id := w.ledger.nextID(e.At)
	hour := hourOf(id)
	w.roll(e, hourKey{hour, device, dest, protection}, p.organisation, s)
	if !refused {
		w.reach(device, hour, p, s.out)
	}
	key := runningFlow{f.Tuple, s.first}
	if row, ok := w.ledger.running[key]; ok && more {
		// What is newest is told: the flow may have been cut or better understood since.
		done, err := w.tx.ExecContext(w.ctx, `UPDATE flow SET last_ms = ?, bytes_out = bytes_out + ?, bytes_in = bytes_in + ?,
			packets_out = packets_out + ?, packets_in = packets_in + ?, parts = parts + 1, verdict = ?, seen = ?, readable = ?, blocked = ? WHERE id = ?`,
			s.last, s.out, s.in, clamp(out.Packets), clamp(in.Packets), ruled, seen, protection == rollReadable, refused, row)
		if err != nil {
			return err
		}
		if n, err := done.RowsAffected(); err != nil || n > 0 {
			return err
		} // else it was erased or has aged meanwhile
	}
	w.ledger.runs(key, id)
	w.ledger.written(id, s.first)
	return w.exec(`INSERT INTO flow (id, device, destination, verdict, seen, first_ms, last_ms, proto, src, src_port, dst, dst_port,
		bytes_out, bytes_in, packets_out, packets_in, proxied, readable, blocked) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		id, device, dest, ruled, seen, s.first, s.last, int(f.Tuple.Proto),
		f.Tuple.SrcAddr().String(), int(f.Tuple.SrcPort), f.Tuple.DstAddr().String(), int(f.Tuple.DstPort),
		s.out, s.in, clamp(out.Packets), clamp(in.Packets), f.Proxied, protection == rollReadable, refused)
}

// one is 1 for what has a trait.
func one(t journal.Traits) int64 {
	if t != 0 {
		return 1
	}
	return 0
}

// runningFlow is what the parts of one flow have in common.
type runningFlow struct {
	tuple flow.Tuple
	first int64
}

// maxRunning bounds the memory of rows to which more may be added, 64 octets
// each; a flow that is forgotten gets a further row.
const maxRunning = 8192

func (l *ledger) runs(key runningFlow, row int64) {
	if l.running == nil || len(l.running) >= maxRunning {
		l.running = make(map[runningFlow]int64)
	}
	l.running[key] = row
}

func (w *page) lookup(e journal.Entry) error {
	q := e.Lookup
	at := e.At.UnixMilli()
	s := sum{lookups: 1, first: at, last: at}
	if q.Verdict.Action == policy.Block {
		s.blocked = 1
	}
	if e.Log != devices.LogNames {
		return w.count(e, rollNone, s)
	}
	p := placeOf(string(q.Name), q.Destination.Organisation, string(q.Destination.Purpose), q.Destination.Country, q.Destination.Breaks)
	device, dest, ruled, _, err := w.ids(e.Device, p, rulingOf(q.Verdict), nil)
	if err != nil {
		return err
	}
	s.ruling = ruled
	key := lookupKey{device, dest, ruled, q.Type, q.Rcode, q.Redirected}
	same := w.lookups[key]
	if same == nil {
		same = &lookupSum{lookupKey: key, id: w.ledger.nextID(e.At), at: at, blocked: s.blocked == 1}
		w.lookups[key] = same
		w.ledger.written(same.id, at)
		w.order = append(w.order, same)
	}
	same.count++
	hour := hourOf(same.id)
	w.roll(e, hourKey{hour, device, dest, rollNone}, p.organisation, s)
	if s.blocked == 0 && q.Rcode == 0 {
		w.reach(device, hour, p, 0)
	}
	return nil
}

// count keeps of a device that is not logged by name what remains of any entry:
// that so much went out and in, protected so, within this hour.
func (w *page) count(e journal.Entry, protection int, s sum) error {
	device, err := w.ledger.devices.id(w.ctx, w.tx, e.Device)
	if err != nil {
		return err
	}
	w.roll(e, hourKey{hourOf(w.ledger.nextID(e.At)), device, 0, protection}, "", s)
	return nil
}

func (w *page) roll(e journal.Entry, h hourKey, organisation string, s sum) {
	if have := w.hours[h]; have != nil {
		have.add(s)
	} else {
		w.hours[h] = &s
	}
	t := w.tallies[tallyKey{h.hour, h.device}]
	if t == nil {
		t = &tally{sum: sum{first: s.first}}
		w.tallies[tallyKey{h.hour, h.device}] = t
	}
	t.add(s)
	if h.protection == rollReadable {
		t.readableFlows += s.flows
		t.readableBytes += s.out
	}
	d := dayKey{dayOf(e.At.In(w.now.Location())), string(e.Device), organisation, h.protection}
	if have := w.days[d]; have != nil {
		have.add(s)
	} else {
		c := s
		w.days[d] = &c
	}
}

// addDay, addHour and addTally add sums to those that are there.
const (
	addDay = `ON CONFLICT DO UPDATE SET bytes_out = bytes_out + excluded.bytes_out, bytes_in = bytes_in + excluded.bytes_in,
		flows = flows + excluded.flows, lookups = lookups + excluded.lookups, blocked = blocked + excluded.blocked`
	addHour = addDay + `, weak = weak + excluded.weak, carried = carried + excluded.carried, seen = excluded.seen, verdict = excluded.verdict,
		first_ms = min(first_ms, excluded.first_ms), last_ms = max(last_ms, excluded.last_ms)`
	addTally = addDay + `, weak = weak + excluded.weak, readable_flows = readable_flows + excluded.readable_flows,
		readable_bytes = readable_bytes + excluded.readable_bytes, last_ms = max(last_ms, excluded.last_ms)`
)

// sums writes what the entries of the batch add up to.
func (w *page) sums() error {
	for _, l := range w.order {
		if err := w.exec(`INSERT INTO lookup (id, device, destination, verdict, at_ms, type, rcode, redirected, blocked, count)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			l.id, l.device, l.place, l.ruling, l.at, int(l.qtype), l.rcode, l.redirected, l.blocked, l.count); err != nil {
			return err
		}
	}
	for k, s := range w.hours {
		if err := w.exec(`INSERT INTO hour (hour, device, destination, protection, bytes_out, bytes_in, flows, lookups, blocked, weak, carried, seen, verdict, first_ms, last_ms)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) `+addHour,
			k.hour, k.device, k.place, k.protection, s.out, s.in, s.flows, s.lookups, s.blocked, s.weak, s.carried, s.look, s.ruling, s.first, s.last); err != nil {
			return err
		}
	}
	for k, t := range w.tallies {
		if err := w.exec(`INSERT INTO tally (device, hour, bytes_out, bytes_in, flows, lookups, blocked, weak, readable_flows, readable_bytes, last_ms)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) `+addTally,
			k.device, k.hour, t.out, t.in, t.flows, t.lookups, t.blocked, t.weak, t.readableFlows, t.readableBytes, t.last); err != nil {
			return err
		}
	}
	for k, s := range w.days {
		if err := w.exec(`INSERT INTO unsaved (day, device, organisation, protection, bytes_out, bytes_in, flows, lookups, blocked)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) `+addDay,
			k.day, k.device, k.organisation, k.protection, s.out, s.in, s.flows, s.lookups, s.blocked); err != nil {
			return err
		}
	}
	return w.partnerSums()
}

func (w *page) exec(query string, args ...any) error {
	_, err := w.tx.ExecContext(w.ctx, query, args...)
	return err
}

// ids finds or makes the rows of the dictionaries; k may be nil.
func (w *page) ids(d devices.ID, p place, r ruling, k *look) (device, dest, ruled, seen int64, err error) {
	l := w.ledger
	if device, err = l.devices.id(w.ctx, w.tx, d); err != nil {
		return
	}
	if dest, err = l.places.id(w.ctx, w.tx, p); err != nil {
		return
	}
	if ruled, err = l.rulings.id(w.ctx, w.tx, r); err != nil || k == nil {
		return
	}
	seen, err = l.looks.id(w.ctx, w.tx, *k)
	return
}

func placeOf(name, organisation, purpose, country, breaks string) place {
	return place{clip(name, maxHost), clip(organisation, maxWhy), clip(purpose, maxID), clip(country, maxID), clip(breaks, maxWhy)}
}

func lookOf(f *journal.Flow) look {
	k := look{
		app: clip(f.Seen.App, maxID), protection: f.Seen.Protection.String(), harmless: f.Seen.Harmless,
		why: clip(f.Seen.Reason, maxWhy), nameSource: f.NameSource.String(), credentials: clip(f.Seen.Credentials, maxID),
		Findings:  journal.FindingsOf(&f.Seen),
		ambiguous: f.Ambiguous, inbound: f.Inbound, portMapped: f.PortMapped, byNameOnly: f.ByNameOnly, carried: f.CarriedEncrypted,
	}
	if f.Seen.TLS != nil {
		k.tlsVersion = clip(f.Seen.TLS.Version, maxID)
	}
	for _, text := range []*string{&k.QUICVersion, &k.TLSCipher, &k.TLSWeak, &k.Certificate, &k.CredentialUser, &k.Identifiers} {
		*text = clip(*text, maxWhy)
	}
	return k
}

func rulingOf(v policy.Verdict) ruling {
	return ruling{v.Action.String(), v.Reason.String(), clip(v.Rule, maxRule), clip(v.List, maxWhy), v.Noted}
}

func protectionOf(f *journal.Flow) int {
	switch {
	case f.Seen.Protection == flow.Encrypted:
		return rollEncrypted
	case f.Seen.Protection == flow.Readable && f.Seen.Harmless:
		return rollHarmless
	case f.Seen.Protection == flow.Readable:
		return rollReadable
	}
	return rollCannotTell
}

// clamp bounds a counter to a petabyte, so that thousands of absurd ones still add up.
func clamp(n uint64) int64 { return int64(min(n, 1<<50)) }

// dayOf is a date as a number that sorts and can be read: 20261122.
func dayOf(t time.Time) int {
	y, m, d := t.Date()
	return y*10000 + int(m)*100 + d
}
