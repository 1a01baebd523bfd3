package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
)

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
	moves    []move
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
	key := runningFlow{f.Tuple, s.first, e.Log != devices.LogNames}
	if e.Log != devices.LogNames {
		w.goesOn(key, more, e.Device, soFar{protection: protection, out: s.out, in: s.in})
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
	now := soFar{row: id, device: device, dest: dest, protection: protection, out: s.out, in: s.in}
	if have, ok := w.ledger.running[key]; ok && more {
		// What is newest is told: the flow may have been cut or better understood since.
		done, err := w.tx.ExecContext(w.ctx, `UPDATE flow SET last_ms = ?, bytes_out = bytes_out + ?, bytes_in = bytes_in + ?,
			packets_out = packets_out + ?, packets_in = packets_in + ?, parts = parts + 1, destination = ?, verdict = ?, seen = ?, readable = ?, blocked = ? WHERE id = ?`,
			s.last, s.out, s.in, clamp(out.Packets), clamp(in.Packets), dest, ruled, seen, protection == rollReadable, refused, have.row)
		if err != nil {
			return err
		}
		n, err := done.RowsAffected()
		if err != nil {
			return err
		}
		if n > 0 {
			w.goesOn(key, true, e.Device, now)
			return nil
		} // else it was erased or has aged meanwhile
	}
	w.goesOn(key, false, e.Device, now)
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

func (w *page) exec(query string, args ...any) error {
	_, err := w.tx.ExecContext(w.ctx, query, args...)
	return err
}

// runningFlow is what the parts of one flow have in common.
type runningFlow struct {
	tuple   flow.Tuple
	first   int64
	counted bool // of a device that is not told of by name, which may have changed meanwhile
}

// soFar is what the ledger has of a flow that may go on.
type soFar struct {
	row          int64 // of the table flow; 0 for a device that is only counted
	device, dest int64
	protection   int
	out, in      int64
}

// maxRunning bounds the memory of flows to which more may be added, 130 octets
// each; a flow that is forgotten gets a further row.
const maxRunning = 8192

// goesOn notes what is known of a flow now. With more it was told of before: where it
// was taken for something else then, or for another place, what it carried moves.
func (w *page) goesOn(key runningFlow, more bool, d devices.ID, now soFar) {
	l := w.ledger
	if have, ok := l.running[key]; ok && more {
		if have.protection != now.protection || have.dest != now.dest {
			w.moves = append(w.moves, move{id: d, since: key.first / 3_600_000, from: have, to: now})
		}
		now.row = have.row
		now.out += have.out
		now.in += have.in
	}
	if l.running == nil || len(l.running) >= maxRunning {
		l.running = make(map[runningFlow]soFar)
	}
	l.running[key] = now
}
