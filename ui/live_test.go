package ui_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/ui"
	"github.com/netcurtain/netcurtain/ui/api"
)

// pipes is a listener whose connections are pipes in memory, on which the fake
// clock of synctest runs deadlines too.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p pipes) Close() error   { close(p.done); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// liveHouse serves h in a bubble and returns what opens a connection to it.
func liveHouse(t *testing.T, h *house) (dial func() net.Conn, live *journal.Recorder) {
	s, live := newLiveServer(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	srv := ui.HTTPServer(ctx, s.TCP(), nil)
	l := pipes{make(chan net.Conn), make(chan struct{})}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = srv.Serve(l) }()
	t.Cleanup(func() { cancel(); _ = srv.Close(); <-ended })
	return func() net.Conn {
		client, server := net.Pipe()
		t.Cleanup(func() { _ = client.Close() })
		l.conns <- server
		return client
	}, live
}

// follow asks for the live feed and returns the lines of its body.
func follow(t *testing.T, c net.Conn, query string) *bufio.Scanner {
	t.Helper()
	if _, err := c.Write([]byte("GET /api/v1/live" + query + " HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("status %d, type %q", res.StatusCode, res.Header.Get("Content-Type"))
	}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() && lines.Text() != "" { // the greeting
	}
	return lines
}

// next is the next event of a feed.
func next(t *testing.T, lines *bufio.Scanner) (what string, e api.Live) {
	t.Helper()
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch key {
		case "event":
			what = value
		case "data":
			if err := json.Unmarshal([]byte(value), &e); err != nil {
				t.Fatal(err)
			}
			return what, e
		}
	}
	t.Fatalf("the feed ended: %v", lines.Err())
	return "", e
}

// secret is a word that stands in everything that tells where a device went.
const secret = "secret.example"

func everything(device devices.ID, level devices.LogLevel) []journal.Entry {
	verdict := policy.Verdict{Action: policy.Block, Reason: policy.ReasonList, Rule: secret, List: "starter"}
	to := atlas.Destination{Organisation: secret, Purpose: atlas.PurposeAds, Country: "US"}
	return []journal.Entry{
		{At: noon, Device: device, Log: level, Lookup: &journal.Lookup{Name: secret, Type: 65, Verdict: verdict, Destination: to}},
		{At: noon, Device: device, Log: level, Flow: &journal.Flow{
			Flow:        flow.Flow{Name: secret, Counters: flow.Counters{Orig: flow.Count{Bytes: 7}, Reply: flow.Count{Bytes: 9}}},
			Seen:        dissect.Result{App: "http", ServerName: secret, Protection: flow.Readable, Reason: "HTTP to " + secret, Path: "GET /" + secret},
			Destination: to, Verdict: verdict,
		}},
		{At: noon, Device: device, Log: level, Event: &journal.Event{Kind: journal.EventFirstContact, Text: "first contact with " + secret}},
	}
}

func TestLiveObeysLogLevels(t *testing.T) {
	h := family()
	tv, phone := h.devices[0].ID, h.devices[5].ID
	for name, c := range map[string]struct {
		device      devices.ID
		then, now   devices.LogLevel
		shown, told bool
	}{
		"names":                     {tv, devices.LogNames, devices.LogNames, true, true},
		"counts":                    {phone, devices.LogCounts, devices.LogCounts, true, false},
		"none":                      {tv, devices.LogNone, devices.LogNone, false, false},
		"turned down meanwhile":     {tv, devices.LogNames, devices.LogCounts, true, false},
		"turned off meanwhile":      {tv, devices.LogNames, devices.LogNone, false, false},
		"turned up meanwhile":       {tv, devices.LogCounts, devices.LogNames, true, false},
		"a device nobody knows yet": {"00:00:5e:10:00:ee", devices.LogCounts, devices.LogCounts, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := family()
				_ = h.SetLog(t.Context(), c.device, c.now)
				dial, live := liveHouse(t, h)
				lines := follow(t, dial(), "")
				for _, e := range everything(c.device, c.then) {
					live.Record(e)
				}
				live.Record(journal.Entry{At: noon, Event: &journal.Event{Kind: journal.EventHealth, Text: "the end"}})
				got := 0
				for {
					what, e := next(t, lines)
					if e.Text == "the end" {
						break
					}
					got++
					raw, _ := json.Marshal(e)
					if told := strings.Contains(string(raw), secret); told != c.told {
						t.Errorf("%s: %s", what, raw)
					}
					if what != e.What || e.Device != string(c.device) || what == "flow" && (e.BytesOut != 7 || e.BytesIn != 9 || e.Protection != "readable") {
						t.Errorf("%s: %s", what, raw)
					}
				}
				if want := map[bool]int{true: 3}[c.shown]; got != want {
					t.Errorf("%d entries were shown, want %d", got, want)
				}
			})
		})
	}
}

func TestLiveOneDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := family()
		dial, live := liveHouse(t, h)
		lines := follow(t, dial(), "?device=plug")
		for _, d := range []devices.ID{h.devices[0].ID, h.devices[4].ID} {
			live.Record(everything(d, devices.LogNames)[0])
		}
		what, got := next(t, lines)
		want := api.Live{At: noon, What: "lookup", Device: string(h.devices[4].ID), DeviceName: "Plug", Log: "names", Name: secret, Organisation: secret,
			Purpose: "ads", Country: "US", Type: "HTTPS", Verdict: "block", Reason: "list", Rule: secret, List: "starter"}
		if diff := cmp.Diff(want, got); diff != "" || what != "lookup" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	})
}

// TestLiveHeartbeat: a feed on which nothing happens says every 15 seconds
// that it is there, for longer than the server's own write timeout.
func TestLiveHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, _ := liveHouse(t, family())
		lines := follow(t, dial(), "")
		begin := time.Now()
		for range 20 {
			if !lines.Scan() {
				t.Fatalf("the feed ended after %s: %v", time.Since(begin), lines.Err())
			}
			if !strings.HasPrefix(lines.Text(), ":") {
				t.Fatalf("the feed said %q", lines.Text())
			}
			lines.Scan()
		}
		if took := time.Since(begin); took != 300*time.Second {
			t.Errorf("20 heartbeats took %s", took)
		}
	})
}

// TestLiveIsBounded: the ninth reader is sent away, and a reader that stops
// reading is let go, so that its place is free again.
func TestLiveIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := family()
		dial, live := liveHouse(t, h)
		for range 8 {
			follow(t, dial(), "") // and never reads again
		}
		ask := func() int {
			c := dial()
			defer c.Close()
			_, _ = c.Write([]byte("GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			return res.StatusCode
		}
		if got := ask(); got != http.StatusServiceUnavailable {
			t.Errorf("the ninth reader got %d", got)
		}
		live.Record(everything(h.devices[0].ID, devices.LogNames)[0])
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if got := ask(); got != http.StatusOK {
			t.Errorf("after the slow ones were let go, a reader got %d", got)
		}
	})
}

func TestLiveRefusals(t *testing.T) {
	s := newServer(t, family())
	if w := ask(s.TCP(), "GET", "/api/v1/live?device=nobody", "", ""); w.Code != http.StatusNotFound {
		t.Errorf("status %d", w.Code)
	}
	// A reader behind a buffer that cannot flush is told nothing and let go.
	type plain struct{ http.ResponseWriter }
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := httptest.NewRequest("GET", "/api/v1/live", nil)
		r.Host = "localhost"
		s.TCP().ServeHTTP(plain{httptest.NewRecorder()}, r)
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Error("the feed hangs on a writer that cannot flush")
	}
}
