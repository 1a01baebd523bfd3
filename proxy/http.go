package proxy

import (
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/elazarl/goproxy"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
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

// headerTimeout is how long a request's head may take.
const headerTimeout = 10 * time.Second

func (p *Proxy) newHTTPServer() *http.Server {
	return &http.Server{
		Handler: http.HandlerFunc(p.serveHTTP),
		// Long polls and streams have no end: only what comes before a request is timed.
		ReadHeaderTimeout:            headerTimeout,
		IdleTimeout:                  60 * time.Second, // but see rest
		ConnState:                    rests,
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
	if c.explicit {
		if !p.serveExplicit(w, r) {
			return
		}
	} else if r.Method == http.MethodConnect || r.URL.IsAbs() {
		// The client believes that it talks to a proxy of its own choice. Serving
		// it would make us an open one.
		p.metrics.refused.WithLabelValues("forward").Inc()
		w.Header().Set("Connection", "close")
		http.Error(w, "this is no proxy for you", http.StatusBadRequest)
		return
	}
	c.response = &response{ResponseWriter: w, control: http.NewResponseController(w), conn: c}
	defer func() { c.response = nil }() // it holds the request; the connection may idle for long
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
	q := policy.Query{Layer: policy.LayerHTTP, Path: policy.PathClass(r.Method, r.RequestURI)}
	if c.dst.Port() == tlsPort {
		q.Hello = policy.HelloNotTLS
	}
	s := c.newShare(name, flow.NameFromHost, q, dissect.Result{})
	if s.verdict.Action == policy.Block {
		c.witness(r, s)
		return r, p.page.respond(r, c.device, c.shareFor(r, s))
	}
	x := exchange{server: server{name, c.dst.Addr()}}
	if c.device.StripTracking {
		x.thirdParty = p.strip(r, c.took)
	}
	c.witness(r, s)
	x.harmless = s.seen.Harmless
	x.couldEncrypt = !x.harmless && c.couldGoOverTLS(r, x.server, s.asked[0])
	s.overTLS = x.couldEncrypt && p.servers.ready(x.server, s.start)
	x.share = c.shareFor(r, s)
	if r.Host == "" { // HTTP/1.0; what leaves is 1.1, which must have one
		r.Host = hostOf(c.dst)
	}
	if _, ok := r.Header["User-Agent"]; !ok {
		r.Header["User-Agent"] = []string{""} // net/http would add its own
	}
	ctx.RoundTripper = goproxy.RoundTripperFunc(func(r *http.Request, _ *goproxy.ProxyCtx) (*http.Response, error) {
		return c.roundTrip(r, x)
	})
	return r, nil
}

// took counts one thing that was taken out of what the device asks or is answered.
func (c *conn) took(kind string) {
	c.proxy.metrics.stripped.WithLabelValues(kind).Inc()
	c.proxy.tallies.of(&c.device, func(t *tally) { t.taken.add(kind) })
}

// exchange is one request on its way, and what is known of it.
type exchange struct {
	server
	share        *share
	thirdParty   bool
	harmless     bool // of no concern, as far as its head says
	couldEncrypt bool // if its server can
}

// shareFor gives the share of the connection that a request belongs to: the running
// one, when the host, the verdict and the way are the same, else s, which begins now.
func (c *conn) shareFor(r *http.Request, s *share) *share {
	c.mu.Lock()
	running := c.share
	c.mu.Unlock()
	if running != nil && running.name == s.name && running.dst == s.dst && running.verdict == s.verdict && running.overTLS == s.overTLS {
		before := c.goOn(running, s)
		c.overhear(r, running, before)
		c.recheck(s)
		return running
	}
	if running == nil {
		s.out0, s.in0 = 0, 0 // the first request was read before it was judged
	}
	if !s.overTLS { // else it begins when it is known to be so
		c.setShare(s)
	}
	c.overhear(r, s, nil)
	return s
}

// goOn makes one more request, of which s says what is known, part of the running
// share. It gives what that gave away before.
func (c *conn) goOn(running, s *share) (before *dissect.Exposure) {
	c.mu.Lock()
	running.asked = s.asked // what is under way now is what rules that change take hold of
	before = running.seen.Exposure
	c.mu.Unlock()
	if c.witnessed <= maxWitnessed {
		c.gaveAway(running, before, s.seen)
	}
	return before
}

// roundTrip sends the request to the original destination, over TLS where that was
// found to be the same.
func (c *conn) roundTrip(r *http.Request, x exchange) (*http.Response, error) {
	failed, doubt := "", 0
	if x.share.overTLS {
		var resp *http.Response
		if resp, failed, doubt = c.roundTripTLS(r, x.server, func() { c.begin(x.share) }); resp != nil {
			return c.answer(resp, x, true), nil
		}
		x.share = c.inClear(x.share)
	}
	if _, ok := r.Header["Upgrade"]; ok {
		r = c.response.upgrading(r)
	}
	sent := &sentBody{ReadCloser: r.Body}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = sent
	}
	resp, err := c.inTheClear().RoundTrip(r)
	if sent.broken.Load() {
		if err == nil {
			_ = resp.Body.Close()
		}
		c.proxy.metrics.refused.WithLabelValues("body").Inc()
		return goproxy.NewResponse(r, goproxy.ContentTypeText, http.StatusBadRequest, "the request's body is broken\n"), nil
	}
	if err != nil {
		c.proxy.log.Debug("no answer from the original destination", "to", c.dst, "err", err)
		return goproxy.NewResponse(r, goproxy.ContentTypeText, http.StatusBadGateway, "the server does not answer\n"), nil
	}
	if resp.Close {
		c.rest.ended.Store(true)
	}
	if x.couldEncrypt {
		q := question{x.server, c.device.Log == devices.LogNames}
		c.proxy.servers.heardClear(q, resp, failed, doubt, c.proxy.cfg.Now())
	}
	return c.answer(resp, x, false), nil
}

// answer makes an origin's answer ready to be passed on.
func (c *conn) answer(resp *http.Response, x exchange, encrypted bool) *http.Response {
	c.proxy.metrics.requests.WithLabelValues(wayLabel(encrypted)).Inc()
	if x.name != "" && !x.harmless {
		c.proxy.tallies.of(&c.device, func(t *tally) { t.asked(x.name, encrypted) })
	}
	if x.thirdParty {
		stripAnswer(resp, c.took)
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		c.response.switched = resp.Body
		return resp
	}
	resp.Body = &body{ReadCloser: resp.Body, to: c.response, length: resp.ContentLength, begun: resp.ContentLength < 0}
	return resp
}

// inTheClear is the connection's transport for what leaves as the device said it. Each
// connection has its own, which dials the original destination and nothing else: no
// two destinations and no two devices can ever share a connection, whatever their
// Host fields say.
func (c *conn) inTheClear() *http.Transport {
	return c.transport(&c.upstream, func(t *http.Transport) {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dialOrigin(ctx) }
	})
}

// transport is *at, made when it is not there yet. Close may look for it meanwhile.
func (c *conn) transport(at **http.Transport, dials func(*http.Transport)) *http.Transport {
	c.mu.Lock()
	defer c.mu.Unlock()
	if *at == nil {
		*at = &http.Transport{
			Proxy:                  nil,
			DisableCompression:     true,
			MaxIdleConns:           1,
			ReadBufferSize:         transportBuffer,
			WriteBufferSize:        transportBuffer,
			IdleConnTimeout:        60 * time.Second,
			ExpectContinueTimeout:  5 * time.Second,
			MaxResponseHeaderBytes: 256 << 10,
		}
		dials(*at)
	}
	return *at
}

// transportBuffer is what a transport holds for each direction, in bytes.
const transportBuffer = 2 << 10

// response adds nothing to what the origin said.
type response struct {
	http.ResponseWriter
	control  *http.ResponseController
	conn     *conn
	switched io.Reader // what the origin says in another protocol
	origin   *origin   // with which that was agreed
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
	if b, ok := r.(*body); ok && b.length >= largeBody {
		if to, ok := w.ResponseWriter.(io.ReaderFrom); ok {
			w.Flush()
			return to.ReadFrom(r)
		}
	}
	return w.conn.proxy.copyBuffered(struct{ io.Writer }{w.ResponseWriter}, r)
}

// copyBuffered copies through a pooled buffer.
func (p *Proxy) copyBuffered(to io.Writer, from io.Reader) (int64, error) {
	buf := p.copies.Get().(*[]byte)
	defer p.copies.Put(buf)
	return io.CopyBuffer(to, from, *buf)
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = w.control.Flush() }
