package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/netcurtain/netcurtain/devices"
)

// ListSource says where a list comes from.
type ListSource string

const (
	ListFromURL       ListSource = "url"
	ListFromFile      ListSource = "file"
	ListFromCatalogue ListSource = "catalogue"
	// ListFromSettings is the administrator's: of it only Enabled and Devices are
	// the household's word.
	ListFromSettings ListSource = "settings"
)

// List is one that the household added, or its word on one of the settings file.
type List struct {
	Name     string
	Source   ListSource
	Address  string // URL, file name below the safe folder, name in the catalogue
	Allow    bool
	Insecure bool // may come over http
	Rewrite  bool // its rules may answer with other addresses
	Enabled  bool
	Devices  []devices.ID // whom it is for; none is the whole house
	Created  time.Time
	By       string
}

const (
	maxLists       = 64
	maxListAddress = 2048
	maxListDevices = 500
	egressKept     = 90 * 24 * time.Hour
	maxEgress      = 500 // rows
)

// Lists are all of them, in the order in which they were added.
func (h *Household) Lists(ctx context.Context) ([]List, error) {
	rows, err := h.db.QueryContext(ctx, `SELECT name, source, address, allow, insecure, rewrite, enabled, created_ms, created_by,
		coalesce((SELECT group_concat(device, char(10)) FROM (SELECT device FROM list_device WHERE list = name ORDER BY device)), '')
		FROM list ORDER BY created_ms, name`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []List
	for rows.Next() {
		var l List
		var created int64
		var whose string
		if err := rows.Scan(&l.Name, &l.Source, &l.Address, &l.Allow, &l.Insecure, &l.Rewrite, &l.Enabled, &created, &l.By, &whose); err != nil {
			return nil, err
		}
		l.Created = time.UnixMilli(created)
		for d := range strings.FieldsFuncSeq(whose, func(r rune) bool { return r == '\n' }) {
			l.Devices = append(l.Devices, devices.ID(d))
		}
		all = append(all, l)
	}
	return all, rows.Err()
}

// ErrExists says that something of this name is there already.
var ErrExists = errors.New("there already")

// CheckListName says what is wrong with the name of a list.
func CheckListName(name string) error {
	if name == "" || !utf8.ValidString(name) || utf8.RuneCountInString(name) > maxName || strings.ContainsFunc(name, unprintable) ||
		strings.TrimSpace(name) != name || name == "." || name == ".." || strings.Contains(name, "/") {
		return fmt.Errorf("name %.80q of a list: 1 to %d printable characters are needed, without /", name, maxName)
	}
	return nil
}

// AddList keeps a new list. ErrExists when there is one of this name.
func (h *Household) AddList(ctx context.Context, l List) error {
	if err := CheckListName(l.Name); err != nil {
		return err
	}
	if len(l.Address) > maxListAddress || l.Source == ListFromSettings {
		return fmt.Errorf("list %q: an address of at most %d octets is needed", l.Name, maxListAddress)
	}
	what := "list added: " + l.Name
	return h.change(ctx, l.By, "", what, func(tx *sql.Tx, now int64) error {
		var have, same int
		if err := tx.QueryRowContext(ctx, "SELECT count(*), count(iif(name = ?, 1, NULL)) FROM list", l.Name).Scan(&have, &same); err != nil {
			return err
		}
		switch {
		case same > 0:
			return fmt.Errorf("list %q is %w", l.Name, ErrExists)
		case have >= maxLists:
			return fmt.Errorf("%w lists: %d are kept, remove one first", ErrTooMany, maxLists)
		}
		if err := insertList(ctx, tx, l, now); err != nil {
			return err
		}
		return setListDevices(ctx, tx, l.Name, l.Devices)
	})
}

func insertList(ctx context.Context, tx *sql.Tx, l List, now int64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO list (name, source, address, allow, insecure, rewrite, enabled, created_ms, created_by)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, l.Name, string(l.Source), l.Address, l.Allow, l.Insecure, l.Rewrite, l.Enabled, now, clip(l.By, maxWord))
	return err
}

// RemoveList forgets a list and how it fared, and returns what it was.
func (h *Household) RemoveList(ctx context.Context, name, by string) (List, error) {
	all, err := h.Lists(ctx)
	if err != nil {
		return List{}, err
	}
	for _, l := range all {
		if l.Name != name {
			continue
		}
		return l, h.change(ctx, by, "", "list removed: "+name, func(tx *sql.Tx, _ int64) error {
			for _, table := range []string{"list WHERE name", "list_device WHERE list", "list_state WHERE name"} {
				if _, err := tx.ExecContext(ctx, "DELETE FROM "+table+" = ?", name); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return List{}, fmt.Errorf("list %q: %w", name, ErrNotFound)
}

// SetList changes whether a list is used and for whom. Of a list of the settings
// file, which need not be kept here yet, it keeps the household's word.
func (h *Household) SetList(ctx context.Context, name string, enabled bool, whose []devices.ID, by string) error {
	if err := CheckListName(name); err != nil {
		return err
	}
	word := "disabled"
	if enabled {
		word = "enabled"
	}
	return h.change(ctx, by, "", "list "+word+": "+name, func(tx *sql.Tx, now int64) error {
		done, err := tx.ExecContext(ctx, "UPDATE list SET enabled = ? WHERE name = ?", enabled, name)
		if err != nil {
			return err
		}
		n, err := done.RowsAffected()
		if err == nil && n == 0 {
			err = room(ctx, tx, "list", "name", name, maxLists)
			if err == nil {
				err = insertList(ctx, tx, List{Name: name, Source: ListFromSettings, Enabled: enabled, By: by}, now)
			}
		}
		if err != nil {
			return err
		}
		return setListDevices(ctx, tx, name, whose)
	})
}

func setListDevices(ctx context.Context, tx *sql.Tx, name string, whose []devices.ID) error {
	if len(whose) > maxListDevices {
		return fmt.Errorf("list %q: %w devices: %d are the most", name, ErrTooMany, maxListDevices)
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM list_device WHERE list = ?", name); err != nil {
		return err
	}
	for _, d := range whose {
		if d == "" || len(d) > maxID || strings.Contains(string(d), "\n") {
			return fmt.Errorf("device %.80q: an ID of 1 to %d octets is needed", d, maxID)
		}
		if _, err := tx.ExecContext(ctx, "INSERT OR IGNORE INTO list_device (list, device) VALUES (?, ?)", name, string(d)); err != nil {
			return err
		}
	}
	return nil
}

// Unlist forgets that lists are for a device. One that was for this device alone is
// disabled: it must not become the whole house's by itself.
func (h *Household) Unlist(ctx context.Context, id devices.ID) error {
	return inTx(ctx, h.db, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE list SET enabled = 0 WHERE
			EXISTS (SELECT 1 FROM list_device WHERE list = name AND device = ?1) AND
			NOT EXISTS (SELECT 1 FROM list_device WHERE list = name AND device != ?1)`, string(id))
		if err == nil {
			_, err = tx.ExecContext(ctx, "DELETE FROM list_device WHERE device = ?", string(id))
		}
		return err
	})
}

// ListState is how a list fares.
type ListState struct {
	Success time.Time // when it was last had or found unchanged
	Failure time.Time // since when it fails
	Error   string
	Hits    int64
	Hit     time.Time
}

// ListStates are those that were kept, by the list's name.
func (h *Household) ListStates(ctx context.Context) (map[string]ListState, error) {
	rows, err := h.db.QueryContext(ctx, "SELECT name, success_ms, failure_ms, error, hits, hit_ms FROM list_state")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[string]ListState{}
	for rows.Next() {
		var name string
		var s ListState
		var success, failure, hit int64
		if err := rows.Scan(&name, &success, &failure, &s.Error, &s.Hits, &hit); err != nil {
			return nil, err
		}
		s.Success, s.Failure, s.Hit = moment(success), moment(failure), moment(hit)
		all[name] = s
	}
	return all, rows.Err()
}

func moment(ms int64) (t time.Time) {
	if ms != 0 {
		t = time.UnixMilli(ms)
	}
	return t
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// KeepListStates writes down how lists fare; with Hits as they are, not as they grew.
// States of lists that are not among those given are forgotten.
func (h *Household) KeepListStates(ctx context.Context, states map[string]ListState) error {
	old, err := h.ListStates(ctx)
	if err != nil {
		return err
	}
	return inTx(ctx, h.db, func(tx *sql.Tx) error {
		for name := range old {
			if _, ok := states[name]; ok {
				continue
			}
			if _, err := tx.ExecContext(ctx, "DELETE FROM list_state WHERE name = ?", name); err != nil {
				return err
			}
		}
		for name, s := range states {
			_, err := tx.ExecContext(ctx, `INSERT INTO list_state (name, success_ms, failure_ms, error, hits, hit_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
				ON CONFLICT (name) DO UPDATE SET success_ms = ?2, failure_ms = ?3, error = ?4, hits = ?5, hit_ms = ?6`,
				name, millis(s.Success), millis(s.Failure), clip(s.Error, maxWord), s.Hits, millis(s.Hit))
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Egress is what this box itself asked of one host, for one thing.
type Egress struct {
	What, Host  string
	Requests    int64
	Bytes       int64 // that came back
	First, Last time.Time
}

// Egress is what this box asked outside, the newest first.
func (h *Household) Egress(ctx context.Context) ([]Egress, error) {
	rows, err := h.db.QueryContext(ctx, "SELECT what, host, requests, bytes, first_ms, last_ms FROM egress ORDER BY last_ms DESC, what, host")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Egress
	for rows.Next() {
		var e Egress
		var first, last int64
		if err := rows.Scan(&e.What, &e.Host, &e.Requests, &e.Bytes, &first, &last); err != nil {
			return nil, err
		}
		e.First, e.Last = moment(first), moment(last)
		all = append(all, e)
	}
	return all, rows.Err()
}

// AddEgress adds to what this box asked outside, and forgets what is older than ninety days.
func (h *Household) AddEgress(ctx context.Context, more []Egress) error {
	return inTx(ctx, h.db, func(tx *sql.Tx) error {
		for _, e := range more {
			_, err := tx.ExecContext(ctx, `INSERT INTO egress (what, host, requests, bytes, first_ms, last_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
				ON CONFLICT (what, host) DO UPDATE SET requests = requests + ?3, bytes = bytes + ?4, last_ms = max(last_ms, ?6)`,
				clip(e.What, maxWord), clip(e.Host, maxWord), e.Requests, e.Bytes, millis(e.First), millis(e.Last))
			if err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM egress WHERE last_ms < ?1 OR (what, host) IN
			(SELECT what, host FROM egress ORDER BY last_ms DESC, what, host LIMIT -1 OFFSET ?2)`, h.now().Add(-egressKept).UnixMilli(), maxEgress)
		return err
	})
}
