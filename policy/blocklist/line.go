package blocklist

import (
	"net/netip"
	"strings"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// lineParser reads one line after the other. What a line is, its own text says;
// of the lines before it only a zone's origin and open parentheses are kept.
type lineParser struct {
	origin dnsname.Name // of an RPZ zone
	inside bool         // the parentheses of its SOA record
	emit   func(parsed) (reason string)
}

// line hands each rule of one line to emit. It returns the reason when the line,
// or the rest of it, is rejected, and "" for rules, comments and blanks.
func (p *lineParser) line(line string) (reason string) {
	blank := line != "" && (line[0] == ' ' || line[0] == '\t')
	line = strings.TrimSpace(line)
	if p.inside {
		line, _, _ = strings.Cut(line, ";")
		p.inside = !strings.Contains(line, ")")
		return ""
	}
	if line == "" || line[0] == '#' || line[0] == '!' || line[0] == ';' || line[0] == '[' && line[len(line)-1] == ']' {
		return ""
	}
	if strings.HasPrefix(line, "$TTL ") || strings.HasPrefix(line, "$ORIGIN ") || strings.HasPrefix(line, "$TTL\t") || strings.HasPrefix(line, "$ORIGIN\t") {
		return p.zoneSetting(line)
	}
	line = cutComment(line)
	if key, value, ok := strings.Cut(line, "=/"); ok && isWord(key) {
		return p.dnsmasq(key, value, line)
	}
	first, rest, _ := cutField(line)
	if f, addr, isAddr := hostsForm(first); isAddr {
		if rest == "" {
			return "an address without a name"
		}
		return p.hosts(f, addr, rest)
	}
	if rr, ok := zoneRecord(line, blank); ok {
		return p.record(rr, line)
	}
	if isAdblock(line) {
		return p.adblock(line)
	}
	switch {
	case rest != "":
		return "several words and the first is no address"
	case strings.HasPrefix(line, "*."), strings.HasPrefix(line, "."):
		return p.name(formBelow, strings.TrimPrefix(strings.TrimPrefix(cutPort(line), "*"), "."))
	case !strings.Contains(strings.TrimSuffix(first, "."), "."):
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

func (p *lineParser) adblock(line string) (reason string) {
	r, reason := parseAdblock(line)
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

// ——— dnsmasq ———

// dnsmasq reads "address=/a/b/0.0.0.0", "server=/a/", "local=/a/": each name
// stands for all below it.
func (p *lineParser) dnsmasq(key, value, line string) (reason string) {
	i := strings.LastIndexByte(value, '/')
	if i < 0 {
		return "a name between slashes is missing"
	}
	names, target := value[:i], value[i+1:]
	base := rule{text: line}
	base.kind = subtreeName
	switch {
	case key != "address" && key != "server" && key != "local":
		return "a dnsmasq option that is no rule about names"
	case target == "":
	case key != "address" && target == "#":
		base.allow = true // asked where all else is asked
	case key != "address":
		return "it says whom to ask about a name, not whether"
	case target == "#":
	default:
		addr, err := netip.ParseAddr(target)
		if err != nil {
			return "no address behind the last slash"
		}
		if a := answerOf(addr); !a.LeadsNowhere() {
			base.rewrite, base.answer = rewriteOne, a
		}
	}
	for name := range strings.SplitSeq(names, "/") {
		r := base
		name = strings.TrimPrefix(name, ".")
		if rest, ok := strings.CutPrefix(name, "*."); ok {
			name, r.kind = rest, belowName
		}
		if name == "#" || name == "" {
			reason = "it would cover every name"
			continue
		}
		n, why := parseName(name)
		if why == "" {
			r.pattern.text = string(n)
			why = p.rule(&r)
		}
		if why != "" {
			reason = why
		}
	}
	return reason
}

// ——— RPZ ———

// A record of a response policy zone: owner, type, data.
type zoneLine struct{ owner, kind, data string }

// zoneRecord reads "owner [ttl] [class] TYPE data". Types are written in
// capitals there, which no other kind of line has as its second word or later.
func zoneRecord(line string, blank bool) (rr zoneLine, ok bool) {
	rest := line
	if blank {
		if first, _, _ := cutField(line); !isZoneWord(first) {
			blank = false // an indented line of another kind
		}
	}
	if !blank {
		var more bool
		if rr.owner, rest, more = cutField(line); !more {
			return rr, false
		}
	}
	for range 3 {
		var word string
		word, rest, _ = cutField(rest)
		switch {
		case isZoneType(word):
			rr.kind = strings.ToUpper(word)
			rr.data, _, _ = strings.Cut(rest, ";")
			rr.data = strings.TrimSpace(rr.data)
			return rr, rr.data != ""
		case !isZoneWord(word):
			return rr, false
		}
	}
	return rr, false
}

// isZoneWord reports whether w can stand before the data: a TTL, a class, a type.
func isZoneWord(w string) bool {
	if isZoneType(w) || strings.EqualFold(w, "IN") {
		return true
	}
	digits := strings.TrimRight(w, "smhdwSMHDW")
	for i := 0; i < len(digits); i++ {
		if digits[i] < '0' || digits[i] > '9' {
			return false
		}
	}
	return digits != ""
}

func isZoneType(w string) bool {
	switch strings.ToUpper(w) {
	case "CNAME", "A", "AAAA", "SOA", "NS", "TXT", "MX", "SRV", "HTTPS", "SVCB", "PTR":
		return true
	}
	return false
}

// zoneSetting reads $TTL and $ORIGIN.
func (p *lineParser) zoneSetting(line string) (reason string) {
	word, value, _ := cutField(line)
	if word != "$ORIGIN" {
		return ""
	}
	value, _, _ = strings.Cut(value, ";")
	n, err := dnsname.Parse(strings.TrimSpace(value))
	if err != nil {
		return err.Error()
	}
	p.origin = n
	return ""
}

func (p *lineParser) record(rr zoneLine, line string) (reason string) {
	switch {
	case rr.kind == "SOA":
		p.inside = strings.Contains(rr.data, "(") && !strings.Contains(rr.data, ")")
		// Names of the zone itself end in its own name.
		if n, err := dnsname.Parse(rr.owner); err == nil && rr.owner != "@" && strings.HasSuffix(rr.owner, ".") {
			p.origin = n
		}
		return ""
	case rr.kind == "NS", rr.owner == "@", rr.owner == "":
		return ""
	}
	r := &rule{text: line}
	r.kind = exactName
	owner, below := strings.CutPrefix(rr.owner, "*.")
	if below {
		r.kind = belowName
	}
	if strings.HasSuffix(owner, ".") && p.origin != "" {
		owner = strings.TrimSuffix(strings.TrimSuffix(owner, "."), "."+string(p.origin))
	}
	n, reason := parseName(owner)
	if reason != "" {
		return reason
	}
	for _, trigger := range []dnsname.Name{"rpz-ip", "rpz-client-ip", "rpz-nsip", "rpz-nsdname"} {
		if n.IsAtOrBelow(trigger) {
			return "a rule about addresses or servers, not about names"
		}
	}
	r.pattern.text = string(n)
	if reason := r.policyAction(rr.kind, rr.data); reason != "" {
		return reason
	}
	return p.rule(r)
}

// policyAction reads what an RPZ record says is to happen.
func (r *rule) policyAction(kind, data string) (reason string) {
	if kind == "CNAME" {
		switch strings.ToLower(strings.TrimSuffix(data, ".")) {
		case "", "*", "rpz-drop":
			return ""
		case "rpz-passthru":
			r.allow = true
			return ""
		case "rpz-tcp-only":
			return "rpz-tcp-only neither blocks nor allows"
		}
		if strings.Contains(data, "*") {
			return "a CNAME to a wildcard"
		}
		data = strings.TrimSuffix(data, ".")
	}
	if kind == "TXT" {
		data = strings.Trim(data, `"`)
	}
	a, reason := parseAnswer(kind, data)
	if reason != "" {
		return reason
	}
	if !a.LeadsNowhere() {
		r.rewrite, r.answer = rewriteOne, a
	}
	return ""
}
