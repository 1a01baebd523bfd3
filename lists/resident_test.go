package lists

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// However many of its names are asked for, of the index no more is ours than what
// every look-up needs.
func TestBlockedNamesAreNotMapped(t *testing.T) {
	var text strings.Builder
	const names = 100_000
	for i := range names {
		fmt.Fprintf(&text, "host-%d.example\n", i*7919%names)
	}
	dir := t.TempDir()
	h := start(t, Config{Dir: dir, Sources: []Source{{Name: "many", Text: []byte(text.String())}}})
	x := h.next()
	h.stop()
	for i := range names {
		if name := dnsname.Name(fmt.Sprintf("host-%d.example", i)); blocked(x, name) == "" {
			t.Fatalf("%s is not blocked", name)
		}
	}
	file, err := os.Stat(filepath.Join(dir, "index"))
	if err != nil {
		t.Fatal(err)
	}
	const shared = 128 // of pages that hold something else, too: the kernel maps sixteen for each
	got, rest, all := mapped(t, dir), x.Resident()>>10+shared, int(file.Size())>>10
	if all < 2*rest {
		t.Fatalf("the index has %d kB, of which %d may be ours: the test proves nothing", all, rest)
	}
	if got == 0 || got > rest {
		t.Errorf("%d of %d kB of the index are ours, %d are what look-ups need", got, all, rest)
	}
}

// mapped is how much of the files below dir is in our memory, in kB.
func mapped(t *testing.T, dir string) (kb int) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	inside := false
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var n int
		switch line := sc.Text(); {
		case strings.Contains(strings.SplitN(line, " ", 2)[0], "-"):
			inside = strings.Contains(line, dir)
		case inside:
			if _, err := fmt.Sscanf(line, "Rss: %d kB", &n); err == nil {
				kb += n
			}
		}
	}
	return kb
}
