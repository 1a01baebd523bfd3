package store_test

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/store"
)

// pulse hears what Config.Health is told.
type pulse struct {
	mu   sync.Mutex
	told []error
}

func (p *pulse) hear(file string, err error) {
	if file != "ledger" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.told = append(p.told, err)
}

// wait waits until the n-th telling and returns it.
func (p *pulse) wait(t *testing.T, n int) error {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		p.mu.Lock()
		told := p.told
		p.mu.Unlock()
		if len(told) >= n {
			return told[n-1]
		}
	}
	t.Fatalf("health was not told %d times", n)
	return nil
}

// Somebody holds the ledger: that is told, what happens meanwhile waits, and
// everything is written when it is free again, without anybody asking.
func TestALedgerThatSomebodyHolds(t *testing.T) {
	t.Parallel()
	var p pulse
	reg := prometheus.NewRegistry()
	h := open(t, t.TempDir(), func(c *store.Config) { c.Health, c.FlushEvery, c.Registerer = p.hear, 20*time.Millisecond, reg })
	db, err := sql.Open("sqlite3", "file:"+h.cfg.LedgerPath)
	must(t, err)
	db.SetMaxOpenConns(1)
	_, err = db.Exec("BEGIN IMMEDIATE; UPDATE meta SET value = value")
	must(t, err)
	for i := range 3000 { // more than a batch
		e := talk(tv, devices.LogNames, h.now(), "held.example", flow.Encrypted, 1, 1)
		e.Flow.Tuple.SrcPort = uint16(i)
		h.rec.Record(e)
	}
	if err := p.wait(t, 1); err == nil || !strings.Contains(err.Error(), "locked") {
		t.Errorf("told %v", err)
	}
	_, err = db.Exec("ROLLBACK")
	must(t, err)
	must(t, db.Close())
	if err := p.wait(t, 2); err != nil {
		t.Errorf("then told %v", err)
	}
	must(t, h.Flush(t.Context()))
	if n := totals(t, h, tv).Flows; n != 3000 {
		t.Errorf("%d flows are written, 3000 wanted", n)
	}
	if n := metric(t, reg, "netcurtain_store_rows_dropped_total"); n != 0 {
		t.Errorf("%v rows dropped", n)
	}
}

// A full disk is told, and that there is room again is found out by itself.
func TestAFullDiskIsToldAndMends(t *testing.T) {
	t.Parallel()
	small := filepath.Join(t.TempDir(), "small")
	mountSmall(t, small, 8<<20)
	var p pulse
	h := open(t, t.TempDir(), func(c *store.Config) {
		c.LedgerPath, c.Bytes, c.Health, c.FlushEvery = filepath.Join(small, "ledger.db"), 64<<20, p.hear, 20*time.Millisecond
	})
	h.record(talk(tv, devices.LogNames, h.now(), "before.example", flow.Encrypted, 1, 1))
	drain := brimful(t, small)
	for i := 0; ; i++ {
		h.rec.Record(talk(tv, devices.LogNames, h.now(), strings.Repeat("x", 200)+".example", flow.Encrypted, 1, 1))
		p.mu.Lock()
		told := len(p.told)
		p.mu.Unlock()
		if told > 0 {
			break
		}
		if i > 20_000 {
			t.Fatal("a full disk is not noticed")
		}
		time.Sleep(100 * time.Microsecond)
	}
	drain()
	for n := 1; p.wait(t, n) != nil; n++ { // it may have found room of its own and lost it again
	}
	h.record(talk(tv, devices.LogNames, h.now(), "after.example", flow.Encrypted, 1, 1))
	if rows := flowsOf(t, h, tv); len(rows) == 0 || rows[0].Name != "after.example" {
		t.Errorf("afterwards: %+v", rows)
	}
	if _, err := os.Stat(h.cfg.LedgerPath); err != nil {
		t.Error(err)
	}
}

// The flash is full when a day ends: that is told, and tried again by the hour.
func TestAMemoryThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	small := filepath.Join(t.TempDir(), "small")
	mountSmall(t, small, 1<<20)
	var told []string
	var mu sync.Mutex
	h := open(t, t.TempDir(), func(c *store.Config) {
		c.MemoryPath = filepath.Join(small, "memory.db")
		c.Health = func(file string, err error) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprintf("%s %t", file, err == nil))
		}
	})
	h.record(talk(tv, devices.LogNames, h.now(), "a.example", flow.Encrypted, 1, 1))
	drain := brimful(t, small)
	h.advance(24 * time.Hour)
	if err := h.Tidy(t.Context()); err == nil {
		t.Fatal("a full flash is no error")
	}
	drain()
	must(t, h.Tidy(t.Context())) // too early to try again
	h.advance(time.Hour)
	must(t, h.Tidy(t.Context()))
	mu.Lock()
	defer mu.Unlock()
	if fmt.Sprint(told) != "[memory false memory true]" {
		t.Errorf("told %v", told)
	}
	if n := ask(t, h.cfg.MemoryPath, "SELECT count(*) FROM day"); n != "1" {
		t.Errorf("%s days are remembered", n)
	}
}
