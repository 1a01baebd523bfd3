package blocklist

import (
	"net/netip"
	"strings"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// form is how a rule was written. It decides what the rule covers, and lets the
// text be recovered from the name alone. Values are part of the file format.
type form uint8

const (
	formPlain      form = iota // x
	formHosts                  // 0.0.0.0 x
	formHosts127               // 127.0.0.1 x
	formHosts6                 // :: x
	formHosts6One              // ::1 x
	formBelow                  // *.x
	formSubtree                // ||x^
	formAllow                  // @@||x^
	formAllowBelow             // @@*.x, @@||*.x^
	formCount
)

// shape is what a form means.
type shape struct {
	before, after string // the rule's text around its name
	self, below   bool   // what it covers
	allow         bool
}

func (f form) shape() shape {
	switch f {
	case formPlain:
		return shape{self: true}
	case formHosts:
		return shape{before: "0.0.0.0 ", self: true}
	case formHosts127:
		return shape{before: "127.0.0.1 ", self: true}
	case formHosts6:
		return shape{before: ":: ", self: true}
	case formHosts6One:
		return shape{before: "::1 ", self: true}
	case formBelow:
		return shape{before: "*.", below: true}
	case formSubtree:
		return shape{before: "||", after: "^", self: true, below: true}
	case formAllow:
		return shape{before: "@@||", after: "^", self: true, below: true, allow: true}
	case formAllowBelow:
		return shape{before: "@@||*.", after: "^", below: true, allow: true}
	}
	return shape{}
}

// parseLine hands each rule of one line to emit. It returns the reason when the
// line, or the rest of it, is rejected, and "" for rules, comments and blanks.
func parseLine(line string, emit func(form, dnsname.Name)) (reason string) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' || line[0] == '!' || line[0] == '[' && line[len(line)-1] == ']' {
		return ""
	}
	line = cutComment(line)
	if isAdblock(line) {
		return parseAdblock(line, emit)
	}
	if below, ok := strings.CutPrefix(line, "*."); ok {
		return emitName(formBelow, below, emit)
	}
	first, rest, _ := cutField(line)
	if f, isAddr, leadsNowhere := hostsForm(first); isAddr {
		switch {
		case rest == "":
			return "an address without a name"
		case !leadsNowhere && onlyBoilerplate(rest):
			return ""
		case !leadsNowhere:
			return "it points a name at an address; only addresses that lead nowhere block"
		}
		return parseHosts(f, rest, emit)
	}
	switch {
	case rest != "":
		return "several words and the first is no address"
	case !strings.Contains(strings.TrimSuffix(first, "."), "."):
		return "a word without a dot"
	}
	return emitName(formPlain, first, emit)
}

// cutComment removes a "# …" that stands at the beginning of a word.
func cutComment(line string) string {
	for i := 1; i < len(line); i++ {
		if line[i] == '#' && (line[i-1] == ' ' || line[i-1] == '\t') {
			return strings.TrimRight(line[:i], " \t")
		}
	}
	return line
}

// cutField splits line after its first word.
func cutField(line string) (field, rest string, more bool) {
	i := strings.IndexAny(line, " \t")
	if i < 0 {
		return line, "", false
	}
	return line[:i], strings.TrimLeft(line[i:], " \t"), true
}

// hostsForm reads the address of a hosts line in every form that lists use.
func hostsForm(s string) (f form, isAddr, leadsNowhere bool) {
	if s == "0" {
		return formHosts, true, true
	}
	if c := s[0]; c != ':' && (c < '0' || c > '9') && !strings.ContainsRune(s, ':') {
		return 0, false, false // cheap: most lines are names
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return 0, false, false
	}
	a = a.Unmap().WithZone("")
	switch {
	case a.IsUnspecified() && a.Is6():
		return formHosts6, true, true
	case a.IsUnspecified(), a.Is4() && a.As4()[0] == 0:
		return formHosts, true, true
	case a.IsLoopback() && a.Is6():
		return formHosts6One, true, true
	case a.IsLoopback():
		return formHosts127, true, true
	}
	return 0, true, false
}

func parseHosts(f form, names string, emit func(form, dnsname.Name)) (reason string) {
	for names != "" {
		var name string
		name, names, _ = cutField(names)
		if isBoilerplate(name) {
			continue
		}
		if r := emitName(f, name, emit); r != "" {
			reason = r
		}
	}
	return reason
}

// isBoilerplate reports names with which every hosts file begins and which say
// nothing about the outside.
func isBoilerplate(name string) bool {
	switch name {
	case "localhost", "localhost.localdomain", "localhost4", "localhost6", "local", "broadcasthost",
		"ip6-localhost", "ip6-loopback", "ip6-localnet", "ip6-mcastprefix", "ip6-allnodes", "ip6-allrouters", "ip6-allhosts":
		return true
	}
	_, err := netip.ParseAddr(name)
	return err == nil
}

// onlyBoilerplate reports whether a hosts line such as "fe80::1%lo0 localhost"
// says nothing but what every hosts file says.
func onlyBoilerplate(names string) bool {
	for names != "" {
		var name string
		name, names, _ = cutField(names)
		if !isBoilerplate(name) {
			return false
		}
	}
	return true
}

func isAdblock(line string) bool {
	switch line[0] {
	case '@', '|', '/':
		return true
	}
	return strings.ContainsAny(line, "^$") || strings.Contains(line, "##") || strings.Contains(line, "#@#")
}

// parseAdblock reads the part of the adblock-style DNS language whose meaning is
// a name with or without what is below it.
func parseAdblock(line string, emit func(form, dnsname.Name)) (reason string) {
	if strings.Contains(line, "##") || strings.Contains(line, "#@#") {
		return "a rule about the look of a page, not about names"
	}
	f := formSubtree
	pattern, isAllow := strings.CutPrefix(line, "@@")
	if isAllow {
		f = formAllow
	}
	if strings.HasPrefix(pattern, "/") {
		return "regular expressions are not understood yet"
	}
	pattern, modifiers, _ := strings.Cut(pattern, "$")
	if modifiers != "" {
		return "modifiers ($…) are not understood yet"
	}
	name, anchored := strings.CutPrefix(pattern, "||")
	if !anchored {
		if below, ok := strings.CutPrefix(pattern, "*."); ok && isAllow {
			return emitName(formAllowBelow, below, emit)
		}
		return "a pattern that is not anchored with || is not understood yet"
	}
	name = strings.TrimSuffix(name, "|")
	name, ended := strings.CutSuffix(name, "^")
	if !ended {
		return "without ^ at its end it would cover longer names too; not understood yet"
	}
	if below, ok := strings.CutPrefix(name, "*."); ok {
		name, f = below, formBelow
		if isAllow {
			f = formAllowBelow
		}
	}
	return emitName(f, name, emit)
}

// emitName checks that s is a name that can be looked up and hands it on.
func emitName(f form, s string, emit func(form, dnsname.Name)) (reason string) {
	switch {
	case strings.Contains(s, "/"):
		return "an address of a page, not a name"
	case strings.Contains(s, "*"):
		return "a * inside a name is not understood yet"
	}
	n, err := dnsname.Parse(s)
	if err != nil {
		return err.Error()
	}
	if n == "" {
		return "a rule without a name"
	}
	digitsOnly := true
	for i := 0; i < len(n); i++ {
		switch c := n[i]; {
		case c >= '0' && c <= '9', c == '.':
		case c >= 'a' && c <= 'z', c == '-', c == '_':
			digitsOnly = false
		default:
			return "a character that no name has"
		}
	}
	if digitsOnly {
		return "an address, not a name"
	}
	emit(f, n)
	return ""
}
