package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every row of the fail table has its story, and every such story its row.
func TestFailTable(t *testing.T) {
	page, err := os.ReadFile("../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "| what fails |")
	table, _, ok := strings.Cut(table, "\n\n")
	if !ok {
		t.Fatal("ARCHITECTURE.md has no fail table")
	}
	var told []string
	for _, row := range regexp.MustCompile("(?m)`([a-z-]+)` \\|$").FindAllStringSubmatch(table, -1) {
		told = append(told, row[1])
		if _, err := os.Stat("testdata/" + row[1] + ".txtar"); err != nil {
			t.Error(err)
		}
	}
	if rows := strings.Count(table, "\n|") - 1; len(told) != rows {
		t.Errorf("%d rows, %d of which name a story", rows, len(told))
	}
	stories, err := filepath.Glob("testdata/fail-*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stories {
		if name := strings.TrimSuffix(filepath.Base(s), ".txtar"); !slices.Contains(told, name) {
			t.Errorf("the fail table has no row for %s", name)
		}
	}
}
