package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/store"
)

// What was written down can be read, exported and erased while no daemon runs.
func TestTheLedgerWithoutADaemon(t *testing.T) {
	dir := t.TempDir()
	settings := filepath.Join(dir, "settings")
	if err := os.WriteFile(settings, fmt.Appendf(nil, "config house\n\toption state '%s'\n\toption volatile '%s'\n\toption socket '%s/none.sock'\n", dir, dir, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	cli := func(args ...string) (string, string, int) {
		var out, talk bytes.Buffer
		code := run(t.Context(), append(args, "--config", settings, "--socket", dir+"/none.sock"), std{&out, &talk})
		return out.String(), talk.String(), code
	}
	if _, said, code := cli("flows"); code != exitError || !strings.Contains(said, "its files are not there") {
		t.Errorf("without files: %d, %q", code, said)
	}
	fill(t, dir)
	for _, c := range []struct{ args, want string }{
		{"devices", "television"},
		{"flows", "television  api.example.com"},
		{"flows --format csv --device television", ",api.example.com,sni,"},
		{"flows --format zeek", "#close"},
		{"flows --json", `"tls_weak": "the cipher is RC4"`},
		{"lookups", "ads.example.com"},
		{"lookups --format jsonl --limit 1", `"name":"ads.example.com"`},
		{"events", "talked to Example"},
		{"top --once", "television  api.example.com"},
		{"top --once --by device --json", `"device_name": "television"`},
	} {
		out, said, code := cli(strings.Fields(c.args)...)
		if code != exitOK || !strings.Contains(out, c.want) {
			t.Errorf("%s: %d, %s, %q", c.args, code, said, out)
		}
	}
	lock, err := lockHouse(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, said, code := cli("flows"); code != exitError || !strings.Contains(said, "holds") {
		t.Errorf("beside a daemon that hangs: %d, %q", code, said)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if _, said, code := cli("erase", "--device", "television"); code != exitOK || !strings.Contains(said, "rows erased") {
		t.Errorf("erase: %d, %q", code, said)
	}
	if out, _, _ := cli("flows", "--format", "jsonl"); out != "" {
		t.Errorf("after the erase: %q", out)
	}
	if _, said, code := cli("forget", "television"); code != exitOK {
		t.Errorf("forget: %d, %q", code, said)
	}
	if out, _, _ := cli("devices"); strings.Contains(out, "television") {
		t.Errorf("after forgetting: %q", out)
	}
}

// fill makes a house's files with a flow, a look-up and an event of a television.
func fill(t *testing.T, dir string) {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{
		HouseholdPath: filepath.Join(dir, "household.db"), LedgerPath: filepath.Join(dir, "ledger.db"), MemoryPath: filepath.Join(dir, "memory.db"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const tv devices.ID = "a8:23:fe:00:00:10"
	mac, err := devices.ParseMAC(string(tv))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetKnown(t.Context(), []devices.Device{{ID: tv, MACs: []devices.MAC{mac}, Hostname: "television", FirstSeen: time.Now()}}); err != nil {
		t.Fatal(err)
	}
	rec, err := journal.NewRecorder(journal.Config{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	entry := journal.Entry{At: now, Device: tv, Log: devices.LogNames}
	sub := rec.Subscribe("store", 10)
	one, two, three := entry, entry, entry
	one.Flow = &journal.Flow{Flow: flow.Flow{First: now, Last: now, Name: "api.example.com", NameSource: flow.NameFromSNI, Counters: flow.Counters{Orig: flow.Count{Bytes: 10}}},
		Seen: dissect.Result{App: "tls", Protection: flow.Encrypted, TLS: &dissect.TLS{Weak: []string{"the cipher is RC4"}}}}
	two.Lookup = &journal.Lookup{Name: "ads.example.com", Type: 1}
	three.Event = &journal.Event{Kind: journal.EventFirstContact, Subject: "Example", Text: "talked to Example for the first time"}
	for _, e := range []journal.Entry{one, two, three} {
		rec.Record(e)
	}
	sub.Close()
	ctx, stop := context.WithCancel(t.Context())
	stop() // it writes what is there, and ends
	if err := s.Run(ctx, sub); err != nil {
		t.Fatal(err)
	}
}
