package lists

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/netcurtain/netcurtain/policy/blocklist"
)

const maxRedirects = 5

// checkURL says what is wrong with the address of a list.
func checkURL(raw string, allowHTTP bool) error {
	u, err := url.Parse(raw)
	if err != nil {
		return fmt.Errorf("address: %w", err)
	}
	switch {
	case u.Scheme == "http" && !allowHTTP:
		return fmt.Errorf("address %q: https is needed; anybody on the way could change a list that comes over http", u.Redacted())
	case u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "":
		return fmt.Errorf("address %q: one such as https://lists.example/ads.txt is needed", u.Redacted())
	case u.User != nil:
		return fmt.Errorf("address %q: it holds a password, which would be kept in the index", u.Redacted())
	}
	return nil
}

func newClient(c Config) *http.Client {
	transport := c.Transport
	if transport == nil {
		dialer := &net.Dialer{Timeout: 15 * time.Second, Control: func(network, address string, raw syscall.RawConn) error {
			if !c.AllowPrivate {
				if err := refuseInside(address, c.House); err != nil {
					return err
				}
			}
			if c.Control != nil {
				return c.Control(network, address, raw)
			}
			return nil
		}}
		transport = &http.Transport{
			DialContext:           dialer.DialContext,
			TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:   15 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
			MaxIdleConns:          2,
			IdleConnTimeout:       10 * time.Second,
			ForceAttemptHTTP2:     true,
		}
	}
	return &http.Client{
		Transport: recorded{transport, c},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("more than %d redirects", maxRedirects)
			}
			src, _ := req.Context().Value(asker{}).(Source)
			return checkURL(req.URL.String(), c.AllowHTTP || src.AllowHTTP)
		},
	}
}

// asker is where a request's context says for which list it is.
type asker struct{}

// recorded tells of every request that is sent, those of redirects too.
type recorded struct {
	next http.RoundTripper
	cfg  Config
}

func (r recorded) RoundTrip(req *http.Request) (*http.Response, error) {
	src, _ := req.Context().Value(asker{}).(Source)
	f := Fetch{List: src.Name, Host: req.URL.Hostname(), At: r.cfg.Now()}
	res, err := r.next.RoundTrip(req)
	if err != nil {
		r.cfg.OnFetch(f)
		return nil, err
	}
	res.Body = &countedBody{ReadCloser: res.Body, done: func(n int64) { f.Bytes = n; r.cfg.OnFetch(f) }}
	return res, nil
}

// countedBody says how much was read when it is closed for the first time.
type countedBody struct {
	io.ReadCloser
	n    int64
	done func(int64)
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	return n, err
}

func (b *countedBody) Close() error {
	if b.done != nil {
		b.done(b.n)
		b.done = nil
	}
	return b.ReadCloser.Close()
}

// refuseInside keeps a list's address, its redirects and what its name resolves
// to from making us knock at the doors of the house. It sees the address that is
// about to be connected to, so that no second look-up can differ.
func refuseInside(address string, house func(netip.Addr) bool) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	a := ap.Addr().Unmap().WithZone("")
	for _, a := range []netip.Addr{a, carried(a)} {
		if isInside(a) || house(a) {
			return fmt.Errorf("%s is an address of the house; lists come from outside unless private addresses are allowed", a)
		}
	}
	return nil
}

// carried is the IPv4 address that a leads to by NAT64 (RFC 6052) or 6to4 (RFC 3056);
// else a.
func carried(a netip.Addr) netip.Addr {
	b := a.As16()
	switch {
	case netip.MustParsePrefix("64:ff9b::/96").Contains(a):
		return netip.AddrFrom4([4]byte(b[12:]))
	case netip.MustParsePrefix("2002::/16").Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return a
}

// isInside reports addresses that are no place on the internet (RFC 6890).
func isInside(a netip.Addr) bool {
	if a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast() {
		return true
	}
	for _, p := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15", "240.0.0.0/4", // this host, carriers, protocols, benches, nobody
		"64:ff9b:1::/48", "fec0::/10", "2001::/32", // a site's own NAT64, old site addresses, Teredo, which carries any IPv4
	} {
		if netip.MustParsePrefix(p).Contains(a) {
			return true
		}
	}
	return false
}

// fetch asks for a list. It returns errUnchanged when the server says so. seen is
// told how much came so far, of how much was announced (0: nothing was).
func (l *Lists) fetch(ctx context.Context, s Source, m, old meta, seen func(n, of int64)) (io.ReadCloser, meta, error) {
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, asker{}, s), l.cfg.Deadline)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	if err != nil {
		cancel()
		return nil, m, err
	}
	req.Header.Set("User-Agent", "netcurtain")
	if old.ETag != "" {
		req.Header.Set("If-None-Match", old.ETag)
	}
	if old.Modified != "" {
		req.Header.Set("If-Modified-Since", old.Modified)
	}
	body := &responseBody{cancel: cancel, patience: l.cfg.Timeout, seen: seen}
	body.silence = time.AfterFunc(l.cfg.Timeout, cancel)
	res, err := l.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("the server said nothing for %s: %w", l.cfg.Timeout, err)
		}
		body.end()
		return nil, m, err
	}
	body.ReadCloser = res.Body
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNotModified:
		body.Close()
		return nil, m, errUnchanged
	default:
		body.Close()
		return nil, m, fmt.Errorf("the server answered %d %s", res.StatusCode, http.StatusText(res.StatusCode))
	}
	limit := l.cfg.Limits.Bytes
	if limit == 0 {
		limit = blocklist.DefaultBytes
	}
	if body.of = max(res.ContentLength, 0); body.of > limit {
		body.Close()
		return nil, m, fmt.Errorf("%d octets are announced, %d are the most: %w", body.of, limit, blocklist.ErrTooLong)
	}
	m.ETag, m.Modified = bounded(res.Header.Get("ETag")), bounded(res.Header.Get("Last-Modified"))
	return body, m, nil
}

// bounded keeps a header that is worth keeping: it is the server's, and goes
// into the index.
func bounded(header string) string {
	if len(header) > 256 {
		return ""
	}
	return header
}

// responseBody ends its request's deadline when it is closed, and the request when
// nothing comes for too long.
type responseBody struct {
	io.ReadCloser
	cancel   context.CancelFunc
	patience time.Duration
	silence  *time.Timer
	n, of    int64
	seen     func(n, of int64)
}

func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.silence.Reset(b.patience)
		b.n += int64(n)
		b.seen(b.n, b.of)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("after %d octets nothing came for %s, or it took too long: %w", b.n, b.patience, err)
	}
	return n, err
}

func (b *responseBody) end() {
	b.silence.Stop()
	b.cancel()
}

func (b *responseBody) Close() error {
	err := b.ReadCloser.Close()
	b.end()
	return err
}

// openFile opens a list file below the safe folder: no link and no ".." leads
// out of it. modified is a stamp that differs when the file does.
func (l *Lists) openFile(name string) (_ io.ReadCloser, modified string, err error) {
	root, err := os.OpenRoot(l.cfg.FileRoot)
	if err != nil {
		return nil, "", fmt.Errorf("folder of list files: %w", err)
	}
	defer root.Close()
	// A link inside the folder could be swapped for another at any time.
	for at := name; at != "."; at = filepath.Dir(at) {
		if info, err := root.Lstat(at); err == nil && info.Mode()&fs.ModeSymlink != 0 {
			return nil, "", fmt.Errorf("list file %s is a link; a file itself is needed", at)
		}
	}
	// Without O_NONBLOCK a pipe would wait for its writer for ever.
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, "", fmt.Errorf("list file: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("list file %s is not a regular file", name)
	}
	if err != nil {
		return nil, "", errors.Join(err, f.Close())
	}
	return f, fmt.Sprintf("%d octets, %s", info.Size(), info.ModTime().UTC().Format(time.RFC3339Nano)), nil
}
