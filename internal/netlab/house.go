//go:build linux

package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Plan says which house to build. Zero fields take the defaults below.
type Plan struct {
	// Prefix begins the name of every namespace: "nc-" gives nc-router,
	// nc-internet and one for each device. At most 8 octets.
	Prefix  string
	Devices []DevicePlan
	// Internet lists the addresses at which the internet answers, beside its own.
	Internet []netip.Addr
}

// DevicePlan is one device of the house. Number gives its last address octet
// (10 to 250); MAC may be nil for a made-up one. Guest puts it into the guests'
// network, which the router has as soon as one device is there.
type DevicePlan struct {
	Name   string
	Number int
	MAC    net.HardwareAddr
	Guest  bool
}

// Addresses of every house. The internet's come from the documentation blocks
// of RFC 5737 and RFC 3849, so that nothing in the house mistakes them for private.
var (
	RouterLAN4   = netip.MustParsePrefix("192.168.77.1/24")
	RouterLAN6   = netip.MustParsePrefix("fd77::1/64")
	RouterGuest4 = netip.MustParsePrefix("192.168.78.1/24")
	RouterGuest6 = netip.MustParsePrefix("fd78::1/64")
	RouterWAN4   = netip.MustParsePrefix("203.0.113.2/24")
	RouterWAN6   = netip.MustParsePrefix("2001:db8:113::2/64")
	InternetWAN4 = netip.MustParsePrefix("203.0.113.1/24")
	InternetWAN6 = netip.MustParsePrefix("2001:db8:113::1/64")
)

// Bridges and uplink of the router, as OpenWrt names them.
const (
	LANInterface   = "br-lan"
	GuestInterface = "br-guest"
	WANInterface   = "wan0"
)

// House is a built house. Close takes it down.
type House struct {
	Router, Internet *Host
	Devices          map[string]*Host
	hosts            []*Host
}

// Host is one namespace.
type Host struct {
	Name  string // without the prefix
	NS    string // name under /var/run/netns
	MAC   net.HardwareAddr
	Addr4 netip.Addr
	Addr6 netip.Addr
	ns    netns.NsHandle
	link  *netlink.Handle
}

// Build makes the namespaces, links, addresses, routes and the router's NAT.
// What it made before an error is taken down again.
func Build(ctx context.Context, p Plan) (_ *House, err error) {
	if len(p.Prefix) > 8 {
		return nil, fmt.Errorf("netlab prefix %q is longer than 8 octets", p.Prefix)
	}
	h := &House{Devices: map[string]*Host{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	if h.Internet, err = h.host(p.Prefix, "internet"); err != nil {
		return nil, err
	}
	if h.Router, err = h.host(p.Prefix, "router"); err != nil {
		return nil, err
	}
	if err = h.wire(p); err != nil {
		return nil, err
	}
	for _, d := range p.Devices {
		if err = h.attach(p.Prefix, d); err != nil {
			return nil, fmt.Errorf("device %s: %w", d.Name, err)
		}
	}
	return h, h.nat(ctx)
}

func (h *House) host(prefix, name string) (*Host, error) {
	host := &Host{Name: name, NS: prefix + name}
	err := onThread(func() error {
		ns, err := netns.NewNamed(host.NS) // moves this thread into it
		if err != nil {
			return fmt.Errorf("making network namespace %s: %w", host.NS, err)
		}
		host.ns = ns
		if host.link, err = netlink.NewHandleAt(ns); err != nil {
			return err
		}
		return host.upLoopback()
	})
	if host.ns != 0 {
		h.hosts = append(h.hosts, host)
	}
	return host, err
}

func (h *Host) upLoopback() error {
	for _, s := range [][2]string{
		{"net/ipv6/conf/all/accept_dad", "0"}, {"net/ipv6/conf/default/accept_dad", "0"},
		{"net/ipv6/conf/default/router_solicitations", "0"},
	} {
		if err := os.WriteFile("/proc/sys/"+s[0], []byte(s[1]), 0); err != nil {
			return err
		}
	}
	lo, err := h.link.LinkByName("lo")
	if err != nil {
		return err
	}
	return h.link.LinkSetUp(lo)
}

// wire connects router and internet and gives the router its bridge.
func (h *House) wire(p Plan) error {
	if err := pair(h.Router, WANInterface, nil, h.Internet, "eth0", nil); err != nil {
		return err
	}
	h.Router.MAC, h.Router.Addr4, h.Router.Addr6 = net.HardwareAddr{2, 0, 0x5e, 0x77, 0, 1}, RouterLAN4.Addr(), RouterLAN6.Addr()
	if err := h.Router.AddBridge(LANInterface, h.Router.MAC, RouterLAN4, RouterLAN6); err != nil {
		return err
	}
	if slices.ContainsFunc(p.Devices, func(d DevicePlan) bool { return d.Guest }) {
		if err := h.Router.AddBridge(GuestInterface, net.HardwareAddr{2, 0, 0x5e, 0x78, 0, 1}, RouterGuest4, RouterGuest6); err != nil {
			return err
		}
	}
	h.Internet.Addr4, h.Internet.Addr6 = InternetWAN4.Addr(), InternetWAN6.Addr()
	for _, a := range []struct {
		host *Host
		dev  string
		addr netip.Prefix
	}{
		{h.Router, WANInterface, RouterWAN4}, {h.Router, WANInterface, RouterWAN6},
		{h.Internet, "eth0", InternetWAN4}, {h.Internet, "eth0", InternetWAN6},
	} {
		if err := a.host.AddAddr(a.dev, a.addr); err != nil {
			return err
		}
	}
	for _, a := range p.Internet {
		if err := h.Internet.AddAddr("lo", netip.PrefixFrom(a, a.BitLen())); err != nil {
			return err
		}
	}
	if err := h.Router.defaultVia(InternetWAN4.Addr(), InternetWAN6.Addr()); err != nil {
		return err
	}
	return h.Router.Do(func() error {
		for _, s := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/"+s, []byte("1"), 0); err != nil {
				return err
			}
		}
		// br_netfilter, where it is loaded, breaks TPROXY on a bridge.
		for _, s := range []string{"iptables", "ip6tables"} {
			_ = os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+s, []byte("0"), 0)
		}
		return nil
	})
}

// AddBridge gives h a bridge with these addresses.
func (h *Host) AddBridge(name string, mac net.HardwareAddr, addrs ...netip.Prefix) error {
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: mac}}
	if err := h.link.LinkAdd(br); err != nil {
		return fmt.Errorf("making the bridge %s: %w", name, err)
	}
	if err := h.link.LinkSetUp(br); err != nil {
		return err
	}
	for _, a := range addrs {
		if err := h.AddAddr(name, a); err != nil {
			return err
		}
	}
	return nil
}

func (h *House) attach(prefix string, d DevicePlan) error {
	host, err := h.host(prefix, d.Name)
	if err != nil {
		return err
	}
	h.Devices[d.Name] = host
	host.MAC = d.MAC
	if host.MAC == nil {
		host.MAC = net.HardwareAddr{2, 0, 0x5e, 0x10, 0, byte(d.Number)}
	}
	port := fmt.Sprintf("lan%d", d.Number)
	if err := pair(h.Router, port, nil, host, "eth0", host.MAC); err != nil {
		return err
	}
	l, err := h.Router.link.LinkByName(port)
	if err != nil {
		return err
	}
	bridge, net4, net6 := LANInterface, RouterLAN4, RouterLAN6
	if d.Guest {
		bridge, net4, net6 = GuestInterface, RouterGuest4, RouterGuest6
	}
	br, err := h.Router.link.LinkByName(bridge)
	if err != nil {
		return err
	}
	if err := h.Router.link.LinkSetMaster(l, br); err != nil {
		return err
	}
	a4 := net4.Addr().As4()
	a4[3] = byte(d.Number)
	a6 := net6.Addr().As16()
	a6[15] = byte(d.Number)
	host.Addr4, host.Addr6 = netip.AddrFrom4(a4), netip.AddrFrom16(a6)
	if err := host.AddAddr("eth0", netip.PrefixFrom(host.Addr4, net4.Bits())); err != nil {
		return err
	}
	if err := host.AddAddr("eth0", netip.PrefixFrom(host.Addr6, net6.Bits())); err != nil {
		return err
	}
	return host.defaultVia(net4.Addr(), net6.Addr())
}

// nat gives the router what any home router has: masquerading in a table of its own.
func (h *House) nat(ctx context.Context) error {
	cmd := h.Router.Command(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(`table inet house {
	chain post { type nat hook postrouting priority srcnat; oifname "` + WANInterface + `" masquerade; }
}
`)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft for the router's NAT: %w: %s", err, out)
	}
	return nil
}

// pair makes a veth pair between two namespaces and sets both ends up.
func pair(a *Host, aName string, aMAC net.HardwareAddr, b *Host, bName string, bMAC net.HardwareAddr) error {
	v := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: aName, HardwareAddr: aMAC},
		PeerName:      bName,
		PeerNamespace: netlink.NsFd(b.ns), PeerHardwareAddr: bMAC,
	}
	if err := a.link.LinkAdd(v); err != nil {
		return fmt.Errorf("linking %s to %s: %w", a.NS, b.NS, err)
	}
	for h, name := range map[*Host]string{a: aName, b: bName} {
		l, err := h.link.LinkByName(name)
		if err != nil {
			return err
		}
		if err := h.link.LinkSetUp(l); err != nil {
			return err
		}
	}
	return nil
}

// AddAddr gives an interface of h a further address, usable at once.
func (h *Host) AddAddr(dev string, p netip.Prefix) error {
	l, err := h.link.LinkByName(dev)
	if err != nil {
		return err
	}
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = syscall.IFA_F_NODAD
	}
	if err := h.link.AddrAdd(l, a); err != nil {
		return fmt.Errorf("address %s on %s in %s: %w", p, dev, h.NS, err)
	}
	return nil
}

func (h *Host) defaultVia(gws ...netip.Addr) error {
	for _, gw := range gws {
		if err := h.link.RouteAdd(&netlink.Route{Gw: gw.AsSlice()}); err != nil {
			return fmt.Errorf("default route via %s in %s: %w", gw, h.NS, err)
		}
	}
	return nil
}

// Do runs fn on a thread inside the namespace. Sockets that fn opens itself
// live there for good; goroutines that it starts do not, so dial one literal
// address at a time.
func (h *Host) Do(fn func() error) error {
	return onThread(func() error {
		if err := netns.Set(h.ns); err != nil {
			return fmt.Errorf("entering %s: %w", h.NS, err)
		}
		return fn()
	})
}

// Command is exec.CommandContext inside the namespace.
func (h *Host) Command(ctx context.Context, name string, arg ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.NS, name}, arg...)...)
}

// Close takes the house down: processes that still live in it, then the namespaces.
func (h *House) Close() error {
	var errs []error
	for _, host := range h.hosts {
		if host.link != nil {
			host.link.Close()
		}
		errs = append(errs, host.ns.Close(), remove(host.NS))
	}
	h.hosts = nil
	return errors.Join(errs...)
}

// Sweep takes down what a house with this prefix left behind when it crashed.
// It returns the names of the namespaces it removed.
func Sweep(prefix string) ([]string, error) {
	left, err := filepath.Glob("/var/run/netns/" + prefix + "*")
	if err != nil {
		return nil, err
	}
	var errs []error
	for i, path := range left {
		left[i] = filepath.Base(path)
		errs = append(errs, remove(left[i]))
	}
	return left, errors.Join(errs...)
}

// remove kills what runs in the namespace and removes its name.
func remove(name string) error {
	var ns syscall.Stat_t
	if err := syscall.Stat("/var/run/netns/"+name, &ns); err != nil {
		return err
	}
	procs, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, p := range procs {
		var st syscall.Stat_t
		if syscall.Stat(p, &st) != nil || st.Ino != ns.Ino || st.Dev != ns.Dev {
			continue
		}
		var pid int
		if _, err := fmt.Sscanf(p, "/proc/%d/", &pid); err == nil && pid != os.Getpid() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return netns.DeleteNamed(name)
}

// onThread runs fn on a thread of its own choosing and brings that thread back
// to the namespace it came from. A thread that cannot come back is thrown away.
func onThread(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		err = fn()
		if back := netns.Set(home); back != nil {
			done <- errors.Join(err, back)
			return // still locked: the runtime ends this thread
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}
