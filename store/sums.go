package store

import (
	"time"

	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/journal"
)

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

// Protections of the roll-ups (migrations/ledger).
const (
	rollNone = iota
	rollCannotTell
	rollEncrypted
	rollReadable
	rollHarmless
)

var rollWords = [...]string{"", "cannot-tell", "encrypted", "readable", "harmless"}

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
