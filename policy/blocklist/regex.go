package blocklist

import (
	"regexp"
	"regexp/syntax"
	"strings"
)

// What a list's regular expressions may cost: RE2 never runs away, but each one
// that has to be tried costs a hundred times what a name does.
const (
	maxRegexps     = 500  // in one index
	maxRegexpText  = 512  // octets
	maxRegexpSteps = 300  // instructions when compiled
	maxEverySteps  = 4000 // instructions of all that have to be tried on every name
)

// parseRegexp checks the source of a regular expression. The shapes that lists
// write where they mean a name become one.
func parseRegexp(source string) (p pattern, reason string) {
	if p, ok := nameOfRegexp(source); ok {
		return p, ""
	}
	if len(source) > maxRegexpText {
		return p, "a regular expression longer than 512 octets"
	}
	if strings.IndexFunc(source, func(r rune) bool { return r >= 'A' && r <= 'Z' }) >= 0 {
		source = "(?i)" + source
	}
	if _, reason := compileRegexp(source); reason != "" {
		return p, reason
	}
	return pattern{kind: regexpName, text: source}, ""
}

func compileRegexp(source string) (*regexp.Regexp, string) {
	tree, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return nil, "a regular expression that RE2 does not know: " + string(errorCode(err))
	}
	if steps(tree) > maxRegexpSteps {
		return nil, "a regular expression of too many steps"
	}
	re, err := regexp.Compile(source)
	if err != nil {
		return nil, "a regular expression that RE2 does not know"
	}
	return re, ""
}

// steps is what a regular expression costs at each octet, at worst.
func steps(tree *syntax.Regexp) int {
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return maxRegexpSteps + 1
	}
	return len(prog.Inst)
}

func stepsOf(source string) int {
	tree, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return maxRegexpSteps + 1
	}
	return steps(tree)
}

func errorCode(err error) syntax.ErrorCode {
	if e, ok := err.(*syntax.Error); ok {
		return e.Code
	}
	return syntax.ErrInternalError
}

// nameOfRegexp reads "^(.*\.)?x\.example$" and its like as what they mean.
func nameOfRegexp(source string) (p pattern, ok bool) {
	s, ok := strings.CutSuffix(source, "$")
	if !ok || strings.HasSuffix(s, `\`) {
		return p, false
	}
	kinds := []struct {
		before string
		kind   patternKind
	}{
		{`^(.*\.)?`, subtreeName}, {`^(?:.*\.)?`, subtreeName}, {`^(.+\.)?`, subtreeName}, {`^(?:.+\.)?`, subtreeName},
		{`(^|\.)`, subtreeName}, {`(?:^|\.)`, subtreeName}, {`(\.|^)`, subtreeName}, {`(?:\.|^)`, subtreeName},
		{`^(.*\.)`, belowName}, {`^.*\.`, belowName}, {`^.+\.`, belowName}, {`\.`, belowName},
		{`^`, exactName},
	}
	for _, k := range kinds {
		rest, ok := strings.CutPrefix(s, k.before)
		if !ok {
			continue
		}
		literal, ok := literalOf(rest)
		if !ok {
			return p, false
		}
		n, reason := parseName(literal)
		return pattern{kind: k.kind, text: string(n)}, reason == "" && string(n) == literal
	}
	return p, false
}

// literalOf reads a source without any operator.
func literalOf(source string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(source); i++ {
		c := source[i]
		switch {
		case c == '\\' && i+1 < len(source) && (source[i+1] == '.' || source[i+1] == '-'):
			i++
			b.WriteByte(source[i])
		case c != '.' && isNameOctet(c):
			b.WriteByte(c)
		default:
			return "", false
		}
	}
	return b.String(), b.Len() > 0
}

// literalIn is the longest text that every name which source matches must hold; "" when there is none.
func literalIn(source string) string {
	tree, err := syntax.Parse(source, syntax.Perl)
	if err != nil {
		return ""
	}
	return required(tree.Simplify())
}

func required(t *syntax.Regexp) (longest string) {
	switch t.Op {
	case syntax.OpLiteral:
		s := strings.ToLower(string(t.Rune))
		for i := 0; i < len(s); i++ {
			if !isNameOctet(s[i]) {
				return ""
			}
		}
		return s
	case syntax.OpConcat:
		for _, sub := range t.Sub {
			if s := required(sub); len(s) > len(longest) {
				longest = s
			}
		}
		return longest
	case syntax.OpCapture, syntax.OpPlus:
		return required(t.Sub[0])
	case syntax.OpRepeat:
		if t.Min > 0 {
			return required(t.Sub[0])
		}
	}
	return ""
}
