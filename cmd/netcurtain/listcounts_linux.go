package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/netcurtain/netcurtain/lists"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/policy/blocklist"
	"github.com/netcurtain/netcurtain/store"
)

// listCounts are what lists did and what they asked outside, until it is written down.
type listCounts struct {
	mu     sync.Mutex // guards all
	hits   map[string]*policy.Hits
	before map[string]store.ListState // as written down
	asked  map[[2]string]store.Egress

	written map[string]store.ListState // of writeListCounts alone
}

// readListCounts reads what was written down before.
func (d *daemon) readListCounts(ctx context.Context) error {
	before, err := d.store.ListStates(ctx)
	d.counts = &listCounts{hits: map[string]*policy.Hits{}, before: before, asked: map[[2]string]store.Egress{}}
	return err
}

// keepListCounts writes down how lists fare: each hour, and when we stop. A look-up
// costs no write.
func (d *daemon) keepListCounts(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			d.writeListCounts(context.WithoutCancel(ctx))
			return nil
		case <-time.After(time.Hour):
		}
		d.writeListCounts(ctx)
	}
}

func (d *daemon) writeListCounts(ctx context.Context) {
	d.counts.mu.Lock()
	var asked []store.Egress
	for _, e := range d.counts.asked {
		asked = append(asked, e)
	}
	clear(d.counts.asked)
	d.counts.mu.Unlock()
	states := map[string]store.ListState{}
	for _, st := range d.keeper.Status() {
		n, last := d.counts.hitsOf(st.Name)
		states[st.Name] = store.ListState{Success: st.LastSuccess, Failure: st.LastFailure, Error: st.LastError, Hits: n, Hit: last}
	}
	var err error
	if !maps.EqualFunc(states, d.counts.written, sameState) { // flash wears
		if err = d.store.KeepListStates(ctx, states); err == nil {
			d.counts.written = states
		}
	}
	if len(asked) > 0 {
		err = errors.Join(err, d.store.AddEgress(ctx, asked))
	}
	if err != nil {
		d.log.Error("writing down how the lists fare", "error", err)
	}
}

func sameState(a, b store.ListState) bool {
	return a.Success.Equal(b.Success) && a.Failure.Equal(b.Failure) && a.Error == b.Error && a.Hits == b.Hits
}

// of gives each list of an index its counter.
func (c *listCounts) of(x *blocklist.Index) map[string]*policy.Hits {
	if x == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]*policy.Hits{}
	for _, info := range x.Lists() {
		if c.hits[info.Name] == nil {
			c.hits[info.Name] = new(policy.Hits)
		}
		out[info.Name] = c.hits[info.Name]
	}
	return out
}

// fetched notes a request of ours.
func (c *listCounts) fetched(f lists.Fetch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	what := "list " + f.List
	e := c.asked[[2]string{what, f.Host}]
	if e.Requests == 0 {
		e = store.Egress{What: what, Host: f.Host, First: f.At}
	}
	e.Requests, e.Bytes, e.Last = e.Requests+1, e.Bytes+f.Bytes, f.At
	c.asked[[2]string{what, f.Host}] = e
}

// hitsOf is how often a list decided, since ever.
func (c *listCounts) hitsOf(name string) (n int64, last time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, last = c.before[name].Hits, c.before[name].Hit
	if h := c.hits[name]; h != nil {
		if more, at := h.Count(); more > 0 {
			n, last = n+more, time.Unix(at, 0)
		}
	}
	return n, last
}

// kept is what the keeper needs to know of before.
func (c *listCounts) kept() map[string]lists.State {
	out := map[string]lists.State{}
	for name, s := range c.before {
		out[name] = lists.State{LastSuccess: s.Success, LastFailure: s.Failure, LastError: s.Error}
	}
	return out
}

// forget begins a list's count anew.
func (c *listCounts) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.before, name)
	delete(c.hits, name)
}

// andAsked adds what is not written down yet to rows, the newest first.
func (c *listCounts) andAsked(rows []store.Egress) []store.Egress {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, e := range c.asked {
		i := slices.IndexFunc(rows, func(r store.Egress) bool { return r.What == key[0] && r.Host == key[1] })
		if i < 0 {
			rows = append(rows, e)
			continue
		}
		r := &rows[i]
		r.Requests, r.Bytes, r.Last = r.Requests+e.Requests, r.Bytes+e.Bytes, e.Last
	}
	slices.SortStableFunc(rows, func(a, b store.Egress) int { return b.Last.Compare(a.Last) })
	return rows
}
