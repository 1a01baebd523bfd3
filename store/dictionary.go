package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
)

// dictionary gives each distinct text one row of its table, and remembers the ids of some.
type dictionary[K comparable] struct {
	ids          map[K]int64
	find, insert string
	values       func(K) []any // of the columns, in their order
}

func newDictionary[K comparable](table string, values func(K) []any, columns ...string) dictionary[K] {
	return dictionary[K]{
		find:   "SELECT id FROM " + table + " WHERE " + strings.Join(columns, " = ? AND ") + " = ?",
		insert: "INSERT INTO " + table + " (" + strings.Join(columns, ", ") + ") VALUES (?" + strings.Repeat(", ?", len(columns)-1) + ")",
		values: values,
	}
}

// dictionaries are those of one ledger.
type dictionaries struct {
	devices dictionary[devices.ID]
	places  dictionary[place]
	rulings dictionary[ruling]
	looks   dictionary[look]
}

func newDictionaries() dictionaries {
	return dictionaries{
		devices: newDictionary("device", func(d devices.ID) []any { return []any{string(d)} }, "device"),
		places: newDictionary("destination", func(p place) []any {
			return []any{p.name, p.organisation, p.purpose, p.country, p.breaks}
		}, "name", "organisation", "purpose", "country", "breaks"),
		rulings: newDictionary("verdict", func(r ruling) []any {
			return []any{r.action, r.reason, r.rule, r.list, r.noted}
		}, "action", "reason", "rule", "list", "noted"),
		looks: newDictionary("seen", func(k look) []any {
			return []any{k.app, k.protection, k.harmless, k.why, k.nameSource, k.tlsVersion, k.credentials,
				k.QUICVersion, k.ECH, k.TLSCipher, k.TLSWeak, k.Certificate, k.CredentialUser, k.CredentialDefault, k.Identifiers,
				k.ambiguous, k.inbound, k.portMapped, k.byNameOnly, k.carried}
		}, "app", "protection", "harmless", "why", "name_source", "tls_version", "credentials",
			"quic_version", "ech", "tls_cipher", "tls_weak", "certificate", "credential_user", "credential_default", "identifiers",
			"ambiguous", "inbound", "port_mapped", "by_name_only", "carried"),
	}
}

// forget lets go of ids that may not hold any more.
func (d *dictionaries) forget() {
	d.devices.ids, d.places.ids, d.rulings.ids, d.looks.ids = nil, nil, nil, nil
}

const maxRemembered = 2048

func (d *dictionary[K]) id(ctx context.Context, tx *sql.Tx, key K) (int64, error) {
	if id, ok := d.ids[key]; ok {
		return id, nil
	}
	args := d.values(key)
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

// Bounds of text from the network and from rules, in bytes.
const (
	maxHost = 253
	maxWhy  = 200
	maxRule = 300
	maxText = 500
)

func placeOf(name, organisation, purpose, country, breaks string) place {
	return place{clip(name, maxHost), clip(organisation, maxWhy), clip(purpose, maxID), clip(country, maxID), clip(breaks, maxWhy)}
}

func rulingOf(v policy.Verdict) ruling {
	return ruling{v.Action.String(), v.Reason.String(), clip(v.Rule, maxRule), clip(v.List, maxWhy), v.Noted}
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
