package lists

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"syscall"
	"time"
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
				if err := refuseInside(address); err != nil {
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
		Transport: transport,
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("more than %d redirects", maxRedirects)
			}
			return checkURL(req.URL.String(), c.AllowHTTP)
		},
	}
}

// refuseInside keeps a list's address, its redirects and what its name resolves
// to from making us knock at the doors of the house. It sees the address that is
// about to be connected to, so that no second look-up can differ.
func refuseInside(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	a := ap.Addr().Unmap().WithZone("")
	if a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast() ||
		netip.MustParsePrefix("100.64.0.0/10").Contains(a) || netip.MustParsePrefix("64:ff9b::/96").Contains(a) {
		return fmt.Errorf("%s is an address of the house; lists come from outside unless private addresses are allowed", a)
	}
	return nil
}

// fetch asks for a list. It returns errUnchanged when the server says so.
func (l *Lists) fetch(ctx context.Context, address string, m, old meta) (io.ReadCloser, meta, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
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
	res, err := l.client.Do(req)
	if err != nil {
		cancel()
		return nil, m, err
	}
	body := &responseBody{ReadCloser: res.Body, cancel: cancel}
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNotModified:
		body.Close()
		return nil, m, errUnchanged
	default:
		body.Close()
		return nil, m, fmt.Errorf("the server answered %d %s", res.StatusCode, http.StatusText(res.StatusCode))
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

// responseBody ends its request's deadline when it is closed.
type responseBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *responseBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel()
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
