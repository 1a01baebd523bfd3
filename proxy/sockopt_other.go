//go:build !linux

package proxy

import (
	"errors"
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
