package proxy

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"net/url"

	"github.com/elazarl/goproxy"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/policy"
)

//go:embed block.html
var blockHTML string

//go:embed block.css
var blockCSS string

// blockPage is what a person sees instead of a page that policy blocks. All it
// shows of the request is the attacker's, and html/template escapes it.
type blockPage struct {
	tmpl       *template.Template
	house, url string
	csp        string
}

// blockView is what the page is made of.
type blockView struct {
	House, URL, Device, Name, Why, List, Rule string
	Page                                      string // of the device, at URL
	Command                                   string // that allows it
	CSS                                       template.CSS
}

func newBlockPage(house, url string) (*blockPage, error) {
	t, err := template.New("block").Parse(blockHTML)
	if err != nil {
		return nil, fmt.Errorf("block page: %w", err)
	}
	sum := sha256.Sum256([]byte(blockCSS))
	return &blockPage{
		tmpl: t, house: house, url: url,
		csp: "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
			"'; base-uri 'none'; form-action 'none'",
	}, nil
}

// respond is the answer to a blocked request: a page for a person, a line for a
// machine. 403, not 451: it is the household's will, not a law.
func (b *blockPage) respond(r *http.Request, d devices.Device, s *share) *http.Response {
	v := blockView{
		House: b.house, URL: b.url, Device: d.Name, Name: string(s.name),
		Why: why(s.verdict), List: s.verdict.List, Rule: s.verdict.Rule, CSS: template.CSS(blockCSS),
	}
	if v.Device == "" {
		v.Device = string(d.ID)
	}
	if s.name != "" && canAllow(s.verdict.Reason) {
		v.Command = "netcurtain allow " + string(s.name) + " --device " + string(d.ID) + " --for 15m"
	}
	if v.Name == "" {
		v.Name = r.URL.Hostname() // the original destination's address
	}
	if b.url != "" {
		v.Page = b.url + "devices/" + url.PathEscape(string(d.ID))
	}
	kind, body := "text/plain; charset=utf-8", fmt.Sprintf("%s: blocked by the household (%s)\n", v.Name, s.verdict.Reason)
	if isNavigation(r) {
		var page bytes.Buffer
		if err := b.tmpl.Execute(&page, v); err == nil {
			kind, body = "text/html; charset=utf-8", page.String()
		}
	}
	resp := goproxy.NewResponse(r, kind, http.StatusForbidden, body)
	resp.TransferEncoding = nil // goproxy copies the request's
	for k, val := range map[string]string{
		"Cache-Control":           "no-store",
		"Content-Security-Policy": b.csp,
		"Referrer-Policy":         "no-referrer",
		"X-Content-Type-Options":  "nosniff",
	} {
		resp.Header.Set(k, val)
	}
	return resp
}

// canAllow reports whether a rule of the household's can undo a block.
func canAllow(r policy.Reason) bool {
	return r == policy.ReasonRule || r == policy.ReasonList || r == policy.ReasonSideDoor || r == policy.ReasonCloaking
}

// why says the reason of v to a person.
func why(v policy.Verdict) string {
	switch v.Reason {
	case policy.ReasonRule:
		return "The household has blocked this name."
	case policy.ReasonList:
		return "A blocklist that the household uses names it."
	case policy.ReasonMode:
		return "This device may only talk within the house."
	case policy.ReasonSideDoor:
		return "It would lead around the household's protection."
	case policy.ReasonRebinding, policy.ReasonCloaking:
		return "It hides behind a name that is not its own."
	case policy.ReasonUnread:
		return "It does not say who it talks to, and the settings refuse that."
	case policy.ReasonSwitchedOff:
		return "The household has switched everything off."
	}
	return "The household's rules do not allow it."
}
