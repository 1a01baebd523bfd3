package lists

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy/blocklist"
)

func many(n int) string {
	var s strings.Builder
	for i := range n {
		fmt.Fprintf(&s, "||n%d.example^\n", i)
	}
	return s.String()
}

// What is no list, or too much of one, is refused with its reason; the old one stays,
// and the next good one is taken.
func TestWhatIsNoListIsRefusedAndTheOldOneStays(t *testing.T) {
	for name, c := range map[string]struct{ body, why string }{
		"a web page":              {"<!DOCTYPE html><html><body>Please sign in</body></html>", "it is a web page, not a list"},
		"a page in lower case":    {"\n\n<html><head></head>", "it is a web page, not a list"},
		"nothing":                 {"", "it holds no rule"},
		"only comments":           {"# nothing here\n! and nothing here\n", "it holds no rule"},
		"only what is no rule":    {"this is a poem\nand not a list\n", "it holds no rule"},
		"an archive":              {"PK\x03\x04\x00\x00\x00\x00", "it is not text"},
		"UTF-16":                  {"\xff\xfe|\x00|\x00x\x00", "save it as UTF-8"},
		"octets behind good ones": {many(90) + "\x00\x01\x02\n", "it is not text"},
		"over the cap of octets":  {many(90) + strings.Repeat("# padding\n", 5000), "it is over the cap"},
		"over the cap of rules":   {many(201), "it is over the cap"},
		"half of it is gone":      {many(49), "it has far fewer rules than before"},
	} {
		t.Run(name, func(t *testing.T) {
			web := serve(t, many(100))
			dir := t.TempDir()
			cfg := Config{
				Dir: dir, Transport: web.Client().Transport, Interval: time.Hour, Limits: blocklist.Limits{Bytes: 20_000, Rules: 200},
				Sources: []Source{{Name: "web", URL: web.URL}},
			}
			h := start(t, cfg)
			h.next() // empty
			if got := blocked(h.next(), "n99.example"); got != "n99.example by web" {
				t.Fatalf("blocked: %q", got)
			}
			good := h.Status()[0]
			web.body.Store(c.body)
			web.etag.Store(`"2"`)
			h.Refresh("web")
			eventually(t, "it is refused", func() bool { return strings.Contains(h.Status()[0].LastError, c.why) })
			st := h.Status()[0]
			if st.Rules != good.Rules || !st.LastSuccess.Equal(good.LastSuccess) || st.LastFailure.IsZero() || len(h.indexes) != 0 {
				t.Errorf("a refused list changed something: %+v", st)
			}

			// Over a restart, too.
			h.stop()
			cfg.Kept = map[string]State{"web": st.State}
			h = start(t, cfg)
			if got := blocked(h.next(), "n99.example"); got != "n99.example by web" {
				t.Errorf("after a restart, blocked: %q", got)
			}
			if again := h.Status()[0]; again.LastError != st.LastError {
				t.Errorf("after a restart the error is %q", again.LastError)
			}
			web.body.Store(many(60))
			h.Refresh()
			if got := blocked(h.next(), "n99.example", "n59.example"); got != "n59.example by web" {
				t.Errorf("after a good one came, blocked: %q", got)
			}
			eventually(t, "the error is gone", func() bool { st := h.Status()[0]; return st.LastError == "" && st.LastFailure.IsZero() })
		})
	}
}

// A list that stays small is believed in the end.
func TestSmallListIsBelievedInTheEnd(t *testing.T) {
	web := serve(t, many(100))
	var days atomic.Int64
	h := start(t, Config{
		Dir: t.TempDir(), Transport: web.Client().Transport, Interval: time.Hour, Sources: []Source{{Name: "web", URL: web.URL}},
		Now: func() time.Time { return time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC).AddDate(0, 0, int(days.Load())) },
	})
	h.next()
	h.next()
	web.body.Store(many(10))
	web.etag.Store(`"2"`)
	h.Refresh()
	eventually(t, "it is refused", func() bool { return strings.Contains(h.Status()[0].LastError, "fewer rules") })
	days.Store(15)
	h.Refresh()
	if got := blocked(h.next(), "n99.example", "n9.example"); got != "n9.example by web" {
		t.Errorf("blocked: %q", got)
	}
}

// A server that says nothing any more, and one that says too much at once.
func TestSilenceEndsADownload(t *testing.T) {
	release := make(chan struct{})
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/announced" {
			w.Header().Set("Content-Length", "99999999999")
			return
		}
		_, _ = io.WriteString(w, "||one.example^\n")
		w.(http.Flusher).Flush()
		<-release
	}))
	t.Cleanup(func() { close(release); web.Close() })
	h := start(t, Config{
		Dir: t.TempDir(), Transport: web.Client().Transport, Timeout: 100 * time.Millisecond,
		Sources: []Source{{Name: "silent", URL: web.URL}, {Name: "announced", URL: web.URL + "/announced"}},
	})
	h.next()
	eventually(t, "both are given up", func() bool {
		st := h.Status()
		return strings.Contains(st[0].LastError, "after 15 octets nothing came for 100ms") && strings.Contains(st[1].LastError, "99999999999 octets are announced")
	})
}

// Whoever asks again asks later each time, and nobody asks at the same moment as all others.
func TestWhenAListIsAskedForAgain(t *testing.T) {
	web := serve(t, many(3))
	web.status.Store(503)
	begin := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	var minutes atomic.Int64
	h := start(t, Config{
		Dir: t.TempDir(), Transport: web.Client().Transport, Sources: []Source{{Name: "web", URL: web.URL}}, Rand: func() float64 { return 0.5 },
		Now: func() time.Time { return begin.Add(time.Duration(minutes.Load()) * time.Minute) },
	})
	h.next()
	for _, want := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute} {
		eventually(t, "the next try is put off by "+want.String(), func() bool {
			st := h.Status()[0]
			return st.LastError != "" && st.Next.Sub(begin.Add(time.Duration(minutes.Load())*time.Minute)) == want
		})
		h.Refresh()
	}
	web.status.Store(200)
	h.Refresh()
	h.next()
	eventually(t, "it is asked for a day later", func() bool { return h.Status()[0].Next.Equal(begin.Add(24 * time.Hour)) })
	if st := h.Status()[0]; !st.LastSuccess.Equal(begin) {
		t.Errorf("%+v", st)
	}
	for _, r := range []float64{0, 0.999} {
		l := &Lists{cfg: Config{Rand: func() float64 { return r }}}
		if d := l.spread(24 * time.Hour); d < 21*time.Hour || d > 27*time.Hour {
			t.Errorf("spread to %s", d)
		}
	}
}

// A restart within a list's day asks nobody; what was not understood is still told.
func TestStateOutlivesARestart(t *testing.T) {
	web := serve(t, many(3)+"no good line\n")
	dir := t.TempDir()
	cfg := Config{Dir: dir, Transport: web.Client().Transport, Sources: []Source{{Name: "web", URL: web.URL}}}
	h := start(t, cfg)
	h.next()
	h.next()
	eventually(t, "it is had", func() bool { return !h.Status()[0].LastSuccess.IsZero() })
	before := h.Status()[0]
	h.stop()
	asked := web.asked.Load()
	cfg.Kept = map[string]State{"web": before.State}
	h = start(t, cfg)
	h.next()
	eventually(t, "it is planned", func() bool { return !h.Status()[0].Next.IsZero() })
	st := h.Status()[0]
	if !st.LastSuccess.Equal(before.LastSuccess) || st.Rejected != 1 || len(st.Rejects) != 1 || st.Rejects[0].String() != before.Rejects[0].String() || st.Unique != 3 {
		t.Errorf("\nbefore %+v\nafter  %+v", before, st)
	}
	if web.asked.Load() != asked {
		t.Error("the server was asked again")
	}
}

// What is disabled stays and is not asked for; what was never had stays away.
func TestDisabledListsAreKeptAndNotAskedFor(t *testing.T) {
	web := serve(t, many(3))
	on := []Source{{Name: "web", URL: web.URL}, {Name: "never", URL: web.URL + "/never", Disabled: true}}
	h := start(t, Config{Dir: t.TempDir(), Transport: web.Client().Transport, Interval: 20 * time.Millisecond, Sources: on})
	h.next()
	h.next()
	off := []Source{{Name: "web", URL: web.URL, Disabled: true}, on[1]}
	if err := h.Reload(t.Context(), off); err != nil {
		t.Fatal(err)
	}
	asked := web.asked.Load()
	time.Sleep(100 * time.Millisecond)
	if web.asked.Load() != asked {
		t.Error("a disabled list is asked for")
	}
	if st := h.Status(); st[0].Rules != 3 || !st[1].Pending || len(h.indexes) != 0 {
		t.Errorf("%+v", st)
	}
}

// Each request is told of, those of redirects too.
func TestEveryRequestIsToldOf(t *testing.T) {
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			http.Redirect(w, r, "/there", http.StatusFound)
			return
		}
		_, _ = io.WriteString(w, "||one.example^\n")
	}))
	t.Cleanup(web.Close)
	told := make(chan Fetch, 10)
	h := start(t, Config{
		Dir: t.TempDir(), Transport: web.Client().Transport, Sources: []Source{{Name: "web", URL: web.URL}},
		OnFetch: func(f Fetch) { told <- f },
	})
	h.next()
	h.next()
	var bytes int64
	for range 2 {
		f := <-told
		if f.List != "web" || f.Host != "127.0.0.1" || f.At.IsZero() {
			t.Errorf("told of %+v", f)
		}
		bytes += f.Bytes
	}
	if bytes < 15 || len(told) != 0 {
		t.Errorf("%d octets in 2 requests, and %d more", bytes, len(told))
	}
}

func TestTry(t *testing.T) {
	web := serve(t, "||ads.example^\nno good line\n0.0.0.0 tracker.example\n127.0.0.1 localhost\n")
	dir := t.TempDir()
	h := start(t, Config{Dir: dir, Transport: web.Client().Transport, Sources: []Source{{Name: "starter", Text: []byte("||x.example^\n")}}})
	h.next()
	got, err := h.Try(t.Context(), Source{URL: web.URL}, []dnsname.Name{"www.ads.example", "tracker.example", "www.example", "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	if got.Rules != 3 || got.Rejected != 1 || len(got.Covers) != 2 || got.Covers["www.ads.example"] != "||ads.example^" {
		t.Errorf("%+v", got)
	}
	if len(h.indexes) != 0 || len(h.Status()) != 1 {
		t.Error("trying a list added it")
	}
	web.body.Store("<html>")
	web.etag.Store(`"2"`)
	if _, err := h.Try(t.Context(), Source{URL: web.URL}, nil); err == nil || !strings.Contains(err.Error(), "web page") {
		t.Errorf("error %v", err)
	}
	if _, err := h.Try(t.Context(), Source{URL: "http://plain.example/"}, nil); err == nil {
		t.Error("http is let through")
	}
}
