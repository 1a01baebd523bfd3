package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A folder below /tmp that another user put there is not written to: its owner
// could read the ledger along, or have it written elsewhere.
func TestOwnFolder(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "a", "mine")
	for range 2 { // made, then found
		if err := ownFolder(mine); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(mine); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v: others may look in", info.Mode(), err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(mine, link); err != nil {
		t.Fatal(err)
	}
	if err := ownFolder(link); err != nil {
		t.Errorf("the administrator's own link: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can give a folder away")
	}
	theirs := filepath.Join(dir, "theirs")
	if err := os.Mkdir(theirs, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(theirs, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(link, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{theirs, link} {
		if err := ownFolder(bad); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
