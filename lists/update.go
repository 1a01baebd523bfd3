package lists

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash"
	"io"
	"os"
	"slices"
	"strings"
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
	Rejects  []reject  `json:"rejects,omitempty"`
}

// reject is a line that was not understood, as the index keeps it.
type reject struct {
	Line   int    `json:"l"`
	Text   string `json:"t"`
	Reason string `json:"r"`
}

func keepRejects(all []blocklist.Reject) (out []reject) {
	for _, r := range all {
		out = append(out, reject{r.Line, strings.ToValidUTF8(r.Text, "\ufffd"), r.Reason})
	}
	return out
}

func (m *meta) rejects(list string) (out []blocklist.Reject) {
	for _, r := range m.Rejects {
		out = append(out, blocklist.Reject{List: list, Line: r.Line, Text: r.Text, Reason: r.Reason})
	}
	return out
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
	// When a list turns out to be larger than there is room for, the governor chooses
	// again, now that it knows. Each round makes one list smaller.
	for range 2 * blocklist.MaxLists {
		again, err := l.pass(ctx, r)
		if err != nil || !again {
			return err
		}
	}
	return nil
}

func (l *Lists) pass(ctx context.Context, r reach) (again bool, err error) {
	l.mu.Lock()
	sources := slices.Clone(l.sources)
	l.mu.Unlock()

	u := &update{Lists: l, ctx: ctx, reach: r, old: map[string]keptList{}}
	defer u.close()
	defer u.idle()
	u.sources, u.most = l.govern(sources)
	u.remember()
	for i, s := range u.sources {
		if err := u.one(i, s); err != nil {
			return false, err
		}
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if !u.changed && u.sameShape() {
		return u.again, nil
	}
	return u.again, u.finish()
}

// update is one pass over all lists. The Builder is only begun at the first list
// that is not as it was, so that a refresh without news writes nothing.
type update struct {
	*Lists
	ctx     context.Context
	reach   reach
	sources []governed
	most    int                 // rules there is room for
	old     map[string]keptList // by name; what the index in force holds and may be kept

	builder *blocklist.Builder
	scratch *os.File
	done    int  // sources that the builder has
	changed bool // something is different from the index in force
	again   bool // a list was larger than the room for it: choose anew
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
func (u *update) one(i int, s governed) error {
	kept, hasOld := u.old[s.Name]
	if hasOld {
		u.setStatus(s.Name, func(st *Status) {
			st.Rules, st.Rejected, st.Pending = kept.info.Rules, kept.info.Rejected, false
			if st.Rejects == nil {
				st.Rejects = kept.meta.rejects(s.Name)
			}
			if st.LastSuccess.IsZero() {
				st.LastSuccess = kept.meta.At
			}
		})
	}
	switch {
	case s.off:
		u.mu.Lock()
		p := u.plans[s.Name]
		p.forced = false
		u.plans[s.Name] = p
		u.mu.Unlock()
		return u.drop(i)
	case s.Disabled, s.Text != nil && hasOld:
		return u.keep(i)
	case s.URL != "" && (u.reach == offline || !u.due(s.Name, hasOld)):
		return u.keep(i)
	}
	u.step("open " + s.Name)
	text, m, err := u.open(s, kept.meta, hasOld)
	if err == nil {
		defer text.Close()
		err = u.add(i, s, m, text, kept, hasOld)
	}
	var fatal *brokenBuilder
	switch {
	case err == nil:
		u.doing(s.Name, "compiling") // until the index with it is in force
		u.tried(s.Name, nil)
		return nil
	case errors.As(err, &fatal):
		return fatal.err
	case u.ctx.Err() != nil:
		return u.ctx.Err()
	case errors.Is(err, errGrown):
		return u.grew(i, s)
	case errors.Is(err, errUnchanged):
		u.tried(s.Name, nil)
	default:
		u.metrics.failures.Inc()
		u.log.Warn("a list cannot be had; its old rules stay", "list", s.Name, "err", err)
		u.tried(s.Name, err)
	}
	return u.keep(i)
}

// due reports whether it is time to ask for a list.
func (u *update) due(name string, hasOld bool) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	p, last, now := u.plans[name], u.status[name].LastSuccess, u.cfg.Now()
	if p.next.IsZero() && hasOld && !last.After(now) {
		p.next = last.Add(u.spread(u.cfg.Interval))
		if soon := now.Add(time.Duration(u.cfg.Rand() * float64(min(10*time.Minute, u.cfg.Interval/10)))); p.next.Before(soon) {
			p.next = soon // a street has its power back: not all at once
		}
		u.plans[name] = p
	}
	return p.forced || !now.Before(p.next)
}

// spread is about d: not every house shall ask at the same moment.
func (l *Lists) spread(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*l.cfg.Rand()))
}

// tried notes how a try ended and when the next one is: soon at first when it
// failed, and then later and later.
func (l *Lists) tried(name string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, st, p := l.cfg.Now(), l.status[name], l.plans[name]
	p.forced = false
	wait := l.cfg.Interval
	if err == nil {
		st.State, st.Pending, p.fails = State{LastSuccess: now}, false, 0
	} else {
		if st.LastFailure.IsZero() {
			st.LastFailure = now
		}
		st.LastError = err.Error()
		wait = min(wait, 30*time.Second<<min(p.fails, 16))
		p.fails++
	}
	p.next = now.Add(l.spread(wait))
	l.status[name], l.plans[name] = st, p
}

// idle says that nothing is done with any list, but for those that are still to be
// asked for.
func (u *update) idle() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, s := range u.sources {
		if st := u.status[s.Name]; !u.plans[s.Name].forced {
			st.Doing, st.Bytes, st.Of = "", 0, 0
			u.status[s.Name] = st
		}
	}
}

// doing says what is done with a list right now.
func (l *Lists) doing(name, what string) {
	l.setStatus(name, func(st *Status) { st.Doing, st.Bytes, st.Of = what, 0, 0 })
}

// open gives the text of a list, or errUnchanged when it is as the index has it.
func (u *update) open(s governed, old meta, hasOld bool) (io.ReadCloser, meta, error) {
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
		u.doing(s.Name, "reading")
		return f, m, nil
	}
	if !hasOld {
		old = meta{}
	}
	u.doing(s.Name, "downloading")
	return u.fetch(u.ctx, s.Source, m, old, func(n, of int64) {
		u.setStatus(s.Name, func(st *Status) { st.Bytes, st.Of = n, of })
	})
}

// brokenBuilder is an error that ends the whole update: no room for the sorted
// runs, an old index that cannot be read.
type brokenBuilder struct{ err error }

func (b *brokenBuilder) Error() string { return b.err.Error() }

// begin starts the builder, if need be, and brings it up to the i-th list.
func (u *update) begin(i int) error {
	if u.builder == nil {
		if err := u.roomNow(); err != nil {
			return &brokenBuilder{err}
		}
		u.step("scratch")
		f, err := u.nameless()
		if err != nil {
			return &brokenBuilder{err}
		}
		u.scratch = f
		u.builder = blocklist.NewBuilder(blocklist.Options{Scratch: f, Limits: u.cfg.Limits, Breathe: breather()})
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
func (u *update) add(i int, s governed, m meta, text io.Reader, kept keptList, hasOld bool) error {
	if u.builder == nil {
		if err := u.roomNow(); err != nil {
			return err // of this list: the others may be as they were
		}
	}
	if err := u.begin(i); err != nil {
		return err
	}
	u.step("read " + s.Name)
	src := blocklist.Source{Name: s.Name, Allow: s.Allow, MaxRules: s.most}
	if age := u.cfg.Now().Sub(kept.meta.At); hasOld && s.URL != "" && age < disbelief {
		src.MinRules = kept.info.Rules / 2
	}
	sum := sha256.New()
	rep, err := u.builder.Add(src, io.TeeReader(text, sum))
	if s.most > 0 && rep.Rules >= s.most && !hasOld && errors.Is(err, blocklist.ErrTooLong) {
		return errGrown
	}
	if err != nil {
		return err
	}
	u.done = i + 1
	m.Sum, m.Rejects = hexSum(sum), keepRejects(rep.Rejects)
	note, err := json.Marshal(m)
	if err != nil {
		return &brokenBuilder{err}
	}
	u.builder.SetMeta(s.Name, string(note))
	if !hasOld || kept.meta.Sum != m.Sum {
		u.changed = true
	}
	u.setStatus(s.Name, func(st *Status) {
		st.Rules, st.Rejected, st.Rejects = rep.Rules, rep.Rejected, m.rejects(s.Name)
	})
	return nil
}

func hexSum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)[:16]) }

// keep leaves the list as the index in force has it, or empty when it has none.
func (u *update) keep(i int) error {
	s := u.sources[i]
	if _, ok := u.old[s.Name]; !ok {
		u.setStatus(s.Name, func(st *Status) { st.Pending, st.Rules, st.Rejected, st.Rejects = true, 0, 0, nil })
	}
	if u.builder == nil {
		return nil // nothing has changed so far
	}
	return unwrapBroken(u.begin(i + 1))
}

// drop leaves the list out: there is no room for it.
func (u *update) drop(i int) error {
	name := u.sources[i].Name
	if kept, ok := u.old[name]; ok && kept.info.Rules > 0 {
		u.changed = true
	}
	delete(u.old, name)
	return u.keep(i)
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
	u.step("use")
	u.metrics.compiles.Inc()
	u.use(index, size)
	return nil
}

func (u *update) close() {
	if u.scratch != nil {
		u.scratch.Close()
	}
}
