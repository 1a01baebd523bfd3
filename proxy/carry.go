package proxy

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
)

// What a device asks in clear can leave the house encrypted, where its household
// chose so and the same server can: this file learns which can, and carries.
//
// The device must see what a clear request would have shown. So a server is used
// over TLS only while nothing tells its two sides apart; at the first thing that
// does, the request goes in clear before a byte was sent to the device, and so do
// all further ones until the server is asked again.

const (
	httpPort, httpsPort = 80, 443

	askAgain    = 7 * 24 * time.Hour // how long an answer holds, yes or no
	maxServers  = 1024               // remembered; the one unused for longest goes first
	maxAsking   = 2                  // asked at the same time
	maxHourly   = 120                // asked in an hour: a device may invent names
	tlsPatience = 3 * time.Second    // for a connection and its handshake; then clear
	askPatience = 15 * time.Second
)

// server is a host at one address. At another address it is another server.
type server struct {
	name dnsname.Name
	addr netip.Addr
}

// Why a server is not used over TLS: labels of a metric.
const (
	whyNoAnswer    = "no-answer"   // nothing, or no TLS, on port 443
	whyCertificate = "certificate" // not valid for the name
	whyNoHTTP      = "no-http"     // or an error by which it says that it is not meant
	whyOwnHTTPS    = "own-https"   // it leads its clients to https by itself: we must not stand in between
	whyLeadsBack   = "leads-back"  // over TLS it leads to the clear side: a loop
	whyDiffers     = "differs"     // over TLS it answers otherwise
)

// learned is what is known of a server. Nothing of it is kept on disk.
type learned struct {
	at      time.Time // when it was learned, or asked
	used    time.Time
	pending bool   // it is being asked
	why     string // "" is able, once it is not pending
	errors  bool   // an error over TLS was the same in clear once
}

// holds reports whether what was learned is not too old. A clock that is set back
// makes it so.
func (l *learned) holds(now time.Time) bool {
	age := now.Sub(l.at)
	return age >= 0 && age < askAgain
}

// question is a server that is to be asked; named says that it may be logged.
type question struct {
	server
	named bool
}

// servers is what was learned of all of them.
type servers struct {
	wanted chan question

	mu     sync.Mutex
	all    map[server]*learned
	hour   time.Time // since when hourly counts
	hourly int
	asked  int // since the start
	last   time.Time
}

func newServers() *servers {
	return &servers{wanted: make(chan question, 16), all: map[server]*learned{}}
}

// ready reports whether sv may be used over TLS now.
func (s *servers) ready(sv server, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.all[sv]
	if l == nil || l.pending || l.why != "" || !l.holds(now) {
		return false
	}
	l.used = now
	return true
}

// heardClear learns from what the clear side answered to a request that could have
// gone over TLS. failed says why it did not, although it was tried; doubt is the status
// that it got there, when that is what is doubted. A server of which nothing is known
// yet, or nothing new for a week, is asked now: it answers, so the line is not down, and
// it does not lead to https by itself.
func (s *servers) heardClear(q question, resp *http.Response, failed string, doubt int, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.all[q.server]
	if l == nil {
		l = s.add(q.server, now)
	}
	l.used = now
	switch {
	case leadsToHTTPS(resp, q.name):
		l.at, l.why = now, whyOwnHTTPS
	case failed != "":
		l.why = failed
	case doubt != 0 && resp.StatusCode != doubt:
		l.why = whyDiffers
	case doubt != 0:
		l.errors = true
	case !l.pending && !l.holds(now):
		s.want(q, l, now)
	}
}

// want has q asked, unless others wait already or too many were asked lately: then the
// next answer brings it up again.
func (s *servers) want(q question, l *learned, now time.Time) {
	if age := now.Sub(s.hour); age < 0 || age >= time.Hour {
		s.hour, s.hourly = now, 0
	}
	if s.hourly >= maxHourly {
		return
	}
	select {
	case s.wanted <- q:
		s.hourly++
		*l = learned{at: now, used: now, pending: true}
	default:
	}
}

// add makes a place for sv.
func (s *servers) add(sv server, now time.Time) *learned {
	if len(s.all) >= maxServers {
		var oldest server
		at := now.Add(time.Second)
		for k, l := range s.all {
			if !l.used.After(at) && !l.pending {
				oldest, at = k, l.used
			}
		}
		delete(s.all, oldest)
	}
	l := new(learned)
	s.all[sv] = l
	return l
}

// answered notes what sv said when it was asked: "" or why it cannot.
func (s *servers) answered(sv server, why string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	s.last = now
	if l := s.all[sv]; l != nil {
		l.pending = false
		l.why = cmp.Or(l.why, why) // the clear side may have spoken meanwhile
	}
}

// trustsErrors reports whether sv's errors over TLS were found to be those in clear.
func (s *servers) trustsErrors(sv server) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.all[sv]
	return l != nil && l.errors
}

// forget drops all that was learned.
func (s *servers) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.all)
}

// Asked is how often we asked servers by ourselves whether they answer encrypted:
// our own traffic, of which a household must know.
type Asked struct {
	Servers int // since the start
	Able    int // servers that are known to answer encrypted now
	Last    time.Time
}

// Asked says what we asked by ourselves.
func (p *Proxy) Asked() Asked {
	s := p.servers
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Asked{Servers: s.asked, Last: s.last}
	for _, l := range s.all {
		if !l.at.IsZero() && !l.pending && l.why == "" {
			out.Able++
		}
	}
	return out
}

// askServers asks one server after the other until ctx ends.
func (p *Proxy) askServers(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case q := <-p.servers.wanted:
			why := p.ask(ctx, q.server)
			p.servers.answered(q.server, why, p.cfg.Now())
			p.metrics.asked.WithLabelValues(cmp.Or(why, "able")).Inc()
			whom := "a server of a device whose destinations are not named"
			if q.named {
				whom = string(q.name) + " at " + q.addr.String()
			}
			p.log.Info("asked by ourselves whether it answers encrypted, once a week", "server", whom, "answer", cmp.Or(why, "able"))
		}
	}
}

// ask says why sv cannot be used over TLS, "" when it can.
func (p *Proxy) ask(ctx context.Context, sv server) (why string) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	c, err := p.dialTLS(ctx, sv)
	if err != nil {
		return whyNot(err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+string(sv.name)+"\r\nAccept: */*\r\nConnection: close\r\n\r\n"); err != nil {
		return whyNoAnswer
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(c, 64<<10)), nil)
	switch {
	case err != nil, resp.StatusCode == http.StatusMisdirectedRequest, resp.StatusCode >= 500:
		return whyNoHTTP
	}
	return tellsApart(resp, sv.name)
}

// dialTLS opens a TLS connection to sv, whose certificate must be valid for its name.
// It resumes no session (RFC 8446 §C.4): a ticket would tie connections together, and
// devices.
func (p *Proxy) dialTLS(ctx context.Context, sv server) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, tlsPatience)
	defer cancel()
	c, err := p.cfg.Dial(ctx, "tcp", netip.AddrPortFrom(sv.addr, httpsPort).String())
	if err != nil {
		return nil, err
	}
	t := tls.Client(c, &tls.Config{
		ServerName: string(sv.name), RootCAs: p.cfg.Roots, Time: p.cfg.Now,
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
	})
	if err := t.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return t, nil
}

func whyNot(err error) string {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return whyCertificate
	}
	return whyNoAnswer
}

// tellsApart says by what an answer over TLS shows that the clear side would have
// answered otherwise, or that the server wants its clients on https; "" if nothing does.
func tellsApart(resp *http.Response, name dnsname.Name) (why string) {
	if len(resp.Header["Strict-Transport-Security"]) > 0 { // RFC 6797
		return whyOwnHTTPS
	}
	for _, c := range resp.Header["Set-Cookie"] {
		if _, attributes, _ := strings.Cut(c, ";"); isSecure(attributes) {
			return whyOwnHTTPS // the device would not keep it
		}
	}
	to := redirect(resp)
	if to == nil || to.Host == "" {
		return ""
	}
	switch host, _, err := normalHost(to.Host); {
	case err != nil || host != name:
		return ""
	case to.Scheme == "http":
		return whyLeadsBack
	}
	return whyOwnHTTPS
}

// isSecure reports whether a cookie's attributes (RFC 6265 §5.2.5) have Secure.
func isSecure(attributes string) bool {
	for a := range strings.SplitSeq(attributes, ";") {
		if name, _, _ := strings.Cut(a, "="); strings.EqualFold(strings.TrimSpace(name), "secure") {
			return true
		}
	}
	return false
}

// redirect is where an answer leads to, nil when nowhere.
func redirect(resp *http.Response) *url.URL {
	if resp.StatusCode/100 != 3 || resp.Header.Get("Location") == "" {
		return nil
	}
	u, err := url.Parse(resp.Header.Get("Location"))
	if err != nil {
		return nil
	}
	return u
}

// leadsToHTTPS reports whether the clear side's answer has the device ask the same
// site over https.
func leadsToHTTPS(resp *http.Response, name dnsname.Name) bool {
	to := redirect(resp)
	return to != nil && to.Scheme == "https" && siteOf(to.Host) == siteOf(string(name))
}

// couldGoOverTLS reports whether the household wants it, and r is of a kind that says
// the same over TLS: it asks a name for something, has no body, waits for no go-ahead,
// wants no other protocol, and goes to the port for the web.
func (c *conn) couldGoOverTLS(r *http.Request, sv server, asked policy.Query) bool {
	if !c.device.CarryEncrypted || sv.name == "" || c.dst.Port() != httpPort {
		return false
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead || r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		return false
	}
	for _, field := range [...]string{"Upgrade", "Expect", "Http2-Settings"} {
		if _, ok := r.Header[field]; ok {
			return false
		}
	}
	if strings.Contains(r.Host, ":") && !strings.HasSuffix(r.Host, ":80") {
		return false
	}
	// What a device may not reach on 443 by itself, a public resolver's address say, it
	// does not reach by our hand.
	asked.Layer, asked.Port, asked.Path = policy.LayerTLS, httpsPort, ""
	return c.proxy.cfg.Decider.Decide(asked).Action != policy.Block
}

// roundTripTLS carries r to the original address over TLS. It calls sent when the
// server has proved who it is, before anything is said to it. A nil answer means that
// r is to be carried in clear: because of what failed, or because the clear side must
// agree with the status that is doubted.
func (c *conn) roundTripTLS(r *http.Request, sv server, sent func()) (resp *http.Response, failed string, doubt int) {
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent() }}
	out := r.WithContext(httptrace.WithClientTrace(r.Context(), trace))
	// The name is part of what a transport knows its connections by: one connection
	// of a device may speak with several hosts at one address.
	out.URL = &url.URL{Scheme: "https", Host: string(sv.name), Path: r.URL.Path, RawPath: r.URL.RawPath, Opaque: r.URL.Opaque, ForceQuery: r.URL.ForceQuery, RawQuery: r.URL.RawQuery}
	out.Host = string(sv.name)
	resp, err := c.overTLS().RoundTrip(out)
	if err != nil {
		return nil, whyNot(err), 0
	}
	if why := tellsApart(resp, sv.name); why != "" {
		_ = resp.Body.Close()
		return nil, why, 0
	}
	if resp.StatusCode >= 400 && !c.proxy.servers.trustsErrors(sv) {
		_ = resp.Body.Close()
		return nil, "", resp.StatusCode
	}
	delete(resp.Header, "Alt-Svc") // speaks of the encrypted side (RFC 7838), of which the device knows nothing
	return resp, "", 0
}

// overTLS is the connection's transport for what leaves encrypted: like the clear one,
// it dials the original address and nothing else.
func (c *conn) overTLS() *http.Transport {
	return c.transport(&c.secure, func(t *http.Transport) {
		t.DialTLSContext = func(ctx context.Context, _, addr string) (net.Conn, error) {
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return c.proxy.dialTLS(ctx, server{dnsname.Name(host), c.dst.Addr()})
		}
	})
}

// begin makes s, which goes over TLS, the running share, if it is not yet.
func (c *conn) begin(s *share) {
	c.mu.Lock()
	running := c.share == s
	c.mu.Unlock()
	if !running {
		c.setShare(s)
	}
}

// inClear begins the share of what was to go over TLS and does not.
func (c *conn) inClear(s *share) *share {
	c.mu.Lock()
	running := c.share
	n := *s
	c.mu.Unlock()
	if running != nil && !running.overTLS && running.name == s.name && running.verdict == s.verdict {
		c.goOn(running, s) // it was never said to be otherwise
		return running
	}
	n.overTLS, n.start = false, c.proxy.cfg.Now()
	if running != nil {
		n.out0, n.in0 = c.out.Load(), c.in.Load()
	}
	c.setShare(&n)
	return &n
}

// closeTransports lets go of what they keep open.
func (c *conn) closeTransports() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range [...]*http.Transport{c.upstream, c.secure} {
		if t != nil {
			t.CloseIdleConnections()
		}
	}
}
