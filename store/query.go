package store

import (
	"context"
	"database/sql"
	"net/netip"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/journal"
)

// Limits of a page of rows.
const (
	defaultLimit = 100
	maxLimit     = 1000
)

// ask lets query read the ledger. Readers never wait for the writer, but while
// it puts another file in the ledger's place: then those that run are interrupted
// and begin again with the new file, lest everybody wait for the slowest.
func ask[T any](ctx context.Context, s *Store, query func(context.Context, *sql.DB) (T, error)) (T, error) {
	for {
		answer, again, err := askOnce(ctx, s, query)
		if !again {
			return answer, err
		}
	}
}

func askOnce[T any](ctx context.Context, s *Store, query func(context.Context, *sql.DB) (T, error)) (answer T, again bool, err error) {
	s.reading.RLock()
	defer s.reading.RUnlock()
	file := s.readable
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(file, cancel)()
	answer, err = query(ctx, s.read)
	return answer, err != nil && file.Err() != nil, err
}

// Totals is what each device did since the beginning of the hour in which
// since lies, the one that sent most first. It reads a roll-up of one row per
// device and hour, and one of whom it reached (see partners).
func (s *Store) Totals(ctx context.Context, since time.Time) ([]journal.DeviceTotals, error) {
	return ask(ctx, s, func(ctx context.Context, db *sql.DB) ([]journal.DeviceTotals, error) { return totals(ctx, db, since) })
}

func totals(ctx context.Context, db *sql.DB, since time.Time) ([]journal.DeviceTotals, error) {
	from := hourOf(idOf(since))
	rows, err := db.QueryContext(ctx, `SELECT d.device, t.* FROM (
			SELECT device AS id, sum(bytes_out) AS out, sum(bytes_in), sum(flows), sum(readable_flows),
				sum(readable_bytes), sum(lookups), sum(blocked), sum(weak), max(last_ms)
			FROM tally WHERE device IN (SELECT id FROM device) AND hour >= ? GROUP BY device) t
		CROSS JOIN device d ON d.id = t.id ORDER BY t.out DESC, d.device`, from)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []journal.DeviceTotals
	index := map[int64]int{}
	for rows.Next() {
		var t journal.DeviceTotals
		var id, last int64
		if err := rows.Scan(&t.Device, &id, &t.BytesOut, &t.BytesIn, &t.Flows, &t.ReadableFlows,
			&t.ReadableBytes, &t.Lookups, &t.Blocked, &t.Weak, &last); err != nil {
			return nil, err
		}
		t.LastActive = time.UnixMilli(last)
		index[id] = len(all)
		all = append(all, t)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return all, partners(ctx, db, from, func(device int64, name string) {
		if i, ok := index[device]; ok {
			all[i].Organisations = append(all[i].Organisations, name)
		}
	})
}

// Destinations is what a device did with each destination since the beginning
// of the hour in which since lies, the one that got most bytes first. A device
// that is not logged by name has at most one row, without a name.
func (s *Store) Destinations(ctx context.Context, device devices.ID, since time.Time) ([]journal.DestinationTotals, error) {
	return ask(ctx, s, func(ctx context.Context, db *sql.DB) ([]journal.DestinationTotals, error) {
		return destinations(ctx, db, device, since)
	})
}

func destinations(ctx context.Context, db *sql.DB, device devices.ID, since time.Time) ([]journal.DestinationTotals, error) {
	// What is newest is found by packing the second above the id of the dictionary's row.
	rows, err := db.QueryContext(ctx, `SELECT n.name, k.name_source, n.organisation, n.purpose, n.country, n.breaks,
			h.out, h.in_, h.flows, h.lookups, h.blocked, h.readable, h.harmless, h.encrypted, h.unclear, h.weak, h.carried,
			k.why, v.action, v.reason, v.rule, v.list, h.first, h.last
		FROM (SELECT destination, sum(bytes_out) AS out, sum(bytes_in) AS in_, sum(flows) AS flows, sum(lookups) AS lookups,
				sum(blocked) AS blocked, sum(iif(protection = 3, flows, 0)) AS readable, sum(iif(protection = 4, flows, 0)) AS harmless,
				sum(iif(protection = 2, flows, 0)) AS encrypted, sum(iif(protection = 1, flows, 0)) AS unclear,
				sum(weak) AS weak, sum(carried) AS carried,
				max(iif(protection = 0, 0, last_ms / 1000 << 31 | seen)) & 0x7fffffff AS seen,
				max(last_ms / 1000 << 31 | verdict) & 0x7fffffff AS verdict,
				min(first_ms) AS first, max(last_ms) AS last
			FROM hour WHERE hour >= ? AND device = (SELECT id FROM device WHERE device = ?) GROUP BY destination) h
		CROSS JOIN destination n ON n.id = h.destination
		CROSS JOIN seen k ON k.id = h.seen
		CROSS JOIN verdict v ON v.id = h.verdict
		ORDER BY h.out DESC, n.name`, hourOf(idOf(since)), string(device))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []journal.DestinationTotals
	for rows.Next() {
		var d journal.DestinationTotals
		var first, last int64
		if err := rows.Scan(&d.Name, &d.NameSource, &d.Organisation, &d.Purpose, &d.Country, &d.Breaks,
			&d.BytesOut, &d.BytesIn, &d.Flows, &d.Lookups, &d.Blocked, &d.Readable, &d.Harmless, &d.Encrypted, &d.CannotTell, &d.Weak, &d.Carried,
			&d.Why, &d.Verdict, &d.Reason, &d.Rule, &d.List, &first, &last); err != nil {
			return nil, err
		}
		d.First, d.Last = time.UnixMilli(first), time.UnixMilli(last)
		all = append(all, d)
	}
	return all, rows.Err()
}

// Top is who moved the most bytes, both ways together, since the beginning of the
// hour in which since lies; limit as in a Filter. It reads whole days,
// thirds of days before the first of those, and hours before the first of these.
func (s *Store) Top(ctx context.Context, since time.Time, by journal.TopBy, limit int) ([]journal.TopRow, error) {
	return ask(ctx, s, func(ctx context.Context, db *sql.DB) ([]journal.TopRow, error) {
		return top(ctx, db, since, by, limit)
	})
}

func top(ctx context.Context, db *sql.DB, since time.Time, by journal.TopBy, most int) ([]journal.TopRow, error) {
	// ?1 is the hour to begin with, ?2 the first that begins eight hours then or later,
	// ?3 the first from there on that begins a day. A pair is one number, for two to group by take a third longer to sort. Look-ups
	// move no bytes, and are most rows of hour.
	const (
		span = `(SELECT device << 32 | destination AS pair, destination, bytes_out, bytes_in, flows, readable, blocked, last_ms
				FROM span WHERE device IN (SELECT id FROM device) AND hours = 24 AND first >= ?3
			UNION ALL SELECT device << 32 | destination, destination, bytes_out, bytes_in, flows, readable, blocked, last_ms
				FROM span WHERE device IN (SELECT id FROM device) AND hours = 8 AND first >= ?2 AND first < ?3
			UNION ALL SELECT device << 32 | destination, destination, bytes_out, bytes_in, flows, iif(protection = 3, flows, 0), blocked, last_ms
				FROM hour WHERE device IN (SELECT id FROM device) AND hour >= ?1 AND hour < ?2 AND protection > 0)`
		sums  = `sum(bytes_out) AS out, sum(bytes_in) AS in_, sum(flows) AS flows, sum(readable) AS readable, sum(blocked) AS blocked, max(last_ms) AS last`
		first = ` ORDER BY out + in_ DESC, flows DESC LIMIT ?4`
	)
	query := map[journal.TopBy]string{
		journal.TopByDestination: `SELECT d.device, n.name, n.organisation, n.purpose, n.country, t.out, t.in_, t.flows, t.readable, t.blocked, t.last
			FROM (SELECT pair, ` + sums + ` FROM ` + span + ` GROUP BY pair` + first + `) t
			CROSS JOIN device d ON d.id = t.pair >> 32 CROSS JOIN destination n ON n.id = t.pair & 0xffffffff`,
		// First by destination, for there are fewer of those to look up than there are hours.
		journal.TopByOrganisation: `SELECT '', '', n.organisation, '', n.country, sum(t.out) AS out, sum(t.in_) AS in_, sum(t.flows) AS flows,
				sum(t.readable), sum(t.blocked), max(t.last)
			FROM (SELECT destination, ` + sums + ` FROM ` + span + ` GROUP BY destination) t
			CROSS JOIN destination n ON n.id = t.destination WHERE n.organisation != '' GROUP BY n.organisation, n.country` + first,
		journal.TopByDevice: `SELECT d.device, '', '', '', '', t.out, t.in_, t.flows, t.readable, t.blocked, t.last
			FROM (SELECT device, sum(bytes_out) AS out, sum(bytes_in) AS in_, sum(flows) AS flows, sum(readable_flows) AS readable, sum(blocked) AS blocked, max(last_ms) AS last
				FROM tally WHERE device IN (SELECT id FROM device) AND hour >= ?1 AND ?2 + ?3 > 0 GROUP BY device` + first + `) t
			CROSS JOIN device d ON d.id = t.device`,
	}[by]
	hour := hourOf(idOf(since))
	rows, err := db.QueryContext(ctx, query, hour, (hour+7)/8*8, (hour+23)/24*24, limit(journal.Filter{Limit: most}))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []journal.TopRow
	for rows.Next() {
		var r journal.TopRow
		var last int64
		if err := rows.Scan(&r.Device, &r.Name, &r.Organisation, &r.Purpose, &r.Country,
			&r.BytesOut, &r.BytesIn, &r.Flows, &r.Readable, &r.Blocked, &last); err != nil {
			return nil, err
		}
		r.Last = time.UnixMilli(last)
		all = append(all, r)
	}
	return all, rows.Err()
}

// Flows is a page of finished flows, newest first.
func (s *Store) Flows(ctx context.Context, f journal.Filter) ([]journal.FlowRow, error) {
	return ask(ctx, s, func(ctx context.Context, db *sql.DB) ([]journal.FlowRow, error) { return flows(ctx, db, f) })
}

func flows(ctx context.Context, db *sql.DB, f journal.Filter) ([]journal.FlowRow, error) {
	q := narrow(f, "f")
	index := "NOT INDEXED"
	switch {
	case f.Readable && f.Device != "":
		index = "INDEXED BY flow_device_readable"
	case f.Readable:
		index = "INDEXED BY flow_readable"
	case f.Blocked && f.Device != "":
		index = "INDEXED BY flow_device_blocked"
	case f.Blocked:
		index = "INDEXED BY flow_blocked"
	case f.Device != "":
		index = "INDEXED BY flow_device"
	}
	if f.Readable {
		q.and("f.readable = 1")
	}
	if f.Blocked {
		q.and("f.blocked = 1")
	}
	if !f.Since.IsZero() {
		q.and("f.last_ms >= ?", f.Since.UnixMilli())
	}
	if !f.Until.IsZero() {
		q.and("f.first_ms <= ?", f.Until.UnixMilli())
	}
	rows, err := db.QueryContext(ctx, `SELECT f.id, d.device, f.first_ms, f.last_ms, f.proto, f.src, f.src_port, f.dst, f.dst_port,
			k.app, k.protection, k.harmless, k.why, iif(k.name_source = 'address', '', n.name), k.name_source, k.tls_version,
			n.organisation, n.purpose, n.country, f.bytes_out, f.bytes_in, f.packets_out, f.packets_in,
			v.action, v.reason, v.rule, v.list, f.proxied, k.credentials,
			k.quic_version, k.ech, k.tls_cipher, k.tls_weak, k.certificate, k.credential_user, k.credential_default, k.identifiers,
			k.ambiguous, k.inbound, k.port_mapped, k.by_name_only, k.carried, f.parts
		FROM flow f `+index+`
		CROSS JOIN device d ON d.id = f.device
		CROSS JOIN destination n ON n.id = f.destination
		CROSS JOIN seen k ON k.id = f.seen
		CROSS JOIN verdict v ON v.id = f.verdict`+q.where()+`
		ORDER BY f.id DESC LIMIT ?`, append(q.args, limit(f))...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []journal.FlowRow
	for rows.Next() {
		var r journal.FlowRow
		var first, last int64
		var proto flow.Proto
		var src, dst string
		var srcPort, dstPort uint16
		if err := rows.Scan(&r.ID, &r.Device, &first, &last, &proto, &src, &srcPort, &dst, &dstPort,
			&r.App, &r.Protection, &r.Harmless, &r.Why, &r.Name, &r.NameSource, &r.TLSVersion,
			&r.Organisation, &r.Purpose, &r.Country, &r.BytesOut, &r.BytesIn, &r.PacketsOut, &r.PacketsIn,
			&r.Verdict, &r.Reason, &r.Rule, &r.List, &r.Proxied, &r.Credentials,
			&r.QUICVersion, &r.ECH, &r.TLSCipher, &r.TLSWeak, &r.Certificate, &r.CredentialUser, &r.CredentialDefault, &r.Identifiers,
			&r.Ambiguous, &r.Inbound, &r.PortMapped, &r.ByNameOnly, &r.Carried, &r.Parts); err != nil {
			return nil, err
		}
		r.First, r.Last = time.UnixMilli(first), time.UnixMilli(last)
		r.Proto = proto.String()
		r.Src, r.Dst = addrPort(src, srcPort), addrPort(dst, dstPort)
		all = append(all, r)
	}
	return all, rows.Err()
}

// addrPort reads back what was written; the zero address for what was none.
func addrPort(addr string, port uint16) netip.AddrPort {
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a, port)
}

// Lookups is a page of look-ups, newest first. The same question with the same
// answer within one batch is one row with a Count.
func (s *Store) Lookups(ctx context.Context, f journal.Filter) ([]journal.LookupRow, error) {
	return ask(ctx, s, func(ctx context.Context, db *sql.DB) ([]journal.LookupRow, error) { return lookups(ctx, db, f) })
}

func lookups(ctx context.Context, db *sql.DB, f journal.Filter) ([]journal.LookupRow, error) {
	q := narrow(f, "l")
	index := "NOT INDEXED"
	switch {
	case f.Blocked && f.Device != "":
		index = "INDEXED BY lookup_device_blocked"
	case f.Blocked:
		index = "INDEXED BY lookup_blocked"
	case f.Device != "":
		index = "INDEXED BY lookup_device"
	}
	if f.Blocked {
		q.and("l.blocked = 1")
	}
	if !f.Since.IsZero() {
		q.and("l.at_ms >= ?", f.Since.UnixMilli())
	}
	if !f.Until.IsZero() {
		q.and("l.at_ms <= ?", f.Until.UnixMilli())
	}
	rows, err := db.QueryContext(ctx, `SELECT l.id, l.at_ms, d.device, n.name, l.type, l.rcode,
			v.action, v.noted, v.reason, v.rule, v.list, n.organisation, l.redirected, l.count
		FROM lookup l `+index+`
		CROSS JOIN device d ON d.id = l.device
		CROSS JOIN destination n ON n.id = l.destination
		CROSS JOIN verdict v ON v.id = l.verdict`+q.where()+`
		ORDER BY l.id DESC LIMIT ?`, append(q.args, limit(f))...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []journal.LookupRow
	for rows.Next() {
		var r journal.LookupRow
		var at int64
		if err := rows.Scan(&r.ID, &at, &r.Device, &r.Name, &r.Type, &r.Rcode,
			&r.Verdict, &r.Noted, &r.Reason, &r.Rule, &r.List, &r.Organisation, &r.Redirected, &r.Count); err != nil {
			return nil, err
		}
		r.At = time.UnixMilli(at)
		all = append(all, r)
	}
	return all, rows.Err()
}

// Events is a page of rare events, newest first.
func (s *Store) Events(ctx context.Context, f journal.Filter) ([]journal.EventRow, error) {
	return ask(ctx, s, func(ctx context.Context, db *sql.DB) ([]journal.EventRow, error) { return events(ctx, db, f) })
}

func events(ctx context.Context, db *sql.DB, f journal.Filter) ([]journal.EventRow, error) {
	var q conditions
	if f.Device != "" {
		q.and("device = ?", string(f.Device))
	}
	if f.Before > 0 {
		q.and("id < ?", f.Before)
	}
	if !f.Since.IsZero() {
		q.and("at_ms >= ?", f.Since.UnixMilli())
	}
	if !f.Until.IsZero() {
		q.and("at_ms <= ?", f.Until.UnixMilli())
	}
	rows, err := db.QueryContext(ctx, "SELECT id, at_ms, device, kind, subject, text FROM event"+q.where()+
		" ORDER BY id DESC LIMIT ?", append(q.args, limit(f))...)
	if err != nil {
		return nil, err
	}
	return scanEvents(rows)
}

// Told is every rare event of a device that is still kept, for a Recorder to
// remember; newest first.
func (s *Store) Told(ctx context.Context) ([]journal.EventRow, error) {
	return ask(ctx, s, func(ctx context.Context, db *sql.DB) ([]journal.EventRow, error) {
		rows, err := db.QueryContext(ctx, "SELECT id, at_ms, device, kind, subject, '' FROM event WHERE device != '' ORDER BY id DESC")
		if err != nil {
			return nil, err
		}
		return scanEvents(rows)
	})
}

// conditions are the terms of a WHERE with their arguments.
type conditions struct {
	terms []string
	args  []any
}

func (c *conditions) and(term string, args ...any) {
	c.terms = append(c.terms, term)
	c.args = append(c.args, args...)
}

func (c *conditions) where() string {
	if len(c.terms) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.terms, " AND ")
}

// narrow is what flows and look-ups have in common. A row's id is never before
// its time, so that Since can begin at an id, and never more than the lead after it,
// so that Until can end at one; what the clock said decides.
func narrow(f journal.Filter, table string) *conditions {
	c := &conditions{}
	if f.Device != "" {
		c.and(table+".device = (SELECT id FROM device WHERE device = ?)", string(f.Device))
	}
	if !f.Since.IsZero() {
		c.and(table+".id >= ?", idOf(f.Since))
	}
	if !f.Until.IsZero() {
		c.and(table+".id < ? + ((SELECT value FROM meta WHERE key = 'lead') << 20)", idOf(f.Until)+2<<idShift)
	}
	if f.Before > 0 {
		c.and(table+".id < ?", f.Before)
	}
	return c
}

func limit(f journal.Filter) int {
	if f.Limit <= 0 {
		return defaultLimit
	}
	return min(f.Limit, maxLimit)
}
