package lists

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy/blocklist"
)

// house is a running Lists with the newest index that it handed out.
type house struct {
	*Lists
	t       *testing.T
	indexes chan *blocklist.Index
	newest  atomic.Pointer[blocklist.Index]
	stop    func()
}

func start(t *testing.T, c Config) *house {
	t.Helper()
	h := &house{t: t, indexes: make(chan *blocklist.Index, 100)}
	c.OnIndex = func(x *blocklist.Index) { h.newest.Store(x); h.indexes <- x }
	l, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	h.Lists = l
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(h.stop)
	return h
}

func (h *house) next() *blocklist.Index {
	h.t.Helper()
	return h.nextWithin(time.Minute)
}

func (h *house) nextWithin(patience time.Duration) *blocklist.Index {
	h.t.Helper()
	select {
	case x := <-h.indexes:
		return x
	case <-time.After(patience):
		h.t.Fatalf("no index came; status %+v", h.Status())
		return nil
	}
}

// blocked says what an index blocks, of some names.
func blocked(x *blocklist.Index, names ...dnsname.Name) string {
	var out []string
	for _, n := range names {
		if m, ok := x.Match(n, ^uint64(0)); ok && !m.Allow {
			out = append(out, fmt.Sprintf("%s by %s", n, x.Lists()[m.List].Name))
		}
	}
	return strings.Join(out, ", ")
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 400 {
		if ok() {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatalf("never happened: %s", what)
}

// server is a list on the web that a test can change.
type server struct {
	*httptest.Server
	body, etag atomic.Value
	status     atomic.Int64
	asked      atomic.Int64
}

func serve(t *testing.T, body string) *server {
	s := new(server)
	s.body.Store(body)
	s.etag.Store(`"1"`)
	s.status.Store(200)
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		w.Header().Set("ETag", s.etag.Load().(string))
		if r.Header.Get("If-None-Match") == s.etag.Load().(string) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.WriteHeader(int(s.status.Load()))
		_, _ = io.WriteString(w, s.body.Load().(string))
	}))
	t.Cleanup(s.Close)
	return s
}

func TestStarterBlocksWithNoNetworkAndIndexOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	sources := []Source{{Name: "starter", Text: []byte("||ads.example^  # a comment\n")}}
	first := start(t, Config{Dir: dir, Sources: sources})
	if got := blocked(first.next(), "www.ads.example", "example"); got != "www.ads.example by starter" {
		t.Errorf("blocked: %s", got)
	}
	first.stop()
	before, err := os.Stat(filepath.Join(dir, "index"))
	if err != nil {
		t.Fatal(err)
	}

	second := start(t, Config{Dir: dir, Sources: sources})
	if got := blocked(second.next(), "www.ads.example"); got != "www.ads.example by starter" {
		t.Errorf("after a restart, blocked: %s", got)
	}
	second.stop()
	after, err := os.Stat(filepath.Join(dir, "index"))
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) {
		t.Error("the index was written again though nothing changed")
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) != 1 {
		t.Errorf("left in the folder: %v", names)
	}
}

func TestDamagedIndexIsMadeAnew(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"empty":        func([]byte) []byte { return nil },
		"cut short":    func(b []byte) []byte { return b[:len(b)-9] },
		"a bit":        func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"newer":        func(b []byte) []byte { b[11]++; return b },
		"foreign":      func([]byte) []byte { return []byte(strings.Repeat("x", 5000)) },
		"twice itself": func(b []byte) []byte { return append(b, b...) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			sources := []Source{{Name: "starter", Text: []byte("||ads.example^\n")}}
			h := start(t, Config{Dir: dir, Sources: sources})
			h.next()
			h.stop()
			path := filepath.Join(dir, "index")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			again := start(t, Config{Dir: dir, Sources: sources})
			if got := blocked(again.next(), "ads.example"); got != "ads.example by starter" {
				t.Errorf("blocked: %s", got)
			}
		})
	}
}

func TestDownloadedListIsRefreshedKeptAndRefused(t *testing.T) {
	web := serve(t, "||one.example^\n||two.example^\n")
	dir := t.TempDir()
	var now atomic.Int64
	now.Store(time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC).Unix())
	h := start(t, Config{
		Dir: dir, Transport: web.Client().Transport, Interval: 20 * time.Millisecond,
		Now: func() time.Time { return time.Unix(now.Add(1), 0) },
		Sources: []Source{
			{Name: "starter", Text: []byte("starter.example\n")},
			{Name: "web", URL: web.URL},
		},
	})
	names := []dnsname.Name{"starter.example", "one.example", "three.example"}
	if got := blocked(h.next(), names...); got != "starter.example by starter" {
		t.Errorf("before any download, blocked: %s", got)
	}
	if got := blocked(h.next(), names...); got != "starter.example by starter, one.example by web" {
		t.Errorf("after the download, blocked: %s", got)
	}

	asked := web.asked.Load()
	eventually(t, "an unchanged list is asked for again", func() bool { return web.asked.Load() > asked+2 })
	if len(h.indexes) != 0 {
		t.Error("an unchanged list made a new index")
	}

	web.body.Store("<!DOCTYPE html><html>Please sign in to this hotel</html>")
	web.etag.Store(`"2"`)
	eventually(t, "a web page is refused", func() bool { return strings.Contains(h.Status()[1].LastError, "web page") })
	web.status.Store(503)
	eventually(t, "a failing server is named", func() bool { return strings.Contains(h.Status()[1].LastError, "503") })
	if st := h.Status()[1]; st.Rules != 2 || len(h.indexes) != 0 {
		t.Errorf("a refused list changed something: %+v", st)
	}

	web.status.Store(200)
	web.body.Store("||two.example^\n||three.example^\nno good line\n")
	if got := blocked(h.next(), names...); got != "starter.example by starter, three.example by web" {
		t.Errorf("after a new version, blocked: %s", got)
	}
	eventually(t, "the status shows the success", func() bool {
		st := h.Status()[1]
		return st.LastError == "" && st.Rejected == 1 && len(st.Rejects) == 1
	})
}

func TestListThatShrankIsNotBelieved(t *testing.T) {
	var long strings.Builder
	for i := range 100 {
		fmt.Fprintf(&long, "||n%d.example^\n", i)
	}
	web := serve(t, long.String())
	h := start(t, Config{
		Dir: t.TempDir(), Transport: web.Client().Transport, Interval: 20 * time.Millisecond,
		Sources: []Source{{Name: "web", URL: web.URL}},
	})
	h.next() // empty
	h.next()
	web.etag.Store(`"2"`)
	web.body.Store("||n1.example^\n")
	eventually(t, "it is refused", func() bool { return strings.Contains(h.Status()[0].LastError, "fewer rules") })
}

func TestReload(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "mine.txt"), []byte("good.ads.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	starter := Source{Name: "starter", Text: []byte("||ads.example^\n")}
	h := start(t, Config{Dir: t.TempDir(), FileRoot: root, Sources: []Source{starter}})
	h.next()
	err := h.Reload(t.Context(), []Source{starter, {Name: "mine", File: "mine.txt", Allow: true}})
	if err != nil {
		t.Fatal(err)
	}
	if got := blocked(h.next(), "ads.example", "good.ads.example"); got != "ads.example by starter" {
		t.Errorf("blocked: %s", got)
	}
	err = h.Reload(t.Context(), []Source{starter, {Name: "bad", File: "../mine.txt"}})
	if err == nil || len(h.Status()) != 2 {
		t.Errorf("a bad set: error %v, status %+v", err, h.Status())
	}
}

func TestReloadDoesNotWaitForASlowServer(t *testing.T) {
	asked, release := make(chan struct{}, 10), make(chan struct{})
	web := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-r.Context().Done():
		case <-release:
		}
	}))
	t.Cleanup(func() { close(release); web.Close() })
	h := start(t, Config{Dir: t.TempDir(), Transport: web.Client().Transport, Sources: []Source{{Name: "slow", URL: web.URL}}})
	h.next()
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := h.Reload(ctx, []Source{{Name: "slow", URL: web.URL}, {Name: "starter", Text: []byte("||ads.example^")}}); err != nil {
		t.Fatal(err)
	}
	if got := blocked(h.next(), "ads.example"); got != "ads.example by starter" {
		t.Errorf("blocked: %s", got)
	}
	<-asked // and the slow server is asked again
}

func TestFilesStayBelowTheirFolder(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(outside, "secret"), filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(root, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"link", "folder", "pipe", "missing"} {
		h := start(t, Config{Dir: t.TempDir(), FileRoot: root, Sources: []Source{{Name: "x", File: file}}})
		h.next()
		if st := h.Status()[0]; st.LastError == "" || st.Rules != 0 {
			t.Errorf("%s: %+v", file, st)
		}
		h.stop()
	}
	for _, file := range []string{"../x", "/proc/self/environ", "a/../../x"} {
		_, err := New(Config{Dir: t.TempDir(), FileRoot: root, OnIndex: func(*blocklist.Index) {}, Sources: []Source{{Name: "x", File: file}}})
		if err == nil {
			t.Errorf("%s is accepted", file)
		}
	}
}

func TestDownloadsNeverKnockAtTheHouse(t *testing.T) {
	web := serve(t, "||one.example^\n")
	h := start(t, Config{Dir: t.TempDir(), Sources: []Source{{Name: "web", URL: web.URL}}})
	h.next()
	eventually(t, "it is refused", func() bool { return strings.Contains(h.Status()[0].LastError, "address of the house") })
	if web.asked.Load() != 0 {
		t.Error("the server was asked")
	}
	house := func(a netip.Addr) bool { return a.String() == "203.0.113.7" || a.String() == "2001:db8::7" } // the router's own
	for _, a := range []string{
		"127.0.0.1:443", "10.1.2.3:443", "192.168.1.1:80", "[::1]:443", "[fe80::1%eth0]:443", "[fd00::1]:443",
		"169.254.1.1:443", "0.0.0.0:443", "[::ffff:10.0.0.1]:443", "100.64.0.1:443", "[64:ff9b::a00:1]:443", "[2002:c0a8:101::1]:443",
		"255.255.255.255:443", "203.0.113.7:443", "[2001:db8::7]:443", "nonsense",
		"0.1.2.3:443", "198.18.0.1:443", "192.0.0.8:443", "[64:ff9b::cb00:7107]:443", "[64:ff9b:1::1]:443", "[fec0::1]:443", "[2001:0:5ef5::1]:443",
	} {
		if refuseInside(a, house) == nil {
			t.Errorf("%s is let through", a)
		}
	}
	for _, a := range []string{"93.184.216.34:443", "[2606:2800:220:1::1]:443", "[64:ff9b::5db8:d822]:443"} { // the last is how a house without IPv4 gets to the first
		if err := refuseInside(a, house); err != nil {
			t.Error(err)
		}
	}
}

func TestOurOwnTransport(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "gzip" || r.Header.Get("User-Agent") != "netcurtain" {
			http.Error(w, "unexpected headers", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, "||packed.example^\n")
		_ = z.Close()
	}))
	t.Cleanup(web.Close)
	var sockets atomic.Int64
	h := start(t, Config{
		Dir: t.TempDir(), AllowPrivate: true, AllowHTTP: true, Sources: []Source{{Name: "web", URL: web.URL}},
		Control: func(string, string, syscall.RawConn) error { sockets.Add(1); return nil },
	})
	h.next()
	if got := blocked(h.next(), "packed.example"); got != "packed.example by web" {
		t.Errorf("blocked: %s", got)
	}
	if sockets.Load() == 0 {
		t.Error("a socket was opened without its mark")
	}
}

// A small download that unpacks to more than the cap.
func TestBombIsRefused(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, strings.Repeat("# a comment that says little\n", 100_000))
		_ = z.Close()
	}))
	t.Cleanup(web.Close)
	h := start(t, Config{
		Dir: t.TempDir(), AllowPrivate: true, AllowHTTP: true, Limits: blocklist.Limits{Bytes: 100_000},
		Sources: []Source{{Name: "web", URL: web.URL}},
	})
	h.next()
	eventually(t, "it is refused", func() bool { return strings.Contains(h.Status()[0].LastError, "over the cap") })
}

func TestRedirectsAreBoundedAndStaySecure(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "||http.example^\n")
	}))
	t.Cleanup(plain.Close)
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/down":
			http.Redirect(w, r, plain.URL, http.StatusFound)
		default:
			http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
		}
	}))
	t.Cleanup(web.Close)
	h := start(t, Config{Dir: t.TempDir(), Transport: web.Client().Transport, Sources: []Source{
		{Name: "down", URL: web.URL + "/down"}, {Name: "loop", URL: web.URL + "/loop"},
	}})
	h.next()
	eventually(t, "both are refused", func() bool {
		st := h.Status()
		return strings.Contains(st[0].LastError, "https is needed") && strings.Contains(st[1].LastError, "redirects")
	})
}

func TestNewRefusesBadSources(t *testing.T) {
	for _, s := range []Source{
		{},
		{Name: "nothing"},
		{Name: "two", Text: []byte("x"), URL: "https://x.example/"},
		{Name: "http", URL: "http://x.example/"},
		{Name: "ftp", URL: "ftp://x.example/"},
		{Name: "user", URL: "https://me:secret@x.example/"},
		{Name: "file", File: "x"},
	} {
		_, err := New(Config{Dir: t.TempDir(), OnIndex: func(*blocklist.Index) {}, Sources: []Source{s}})
		if err == nil {
			t.Errorf("%+v is accepted", s)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
}

// An old mapping must go when nobody reads it, and not a moment before: readers
// run through every swap, and would crash the process on a page that is gone.
func TestSwappingUnderReaders(t *testing.T) {
	var inForce atomic.Pointer[blocklist.Index]
	reg := prometheus.NewPedanticRegistry()
	l, err := New(Config{
		Dir: t.TempDir(), Registerer: reg,
		OnIndex: func(x *blocklist.Index) { inForce.Store(x) },
	})
	if err != nil {
		t.Fatal(err)
	}
	swap := func(i int) {
		var s strings.Builder
		for j := range 500 {
			fmt.Fprintf(&s, "||n%d.swap%d.example^\n", j, i%3)
		}
		l.sources = []Source{{Name: "swap", Text: []byte(s.String() + "||always.example^\n")}}
		if err := l.update(t.Context(), offline); err != nil {
			t.Fatal(err)
		}
	}
	swap(0)
	var names []dnsname.Name
	for i := range 300 {
		names = append(names, dnsname.Name(fmt.Sprintf("n%d.swap%d.example", i, i%3)))
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				x := inForce.Load()
				if m, ok := x.Match("a.always.example", 1); !ok || x.Rule(m) != "||always.example^" {
					t.Error("a name was not blocked during a swap")
					return
				}
				for _, n := range names {
					x.Match(n, 1)
				}
				runtime.Gosched()
			}
		})
	}
	for i := 1; i <= 40; i++ {
		swap(i)
	}
	// The mapping alone changes far more often than lists can.
	for i := range 10_000 {
		f, err := os.Open(filepath.Join(l.cfg.Dir, "index"))
		if err != nil {
			t.Fatal(err)
		}
		x, _, err := l.mapIndex(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		inForce.Store(x)
		l.index = x
		if i%200 == 0 {
			runtime.GC() // or there would be more mappings than descriptors
		}
	}
	close(stop)
	readers.Wait()
	eventually(t, "only the index in force is mapped", func() bool {
		runtime.GC()
		return gauge(t, reg, "netcurtain_lists_mapped_indexes") == 1
	})
}

// A mapped file that loses its pages is a SIGBUS for whoever reads it: here by
// truncation, in a house by flash that wears out.
func TestLostPagesDoNotEndTheProcess(t *testing.T) {
	var long strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&long, "||n%d.lost.example^\n", i)
	}
	dir := t.TempDir()
	h := start(t, Config{Dir: dir, Sources: []Source{{Name: "starter", Text: []byte(long.String())}}})
	x := h.next()
	if got := blocked(x, "n7.lost.example"); got == "" {
		t.Fatal("nothing is blocked to begin with")
	}
	if err := os.Truncate(filepath.Join(dir, "index"), 0); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if m, ok := x.Match(dnsname.Name(fmt.Sprintf("n%d.lost.example", i)), 1); ok {
			t.Fatalf("a rule was read from nowhere: %+v", m)
		}
	}
	if !x.Damaged() {
		t.Error("the index does not know that it is damaged")
	}
	if got := blocked(h.next(), "n7.lost.example"); got != "n7.lost.example by starter" {
		t.Errorf("after making it anew, blocked: %q", got)
	}
}

// Flash without room: the index lies in the volatile folder, and then all of it
// counts as memory; once there is room again, it lies on flash.
func TestIndexWithoutRoomOnFlash(t *testing.T) {
	flash, volatile := t.TempDir(), t.TempDir()
	for dir, size := range map[string]string{flash: "size=64k", volatile: "size=16m"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, size); err != nil {
			t.Skipf("SKIPPED: mounting a small file system needs root: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
	var long strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&long, "||n%d.room.example^\n", i)
	}
	reg := prometheus.NewRegistry()
	c := Config{Dir: flash, Scratch: volatile, Registerer: reg, Sources: []Source{{Name: "long", Text: []byte(long.String())}}}
	h := start(t, c)
	if got := blocked(h.next(), "n7.room.example"); got != "n7.room.example by long" {
		t.Errorf("without room, blocked: %q", got)
	}
	if all, resident := gauge(t, reg, "netcurtain_lists_index_bytes"), gauge(t, reg, "netcurtain_lists_index_resident_bytes"); all != resident || all < 64<<10 {
		t.Errorf("%v octets, of which %v count as memory", all, resident)
	}
	h.stop()
	c.Registerer = nil
	h = start(t, c)
	if got := blocked(h.next(), "n7.room.example"); got != "n7.room.example by long" {
		t.Errorf("at the next start, blocked: %q", got)
	}
	c.Sources[0].Text = []byte("||short.room.example^\n")
	if err := h.Reload(t.Context(), []Source{{Name: "long", Text: []byte("||short.room.example^\n")}}); err != nil {
		t.Fatal(err)
	}
	if got := blocked(h.next(), "short.room.example"); got != "short.room.example by long" {
		t.Errorf("with room again, blocked: %q", got)
	}
	for dir, want := range map[string]bool{flash: true, volatile: false} {
		if _, err := os.Stat(filepath.Join(dir, "index")); (err == nil) != want {
			t.Errorf("in %s: %v", dir, err)
		}
	}
}

func gauge(t *testing.T, reg prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}
