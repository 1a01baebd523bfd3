package ui

import (
	"cmp"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/ui/api"
)

// words are what templates may call. Every string that they return is escaped
// by html/template in its context.
func (s *Server) words() template.FuncMap {
	return template.FuncMap{
		"asset":      s.assets.url,
		"bytes":      humanBytes,
		"count":      grouped,
		"clock":      func(t time.Time) string { return s.clock(t) },
		"day":        func(t time.Time) string { return t.In(s.cfg.Location).Format("Monday 2 January 2006") },
		"rfc3339":    func(t time.Time) string { return t.In(s.cfg.Location).Format(time.RFC3339) },
		"show":       show,
		"short":      short,
		"listURL":    listURL,
		"ownerWord":  ownerWord,
		"doingWord":  doingWord,
		"stateWord":  stateWord,
		"deviceURL":  func(id string) string { return "/devices/" + url.PathEscape(id) },
		"plural":     plural,
		"share":      share,
		"kind":       kindWord,
		"mode":       modeWord,
		"purpose":    purposeWord,
		"country":    countryWord,
		"protection": protectionWord,
		"verdict":    verdictWord,
		"reason":     reasonWord,
		"join":       strings.Join,
		"first":      firstN,
		"more":       func(list []string, n int) int { return max(0, len(list)-n) },
		"nameFrom":   nameFromWord,
		"credential": credentialWord,
		"findings":   findings,
		"event":      eventWord,
		"protocol":   protocolWord,
		"kinds":      kinds,
		"detail":     detail,
		"fresh":      func(t time.Time) bool { return s.cfg.Now().Sub(t) < time.Hour },
		"either": func(yes bool, one, other string) string {
			if yes {
				return one
			}
			return other
		},
		"mixed":      func(d api.Destination) bool { return d.Encrypted > 0 && d.Encrypted < d.Flows },
		"navigation": navigation,
		"modes":      modes,
		"levels":     levels,
		// Only a name can be named in a rule; an address or nothing cannot.
		"nameable":  func(text string) bool { _, err := ruleName(text); return err == nil },
		"carryings": carryings,
		"taken":     takenWord,
		"name": func(names map[string]string, id string) string {
			return cmp.Or(names[id], id, "the house")
		},
		"deref": func(t *time.Time) time.Time {
			if t == nil {
				return time.Time{}
			}
			return *t
		},
	}
}

// humanBytes is n in decimal units with three meaning digits at most:
// "0 B", "999 B", "1.2 kB", "84 MB".
func humanBytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d\u00a0B", n)
	}
	v, units := float64(n), []string{"kB", "MB", "GB", "TB", "PB", "EB"}
	unit := ""
	for _, unit = range units {
		if v /= 1000; v < 999.5 {
			break
		}
	}
	if v < 9.95 {
		return fmt.Sprintf("%.1f\u00a0%s", v, unit)
	}
	return fmt.Sprintf("%.0f\u00a0%s", v, unit)
}

// grouped writes n, a whole number of any type, with thin spaces between thousands.
func grouped(n any) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "\u202f" + digits[i:]
	}
	return digits
}

func plural(n any, one, many string) string {
	if fmt.Sprint(n) == "1" {
		return grouped(n) + " " + one
	}
	return grouped(n) + " " + many
}

// share says how much of whole part is.
func share(part, whole int64) string {
	switch {
	case part <= 0 || whole <= 0:
		return "nothing"
	case part*100 < whole:
		return "under 1\u00a0%"
	case part >= whole:
		return "all"
	}
	return fmt.Sprintf("%d\u00a0%%", part*100/whole)
}

// clock is a time of today as "14:03:07", of another day with its date.
func (s *Server) clock(t time.Time) string {
	t, now := t.In(s.cfg.Location), s.cfg.Now().In(s.cfg.Location)
	switch {
	case t.IsZero():
		return "never"
	case t.YearDay() == now.YearDay() && t.Year() == now.Year():
		return t.Format("15:04:05")
	case t.Year() == now.Year():
		return t.Format("2 Jan 15:04")
	}
	return t.Format("2 Jan 2006")
}

// maxShown is how many characters of a foreign string a page shows.
const maxShown = 120

// show makes a foreign string fit to be read: what is not printable, turns the
// direction of writing or hides becomes a visible mark, and it ends after
// maxShown characters. html/template still escapes it.
func show(text string) string { return short(text, maxShown) }

func short(text string, limit int) string {
	var b strings.Builder
	n := 0
	for _, r := range text {
		if n++; n > limit {
			b.WriteRune('…')
			break
		}
		if !visible(r) {
			r = '\ufffd'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func firstN(list []string, n int) []string { return list[:min(len(list), n)] }

func kindWord(kind string) string {
	for _, k := range kinds() {
		if k.Value == kind {
			return k.Name
		}
	}
	return show(kind)
}

// kinds are what a device may be, with what follows from it.
func kinds() []choice {
	out := []choice{{"", "not known yet", ""}}
	for _, k := range []devices.Kind{
		devices.KindTV, devices.KindCamera, devices.KindSpeaker, devices.KindToy, devices.KindPlug, devices.KindHub,
		devices.KindLight, devices.KindConsole, devices.KindAppliance, devices.KindPrinter, devices.KindSensor,
		devices.KindOther, devices.KindPhone, devices.KindTablet, devices.KindComputer,
	} {
		name := string(k)
		switch k {
		case devices.KindTV:
			name = "television"
		case devices.KindConsole:
			name = "games console"
		case devices.KindOther:
			name = "smart device"
		}
		out = append(out, choice{Value: string(k), Name: name})
	}
	return out
}

// modeWord is what a mode does, in a few words for a person.
func modeWord(mode string) string {
	switch mode {
	case "off":
		return "Off"
	case "watch":
		return "Watching"
	case "protect":
		return "Protected"
	case "guard":
		return "Guarded"
	case "local":
		return "No internet"
	}
	return mode
}

// failWord is what an HTTP status means to a person.
func failWord(status int) string {
	switch {
	case status == http.StatusNotFound:
		return "That is not here"
	case status == http.StatusConflict:
		return "Which one?"
	case status == http.StatusServiceUnavailable:
		return "That took too long"
	case status < http.StatusInternalServerError:
		return "That did not work"
	}
	return "Something went wrong on this box"
}

func purposeWord(p string) string {
	switch p {
	case "":
		return "purpose not known"
	case "control":
		return "its own service"
	case "update":
		return "updates"
	case "time":
		return "clock"
	case "content":
		return "content"
	case "telemetry":
		return "usage data"
	case "ads":
		return "advertising"
	case "connectivity":
		return "online check"
	case "infra":
		return "shared cloud"
	}
	return show(p)
}

// countryWord names the countries that organisations are mostly registered in;
// for the others the code says enough.
func countryWord(code string) string {
	names := map[string]string{
		"AT": "Austria", "AU": "Australia", "BE": "Belgium", "BR": "Brazil", "CA": "Canada", "CH": "Switzerland", "CN": "China",
		"CZ": "Czechia", "DE": "Germany", "DK": "Denmark", "ES": "Spain", "FI": "Finland", "FR": "France", "GB": "United Kingdom",
		"HK": "Hong Kong", "IE": "Ireland", "IL": "Israel", "IN": "India", "IT": "Italy", "JP": "Japan", "KR": "South Korea",
		"LU": "Luxembourg", "NL": "Netherlands", "NO": "Norway", "NZ": "New Zealand", "PL": "Poland", "PT": "Portugal", "RU": "Russia",
		"SE": "Sweden", "SG": "Singapore", "TR": "Türkiye", "TW": "Taiwan", "UA": "Ukraine", "US": "United States", "VN": "Vietnam",
	}
	if name, ok := names[code]; ok {
		return name
	}
	return show(code)
}

func protectionWord(p string) string {
	switch p {
	case "encrypted":
		return "Encrypted"
	case "readable":
		return "Readable"
	case "harmless":
		return "Readable, harmless"
	case "cannot-tell":
		return "Can’t tell"
	}
	return "No connection"
}

func verdictWord(v string, noted bool) string {
	switch {
	case noted:
		return "Would be blocked"
	case v == "block":
		return "Blocked"
	case v == "rewrite":
		return "Answered by your list"
	}
	return "Allowed"
}

// reasonWord says why, naming rule and list.
func reasonWord(reason, rule, list string) string {
	rule, list = show(rule), show(list)
	switch reason {
	case "rule":
		return fmt.Sprintf("your rule “%s”", rule)
	case "list":
		switch {
		case list == "": // a device that is only counted
			return "on a list"
		case rule == "":
			return fmt.Sprintf("on the list “%s”", list)
		}
		return fmt.Sprintf("“%s” is on the list “%s”", rule, list)
	case "mode":
		return "this device has no internet"
	case "side-door":
		return withRule("a hidden way to look up names", rule)
	case "rebinding":
		return "a public name that points into your house"
	case "cloaking":
		return withRule("a tracker behind an innocent name", rule)
	case "switched-off":
		return "everything is switched off"
	case "unread":
		return withRule("its name could not be read", rule)
	}
	return withRule("", rule)
}

func withRule(text, rule string) string {
	if rule == "" {
		return text
	}
	return strings.TrimPrefix(text+": “"+rule+"”", ": ")
}

// ownerWord says whose a list is.
func ownerWord(owner string) string {
	switch owner {
	case "netcurtain":
		return "comes with Netcurtain"
	case "administrator":
		return "of the settings file"
	}
	return "added by you"
}

// doingWord says what is done with a list right now.
func doingWord(l api.List) string {
	switch l.Doing {
	case "waiting":
		return "It is next."
	case "downloading":
		if l.Of > 0 {
			return "Downloading: " + humanBytes(l.Bytes) + " of " + humanBytes(l.Of) + "."
		}
		return "Downloading: " + humanBytes(l.Bytes) + " so far."
	case "reading":
		return "Reading the file."
	case "compiling":
		return "Taking it in."
	}
	return ""
}

// stateWord says how a list is, in two words; state for its badge.
func stateWord(l api.List) choice {
	switch {
	case l.Shadowed:
		return choice{Value: "cannot-tell", Name: "Not used"}
	case !l.Enabled:
		return choice{Value: "cannot-tell", Name: "Disabled"}
	case l.LastError != "":
		return choice{Value: "readable", Name: "Failing"}
	case l.Unfit != "" && l.Using == "":
		return choice{Value: "readable", Name: "No room"}
	case l.Using != "":
		return choice{Value: "readable", Name: "Smaller one"}
	case l.Pending:
		return choice{Value: "cannot-tell", Name: "Not here yet"}
	}
	return choice{Value: "encrypted", Name: "In use"}
}

func nameFromWord(from string) string {
	switch from {
	case "packet":
		return "its hardware address, seen in its traffic"
	case "neighbour":
		return "its hardware address, as the router knows it"
	case "discovery":
		return "what it announces on the network"
	case "lease":
		return "the name it gave when it asked for an address"
	case "household":
		return "the name that you gave it"
	}
	return "nothing but its address"
}

// credentialWord says which credential travelled readable, whose as far as may
// be told, and whether everybody knows it.
func credentialWord(f api.Flow) string {
	if f.Credentials == "" {
		return ""
	}
	text := "a password or key travelled readable (" + show(f.Credentials)
	if f.CredentialUser != "" {
		text += " of " + show(f.CredentialUser)
	}
	if f.CredentialDefault {
		text += ", one that everybody knows: change it"
	}
	return text + ")"
}

// findings are what else is worth knowing of a connection, in plain sentences
// without a full stop.
func findings(f api.Flow) []string {
	var out []string
	note := func(is bool, text string) {
		if is {
			out = append(out, text)
		}
	}
	first, _, _ := strings.Cut(f.TLSWeak, "; ")
	note(first != "" && !strings.Contains(f.Why, first), "weak encryption: "+show(f.TLSWeak)) // else the reason says so
	note(f.Identifiers != "", "told on the way: "+identifierWords(f.Identifiers))
	note(f.CarriedEncrypted, "readable only inside your house: Netcurtain carried it encrypted from here on")
	note(f.PortMapped, "opened from outside, through a port that a device asked the router to open")
	note(f.Inbound && !f.PortMapped, "opened from outside")
	note(f.ByNameOnly && f.Verdict == "block", "blocked by its name only: its address serves others, too")
	note(f.ByNameOnly && f.Verdict != "block", "not blocked, though a name at this address is: the address serves others, too, and the connection did not say which it is for")
	note(f.NameAmbiguous, "one of several names at this address")
	note(f.ECH, "it hides which site it is for")
	return out
}

// identifierWords turns "mac:1,imei:2" into "its hardware address, its IMEI (2 times)".
func identifierWords(text string) string {
	names := map[string]string{
		"mac": "a hardware address", "imei": "an IMEI", "serial": "a serial number", "e-mail": "an e-mail address",
		"location": "a location", "advertising-id": "an advertising number", "device-id": "a device number",
	}
	var out []string
	for one := range strings.SplitSeq(text, ",") {
		kind, times, _ := strings.Cut(one, ":")
		word := cmp.Or(names[kind], show(kind))
		if times != "" && times != "1" {
			word += " (" + show(times) + " times)"
		}
		out = append(out, word)
	}
	return strings.Join(out, ", ")
}

// visible reports whether r may stand in a line of text: printable, and not one
// of the marks that turn or hide what is around them (Trojan Source).
func visible(r rune) bool {
	switch {
	case r < 0x20, r >= 0x7f && r < 0xa0, r == 0xad, r == 0x61c, r == 0xfeff, r == 0xfffd:
		return false
	case r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r >= 0x2060 && r <= 0x206f, r >= 0xfff0 && r <= 0xffff:
		return false
	case r >= 0xe000 && r <= 0xf8ff, r >= 0xe0000:
		return false
	}
	return true
}

type place struct{ URL, Here, Name string }

func navigation() []place {
	return []place{
		{"/", "home", "Today"}, {"/live", "live", "Live"}, {"/log", "log", "Log"}, {"/rules", "rules", "Rules"}, {"/lists", "lists", "Lists"},
		{"/events", "events", "Events"}, {"/health", "health", "Health"}, {"/about", "about", "What we keep"},
	}
}

// choice is one thing that a person may choose, with what it means.
type choice struct{ Value, Name, Means string }

// modes are the ways in which a device can be treated; see devices.Mode.
func modes() []choice {
	return []choice{
		{"off", "Off", "Nothing is filtered and nothing is seen."},
		{"watch", "Watch", "Everything is answered; what would be blocked is noted."},
		{"protect", "Protect", "Ad and tracker names are refused; connections are seen."},
		{"guard", "Guard", "And its web traffic passes through our proxy, which decides by name."},
		{"local", "No internet", "It reaches only this house, even when Netcurtain is not running."},
	}
}

// carrying is one thing that can be done to a guarded device's readable requests.
type carrying struct {
	Name, Means, Action string
	On                  bool
}

func carryings(d api.Device) []carrying {
	return []carrying{
		{"Send it encrypted", "Where the same server can, what it asks in clear leaves this house encrypted. We ask each such server once a week whether it can.", "carry", d.Carry},
		{"Take trackers out", "Tracking headers, cookies of third parties and where it came from are taken out of what it sends in clear.", "strip", d.Strip},
	}
}

// takenWord is what was taken out of what a device asks in clear, "" when nothing was.
func takenWord(c api.Carrying) string {
	var parts []string
	for _, p := range []struct {
		n         int
		one, many string
	}{{c.Headers, "tracking header", "tracking headers"}, {c.Referrers, "referrer", "referrers"}, {c.Cookies, "third party’s cookie", "third parties’ cookies"}} {
		if p.n > 0 {
			parts = append(parts, plural(p.n, p.one, p.many))
		}
	}
	return strings.Join(parts, ", ")
}

// levels are how much of a device's traffic can be written down.
func levels() []choice {
	return []choice{
		{"names", "Names", "Where it goes is written down by name."},
		{"counts", "Counts", "It is filtered and counted; where it goes is never written down."},
		{"none", "Nothing", "Nothing is written down."},
	}
}

func eventWord(kind string) string {
	switch kind {
	case "new-device":
		return "New device"
	case "first-contact":
		return "First contact"
	case "readable-secret":
		return "Readable password"
	case "weak-tls":
		return "Weak encryption"
	case "port-map":
		return "Opened a port"
	case "side-door":
		return "Way round the filter"
	case "health":
		return "Health"
	case "household-change":
		return "Changed by you"
	}
	return show(kind)
}

func protocolWord(app string) string {
	if app == "" || app == "unknown" {
		return "unknown protocol"
	}
	return strings.ToUpper(show(app))
}

// detail is what a row of the feed says beside the name; live.mjs says the same.
func detail(e api.Live) string {
	parts := []string{short(e.Organisation, 60)}
	if e.What == "flow" {
		parts = append(parts, humanBytes(e.BytesOut)+" out", humanBytes(e.BytesIn)+" in", short(e.Why, 80))
	}
	if e.List != "" {
		parts = append(parts, "list "+short(e.List, 60))
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), " · ")
}

// endedWords says why a device's running connections ended when its mode changed,
// "" when none did.
func endedWords(m devices.Mode, n int) string {
	its := fmt.Sprintf("Its %d open connections were ended", n)
	if n == 1 {
		its = "Its one open connection was ended"
	}
	switch {
	case n <= 0:
		return ""
	case m == devices.ModeGuard:
		return its + " on purpose, so that Netcurtain sees them begin again and decides by name."
	case m == devices.ModeLocal:
		return its + ": it has no internet from now on."
	}
	return ""
}
