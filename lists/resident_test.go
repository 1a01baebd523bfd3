package lists

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// What blocked names touched of the index is not ours for ever, and is found again.
func TestPagesAreLetGo(t *testing.T) {
	var text strings.Builder
	const names = 100_000
	for i := range names {
		fmt.Fprintf(&text, "host-%d.example\n", i*7919%names)
	}
	dir := t.TempDir()
	h := start(t, Config{Dir: dir, Sources: []Source{{Name: "many", Text: []byte(text.String())}}})
	x := h.next()
	h.stop() // nobody else lets go now
	ask := func() {
		for i := 0; i < names; i += 50 {
			if name := dnsname.Name(fmt.Sprintf("host-%d.example", i)); blocked(x, name) == "" {
				t.Fatalf("%s is not blocked", name)
			}
		}
	}
	ask()
	rest := x.Resident()>>10 + 16 // the part that stays, and pages that are shared with it
	if touched := mapped(t, dir); touched <= rest {
		t.Fatalf("%d kB of the index are ours after two thousand names of it were asked for: the test proves nothing", touched)
	}
	if err := letGo(x); err != nil {
		t.Fatal(err)
	}
	if left := mapped(t, dir); left > rest {
		t.Errorf("%d kB of the index are ours still, %d are the part that stays", left, rest)
	}
	ask()
	if err := letGo(nil); err != nil {
		t.Error(err)
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
