package store

import (
	"net/netip"
	"time"

	"github.com/netcurtain/netcurtain/devices"
)

// move is what was recorded of a flow before it was better understood: its protection
// shows when its first bytes were read, its name when the answer of DNS came. Sums
// that kept the first guess would not be those of the flows that they sum up.
type move struct {
	id       devices.ID
	since    int64 // the hour in which the flow began
	from, to soFar // of from all bytes, of to its standing
	was, is  place // of these the name and the organisation
}

// portion is the part of a move that lies in one hour.
type portion struct {
	hour, out, in, flows      int64
	look, ruling, first, last int64
}

// restate moves what the batch found to stand in the wrong place, when its sums are written.
func (w *page) restate() error {
	for i := range w.moves {
		m := &w.moves[i]
		if m.from.device == 0 { // of a device that is counted
			id, err := w.ledger.devices.id(w.ctx, w.tx, m.id)
			if err != nil {
				return err
			}
			m.from.device = id
		}
		for id, p := range map[int64]*place{m.from.dest: &m.was, m.to.dest: &m.is} {
			if err := w.tx.QueryRowContext(w.ctx, "SELECT name, organisation FROM destination WHERE id = ?", id).Scan(&p.name, &p.organisation); err != nil {
				return err
			}
		}
		if m.from.dest == m.to.dest {
			m.was = m.is
		}
		found, err := w.portions(m)
		if err != nil {
			return err
		}
		for _, p := range found {
			if err := w.moveHour(m, p); err != nil {
				return err
			}
			if err := w.movePartner(m, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// portions finds the move's bytes: oldest hours first, and never more than there is. Which
// of a row's bytes were this flow's nobody knows any more; but whose flow began later can
// only have its own in later hours, and finds them there.
func (w *page) portions(m *move) ([]portion, error) {
	rows, err := w.tx.QueryContext(w.ctx, `SELECT hour, bytes_out, bytes_in, min(flows, 1), seen, verdict, first_ms, last_ms FROM hour
		WHERE device = ? AND hour >= ? AND destination = ? AND protection = ? ORDER BY hour`, m.from.device, m.since, m.from.dest, m.from.protection)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var found []portion
	left := portion{out: m.from.out, in: m.from.in, flows: 1}
	for rows.Next() && left != (portion{}) {
		var p portion
		if err := rows.Scan(&p.hour, &p.out, &p.in, &p.flows, &p.look, &p.ruling, &p.first, &p.last); err != nil {
			return nil, err
		}
		p.out, p.in, p.flows = min(p.out, left.out), min(p.in, left.in), min(p.flows, left.flows)
		left.out, left.in, left.flows = left.out-p.out, left.in-p.in, left.flows-p.flows
		if p.out > 0 || p.in > 0 || p.flows > 0 {
			found = append(found, p)
		}
	}
	return found, rows.Err()
}

func (w *page) moveHour(m *move, p portion) error {
	from, to := &m.from, &m.to
	if err := w.exec(`UPDATE hour SET bytes_out = bytes_out - ?, bytes_in = bytes_in - ?, flows = flows - ?
		WHERE device = ? AND hour = ? AND destination = ? AND protection = ?`, p.out, p.in, p.flows, from.device, p.hour, from.dest, from.protection); err != nil {
		return err
	}
	if err := w.exec(`DELETE FROM hour WHERE device = ? AND hour = ? AND destination = ? AND protection = ? AND
		bytes_out = 0 AND bytes_in = 0 AND flows = 0 AND lookups = 0 AND blocked = 0 AND weak = 0 AND carried = 0`, from.device, p.hour, from.dest, from.protection); err != nil {
		return err
	}
	if err := w.exec(`INSERT INTO hour (hour, device, destination, protection, bytes_out, bytes_in, flows, lookups, blocked, weak, carried, seen, verdict, first_ms, last_ms)
		VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, ?, ?, ?, ?) `+addHour,
		p.hour, from.device, to.dest, to.protection, p.out, p.in, p.flows, p.look, p.ruling, p.first, p.last); err != nil {
		return err
	}
	if was, is := from.protection == rollReadable, to.protection == rollReadable; was != is {
		sign := int64(1)
		if was {
			sign = -1
		}
		if err := w.exec("UPDATE tally SET readable_flows = readable_flows + ?, readable_bytes = readable_bytes + ? WHERE device = ? AND hour = ?",
			sign*p.flows, sign*p.out, from.device, p.hour); err != nil {
			return err
		}
	}
	day := dayOf(time.Unix(p.hour*3600, 0).In(w.now.Location()))
	for _, side := range [...]struct {
		at           *soFar
		organisation string
		sign         int64
	}{{from, m.was.organisation, -1}, {to, m.is.organisation, 1}} {
		if err := w.exec(`INSERT INTO unsaved (day, device, organisation, protection, bytes_out, bytes_in, flows, lookups, blocked)
			VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0) `+addDay,
			day, string(m.id), side.organisation, side.at.protection, side.sign*p.out, side.sign*p.in, side.sign*p.flows); err != nil {
			return err
		}
	}
	return nil
}

// movePartner gives what was sent to whom it turned out to have been sent to. An address
// to which nothing went any more was nobody of its own.
func (w *page) movePartner(m *move, p portion) error {
	was, wasKnown := partnerOf(m.was)
	is, isKnown := partnerOf(m.is)
	if was == is && wasKnown == isKnown || was == "" || p.out == 0 {
		return nil
	}
	day := p.hour / 24
	done, err := w.tx.ExecContext(w.ctx, "UPDATE partner SET bytes_out = bytes_out - ?1 WHERE device = ?2 AND day = ?3 AND known = ?4 AND name = ?5 AND bytes_out >= ?1",
		p.out, m.from.device, day, wasKnown, was)
	if err != nil {
		return err
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 || is == "" {
		return err // it was refused, and reached nobody
	}
	if _, err := netip.ParseAddr(was); err == nil {
		if err := w.exec("DELETE FROM partner WHERE device = ? AND day = ? AND known = ? AND name = ? AND bytes_out = 0", m.from.device, day, wasKnown, was); err != nil {
			return err
		}
		delete(w.ledger.reached, partnerKey{m.from.device, day, wasKnown, was})
	}
	return w.exec(`INSERT INTO partner (device, day, known, name, bytes_out, hour) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET bytes_out = bytes_out + excluded.bytes_out, hour = max(hour, excluded.hour)`,
		m.from.device, day, isKnown, is, p.out, p.hour)
}
