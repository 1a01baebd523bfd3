package blocklist

import (
	"net/netip"
	"strings"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// lineParser reads one line after the other. What a line is, its own text says;
// of the lines before it only what a zone's records need is kept.
type lineParser struct {
	zone zone
	emit func(parsed) (reason string)
}

// line hands each rule of one line to emit. It returns the reason when the line,
// or the rest of it, is rejected, and "" for rules, comments and blanks.
func (p *lineParser) line(line string) (reason string) {
	blank := line != "" && (line[0] == ' ' || line[0] == '\t')
	line = strings.TrimSpace(line)
	if p.zone.open != nil {
		return p.goOn(line)
	}
	if line == "" || line[0] == '#' || line[0] == '!' || line[0] == ';' || line[0] == '[' && line[len(line)-1] == ']' {
		return ""
	}
	if word, value, ok := cutField(line); ok && line[0] == '$' && isDirective(word) {
		return p.zone.direct(word, value)
	}
	if key, value, ok := strings.Cut(line, "="); ok && isWord(strings.TrimSpace(key)) {
		return p.dnsmasq(strings.TrimSpace(key), strings.TrimSpace(cutComment(value)), cutComment(line))
	}
	first, rest, _ := cutField(line)
	if f, addr, isAddr := hostsForm(first); isAddr {
		rest, _, _ = strings.Cut(rest, "#") // hosts(5): a comment begins wherever the # stands
		if rest == "" {
			return "an address without a name"
		}
		return p.hosts(f, addr, rest)
	}
	if isRecord(line, blank) {
		return p.record(line, blank)
	}
	if isAdblock(line) {
		return p.adblock(line)
	}
	line = cutComment(line)
	first, rest, _ = cutField(line)
	switch {
	case rest != "":
		return "several words and the first is no address"
	case strings.HasPrefix(line, "*."), strings.HasPrefix(line, "."):
		return p.name(formBelow, strings.TrimPrefix(strings.TrimPrefix(cutPort(line), "*"), "."))
	case !strings.Contains(strings.TrimSuffix(cutPort(first), "."), "."):
		return "a word without a dot"
	}
	return p.name(formPlain, cutPort(first))
}

func (p *lineParser) name(f form, s string) (reason string) {
	n, reason := parseName(s)
	switch {
	case reason != "":
		return reason
	case isAddressLike(n):
		return "an address, not a name"
	}
	return p.emit(parsed{form: f, name: n})
}

// rule emits r as what it is: a form and a name where they say all.
func (p *lineParser) rule(r *rule) (reason string) {
	// "*.0" alone reads as an address cut short; ".0^" does not.
	if f, n, ok := r.simple(); ok && !(f == formBelow && isAddressLike(n)) {
		return p.emit(parsed{form: f, name: n})
	}
	return p.emit(parsed{more: r})
}

// adblock reads a rule first with a " #" and what follows, which may be of a
// client's name, and then without it.
func (p *lineParser) adblock(line string) (reason string) {
	r, reason := parseAdblock(line)
	if cut := cutComment(line); reason != "" && cut != line {
		r, reason = parseAdblock(cut)
	}
	if reason != "" {
		return reason
	}
	return p.rule(r)
}

// isAdblock reports whether line can only be of the adblock-style language.
func isAdblock(line string) bool {
	switch line[0] {
	case '@', '|', '/', ':':
		return true
	}
	line = strings.TrimPrefix(line, "*.")
	if strings.HasPrefix(line, "http:") || strings.HasPrefix(line, "https:") {
		return true
	}
	return strings.ContainsAny(line, "^$*|") || strings.Contains(line, "##") || strings.Contains(line, "#@#")
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

// cutPort removes ":443": what covers a name covers all of its ports.
func cutPort(s string) string {
	i := strings.IndexByte(s, ':')
	if i <= 0 || i == len(s)-1 || len(s)-i > 6 {
		return s
	}
	for _, c := range []byte(s[i+1:]) {
		if c < '0' || c > '9' {
			return s
		}
	}
	return s[:i]
}

func isWord(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < 'a' || c > 'z') && c != '-' && (c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// ——— hosts ———

// hostsForm reads the address of a hosts line in every form that lists use. The
// addresses that most lists use have a form; formCount is any other.
func hostsForm(s string) (f form, addr netip.Addr, isAddr bool) {
	if s == "0" {
		return formHosts, netip.IPv4Unspecified(), true
	}
	if c := s[0]; c != ':' && (c < '0' || c > '9') && !strings.ContainsRune(s, ':') {
		return 0, addr, false // cheap: most lines are names
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return 0, addr, false
	}
	switch a {
	case netip.IPv6Unspecified():
		f = formHosts6
	case netip.IPv4Unspecified():
		f = formHosts
	case netip.IPv6Loopback():
		f = formHosts6One
	case netip.AddrFrom4([4]byte{127, 0, 0, 1}):
		f = formHosts127
	default:
		f = formCount
	}
	return f, a, true
}

func (p *lineParser) hosts(f form, addr netip.Addr, names string) (reason string) {
	for names != "" {
		var name string
		name, names, _ = cutField(names)
		if isAddress(name) {
			continue // "0.0.0.0 0.0.0.0", with which many lists begin
		}
		if r := p.host(f, addr, name); r != "" {
			reason = r
		}
	}
	return reason
}

func (p *lineParser) host(f form, addr netip.Addr, name string) (reason string) {
	if f != formCount {
		return p.name(f, cutPort(name))
	}
	n, reason := parseName(cutPort(name))
	switch {
	case reason != "":
		return reason
	case isAddressLike(n):
		return "an address, not a name"
	}
	return p.emit(parsed{more: &rule{
		pattern: pattern{kind: exactName, text: string(n)}, rewrite: hostsLine, answer: answerOf(addr),
		text: addr.String() + " " + string(n),
	}})
}

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// isLocalhost reports names with which every hosts file begins and which say
// nothing about the outside.
func isLocalhost(name string) bool {
	switch name {
	case "localhost", "localhost.localdomain", "localhost4", "localhost6", "local", "broadcasthost",
		"ip6-localhost", "ip6-loopback", "ip6-localnet", "ip6-mcastprefix", "ip6-allnodes", "ip6-allrouters", "ip6-allhosts":
		return true
	}
	return false
}

// OfOwnMachine reports whether name is one of those that every hosts file gives
// to the machine that it lies on: no list has anything to say about it.
func OfOwnMachine(name dnsname.Name) bool { return isLocalhost(string(name)) }
