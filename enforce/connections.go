//go:build linux

package enforce

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/google/nftables"
	netlinkmsg "github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
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

// endedFor is how long packets of a connection that was ended are refused: longer
// than either side sends them again.
const endedFor = 5 * time.Minute

// End ends one running connection and nothing else between its two ends: both are
// told with its next packet. A connection that is gone already is no error.
func (k *Kernel) End(ctx context.Context, t flow.Tuple) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	set := "ended6"
	if t.SrcAddr().Is4() {
		set = "ended4"
	}
	if err := k.refresh(set, []nftables.SetElement{{Key: tupleKey(t), Timeout: endedFor}}); err != nil {
		return fmt.Errorf("enforce: ending a connection: %w", err)
	}
	return k.Delete(ctx, t)
}

// tupleKey is protocol . address . port . address . port as nft lays concatenations out.
func tupleKey(t flow.Tuple) []byte {
	key := []byte{byte(t.Proto), 0, 0, 0}
	for _, end := range []netip.AddrPort{t.SrcAddrPort(), t.DstAddrPort()} {
		key = append(key, end.Addr().Unmap().AsSlice()...)
		key = append(binary.BigEndian.AppendUint16(key, end.Port()), 0, 0)
	}
	return key
}

// deleteWhere deletes every tracked connection that match says yes to and
// returns how many those were.
func deleteWhere(ctx context.Context, match func(*conntrack.Flow) bool) (n int, err error) {
	var doomed []conntrack.Flow
	err = eachFlow(ctx, func(f *conntrack.Flow) {
		if match(f) {
			doomed = append(doomed, conntrack.Flow{ID: f.ID, Zone: f.Zone, TupleOrig: f.TupleOrig, TupleReply: f.TupleReply})
		}
	})
	if err != nil || len(doomed) == 0 {
		return 0, err
	}
	c, err := conntrack.Dial(nil)
	if err != nil {
		return 0, fmt.Errorf("enforce: opening conntrack: %w", mendRoute(err))
	}
	defer c.Close()
	for _, f := range doomed {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		switch err := c.Delete(f); {
		case err == nil:
			n++
		case !errors.Is(err, syscall.ENOENT): // gone by itself meanwhile
			return n, fmt.Errorf("enforce: deleting a connection: %w", mendRoute(err))
		}
	}
	return n, nil
}

// eachFlow shows every tracked connection to visit, one at a time: a busy
// router tracks tens of thousands, which need not be in memory together.
func eachFlow(ctx context.Context, visit func(*conntrack.Flow)) error {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("enforce: opening conntrack: %w", mendRoute(err))
	}
	defer func() { _ = syscall.Close(fd) }()
	// The kernel answers at once; the limit is for the day when it does not.
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Sec: 5}); err != nil {
		return err
	}
	const getConntrack = 1<<8 | 1 // NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
	ask := make([]byte, syscall.NLMSG_HDRLEN+4)
	binary.NativeEndian.PutUint32(ask, uint32(len(ask)))
	binary.NativeEndian.PutUint16(ask[4:], getConntrack)
	binary.NativeEndian.PutUint16(ask[6:], syscall.NLM_F_REQUEST|syscall.NLM_F_DUMP) // of both families: nfgenmsg is all zero
	if err := syscall.Sendto(fd, ask, 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return fmt.Errorf("enforce: asking for connections: %w", mendRoute(err))
	}
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		n, _, err := syscall.Recvfrom(fd, buf, 0)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("enforce: listing connections: %w", mendRoute(err))
		}
		done, err := visitFlows(buf[:n], visit)
		if err != nil || done {
			return err
		}
	}
	return ctx.Err()
}

// visitFlows reads one datagram of the kernel's answer; done after its last.
func visitFlows(b []byte, visit func(*conntrack.Flow)) (done bool, err error) {
	msgs, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return false, fmt.Errorf("enforce: listing connections: %w", err)
	}
	for _, m := range msgs {
		switch m.Header.Type {
		case syscall.NLMSG_DONE:
			return true, nil
		case syscall.NLMSG_ERROR:
			if len(m.Data) >= 4 {
				err = syscall.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
			}
			return true, fmt.Errorf("enforce: listing connections: %w (on OpenWrt kmod-nf-conntrack-netlink is needed)", mendRoute(err))
		}
		var e conntrack.Event
		err := e.Unmarshal(netlinkmsg.Message{Header: netlinkmsg.Header{Type: netlinkmsg.HeaderType(m.Header.Type)}, Data: m.Data})
		if err != nil {
			return false, fmt.Errorf("enforce: reading a connection: %w", err)
		}
		if e.Flow != nil {
			visit(e.Flow)
		}
	}
	return false, nil
}

// endConnections ends what runs between the internet and devices that are cut,
// and what a guarded device shall from now on do through the proxy.
func (k *Kernel) endConnections(ctx context.Context, cut, guarded []devices.MAC, web []uint16) (int, error) {
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
	ended := map[devices.MAC]int{}
	n, err := deleteWhere(ctx, func(f *conntrack.Flow) bool {
		src, dst, port := f.TupleOrig.IP.SourceAddress, f.TupleOrig.IP.DestinationAddress, f.TupleOrig.Proto.DestinationPort
		whose, ends := addrs[src], false
		switch {
		case isCut[src]:
			ends = !house.contains(dst)
		case isCut[dst]:
			whose, ends = addrs[dst], !house.contains(src)
		case isGuarded[src]:
			ends = !house.contains(dst) && (port == 853 || slices.Contains(web, port))
		}
		if ends && isOpen(f) {
			ended[whose]++
		}
		return ends
	})
	k.beats.noteEnded(ended)
	return n, err
}

// isOpen tells a connection that runs from one that is over and only remembered.
func isOpen(f *conntrack.Flow) bool {
	if tcp := f.ProtoInfo.TCP; tcp != nil {
		const closeWait = 5 // TCP_CONNTRACK_CLOSE_WAIT; what follows is over
		return tcp.State <= closeWait
	}
	return f.Status.Assured()
}

// Ended is how many running connections of these devices Set ended, because they
// were cut or guarded, since it was last asked.
func (k *Kernel) Ended(macs ...devices.MAC) (n int) {
	k.beats.mu.Lock()
	defer k.beats.mu.Unlock()
	for _, m := range macs {
		n += k.beats.ended[m]
		delete(k.beats.ended, m)
	}
	return n
}

// noteEnded adds to what Ended answers: this Set's devices, no others, so that it stays small.
func (h *heartbeat) noteEnded(by map[devices.MAC]int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = by
}

// neighbourhood maps addresses to the devices that have them now.
type neighbourhood map[netip.Addr]devices.MAC

func neighbours() (neighbourhood, error) {
	list, err := whole(func() ([]netlink.Neigh, error) { return netlink.NeighList(0, netlink.FAMILY_ALL) })
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
	list, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
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
		routes, err := listRoutes(family, syscall.RT_TABLE_MAIN)
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
