package lists

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy/blocklist"
)

// In a child of TestPowerCut these say what to do and when to die.
const (
	killFolder = "NETCURTAIN_KILL_FOLDER"
	killURL    = "NETCURTAIN_KILL_URL"
	killAt     = "NETCURTAIN_KILL_AT" // "" lives through it and prints its steps
)

// A refresh that is killed at any step, as by a power cut, leaves the old index or
// the new one, whole, and never neither: the next start blocks from its first moment
// with no network. The child is this test itself, killed by SIGKILL.
func TestPowerCut(t *testing.T) {
	if dir := os.Getenv(killFolder); dir != "" {
		refreshAndDie(t, dir, os.Getenv(killURL), os.Getenv(killAt))
		return
	}
	web := &server{}
	web.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, web.body.Load().(string))
	}))
	t.Cleanup(web.Close)
	long := func(name string) string {
		var s strings.Builder
		for i := range 3000 {
			fmt.Fprintf(&s, "||n%d.%s.example^\n", i, name)
		}
		return s.String()
	}
	// prepare leaves an index with the old list in a new folder.
	prepare := func() string {
		dir := t.TempDir()
		web.body.Store(long("old"))
		if out, err := child(dir, web.URL, "").CombinedOutput(); err != nil {
			t.Fatalf("preparing: %v\n%s", err, out)
		}
		web.body.Store(long("new"))
		return dir
	}
	dir := prepare()
	out, err := child(dir, web.URL, "").Output()
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	for sc := bufio.NewScanner(strings.NewReader(string(out))); sc.Scan(); {
		if s, ok := strings.CutPrefix(sc.Text(), "step "); ok {
			steps = append(steps, s)
		}
	}
	if len(steps) < 9 {
		t.Fatalf("a refresh has only the steps %q", steps)
	}
	if got := inForce(t, dir); got != "new" {
		t.Errorf("lived through, in force is %q", got)
	}
	seen := map[string]bool{}
	for _, step := range steps {
		if seen[step] {
			continue
		}
		seen[step] = true
		t.Run(step, func(t *testing.T) {
			dir := prepare()
			err := child(dir, web.URL, step).Run()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the child was not killed: %v", err)
			}
			want := "old"
			if step == "sync folder" || step == "use" { // the rename is behind it
				want = "new"
			}
			if got := inForce(t, dir); got != want {
				t.Errorf("in force is %q, want %q", got, want)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
				t.Errorf("left in the folder after the next start: %v", left)
			}
		})
	}
}

func child(dir, url, at string) *exec.Cmd {
	c := exec.Command(os.Args[0], "-test.run=^TestPowerCut$")
	c.Env = append(os.Environ(), killFolder+"="+dir, killURL+"="+url, killAt+"="+at)
	return c
}

// refreshAndDie starts as a daemon does, asks for the list and dies before the step.
func refreshAndDie(t *testing.T, dir, url, at string) {
	l, err := New(Config{
		Dir: dir, AllowPrivate: true, AllowHTTP: true,
		OnIndex: func(*blocklist.Index) {},
		Sources: []Source{{Name: "starter", Text: []byte("||starter.example^\n")}, {Name: "web", URL: url}},
	})
	if err != nil {
		t.Fatal(err)
	}
	l.step = func(step string) {
		fmt.Println("step " + step)
		if step == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // it comes at once
		}
	}
	l.loadIndex()
	if err := l.update(t.Context(), offline); err != nil {
		t.Fatal(err)
	}
	l.Refresh()
	if err := l.update(t.Context(), online); err != nil {
		t.Fatal(err)
	}
}

// inForce starts without a network and says which version blocks at once.
func inForce(t *testing.T, dir string) string {
	t.Helper()
	first := make(chan *blocklist.Index, 10)
	l, err := New(Config{
		Dir: dir, AllowPrivate: true, AllowHTTP: true, OnIndex: func(x *blocklist.Index) { first <- x },
		Transport: noNetwork{},
		Sources:   []Source{{Name: "starter", Text: []byte("||starter.example^\n")}, {Name: "web", URL: "http://nowhere.example/"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	// The same list, whatever its address: where it comes from is not the question.
	l.removeLeftovers()
	l.loadIndex()
	var got []string
	select {
	case x := <-first:
		for _, version := range []string{"old", "new"} {
			hit := 0
			for i := range 3000 {
				if blocked(x, dnsname.Name(fmt.Sprintf("n%d.%s.example", i, version))) != "" {
					hit++
				}
			}
			switch hit {
			case 0:
			case 3000:
				got = append(got, version)
			default:
				got = append(got, fmt.Sprintf("%d of %s", hit, version))
			}
		}
		if blocked(x, "starter.example") == "" {
			got = append(got, "no starter")
		}
	default:
		return "nothing"
	}
	return strings.Join(got, " and ")
}

type noNetwork struct{}

func (noNetwork) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, context.DeadlineExceeded
}
