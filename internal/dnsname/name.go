package dnsname

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Name is a domain name in lower-case A-label form without a trailing dot.
// The empty Name is the root. Make one with Parse; a Name made by conversion
// must already be in this form.
type Name string

// Limits of RFC 1035 §2.3.4, in octets of presentation form.
const (
	maxName  = 253
	maxLabel = 63
)

var errTooLong = errors.New("longer than 253 octets")

// Parse normalises the presentation form of a domain name: it lowers the case,
// removes one trailing dot and turns Unicode labels into A-labels (RFC 5891).
// Underscores are kept, for devices look them up. It never allocates when s is
// already normal.
func Parse(s string) (Name, error) {
	s = strings.TrimSuffix(s, ".")
	if s == "" {
		return "", nil
	}
	// No name that fits is longer in UTF-8, and punycode's effort grows with the
	// square of the length.
	if len(s) > 4*maxName {
		return "", fmt.Errorf("name %.80q: %w", s, errTooLong)
	}
	normal, ascii := true, true
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 0x80:
			ascii = false
		case c >= 'A' && c <= 'Z':
			normal = false
		case c <= ' ' || c == 0x7f:
			return "", fmt.Errorf("name %.80q: octet %#02x is not allowed", s, c)
		}
	}
	if !ascii {
		if !utf8.ValidString(s) {
			return "", fmt.Errorf("name %.80q: it is not UTF-8", s)
		}
		a, err := idna.Lookup.ToASCII(s)
		if err != nil {
			return "", fmt.Errorf("name %.80q: %w", s, err)
		}
		s = a
	} else if !normal {
		s = strings.ToLower(s)
	}
	if len(s) > maxName {
		return "", fmt.Errorf("name %.80q: %w", s, errTooLong)
	}
	for rest := s; ; {
		label, tail, more := strings.Cut(rest, ".")
		if label == "" || len(label) > maxLabel {
			return "", fmt.Errorf("name %.80q: a label has %d octets, 1 to 63 are allowed", s, len(label))
		}
		if !more {
			return Name(s), nil
		}
		rest = tail
	}
}

// Parent is n without its first label; the parent of a single label is the root.
func (n Name) Parent() Name {
	if i := strings.IndexByte(string(n), '.'); i >= 0 {
		return n[i+1:]
	}
	return ""
}

// IsAtOrBelow reports whether n is zone itself or a name below it.
func (n Name) IsAtOrBelow(zone Name) bool {
	if zone == "" || n == zone {
		return true
	}
	return len(n) > len(zone) && strings.HasSuffix(string(n), string(zone)) && n[len(n)-len(zone)-1] == '.'
}
