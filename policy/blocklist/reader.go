package blocklist

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Why a whole list is refused. Errors wrap one of these.
var (
	ErrHTML    = errors.New("it is a web page, not a list")
	ErrBinary  = errors.New("it is not text")
	ErrEmpty   = errors.New("it holds no rule")
	ErrTooLong = errors.New("it is over the cap")
	ErrShrunk  = errors.New("it has far fewer rules than before")
)

// DefaultBytes is the most text that one list may have, in octets, where Limits say
// nothing else.
const DefaultBytes = 64 << 20

// Limits bound what one list may cost. A zero field means its default.
type Limits struct {
	Bytes int64 // of text; DefaultBytes
	Rules int   // 5,000,000
}

func (l Limits) withDefaults() Limits {
	if l.Bytes == 0 {
		l.Bytes = DefaultBytes
	}
	if l.Rules == 0 {
		l.Rules = 5_000_000
	}
	return l
}

const (
	maxLine    = 4096 // octets; longer lines are rejected
	maxRejects = 100  // kept in a Report; all are counted
	sniffBytes = 1024 // what is looked at before a list is believed to be text
)

// Reject is a line that was not understood.
type Reject struct {
	List   string
	Line   int
	Text   string // cut to 80 octets; the list's own, so hostile
	Reason string
}

// String is "list:line: text: reason" with the text escaped.
func (r Reject) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", r.List, r.Line, strings.Trim(fmt.Sprintf("%q", r.Text), `"`), r.Reason)
}

// Report is what was found in one list.
type Report struct {
	List     string
	Bytes    int64
	Lines    int
	Rules    int // that were understood, before equal ones are joined
	Complex  int // of them those that need more than a name: modifiers, *, regular expressions
	Rejected int // lines
	Rejects  []Reject
}

func (r *Report) reject(line int, text, reason string) {
	r.Rejected++
	if len(r.Rejects) < maxRejects {
		if len(text) > 80 {
			text = text[:80]
		}
		r.Rejects = append(r.Rejects, Reject{List: r.List, Line: line, Text: strings.Clone(text), Reason: reason})
	}
}

// read hands every rule of a list to emit, which may reject it with a reason, or
// refuse to go on.
func read(list string, src io.Reader, limits Limits, emit func(parsed) (reason string, err error)) (Report, error) {
	return readLines(list, src, limits, func(_ int, _ string, p parsed) (string, error) { return emit(p) })
}

// readLines is read, and says on which line a rule stands.
func readLines(list string, src io.Reader, limits Limits, emit func(line int, text string, p parsed) (reason string, err error)) (Report, error) {
	rep := Report{List: list}
	src, err := unzipped(src)
	if err != nil {
		return rep, fmt.Errorf("reading list %q: %w", list, err)
	}
	counted := &countingReader{r: src, left: limits.Bytes}
	in := bufio.NewReaderSize(counted, maxLine)
	head, err := in.Peek(sniffBytes)
	if err != nil && err != io.EOF && err != bufio.ErrBufferFull {
		return rep, fmt.Errorf("reading list %q: %w", list, err)
	}
	if err := sniff(head); err != nil {
		return rep, fmt.Errorf("list %q: %w", list, err)
	}
	if bytes.HasPrefix(head, []byte("\xef\xbb\xbf")) {
		_, _ = in.Discard(3) // the octets were just peeked at
	}

	var emitErr error
	var text string // with its number, where what is being read began: a record may go on for lines
	var number int
	parser := lineParser{emit: func(p parsed) (reason string) {
		if emitErr != nil {
			return ""
		}
		if reason, emitErr = emit(number, text, p); reason != "" {
			return reason
		}
		rep.Rules++
		rep.Complex += int(bit(p.more != nil))
		return ""
	}}
	for {
		line, long, err := readLine(in)
		if err == io.EOF {
			break
		}
		if err != nil {
			return rep, fmt.Errorf("reading list %q after line %d: %w", list, rep.Lines, err)
		}
		rep.Lines++
		said := string(line)
		if parser.zone.open == nil {
			number, text = rep.Lines, said
		}
		switch {
		case long:
			rep.reject(rep.Lines, said, fmt.Sprintf("longer than %d octets", maxLine))
		case bytes.IndexByte(line, 0) >= 0:
			return rep, fmt.Errorf("list %q: line %d holds a zero octet: %w", list, rep.Lines, ErrBinary)
		case !utf8.Valid(line):
			rep.reject(rep.Lines, said, "not UTF-8")
		default:
			if reason := parser.line(said); reason != "" {
				rep.reject(number, text, reason)
			}
		}
		if emitErr != nil {
			return rep, fmt.Errorf("list %q: %w", list, emitErr)
		}
		if rep.Rules > limits.Rules {
			return rep, fmt.Errorf("list %q: more than %d rules: %w", list, limits.Rules, ErrTooLong)
		}
	}
	if parser.zone.open != nil {
		rep.reject(number, text, unclosed)
	}
	rep.Bytes = counted.n
	if rep.Rules == 0 {
		return rep, fmt.Errorf("list %q: %w among its %d lines", list, ErrEmpty, rep.Lines)
	}
	return rep, nil
}

// unzipped reads a list that was packed by gzip, as some are kept and sent; what
// bounds a list bounds what comes out.
func unzipped(src io.Reader) (io.Reader, error) {
	in := bufio.NewReaderSize(src, maxLine)
	if head, err := in.Peek(2); err != nil || string(head) != "\x1f\x8b" {
		return in, nil // whoever reads on meets the error again
	}
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, ErrBinary
	}
	return z, nil
}

// readLine returns the next line without its end. Of a line that is too long it
// returns the beginning and skips the rest.
func readLine(in *bufio.Reader) (line []byte, long bool, err error) {
	line, err = in.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		line = bytes.Clone(line[:80])
		for err == bufio.ErrBufferFull {
			_, err = in.ReadSlice('\n')
		}
		if err == io.EOF {
			err = nil
		}
		return line, true, err
	}
	if err == io.EOF && len(line) > 0 {
		err = nil
	}
	return bytes.TrimRight(line, "\r\n"), false, err
}

// sniff refuses what is plainly no list by its first octets: the log-in page of
// a hotel, an archive, a picture.
func sniff(head []byte) error {
	text := bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n")
	if len(text) == 0 {
		return ErrEmpty
	}
	if text[0] == '<' {
		return ErrHTML
	}
	if utf16 := string(head[:min(2, len(head))]); utf16 == "\xff\xfe" || utf16 == "\xfe\xff" {
		return fmt.Errorf("%w that is read here but UTF-16; save it as UTF-8", ErrBinary)
	}
	lower := bytes.ToLower(text)
	for _, tag := range []string{"<!doctype", "<html", "<head", "<body", "<script"} {
		if bytes.Contains(lower, []byte(tag)) && !bytes.Contains(lower, []byte("\n||")) {
			return ErrHTML
		}
	}
	for _, c := range head {
		if c < ' ' && c != '\t' && c != '\r' && c != '\n' && c != '\f' {
			return ErrBinary
		}
	}
	return nil
}

// countingReader counts octets and fails at the cap.
type countingReader struct {
	r    io.Reader
	n    int64
	left int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	if c.left <= 0 {
		var one [1]byte
		if n, err := c.r.Read(one[:]); n == 0 {
			return 0, err
		}
		return 0, fmt.Errorf("more than %d octets: %w", c.n, ErrTooLong)
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.left -= int64(n)
	return n, err
}
