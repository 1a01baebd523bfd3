package lists

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	"github.com/netcurtain/netcurtain/policy/blocklist"
)

// meta is our note about a list, kept in the index beside its rules.
type meta struct {
	Origin   string    `json:"origin"` // what the list is made from
	Sum      string    `json:"sum"`    // of its text, to know an unchanged list
	ETag     string    `json:"etag,omitempty"`
	Modified string    `json:"modified,omitempty"`
	At       time.Time `json:"at"` // when it was had
}

// origin says what s is made from; another origin is another list.
func (s Source) origin() string {
	switch {
	case s.URL != "":
		return "url " + s.URL
	case s.File != "":
		return "file " + s.File
	}
	sum := sha256.Sum256(s.Text)
	return "text " + hex.EncodeToString(sum[:16])
}

// reach says how far an update may go for a list.
type reach int

const (
	offline reach = iota // what is at hand, and what the old index holds
	online               // downloads too, where they are due
)

// errUnchanged says that a list is as it was.
var errUnchanged = errors.New("unchanged")

// A list that shrank by more than half is not believed, unless it is still so
// when this time has passed since it was last had.
const disbelief = 14 * 24 * time.Hour

// update makes an index of all sources, unless nothing changed, and brings it
// into force. One list's failure keeps that list's old rules; the error that is
// returned is about the index as a whole, of which then the old one stays.
func (l *Lists) update(ctx context.Context, r reach) error {
	l.mu.Lock()
	sources := l.sources
	l.mu.Unlock()

	u := &update{Lists: l, ctx: ctx, reach: r, sources: sources, old: map[string]keptList{}}
	defer u.close()
	u.remember()
	for i, s := range sources {
		if err := u.one(i, s); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !u.changed && u.sameShape() {
		return nil
	}
	return u.finish()
}

// update is one pass over all lists. The Builder is only begun at the first list
// that is not as it was, so that a refresh without news writes nothing.
type update struct {
	*Lists
	ctx     context.Context
	reach   reach
	sources []Source
	old     map[string]keptList // by name; what the index in force holds and may be kept

	builder *blocklist.Builder
	scratch *os.File
	done    int  // sources that the builder has
	changed bool // something is different from the index in force
}

type keptList struct {
	info blocklist.ListInfo
	meta meta
}

// remember notes what can be taken over from the index in force.
func (u *update) remember() {
	if u.index == nil {
		return
	}
	for _, info := range u.index.Lists() {
		var m meta
		if json.Unmarshal([]byte(info.Meta), &m) == nil {
			u.old[info.Name] = keptList{info, m}
		}
	}
	for _, s := range u.sources {
		if k, ok := u.old[s.Name]; ok && (k.meta.Origin != s.origin() || k.info.Allow != s.Allow) {
			delete(u.old, s.Name)
		}
	}
}

// sameShape reports whether the index in force holds just our lists, in our order.
func (u *update) sameShape() bool {
	if u.index == nil {
		return false
	}
	infos := u.index.Lists()
	if len(infos) != len(u.sources) {
		return false
	}
	for i, s := range u.sources {
		if infos[i].Name != s.Name || infos[i].Allow != s.Allow {
			return false
		}
	}
	return true
}

// one brings one list into the new index, from where it can be had.
func (u *update) one(i int, s Source) error {
	kept, hasOld := u.old[s.Name]
	if hasOld {
		u.setStatus(s.Name, func(st *Status) {
			st.Rules, st.Rejected = kept.info.Rules, kept.info.Rejected
			if st.LastSuccess.IsZero() {
				st.LastSuccess = kept.meta.At
			}
		})
	}
	switch {
	case s.Text != nil && hasOld:
		return u.keep(i)
	case s.URL != "" && (u.reach == offline || !u.due(s)):
		return u.keep(i)
	}

	text, m, err := u.open(s, kept.meta, hasOld)
	if err == nil {
		defer text.Close()
		err = u.add(i, s, m, text, kept, hasOld)
	}
	var fatal *brokenBuilder
	switch {
	case err == nil:
		return nil
	case errors.As(err, &fatal):
		return fatal.err
	case u.ctx.Err() != nil:
		return u.ctx.Err()
	case errors.Is(err, errUnchanged):
		u.setStatus(s.Name, func(st *Status) {
			st.LastSuccess, st.LastError, st.Pending = u.cfg.Now(), "", false
		})
	default:
		u.metrics.failures.Inc()
		u.log.Warn("a list cannot be had; its old rules stay", "list", s.Name, "err", err)
		u.setStatus(s.Name, func(st *Status) { st.LastError = err.Error() })
	}
	return u.keep(i)
}

// due reports whether it is time to ask for a list again.
func (u *update) due(s Source) bool {
	u.mu.Lock()
	st := u.status[s.Name]
	u.mu.Unlock()
	age := u.cfg.Now().Sub(st.LastSuccess)
	return st.LastError != "" || st.Pending || age < 0 || age >= u.cfg.Interval*9/10
}

// open gives the text of a list, or errUnchanged when it is as the index has it.
func (u *update) open(s Source, old meta, hasOld bool) (io.ReadCloser, meta, error) {
	m := meta{Origin: s.origin(), At: u.cfg.Now()}
	switch {
	case s.Text != nil:
		return io.NopCloser(bytes.NewReader(s.Text)), m, nil
	case s.File != "":
		f, modified, err := u.openFile(s.File)
		if err != nil {
			return nil, m, err
		}
		m.Modified = modified
		if hasOld && old.Modified == modified {
			f.Close()
			return nil, m, errUnchanged
		}
		return f, m, nil
	}
	if !hasOld {
		old = meta{}
	}
	return u.fetch(u.ctx, s.URL, m, old)
}

// brokenBuilder is an error that ends the whole update: no room for the sorted
// runs, an old index that cannot be read.
type brokenBuilder struct{ err error }

func (b *brokenBuilder) Error() string { return b.err.Error() }

// begin starts the builder, if need be, and brings it up to the i-th list.
func (u *update) begin(i int) error {
	if u.builder == nil {
		f, err := os.CreateTemp(u.cfg.Scratch, "index-*"+scratchSuffix)
		if err != nil {
			return &brokenBuilder{fmt.Errorf("file for sorted runs: %w", err)}
		}
		// It has no name from here on, so that a crash leaves nothing behind.
		_ = os.Remove(f.Name())
		u.scratch = f
		u.builder = blocklist.NewBuilder(blocklist.Options{Scratch: f, Limits: u.cfg.Limits})
	}
	for ; u.done < i; u.done++ {
		s := u.sources[u.done]
		src := blocklist.Source{Name: s.Name, Allow: s.Allow}
		if _, ok := u.old[s.Name]; !ok {
			if err := u.builder.Empty(src); err != nil {
				return &brokenBuilder{err}
			}
			continue
		}
		if _, err := u.builder.Keep(src, u.index); err != nil {
			return &brokenBuilder{err}
		}
	}
	return nil
}

// add reads a list into the builder.
func (u *update) add(i int, s Source, m meta, text io.Reader, kept keptList, hasOld bool) error {
	if err := u.begin(i); err != nil {
		return err
	}
	src := blocklist.Source{Name: s.Name, Allow: s.Allow}
	if age := u.cfg.Now().Sub(kept.meta.At); hasOld && s.URL != "" && age < disbelief {
		src.MinRules = kept.info.Rules / 2
	}
	sum := sha256.New()
	rep, err := u.builder.Add(src, io.TeeReader(text, sum))
	if err != nil {
		return err
	}
	u.done = i + 1
	m.Sum = hexSum(sum)
	note, err := json.Marshal(m)
	if err != nil {
		return &brokenBuilder{err}
	}
	u.builder.SetMeta(s.Name, string(note))
	if !hasOld || kept.meta.Sum != m.Sum {
		u.changed = true
	}
	u.setStatus(s.Name, func(st *Status) {
		*st = Status{Rules: rep.Rules, Rejected: rep.Rejected, Rejects: rep.Rejects, LastSuccess: m.At}
	})
	return nil
}

func hexSum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)[:16]) }

// keep leaves the list as the index in force has it, or empty when it has none.
func (u *update) keep(i int) error {
	s := u.sources[i]
	if _, ok := u.old[s.Name]; !ok {
		u.setStatus(s.Name, func(st *Status) { st.Pending, st.Rules = true, 0 })
	}
	if u.builder == nil {
		return nil // nothing has changed so far
	}
	return unwrapBroken(u.begin(i + 1))
}

func unwrapBroken(err error) error {
	var b *brokenBuilder
	if errors.As(err, &b) {
		return b.err
	}
	return err
}

// finish writes the index and brings it into force.
func (u *update) finish() error {
	if err := unwrapBroken(u.begin(len(u.sources))); err != nil {
		return err
	}
	index, size, err := u.writeIndex(u.builder)
	if err != nil {
		return err
	}
	u.metrics.compiles.Inc()
	u.use(index, size)
	return nil
}

func (u *update) close() {
	if u.scratch != nil {
		u.scratch.Close()
	}
}
