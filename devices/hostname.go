package devices

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxHostname bounds a hostname, in octets, to what one DNS label can hold.
const maxHostname = 63

// cleanHostname makes a device's own word for itself fit to show. Everything
// in it is the sender's choice: control and bidirectional characters go away,
// what could be markup becomes a dash, and what is left is bounded. Names that
// say nothing come back empty.
func cleanHostname(s string) string {
	var b strings.Builder
	marks, gap := 0, false
	for len(s) > 0 {
		c, n := utf8.DecodeRuneInString(s)
		s = s[n:]
		switch {
		case c == utf8.RuneError && n == 1:
			c = '-'
		case unicode.IsSpace(c):
			c = ' '
		case unicode.In(c, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs):
			continue
		case c == '\'':
			c = '’'
		case unicode.IsMark(c): // two on one letter are writing, ten are a weapon
			if marks++; marks > 2 {
				continue
			}
		case !unicode.IsLetter(c) && !unicode.IsDigit(c) && !unicode.Is(unicode.So, c) && !strings.ContainsRune("-_.,()+:#@’", c):
			c = '-'
		}
		if !unicode.IsMark(c) {
			marks = 0
		}
		if c == ' ' {
			gap = b.Len() > 0
			continue
		}
		need := utf8.RuneLen(c)
		if gap {
			need++
		}
		if b.Len()+need > maxHostname {
			break
		}
		if gap {
			b.WriteByte(' ')
			gap = false
		}
		b.WriteRune(c)
	}
	name := strings.TrimRight(b.String(), " .")
	for _, local := range []string{".local", ".lan"} {
		if n := len(name) - len(local); n > 0 && strings.EqualFold(name[n:], local) {
			name = strings.TrimRight(name[:n], " .")
		}
	}
	switch strings.ToLower(name) {
	case "localhost", "unknown", "none", "null", "(none)", "espressif":
		return ""
	}
	if strings.Trim(name, "-_., ") == "" {
		return ""
	}
	return name
}

// CleanHostname makes a device's own word for itself fit to show, for those who
// have no Registry to do it: no control, bidirectional or markup characters, at
// most 63 octets, "" for names that say nothing.
func CleanHostname(s string) string { return cleanHostname(s) }
