package lists

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy/blocklist"
)

// Trial is what a list would be, had one added it.
type Trial struct {
	blocklist.Report
	// Covers are those of the names that were given which the list covers, with the rule.
	Covers map[dnsname.Name]string
}

type trial struct {
	ctx    context.Context
	source Source
	names  []dnsname.Name
	done   chan<- trialEnd
}

type trialEnd struct {
	Trial
	err error
}

// Try fetches and reads a list without adding it, and says which of names it covers.
// It waits for Run, which does one thing at a time: two compilations at once would
// be too much for a small box.
func (l *Lists) Try(ctx context.Context, s Source, names []dnsname.Name) (Trial, error) {
	s.Name = "the list"
	if err := l.checkOne(s); err != nil {
		return Trial{}, err
	}
	done := make(chan trialEnd, 1)
	select {
	case l.trials <- trial{ctx, s, names, done}:
	case <-ctx.Done():
		return Trial{}, fmt.Errorf("other lists are being fetched, try again later: %w", ctx.Err())
	}
	select {
	case end := <-done:
		return end.Trial, end.err
	case <-ctx.Done():
		return Trial{}, ctx.Err()
	}
}

// try does what Try asks for, until its caller goes, we end, or a reload needs Run.
func (l *Lists) try(ctx context.Context, t trial) {
	both, cancel := context.WithCancel(t.ctx)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	l.mu.Lock()
	l.interrupt = cancel
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.interrupt = nil
		l.mu.Unlock()
	}()
	got, err := l.tryOut(both, t.source, t.names)
	if both.Err() != nil && t.ctx.Err() == nil {
		err = errors.New("the lists were changed meanwhile: try again")
	}
	t.done <- trialEnd{got, err}
}

func (l *Lists) tryOut(ctx context.Context, s Source, names []dnsname.Name) (got Trial, err error) {
	var text io.ReadCloser
	if s.URL != "" {
		text, _, err = l.fetch(ctx, s, meta{}, meta{}, func(int64, int64) {})
	} else {
		text, _, err = l.openFile(s.File)
	}
	if err != nil {
		return got, err
	}
	defer text.Close()
	limits := l.cfg.Limits
	if room := l.cfg.Room(); room != nil {
		if limits.Rules = room.rules(); limits.Rules == 0 {
			return got, errNoRoom
		}
	}
	scratch, err := l.nameless()
	if err != nil {
		return got, err
	}
	defer scratch.Close()
	b := blocklist.NewBuilder(blocklist.Options{Scratch: scratch, Limits: limits})
	if got.Report, err = b.Add(blocklist.Source{Name: s.Name, Allow: s.Allow}, text); err != nil {
		return got, err
	}
	out, err := l.nameless()
	if err != nil {
		return got, err
	}
	defer out.Close()
	if err := b.Write(out); err != nil {
		return got, err
	}
	index, _, err := l.mapIndex(out)
	if err != nil {
		return got, err
	}
	got.Covers = map[dnsname.Name]string{}
	for _, n := range names {
		if m, ok := index.Match(n, 1); ok && !blocklist.OfOwnMachine(n) {
			got.Covers[n] = index.Rule(m)
		}
	}
	return got, nil
}

// nameless is a file in the scratch folder that is gone when it is closed, or we are.
func (l *Lists) nameless() (*os.File, error) {
	f, err := os.CreateTemp(l.cfg.Scratch, "index-*"+scratchSuffix)
	if err != nil {
		return nil, fmt.Errorf("file for sorted runs: %w", err)
	}
	_ = os.Remove(f.Name())
	return f, nil
}
