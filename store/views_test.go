package store_test

import (
	"database/sql"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
)

// documented is what docs/ledger.md says.
func documented(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../docs/ledger.md")
	must(t, err)
	return string(b)
}

// fullHouse has a row in each view.
func fullHouse(t *testing.T) *house {
	h := open(t, t.TempDir())
	e := leaky(h, tv, devices.LogNames)
	e.Flow.Seen.Protection = 2 // readable
	h.record(e, lookup(tv, devices.LogNames, h.now(), "ads.example.com", policy.Block),
		journal.Entry{At: h.now(), Device: tv, Log: devices.LogNames, Event: &journal.Event{Kind: journal.EventFirstContact, Subject: "Tracker Inc", Text: "talked to Tracker Inc"}})
	must(t, h.Remember(t.Context()))
	return h
}

// The views' columns are those of the first releases in their order, and every
// one is documented.
func TestViewsAreStable(t *testing.T) {
	t.Parallel()
	h := fullHouse(t)
	doc := documented(t)
	for _, v := range []struct{ file, view, first string }{
		{h.cfg.LedgerPath, "v_flow", "id device first last proto src src_port dst dst_port app protection harmless why name name_source tls_version organisation purpose country " +
			"bytes_out bytes_in packets_out packets_in verdict reason rule list proxied credentials first_ms last_ms quic_version ech tls_cipher tls_weak certificate " +
			"credential_user credential_default identifiers ambiguous inbound port_mapped by_name_only carried parts"},
		{h.cfg.LedgerPath, "v_lookup", "id device at name type rcode verdict noted reason rule list organisation purpose country redirected count at_ms"},
		{h.cfg.LedgerPath, "v_device", "device hour destination organisation protection bytes_out bytes_in flows lookups blocked hour_ms purpose country weak carried"},
		{h.cfg.LedgerPath, "v_event", "id device at kind subject text at_ms"},
		{h.cfg.MemoryPath, "v_day", "day device organisation protection bytes_out bytes_in flows lookups blocked"},
		{h.cfg.MemoryPath, "v_event", "id device at kind subject text at_ms"},
	} {
		db, err := sql.Open("sqlite3", "file:"+v.file)
		must(t, err)
		rows, err := db.Query("SELECT * FROM " + v.view)
		must(t, err)
		columns, err := rows.Columns()
		must(t, err)
		if !rows.Next() {
			t.Errorf("%s has no row", v.view)
		}
		must(t, rows.Close())
		must(t, db.Close())
		if want := strings.Fields(v.first); !slices.Equal(columns[:min(len(columns), len(want))], want) {
			t.Errorf("%s has the columns %v, first %v wanted", v.view, columns, want)
		}
		_, section, ok := strings.Cut(doc, "### `"+v.view+"`")
		section, _, _ = strings.Cut(section, "\n##")
		for _, c := range columns {
			if !ok || !strings.Contains(section, "`"+c+"`") {
				t.Errorf("docs/ledger.md does not tell of %s.%s", v.view, c)
			}
		}
	}
}

// What docs/ledger.md shows works, on a ledger whose daemon runs.
func TestDocumentedQueries(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("sqlite3"); err != nil {
		if os.Getenv("NETCURTAIN_NEED_ROOT") != "" {
			t.Fatal("sqlite3 is needed: scripts/setup installs it")
		}
		t.Skip("sqlite3 is not installed: scripts/setup installs it")
	}
	h := fullHouse(t)
	doc := documented(t)
	commands := regexp.MustCompile(`(?m)^sqlite3 .*$`).FindAllString(doc, -1)
	commands = append(commands, regexp.MustCompile("sqlite3 ledger.db \"VACUUM [^\n`]*").FindAllString(doc, -1)...)
	if len(commands) < 7 {
		t.Fatalf("%d commands with sqlite3", len(commands))
	}
	for _, c := range commands {
		sh := exec.Command("sh", "-c", c)
		sh.Dir = filepath.Dir(h.cfg.LedgerPath)
		out, err := sh.CombinedOutput()
		if err != nil || len(out) == 0 && !strings.Contains(c, "VACUUM") {
			t.Errorf("%s\n%s%v", c, out, err)
		}
	}
	// Grafana puts the times in.
	for _, block := range regexp.MustCompile("(?s)```sql\n(SELECT.*?)```").FindAllStringSubmatch(doc, -1) {
		query := strings.NewReplacer("$__from", "0", "$__to", "99999999999999").Replace(block[1])
		if strings.Contains(query, "house.") {
			continue // DuckDB's
		}
		if got := ask(t, h.cfg.LedgerPath, "SELECT count(*) FROM ("+query+")"); got == "0" {
			t.Errorf("nothing comes of\n%s", query)
		}
	}
}
