//go:build linux

package enforce

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// A flow table takes established connections at the ports' ingress, before any
// rule for routed packets: what a device says first, its ClientHello above all, is
// never seen by chain forward. Table netdev netcurtain copies it one step earlier.
// It stands only while there is a flow table.

// port is an interface as far as it matters for offloading.
type port struct {
	name, master string // master: the bridge that it belongs to, or ""
	parent       string // of a VLAN: the interface that carries it, or ""
	mac          string
}

// offload is what offload.nft.tmpl writes.
type offload struct {
	Devices, Router string
	Unfiltered      []string
	NFLOGGroup      uint16
}

// newOffload says at which ports first packets are taken: those of the flow
// tables that lead into the house. Router is whom such packets are addressed to.
func newOffload(tables []flowtable, ports []port, lan []string, unfiltered []string, group uint16) offload {
	o := offload{Unfiltered: unfiltered, NFLOGGroup: group}
	isLAN := func(name string) bool { return name != "" && slices.Contains(lan, name) }
	carriesLAN := func(name string) bool {
		return name != "" && slices.ContainsFunc(ports, func(p port) bool { return isLAN(p.name) && p.parent == name })
	}
	var devices, router []string
	for _, p := range ports {
		offloaded := slices.ContainsFunc(tables, func(f flowtable) bool { return slices.Contains(f.devices, p.name) })
		inside := isLAN(p.name) || isLAN(p.master) || carriesLAN(p.name) || carriesLAN(p.master)
		if offloaded && inside {
			devices = append(devices, p.name)
		}
		if isLAN(p.name) && p.mac != "" {
			router = append(router, p.mac)
		}
	}
	if len(devices) == 0 || len(router) == 0 {
		return o
	}
	o.Devices = strings.Join(quoted(sorted(devices, strings.Compare)), ", ")
	o.Router = strings.Join(sorted(router, strings.Compare), ", ")
	return o
}

// portsHere lists the interfaces of this machine.
func portsHere() ([]port, error) {
	links, err := whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("enforce: listing interfaces: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var all []port
	for _, l := range links {
		a := l.Attrs()
		p := port{name: a.Name, master: names[a.MasterIndex], mac: a.HardwareAddr.String()}
		if l.Type() == "vlan" {
			p.parent = names[a.ParentIndex]
		}
		all = append(all, p)
	}
	return all, nil
}

// besideOffload takes first packets ahead of the flow tables, or lets go where
// there are none any more.
func (k *Kernel) besideOffload(ctx context.Context, tables []flowtable, m members, group uint16) error {
	var o offload
	if len(tables) > 0 {
		ports, err := portsHere()
		if err != nil {
			return err
		}
		o = newOffload(tables, ports, m.lan, texts(m.unfiltered), group)
	}
	stands, err := offloadStands()
	if err != nil {
		return err
	}
	text, err := execute("offload.nft.tmpl", o)
	if err != nil {
		return err
	}
	if stands == (o.Devices != "") && (text == k.offload || !stands) {
		return nil
	}
	if err := k.nft.load(ctx, text); err != nil {
		return fmt.Errorf("loading table netdev netcurtain: %w", err)
	}
	k.offload = text
	k.log.Info("flow offloading", "first packets are taken at", o.Devices)
	return nil
}

func offloadTable() *nftables.Table {
	return &nftables.Table{Name: mainTable, Family: nftables.TableFamilyNetdev}
}

func offloadStands() (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyNetdev)
	if err != nil {
		return false, fmt.Errorf("enforce: listing nftables tables: %w", mend(err))
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == mainTable }), nil
}

// removeOffload removes table netdev netcurtain, if it is there. A kernel without
// ingress hooks never had it.
func removeOffload() error {
	stands, err := offloadStands()
	if err != nil || !stands {
		return err
	}
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.DelTable(offloadTable())
	return flush(c)
}

// checkOffload tells what flow tables keep from us.
func checkOffload(tables []flowtable) (found []Problem) {
	const restart = "; uci commit firewall; /etc/init.d/firewall restart"
	const off = "uci set firewall.@defaults[0].flow_offloading=0"
	hardware := slices.ContainsFunc(tables, func(f flowtable) bool { return f.hardware })
	switch {
	case hardware:
		found = append(found, Problem{
			What: "Hardware flow offloading is on: most packets never reach this machine's processor, so names and bytes of many connections cannot be seen.",
			Fix:  "uci set firewall.@defaults[0].flow_offloading_hw=0" + restart,
		})
	case len(tables) > 0:
		found = append(found, Problem{
			What: "Software flow offloading is on: what devices say first is read all the same, what servers answer is not, so certificates and what a server says first cannot be judged.",
			Fix:  off + restart,
		})
	}
	if slices.ContainsFunc(tables, func(f flowtable) bool { return !f.counter }) {
		found = append(found, Problem{
			What: "A flow table does not count: the bytes of offloaded connections are not known.",
			Fix:  "opkg upgrade firewall4, or " + off + restart,
		})
	}
	return found
}
