package proxy

import (
	"bytes"

	"github.com/netcurtain/netcurtain/flow/dissect"
)

// maxPeek bounds what is read of a connection before it is decided: the largest
// ClientHello that we collect, with its record headers.
const maxPeek = 16 << 10

// tlsRecord is the type of a record that carries a handshake (RFC 8446 §5.1).
const tlsRecord = 22

// firstPeek is what most of them need: a slow client does not hold more.
const firstPeek = 2 << 10

// speech is what a client's first bytes turn out to be.
type speech uint8

const (
	undetermined speech = iota // more bytes are needed
	speaksTLS
	speaksHTTP
	speaksOther
	// speaksGarbled begins as TLS does, with a hello that we cannot read: too long,
	// most likely. A server may read it all the same, so it is not carried unjudged.
	speaksGarbled
)

// classify says what b, the beginning of a stream, is. It goes by the bytes
// alone, so that TLS on port 80 and HTTP on port 443 are judged by name too.
func classify(b []byte) (speech, dissect.Hello) {
	if len(b) == 0 {
		return undetermined, dissect.Hello{}
	}
	hello, status := dissect.ParseClientHello(b)
	switch {
	case status == dissect.Complete:
		return speaksTLS, hello
	case status == dissect.NeedMore:
		return undetermined, hello
	case len(b) >= 2 && b[0] == tlsRecord && b[1] == 3:
		return speaksGarbled, hello
	}
	return classifyHTTP(b), hello
}

// classifyHTTP looks for a request line: a method, a target, HTTP/1.x
// (RFC 9112 §3). Empty lines before it are passed over (§2.2), as servers do.
func classifyHTTP(b []byte) speech {
	b = bytes.TrimLeft(b, "\r\n")
	line, _, whole := bytes.Cut(b, []byte{'\n'})
	method, _, spaced := bytes.Cut(line, []byte{' '})
	if len(method) > 32 || !isToken(method) {
		return speaksOther
	}
	if !whole {
		switch {
		case len(b) < maxPeek/2:
		case spaced:
			return speaksHTTP // a very long target; net/http has its own limit
		default:
			return speaksOther
		}
		return undetermined
	}
	line = bytes.TrimRight(line, "\r ")
	i := bytes.LastIndexByte(line, ' ')
	if spaced && i > len(method) && bytes.HasPrefix(line[i+1:], []byte("HTTP/1.")) {
		return speaksHTTP
	}
	return speaksOther
}

// isToken reports whether every octet of b may stand in a method (RFC 9110 §5.6.2).
// A beginning of a method, the empty one too, is one.
func isToken(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c >= 0x7f || bytes.IndexByte([]byte(`"(),/:;<=>?@[\]{}`), c) >= 0 {
			return false
		}
	}
	return true
}
