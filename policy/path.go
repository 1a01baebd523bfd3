package policy

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxPath bounds the path of a rule, in octets.
const maxPath = 128

// PathClass is what rules look at of an HTTP request: its method and at most the
// first two segments of its path, as in "GET /collect/v1". target is the request
// target in origin form (RFC 9112 §3.2.1). It is brought into the one form in which
// servers, too, understand it, or a client could write round a rule: escapes undone,
// dot segments and empty segments gone, parameters and query cut off.
func PathClass(method, target string) string { return method + " " + normalPath(target) }

// ParsePath reads the path of a rule: "/collect" or "/collect/v1". Such a rule means
// everything below it, too.
func ParsePath(text string) (string, error) {
	switch {
	case !strings.HasPrefix(text, "/"):
		return "", fmt.Errorf("path %.80q: one that begins with a slash such as /collect is needed", text)
	case len(text) > maxPath:
		return "", fmt.Errorf("path of %d octets: at most %d are compared", len(text), maxPath)
	case strings.ContainsAny(text, "?#;*"):
		return "", fmt.Errorf("path %.80q: leave out what begins with ?, #, ; or *: rules look at the first two segments", text)
	case len(segments(text, 3)) > 2:
		return "", fmt.Errorf("path %.80q: rules look at the first two segments: say %.80q", text, normalPath(text))
	}
	path := normalPath(text)
	switch {
	case path == "/":
		return "", fmt.Errorf("path %.80q is the whole site: leave it out", text)
	case !utf8.ValidString(path) || strings.ContainsFunc(path, func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' }):
		return "", fmt.Errorf("path %.80q: only printable letters without spaces are compared", text)
	}
	return path, nil
}

// normalPath is "/" and at most two segments.
func normalPath(target string) string { return "/" + strings.Join(segments(target, 2), "/") }

// segments are the first most of target's path that stay when "." and ".." are
// followed (RFC 3986 §5.2.4) and parameters cut off (§3.3).
func segments(target string, most int) []string {
	if i := strings.IndexAny(target, "?#"); i >= 0 {
		target = target[:i]
	}
	if strings.IndexByte(target, '%') >= 0 {
		target = unescape(target)
	}
	kept, deep := make([]string, 0, most), 0 // deep counts those beyond the kept ones, too
	for len(target) > 0 {
		i := strings.IndexAny(target, `/\`) // some servers take a backslash for a slash
		segment := target
		if target = target[len(target):]; i >= 0 {
			segment, target = segment[:i], segment[i+1:]
		}
		segment, _, _ = strings.Cut(segment, ";")
		switch segment {
		case "", ".":
		case "..":
			if deep = max(deep-1, 0); deep < len(kept) {
				kept = kept[:deep]
			}
		default:
			if deep < most {
				kept = append(kept, segment)
			}
			deep++
		}
	}
	return kept
}

// unescape undoes percent-encoding (RFC 3986 §2.1); what is no escape stays.
func unescape(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' && i+2 < len(s) {
			high, ok1 := hexDigit(s[i+1])
			low, ok2 := hexDigit(s[i+2])
			if ok1 && ok2 {
				c = high<<4 | low
				i += 2
			}
		}
		b = append(b, c)
	}
	return string(b)
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}

// speaksOf reports whether a rule for path (ParsePath) speaks of class (PathClass).
func speaksOf(path, class string) bool {
	_, asked, _ := strings.Cut(class, " ")
	rest, ok := strings.CutPrefix(asked, path)
	return ok && (rest == "" || rest[0] == '/')
}
