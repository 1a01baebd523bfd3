package proxy

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/elazarl/goproxy"

	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
)

// handoff is the listener from which net/http takes the connections that turned
// out to speak HTTP.
type handoff struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHandoff(addr net.Addr) *handoff {
	return &handoff{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// offer gives c to net/http, or reports that it is gone.
func (h *handoff) offer(c net.Conn) bool {
	select {
	case h.conns <- c:
		return true
	case <-h.done:
		return false
	}
}

func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handoff) Close() error   { h.once.Do(func() { close(h.done) }); return nil }
func (h *handoff) Addr() net.Addr { return h.addr }

type connKey struct{}

func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

func (p *Proxy) newHTTPServer() *http.Server {
	return &http.Server{
		Handler: http.HandlerFunc(p.serveHTTP),
		// Long polls and streams have no end: only what comes before a request is timed.
		ReadHeaderTimeout:            10 * time.Second,
		IdleTimeout:                  60 * time.Second,
		MaxHeaderBytes:               64 << 10,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
	}
}

// newGoproxy sets what goproxy leaves at dangerous or lossy defaults. It never
// sees CONNECT, terminates no TLS and has no certificate.
func (p *Proxy) newGoproxy() *goproxy.ProxyHttpServer {
	g := goproxy.NewProxyHttpServer()
	g.Verbose = false
	g.Logger = log.New(io.Discard, "", 0) // it would log names to standard error
	g.KeepAcceptEncoding = true
	g.CertStore = nil
	g.ConnectDial, g.ConnectDialWithReq = nil, nil
	// Its own transport reads the environment and dials by name; every request
	// is given its connection's own instead.
	g.Tr = &http.Transport{Proxy: nil, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return nil, net.ErrClosed
	}}
	g.NonproxyHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Scheme = "http"
		r.URL.Host = connOf(r).dst.String() // r.Host stays what the client said
		g.ServeHTTP(w, r)
	})
	g.OnRequest().DoFunc(p.judgeRequest)
	return g
}

func (p *Proxy) serveHTTP(w http.ResponseWriter, r *http.Request) {
	c := connOf(r)
	if r.Method == http.MethodConnect || r.URL.IsAbs() {
		// The client believes that it talks to a proxy of its own choice. Serving
		// it would make us an open one.
		p.metrics.refused.WithLabelValues("forward").Inc()
		w.Header().Set("Connection", "close")
		http.Error(w, "this is no proxy for you", http.StatusBadRequest)
		return
	}
	c.response = &response{ResponseWriter: w, control: http.NewResponseController(w), buffers: &p.peeks}
	defer func() {
		if hijacked := c.response.hijacked; hijacked != nil {
			_ = hijacked.Close() // goproxy leaves it open
		}
		c.response = nil // it holds the request; the connection may idle for long
	}()
	p.goproxy.ServeHTTP(c.response, r)
}

// judgeRequest asks policy about one request. A response means: blocked.
func (p *Proxy) judgeRequest(r *http.Request, ctx *goproxy.ProxyCtx) (*http.Request, *http.Response) {
	c := connOf(r)
	name, _, err := normalHost(r.Host)
	if err != nil {
		p.metrics.refused.WithLabelValues("host").Inc()
		return r, goproxy.NewResponse(r, goproxy.ContentTypeText, http.StatusBadRequest, err.Error()+"\n")
	}
	s := c.shareFor(r, name)
	if s.verdict.Action == policy.Block {
		return r, p.page.respond(r, c.device, s)
	}
	if _, ok := r.Header["User-Agent"]; !ok {
		r.Header["User-Agent"] = []string{""} // net/http would add its own
	}
	ctx.RoundTripper = goproxy.RoundTripperFunc(func(r *http.Request, _ *goproxy.ProxyCtx) (*http.Response, error) {
		return c.roundTrip(r)
	})
	return r, nil
}

// shareFor judges the request and gives the share of the connection that it
// belongs to: the running one, when the host and the verdict are the same.
func (c *conn) shareFor(r *http.Request, name dnsname.Name) *share {
	c.mu.Lock()
	running := c.share
	c.mu.Unlock()
	s := c.newShare(name, flow.NameFromHost, policy.LayerHTTP, policy.PathClass(r.Method, r.RequestURI), dissect.Result{})
	if running != nil && running.name == s.name && running.verdict == s.verdict {
		c.mu.Lock()
		running.asked = s.asked // what is under way now is what rules that change take hold of
		c.mu.Unlock()
		if running.seen.Credentials == "" && r.Header.Get("Authorization") != "" {
			seen := c.dissectRequest(r)
			c.mu.Lock()
			running.seen = seen
			c.mu.Unlock()
		}
		return running
	}
	s.seen = c.dissectRequest(r)
	if running == nil {
		s.out0, s.in0 = 0, 0 // the first request was read before it was judged
	}
	c.setShare(s)
	return s
}

// dissectRequest lets dissect judge the request as it stood on the wire.
func (c *conn) dissectRequest(r *http.Request) dissect.Result {
	var b bytes.Buffer
	b.WriteString(r.Method + " " + r.RequestURI + " HTTP/1.1\r\nHost: " + r.Host + "\r\n")
	_ = r.Header.Write(&b)
	b.WriteString("\r\n")
	return c.dissect(b.Bytes())
}

// roundTrip sends the request to the original destination. Each connection has a
// transport of its own, which dials nothing else: no two destinations and no two
// devices can ever share a connection, whatever their Host fields say.
func (c *conn) roundTrip(r *http.Request) (*http.Response, error) {
	if c.upstream == nil {
		c.upstream = &http.Transport{
			Proxy:                  nil,
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
			DisableCompression:     true,
			MaxIdleConns:           1,
			ReadBufferSize:         2 << 10,
			WriteBufferSize:        2 << 10,
			IdleConnTimeout:        60 * time.Second,
			ExpectContinueTimeout:  5 * time.Second,
			MaxResponseHeaderBytes: 256 << 10,
		}
	}
	resp, err := c.upstream.RoundTrip(r)
	if err != nil {
		c.proxy.log.Debug("no answer from the original destination", "to", c.dst, "err", err)
		return goproxy.NewResponse(r, goproxy.ContentTypeText, http.StatusBadGateway, "the server does not answer\n"), nil
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Body = &flushing{ReadCloser: resp.Body, to: c.response, begun: resp.ContentLength < 0}
	}
	return resp, nil
}

// flushing sends on what was read before it waits for more: a stream must not
// stick in our buffers.
type flushing struct {
	io.ReadCloser
	to    *response
	begun bool
}

func (f *flushing) Read(b []byte) (int, error) {
	if f.begun {
		_ = f.to.control.Flush()
	}
	f.begun = true
	return f.ReadCloser.Read(b)
}

// response keeps hold of a connection that was hijacked, and adds nothing to
// what the origin said.
type response struct {
	http.ResponseWriter
	control  *http.ResponseController
	buffers  *sync.Pool
	hijacked net.Conn
}

func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter. net/http guesses a type where the
// origin gave none, unless the field is there and empty.
func (w *response) WriteHeader(status int) {
	if h := w.Header(); h["Content-Type"] == nil {
		h["Content-Type"] = nil
	}
	w.ResponseWriter.WriteHeader(status)
}

// ReadFrom implements io.ReaderFrom, to copy a body without a new buffer for each.
func (w *response) ReadFrom(r io.Reader) (int64, error) {
	buf := w.buffers.Get().(*[]byte)
	defer w.buffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{w.ResponseWriter}, r, *buf)
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = w.control.Flush() }

// Hijack implements http.Hijacker, for WebSockets.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := w.control.Hijack()
	w.hijacked = c
	return c, rw, err
}
