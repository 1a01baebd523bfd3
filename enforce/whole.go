//go:build linux

package enforce

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// errInterrupted says that what was listed changed meanwhile.
var errInterrupted = netlink.ErrDumpInterrupted

// patience is how often something is tried again that others came in between of.
// Each time is over within a few milliseconds.
const patience = 100

// whole asks the kernel for a list until it was not changed while it was told: what
// is told of one that changes may lack anything, although little has changed.
func whole[T any](list func() (T, error)) (all T, err error) {
	for range patience {
		if all, err = list(); !errors.Is(err, errInterrupted) {
			break
		}
	}
	return all, err
}
