package ui_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/journal"
)

// browser starts a real Chromium. Without one the test is skipped loudly, or
// fails when NETCURTAIN_NEED_BROWSER is set.
func browser(t *testing.T) context.Context {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		if os.Getenv("NETCURTAIN_NEED_BROWSER") != "" {
			t.Fatal("NETCURTAIN_NEED_BROWSER is set and there is no Chromium: apt-get install --no-install-recommends chromium")
		}
		t.Skip("SKIPPED: no Chromium: the pages were not seen by a real browser")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-gpu", true),
		chromedp.WSURLReadTimeout(2*time.Minute)) // on a busy machine a browser takes long to start
	if os.Geteuid() == 0 {
		opts = append(opts, chromedp.NoSandbox)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, opts...)
	t.Cleanup(cancelAllocator)
	ctx, cancelBrowser := chromedp.NewContext(ctx)
	t.Cleanup(cancelBrowser)
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank")); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return ctx
}

// complaints collects what the browser itself finds wrong: errors on the
// console, exceptions, violations of the content security policy.
type complaints struct {
	mu   sync.Mutex
	list []string
}

func (c *complaints) listen(t *testing.T, ctx context.Context) {
	t.Helper()
	err := chromedp.Listen(ctx, func(ev any) {
		var text string
		switch ev := ev.(type) {
		case *cdplog.EventEntryAdded:
			if ev.Entry.Level == "error" || ev.Entry.Level == "warning" {
				text = ev.Entry.Text + " " + ev.Entry.URL
			}
		case *runtime.EventConsoleAPICalled:
			if ev.Type == "error" || ev.Type == "warning" {
				text = fmt.Sprintf("console.%s", ev.Type)
				for _, arg := range ev.Args {
					text += " " + string(arg.Value)
				}
			}
		case *runtime.EventExceptionThrown:
			text = ev.ExceptionDetails.Text
		}
		if text != "" {
			c.mu.Lock()
			c.list = append(c.list, text)
			c.mu.Unlock()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (c *complaints) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.list
	c.list = nil
	return list
}

// textWith waits until the element at the selector contains want, and returns
// its text. The page looks the element up and reads it in one step: a node
// that chromedp found itself may be replaced before it is read.
func textWith(t *testing.T, ctx context.Context, selector, want string) string {
	t.Helper()
	read := chromedp.Evaluate[string](fmt.Sprintf(`document.querySelector(%q)?.textContent ?? ""`, selector))
	deadline := time.Now().Add(time.Minute)
	for {
		text, err := chromedp.Run(ctx, read)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(text, want) {
			return text
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not show %q within a minute: %.400q", selector, want, text)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// again does something every tenth of a second until the test ends: the browser may
// subscribe a moment later.
func again(t *testing.T, do func()) {
	ended := make(chan struct{})
	stopped := make(chan struct{})
	t.Cleanup(func() { close(ended); <-stopped })
	go func() {
		defer close(stopped)
		for {
			select {
			case <-ended:
				return
			case <-time.After(100 * time.Millisecond):
				do()
			}
		}
	}()
}

const tvPage = "/devices/00:00:5e:10:00:14"

// contrast is asked of the browser: the pairs of text and ground that are
// fainter than WCAG 2.2 AA allows (4.5:1, large text 3:1).
const contrast = `(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const rgba = (css) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => { const f = (v) => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255, 255]; };
  const faint = new Set();
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility({visibilityProperty: true}) || e.closest(".hidden, .skip, option")) continue;
    const style = getComputedStyle(e), a = light(rgba(style.color)), b = light(ground(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) faint.add(e.tagName + "." + e.className + " " + ratio.toFixed(2));
  }
  return [...faint];
})()`

// names are what a reader of the screen needs and does not find.
// cramped is asked of the browser: the short words that a column without room
// broke in the middle.
const cramped = `(() => {
  const broken = new Set(), text = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), range = document.createRange();
  while (text.nextNode()) for (const word of text.currentNode.data.matchAll(/(?<!\S)[\p{L}\d:.,]{2,12}(?!\S)/gu)) {
    if ( !text.currentNode.parentElement.checkVisibility() || text.currentNode.parentElement.closest(".hidden, thead")) continue;
    range.setStart(text.currentNode, word.index);
    range.setEnd(text.currentNode, word.index + word[0].length);
    if (new Set([...range.getClientRects()].map((r) => Math.round(r.top))).size > 1) broken.add(word[0]);
  }
  return [...broken];
})()`

const unnamed = `[...document.querySelectorAll("a, button, input:not([type=hidden]), select, img")].filter((e) =>
  e.tagName === "IMG" ? e.alt === null : e.matches("input, select") ? !e.labels.length : !e.textContent.trim()).map((e) => e.outerHTML)`

// TestPagesInBrowser looks at every page as a person would: narrow and wide,
// light and dark.
func TestPagesInBrowser(t *testing.T) {
	ctx := browser(t)
	var wrong complaints
	wrong.listen(t, ctx)
	for name, h := range map[string]*house{"family": family(), "hostile": hostile(), "empty": {on: true}, "fifty": crowd(50)} {
		srv := httptest.NewServer(newServer(t, h).TCP())
		defer srv.CloseClientConnections()
		paths := []string{"/", "/log", "/log?what=flows", "/rules", "/lists", "/events"}
		if len(h.lists) > 0 {
			paths = append(paths, "/lists/"+url.PathEscape(h.lists[0].Name))
		}
		if name == "family" { // on the others only devices speak differently
			paths = append(paths, "/live", "/health", "/about", "/lists/ads", "/why?name=ads.doubleclick.net&device=Plug", "/nowhere")
		}
		if len(h.devices) > 0 {
			paths = append(paths, "/devices/"+string(h.devices[0].ID))
		}
		for _, width := range []int64{360, 820, 1280} { // a telephone, a tablet, a desk
			for _, scheme := range []string{"light", "dark"} {
				if name != "family" && (scheme == "dark" || width == 820) {
					continue // colours do not depend on who lives here
				}
				if scheme == "dark" && width == 820 {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d/%s", name, width, scheme), func(t *testing.T) {
					look(t, ctx, &wrong, srv.URL, paths, name, width, scheme)
				})
			}
		}
	}
}

func look(t *testing.T, ctx context.Context, wrong *complaints, base string, paths []string, house string, width int64, scheme string) {
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	}); err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		wrong.take()
		if err := chromedp.Do(ctx, chromedp.EmulateViewport(width, 900), chromedp.Navigate(base+path)); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		over, err := chromedp.Run(ctx, chromedp.Evaluate[int](`document.documentElement.scrollWidth - innerWidth`))
		if err != nil || over > 0 {
			t.Errorf("%s is %d px wider than the screen (%v)", path, over, err)
		}
		if faint, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](contrast)); err != nil || len(faint) > 0 {
			t.Errorf("%s: too faint to read: %v (%v)", path, faint, err)
		}
		if narrow, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](cramped)); err != nil || len(narrow) > 0 {
			t.Errorf("%s: words broken in the middle: %.300v (%v)", path, narrow, err)
		}
		if missing, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](unnamed)); err != nil || len(missing) > 0 {
			t.Errorf("%s: without a name: %.300v (%v)", path, missing, err)
		}
		for _, text := range wrong.take() {
			if path == "/nowhere" && strings.Contains(text, "404") {
				continue
			}
			t.Errorf("%s: the browser complains: %s", path, text)
		}
		if dir := os.Getenv("NETCURTAIN_SHOTS"); dir != "" { // for a person who wants to see what was tested
			png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
			if err != nil {
				t.Fatal(err)
			}
			name := strings.NewReplacer("/", "_", "?", "_", ":", "").Replace(fmt.Sprintf("%s_%d_%s%s.png", house, width, scheme, path))
			if err := os.WriteFile(filepath.Join(dir, name), png, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestAllowFor15MinutesInBrowser(t *testing.T) {
	ctx := browser(t)
	h := family()
	srv := httptest.NewServer(newServer(t, h).TCP())
	defer srv.CloseClientConnections()
	err := chromedp.Do(ctx, chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile), chromedp.Navigate(srv.URL+tvPage))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Run(ctx, chromedp.WaitEvent(page.LoadEventFired, nil, chromedp.Click(".allow15"))); err != nil {
		t.Fatal(err)
	}
	said, err := chromedp.Run(ctx, chromedp.TextContent(".said"))
	if err != nil || !strings.Contains(said, "Allowed for 15 minutes") {
		t.Errorf("the page said %q (%v)", said, err)
	}
	rules, _ := h.Rules(ctx)
	got := rules[len(rules)-1]
	if got.Name != "ads.samsungads.com" || got.Device != h.devices[0].ID || !got.Until.Equal(noon.Add(15*time.Minute)) || got.By != "page" {
		t.Errorf("the rule is %+v", got)
	}
}

// TestLiveInBrowser proves that the feed shows what happens, that a counted
// device shows no names, and that a hostile name stays text.
func TestLiveInBrowser(t *testing.T) {
	ctx := browser(t)
	var wrong complaints
	wrong.listen(t, ctx)
	h := family()
	s, live := newLiveServer(t, h)
	srv := httptest.NewServer(s.TCP())
	defer srv.CloseClientConnections()
	if err := chromedp.Do(ctx, chromedp.Navigate(srv.URL+"/live")); err != nil {
		t.Fatal(err)
	}
	tv, phone := h.devices[0].ID, h.devices[5].ID
	again(t, func() {
		live.Record(journal.Entry{At: noon, Device: phone, Log: devices.LogCounts, Lookup: &journal.Lookup{Name: "private.example"}})
		live.Record(journal.Entry{At: noon, Device: tv, Log: devices.LogNames, Flow: &journal.Flow{
			Flow:        flow.Flow{Name: "<img src=x onerror=alert(1)>.example", Counters: flow.Counters{Orig: flow.Count{Bytes: 1500}}},
			Seen:        dissect.Result{Protection: flow.Readable, Reason: "plain HTTP request"},
			Destination: atlas.Destination{Organisation: "Samsung"},
		}})
	})
	text := textWith(t, ctx, ".feed:has(.new .readable)", "Samsung")
	for _, want := range []string{"Living-room TV", "<img src=x onerror=alert(1)>.example", "1.5\u00a0kB out", "Samsung", "Anna’s phone", "counted, not by name"} {
		if !strings.Contains(text, want) {
			t.Errorf("the feed does not show %q: %.400s", want, text)
		}
	}
	if strings.Contains(text, "private.example") {
		t.Error("the feed shows where a counted device went")
	}
	for _, complaint := range wrong.take() {
		t.Errorf("the browser complains: %s", complaint)
	}
}

// TestHomeRefreshesInBrowser: when something happens, the table of an open
// home page is fetched again, without a reload and without eval.
func TestHomeRefreshesInBrowser(t *testing.T) {
	ctx := browser(t)
	var wrong complaints
	wrong.listen(t, ctx)
	h := family()
	s, live := newLiveServer(t, h)
	srv := httptest.NewServer(s.TCP())
	defer srv.CloseClientConnections()
	if err := chromedp.Do(ctx, chromedp.Navigate(srv.URL+"/")); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`window.same = true`)); err != nil {
		t.Fatal(err)
	}
	if err := h.SetName(ctx, h.devices[4].ID, "Coffee machine"); err != nil {
		t.Fatal(err)
	}
	again(t, func() {
		live.Record(journal.Entry{At: noon, Device: h.devices[4].ID, Log: devices.LogNames, Lookup: &journal.Lookup{Name: "a.example"}})
	})
	textWith(t, ctx, "#today", "Coffee machine")
	if same, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`window.same === true`)); err != nil || !same {
		t.Errorf("the page was loaded anew (%v)", err)
	}
	for _, complaint := range wrong.take() {
		t.Errorf("the browser complains: %s", complaint)
	}
}
