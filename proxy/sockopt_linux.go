package proxy

import (
	"fmt"
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
