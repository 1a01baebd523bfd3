//go:build linux

package enforce

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/netcurtain/netcurtain/internal/netlab"
	"github.com/netcurtain/netcurtain/internal/netlab/labtest"
)

// Places on the lab's internet, and the router's resolver address as IPv6
// router advertisements carry it.
var (
	google4       = netip.MustParseAddr("8.8.8.8")
	google6       = netip.MustParseAddr("2001:db8:8::8")
	site4         = netip.MustParseAddr("198.51.100.10")
	site6         = netip.MustParseAddr("2001:db8:99::10")
	other4        = netip.MustParseAddr("198.51.100.20")
	other6        = netip.MustParseAddr("2001:db8:99::20")
	private4      = netip.MustParseAddr("10.9.9.9") // behind the uplink, as a second router's network is
	internetAddrs = []netip.Addr{google4, google6, site4, site6, other4, other6, private4}
	routerLink    = netip.MustParseAddr("fe80::1")
)

// lab is a house whose router obeys a Kernel.
type lab struct {
	testing.TB
	house            *netlab.House
	k                *Kernel
	router, internet *netlab.Host
	tv, phone, toy   *netlab.Host
	hearts           map[Service]func() // each stops
}

func newLab(t testing.TB, more ...netlab.DevicePlan) *lab {
	t.Helper()
	h := labtest.House(t, netlab.Plan{
		Devices:  append([]netlab.DevicePlan{{Name: "tv", Number: 10}, {Name: "phone", Number: 11}, {Name: "toy", Number: 12}}, more...),
		Internet: internetAddrs,
	})
	k, err := New(Config{
		Logger:  slog.New(slog.NewTextHandler(io.Discard, nil)),
		CutFile: filepath.Join(t.TempDir(), "cut.nft"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	if err := h.Router.AddAddr(netlab.LANInterface, netip.PrefixFrom(routerLink, 64)); err != nil {
		t.Fatal(err)
	}
	return &lab{t, h, k, h.Router, h.Internet, h.Devices["tv"], h.Devices["phone"], h.Devices["toy"], map[Service]func(){}}
}

// in runs fn in the router.
func (l *lab) in(fn func() error) {
	l.Helper()
	if err := l.router.Do(fn); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) set(d Desired) {
	l.Helper()
	l.in(func() error { return l.k.Set(l.Context(), d) })
}

// beat proves once that s is alive.
func (l *lab) beat(s Service) {
	l.Helper()
	l.in(func() error { return l.k.Alive(l.Context(), s) })
}

// alive keeps services alive until they are said to be dead or the test ends.
func (l *lab) alive(services ...Service) {
	l.Helper()
	for _, s := range services {
		l.beat(s)
		ctx, stop := context.WithCancel(l.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Second):
					_ = l.router.Do(func() error { return l.k.Alive(ctx, s) })
				}
			}
		}()
		l.hearts[s] = func() { stop(); <-ended }
		l.Cleanup(l.hearts[s])
	}
}

func (l *lab) dead(s Service) {
	l.Helper()
	l.hearts[s]()
	l.in(func() error { return l.k.Dead(l.Context(), s) })
}

// state is everything in the router that we may change. The kernel's own routes
// to its addresses are left out: those of IPv6 appear when they like.
func (l *lab) state() string {
	l.Helper()
	return l.sh("nft list ruleset; ip rule; ip -6 rule; ip route show table all | grep -v -e fe80 -e 'table local'; ip -6 route show table all | grep -v -e fe80 -e ff00 -e 'table local'; sysctl net.netfilter.nf_conntrack_acct net.netfilter.nf_conntrack_timestamp")
}

// sh runs a shell line in the router.
func (l *lab) sh(line string) string {
	l.Helper()
	out, err := l.router.Command(context.Background(), "sh", "-c", line).CombinedOutput()
	if err != nil {
		l.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// server answers "<tag> <own address>" to every datagram or line. While hung it
// takes what comes and says nothing, as a stopped process does.
type server struct {
	tag    string
	hung   atomic.Bool
	closer []io.Closer
}

func (s *server) kill() {
	for _, c := range s.closer {
		_ = c.Close()
	}
}

// serve starts a server in host on UDP and TCP of each address; link-local ones
// are those of the LAN.
func (l *lab) serve(host *netlab.Host, tag string, port uint16, addrs ...netip.Addr) *server {
	l.Helper()
	dev := "eth0"
	if host == l.router {
		dev = netlab.LANInterface
	}
	return l.serveOn(host, dev, tag, port, addrs...)
}

// serveOn is serve for the link-local addresses of another interface.
func (l *lab) serveOn(host *netlab.Host, dev, tag string, port uint16, addrs ...netip.Addr) *server {
	l.Helper()
	s := &server{tag: tag}
	for _, a := range addrs {
		at := netip.AddrPortFrom(l.zoned(host, dev, a), port)
		err := host.Do(func() error {
			u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
			if err != nil {
				return err
			}
			s.closer = append(s.closer, u)
			go s.datagrams(u)
			t, err := listen(at.String(), false)
			if err != nil {
				return err
			}
			s.closer = append(s.closer, t)
			go s.accept(t)
			return nil
		})
		if err != nil {
			l.Fatal(err)
		}
	}
	l.Cleanup(s.kill)
	return s
}

// proxy starts a transparent TCP server in the router.
func (l *lab) proxy(tag string, port uint16) *server {
	l.Helper()
	s := &server{tag: tag}
	l.in(func() error {
		t, err := listen(fmt.Sprintf("[::]:%d", port), true)
		if err != nil {
			return err
		}
		s.closer = append(s.closer, t)
		go s.accept(t)
		return nil
	})
	l.Cleanup(s.kill)
	return s
}

func listen(at string, transparent bool) (net.Listener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if !transparent {
			return nil
		}
		const ipv6Transparent = 75
		err2 := c.Control(func(fd uintptr) {
			err = errors.Join(
				syscall.SetsockoptInt(int(fd), syscall.SOL_IP, syscall.IP_TRANSPARENT, 1),
				syscall.SetsockoptInt(int(fd), syscall.SOL_IPV6, ipv6Transparent, 1))
		})
		return errors.Join(err, err2)
	}}
	return lc.Listen(context.Background(), "tcp", at)
}

func (s *server) datagrams(u *net.UDPConn) {
	buf := make([]byte, 2048)
	for {
		_, from, err := u.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if !s.hung.Load() {
			_, _ = u.WriteToUDPAddrPort([]byte(s.tag+"\n"), from)
		}
	}
}

func (s *server) accept(t net.Listener) {
	for {
		c, err := t.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			for r := bufio.NewReader(c); ; {
				if _, err := r.ReadString('\n'); err != nil {
					return
				}
				if !s.hung.Load() {
					_, _ = fmt.Fprintf(c, "%s %s\n", s.tag, c.LocalAddr())
				}
			}
		}()
	}
}

// zoned gives a link-local address the scope that it has in host. The number,
// not the name: package net remembers names for the whole process.
func (l *lab) zoned(host *netlab.Host, dev string, a netip.Addr) netip.Addr {
	if !a.IsLinkLocalUnicast() {
		return a
	}
	err := host.Do(func() error {
		i, err := net.InterfaceByName(dev)
		if err == nil {
			a = a.WithZone(fmt.Sprint(i.Index))
		}
		return err
	})
	if err != nil {
		l.Fatal(err)
	}
	return a
}

// How long a question waits: patient is for answers that must come, on a machine
// busy with other things; hasty for clients that ask again, and for silence.
const (
	patient = 20 * time.Second
	hasty   = 800 * time.Millisecond
)

// dial opens a connection from host; sport 0 takes any source port.
func (l *lab) dial(host *netlab.Host, network string, sport uint16, addr netip.Addr, port uint16, wait time.Duration) (c net.Conn, err error) {
	to := netip.AddrPortFrom(l.zoned(host, "eth0", addr), port)
	err = host.Do(func() error {
		d := net.Dialer{Timeout: wait, Control: func(_, _ string, c syscall.RawConn) (err error) {
			err2 := c.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
			})
			return errors.Join(err, err2)
		}}
		if sport != 0 && network == "udp" {
			d.LocalAddr = &net.UDPAddr{Port: int(sport)}
		} else if sport != 0 {
			d.LocalAddr = &net.TCPAddr{Port: int(sport)}
		}
		c, err = d.Dial(network, to.String())
		return err
	})
	if t, ok := c.(*net.TCPConn); ok && sport != 0 {
		_ = t.SetLinger(0) // frees the port at once
	}
	return c, err
}

// talk sends a line and returns the answer, or what went wrong in a word.
func talk(c net.Conn, wait time.Duration) string {
	_ = c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte("hello\n")); err != nil {
		return word(err)
	}
	buf := make([]byte, 256)
	n, err := c.Read(buf)
	if err != nil {
		return word(err)
	}
	return strings.TrimSpace(string(buf[:n]))
}

// ask is one question over a connection of its own.
func (l *lab) ask(host *netlab.Host, network string, addr netip.Addr, port uint16, wait time.Duration) string {
	l.Helper()
	c, err := l.dial(host, network, 0, addr, port, wait)
	if err != nil {
		return word(err)
	}
	defer c.Close()
	return talk(c, wait)
}

func word(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, io.EOF):
		return "closed"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "silence"
	}
	return err.Error()
}

// expect asks and compares the first word of the answer.
func (l *lab) expect(why string, host *netlab.Host, network string, addr netip.Addr, port uint16, want string) {
	l.Helper()
	wait := patient
	if want == "silence" {
		wait = hasty
	}
	got := l.ask(host, network, addr, port, wait)
	if first, _, _ := strings.Cut(got, " "); first != want {
		l.Errorf("%s: %s to %s:%d over %s: %q, want %q", why, host.Name, addr, port, network, got, want)
	}
}

// running opens a connection and makes sure that want answers on it.
func (l *lab) running(host *netlab.Host, addr netip.Addr, port uint16, want string) net.Conn {
	l.Helper()
	c, err := l.dial(host, "tcp", 0, addr, port, patient)
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = c.Close() })
	l.answers("at first", c, want)
	return c
}

// answers talks over a running connection and compares the first word.
func (l *lab) answers(why string, c net.Conn, want string) {
	l.Helper()
	wait := patient
	if want == "silence" {
		wait = hasty
	}
	got := talk(c, wait)
	if first, _, _ := strings.Cut(got, " "); first != want {
		l.Errorf("%s: connection to %s: %q, want %q", why, c.RemoteAddr(), got, want)
	}
}

// withoutOffload makes a link compute and verify checksums in software, as the
// network cards of small routers do.
func (l *lab) withoutOffload(host *netlab.Host, dev string) {
	l.Helper()
	err := host.Do(func() error {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer syscall.Close(fd)
		for _, command := range []uint32{0x15, 0x17} { // ETHTOOL_SRXCSUM, ETHTOOL_STXCSUM
			value := struct{ command, data uint32 }{command, 0}
			request := struct {
				name  [16]byte
				value unsafe.Pointer
				_     [16]byte
			}{value: unsafe.Pointer(&value)}
			copy(request.name[:15], dev)
			const ethtool = 0x8946 // SIOCETHTOOL
			_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), ethtool, uintptr(unsafe.Pointer(&request)))
			if errno != 0 {
				return fmt.Errorf("ethtool %#x on %s: %w", command, dev, errno)
			}
		}
		return nil
	})
	if err != nil {
		l.Fatal(err)
	}
}
