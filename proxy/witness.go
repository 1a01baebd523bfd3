package proxy

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/netcurtain/netcurtain/flow/dissect"
)

// A device goes on talking on one connection: what its later requests give away
// counts as much as what the first did. Kinds are counted, no value is kept.
const (
	maxWitnessed = 256     // requests of a connection that are looked at
	maxBody      = 4 << 10 // octets of a body that are looked at
)

// dissectRequest lets dissect judge a request as it stands on the wire, with as much
// of its body as is known.
func (c *conn) dissectRequest(r *http.Request, body []byte) dissect.Result {
	return c.dissect(append(headOf(r), body...))
}

// witness fills in what r says by its head; of a connection that goes on and on, not
// any more.
func (c *conn) witness(r *http.Request, s *share) {
	if c.witnessed++; c.witnessed <= maxWitnessed || !c.runsLike(s) {
		s.seen = c.dissectRequest(r, nil)
	}
}

// runsLike reports whether the running share is of the same host and verdict as s.
func (c *conn) runsLike(s *share) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.share != nil && c.share.name == s.name && c.share.verdict == s.verdict
}

// headOf is the request's head.
func headOf(r *http.Request) []byte {
	var b bytes.Buffer
	b.Grow(512)
	b.WriteString(r.Method + " " + r.RequestURI + " HTTP/1.1\r\nHost: " + r.Host + "\r\n")
	_ = r.Header.Write(&b) // into memory
	b.WriteString("\r\n")
	return b.Bytes()
}

// gaveAway adds to s what one more request gave away, and tells of it.
func (c *conn) gaveAway(s *share, before *dissect.Exposure, more dissect.Result) {
	c.mu.Lock()
	was := s.seen
	if s.seen.Harmless && !more.Harmless {
		s.seen = more // the first request was of no concern, this one is
	}
	if s.seen.Credentials == "" {
		s.seen.Credentials = more.Credentials
	}
	s.seen.Exposure = before.Plus(more.Exposure)
	changed := was.Harmless != s.seen.Harmless || was.Credentials != s.seen.Credentials || !sameExposure(was.Exposure, s.seen.Exposure)
	changed = changed && c.share == s
	c.mu.Unlock()
	if changed {
		c.tell(s)
	}
}

func sameExposure(a, b *dissect.Exposure) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.User == b.User && a.Default == b.Default && slices.Equal(a.Identifiers, b.Identifiers)
}

// overhear looks at the beginning of r's body, when it may hold words, after it has
// passed. Nothing waits for that. before is what s gave away before r.
func (c *conn) overhear(r *http.Request, s *share, before *dissect.Exposure) {
	if r.Body == nil || r.Body == http.NoBody || c.witnessed > maxWitnessed || !mayHoldWords(r.Header.Get("Content-Type")) {
		return
	}
	head := headOf(r)
	r.Body = &overheard{ReadCloser: r.Body, done: func(body []byte) {
		if len(body) > 0 {
			c.gaveAway(s, before, c.dissect(append(head, body...)))
		}
	}}
}

func mayHoldWords(contentType string) bool {
	t := strings.ToLower(contentType)
	return strings.Contains(t, "form-urlencoded") || strings.Contains(t, "json") || strings.Contains(t, "xml") || strings.HasPrefix(t, "text/")
}

// overheard passes a body on and keeps its beginning until it was looked at.
type overheard struct {
	io.ReadCloser
	mu   sync.Mutex // a transport may close a body while it reads it
	kept []byte
	done func(body []byte) // nil once it was called
}

func (o *overheard) Read(b []byte) (int, error) {
	n, err := o.ReadCloser.Read(b)
	o.hear(b[:n], err != nil)
	return n, err
}

func (o *overheard) Close() error {
	o.hear(nil, true)
	return o.ReadCloser.Close()
}

func (o *overheard) hear(b []byte, last bool) {
	o.mu.Lock()
	done := o.done
	if done != nil {
		o.kept = append(o.kept, b[:min(len(b), maxBody-len(o.kept))]...)
		if last = last || len(o.kept) == maxBody; last {
			b, o.kept, o.done = o.kept, nil, nil
		}
	}
	o.mu.Unlock()
	if done != nil && last {
		done(b)
	}
}
