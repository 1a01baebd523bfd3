//go:build linux

package enforce

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/vishvananda/netlink"
)

// families of the policy route, with the destination that means everything.
func families() map[int]*net.IPNet {
	return map[int]*net.IPNet{
		netlink.FAMILY_V4: {IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
		netlink.FAMILY_V6: {IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
	}
}

// setRoute makes packets with the deliver mark local, whatever their destination:
// fwmark deliver/deliver → table → local default dev lo, in both families.
func setRoute(m Marks) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("enforce: looking for lo: %w", err)
	}
	for family, all := range families() {
		err := netlink.RouteReplace(&netlink.Route{
			LinkIndex: lo.Attrs().Index, Dst: all, Table: m.Table,
			Type: syscall.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Family: family,
		})
		if err != nil {
			if family == netlink.FAMILY_V6 && noIPv6(err) {
				continue
			}
			return fmt.Errorf("enforce: local route in table %d: %w", m.Table, mendRoute(err))
		}
		if err := setRule(family, m); err != nil {
			return fmt.Errorf("enforce: rule for table %d: %w", m.Table, mendRoute(err))
		}
	}
	return nil
}

// rulePriority is that of our rule for handed-over packets. It stands before all
// that other programs use (mwan3 from 1001, Tailscale from 5210, netifd from 10000,
// pbr about 30000): a rule of theirs that matched first would route such a packet
// out again, and the kernel drops one that has a socket already.
const rulePriority = 743

func setRule(family int, m Marks) error {
	there, err := listRules(family, m.Table)
	if err != nil {
		return err
	}
	stands := false
	for _, r := range there {
		if r.Mark == m.Deliver && r.Mask != nil && *r.Mask == m.Deliver && r.Priority == rulePriority && !stands {
			stands = true
			continue
		}
		if r.Mark != m.Deliver {
			continue // somebody else's, which Check tells
		}
		r.Family = family
		if err := netlink.RuleDel(&r); err != nil { // of another version of ours
			return err
		}
	}
	if stands {
		return nil
	}
	r := netlink.NewRule()
	r.Family, r.Priority, r.Table, r.Mark, r.Mask = family, rulePriority, m.Table, m.Deliver, &m.Deliver
	return netlink.RuleAdd(r)
}

// removeRoute removes our rules and routes of this table, as many as there are.
func removeRoute(number int) error {
	var errs []error
	for family := range families() {
		rules, err := listRules(family, number)
		if err != nil && !noIPv6(err) {
			errs = append(errs, err)
		}
		for _, r := range rules {
			r.Family = family
			errs = append(errs, netlink.RuleDel(&r))
		}
		routes, err := listRoutes(family, number)
		if err != nil && !noIPv6(err) {
			errs = append(errs, err)
		}
		for _, r := range routes {
			errs = append(errs, netlink.RouteDel(&r))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("enforce: removing the route of table %d: %w", number, mendRoute(err))
	}
	return nil
}

func listRules(family, table int) ([]netlink.Rule, error) {
	return whole(func() ([]netlink.Rule, error) {
		return netlink.RuleListFiltered(family, &netlink.Rule{Table: table}, netlink.RT_FILTER_TABLE)
	})
}

func listRoutes(family, table int) ([]netlink.Route, error) {
	return whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(family, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
	})
}

// noIPv6 tells a kernel without IPv6, or one where it is switched off (EACCES;
// a lack of rights is EPERM).
func noIPv6(err error) bool {
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EACCES)
}

func mendRoute(err error) error {
	if errors.Is(err, syscall.EPERM) {
		return ErrNoRights
	}
	return err
}
