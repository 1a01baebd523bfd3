package blocklist

import (
	"net/netip"
	"strings"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// The languages of name servers: dnsmasq's options and response policy zones
// (draft-vixie-dnsop-dns-rpz). In both what is said of the longest name holds,
// exceptions too; between lists an exception allows as any other does.

// ——— dnsmasq ———

// dnsmasq reads "address=/a/b/0.0.0.0", "server=/a/", "local=/a/": each name
// stands for all below it.
func (p *lineParser) dnsmasq(key, value, line string) (reason string) {
	i := strings.LastIndexByte(value, '/')
	if key != "address" && key != "server" && key != "local" {
		return "a dnsmasq option that is no rule about names"
	}
	if i < 1 || value[0] != '/' {
		return "a name between slashes is missing"
	}
	names, target := value[1:i], strings.TrimSpace(value[i+1:])
	base := rule{text: line, zone: true}
	base.kind = subtreeName
	switch {
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
		if why := r.cover(name, target); why != "" {
			reason = why
		} else if why = p.rule(&r); why != "" {
			reason = why
		}
	}
	return reason
}

// cover sets what a name between dnsmasq's slashes covers.
func (r *rule) cover(name, target string) (reason string) {
	name = strings.TrimPrefix(name, ".")
	switch {
	case name == "#" && target != "" && !r.allow:
		r.pattern = pattern{kind: anyName}
		return ""
	case name == "#":
		return "without an address it says nothing about any name"
	case name == "":
		return "names without a dot are the house's own"
	case strings.HasPrefix(name, "*."):
		r.kind, name = belowName, name[2:]
	case name[0] == '*':
		r.kind, r.end, name = wildName, true, name[1:]
	}
	n, reason := parseName(name)
	r.pattern.text = string(n)
	return reason
}

// ——— RPZ ———

// zone is what a record of a response policy zone needs of the lines before it.
type zone struct {
	apex   dnsname.Name // its own name, with which absolute names end; "" when it is not known
	prefix string       // $ORIGIN below the apex
	root   bool         // $ORIGIN is the root: all names are absolute
	owner  string       // of the last record
	open   []string     // words of a record whose parentheses are not closed yet
	text   string       // its first line
}

// maxRecordWords bounds a record of many lines.
const maxRecordWords = 64

func isDirective(word string) bool {
	switch word {
	case "$TTL", "$ORIGIN", "$INCLUDE", "$GENERATE":
		return true
	}
	return false
}

// direct reads a line that says how the others are to be read.
func (z *zone) direct(word, value string) (reason string) {
	switch word {
	case "$TTL":
		return ""
	case "$INCLUDE", "$GENERATE":
		return "a zone's " + word + " is not followed"
	}
	value, _, _ = strings.Cut(value, ";")
	value = strings.TrimSpace(value)
	n, err := dnsname.Parse(value)
	if err != nil {
		return err.Error()
	}
	z.root = value == "."
	switch rest, below := strings.CutSuffix(string(n), "."+string(z.apex)); {
	case z.root:
		z.prefix = ""
	case !strings.HasSuffix(value, "."): // below the one before
		z.prefix = string(n) + dotted(z.prefix)
		if z.apex == "" && z.owner == "" {
			z.apex, z.prefix = n, "" // said carelessly before anything else
		}
	case z.apex != "" && below:
		z.prefix = rest
	default:
		z.apex, z.prefix = n, ""
	}
	return ""
}

func dotted(s string) string {
	if s == "" {
		return ""
	}
	return "." + s
}

// nameOf is the name that an owner is about, which the policy zone's own name
// follows; "" for the zone itself.
func (z *zone) nameOf(owner string) string {
	switch {
	case owner == "@":
		return z.prefix
	case strings.HasSuffix(owner, ".") || z.root:
		owner = strings.TrimSuffix(owner, ".")
		if n, err := dnsname.Parse(owner); err == nil && z.apex != "" && n == z.apex {
			return ""
		}
		if cut := len(owner) - len(z.apex) - 1; z.apex != "" && cut > 0 && owner[cut] == '.' && strings.EqualFold(owner[cut+1:], string(z.apex)) {
			owner = owner[:cut]
		}
		return owner
	}
	return owner + dotted(z.prefix)
}

// isRecord reports whether a line reads "owner [ttl] [class] TYPE data", or without
// an owner when blank. No other kind of line has a type as its second to fourth word.
func isRecord(line string, blank bool) bool {
	rest, more := line, true
	if !blank {
		_, rest, more = cutField(line)
	}
	for range 4 {
		var word string
		if !more {
			return false
		}
		word, rest, more = cutField(rest)
		switch {
		case isZoneType(word):
			return rest != ""
		case word != "(" && !isZoneWord(word):
			return false
		}
	}
	return false
}

// isZoneWord reports whether w can stand before the type: a TTL or a class.
func isZoneWord(w string) bool {
	if strings.EqualFold(w, "IN") {
		return true
	}
	return w != "" && w[0] >= '0' && w[0] <= '9' && strings.Trim(w, "0123456789smhdwSMHDW") == ""
}

func isZoneType(w string) bool {
	switch strings.ToUpper(w) {
	case "CNAME", "A", "AAAA", "SOA", "NS", "TXT", "MX", "SRV", "HTTPS", "SVCB", "PTR":
		return true
	}
	return false
}

// zoneWords splits a line of a zone; a quoted word keeps its quotes. What follows a
// ";" is left out, and so are parentheses, of which depth says how many stay open.
func zoneWords(line string) (words []string, depth int) {
	begin, quoted := -1, false
	end := func(i int) {
		if begin >= 0 {
			words = append(words, line[begin:i])
		}
		begin = -1
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '"':
			if quoted {
				end(i + 1)
			} else {
				end(i)
				begin = i
			}
			quoted = !quoted
		case quoted:
		case c == ';':
			end(i)
			return words, depth
		case c == '(', c == ')':
			end(i)
			depth += int(bit(c == '(')) - int(bit(c == ')'))
		case c == ' ', c == '\t':
			end(i)
		case begin < 0:
			begin = i
		}
	}
	end(len(line))
	return words, depth
}

// goOn reads a further line of a record in parentheses.
func (p *lineParser) goOn(line string) (reason string) {
	words, depth := zoneWords(line)
	z := &p.zone
	z.open = append(z.open, words...)
	switch {
	case len(z.open) > maxRecordWords:
		z.open = nil
		return unclosed
	case depth >= 0:
		return ""
	}
	words, z.open = z.open, nil
	return p.policy(words, z.text)
}

const unclosed = "a parenthesis in front of it is not closed"

// record reads a line that isRecord.
func (p *lineParser) record(line string, blank bool) (reason string) {
	words, depth := zoneWords(line)
	if blank {
		words = append([]string{p.zone.owner}, words...)
	}
	if depth > 0 {
		p.zone.open, p.zone.text = words, line
		return ""
	}
	return p.policy(words, line)
}

// policy reads the words of one record.
func (p *lineParser) policy(words []string, text string) (reason string) {
	z := &p.zone
	if len(words) == 0 {
		return "an owner is missing"
	}
	owner, words := words[0], words[1:]
	for len(words) > 0 && isZoneWord(words[0]) {
		words = words[1:]
	}
	if len(words) < 2 {
		return "data is missing behind the type"
	}
	kind, data := strings.ToUpper(words[0]), words[1:]
	z.owner = owner
	if kind == "SOA" {
		if n, err := dnsname.Parse(owner); err == nil && owner != "@" && (z.root || strings.HasSuffix(owner, ".")) {
			z.apex, z.prefix = n, ""
		}
		return ""
	}
	name := z.nameOf(owner)
	if kind == "NS" || name == "" {
		return ""
	}
	r := &rule{text: text, zone: true}
	r.kind = exactName
	if name == "*" {
		r.kind = anyName
	} else {
		rest, below := strings.CutPrefix(name, "*.")
		if below {
			r.kind = belowName
		}
		n, reason := parseName(rest)
		if reason != "" {
			return reason
		}
		for _, trigger := range []dnsname.Name{"rpz-ip", "rpz-client-ip", "rpz-nsip", "rpz-nsdname"} {
			if n.IsAtOrBelow(trigger) {
				return "a rule about addresses or servers, not about names"
			}
		}
		r.pattern.text = string(n)
	}
	if reason := r.act(kind, data); reason != "" {
		return reason
	}
	return p.rule(r)
}

// act reads what a record says is to happen.
func (r *rule) act(kind string, data []string) (reason string) {
	value := strings.Join(data, " ")
	switch kind {
	case "CNAME":
		value = strings.TrimSuffix(value, ".")
		switch target := strings.ToLower(value); {
		case target == "", target == "*", target == "rpz-drop":
			return ""
		case target == "rpz-passthru", r.kind == exactName && target == r.pattern.text: // the second is how it was said at first
			r.allow = true
			return ""
		case target == "rpz-tcp-only":
			return "rpz-tcp-only neither blocks nor allows"
		case strings.Contains(target, "*"):
			return "a CNAME to a wildcard"
		}
	case "TXT": // strings of one record stand for one text
		for i := range data {
			data[i] = strings.Trim(data[i], `"`)
		}
		value = strings.Join(data, "")
	}
	a, reason := parseAnswer(kind, value)
	if reason != "" {
		return reason
	}
	if !a.LeadsNowhere() {
		r.rewrite, r.answer = rewriteOne, a
	}
	return ""
}
