//go:build linux

package scene

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
	"golang.org/x/sync/errgroup"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/internal/netlab"
)

// Resolvers of the made-up internet: the provider's, and those that devices have
// built in.
var (
	ProviderDNS  = netip.MustParseAddr("203.0.113.53")
	ProviderDNS6 = netip.MustParseAddr("2001:db8:113::53")
	Google       = netip.MustParseAddr("8.8.8.8")
	Google6      = netip.MustParseAddr("2001:4860:4860::8888")
	builtIn      = []netip.Addr{Google, Google6, netip.MustParseAddr("1.1.1.1")}
)

// Internet answers for every name of its zone at an address of that name's own.
type Internet struct {
	zone   map[dnsname.Name]netip.Addr // the IPv4 address; IPv6 has the same last octets
	names  map[netip.Addr]dnsname.Name
	ca     *x509.Certificate
	key    *ecdsa.PrivateKey
	mu     sync.Mutex // guards leaves
	leaves map[string]*tls.Certificate
}

// NewInternet gives every host that the personas talk to an address.
func NewInternet(personas []Persona) (*Internet, error) {
	in := &Internet{zone: map[dnsname.Name]netip.Addr{}, names: map[netip.Addr]dnsname.Name{}, leaves: map[string]*tls.Certificate{}}
	for _, p := range personas {
		for _, a := range p.Acts {
			if err := in.Add(a.Host); err != nil {
				return nil, err
			}
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	in.key = key
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "made-up internet"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		return nil, err
	}
	in.ca, err = x509.ParseCertificate(der)
	return in, err
}

// Add gives a name an address, once; call it before the house is built.
func (in *Internet) Add(name dnsname.Name) error {
	if _, ok := in.zone[name]; ok {
		return nil
	}
	n := len(in.zone) + 1
	if n > 250 {
		return errors.New("the made-up internet has room for 250 names")
	}
	a := netip.AddrFrom4([4]byte{198, 51, 100, byte(n)})
	in.zone[name], in.names[a], in.names[six(a)] = a, name, name
	return nil
}

// six is the IPv6 address of the name that has the IPv4 address a.
func six(a netip.Addr) netip.Addr {
	b := netip.MustParseAddr("2001:db8:100::").As16()
	b[15] = a.As4()[3]
	return netip.AddrFrom16(b)
}

// Addr is the IPv4 address of a name of the zone.
func (in *Internet) Addr(name dnsname.Name) netip.Addr { return in.zone[name] }

// Addrs are all addresses that the internet's host must have.
func (in *Internet) Addrs() []netip.Addr {
	out := append([]netip.Addr{ProviderDNS, ProviderDNS6}, builtIn...)
	for a := range in.names {
		out = append(out, a)
	}
	return out
}

// Roots are what a device must trust to talk to the internet.
func (in *Internet) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(in.ca)
	return pool
}

// Run serves DNS, HTTP, TLS, QUIC, MQTT and NTP in host until ctx ends.
// ready is called once everything listens.
func (in *Internet) Run(ctx context.Context, host *netlab.Host, ready func()) error {
	g, ctx := errgroup.WithContext(ctx)
	if err := host.Do(func() error { return in.listen(ctx, g) }); err != nil {
		return fmt.Errorf("the made-up internet: %w", err)
	}
	ready()
	return g.Wait()
}

func (in *Internet) listen(ctx context.Context, g *errgroup.Group) error {
	if err := ServeDNS(ctx, g, dns.HandlerFunc(in.answer)); err != nil {
		return err
	}
	conf := &tls.Config{GetCertificate: in.certificate, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	for _, s := range []struct {
		port string
		tls  *tls.Config
	}{{"80", nil}, {"443", conf}, {"8443", conf}} {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+s.port)
		if err != nil {
			return err
		}
		if s.tls != nil {
			s.tls = s.tls.Clone() // the server writes to it
			l = tls.NewListener(l, s.tls)
		}
		srv := &http.Server{Handler: http.HandlerFunc(serveWeb), ReadHeaderTimeout: time.Minute, TLSConfig: s.tls, ErrorLog: log.New(io.Discard, "", 0)}
		serve(ctx, g, srv.Close, func() error { return srv.Serve(l) })
	}
	if err := in.listenQUIC(ctx, g, conf); err != nil {
		return err
	}
	for port, handle := range map[string]func(net.Conn){"1883": serveMQTT, "587": func(c net.Conn) { serveMail(c, conf) }} {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+port)
		if err != nil {
			return err
		}
		serve(ctx, g, l.Close, func() error { return acceptAll(l, handle) })
	}
	return in.listenNTP(ctx, g)
}

// serve runs fn in g and closes it when ctx ends; the error of a closed server is none.
func serve(ctx context.Context, g *errgroup.Group, stop func() error, fn func() error) {
	context.AfterFunc(ctx, func() { _ = stop() })
	g.Go(func() error {
		if err := fn(); ctx.Err() == nil {
			return err
		}
		return nil
	})
}

// ServeDNS answers on port 53, UDP and TCP, both families, of the namespace
// that it is called in.
func ServeDNS(ctx context.Context, g *errgroup.Group, h dns.Handler) error {
	pc, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", ":53")
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":53")
	if err != nil {
		return err
	}
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: l, Handler: h}} {
		serve(ctx, g, s.Shutdown, s.ActivateAndServe)
	}
	return nil
}

func (in *Internet) answer(w dns.ResponseWriter, r *dns.Msg) {
	m := new(dns.Msg).SetReply(r)
	m.RecursionAvailable = true
	if len(r.Question) == 1 {
		q := r.Question[0]
		name, err := dnsname.Parse(q.Name)
		addr, ok := in.zone[name]
		h := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 60}
		switch {
		case err != nil || !ok:
			m.Rcode = dns.RcodeNameError
		case q.Qtype == dns.TypeA:
			m.Answer = []dns.RR{&dns.A{Hdr: h, A: addr.AsSlice()}}
		case q.Qtype == dns.TypeAAAA:
			m.Answer = []dns.RR{&dns.AAAA{Hdr: h, AAAA: six(addr).AsSlice()}}
		}
	}
	_ = w.WriteMsg(m)
}

// serveBody answers with as many bytes as ?down= asks for.
func serveBody(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	n, _ := strconv.Atoi(r.Header.Get("X-Down"))
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(n))
	_, _ = io.CopyN(w, zeros{}, int64(n))
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func (in *Internet) certificate(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := h.ServerName
	if name == "" {
		host, _, _ := net.SplitHostPort(h.Conn.LocalAddr().String())
		a, _ := netip.ParseAddr(host)
		name = string(in.names[a.Unmap()])
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if c, ok := in.leaves[name]; ok {
		return c, nil
	}
	valid := name
	if strings.HasPrefix(name, wrongCert) {
		valid = "another.example"
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(in.leaves) + 2)), Subject: pkix.Name{CommonName: valid}, DNSNames: []string{valid},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 1, 0), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, in.ca, in.key.Public(), in.key)
	if err != nil {
		return nil, err
	}
	in.leaves[name] = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: in.key}
	return in.leaves[name], nil
}

// listenQUIC answers each stream with as many bytes as its first four octets ask for.
func (in *Internet) listenQUIC(ctx context.Context, g *errgroup.Group, conf *tls.Config) error {
	pc, err := net.ListenUDP("udp", &net.UDPAddr{Port: 443})
	if err != nil {
		return err
	}
	conf = conf.Clone()
	conf.NextProtos = []string{"h3"}
	l, err := quic.Listen(pc, conf, &quic.Config{MaxIdleTimeout: 20 * time.Second})
	if err != nil {
		return err
	}
	serve(ctx, g, pc.Close, func() error {
		for {
			c, err := l.Accept(ctx)
			if err != nil {
				return err
			}
			go func() {
				s, err := c.AcceptStream(ctx)
				if err != nil {
					return
				}
				var n [4]byte
				if _, err := io.ReadFull(s, n[:]); err == nil {
					_, _ = io.CopyN(s, zeros{}, int64(binary.BigEndian.Uint32(n[:])))
				}
				_ = s.Close()
			}()
		}
	})
	return nil
}

func acceptAll(l net.Listener, handle func(net.Conn)) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			handle(c)
		}()
	}
}

// serveMail speaks first, as mail servers do, and goes over to TLS when it is asked
// to (RFC 3207).
func serveMail(c net.Conn, conf *tls.Config) {
	r := bufio.NewReader(c)
	_, _ = io.WriteString(c, "220 mail ESMTP\r\n")
	for {
		line, err := r.ReadString('\n')
		switch verb, _, _ := strings.Cut(strings.TrimSpace(line), " "); {
		case err != nil:
			return
		case verb == "EHLO":
			_, _ = io.WriteString(c, "250-mail\r\n250 STARTTLS\r\n")
		case verb == "STARTTLS":
			_, _ = io.WriteString(c, "220 go ahead\r\n")
			_, _ = io.Copy(io.Discard, tls.Server(c, conf))
			return
		default:
			_, _ = io.WriteString(c, "502 what\r\n")
		}
	}
}

// serveMQTT accepts any CONNECT (MQTT 3.1.1 §3.2) and swallows what follows.
func serveMQTT(c net.Conn) {
	r := bufio.NewReader(c)
	if b, err := r.ReadByte(); err != nil || b != 0x10 {
		return
	}
	n, err := r.ReadByte() // our clients send short packets
	if err != nil {
		return
	}
	if _, err := io.CopyN(io.Discard, r, int64(n)); err != nil {
		return
	}
	if _, err := c.Write([]byte{0x20, 2, 0, 0}); err == nil {
		_, _ = io.Copy(io.Discard, r)
	}
}

// listenNTP answers at the address of every name, for a wildcard socket would
// answer from the wrong one.
func (in *Internet) listenNTP(ctx context.Context, g *errgroup.Group) error {
	for a := range in.names {
		pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 123)))
		if err != nil {
			return err
		}
		serve(ctx, g, pc.Close, func() error {
			b := make([]byte, 512)
			for {
				n, from, err := pc.ReadFromUDPAddrPort(b)
				if err != nil {
					return err
				}
				if n < 48 {
					continue
				}
				reply := make([]byte, 48)
				reply[0], reply[1] = 0x24, 2 // version 4, server; stratum 2 (RFC 5905 §7.3)
				copy(reply[24:32], b[40:48])
				binary.BigEndian.PutUint32(reply[40:], uint32(time.Now().Unix()+2208988800))
				_, _ = pc.WriteToUDPAddrPort(reply, from)
			}
		})
	}
	return nil
}
