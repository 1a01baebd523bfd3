package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
)

// A connection whose two sides agreed on another protocol (101 Switching Protocols,
// RFC 9110 §7.8; WebSocket, RFC 6455) leaves net/http and goproxy, which would copy for
// it with two goroutines and their buffers: from then on it is spliced as TLS is.

// upgrading notes which of its connections the transport chooses for r, which wants
// another protocol.
func (w *response) upgrading(r *http.Request) *http.Request {
	trace := &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) { w.origin, _ = got.Conn.(*origin) }}
	return r.WithContext(httptrace.WithClientTrace(r.Context(), trace))
}

var errLeft = errors.New("the connection has left net/http")

// Hijack implements http.Hijacker. goproxy asks for it when it has passed 101 on, and
// gets an error: there is nothing left for it to copy.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	_, rw, err := w.control.Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	w.conn.switchProtocols(early, w.switched, w.origin)
	return nil, nil, errLeft
}

// switchProtocols splices the connection. early is what the device has said already;
// said reads what its origin has, and then from the origin's socket.
func (c *conn) switchProtocols(early []byte, said io.Reader, o *origin) {
	c.mu.Lock()
	c.upstream = nil
	c.mu.Unlock()
	if said == nil || o == nil || !o.left.CompareAndSwap(false, true) {
		_ = c.Close() // it switched over nothing of ours
		return
	}
	c.peeked = append([]byte(nil), early...)
	c.out.Add(-int64(len(early)))                // counted when it was read, and when it is passed on
	_, _ = io.Copy(struct{ io.Writer }{c}, said) // ends with an error: the transport's socket gives nothing more
	c.watch(c.proxy.cfg.IdleTimeout)
	c.splice(o.TCPConn)
}
