package blocklist

import (
	"net"
	"net/netip"
	"strings"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// parseAdblock reads one rule of the adblock-style DNS language.
func parseAdblock(line string) (r *rule, reason string) {
	for _, mark := range []string{"##", "#@#", "#?#", "#$#", "#%#", "$$", "$@$"} {
		if i := strings.Index(line, mark); i >= 0 && !strings.HasPrefix(line, "/") && !strings.HasPrefix(line, "@@/") {
			return nil, "a rule about the look of a page, not about names"
		}
	}
	r = &rule{text: line}
	text, allow := strings.CutPrefix(line, "@@")
	r.allow = allow
	body, modifiers, isRegexp := cutModifiers(text)
	if modifiers != "" {
		if reason := r.parseModifiers(modifiers); reason != "" {
			return nil, reason
		}
	}
	if isRegexp {
		r.pattern, reason = parseRegexp(body)
	} else {
		r.pattern, reason = parsePattern(body)
	}
	switch {
	case reason != "":
		return nil, reason
	case !isRegexp && len(body) < minPattern && len(r.clients)+len(r.tags)+len(r.types)+len(r.deny) == 0:
		return nil, "it would cover too many names; ||*^ says that all are meant"
	case r.rewrite == rewriteAll && !r.allow:
		r.rewrite, r.answer = rewriteOne, Answer{"RCODE", "NOERROR"}
	}
	return r, ""
}

// minPattern is how many octets a pattern needs that nothing else narrows down:
// nobody means all names that end with a letter.
const minPattern = 3

// cutModifiers splits a rule behind its pattern. Of a regular expression it
// returns what is between the slashes.
func cutModifiers(s string) (body, modifiers string, isRegexp bool) {
	if len(s) > 2 && s[0] == '/' {
		for i := 1; i < len(s); i++ {
			switch {
			case s[i] == '\\':
				i++
			case s[i] == '/' && i > 1 && i == len(s)-1:
				return s[1:i], "", true
			case s[i] == '/' && i > 1 && s[i+1] == '$' && (i+2 == len(s) || isModifierStart(s[i+2])):
				return s[1:i], s[i+2:], true
			}
		}
	}
	body, modifiers, _ = strings.Cut(s, "$")
	return body, modifiers, false
}

// isModifierStart tells "/x/$important" from a regular expression in which "/$" stands.
func isModifierStart(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '~' || c == ' ' || c == ','
}

// splitItems splits s at sep, but not where it is escaped or inside quotes.
func splitItems(s string, sep byte) (items []string) {
	var quote byte
	begin := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			i++
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case (c == '\'' || c == '"') && (i == begin || s[i-1] == '=' || s[i-1] == '~' || s[i-1] == '|'):
			quote = c
		case c == sep:
			items = append(items, s[begin:i])
			begin = i + 1
		}
	}
	if quote != 0 && sep == ',' { // never closed: then it was no quote
		return strings.Split(s, ",")
	}
	return append(items, s[begin:])
}

func (r *rule) parseModifiers(s string) (reason string) {
	for _, item := range splitItems(s, ',') {
		key, value, hasValue := strings.Cut(item, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		switch key {
		case "": // a comma too many
			if hasValue {
				return "a modifier without a name"
			}
		case "important", "badfilter":
			if hasValue {
				return "$" + key + " takes no value"
			}
			r.important = r.important || key == "important"
			r.bad = r.bad || key == "badfilter"
		case "dnstype": // of a modifier that is there twice, the last counts
			r.types = nil
			reason = r.parseTypes(value)
		case "client":
			r.clients = nil
			reason = r.parseClients(value)
		case "ctag":
			r.tags = nil
			reason = r.parseTags(value)
		case "denyallow":
			r.deny = nil
			reason = r.parseDeny(value)
		case "dnsrewrite":
			if value == "" {
				r.rewrite = rewriteAll
			} else {
				r.rewrite = rewriteOne
				r.answer, reason = parseRewrite(strings.ReplaceAll(value, `\,`, ","))
			}
		default:
			return "an unknown modifier"
		}
		if reason != "" {
			return reason
		}
	}
	return ""
}

// maxItems is how many types, clients, tags or names a modifier may list.
const maxItems = 250

func items(value, key string) (list []string, reason string) {
	if value == "" {
		return nil, "$" + key + " without a value"
	}
	list = splitItems(value, '|')
	if len(list) > maxItems {
		return nil, "$" + key + " with too many values"
	}
	for _, s := range list {
		if strings.TrimPrefix(s, "~") == "" {
			return nil, "$" + key + " with an empty value"
		}
	}
	return list, ""
}

func (r *rule) parseTypes(value string) (reason string) {
	list, reason := items(value, "dnstype")
	for _, s := range list {
		name, not := strings.CutPrefix(s, "~")
		kind := parseType(strings.TrimSpace(name))
		if kind == 0 {
			return "$dnstype names an unknown type"
		}
		r.types = append(r.types, typeItem{not, kind})
	}
	return reason
}

func (r *rule) parseTags(value string) (reason string) {
	list, reason := items(value, "ctag")
	for _, s := range list {
		tag, not := strings.CutPrefix(s, "~")
		for i := 0; i < len(tag); i++ {
			if c := tag[i]; c == '.' || !isNameOctet(c) {
				return "$ctag with a character that no tag has"
			}
		}
		if len(tag) > 255 {
			return "$ctag too long"
		}
		r.tags = append(r.tags, textItem{not, tag})
	}
	return reason
}

func (r *rule) parseDeny(value string) (reason string) {
	list, reason := items(value, "denyallow")
	for _, s := range list {
		n, reason := parseName(s)
		if reason != "" {
			return "$denyallow: " + reason
		}
		r.deny = append(r.deny, n)
	}
	return reason
}

func (r *rule) parseClients(value string) (reason string) {
	list, reason := items(value, "client")
	for _, s := range list {
		s, not := strings.CutPrefix(s, "~")
		c := clientItem{not: not}
		if q := s[0]; len(s) >= 2 && (q == '\'' || q == '"') && s[len(s)-1] == q {
			s = s[1 : len(s)-1]
		}
		s = unescape(s)
		if s == "" || len(s) > 255 {
			return "$client without a name, or with one that is too long"
		}
		c.kind, c.text = readClient(s)
		r.clients = append(r.clients, c)
	}
	return reason
}

// readClient tells addresses, prefixes and hardware addresses from names.
func readClient(s string) (clientKind, string) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return clientPrefix, prefixText(netip.PrefixFrom(a, a.BitLen()))
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return clientPrefix, prefixText(p)
	}
	if m, err := net.ParseMAC(s); err == nil && len(m) == 6 {
		return clientMAC, string(m)
	}
	return clientName, s
}

// prefixText is 16 octets of address and one of length, of 128.
func prefixText(p netip.Prefix) string {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	a := p.Masked().Addr().As16()
	return string(a[:]) + string([]byte{byte(bits)})
}

// unescape takes away the backslashes before quotes, commas and bars.
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && strings.IndexByte(`'",|`, s[i+1]) >= 0 {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// maxStars bounds what it takes to try a pattern.
const maxStars = 10

// parsePattern reads what is left of a rule without @@ and modifiers. Patterns
// were made for addresses of pages: there the name stands behind "://", and ^ is
// any octet that no name has, or the end.
func parsePattern(s string) (p pattern, reason string) {
	s = strings.ToLower(s)
	switch {
	case strings.Trim(s, "|^") == "" && strings.Contains(s, "^"):
		return p, "a ^ alone never matches"
	case strings.HasPrefix(s, "||"):
		p.start, s = labelStart, s[2:]
	case strings.HasPrefix(s, "|"):
		p.start, s = nameStart, s[1:]
	}
	// Whatever of "http://" is there stands right before the name.
	if i := strings.Index(s, "//"); i >= 0 && (i == 0 || strings.HasSuffix(s[:i], ":")) {
		switch s[:i] {
		case "", ":", "http:", "https:", "*:":
			p.start, s = nameStart, s[i+2:]
		default:
			return p, pageReason
		}
		if s == "" {
			return p, "a rule without a name"
		}
	} else if p.start == anywhere && strings.HasPrefix(s, "/") {
		// "/ads." is the slash before a name; "/ads.js" and "/ads-" are about a page.
		if !strings.HasSuffix(s, ".") {
			return p, pageReason
		}
		p.start, s = nameStart, s[1:]
	}
	if rest, ok := strings.CutPrefix(s, "*."); ok && p.start == anywhere && !strings.ContainsAny(rest, "*^|/:") {
		n, reason := parseName(rest)
		return pattern{kind: belowName, text: string(n)}, reason
	}
	// Stars at the end say "and whatever follows".
	open := s
	for s != "" && s[len(s)-1] == '*' {
		s = s[:len(s)-1]
	}
	if s != "" && s[len(s)-1] == '/' && (p.start != anywhere || s != open) && strings.IndexByte(s[:len(s)-1], '/') < 0 {
		p.end, s = true, s[:len(s)-1] // "||x.example/*" is the whole of a site
	} else {
		s, p.end = cutEnd(s, s == open)
		if cut := strings.TrimRight(s, "*"); cut != s {
			s, p.end = cut, false // "x*^" ends wherever it likes
		}
	}
	for s != "" && s[0] == '*' {
		p.start, s = anywhere, s[1:]
	}
	switch {
	case strings.ContainsAny(s, "/?="):
		return p, pageReason
	case strings.ContainsRune(s, ':'):
		return p, "a port: what covers a name covers all of its ports"
	case strings.ContainsAny(s, "^|"):
		return p, "a ^ or | inside a name never matches"
	}
	if p.end {
		s = strings.TrimSuffix(s, ".")
	}
	if s == "" {
		return pattern{kind: anyName}, ""
	}
	return p.settle(s)
}

// cutEnd takes the anchors ^ and | from the end; a | counts only where nothing follows.
func cutEnd(s string, last bool) (rest string, end bool) {
	if last {
		s, end = strings.CutSuffix(s, "|")
	}
	cut := strings.TrimRight(s, "^")
	return cut, end || cut != s
}

// settle finds the plainest kind that means the same.
func (p pattern) settle(s string) (_ pattern, reason string) {
	if !strings.Contains(s, "*") && p.end {
		switch {
		case p.start == anywhere && s[0] == '.':
			p.kind, s = belowName, s[1:]
		case p.start == labelStart:
			p.kind = subtreeName
		case p.start == nameStart:
			p.kind = exactName
		}
		if p.kind != anyName {
			n, reason := parseName(s)
			return pattern{kind: p.kind, text: string(n)}, reason
		}
	}
	if s, reason = asciiPattern(s); reason != "" {
		return p, reason
	}
	switch {
	case len(s) > 253:
		return p, "longer than any name"
	case strings.Count(s, "*") > maxStars:
		return p, "more than 10 * in one rule"
	}
	p.kind, p.text = wildName, s
	return p, ""
}

// asciiPattern turns the Unicode labels of a pattern into A-labels and checks the rest.
func asciiPattern(s string) (_ string, reason string) {
	labels := strings.Split(s, ".")
	for i, l := range labels {
		ascii := true
		for j := 0; j < len(l); j++ {
			ascii = ascii && l[j] < 0x80
			if l[j] < 0x80 && l[j] != '*' && !isNameOctet(l[j]) {
				return "", "a character that no name has"
			}
		}
		if ascii {
			continue
		}
		n, err := dnsname.Parse(l)
		if err != nil || strings.Contains(l, "*") {
			return "", "a * beside letters that are not ASCII"
		}
		labels[i] = string(n)
	}
	return strings.Join(labels, "."), ""
}

// wildMatch reports whether name fits: start, then text with * for any octets,
// then the end or anything.
func wildMatch[T ~string | ~[]byte](start startKind, text T, end bool, name string) bool {
	if start != anywhere {
		if globMatch(text, end, false, name) {
			return true
		}
		if start == nameStart {
			return false
		}
		for i := 0; i < len(name); i++ {
			if name[i] == '.' && globMatch(text, end, false, name[i+1:]) {
				return true
			}
		}
		return false
	}
	return globMatch(text, end, true, name)
}

// globMatch walks both once, going back to the last star only: at most
// len(text)×len(name) steps.
func globMatch[T ~string | ~[]byte](text T, end, star bool, name string) bool {
	t, n := 0, 0
	backT, backN := -1, 0
	if star {
		backT = 0
	}
	for {
		switch {
		case t == len(text) && (!end || n == len(name)):
			return true
		case t < len(text) && text[t] == '*':
			t++
			backT, backN = t, n
			continue
		case t < len(text) && n < len(name) && text[t] == name[n]:
			t, n = t+1, n+1
			continue
		}
		if backT < 0 || backN >= len(name) {
			return false
		}
		backN++
		t, n = backT, backN
	}
}
