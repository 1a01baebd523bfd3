package proxy

import (
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/devices"
)

func stripping(log devices.LogLevel) func(*Config) {
	return func(c *Config) {
		c.Devices = devicesFunc(func(netip.Addr) (devices.Device, bool) {
			return devices.Device{ID: "tv", Mode: devices.ModeGuard, Log: log, StripTracking: true}, true
		})
	}
}

// What the origin gets of each header, and what the device gets of its cookies.
func TestStrip(t *testing.T) {
	const own, foreign = "http://www.m.example/a/b?c", "http://news.example/a/b?c"
	for name, c := range map[string]struct {
		send      []string // fields
		want      []string // fields that arrive
		setCookie bool     // arrives
		taken     Taken
	}{
		"nothing to take":          {[]string{"Cookie: a=b", "X-Requested-With: x"}, []string{"Cookie: a=b", "X-Requested-With: x"}, true, Taken{}},
		"tracking headers":         {[]string{"X-UIDH: abc", "TM_user-id: x", "x-idfa: y", "X-Other: z"}, []string{"X-Other: z"}, true, Taken{Headers: 3}},
		"own referrer":             {[]string{"Referer: " + own, "Cookie: a=b"}, []string{"Cookie: a=b", "Referer: " + own}, true, Taken{}},
		"foreign referrer, cookie": {[]string{"Referer: " + foreign, "Cookie: a=b"}, []string{"Referer: http://news.example/"}, false, Taken{Referrers: 1, Cookies: 1, SetCookies: 1}},
		"foreign origin":           {[]string{"Origin: http://news.example", "Cookie: a=b"}, []string{"Origin: http://news.example"}, false, Taken{Cookies: 1, SetCookies: 1}},
		"origin before referrer":   {[]string{"Origin: http://m.example", "Referer: " + foreign, "Cookie: a=b"}, []string{"Cookie: a=b", "Origin: http://m.example", "Referer: http://news.example/"}, true, Taken{Referrers: 1}},
		"no origin told":           {[]string{"Origin: null", "Cookie: a=b"}, []string{"Cookie: a=b", "Origin: null"}, true, Taken{}},
		"only an origin already":   {[]string{"Referer: http://news.example/"}, []string{"Referer: http://news.example/"}, false, Taken{SetCookies: 1}},
		"from an encrypted page":   {[]string{"Referer: https://news.example/a"}, nil, false, Taken{Referrers: 1, SetCookies: 1}},
		"from its own encrypted":   {[]string{"Referer: https://m.example/a"}, []string{"Referer: https://m.example/a"}, true, Taken{}},
		"from no page":             {[]string{"Referer: android-app://tv.example"}, nil, true, Taken{Referrers: 1}},
		"rubbish":                  {[]string{"Referer: http://[::1"}, nil, true, Taken{Referrers: 1}},
		"two referrers":            {[]string{"Referer: " + own, "Referer: " + foreign}, []string{"Referer: " + own}, true, Taken{Referrers: 1}},
		"a person follows a link":  {[]string{"Accept: text/html,*/*", "Referer: " + foreign, "Cookie: a=b"}, []string{"Accept: text/html,*/*", "Cookie: a=b", "Referer: http://news.example/"}, true, Taken{Referrers: 1}},
		"a browser says so":        {[]string{"Upgrade-Insecure-Requests: 1", "Origin: http://news.example", "Cookie: a=b"}, []string{"Cookie: a=b", "Origin: http://news.example", "Upgrade-Insecure-Requests: 1"}, true, Taken{}},
		"never touched":            {[]string{"Authorization: Basic eDp5", "Sec-GPC: 1", "DNT: 1", "Range: bytes=0-1", "Origin: http://news.example", "User-Agent: tv/1"}, []string{"Authorization: Basic eDp5", "Dnt: 1", "Origin: http://news.example", "Range: bytes=0-1", "Sec-Gpc: 1", "User-Agent: tv/1"}, false, Taken{SetCookies: 1}},
		"one public suffix":        {[]string{"Referer: http://a.co.uk/x", "Cookie: a=b"}, []string{"Referer: http://a.co.uk/"}, false, Taken{Referrers: 1, Cookies: 1, SetCookies: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			o := newRawOrigin(t, "HTTP/1.1 204 No Content\r\nSet-Cookie: t=1\r\n\r\n")
			l := newLab(t, stripping(devices.LogNames))
			answer := l.raw(o.addr, "GET /p?q=1 HTTP/1.1\r\nHost: api.m.example\r\n"+strings.Join(c.send, "\r\n")+"\r\n\r\n")
			got := strings.Split(strings.TrimSuffix(o.text(), "\r\n\r\n"), "\r\n")
			if got[0] != "GET /p?q=1 HTTP/1.1" || got[1] != "Host: api.m.example" {
				t.Errorf("the origin got %q", got)
			}
			fields := slices.Sorted(slices.Values(got[2:]))
			if !slices.Equal(fields, slices.Sorted(slices.Values(c.want))) {
				t.Errorf("the origin got %q, want %q", fields, c.want)
			}
			if strings.Contains(answer, "Set-Cookie: t=1") != c.setCookie {
				t.Errorf("the device got %q", answer)
			}
			if taken := l.Tally("tv").Taken; taken != c.taken {
				t.Errorf("counted %+v, want %+v", taken, c.taken)
			}
		})
	}
}

func TestStripOnlyWhereChosen(t *testing.T) {
	const send = "GET / HTTP/1.1\r\nHost: m.example\r\nCookie: a=b\r\nReferer: http://news.example/a\r\nX-Uidh: x\r\n\r\n"
	o := newRawOrigin(t, ok204)
	l := newLab(t, nil)
	l.raw(o.addr, send)
	if o.text() != send {
		t.Errorf("not chosen, and yet the origin got %q", o.text())
	}
	o = newRawOrigin(t, ok204)
	l = newLab(t, stripping(devices.LogNone))
	l.raw(o.addr, send)
	if strings.Contains(o.text(), "Cookie") || l.Tally("tv") != (Tally{}) {
		t.Errorf("the origin got %q, and %+v was counted of a device of which nothing is written", o.text(), l.Tally("tv"))
	}
	l = newLab(t, stripping(devices.LogNames))
	l.raw(o.addr, send)
	if l.Forget("tv"); l.Tally("tv") != (Tally{}) {
		t.Error("what was erased is still counted")
	}
}

// A blocked request leaves nothing, so nothing is taken out of it.
func TestStripNothingOfWhatIsBlocked(t *testing.T) {
	o := newRawOrigin(t, ok204)
	l := newLab(t, stripping(devices.LogNames))
	l.raw(o.addr, "GET / HTTP/1.1\r\nHost: a.tracker.example\r\nX-Uidh: x\r\n\r\n")
	if got := l.Tally("tv"); got != (Tally{}) || o.text() != "" {
		t.Errorf("%+v, origin got %q", got, o.text())
	}
}

func TestSiteOf(t *testing.T) {
	for host, want := range map[string]string{
		"www.M.example:80": "m.example", "m.example": "m.example", "a.b.c.m.example": "m.example", "a.co.uk": "a.co.uk", "b.a.co.uk": "a.co.uk",
		"co.uk": "co.uk", "localhost": "localhost", "192.0.2.1:80": "192.0.2.1", "[2001:db8::1]": "2001:db8::1", "": "", "a b": "",
	} {
		if got := siteOf(host); got != want {
			t.Errorf("%q belongs to %q, want %q", host, got, want)
		}
	}
}

// The table that people read is the table that is used.
func TestDocsListTrackingHeaders(t *testing.T) {
	b, err := os.ReadFile("../docs/proxy.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(trackingHeaders) {
		name, source, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		if http.CanonicalHeaderKey(name) != name {
			t.Errorf("%s would never match: net/http says %s", name, http.CanonicalHeaderKey(name))
		}
		if strings.TrimSpace(source) == "" || !strings.Contains(string(b), "`"+name+"`") {
			t.Errorf("%s has no source or is not in docs/proxy.md", name)
		}
	}
}

// FuzzCutReferrer: a referrer stays, goes, or becomes the origin that it named.
func FuzzCutReferrer(f *testing.F) {
	for _, s := range []string{"http://news.example/a?b", "https://m.example/x", "/a", "//x", "http://u:p@news.example/", "http://[::1]/", "data:,"} {
		f.Add("m.example", s)
	}
	f.Fuzz(func(t *testing.T, here, referrer string) {
		got := cutReferrer(here, referrer)
		if got == "" || got == referrer {
			return
		}
		was, err := url.Parse(referrer)
		if err != nil || got != "http://"+was.Host+"/" {
			t.Errorf("%q became %q", referrer, got)
		}
		if again := cutReferrer(here, got); again != got {
			t.Errorf("%q became %q, which became %q", referrer, got, again)
		}
	})
}
