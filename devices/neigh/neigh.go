//go:build linux

package neigh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/netcurtain/netcurtain/devices"
)

// Config says what to watch. Interfaces and Logger are needed.
type Config struct {
	// Interfaces are the LAN's, by name, such as br-lan. They may come later.
	Interfaces []string
	Logger     *slog.Logger
	Now        func() time.Time // default time.Now
	// Retry is the pause after a first failure, doubled up to a minute; default 1 s.
	Retry time.Duration
}

// Table is the kernel's neighbour table of the network namespace in which Run
// and Lookup are called.
type Table struct{ cfg Config }

// New checks cfg and starts nothing.
func New(cfg Config) (*Table, error) {
	if len(cfg.Interfaces) == 0 {
		return nil, errors.New("neighbour table: at least one LAN interface is needed, such as br-lan")
	}
	if cfg.Logger == nil {
		return nil, errors.New("neighbour table: a logger is needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Retry <= 0 {
		cfg.Retry = time.Second
	}
	return &Table{cfg}, nil
}

// Run calls sight for every neighbour that the LAN has and gets, until ctx
// ends. When the kernel drops the subscription, as it does after an overflow,
// Run takes a new one, which lists everything again.
func (t *Table) Run(ctx context.Context, sight func(devices.Sighting)) error {
	wait := t.cfg.Retry
	for {
		began := time.Now()
		err := t.subscribe(ctx, sight)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > time.Minute {
			wait = t.cfg.Retry
		}
		t.cfg.Logger.Warn("neighbour table: subscribing again", "after", wait, "why", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(2*wait, time.Minute)
	}
}

// subscribe lists and follows the table until ctx ends or the kernel fails it.
func (t *Table) subscribe(ctx context.Context, sight func(devices.Sighting)) error {
	updates, done := make(chan netlink.NeighUpdate, 64), make(chan struct{})
	failed := make(chan error, 1)
	err := netlink.NeighSubscribeWithOptions(updates, done, netlink.NeighSubscribeOptions{
		ListExisting: true,
		ErrorCallback: func(err error) {
			select {
			case failed <- err:
			default:
			}
		},
	})
	if err != nil {
		return fmt.Errorf("subscribing to the neighbour table: %w", err)
	}
	defer func() { // the library's goroutine ends once its channel is read empty
		close(done)
		for range updates {
		}
	}()
	links := t.links()
	for {
		select {
		case <-ctx.Done():
			return nil
		case u, ok := <-updates:
			if !ok {
				select {
				case err = <-failed:
				default:
				}
				return errors.Join(errors.New("the kernel ended the subscription"), err)
			}
			if !links[u.LinkIndex] {
				if links = t.links(); !links[u.LinkIndex] {
					continue
				}
			}
			if s, ok := t.sighting(u.Type, u.Neigh); ok {
				sight(s)
			}
		}
	}
}

// links are the indexes of the LAN interfaces that there are.
func (t *Table) links() map[int]bool {
	found := map[int]bool{}
	for _, name := range t.cfg.Interfaces {
		if l, err := net.InterfaceByName(name); err == nil {
			found[l.Index] = true
		}
	}
	return found
}

// usable are the states in which an entry's hardware address is known.
const usable = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT

// sighting turns an entry into a sighting, if it is one of a device. A removed
// or failed entry says nothing: the kernel forgets quiet devices all the time.
func (t *Table) sighting(msg uint16, n netlink.Neigh) (devices.Sighting, bool) {
	addr, ok := netip.AddrFromSlice(n.IP)
	addr = addr.Unmap()
	if msg != unix.RTM_NEWNEIGH || !ok || len(n.HardwareAddr) != 6 || n.State&usable == 0 ||
		n.Family == unix.AF_BRIDGE || addr.IsMulticast() || addr.IsLoopback() {
		return devices.Sighting{}, false
	}
	mac := devices.MAC(n.HardwareAddr)
	if mac.IsGroup() || mac.IsZero() {
		return devices.Sighting{}, false
	}
	at := t.cfg.Now().Add(-silence(n))
	return devices.Sighting{MAC: mac, Addr: addr, Source: devices.SourceNeighbour, At: at}, true
}

// silence is how long ago the neighbour last showed itself: when it answered,
// or when its entry last changed, for the kernel dates the confirmation of one
// that spoke up by itself a minute back. While the kernel probes, the entry
// changes because of us, and only an answer counts.
func silence(n netlink.Neigh) time.Duration {
	ticks := n.Confirmed
	if n.State&netlink.NUD_PROBE == 0 {
		ticks = min(ticks, n.Updated)
	}
	return min(time.Duration(ticks)*10*time.Millisecond, 24*time.Hour) // of 1/100 s each
}

// Lookup asks the kernel who has addr now. A client's first question can reach
// us before the event that tells of the client does. It returns false when the
// kernel does not know either.
func (t *Table) Lookup(addr netip.Addr) (devices.Sighting, bool) {
	addr = addr.Unmap().WithZone("")
	family := unix.AF_INET
	if addr.Is6() {
		family = unix.AF_INET6
	}
	for index := range t.links() {
		req := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, 0)
		req.AddData(&netlink.Ndmsg{Family: uint8(family), Index: uint32(index)})
		req.AddData(nl.NewRtAttr(netlink.NDA_DST, addr.AsSlice()))
		msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
		if err != nil || len(msgs) != 1 {
			continue
		}
		n, err := netlink.NeighDeserialize(msgs[0])
		if err != nil {
			continue
		}
		if s, ok := t.sighting(unix.RTM_NEWNEIGH, *n); ok {
			return s, true
		}
	}
	return devices.Sighting{}, false
}
