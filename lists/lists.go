package lists

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
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
	URL   string // https, or http where AllowHTTP says so
	// AllowHTTP lets this list come over http: anybody on the way may change it.
	AllowHTTP bool
	// Disabled lists are not asked for. What the index has of one stays there, so
	// that it is at hand when it is enabled again; who uses it is policy's matter.
	Disabled bool
	Rules    int       // about how many it has, where somebody knows; 0 is not known
	Smaller  []Smaller // what stands in where this box has no room for it, the largest first
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
	Interval time.Duration // between refreshes, which are spread around it; 24 h when zero
	Timeout  time.Duration // for a server that says nothing; 30 s when zero
	Deadline time.Duration // of one download; 15 min when zero
	Limits   blocklist.Limits
	// Room asks what this box can spare; nil, or a nil answer: nobody counts.
	Room func() *Room
	// Kept is what State said before the last restart, by list.
	Kept map[string]State
	// OnFetch is told of everything that was sent out. It must not block.
	OnFetch func(Fetch)

	// AllowPrivate lets downloads go to addresses of the house, AllowHTTP lets every URL
	// be http. The daemon sets neither: lists come from the internet, over TLS.
	AllowPrivate, AllowHTTP bool
	// House says which public addresses are of the house, too: the router's own, and
	// those of its devices. They are refused as private ones are; nil knows none.
	House func(netip.Addr) bool
	// Control is called for each socket before it connects: the daemon's mark.
	Control func(network, address string, c syscall.RawConn) error
	// Transport replaces the one of our own, and with it Control and the refusal
	// of private addresses.
	Transport http.RoundTripper

	Now        func() time.Time      // time.Now when nil
	Rand       func() float64        // from 0 to below 1; math/rand/v2 when nil
	Logger     *slog.Logger          // discarded when nil
	Registerer prometheus.Registerer // none when nil
}

// Status is how one list fares.
type Status struct {
	Name string
	State
	Rules    int
	Rejected int                // lines not understood
	Rejects  []blocklist.Reject // the first of them
	Unique   int                // names and rules that no other list has
	Shared   map[string]int     // how many of them other lists have too; nil is not known
	Pending  bool               // not had yet
	Using    string             // what stands in for it, where this box has no room for itself
	Unfit    string             // why it is off or another stands in, in words
	Next     time.Time          // when it is asked for again; zero for what is at hand

	Doing string // what is done with it right now: "downloading", "reading", "compiling"; "" is nothing
	Bytes int64  // had so far of what is downloaded
	Of    int64  // announced; 0 is not known
}

// State is what of a list's Status is worth keeping over a restart, beside what the
// index holds.
type State struct {
	LastSuccess time.Time // when it was last had or found unchanged; zero is never
	LastFailure time.Time // since when it fails; zero when it does not
	LastError   string    // why the last try failed; "" when it did not
}

// Fetch is one request that was sent for a list.
type Fetch struct {
	List, Host string
	At         time.Time
	Bytes      int64 // that came back, unpacked
}

// Lists keeps the index up to date.
type Lists struct {
	cfg     Config
	log     *slog.Logger
	client  *http.Client
	metrics *metrics
	wake    chan struct{}
	trials  chan trial
	// step is called before each step that a power cut could come between; a test's.
	step func(string)

	mu      sync.Mutex
	sources []Source
	status  map[string]Status
	plans   map[string]plan
	reload  []reload
	// interrupt ends the downloads under way, so that a reload need not wait for
	// a slow server; nil when there are none.
	interrupt context.CancelFunc

	index    *blocklist.Index  // of Run's goroutine: the one in force
	inMemory bool              // it lies in a memory file system
	grown    map[string]int    // by origin: rules of a list for which there was no room
	chosen   map[string]string // by list: what the governor chose
	refused  int               // how often in a row there was too little memory to compile
	said     string            // what the governor last chose, in words for the log
}

// plan is when a list is asked for next.
type plan struct {
	next   time.Time
	fails  int
	forced bool
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
		c.Timeout = 30 * time.Second
	}
	if c.Deadline == 0 {
		c.Deadline = 15 * time.Minute
	}
	if c.Rand == nil {
		c.Rand = rand.Float64
	}
	if c.Room == nil {
		c.Room = func() *Room { return nil }
	}
	if c.House == nil {
		c.House = func(netip.Addr) bool { return false }
	}
	if c.OnFetch == nil {
		c.OnFetch = func(Fetch) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	l := &Lists{
		cfg: c, log: c.Logger, wake: make(chan struct{}, 1), trials: make(chan trial), step: func(string) {},
		status: map[string]Status{}, plans: map[string]plan{}, grown: map[string]int{},
	}
	if err := l.check(c.Sources); err != nil {
		return nil, err
	}
	l.sources = c.Sources
	for name, kept := range c.Kept {
		l.status[name] = Status{State: kept}
	}
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
		errs = append(errs, fmt.Errorf("lists: %d lists, %d are the most: remove one first", len(sources), blocklist.MaxLists))
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

// Check says what is wrong with one list, before anybody keeps it. A file must be
// there; an address is not asked.
func (l *Lists) Check(s Source) error {
	if err := l.checkOne(s); err != nil {
		return fmt.Errorf("list %q: %w", s.Name, err)
	}
	if s.File == "" {
		return nil
	}
	f, _, err := l.openFile(s.File)
	if err != nil {
		return err
	}
	return f.Close()
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
		return checkURL(s.URL, l.cfg.AllowHTTP || s.AllowHTTP)
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
			if l.dropDamaged() || l.anyForced() {
				l.updateOnline(ctx)
			}
		case t := <-l.trials:
			l.try(ctx, t)
		case <-timer.C:
			l.dropDamaged()
			l.updateOnline(ctx)
		}
		timer.Reset(l.untilDue())
	}
}

// untilDue is how long until something may be to do: a list falls due, or a file
// has changed, which is looked at each hour.
func (l *Lists) untilDue() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	wait := min(l.cfg.Interval, time.Hour)
	for _, s := range l.sources {
		if p := l.plans[s.Name]; s.URL != "" && !s.Disabled && !p.next.IsZero() {
			wait = min(wait, p.next.Sub(l.cfg.Now()))
		}
	}
	return max(wait, min(l.cfg.Interval, time.Second))
}

// Refresh asks for the named lists soon, or for all when none is named, whether they
// are due or not; Status says how it goes. It does not wait.
func (l *Lists) Refresh(names ...string) {
	l.mu.Lock()
	for _, s := range l.sources {
		if s.Text != nil || s.Disabled || len(names) > 0 && !slices.Contains(names, s.Name) {
			continue
		}
		p := l.plans[s.Name]
		p.forced = true
		l.plans[s.Name] = p
		if st := l.status[s.Name]; st.Doing == "" {
			st.Doing, st.Bytes, st.Of = "waiting", 0, 0
			l.status[s.Name] = st
		}
	}
	l.mu.Unlock()
	l.poke()
}

func (l *Lists) anyForced() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.sources, func(s Source) bool { return l.plans[s.Name].forced })
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
		st.Name = s.Name
		if s.URL != "" && !s.Disabled {
			st.Next = l.plans[s.Name].next
		}
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
