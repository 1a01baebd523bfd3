package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/journal"
)

// Config says where the files are and how much of what they keep.
type Config struct {
	HouseholdPath string // on flash
	LedgerPath    string // in RAM, on USB or a disk
	MemoryPath    string // on flash; "" keeps nothing beyond the ledger

	Age         time.Duration // how long rows are kept; default 7 days
	Bytes       int64         // what ledger.db may take with its companions; default 64 MB
	MemoryBytes int64         // what memory.db may take; default 4 MB
	FlushEvery  time.Duration // how long rows may wait in memory; default 10 s

	// Health, when set, is told when a file ("ledger", "memory") cannot be written any
	// more, with why, and with nil when it can again; from the one writer, and it must
	// not block.
	Health func(file string, err error)

	Now        func() time.Time      // default time.Now; its location says when a day begins
	Logger     *slog.Logger          // default: silent
	Registerer prometheus.Registerer // nil: no metrics

	unsynced bool // for tests, whose files need not outlive a power cut
}

// synchronous is the pragma of how much is made durable.
func (c *Config) synchronous(level string) string {
	if c.unsynced {
		level = "OFF"
	}
	return "PRAGMA synchronous = " + level
}

const (
	defaultAge         = 7 * 24 * time.Hour
	defaultBytes       = 64 << 20
	defaultMemoryBytes = 4 << 20
	defaultFlushEvery  = 10 * time.Second

	minBytes       = 4 << 20   // half of it for the write-ahead log
	minMemoryBytes = 512 << 10 // a few days

	restFor     = 20 * time.Millisecond // is what the journal's buffer must hold
	batchRows   = 1000                  // a full batch is written without waiting
	tidyEvery   = time.Minute           // how often age and bytes are looked at
	stopTimeout = 10 * time.Second      // for the last batch

	complainEvery = 10 * time.Minute

	leastWorth = 1 << 20 // a smaller ledger makes no room on a disk that others have filled

	// maxHeld is how many rows wait for a ledger that somebody else holds.
	maxHeld = 8 * batchRows
)

// Store is the three files. Choices can be made as soon as it is open; the
// ledger fills while Run runs.
type Store struct {
	*Household

	cfg     Config
	metrics *metrics

	// writer is the right to write ledger.db and memory.db: whoever has sent
	// into it is the one writer, and the fields below are theirs until they
	// receive. Run holds it from start to end and does the jobs of the others.
	writer chan struct{}
	jobs   chan job
	ledger *ledger
	memory *memory // nil without a path
	source <-chan journal.Entry

	// read is the read-only pool on ledger.db. Queries hold reading while they
	// run (see ask), and the writer takes it to put another file in the ledger's
	// place; before that, interrupt ends readable and so the queries.
	reading   sync.RWMutex
	read      *sql.DB
	readable  context.Context
	interrupt context.CancelFunc
	lost      bool // the ledger is closed and could not be opened again

	complained time.Time       // when report last wrote to the log
	failing    map[string]bool // files that could not be written when that was last tried
	failed     time.Time       // when a writing last failed
}

// job is work for the writer.
type job struct {
	do   func() error
	done chan error // with room for one
}

// Open opens the three files, makes or migrates them, and starts nothing. A
// ledger or memory that cannot be read is put aside and begun afresh, which the
// log says; a household.db that cannot be read is an error that says what to do.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	cfg.Age = cmp.Or(cfg.Age, defaultAge)
	cfg.Bytes = cmp.Or(cfg.Bytes, defaultBytes)
	cfg.MemoryBytes = cmp.Or(cfg.MemoryBytes, defaultMemoryBytes)
	cfg.FlushEvery = cmp.Or(cfg.FlushEvery, defaultFlushEvery)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case cfg.HouseholdPath == "" || cfg.LedgerPath == "":
		return nil, errors.New("store: paths of the household and the ledger are needed")
	case cfg.Age < time.Hour:
		return nil, fmt.Errorf("store: age %s: at least 1h is needed, for the oldest hour goes first", cfg.Age)
	case cfg.Bytes < minBytes:
		return nil, fmt.Errorf("store: ledger of %d bytes: at least %d are needed", cfg.Bytes, minBytes)
	case cfg.MemoryBytes < minMemoryBytes:
		return nil, fmt.Errorf("store: memory of %d bytes: at least %d are needed", cfg.MemoryBytes, minMemoryBytes)
	case cfg.FlushEvery < 0:
		return nil, fmt.Errorf("store: flush every %s: a positive time is needed", cfg.FlushEvery)
	}
	s := &Store{cfg: cfg, writer: make(chan struct{}, 1), jobs: make(chan job), failing: map[string]bool{}}
	s.readable, s.interrupt = context.WithCancel(context.Background())
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) (err error) {
	if s.Household, err = openHousehold(ctx, s.cfg); err != nil {
		return fmt.Errorf("household: %w", err)
	}
	if err := s.openLedger(ctx); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	if s.cfg.MemoryPath != "" {
		if s.memory, err = openMemory(ctx, s.cfg); err == nil {
			err = s.memory.restore(ctx, s.ledger)
		}
		switch {
		case isFull(err): // a house without memory is better than none
			s.cfg.Logger.Warn("the days before are not kept until the next start", "err", err, "mend", "free room on the flash, then restart netcurtain")
			if s.memory != nil {
				_ = s.memory.db.Close()
				s.memory = nil
			}
		case err != nil:
			return fmt.Errorf("memory: %w", err)
		}
	}
	s.metrics, err = newMetrics(s.cfg)
	return err
}

// Close closes the files. Run must have returned; what it was not given to
// write is lost.
func (s *Store) Close() error {
	var errs []error
	// Readers first: the last connection to close folds the write-ahead log into the file.
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	if s.ledger != nil {
		errs = append(errs, s.ledger.db.Close())
	}
	if s.memory != nil {
		errs = append(errs, s.memory.db.Close())
	}
	if s.Household != nil {
		errs = append(errs, s.Household.db.Close())
	}
	return errors.Join(errs...)
}

// Run writes what sub brings, in batches, keeps the ledger within its age and
// bytes, and the memory up to date. When ctx ends it writes what is left and
// returns nil. A batch that cannot be written is lost and counted; the house goes on.
func (s *Store) Run(ctx context.Context, sub *journal.Subscription) error {
	// Not in one select with ctx: who ends it already still gets written what is there.
	select {
	case s.writer <- struct{}{}:
	default:
		select {
		case s.writer <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
	}
	defer func() { <-s.writer }()
	s.source = sub.C
	defer func() { s.source = nil }()
	flush := time.NewTicker(s.cfg.FlushEvery)
	defer flush.Stop()
	tidy := time.NewTicker(tidyEvery)
	defer tidy.Stop()
	entries, emptied := s.source, time.Time{} // nil while it rests; when there was nothing more
	rest := time.NewTimer(0)
	defer rest.Stop()
	for {
		// Who waits in a channel is woken by each entry, which costs the look-up that
		// wrote it more than the writing: where they come thick, many are taken at once.
		if len(s.source) == 0 && entries != nil {
			now := time.Now()
			if now.Sub(emptied) < restFor {
				entries = nil
				rest.Reset(restFor)
			}
			emptied = now
		}
		select {
		case <-rest.C:
			entries = s.source
		case e, ok := <-entries:
			if !ok {
				s.source, entries = nil, nil // closed: nothing more will come
				break
			}
			if len(s.ledger.batch) >= maxHeld {
				s.metrics.dropped.Inc()
				break
			}
			s.ledger.add(e)
			if len(s.ledger.batch) >= batchRows && !s.failing["ledger"] {
				s.report("batch not written", s.flush(ctx))
			}
		case <-flush.C:
			s.report("batch not written", s.flush(ctx))
			s.probe(ctx)
		case <-tidy.C:
			s.report("tidying not done", s.tidy(ctx))
		case j := <-s.jobs:
			j.done <- j.do()
		case <-ctx.Done():
			return s.stop(ctx)
		}
	}
}

// stop writes what is left, for which the caller's context is of no use any more.
func (s *Store) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	s.drain()
	s.report("last batch not written", s.flush(ctx))
	s.report("memory not written", s.remember(ctx))
	return nil
}

// report logs what went wrong, at most once in ten minutes: a dead disk must
// not fill the log. The metrics count all of it.
func (s *Store) report(what string, err error) {
	if err == nil || errors.Is(err, context.Canceled) || time.Since(s.complained) < complainEvery {
		return
	}
	s.complained = time.Now()
	s.cfg.Logger.Warn(what, "err", err)
}

// asWriter runs do as the one writer: on Run's goroutine while that runs, else here.
func (s *Store) asWriter(ctx context.Context, do func() error) error {
	j := job{done: make(chan error, 1), do: func() error {
		if err := s.heal(ctx); err != nil {
			return err
		}
		return do()
	}}
	select {
	case s.jobs <- j:
		return <-j.done
	case s.writer <- struct{}{}:
		defer func() { <-s.writer }()
		return j.do()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drain takes in what waits in the subscription, without waiting for more.
func (s *Store) drain() {
	for {
		select {
		case e, ok := <-s.source:
			if !ok {
				s.source = nil
				return
			}
			s.ledger.add(e)
		default:
			return
		}
	}
}

// probe writes next to nothing where no writing was tried for a while since the
// last one failed, so that a ledger that is well again is known to be so though
// nothing happens in the house. Next to nothing may fit where a batch does not.
func (s *Store) probe(ctx context.Context) {
	if s.failing["ledger"] && time.Since(s.failed) > 2*s.cfg.FlushEvery {
		err := s.heal(ctx)
		if err == nil {
			err = s.ledger.touch(ctx)
		}
		s.tellHealth("ledger", err)
	}
}

// tellHealth tells Config.Health when writing a file began to fail, or works again.
func (s *Store) tellHealth(file string, err error) {
	if err != nil {
		s.failed = time.Now() // how long ago, not when: the injected clock may stand still
	}
	if s.failing[file] == (err != nil) {
		return
	}
	s.failing[file] = err != nil
	if s.cfg.Health != nil {
		s.cfg.Health(file, err)
	}
}

// flush writes the batch and heals what that shows to be broken.
func (s *Store) flush(ctx context.Context) (err error) {
	if len(s.ledger.batch) == 0 {
		return nil
	}
	defer func() { s.tellHealth("ledger", err) }()
	if err := s.heal(ctx); err != nil {
		s.metrics.dropped.Add(float64(s.ledger.discard(erasure{all: true})))
		return err
	}
	ctx = context.WithoutCancel(ctx) // a page that is closed must not cost a batch
	start := time.Now()              // a duration, not a date: the injected clock may stand still
	rows, lost, err := s.ledger.flush(ctx)
	s.metrics.flush.Observe(time.Since(start).Seconds())
	s.metrics.written.Add(float64(rows))
	s.metrics.dropped.Add(float64(lost))
	switch {
	case err == nil && s.ledger.used(ctx) > s.budget():
		return s.prune(ctx, s.budget())
	case isCorrupt(err):
		return errors.Join(err, s.replaceLedger(ctx, err, true))
	case isFull(err):
		return errors.Join(err, s.makeRoom(ctx))
	}
	return err
}

// makeRoom is for a disk that is full, whatever the budget says: the oldest
// hours go. Removing needs room too, for the write-ahead log and for folding it
// into the file; where there is not even that, the ledger begins anew, for it
// would stay full for ever.
func (s *Store) makeRoom(ctx context.Context) error {
	_, err := s.ledger.checkpoint(ctx)
	if err == nil {
		err = s.prune(ctx, s.ledger.used(ctx)*3/4)
	}
	if isFull(err) && s.ledger.used(ctx) > leastWorth {
		return s.replaceLedger(ctx, err, false)
	}
	return err
}

// tidy is the one job for age, bytes and what has ended.
func (s *Store) tidy(ctx context.Context) error {
	if err := s.heal(ctx); err != nil {
		return err
	}
	err := errors.Join(s.prune(ctx, s.budget()), s.expireRules(ctx))
	if s.memory != nil && s.memory.due(s.cfg.Now()) {
		err = errors.Join(err, s.remember(ctx))
	}
	return err
}

func (s *Store) remember(ctx context.Context) error {
	if s.memory == nil {
		return nil
	}
	err := s.memory.remember(ctx, s.ledger, s.cfg.Now())
	s.tellHealth("memory", err)
	return err
}
