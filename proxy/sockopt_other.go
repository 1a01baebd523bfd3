//go:build !linux

package proxy

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
)

type control = func(network, address string, c syscall.RawConn) error

func markSocket(uint32) control { return nil }

// transparentSocket fails: only Linux hands connections over this way.
func transparentSocket(on bool) control {
	if !on {
		return nil
	}
	return func(string, string, syscall.RawConn) error {
		return errors.New("transparent listening needs Linux")
	}
}

func askSeldom(string, string, syscall.RawConn) error { return nil }

// original fails: only Linux translates destinations this way.
func original(*net.TCPConn) (netip.AddrPort, error) {
	return netip.AddrPort{}, errors.New("the original destination is known on Linux only")
}
