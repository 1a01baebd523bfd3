//go:build linux

package scene

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
	"golang.org/x/sync/errgroup"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/internal/netlab"
)

// Outcome is what became of one act, in words a person reads: "ok", "refused by
// DNS (NXDOMAIN)", "451 block page", …
type Outcome struct {
	Persona string
	Act     Act
	Text    string
}

// Device lives in a namespace as its persona says.
type Device struct {
	Persona Persona
	Host    *netlab.Host
	Roots   *x509.CertPool
	V6      bool // use IPv6 for connections
	// Addr knows the addresses that are built into the device.
	Addr func(dnsname.Name) netip.Addr
}

// Run does each act in its rhythm until ctx ends and reports every outcome.
func (d *Device) Run(ctx context.Context, report func(Outcome)) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, a := range d.Persona.Acts {
		g.Go(func() error {
			// Not all at once: the second act starts a little later than the first.
			wait := time.NewTimer(time.Duration(200+300*i) * time.Millisecond)
			defer wait.Stop()
			for {
				select {
				case <-ctx.Done():
					return nil
				case <-wait.C:
				}
				text, err := d.Do(ctx, a)
				if ctx.Err() != nil {
					return nil
				}
				if err != nil {
					text = err.Error()
				}
				report(Outcome{Persona: d.Persona.Name, Act: a, Text: text})
				wait.Reset(a.Every)
			}
		})
	}
	return g.Wait()
}

// Do does one act once.
func (d *Device) Do(ctx context.Context, a Act) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var addr netip.Addr
	var rcode int
	var err error
	if a.Direct {
		addr = d.Addr(a.Host)
		if d.V6 {
			addr = six(addr)
		}
	} else {
		addr, rcode, err = d.Lookup(ctx, a.Host, a.Via)
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("looking up: %w", err)
	case rcode != dns.RcodeSuccess:
		return "refused by DNS (" + dns.RcodeToString[rcode] + ")", nil
	case !addr.IsValid() || addr.IsUnspecified():
		return "refused by DNS (no address)", nil
	case a.Verb == "lookup":
		return "answered " + addr.String(), nil
	}
	switch a.Verb {
	case "http", "https":
		return d.http(ctx, a, addr)
	case "h2":
		return d.h2(ctx, a, addr)
	case "quic":
		return d.quic(ctx, a, addr)
	case "mqtt":
		return d.mqtt(ctx, a, addr)
	case "ntp":
		return d.ntp(ctx, addr)
	}
	return "", fmt.Errorf("nobody knows how to %s", a.Verb)
}

// Lookup asks for an address of name: the router, or a built-in resolver.
func (d *Device) Lookup(ctx context.Context, name dnsname.Name, via netip.Addr) (netip.Addr, int, error) {
	if !via.IsValid() {
		via = netlab.RouterLAN4.Addr()
		if d.Persona.Guest {
			via = netlab.RouterGuest4.Addr()
		}
	}
	c, err := d.dial(ctx, "udp", netip.AddrPortFrom(via, 53))
	if err != nil {
		return netip.Addr{}, 0, err
	}
	defer c.Close()
	qtype := dns.TypeA
	if d.V6 {
		qtype = dns.TypeAAAA
	}
	r, err := Exchange(c, name, qtype)
	if err != nil {
		return netip.Addr{}, 0, err
	}
	for _, rr := range r.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			a, _ := netip.AddrFromSlice(rr.A.To4())
			return a, r.Rcode, nil
		case *dns.AAAA:
			a, _ := netip.AddrFromSlice(rr.AAAA)
			return a, r.Rcode, nil
		}
	}
	return netip.Addr{}, r.Rcode, nil
}

// Exchange asks one question over an open connection and waits 3 s for its answer,
// and once more, as devices do.
func Exchange(c net.Conn, name dnsname.Name, qtype uint16) (r *dns.Msg, err error) {
	m := new(dns.Msg).SetQuestion(string(name)+".", qtype)
	co := &dns.Conn{Conn: c}
	for range 2 {
		_ = c.SetDeadline(time.Now().Add(3 * time.Second))
		if err := co.WriteMsg(m); err != nil {
			return nil, err
		}
		for err = nil; err == nil; {
			if r, err = co.ReadMsg(); err == nil && r.Id == m.Id {
				return r, nil
			}
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	return nil, err
}

// dial opens one connection to a literal address from inside the device.
func (d *Device) dial(ctx context.Context, network string, to netip.AddrPort) (c net.Conn, err error) {
	err = d.Host.Do(func() error {
		dialer := net.Dialer{Timeout: 10 * time.Second, FallbackDelay: -1}
		dialer.SetMultipathTCP(false)
		c, err = dialer.DialContext(ctx, network, to.String())
		return err
	})
	if err == nil {
		deadline, _ := ctx.Deadline()
		_ = c.SetDeadline(deadline)
	}
	return c, err
}

func (d *Device) http(ctx context.Context, a Act, addr netip.Addr) (string, error) {
	port := uint16(80)
	if a.Verb == "https" {
		port = 443
	}
	c, err := d.dial(ctx, "tcp", netip.AddrPortFrom(addr, port))
	if err != nil {
		return "", err
	}
	defer c.Close()
	if a.Verb == "https" {
		conf := &tls.Config{ServerName: string(a.Host), RootCAs: d.Roots, NextProtos: []string{"http/1.1"}}
		for n := 1400; n < a.Hello; n += 9 { // a hello has some 1400 bytes without them
			conf.NextProtos = append(conf.NextProtos, fmt.Sprintf("x-pad-%02d", n/9%100))
		}
		if a.TLS12 {
			conf.MaxVersion = tls.VersionTLS12
		}
		t := tls.Client(c, conf)
		if err := t.HandshakeContext(ctx); err != nil {
			return "", fmt.Errorf("TLS: %w", err)
		}
		c = t
	}
	method := http.MethodGet
	if a.Up > 0 {
		method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, a.Verb+"://"+string(a.Host)+a.Path, bytes.NewReader(bytes.Repeat([]byte("x"), a.Up)))
	if err != nil {
		return "", err
	}
	req.Header.Set("X-Down", strconv.Itoa(a.Down))
	req.Header.Set("User-Agent", d.Persona.Host)
	req.Close = true
	if err := req.Write(c); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Sprintf("%s (%d bytes)", resp.Status, n), nil
	}
	return fmt.Sprintf("sent %d, got %d bytes", a.Up, n), err
}

// h2 asks twice on one connection, by HTTP/2 with Go's own client.
func (d *Device) h2(ctx context.Context, a Act, addr netip.Addr) (text string, err error) {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.dial(ctx, "tcp", netip.AddrPortFrom(addr, 443))
		},
		TLSClientConfig: &tls.Config{RootCAs: d.Roots}, ForceAttemptHTTP2: true,
	}
	defer tr.CloseIdleConnections()
	for range 2 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+string(a.Host)+a.Path, http.NoBody)
		if err != nil {
			return "", err
		}
		req.Header.Set("X-Down", strconv.Itoa(a.Down))
		resp, err := tr.RoundTrip(req)
		if err != nil {
			return "", err
		}
		n, err := io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return "", err
		}
		text = fmt.Sprintf("%s, got %d bytes", resp.Proto, n)
	}
	return text, nil
}

func (d *Device) quic(ctx context.Context, a Act, addr netip.Addr) (_ string, err error) {
	var pc *net.UDPConn
	if err := d.Host.Do(func() error { pc, err = net.ListenUDP("udp", nil); return err }); err != nil {
		return "", err
	}
	defer pc.Close()
	tr := &quic.Transport{Conn: pc}
	defer tr.Close()
	c, err := tr.Dial(ctx, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 443)),
		&tls.Config{ServerName: string(a.Host), RootCAs: d.Roots, NextProtos: []string{"h3"}}, &quic.Config{HandshakeIdleTimeout: 5 * time.Second})
	if err != nil {
		return "", err
	}
	defer c.CloseWithError(0, "")
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return "", err
	}
	if err := binary.Write(s, binary.BigEndian, uint32(a.Down)); err != nil {
		return "", err
	}
	n, err := io.Copy(io.Discard, s)
	return fmt.Sprintf("got %d bytes", n), err
}

// mqtt sends a CONNECT with user and password and one PUBLISH (MQTT 3.1.1 §3.1, §3.3).
func (d *Device) mqtt(ctx context.Context, a Act, addr netip.Addr) (string, error) {
	c, err := d.dial(ctx, "tcp", netip.AddrPortFrom(addr, 1883))
	if err != nil {
		return "", err
	}
	defer c.Close()
	str := func(s string) string { return string([]byte{0, byte(len(s))}) + s }
	body := str("MQTT") + "\x04\xc2\x00\x3c" + str(d.Persona.Host) + str(a.User) + str(a.Password)
	if len(body) > 127 {
		return "", errors.New("mqtt: names too long for a short packet")
	}
	if _, err := c.Write([]byte("\x10" + string([]byte{byte(len(body))}) + body)); err != nil {
		return "", err
	}
	ack := make([]byte, 4)
	if _, err := io.ReadFull(c, ack); err != nil {
		return "", err
	}
	body = str(a.Topic) + `{"power":` + strings.Repeat("1", 3) + `}`
	if _, err := c.Write([]byte("\x30" + string([]byte{byte(len(body))}) + body)); err != nil {
		return "", err
	}
	return "published " + a.Topic, nil
}

func (d *Device) ntp(ctx context.Context, addr netip.Addr) (string, error) {
	c, err := d.dial(ctx, "udp", netip.AddrPortFrom(addr, 123))
	if err != nil {
		return "", err
	}
	defer c.Close()
	q := make([]byte, 48)
	q[0] = 0x23 // version 4, client
	if _, err := c.Write(q); err != nil {
		return "", err
	}
	if _, err := io.ReadFull(c, q); err != nil {
		return "", err
	}
	return "got the time", nil
}
