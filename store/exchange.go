package store

import (
	"context"
	"errors"
	"fmt"
)

// readers is how many queries run at a time: more than there are cores in a
// router, so that a quick one need not wait for two slow ones.
const readers = 4

// openLedger opens ledger.db and its read-only pool. Only a directory that
// cannot be used is an error: a file that cannot is put aside.
func (s *Store) openLedger(ctx context.Context) error {
	path := s.cfg.LedgerPath
	if err := prepare(path); err != nil {
		return err
	}
	l, err := openLedgerFile(ctx, s.cfg)
	if why := putAside(err); why != "" {
		aside, moveErr := quarantine(path, why, s.cfg.Now())
		if moveErr != nil {
			return errors.Join(err, moveErr)
		}
		s.cfg.Logger.Warn("ledger put aside, a new one begins", "why", err, "aside", aside)
		l, err = openLedgerFile(ctx, s.cfg)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	s.ledger = l
	s.read = openFile(path, "ro", readers,
		"PRAGMA query_only = ON",
		"PRAGMA temp_store = MEMORY", // sorting leaves no names on a disk
		"PRAGMA cache_size = -512",
	)
	return nil
}

// putAside says why the file that gave err is to be put aside; "" when it is not.
func putAside(err error) string {
	switch {
	case errors.Is(err, ErrNewer):
		return whyNewer
	case isCorrupt(err):
		return whyCorrupt
	}
	return ""
}

// heal opens the ledger again after an exchange that could not; perhaps the disk is back.
func (s *Store) heal(ctx context.Context) error {
	if !s.lost {
		return nil
	}
	return s.exchange(ctx, func() error { return nil })
}

// exchange closes the ledger, lets swap put another file in its place, and
// opens that. Readers begin again with the new file. The batch goes over. Where there is nothing
// to open afterwards, heal tries again.
func (s *Store) exchange(ctx context.Context, swap func() error) error {
	ctx = context.WithoutCancel(ctx) // half an exchange is none
	s.interrupt()
	s.reading.Lock()
	defer s.reading.Unlock()
	s.readable, s.interrupt = context.WithCancel(context.Background())
	batch := s.ledger.batch
	s.lost = true
	// Neither a corrupt file nor a full disk need close well.
	s.read.Close()
	s.ledger.db.Close()
	swapErr := swap()
	if err := s.openLedger(ctx); err != nil {
		return errors.Join(swapErr, err)
	}
	s.lost = false
	s.ledger.batch = batch
	return swapErr
}

// replaceLedger begins a new ledger while running. The old one is kept aside,
// or removed.
func (s *Store) replaceLedger(ctx context.Context, why error, keep bool) error {
	s.metrics.replaced.Inc()
	path := s.cfg.LedgerPath
	err := s.exchange(ctx, func() error {
		if keep {
			aside, err := quarantine(path, whyCorrupt, s.cfg.Now())
			s.cfg.Logger.Warn("ledger put aside, a new one begins", "why", why, "aside", aside)
			return err
		}
		s.cfg.Logger.Warn("ledger removed, a new one begins", "why", why)
		return removeAll(path)
	})
	if err != nil || s.memory == nil {
		return err
	}
	return s.memory.restore(ctx, s.ledger)
}
