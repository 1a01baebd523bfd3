package uci

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Section is one "config TYPE 'NAME'" block. Name is "" for an anonymous one.
type Section struct {
	Type, Name string
	Line       int
	Options    []Option
}

// Option is one value ("option") or several ("list" lines with one key).
type Option struct {
	Key    string
	Values []string
	List   bool
	Line   int // of its first line
}

// Bounds, so that a wrong file (a list, a capture) ends early and clearly.
const (
	maxLine    = 4096
	maxOptions = 4096
)

// Error says where a file is wrong, in the form that editors jump to.
type Error struct {
	File string
	Line int
	Text string
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Text) }

// Parse reads a whole file. name is only used in errors. Every error is found,
// not just the first; each is an *Error, joined.
func Parse(r io.Reader, name string) ([]Section, error) {
	p := parser{file: name}
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 512), maxLine)
	for sc.Scan() {
		p.line++
		p.read(sc.Text())
	}
	if err := sc.Err(); errors.Is(err, bufio.ErrTooLong) {
		p.line++
		p.failf("line is longer than %d octets: this is no configuration file", maxLine)
	} else if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return p.sections, errors.Join(p.errs...)
}

type parser struct {
	file     string
	line     int
	options  int
	sections []Section
	errs     []error
}

func (p *parser) failf(format string, arg ...any) {
	if len(p.errs) < 20 {
		p.errs = append(p.errs, &Error{p.file, p.line, fmt.Sprintf(format, arg...)})
	}
}

func (p *parser) read(line string) {
	words, err := split(line)
	if err != nil {
		p.failf("%v", err)
		return
	}
	if len(words) == 0 {
		return
	}
	switch words[0] {
	case "package":
		if len(words) != 2 {
			p.failf("package needs one name")
		}
	case "config":
		if len(words) < 2 || len(words) > 3 {
			p.failf("config needs a type and perhaps a name: config list 'ads'")
			return
		}
		s := Section{Type: words[1], Line: p.line}
		if len(words) == 3 {
			s.Name = words[2]
		}
		p.sections = append(p.sections, s)
	case "option", "list":
		p.option(words)
	default:
		p.failf("%.40q is not known here: a line begins with config, option, list or #", words[0])
	}
}

func (p *parser) option(words []string) {
	if len(words) != 3 {
		p.failf("%s needs a key and one value, quoted if it holds a space: %s name 'value'", words[0], words[0])
		return
	}
	if len(p.sections) == 0 {
		p.failf("%s %.40s stands before the first config line", words[0], words[1])
		return
	}
	if p.options++; p.options > maxOptions {
		if p.options == maxOptions+1 {
			p.failf("more than %d options: this is no configuration file of ours", maxOptions)
		}
		return
	}
	s := &p.sections[len(p.sections)-1]
	key, value, list := words[1], words[2], words[0] == "list"
	for i := range s.Options {
		o := &s.Options[i]
		switch {
		case o.Key != key:
		case o.List && list:
			o.Values = append(o.Values, value)
			return
		case o.List != list:
			p.failf("%q is an option on line %d and a list elsewhere in the same section", key, o.Line)
			return
		default:
			p.failf("option %q stands twice in this section, first on line %d", key, o.Line)
			return
		}
	}
	s.Options = append(s.Options, Option{Key: key, Values: []string{value}, List: list, Line: p.line})
}

// split cuts a line into words as libuci does: blanks separate; '…' is taken as
// it stands; in "…" and outside quotes a backslash takes the next octet as it
// is; # begins a comment where a word could begin.
func split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	in := false // within a word
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == ' ' || c == '\t' || c == '\r':
			if in {
				words = append(words, word.String())
				word.Reset()
				in = false
			}
		case c == '#' && !in:
			return words, nil
		case c == '\'' || c == '"':
			n, err := quoted(&word, line[i+1:], c)
			if err != nil {
				return nil, err
			}
			in = true
			i += n
		case c == '\\':
			if i+1 == len(line) {
				return nil, errors.New("a backslash at the end of the line joins nothing here: write the value on one line")
			}
			i++
			word.WriteByte(line[i])
			in = true
		case c < ' ' || c == 0x7f:
			return nil, fmt.Errorf("control octet %#02x: this is no text file", c)
		default:
			word.WriteByte(c)
			in = true
		}
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}

// quoted appends what stands between here and the closing quote and returns how
// many octets it took, closing quote included.
func quoted(word *strings.Builder, rest string, quote byte) (int, error) {
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == quote:
			return i + 1, nil
		case c == '\\' && quote == '"' && i+1 < len(rest):
			i++
			word.WriteByte(rest[i])
		default:
			word.WriteByte(c)
		}
	}
	return 0, fmt.Errorf("the quote %c is not closed on this line", quote)
}
