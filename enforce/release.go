//go:build linux

package enforce

import (
	"context"
	"errors"
	"slices"

	"github.com/google/nftables"
	"github.com/ti-mo/conntrack"
)

// defaultTable is the routing table that Release looks for where no table of
// ours tells another.
const defaultTable = 4743

// Release takes our hands off the kernel: the table inet netcurtain, the policy
// route, the sysctls and every tracked connection that leads to our listeners.
// It needs no configuration and no running daemon, may be called at any time and
// any number of times, and leaves the cut in place. Whatever fails, it goes on.
func Release(ctx context.Context) error {
	was, err := remembered()
	errs := []error{err}
	ours := ourPorts()
	errs = append(errs, deleteTable(mainTable), removePassages(), removeOffload(), removeRoute(defaultTable), restoreSysctls(was))
	if t := int(was["table"]); t != 0 && t != defaultTable {
		errs = append(errs, removeRoute(t))
	}
	// Last, when no rule can make a new one.
	_, err = deleteWhere(ctx, func(f *conntrack.Flow) bool {
		return f.Zone == zone || slices.Contains(ours, f.TupleReply.Proto.SourcePort) && f.TupleReply.Proto.SourcePort != f.TupleOrig.Proto.DestinationPort
	})
	return errors.Join(append(errs, err)...)
}

// ourPorts are the ports of our listeners, as the table remembers them.
func ourPorts() []uint16 {
	ports := []uint16{5300, 5301, 8380, 8343}
	c, err := nftables.New()
	if err != nil {
		return ports
	}
	elems, err := c.GetSetElements(&nftables.Set{Table: table(mainTable), Name: "ports"})
	if err != nil {
		return ports
	}
	for _, e := range elems {
		if len(e.Key) >= 2 {
			ports = append(ports, uint16(e.Key[0])<<8|uint16(e.Key[1]))
		}
	}
	return ports
}
