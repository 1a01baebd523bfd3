package lists

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/policy/blocklist"
)

// Source is one list. Exactly one of Text, File and URL is set.
type Source struct {
	Name  string // unique; what pages call it
	Allow bool   // its rules allow
	Text  []byte // at hand: the starter list
	File  string // relative to Config.FileRoot
	URL   string // https, or http where Config.AllowHTTP
}

// Config of Lists. The zero value of a field means what its comment says.
type Config struct {
	Dir     string // holds the index file; must exist or be creatable
	Sources []Source
	// OnIndex takes each new index, the first one at once. It is called from
	// Run's goroutine and must be done with the index before it, or keep it
	// reachable: an index whose mapping is still read stays mapped.
	OnIndex func(*blocklist.Index)

	FileRoot string        // the folder below which list files lie; "" allows none
	Scratch  string        // folder for sorted runs while compiling; Dir when empty
	Interval time.Duration // between refreshes; 24 h when zero
	Timeout  time.Duration // of one download; 2 min when zero
	Limits   blocklist.Limits

	// AllowPrivate lets downloads go to addresses of the house: a list on a NAS.
	AllowPrivate bool
	AllowHTTP    bool // lets a URL be http; what comes over it may be anybody's
	// Control is called for each socket before it connects: the daemon's mark.
	Control func(network, address string, c syscall.RawConn) error
	// Transport replaces the one of our own, and with it Control and the refusal
	// of private addresses.
	Transport http.RoundTripper

	Now        func() time.Time      // time.Now when nil
	Logger     *slog.Logger          // discarded when nil
	Registerer prometheus.Registerer // none when nil
}

// Status is how one list fares.
type Status struct {
	Name        string
	Allow       bool
	Rules       int
	Rejected    int                // lines not understood
	Rejects     []blocklist.Reject // the first of them, when it was compiled by this process
	LastSuccess time.Time          // when it was last had or found unchanged; zero is never
	LastError   string             // why the last try failed; "" when it did not
	Pending     bool               // not had yet
}

// Lists keeps the index up to date.
type Lists struct {
	cfg     Config
	log     *slog.Logger
	client  *http.Client
	metrics *metrics
	wake    chan struct{}

	mu      sync.Mutex
	sources []Source
	status  map[string]Status
	reload  []reload
	// interrupt ends the downloads under way, so that a reload need not wait for
	// a slow server; nil when there are none.
	interrupt context.CancelFunc

	index *blocklist.Index // of Run's goroutine: the one in force
}

type reload struct {
	sources []Source
	done    chan error
}

// New checks c and starts nothing.
func New(c Config) (*Lists, error) {
	if c.Dir == "" {
		return nil, errors.New("lists: no folder for the index is given")
	}
	if c.OnIndex == nil {
		return nil, errors.New("lists: nobody takes the index")
	}
	if c.Scratch == "" {
		c.Scratch = c.Dir
	}
	if c.Interval == 0 {
		c.Interval = 24 * time.Hour
	}
	if c.Timeout == 0 {
		c.Timeout = 2 * time.Minute
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Lists{cfg: c, log: c.Logger, status: map[string]Status{}, wake: make(chan struct{}, 1)}
	if err := l.check(c.Sources); err != nil {
		return nil, err
	}
	l.sources = c.Sources
	l.client = newClient(c)
	var err error
	if l.metrics, err = newMetrics(c.Registerer); err != nil {
		return nil, fmt.Errorf("lists: %w", err)
	}
	return l, nil
}

// check finds what is wrong with sources before anything is done with them.
func (l *Lists) check(sources []Source) error {
	var errs []error
	if len(sources) > blocklist.MaxLists {
		errs = append(errs, fmt.Errorf("lists: %d lists, %d are the most", len(sources), blocklist.MaxLists))
	}
	seen := map[string]bool{}
	for _, s := range sources {
		if err := l.checkOne(s); err != nil {
			errs = append(errs, fmt.Errorf("lists: list %q: %w", s.Name, err))
		}
		if seen[s.Name] {
			errs = append(errs, fmt.Errorf("lists: list %q is there twice", s.Name))
		}
		seen[s.Name] = true
	}
	return errors.Join(errs...)
}

func (l *Lists) checkOne(s Source) error {
	given := 0
	for _, set := range []bool{s.Text != nil, s.File != "", s.URL != ""} {
		if set {
			given++
		}
	}
	switch {
	case s.Name == "":
		return errors.New("it needs a name")
	case given != 1:
		return errors.New("it needs exactly one of a text, a file and a URL")
	case s.File != "" && l.cfg.FileRoot == "":
		return errors.New("no folder for list files is configured")
	case s.File != "" && !filepath.IsLocal(s.File):
		return fmt.Errorf("file %q: a path below %s is needed", s.File, l.cfg.FileRoot)
	case s.URL != "":
		return checkURL(s.URL, l.cfg.AllowHTTP)
	}
	return nil
}

// Run brings the index into force that is there, compiles what is at hand, then
// fetches and refreshes until ctx ends.
func (l *Lists) Run(ctx context.Context) error {
	for _, dir := range []string{l.cfg.Dir, l.cfg.Scratch} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("lists: folder for the index: %w", err)
		}
	}
	l.removeLeftovers()
	l.loadIndex()
	if err := l.update(ctx, offline); err != nil {
		// The house is not blocked from its names because a disk is full.
		l.log.Error("the list index cannot be made", "err", err)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			l.failReloads(ctx.Err())
			return nil
		case <-l.wake:
			l.takeReloads(ctx)
		case <-timer.C:
			l.dropDamaged()
			l.updateOnline(ctx)
			// More often than the interval: files may have changed, and lists fall
			// due, or failed, at different times.
			timer.Reset(min(l.cfg.Interval, time.Hour))
		}
	}
}

// Reload takes over another set of sources: what is at hand is in force when it
// returns, downloads follow; downloads under way are broken off. A bad set is
// refused and the old one stays. It waits for Run.
func (l *Lists) Reload(ctx context.Context, sources []Source) error {
	if err := l.check(sources); err != nil {
		return err
	}
	r := reload{sources: sources, done: make(chan error, 1)}
	l.mu.Lock()
	l.reload = append(l.reload, r)
	if l.interrupt != nil {
		l.interrupt()
	}
	l.mu.Unlock()
	l.poke()
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *Lists) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *Lists) takeReloads(ctx context.Context) {
	l.mu.Lock()
	reloads := l.reload
	l.reload = nil
	if len(reloads) > 0 {
		l.sources = reloads[len(reloads)-1].sources
	}
	l.mu.Unlock()
	if len(reloads) == 0 {
		return
	}
	err := l.update(ctx, offline)
	for _, r := range reloads {
		r.done <- err
	}
	l.updateOnline(ctx)
}

func (l *Lists) updateOnline(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.mu.Lock()
	if len(l.reload) > 0 {
		cancel() // it came before it could interrupt us
	}
	l.interrupt = cancel
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.interrupt = nil
		l.mu.Unlock()
	}()
	if err := l.update(ctx, online); err != nil && ctx.Err() == nil {
		l.log.Error("the list index cannot be made; the old one stays", "err", err)
	}
}

func (l *Lists) failReloads(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.reload {
		r.done <- err
	}
	l.reload = nil
}

// Status of every list, in the order of the sources.
func (l *Lists) Status() []Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Status, 0, len(l.sources))
	for _, s := range l.sources {
		st := l.status[s.Name]
		st.Name, st.Allow = s.Name, s.Allow
		out = append(out, st)
	}
	return out
}

func (l *Lists) setStatus(name string, change func(*Status)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := l.status[name]
	change(&st)
	l.status[name] = st
}
