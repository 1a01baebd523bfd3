package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
)

// Limits of household.db. They are far above what people do, and keep a script
// that runs wild from filling the flash.
const (
	maxChoices  = 2000
	maxRules    = 10_000
	maxAudit    = 1000
	maxName     = 64    // runes of a device's name
	maxID       = 64    // bytes of a device's ID
	maxWord     = 300   // bytes of what the audit log says
	maxSettings = 1000  // keys
	maxSetting  = 65536 // bytes of one value
	maxCopies   = 2     // made before migrations
)

// Errors of the household's choices.
var (
	// ErrNotFound says that there is nothing under this ID.
	ErrNotFound = errors.New("not found")
	// ErrTooMany says that a limit of household.db is reached.
	ErrTooMany = errors.New("too many")
)

// Household is what people decided: household.db. Each change is on the disk
// before its method returns, together with a line in the audit log. It is safe
// for concurrent use: one connection serves all, in turn.
type Household struct {
	db  *sql.DB
	now func() time.Time
}

// OpenHousehold opens household.db alone, for a change while no daemon runs. now
// is the clock of the audit log. Whoever opened it must Close it.
func OpenHousehold(ctx context.Context, path string, now func() time.Time) (*Household, error) {
	return openHousehold(ctx, Config{HouseholdPath: path, Now: now})
}

// Close closes the file of a Household that OpenHousehold opened.
func (h *Household) Close() error { return h.db.Close() }

func openHousehold(ctx context.Context, cfg Config) (*Household, error) {
	path := cfg.HouseholdPath
	if err := prepare(path); err != nil {
		return nil, err
	}
	steps, err := scripts(migrations, "migrations/household")
	if err != nil {
		return nil, err
	}
	db := openFile(path, "rwc", 1,
		"PRAGMA page_size = 1024",        // a change touches some pages twice; small ones share a page of flash
		"PRAGMA journal_mode = TRUNCATE", // one small file; the journal keeps its inode, which is kind to flash
		cfg.synchronous("FULL"),
		"PRAGMA secure_delete = ON",
		"PRAGMA temp_store = MEMORY",
		"PRAGMA cache_size = -256",
	)
	err = quickCheck(ctx, db) // tiny, so always
	if err == nil {
		err = migrate(ctx, db, steps, func(version int) error { return copyBefore(ctx, db, path, version) })
	}
	if err == nil {
		return &Household{db: db, now: cfg.Now}, nil
	}
	db.Close()
	if isCorrupt(err) {
		return nil, fmt.Errorf("%s: %w: %s", path, err, remedy(path))
	}
	return nil, fmt.Errorf("%s: %w", path, err)
}

// copyBefore keeps the file as it is before a migration.
func copyBefore(ctx context.Context, db *sql.DB, path string, version int) error {
	if err := copyTo(ctx, db, copyName(path, version)); err != nil {
		return fmt.Errorf("copying before migration: %w", err)
	}
	return removeIfThere(copyName(path, version-maxCopies))
}

func copyName(path string, version int) string { return fmt.Sprintf("%s.version-%d", path, version) }

// remedy says what to do about a household.db that cannot be read.
func remedy(path string) string {
	copies, _ := filepath.Glob(globQuote(path) + ".version-*")
	if len(copies) == 0 {
		return "there is no copy; move it away to start with no choices made"
	}
	newest := copies[0]
	for _, c := range copies[1:] {
		if len(c) > len(newest) || len(c) == len(newest) && c > newest {
			newest = c
		}
	}
	return fmt.Sprintf("restore the last copy with: cp %s %s", newest, path)
}

// change makes one decision durable: fn and a line in the audit log, or neither.
func (h *Household) change(ctx context.Context, by string, device devices.ID, what string, fn func(tx *sql.Tx, now int64) error) error {
	now := h.now().UnixMilli()
	return inTx(ctx, h.db, func(tx *sql.Tx) error {
		if err := fn(tx, now); err != nil {
			return err
		}
		done, err := tx.ExecContext(ctx, "INSERT INTO audit (at_ms, who, device, what) VALUES (?, ?, ?, ?)",
			now, clip(by, maxWord), string(device), clip(what, maxWord))
		if err != nil {
			return err
		}
		id, err := done.LastInsertId()
		if err != nil || id%50 != 0 {
			return err // now and then is enough to trim, and leaves the oldest page alone otherwise
		}
		_, err = tx.ExecContext(ctx, "DELETE FROM audit WHERE id <= ?", id-maxAudit)
		return err
	})
}

// Choices is what the household chose, by device.
func (h *Household) Choices(ctx context.Context) (map[devices.ID]devices.Choice, error) {
	rows, err := h.db.QueryContext(ctx, "SELECT device, name, kind, mode, log, carry = 'yes', strip = 'yes' FROM choice")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[devices.ID]devices.Choice{}
	for rows.Next() {
		var id devices.ID
		var c devices.Choice
		var mode, log string
		if err := rows.Scan(&id, &c.Name, &c.Kind, &mode, &log, &c.CarryEncrypted, &c.StripTracking); err != nil {
			return nil, err
		}
		if mode != "" {
			if c.Mode, err = devices.ParseMode(mode); err != nil {
				return nil, fmt.Errorf("choice for %s: %w", id, err)
			}
		}
		if log != "" {
			level, err := devices.ParseLogLevel(log)
			if err != nil {
				return nil, fmt.Errorf("choice for %s: %w", id, err)
			}
			c.Log = &level
		}
		all[id] = c
	}
	return all, rows.Err()
}

// SetName calls a device by a name of at most 64 letters; "" takes the name back.
func (h *Household) SetName(ctx context.Context, id devices.ID, name, by string) error {
	name = strings.TrimSpace(name)
	if !utf8.ValidString(name) || utf8.RuneCountInString(name) > maxName || strings.ContainsFunc(name, unprintable) {
		return fmt.Errorf("name %.80q: at most %d printable letters are needed", name, maxName)
	}
	return h.choose(ctx, id, "name", name, by)
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// SetKind says what a device is; KindUnknown leaves it to what is detected.
func (h *Household) SetKind(ctx context.Context, id devices.ID, kind devices.Kind, by string) error {
	return h.choose(ctx, id, "kind", string(kind), by)
}

// SetMode says how a device is treated; ModeUnset leaves it to the house's default.
func (h *Household) SetMode(ctx context.Context, id devices.ID, mode devices.Mode, by string) error {
	return h.choose(ctx, id, "mode", mode.String(), by)
}

// SetLog says how much of a device's traffic is written down from now on. What
// was written before stays until Forget or Erase: offer it when the level falls.
func (h *Household) SetLog(ctx context.Context, id devices.ID, level devices.LogLevel, by string) error {
	return h.choose(ctx, id, "log", level.String(), by)
}

// SetCarry says whether a guarded device's readable requests leave the house
// encrypted where the other side can.
func (h *Household) SetCarry(ctx context.Context, id devices.ID, on bool, by string) error {
	return h.choose(ctx, id, "carry", yesNo(on), by)
}

// SetStrip says whether what follows people about is taken out of a guarded
// device's readable requests.
func (h *Household) SetStrip(ctx context.Context, id devices.ID, on bool, by string) error {
	return h.choose(ctx, id, "strip", yesNo(on), by)
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

// choose sets one column of one device's choice. column is ours, never a caller's.
func (h *Household) choose(ctx context.Context, id devices.ID, column, value, by string) error {
	if id == "" || len(id) > maxID {
		return fmt.Errorf("device %.80q: an ID of 1 to %d octets is needed", id, maxID)
	}
	what := column + ": " + cmp.Or(value, "not chosen")
	return h.change(ctx, by, id, what, func(tx *sql.Tx, now int64) error {
		if err := room(ctx, tx, "choice", "device", string(id), maxChoices); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO choice (device, `+column+`, changed_ms, changed_by) VALUES (?1, ?2, ?3, ?4)
			ON CONFLICT (device) DO UPDATE SET `+column+` = ?2, changed_ms = ?3, changed_by = ?4`,
			string(id), value, now, clip(by, maxWord))
		return err
	})
}

// room makes sure that table holds key already or has room for one more.
func room(ctx context.Context, tx *sql.Tx, table, column, key string, most int) error {
	var count, have int
	err := tx.QueryRowContext(ctx, "SELECT count(*), count(iif("+column+" = ?, 1, NULL)) FROM "+table, key).Scan(&count, &have)
	if err == nil && have == 0 && count >= most {
		return fmt.Errorf("%w in %s: %d are kept, remove one first", ErrTooMany, table, most)
	}
	return err
}

// Unchoose takes back all that was chosen for a device.
func (h *Household) Unchoose(ctx context.Context, id devices.ID, by string) error {
	return h.change(ctx, by, id, "all choices taken back", func(tx *sql.Tx, _ int64) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM choice WHERE device = ?", string(id))
		return err
	})
}

// Rules is the household's rules that have not ended, oldest first.
func (h *Household) Rules(ctx context.Context) ([]policy.Rule, error) {
	rows, err := h.db.QueryContext(ctx, `SELECT id, action, name, path, device, until_ms, created_ms, created_by
		FROM rule WHERE until_ms = 0 OR until_ms > ? ORDER BY id`, h.now().UnixMilli())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []policy.Rule
	for rows.Next() {
		var r policy.Rule
		var action string
		var until, created int64
		if err := rows.Scan(&r.ID, &action, &r.Name, &r.Path, &r.Device, &until, &created, &r.By); err != nil {
			return nil, err
		}
		r.Action = policy.Allow
		if action == policy.Block.String() {
			r.Action = policy.Block
		}
		if until != 0 {
			r.Until = time.UnixMilli(until)
		}
		r.Created = time.UnixMilli(created)
		all = append(all, r)
	}
	return all, rows.Err()
}

// AddRule makes a rule durable and returns it with its ID and creation time.
// The same action on the same name, path and device is the same rule: it then lasts
// until the later of both ends. Name and path are normalised; expired rules make room.
func (h *Household) AddRule(ctx context.Context, r policy.Rule) (policy.Rule, error) {
	name, err := dnsname.Parse(string(r.Name))
	switch {
	case err != nil:
		return policy.Rule{}, err
	case name == "":
		return policy.Rule{}, errors.New("rule for no name: a domain name is needed")
	case r.Action != policy.Allow && r.Action != policy.Block:
		return policy.Rule{}, fmt.Errorf("rule for %s: allow or block is needed", name)
	case len(r.Device) > maxID:
		return policy.Rule{}, fmt.Errorf("device %.80q: an ID of at most %d octets is needed", r.Device, maxID)
	case !r.Until.IsZero() && !r.Until.After(h.now()):
		return policy.Rule{}, fmt.Errorf("rule for %s: its end %s has passed", name, r.Until.Format(time.RFC3339))
	}
	if r.Path != "" {
		if r.Path, err = policy.ParsePath(r.Path); err != nil {
			return policy.Rule{}, fmt.Errorf("rule for %s: %w", name, err)
		}
	}
	r.Name = name
	r.By = clip(r.By, maxWord)
	what := r.Action.String() + " " + string(name) + r.Path
	if !r.Until.IsZero() {
		what += " until " + r.Until.Format(time.RFC3339)
	}
	err = h.change(ctx, r.By, r.Device, what, func(tx *sql.Tx, now int64) error {
		if err := expire(ctx, tx, now); err != nil {
			return err
		}
		var count int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM rule").Scan(&count); err != nil {
			return err
		}
		if count >= maxRules {
			return fmt.Errorf("%w rules: %d are kept, remove one first", ErrTooMany, maxRules)
		}
		var until, created int64
		if !r.Until.IsZero() {
			until = r.Until.UnixMilli()
		}
		// 0 is for ever, and so the later end of any two.
		err := tx.QueryRowContext(ctx, `INSERT INTO rule (action, name, path, device, until_ms, created_ms, created_by) VALUES (?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (action, name, path, device) DO UPDATE SET
				until_ms = iif(until_ms = 0 OR excluded.until_ms = 0, 0, max(until_ms, excluded.until_ms))
			RETURNING id, until_ms, created_ms, created_by`,
			r.Action.String(), string(name), r.Path, string(r.Device), until, now, r.By).Scan(&r.ID, &until, &created, &r.By)
		r.Created, r.Until = time.UnixMilli(created), time.Time{}
		if until != 0 {
			r.Until = time.UnixMilli(until)
		}
		return err
	})
	if err != nil {
		return policy.Rule{}, err
	}
	return r, nil
}

func expire(ctx context.Context, tx *sql.Tx, now int64) error {
	_, err := tx.ExecContext(ctx, "DELETE FROM rule WHERE until_ms != 0 AND until_ms <= ?", now)
	return err
}

// expireRules removes the rules that have ended, and writes only if there are any.
func (h *Household) expireRules(ctx context.Context) error {
	now := h.now().UnixMilli()
	var any bool
	err := h.db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM rule WHERE until_ms != 0 AND until_ms <= ?)", now).Scan(&any)
	if err != nil || !any {
		return err
	}
	return inTx(ctx, h.db, func(tx *sql.Tx) error { return expire(ctx, tx, now) })
}

// RemoveRule takes a rule back; ErrNotFound when there is none with this ID.
func (h *Household) RemoveRule(ctx context.Context, id int64, by string) error {
	var device devices.ID
	var what string
	err := h.db.QueryRowContext(ctx, "SELECT device, action || ' ' || name || path FROM rule WHERE id = ?", id).Scan(&device, &what)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("rule %d: %w", id, ErrNotFound)
	}
	if err != nil {
		return err
	}
	return h.change(ctx, by, device, "rule taken back: "+what, func(tx *sql.Tx, _ int64) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM rule WHERE id = ?", id)
		return err
	})
}

// The settings that the store itself knows.
const settingOn = "on"

// On reports whether the house is switched on, which it is until somebody switches it off.
func (h *Household) On(ctx context.Context) (bool, error) {
	value, _, err := h.Setting(ctx, settingOn)
	return value != "no", err
}

// Switch switches the whole house on or off, over a restart too.
func (h *Household) Switch(ctx context.Context, on bool, by string) error {
	return h.SetSetting(ctx, settingOn, yesNo(on), by)
}

// Setting is the value kept under a key, and whether there is one.
func (h *Household) Setting(ctx context.Context, key string) (value string, ok bool, err error) {
	err = h.db.QueryRowContext(ctx, "SELECT value FROM setting WHERE key = ?", key).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", false, nil
	}
	return value, err == nil, err
}

// SetSetting keeps a value of at most 64 KiB under a key. The audit log has the
// key and not the value, which may be a secret.
func (h *Household) SetSetting(ctx context.Context, key, value, by string) error {
	if key == "" || len(key) > maxID || len(value) > maxSetting {
		return fmt.Errorf("setting %.80q of %d octets: a key of at most %d and a value of at most %d are needed", key, len(value), maxID, maxSetting)
	}
	what := "setting " + key
	if key == settingOn {
		what = "switched on: " + value
	}
	return h.change(ctx, by, "", what, func(tx *sql.Tx, _ int64) error {
		if err := room(ctx, tx, "setting", "key", key, maxSettings); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO setting (key, value) VALUES (?1, ?2)
			ON CONFLICT (key) DO UPDATE SET value = ?2`, key, value)
		return err
	})
}

// Change is one line of the audit log.
type Change struct {
	ID     int64
	At     time.Time
	By     string
	Device devices.ID // "" is the whole house
	What   string
}

// Audit is who changed what, newest first, at most limit lines. A thousand are kept.
func (h *Household) Audit(ctx context.Context, limit int) ([]Change, error) {
	rows, err := h.db.QueryContext(ctx, "SELECT id, at_ms, who, device, what FROM audit ORDER BY id DESC LIMIT ?", min(limit, maxAudit))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Change
	for rows.Next() {
		var c Change
		var at int64
		if err := rows.Scan(&c.ID, &at, &c.By, &c.Device, &c.What); err != nil {
			return nil, err
		}
		c.At = time.UnixMilli(at)
		all = append(all, c)
	}
	return all, rows.Err()
}

// eraseAudit removes what the audit log says of one device, or all of it.
func (h *Household) eraseAudit(ctx context.Context, device devices.ID, all bool) error {
	_, err := h.db.ExecContext(ctx, "DELETE FROM audit WHERE ?2 OR device = ?1", string(device), all)
	if err == nil {
		_, err = h.db.ExecContext(ctx, "VACUUM") // tiny
	}
	return err
}

// clip bounds text that others wrote to n bytes of valid UTF-8.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
