package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/store"
	"github.com/netcurtain/netcurtain/store/storetest"
)

// ask asks a file behind the store's back.
func ask(t testing.TB, path, query string) string {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var answer string
	if err := db.QueryRow(query).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return answer
}

func tell(t testing.TB, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func TestFilesAreSetUpAsTheyWear(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir)
	plant(h, tv, "word", 10)
	if _, err := h.Erase(t.Context(), tv); err != nil { // which makes the ledger anew
		t.Fatal(err)
	}
	h.stop()
	for _, c := range []struct{ file, pragma, want string }{
		{"household.db", "journal_mode", "delete"}, // TRUNCATE is a connection's business
		{"household.db", "user_version", "3"},
		{"ledger.db", "journal_mode", "wal"},
		{"ledger.db", "auto_vacuum", "2"},
		{"ledger.db", "user_version", "5"},
		{"memory.db", "journal_mode", "delete"},
		{"memory.db", "auto_vacuum", "2"},
	} {
		if got := ask(t, filepath.Join(dir, c.file), "PRAGMA "+c.pragma); got != c.want {
			t.Errorf("%s has %s %s, %s wanted", c.file, c.pragma, got, c.want)
		}
		info, err := os.Stat(filepath.Join(dir, c.file))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s can be read by others: %s", c.file, info.Mode())
		}
	}
}

// People's choices and the house's memory are on the disk when they are said to
// be; the ledger may lose its last seconds, and is never torn.
func TestWhatIsDurable(t *testing.T) {
	t.Parallel()
	s := mustOpen(t, config(t.TempDir()))
	defer s.Close()
	household, ledger, memory, err := s.Durability(t.Context())
	must(t, err)
	if household != "2" || ledger != "1" || memory != "2" {
		t.Errorf("synchronous is %s for the household, %s for the ledger, %s for the memory; FULL (2), NORMAL (1) and FULL wanted", household, ledger, memory)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	notADatabase := bytes.Repeat([]byte("this is no database\n"), 100)
	for _, c := range []struct {
		name string
		with func(t *testing.T, cfg *store.Config)
		want string // in the error
		is   error
	}{
		{"no path", func(_ *testing.T, c *store.Config) { c.LedgerPath = "" }, "paths of the household and the ledger are needed", nil},
		{"small budget", func(_ *testing.T, c *store.Config) { c.Bytes = 1000 }, "ledger of 1000 bytes: at least 4194304", nil},
		{"short age", func(_ *testing.T, c *store.Config) { c.Age = time.Minute }, "at least 1h", nil},
		{"no directory", func(_ *testing.T, c *store.Config) {
			c.LedgerPath = filepath.Join(filepath.Dir(c.LedgerPath), "absent", "ledger.db")
		},
			"absent does not exist: create it", nil},
		{"directory is a file", func(t *testing.T, c *store.Config) {
			write(t, filepath.Dir(c.LedgerPath)+"/file", []byte("x"))
			c.LedgerPath = filepath.Dir(c.LedgerPath) + "/file/ledger.db"
		}, "file is not a directory", nil},
		{"not writable", func(_ *testing.T, c *store.Config) { c.HouseholdPath = "/proc/self/household.db" }, "directory /proc/self cannot be written to", nil},
		{"ledger is a directory", func(t *testing.T, c *store.Config) {
			if err := os.Mkdir(c.LedgerPath, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "is a directory", nil},
		{"household from a newer version", func(t *testing.T, c *store.Config) { tell(t, c.HouseholdPath, "PRAGMA user_version = 99") },
			"it has version 99, this program knows ", store.ErrNewer},
		{"household corrupt, no copy", func(t *testing.T, c *store.Config) { write(t, c.HouseholdPath, notADatabase) },
			"there is no copy; move it away", nil},
		{"household corrupt, two copies", func(t *testing.T, c *store.Config) {
			write(t, c.HouseholdPath, notADatabase)
			write(t, c.HouseholdPath+".version-9", nil)
			write(t, c.HouseholdPath+".version-10", nil)
		}, "household.db.version-10 ", nil},
		{"metrics twice", func(_ *testing.T, c *store.Config) {
			reg := prometheus.NewRegistry()
			reg.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "netcurtain_store_rows_written_total", Help: "x"}))
			c.Registerer = reg
		}, "store metrics", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			cfg := config(t.TempDir())
			c.with(t, &cfg)
			s, err := store.Open(t.Context(), cfg)
			if err == nil {
				s.Close()
				t.Fatal("opened, an error is wanted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %q, %q wanted in it", err, c.want)
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("error is %v, %v wanted", err, c.is)
			}
		})
	}
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// The house never waits for its ledger: what cannot be read is put aside.
func TestABadLedgerIsPutAside(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, file, suffix string
		spoil              func(t *testing.T, path string)
	}{
		{"rubbish", "ledger.db", ".corrupt-*", func(t *testing.T, p string) { write(t, p, bytes.Repeat([]byte("rubbish"), 1000)) }},
		{"newer", "ledger.db", ".newer-*", func(t *testing.T, p string) { tell(t, p, "PRAGMA user_version = 99") }},
		{"memory is rubbish", "memory.db", ".corrupt-*", func(t *testing.T, p string) { write(t, p, bytes.Repeat([]byte("rubbish"), 1000)) }},
		{"memory is newer", "memory.db", ".newer-*", func(t *testing.T, p string) { tell(t, p, "PRAGMA user_version = 99") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, c.file)
			write(t, path+strings.TrimSuffix(c.suffix, "*")+"20200101T000000Z", []byte("an older one"))
			c.spoil(t, path)
			h := open(t, dir)
			aside, err := filepath.Glob(path + c.suffix)
			if err != nil || len(aside) != 1 || strings.Contains(aside[0], "2020") {
				t.Errorf("put aside: %v, %v; exactly the newest wanted", aside, err)
			}
			if !strings.Contains(h.log.String(), "put aside") {
				t.Errorf("the log says nothing: %s", h.log)
			}
			h.record(lookup(tv, devices.LogNames, h.now(), "a.example", policy.Block))
			if err := h.Remember(t.Context()); err != nil {
				t.Error(err)
			}
			if rows, err := h.Lookups(t.Context(), journal.Filter{}); err != nil || len(rows) != 1 {
				t.Errorf("the new ledger answers %v, %v", rows, err)
			}
		})
	}
}

// A copy that the power cut short holds names, and its journal would be rolled
// back into the next copy.
func TestHalfACopyIsRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, suffix := range []string{".part", ".clean", ".clean.part"} {
		for _, companion := range []string{"", "-journal", "-wal", "-shm"} {
			write(t, filepath.Join(dir, "ledger.db"+suffix+companion), []byte("half a name"))
		}
	}
	h := open(t, dir)
	if bytes.Contains(raw(t, dir), []byte("half a name")) {
		t.Error("half a copy is left after opening")
	}
	for _, companion := range []string{"", "-journal"} {
		write(t, h.cfg.LedgerPath+".clean.part"+companion, []byte("half a name"))
	}
	plant(h, tv, "word", 10)
	if _, err := h.Erase(t.Context(), tv); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw(t, dir), []byte("half a name")) {
		t.Error("half a copy is left after an erase")
	}
}

// A page torn while running, as a dying USB stick tears it.
func TestALedgerThatBreaksWhileRunning(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir)
	plant(h, tv, "word", 3000)
	if err := h.SetName(t.Context(), tv, "Television", "test"); err != nil {
		t.Fatal(err)
	}
	h.Tidy(t.Context())
	h.stop()
	b, err := os.ReadFile(h.cfg.LedgerPath)
	if err != nil {
		t.Fatal(err)
	}
	// All pages but the first, whose schema is read on opening, become rubbish.
	// The header says that nobody else changed the file.
	size := int(binary.BigEndian.Uint16(b[16:18]))
	for i := size; i < len(b); i++ {
		b[i] = 0xa5
	}
	if err := os.WriteFile(h.cfg.LedgerPath, b, 0o600); err != nil {
		t.Fatal(err)
	}
	h = open(t, dir)
	h.rec.Record(lookup(tv, devices.LogNames, h.now(), "lost.example", policy.Block))
	h.Flush(t.Context()) // finds out, at the latest
	h.record(lookup(tv, devices.LogNames, h.now(), "kept.example", policy.Block))
	rows, err := h.Lookups(t.Context(), journal.Filter{})
	if err != nil || len(rows) == 0 || rows[0].Name != "kept.example" {
		t.Errorf("the ledger answers %v, %v", rows, err)
	}
	if !strings.Contains(h.log.String(), "put aside") {
		t.Errorf("the log says nothing: %s", h.log)
	}
	if choices, err := h.Choices(t.Context()); err != nil || choices[tv].Name != "Television" {
		t.Errorf("the choices suffered: %v, %v", choices, err)
	}
}

func TestMigrationsRunOnceEachAndWhole(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.db")
	first := fstest.MapFS{"m/001_a.sql": {Data: []byte("CREATE TABLE a (x); INSERT INTO a VALUES ('one');")}}
	second := fstest.MapFS{"m/001_a.sql": first["m/001_a.sql"], "m/002_b.sql": {Data: []byte("ALTER TABLE a ADD COLUMN y; UPDATE a SET y = x || ' more';")}}
	broken := fstest.MapFS{"m/001_a.sql": second["m/001_a.sql"], "m/002_b.sql": second["m/002_b.sql"],
		"m/003_c.sql": {Data: []byte("INSERT INTO a VALUES ('half', 'done'); INSERT INTO nowhere VALUES (1);")}}

	var befores []int
	before := func(v int) error { befores = append(befores, v); return nil }
	for _, fsys := range []fstest.MapFS{first, first, second, second} {
		if err := store.Migrate(t.Context(), path, fsys, before); err != nil {
			t.Fatal(err)
		}
	}
	if fmt.Sprint(befores) != "[1]" {
		t.Errorf("copied before versions %v, only before leaving version 1 wanted", befores)
	}
	if got := ask(t, path, "SELECT y FROM a"); got != "one more" {
		t.Errorf("after two steps: %q", got)
	}
	err := store.Migrate(t.Context(), path, broken, before)
	if err == nil || !strings.Contains(err.Error(), "003_c.sql") {
		t.Errorf("the broken step says %v", err)
	}
	if got := ask(t, path, "SELECT count(*) FROM a"); got != "1" {
		t.Errorf("a broken step left %s rows", got)
	}
	if got := ask(t, path, "PRAGMA user_version"); got != "2" {
		t.Errorf("after a broken step the version is %s", got)
	}
	if err := store.Migrate(t.Context(), path, first, before); !errors.Is(err, store.ErrNewer) {
		t.Errorf("an older program says %v", err)
	}
	// A step that cannot be undone is not made when the copy cannot be made.
	full := errors.New("no space")
	if err := store.Migrate(t.Context(), path, broken, func(int) error { return full }); !errors.Is(err, full) {
		t.Errorf("without a copy: %v", err)
	}
}

func TestTheHouseholdIsCopiedBeforeAMigration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := open(t, dir)
	if err := h.SetName(t.Context(), tv, "Television", "test"); err != nil {
		t.Fatal(err)
	}
	if err := h.CopyBefore(t.Context(), h.cfg.HouseholdPath, 1); err != nil {
		t.Fatal(err)
	}
	aside := h.cfg.HouseholdPath + ".version-1"
	if got := ask(t, aside, "SELECT name FROM choice"); got != "Television" {
		t.Errorf("the copy says %q", got)
	}
	for v := 2; v <= 3; v++ {
		if err := h.CopyBefore(t.Context(), h.cfg.HouseholdPath, v); err != nil {
			t.Fatal(err)
		}
	}
	copies, err := filepath.Glob(h.cfg.HouseholdPath + ".*")
	if err != nil || len(copies) != 2 {
		t.Errorf("copies kept: %v, %v; two wanted", copies, err)
	}
}

// TestMain is the store's child process as well: see TestKillNine.
func TestMain(m *testing.M) {
	if dir := os.Getenv("NETCURTAIN_TEST_WRITER"); dir != "" {
		writeUntilKilled(dir)
	}
	if dir := os.Getenv("NETCURTAIN_TEST_COUNTER"); dir != "" {
		countUntilKilled(dir)
	}
	os.Exit(m.Run())
}

func writeUntilKilled(dir string) {
	die := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	ctx := context.Background()
	cfg := config(dir)
	cfg.FlushEvery = 3 * time.Millisecond
	s, err := store.Open(ctx, cfg)
	die(err)
	rec, err := journal.NewRecorder(journal.Config{})
	die(err)
	sub := rec.Subscribe("store", 5000)
	go func() { die(s.Run(ctx, sub)) }()
	g := storetest.New(uint64(os.Getpid()), 20, 2000)
	for range 50 {
		rec.Record(g.Entry(time.Now()))
	}
	for !s.Running() {
		time.Sleep(time.Millisecond)
	}
	die(s.Flush(ctx))
	fmt.Println("writing")
	for i := 0; ; i++ {
		rec.Record(g.Entry(time.Now()))
		switch {
		case i%500 == 0:
			time.Sleep(time.Millisecond)
		case i%1700 == 0:
			die(s.Remember(ctx))
			die(s.SetName(ctx, tv, fmt.Sprint("Television ", i), "child"))
		case i%6100 == 0:
			_, err := s.Erase(ctx, storetest.DeviceID(3))
			die(err)
		case i%4300 == 0:
			die(s.Tidy(ctx))
		}
	}
}

// A kill at any moment costs the batch that was being written and nothing else.
func TestKillNine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := config(dir)
	var last int
	for round := range 12 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "NETCURTAIN_TEST_WRITER="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 100)
		if n, err := out.Read(line); err != nil || string(line[:n]) != "writing\n" {
			t.Fatalf("round %d: the child says %q, %v", round, line[:n], err)
		}
		time.Sleep(time.Duration(40+37*round) * time.Millisecond)
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := child.Wait(); err == nil || child.ProcessState.Exited() {
			t.Fatalf("round %d: the child was not killed but ended: %v", round, child.ProcessState)
		}
		s := mustOpen(t, cfg)
		totals, err := s.Totals(t.Context(), time.Now().Add(-time.Hour))
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		var sum int
		for _, d := range totals {
			sum += int(d.Lookups + d.Flows)
		}
		if rows, err := s.Flows(t.Context(), journal.Filter{Limit: 1000}); err != nil || len(rows) == 0 {
			t.Fatalf("round %d: %d flows, %v", round, len(rows), err)
		}
		if _, err := s.Choices(t.Context()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := s.Close(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for _, p := range []string{cfg.HouseholdPath, cfg.LedgerPath, cfg.MemoryPath} {
			if got := ask(t, p, "PRAGMA integrity_check"); got != "ok" {
				t.Fatalf("round %d: %s: %s", round, p, got)
			}
		}
		t.Logf("round %d: %d entries in the roll-ups (%+d)", round, sum, sum-last)
		last = sum
	}
	if aside, _ := filepath.Glob(filepath.Join(dir, "*.db.*")); len(aside) > 0 {
		t.Errorf("put aside or left half made: %v", aside)
	}
	// Nothing is counted in the roll-ups that is not in the rows.
	rollups := ask(t, cfg.LedgerPath, "SELECT sum(lookups) || ' ' || sum(flows) FROM hour")
	rows := ask(t, cfg.LedgerPath, "SELECT (SELECT sum(count) FROM lookup) || ' ' || (SELECT count(*) FROM flow)")
	if rollups != rows {
		t.Errorf("roll-ups have %s look-ups and flows, rows have %s", rollups, rows)
	}
	sameRollUps(t, &house{cfg: cfg}, "the last kill")
}

// killedBatch is how many entries countUntilKilled writes at a time.
const killedBatch = 700

// countUntilKilled says after each batch how many entries are written.
func countUntilKilled(dir string) {
	s, err := store.Open(context.Background(), config(dir))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	rec, err := journal.NewRecorder(journal.Config{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	sub := rec.Subscribe("store", 2*killedBatch)
	go s.Run(context.Background(), sub)
	for !s.Running() {
		time.Sleep(time.Millisecond)
	}
	g := storetest.New(1, 20, 2000)
	for n := killedBatch; ; n += killedBatch {
		for range killedBatch {
			rec.Record(g.Entry(time.Now()))
		}
		if err := s.Flush(context.Background()); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(n)
	}
}

// What was written before a kill is there, but for at most the batch under way.
func TestKillNineLosesABatchAtMost(t *testing.T) {
	t.Parallel()
	for round := range 6 {
		dir := t.TempDir()
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "NETCURTAIN_TEST_COUNTER="+dir)
		var said bytes.Buffer
		child.Stdout = &said
		must(t, child.Start())
		time.Sleep(time.Duration(300+61*round) * time.Millisecond)
		must(t, child.Process.Kill())
		if err := child.Wait(); err == nil || child.ProcessState.Exited() {
			t.Fatalf("round %d: the child was not killed but ended: %s", round, said.String())
		}
		lines := strings.Fields(said.String())
		if len(lines) == 0 {
			continue // killed before its first batch
		}
		told, err := strconv.Atoi(lines[len(lines)-1])
		must(t, err)
		s := mustOpen(t, config(dir))
		totals, err := s.Totals(t.Context(), time.Now().Add(-time.Hour))
		must(t, err)
		must(t, s.Close())
		var sum int
		for _, d := range totals {
			sum += int(d.Lookups + d.Flows)
		}
		if sum != told && sum != told+killedBatch {
			t.Errorf("round %d: %d entries are there, %d were written", round, sum, told)
		}
	}
}
