package store

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/devices"
)

// maxKnown bounds the devices that are remembered, above what a registry holds;
// maxMACs and maxHostname bound what is kept of one.
const (
	maxKnown    = 2000
	maxMACs     = 16
	maxHostname = 253 // octets
)

// knownRow is a row of known, in which two devices can be compared.
type knownRow struct {
	macs, hostname string
	first          int64 // Unix milliseconds
}

func knownRowOf(d devices.Device) knownRow {
	macs := make([]string, 0, len(d.MACs))
	for _, m := range d.MACs[:min(len(d.MACs), maxMACs)] {
		macs = append(macs, m.String())
	}
	return knownRow{strings.Join(macs, ","), clip(d.Hostname, maxHostname), d.FirstSeen.UnixMilli()}
}

func (r knownRow) device(id devices.ID) devices.Device {
	first := time.UnixMilli(r.first)
	d := devices.Device{ID: id, Hostname: r.hostname, FirstSeen: first, LastSeen: first}
	if r.hostname != "" {
		d.NameFrom = devices.SourceLease // as much as a lease proves: it was once called so
	}
	for text := range strings.SplitSeq(r.macs, ",") {
		if m, err := devices.ParseMAC(text); err == nil {
			d.MACs = append(d.MACs, m)
		}
	}
	return d
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func knownRows(ctx context.Context, q querier) (map[devices.ID]knownRow, error) {
	rows, err := q.QueryContext(ctx, "SELECT device, macs, hostname, first_ms FROM known")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[devices.ID]knownRow{}
	for rows.Next() {
		var id devices.ID
		var r knownRow
		if err := rows.Scan(&id, &r.macs, &r.hostname, &r.first); err != nil {
			return nil, err
		}
		all[id] = r
	}
	return all, rows.Err()
}

// Known is the devices that the house has met, as SetKnown was told of them:
// ID, MACs, Hostname and FirstSeen; LastSeen is FirstSeen, for when a device was
// last here is not kept. Their order is not defined.
func (h *Household) Known(ctx context.Context) ([]devices.Device, error) {
	rows, err := knownRows(ctx, h.db)
	if err != nil {
		return nil, err
	}
	all := make([]devices.Device, 0, len(rows))
	for id, r := range rows {
		all = append(all, r.device(id))
	}
	return all, nil
}

// SetKnown replaces the devices that the house has met: those not among all are
// known no more. It writes what differs and nothing else, for it is flash, and
// may be called often. Who a device is belongs to how the household treats it, and
// not to what the device did: Erase and EraseAll keep it, see RemoveKnown.
func (h *Household) SetKnown(ctx context.Context, all []devices.Device) error {
	if len(all) > maxKnown {
		return fmt.Errorf("%w devices: %d are to be known, %d are kept", ErrTooMany, len(all), maxKnown)
	}
	want := make(map[devices.ID]knownRow, len(all))
	for _, d := range all {
		if d.ID == "" || len(d.ID) > maxID {
			return fmt.Errorf("device %.80q: an ID of 1 to %d octets is needed", d.ID, maxID)
		}
		want[d.ID] = knownRowOf(d)
	}
	have, err := knownRows(ctx, h.db)
	if err != nil || maps.Equal(have, want) {
		return err // without a transaction: even an empty one would touch the journal
	}
	return inTx(ctx, h.db, func(tx *sql.Tx) error {
		have, err := knownRows(ctx, tx) // somebody may have been here meanwhile
		if err != nil {
			return err
		}
		for id := range have {
			if _, ok := want[id]; ok {
				continue
			}
			if _, err := tx.ExecContext(ctx, "DELETE FROM known WHERE device = ?", string(id)); err != nil {
				return err
			}
		}
		for id, r := range want {
			if have[id] == r {
				continue
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO known (device, macs, hostname, first_ms) VALUES (?1, ?2, ?3, ?4)
				ON CONFLICT (device) DO UPDATE SET macs = ?2, hostname = ?3, first_ms = ?4`, string(id), r.macs, r.hostname, r.first); err != nil {
				return err
			}
		}
		return nil
	})
}

// RemoveKnown forgets that the house has met a device, and leaves no copy of its
// identity. Use it with Registry.Forget, which comes first: SetKnown would write
// the device again. Unknown devices are no error.
func (h *Household) RemoveKnown(ctx context.Context, id devices.ID) error {
	done, err := h.db.ExecContext(ctx, "DELETE FROM known WHERE device = ?", string(id))
	if err != nil {
		return err
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		return err
	}
	_, err = h.db.ExecContext(context.WithoutCancel(ctx), "VACUUM") // tiny; see scrub
	return err
}
