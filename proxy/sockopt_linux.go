package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

type control = func(network, address string, c syscall.RawConn) error

// markSocket sets SO_MARK, by which the kernel knows our own sockets.
func markSocket(mark uint32) control {
	if mark == 0 {
		return nil
	}
	return onSocket("marking our own socket", func(fd int, _ string) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(int32(mark)))
	})
}

// transparentSocket lets a listener accept connections to addresses that are
// not this machine's.
func transparentSocket(on bool) control {
	if !on {
		return nil
	}
	return onSocket("listening transparently", func(fd int, network string) error {
		if network == "tcp6" {
			return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
		}
		return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
	})
}

// askSeldom has the connections of a listener, which inherit it, ask after ten minutes of
// silence, and give up after three more without an answer (tcp(7)).
func askSeldom(_, _ string, c syscall.RawConn) (err error) {
	closed := c.Control(func(fd uintptr) {
		err = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 600),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 60),
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3))
	})
	return errors.Join(closed, err)
}

// original asks the kernel where a connection went before its destination was
// translated to ours (SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST). It fails for one that
// was not.
func original(c *net.TCPConn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	var dst netip.AddrPort
	four := addrPort(c.LocalAddr()).Addr().Is4()
	cerr := raw.Control(func(fd uintptr) {
		if four {
			dst, err = original4(int(fd))
		} else {
			dst, err = original6(int(fd))
		}
	})
	return dst, errors.Join(err, cerr)
}

// original4 reads a sockaddr_in in the room of a structure that is large enough.
func original4(fd int) (netip.AddrPort, error) {
	m, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, unix.SO_ORIGINAL_DST)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(m.Multiaddr[4:8])), binary.BigEndian.Uint16(m.Multiaddr[2:4])), nil
}

// original6 reads a sockaddr_in6, with which ip6_mtuinfo begins.
func original6(fd int) (netip.AddrPort, error) {
	const ip6tOriginalDst = 80
	m, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, ip6tOriginalDst)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port := binary.NativeEndian.AppendUint16(nil, m.Addr.Port)
	return netip.AddrPortFrom(netip.AddrFrom16(m.Addr.Addr).Unmap(), binary.BigEndian.Uint16(port)), nil
}

func onSocket(what string, set func(fd int, network string) error) control {
	return func(network, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = set(int(fd), network) }); cerr != nil {
			return cerr
		}
		if err != nil {
			return fmt.Errorf("%s (CAP_NET_ADMIN is needed): %w", what, err)
		}
		return nil
	}
}
