//go:build linux

package enforce

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/ti-mo/conntrack"
	"github.com/ti-mo/netfilter"
	"github.com/vishvananda/netlink"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
)

// Delete ends a connection in the kernel's eyes: its next packet counts as new
// and meets the rules for new ones. A connection that is gone already is no error.
func (k *Kernel) Delete(ctx context.Context, t flow.Tuple) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := conntrack.Dial(nil)
	if err != nil {
		return fmt.Errorf("enforce: opening conntrack: %w", mendRoute(err))
	}
	defer c.Close()
	f := conntrack.NewFlow(uint8(t.Proto), 0, t.SrcAddr(), t.DstAddr(), t.SrcPort, t.DstPort, 0, 0)
	// The kernel looks at the way out alone; the way back, which may be translated, only tells the family.
	zones := []uint16{0}
	if t.DstPort == 53 {
		zones = append(zones, zone)
	}
	for _, f.Zone = range zones {
		switch err := c.Delete(f); {
		case err == nil:
			k.metrics.ended.Inc()
		case !errors.Is(err, syscall.ENOENT):
			return fmt.Errorf("enforce: deleting connection %s to %s: %w", t.SrcAddrPort(), t.DstAddrPort(), mendRoute(err))
		}
	}
	return nil
}

// deleteWhere deletes every tracked connection that match says yes to.
func deleteWhere(ctx context.Context, match func(*conntrack.Flow) bool) (n int, err error) {
	c, err := conntrack.Dial(nil)
	if err != nil {
		return 0, fmt.Errorf("enforce: opening conntrack: %w", mendRoute(err))
	}
	defer c.Close()
	// One family at a time halves what a big table needs in memory.
	for _, family := range []netfilter.ProtoFamily{netfilter.ProtoIPv4, netfilter.ProtoIPv6} {
		flows, err := c.DumpFilter(conntrack.NewFilter().Family(family), nil)
		if err != nil {
			return n, fmt.Errorf("enforce: listing connections: %w", mendRoute(err))
		}
		for i := range flows {
			f := &flows[i]
			if !match(f) {
				continue
			}
			if err := ctx.Err(); err != nil {
				return n, err
			}
			err := c.Delete(conntrack.Flow{ID: f.ID, Zone: f.Zone, TupleOrig: f.TupleOrig, TupleReply: f.TupleReply})
			if err == nil {
				n++
			} else if !errors.Is(err, syscall.ENOENT) {
				return n, fmt.Errorf("enforce: deleting a connection: %w", mendRoute(err))
			}
		}
	}
	return n, nil
}

// endConnections ends what runs between the internet and devices that are cut,
// and what a guarded device shall from now on do through the proxy.
func endConnections(ctx context.Context, cut, guarded []devices.MAC) (int, error) {
	if len(cut)+len(guarded) == 0 {
		return 0, nil
	}
	addrs, err := neighbours()
	if err != nil {
		return 0, err
	}
	house, err := onLink()
	if err != nil {
		return 0, err
	}
	isCut, isGuarded := addrs.of(cut), addrs.of(guarded)
	return deleteWhere(ctx, func(f *conntrack.Flow) bool {
		src, dst, port := f.TupleOrig.IP.SourceAddress, f.TupleOrig.IP.DestinationAddress, f.TupleOrig.Proto.DestinationPort
		switch {
		case isCut[src]:
			return !house.contains(dst)
		case isCut[dst]:
			return !house.contains(src)
		case isGuarded[src]:
			return !house.contains(dst) && slices.Contains([]uint16{80, 443, 853}, port)
		}
		return false
	})
}

// neighbourhood maps addresses to the devices that have them now.
type neighbourhood map[netip.Addr]devices.MAC

func neighbours() (neighbourhood, error) {
	list, err := netlink.NeighList(0, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("enforce: listing neighbours: %w", err)
	}
	n := make(neighbourhood, len(list))
	for _, e := range list {
		if a, ok := netip.AddrFromSlice(e.IP); ok && len(e.HardwareAddr) == 6 {
			n[a.Unmap()] = devices.MAC(e.HardwareAddr)
		}
	}
	return n, nil
}

// of is the set of addresses of these devices.
func (n neighbourhood) of(macs []devices.MAC) map[netip.Addr]bool {
	out := make(map[netip.Addr]bool)
	for a, m := range n {
		if slices.Contains(macs, m) {
			out[a] = true
		}
	}
	return out
}

// prefixes of networks that the router is part of.
type prefixes []netip.Prefix

func (p prefixes) contains(a netip.Addr) bool {
	return a.IsLinkLocalUnicast() || slices.ContainsFunc(p, func(p netip.Prefix) bool { return p.Contains(a) })
}

// onLink lists the networks of the house: of every interface but the way out
// only the router's own address counts there.
func onLink() (prefixes, error) {
	out := outgoing()
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("enforce: listing addresses: %w", err)
	}
	var p prefixes
	for _, e := range list {
		a, ok := netip.AddrFromSlice(e.IP)
		if !ok {
			continue
		}
		a = a.Unmap()
		ones, _ := e.Mask.Size()
		if out[e.LinkIndex] {
			ones = a.BitLen()
		}
		p = append(p, netip.PrefixFrom(a, ones).Masked())
	}
	return p, nil
}

// outgoing are the interfaces of default routes.
func outgoing() map[int]bool {
	out := make(map[int]bool)
	for family, all := range families() {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: syscall.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			continue
		}
		for _, r := range routes {
			if r.Dst == nil || r.Dst.String() == all.String() {
				out[r.LinkIndex] = true
				for _, hop := range r.MultiPath {
					out[hop.LinkIndex] = true
				}
			}
		}
	}
	return out
}
