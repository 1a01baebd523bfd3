package store

import (
	"context"
	"database/sql"
	"net/netip"
	"slices"

	"golang.org/x/net/publicsuffix"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// maxStrangers bounds the names without an organisation that Totals tells of
// one device: the ones that got most.
const maxStrangers = 12

// maxReached bounds the memory of whom devices were seen to reach, 100 octets each.
const maxReached = 4096

// partnerKey is whom a device reached on a day: an organisation, or, where that
// is not known, a registrable domain or a public address.
type partnerKey struct {
	device, day int64
	known       bool
	name        string
}

type partnerSum struct{ out, hour int64 }

// reach notes that a device reached a place within an hour. Most look-ups are
// of whom it is known to have reached in this hour already: they cost nothing.
func (w *page) reach(device, hour int64, p place, out int64) {
	name, known := partnerOf(p)
	if name == "" {
		return
	}
	k := partnerKey{device, hour / 24, known, name}
	have := w.partners[k]
	if have == nil {
		if newest, ok := w.ledger.reached[k]; ok && newest >= hour && out == 0 {
			return
		}
		have = &partnerSum{}
		w.partners[k] = have
	}
	have.out += out
	have.hour = max(have.hour, hour)
}

func (w *page) partnerSums() error {
	l := w.ledger
	for k, s := range w.partners {
		if err := w.exec(`INSERT INTO partner (device, day, known, name, bytes_out, hour) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET bytes_out = bytes_out + excluded.bytes_out, hour = max(hour, excluded.hour)`,
			k.device, k.day, k.known, k.name, s.out, s.hour); err != nil {
			return err
		}
		if l.reached == nil || len(l.reached) >= maxReached {
			l.reached = make(map[partnerKey]int64)
		}
		l.reached[k] = max(l.reached[k], s.hour)
	}
	return nil
}

// houseZones are the zones of a house's own names, which reach nobody outside:
// RFC 6761, 6762, 8375 and ICANN's "internal"; "lan" is what OpenWrt calls it.
var houseZones = [...]dnsname.Name{"arpa", "internal", "lan", "local", "localhost"}

// partnerOf is whom one reaches at a place, and whether that is an
// organisation; "" for what is in the house itself.
func partnerOf(p place) (name string, known bool) {
	if p.organisation != "" {
		return p.organisation, true
	}
	if a, err := netip.ParseAddr(p.name); err == nil {
		if a.IsPrivate() || !a.IsGlobalUnicast() {
			return "", false
		}
		return p.name, false
	}
	n := dnsname.Name(p.name)
	if n.Parent() == "" || slices.ContainsFunc(houseZones[:], n.IsAtOrBelow) {
		return "", false
	}
	if domain, err := publicsuffix.EffectiveTLDPlusOne(p.name); err == nil {
		return domain, false
	}
	return p.name, false // a public suffix itself
}

// partners yields whom each device reached since an hour, the one that got most
// bytes first; of those whose organisation is not known, maxStrangers. The bytes
// are those of whole days: they order, and are not told.
func partners(ctx context.Context, db *sql.DB, from int64, yield func(device int64, name string)) error {
	rows, err := db.QueryContext(ctx, `SELECT device, known, name FROM partner
		WHERE device IN (SELECT id FROM device) AND day >= ?1 / 24 AND hour >= ?1
		GROUP BY device, known, name ORDER BY device, sum(bytes_out) DESC, name`, from)
	if err != nil {
		return err
	}
	defer rows.Close()
	strangers := map[int64]int{}
	for rows.Next() {
		var device int64
		var known bool
		var name string
		if err := rows.Scan(&device, &known, &name); err != nil {
			return err
		}
		if !known {
			strangers[device]++
		}
		if known || strangers[device] <= maxStrangers {
			yield(device, name)
		}
	}
	return rows.Err()
}
