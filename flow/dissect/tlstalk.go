package dissect

import (
	"encoding/binary"
	"time"

	"github.com/netcurtain/netcurtain/flow"
)

// tlsTalk follows a TLS handshake over TCP, whichever side it began on.
type tlsTalk struct {
	seen     bool // this is TLS
	hello    bool // the client's part is settled
	server   bool // the server's part is settled
	chosen   bool // the ServerHello was read, though its certificate may not have been
	broken   bool // the client's part began like a hello and was none
	refused  bool // the server answered in clear, in words
	inner    Hello
	clientAt flow.Dir
}

// startTLS looks for a handshake at the start of either stream.
func (c *Conversation) startTLS(up, down []byte) bool {
	for dir, b := range [2][]byte{up, down} {
		client := handshakeStart(b, hsClientHello) || sslv2Start(b)
		if !client && !handshakeStart(b, hsServerHello) {
			continue
		}
		c.tls.seen = true
		c.tls.clientAt = flow.Dir(dir)
		if !client {
			c.tls.clientAt ^= 1
		}
		c.dir[c.tls.clientAt].typed = true // a hello cut into small segments is read to its end
		c.followTLS()
		return true
	}
	return false
}

// handshakeStart reports whether b begins with a handshake record (RFC 8446
// §5.1) whose first message is of the given type.
func handshakeStart(b []byte, kind byte) bool {
	if len(b) < 6 || b[0] != recHandshake || b[1] > maxMajor || b[5] != kind {
		return false
	}
	n := binary.BigEndian.Uint16(b[3:])
	if n >= 5 && len(b) >= 10 && (b[6] != 0 || b[9] < 3 || b[9] > 0x7f) { // no hello has 64 KiB, nor such a version
		return false
	}
	return n > 0 && n <= maxRecord && (b[1] == 3 || len(b) >= 10 && n >= 5 && b[9] == 3) // the hello's own version
}

// sslv2Start reports an SSLv2-form hello as far as it goes; its length fields
// make it a sure sign once eleven bytes are there.
func sslv2Start(b []byte) bool {
	if len(b) < 11 {
		return false
	}
	_, st := parseSSLv2Hello(b)
	return st != NotTLS
}

// followTLS takes what both sides have said so far.
func (c *Conversation) followTLS() {
	t := &c.tls
	client, server := &c.dir[t.clientAt], &c.dir[t.clientAt^1]
	if !t.hello {
		t.readHello(client)
	}
	if !t.server {
		t.readServer(server, c.at)
	}
	if t.hello && t.server {
		c.finish(c.tls.result())
	}
}

func (t *tlsTalk) readHello(s *stream) {
	b := s.bytes()
	if len(b) == 0 {
		return
	}
	h, st := ParseClientHello(b)
	switch {
	case st == Complete:
		if got := &t.inner.TLS; got.Cipher != 0 { // the answer overtook the question
			h.TLS.Version, h.TLS.Cipher = got.Version, got.Cipher
			h.TLS.Retried, h.TLS.Cert = got.Retried, got.Cert
		}
		t.inner = h
	case st == NeedMore && !s.full():
		return
	default:
		t.broken = st == NotTLS
	}
	t.hello = true
	s.mute()
}

func (t *tlsTalk) readServer(s *stream, at time.Time) {
	b := s.bytes()
	if len(b) == 0 {
		return
	}
	msg, st := handshakeMessage(b, hsServerHello)
	switch {
	case st == Complete:
		if !t.chosen {
			t.chosen = t.inner.TLS.parseServerHello(msg)
		}
		if t.chosen && before13(t.inner.TLS.Version) && t.inner.TLS.Cert == nil {
			der, got := serverCertificate(b)
			if got == NeedMore && !s.full() {
				return
			}
			if got == Complete {
				t.inner.TLS.Cert = readCertificate(der, t.inner.ServerName, at)
			}
		}
	case st == NeedMore && !s.full():
		return
	case st == NotTLS && s.anchored && len(b) >= 12 && looksReadable(b[:min(len(b), 64)]):
		t.refused = true
	}
	t.server = true
	s.mute()
}

// answered ends the wait for a certificate: who speaks again has heard all that
// the server had to say.
func (c *Conversation) answered(dir flow.Dir) {
	if t := &c.tls; t.hello && t.chosen && dir == t.clientAt {
		c.finish(c.tls.result())
	}
}

func (t *tlsTalk) result() Result {
	r := t.inner.result()
	if t.broken && t.inner.TLS.Cipher == 0 {
		r.cannotTell("begins like a TLS handshake, but what follows makes no sense")
	}
	if t.inner.TLS.Cipher != 0 && nullCipher(t.inner.TLS.Cipher) {
		r.Protection = flow.Readable
	}
	if t.refused {
		r.readable("asked for TLS, and the server answered in clear")
	}
	return r
}

// tlsRecords reports whether a segment holds TLS records after the handshake: at
// least one whole record header whose record ends with the segment or is followed
// by another header. The content must not be text, or anybody could dress clear
// bytes as TLS. missing bytes of the segment were cut off.
func tlsRecords(b []byte, missing int) bool {
	records := 0
	for len(b) >= 5 {
		kind, n := b[0], int(binary.BigEndian.Uint16(b[3:]))
		if kind < recChangeCipher || kind > recHeartbeat || b[1] != 3 || b[2] > 3 || n == 0 || n > maxRecord {
			return false
		}
		if kind == recAlert && n == 2 && len(b) >= 7 {
			return b[5] == 1 || b[5] == 2 // in clear: warning or fatal
		}
		body := b[5:min(5+n, len(b))]
		if kind == recChangeCipher && (n != 1 || len(body) > 0 && body[0] != 1) || len(body) >= 16 && looksReadable(body) {
			return false
		}
		records++
		if len(b) == 5+n || missing > 0 && len(b)+missing == 5+n && len(body) >= 16 && !looksReadable(body) {
			return true
		}
		if len(b) < 5+n {
			return records > 1 || kind == recAppData && len(body) >= statMin && !looksReadable(body)
		}
		b = b[5+n:]
	}
	return records > 1
}

// tlsWithin looks for TLS records in a stream whose first segment began within
// one: a header whose record is followed by another header of the same version.
func tlsWithin(b []byte) bool {
	for i := 0; i+10 <= len(b); i++ {
		if b[i] != recAppData || b[i+1] != 3 || b[i+2] > 3 {
			continue
		}
		n := int(binary.BigEndian.Uint16(b[i+3:]))
		next := i + 5 + n
		if n < 24 || n > maxRecord || next+5 > len(b) {
			continue
		}
		if b[next] == recAppData && b[next+1] == 3 && b[next+2] == b[i+2] && binary.BigEndian.Uint16(b[next+3:]) <= maxRecord && !looksReadable(b[i+5:next]) {
			return true
		}
	}
	return false
}
