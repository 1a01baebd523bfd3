package proxy

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// framing follows what a device says as HTTP/1 just far enough to know where each head
// begins and ends, and finds the heads that servers read in different ways: with a
// length and a coding at once (RFC 9112 §6.1), with two lengths (§6.3), and with folded
// lines (§5.2). net/http
// reads them in one way and does not tell; by itself the device might have been
// refused. What is broken in other ways net/http refuses. It decides nothing else:
// which request is asked for, and where its body ends, is what net/http says.
type framing struct {
	state framingState
	left  int64  // octets of the body, or of the chunk and its line end
	line  []byte // the beginning of the line in the making
	end   []byte // and its end
	lines int    // of the head

	coded, sized, old, leaves bool // Transfer-Encoding, Content-Length, HTTP/1.0; Upgrade, CONNECT or no number
	length                    int64

	bad bool // there are two readings
}

type framingState uint8

const (
	astray framingState = iota // what comes is not followed: no HTTP/1, or refused by net/http
	inHead
	inBody
	inChunkSize
	inChunk
	inTrailer
)

// What is kept of a line: a name and a number, and a version.
const (
	keptOfLine = 64
	keptOfEnd  = len("HTTP/1.0\r")
)

var errTwoReadings = errors.New("a request that can be read in two ways")

// follow takes what was read. It reports how much of it comes before what shows that
// a request has two readings; without such a request that is all.
func (f *framing) follow(b []byte) (n int) {
	for n < len(b) && !f.bad {
		switch rest := b[n:]; f.state {
		case astray:
			return len(b)
		case inBody, inChunk:
			k := min(int64(len(rest)), f.left)
			n += int(k)
			if f.left -= k; f.left > 0 {
				break
			}
			if f.state == inChunk {
				f.state = inChunkSize
			} else {
				*f = framing{state: inHead}
			}
		default:
			if f.state == inHead && f.lines > 0 && len(f.end) == 0 && (rest[0] == ' ' || rest[0] == '\t') {
				f.bad = true // a folded line
				break
			}
			part, _, whole := bytes.Cut(rest, []byte{'\n'})
			f.line = append(f.line, part[:min(len(part), keptOfLine-len(f.line))]...)
			f.end = append(f.end, part[max(0, len(part)-keptOfEnd):]...)
			f.end = f.end[max(0, len(f.end)-keptOfEnd):]
			if !whole {
				n = len(b)
				break
			}
			line, end := strings.TrimSuffix(string(f.line), "\r"), strings.TrimSuffix(string(f.end), "\r")
			f.line, f.end = f.line[:0], f.end[:0]
			if f.ended(line, end); !f.bad {
				n += len(part) + 1
			}
		}
	}
	return n
}

// ended takes a whole line, of which it is told the beginning and the end.
func (f *framing) ended(line, end string) {
	switch {
	case f.state == inTrailer:
		if line == "" {
			*f = framing{state: inHead}
		}
	case f.state == inChunkSize:
		f.chunk(line)
	case line != "":
		f.field(line, end)
	case f.lines > 0: // else it says nothing (RFC 9112 §2.2)
		f.body()
	}
}

// field takes a line of a head, the request line first.
func (f *framing) field(line, end string) {
	f.lines++
	if f.lines == 1 {
		f.old, f.leaves = strings.HasSuffix(end, "HTTP/1.0"), strings.HasPrefix(line, "CONNECT ")
		return
	}
	name, value, _ := strings.Cut(line, ":")
	switch strings.ToLower(name) {
	case "transfer-encoding":
		f.coded = true
	case "upgrade":
		f.leaves = true
	case "content-length":
		length, err := strconv.ParseUint(strings.TrimSpace(value), 10, 62)
		f.bad = f.sized // even where they agree, some refuse
		f.sized, f.length = true, int64(length)
		f.leaves = f.leaves || err != nil
	}
}

// body begins what comes after a head.
func (f *framing) body() {
	switch {
	case f.coded && (f.sized || f.old):
		f.bad = true
	case f.leaves:
		f.state = astray
	case f.coded:
		f.state = inChunkSize
	case f.length > 0:
		f.state, f.left = inBody, f.length
	default:
		*f = framing{state: inHead}
	}
}

// chunk begins a chunk, or the trailer behind the last one.
func (f *framing) chunk(line string) {
	size, _, _ := strings.Cut(line, ";")
	n, err := strconv.ParseUint(strings.TrimRight(size, " \t"), 16, 62)
	switch {
	case err != nil:
		f.state = astray
	case n == 0:
		f.state = inTrailer
	default:
		f.state, f.left = inChunk, int64(n)+2
	}
}
