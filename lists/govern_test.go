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
)

// sized serves lists of any length: /5000/tag has 5000 rules below tag.example.
func sized(t *testing.T) *httptest.Server {
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n int
		var tag string
		if _, err := fmt.Sscanf(r.URL.Path, "/%d/%s", &n, &tag); err != nil {
			http.NotFound(w, r)
			return
		}
		var s strings.Builder
		for i := range n {
			fmt.Fprintf(&s, "||n%d.%s.example^\n", i, tag)
		}
		_, _ = io.WriteString(w, s.String())
	}))
	t.Cleanup(web.Close)
	return web
}

// roomFor is a box with room for n rules.
func roomFor(n int) *Room {
	return &Room{Memory: compiling + int64(n)*perRule, Flash: 1 << 40}
}

// has says which of the tags an index blocks.
func (h *house) has(tags ...string) string {
	var out []string
	for _, tag := range tags {
		if x := h.newest.Load(); x != nil && blocked(x, dnsname.Name("n0."+tag+".example")) != "" {
			out = append(out, tag)
		}
	}
	return strings.Join(out, " ")
}

func TestGovernor(t *testing.T) {
	web := sized(t)
	starter := Source{Name: "starter", Text: []byte("||n0.starter.example^\n")}
	known := func(name string, n int, smaller ...Smaller) Source {
		return Source{Name: name, URL: fmt.Sprintf("%s/%d/%s", web.URL, n, name), Rules: n, Smaller: smaller}
	}
	smaller := func(name string, n int) Smaller {
		return Smaller{Name: name, URL: fmt.Sprintf("%s/%d/%s", web.URL, n, name), Rules: n}
	}
	unknown := known("unknown", 5000)
	unknown.Rules = 0
	wrong := known("wrong", 5000, smaller("right", 100)) // its maker says 200
	wrong.Rules = 200

	for name, c := range map[string]struct {
		sources []Source
		room    int
		want    string // what is blocked
		says    string // of the first list but the starter
	}{
		"all fits":                     {[]Source{starter, known("big", 3000), known("little", 100)}, 10_000, "starter big little", ""},
		"the largest is off":           {[]Source{starter, known("big", 3000), known("little", 100)}, 1000, "starter little", "it is off: this box has room for about 1000 rules in all, and this list has about 3000"},
		"a smaller one stands in":      {[]Source{starter, known("big", 3000, smaller("small", 500)), known("little", 100)}, 1000, "starter small little", "small stands in for it"},
		"the smallest of three":        {[]Source{starter, known("big", 3000, smaller("medium", 2000), smaller("small", 500))}, 1000, "starter small", "small stands in for it"},
		"none of them":                 {[]Source{starter, known("big", 3000, smaller("small", 500))}, 300, "starter", "it is off"},
		"one that nobody knew is off":  {[]Source{starter, unknown, known("little", 100)}, 1000, "starter little", "it is off: this box has room for about 1000 rules in all, and this list has more"},
		"one that is larger than said": {[]Source{starter, wrong, known("little", 100)}, 1000, "starter right little", "right stands in for it"},
		"no room for anything":         {[]Source{starter, known("big", 3000)}, 0, "starter", "it is off"},
	} {
		t.Run(name, func(t *testing.T) {
			h := start(t, Config{
				Dir: t.TempDir(), Transport: web.Client().Transport, Sources: c.sources,
				Room: func() *Room { return roomFor(c.room) },
			})
			eventually(t, c.want, func() bool {
				for _, s := range h.Status() {
					if s.Doing != "" {
						return false
					}
				}
				return h.has("starter", "big", "medium", "small", "right", "unknown", "wrong", "little") == c.want
			})
			// Never half a list: what is in force of one is all of it.
			if x := h.newest.Load(); x != nil {
				for _, info := range x.Lists() {
					if info.Rules != 0 && info.Rules != 1 && info.Rules != 100 && info.Rules != 500 && info.Rules != 2000 && info.Rules != 3000 {
						t.Errorf("half a list: %s has %d rules", info.Name, info.Rules)
					}
				}
			}
			eventually(t, c.says, func() bool {
				got := h.Status()[1].Unfit
				return c.says == "" && got == "" || c.says != "" && strings.Contains(got, c.says)
			})
		})
	}
}

// What is in force when we start stays, though there would be no room to make it anew:
// mapped, it costs next to nothing.
func TestGovernorKeepsWhatIsInForce(t *testing.T) {
	web := sized(t)
	dir := t.TempDir()
	cfg := Config{Dir: dir, Transport: web.Client().Transport, Sources: []Source{
		{Name: "starter", Text: []byte("# its lines are not all rules\n||n0.starter.example^\n")}, {Name: "big", URL: web.URL + "/3000/big", Rules: 3000},
		{Name: "other", URL: web.URL + "/9000/other", Rules: 9000, Smaller: []Smaller{{Name: "small", URL: web.URL + "/100/small", Rules: 100}}},
	}}
	cfg.Room = func() *Room { return roomFor(5000) }
	h := start(t, cfg)
	eventually(t, "all is had", func() bool { return h.has("starter", "big", "small") == "starter big small" })
	h.stop()
	cfg.Room = func() *Room { return roomFor(0) }
	h = start(t, cfg)
	h.next()
	eventually(t, "it is planned", func() bool { return !h.Status()[1].Next.IsZero() })
	if got := h.has("starter", "big", "small"); got != "starter big small" {
		t.Errorf("in force is %q", got)
	}
	if st := h.Status()[2]; st.Using != "small" {
		t.Errorf("%+v", st)
	}
}

// Memory that comes and goes moves no lists: one that is in force stays while it
// costs next to nothing, and one that is off comes back when there is a good deal of room.
func TestGovernorIsCalm(t *testing.T) {
	web := sized(t)
	var room atomic.Int64
	room.Store(10_000)
	h := start(t, Config{
		Dir: t.TempDir(), Transport: web.Client().Transport, Interval: 20 * time.Millisecond,
		Room:    func() *Room { return roomFor(int(room.Load())) },
		Sources: []Source{{Name: "starter", Text: []byte("||n0.starter.example^\n")}, {Name: "big", URL: web.URL + "/3000/big", Rules: 3000}},
	})
	eventually(t, "it is had", func() bool { return h.has("big") == "big" })
	room.Store(100) // another program takes the memory
	eventually(t, "it is asked for again, in vain", func() bool { return strings.Contains(h.Status()[1].LastError, "too little memory is free") })
	if got := h.has("starter", "big"); got != "starter big" {
		t.Errorf("while memory is short, in force is %q", got)
	}
	// The starter list changes, which needs an index made anew, for which there is no
	// room: then the largest one goes.
	err := h.Reload(t.Context(), []Source{{Name: "starter", Text: []byte("||n0.other.example^\n")}, {Name: "big", URL: web.URL + "/3000/big", Rules: 3000}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the starter list comes, the big one goes", func() bool { return h.has("other", "big") == "other" })
	room.Store(3300)
	time.Sleep(100 * time.Millisecond)
	if h.has("big") != "" {
		t.Error("it came back though it hardly fits")
	}
	room.Store(10_000)
	eventually(t, "it comes back", func() bool { return h.has("other", "big") == "other big" })
}
