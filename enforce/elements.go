//go:build linux

package enforce

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/nftables"

	"github.com/netcurtain/netcurtain/devices"
)

// Names of our tables, both of family inet.
const (
	mainTable = "netcurtain"
	cutTable  = "netcurtain_cut"
)

// followed are the sets whose elements follow Desired: those of members.keys, and our ports.
var followed = [...]string{"lan", "web", "unfiltered", "guarded", "proxied", "cut", "exempt4", "exempt6", "doors4", "doors6", "ports"}

// AliveFor is how long a service is taken for alive after it last proved it.
const AliveFor = 5 * time.Second

// Service is one of the daemon's services to which the kernel brings traffic
// for as long as it is alive.
type Service uint8

const (
	ServiceDNS  Service = iota + 1 // look-ups; encrypted ones of guarded devices are refused
	ServiceHTTP                    // TCP 80 of guarded devices
	ServiceTLS                     // TCP 443 and Handed of guarded devices; their QUIC is refused
)

// String is the word for metrics and logs.
func (s Service) String() string {
	switch s {
	case ServiceDNS:
		return "dns"
	case ServiceHTTP:
		return "http"
	case ServiceTLS:
		return "tls"
	}
	return "unknown"
}

// taken are the ports that the kernel takes over for s: the elements of @alive.
func (s Service) taken() []uint16 {
	switch s {
	case ServiceDNS:
		return []uint16{53, 853}
	case ServiceHTTP:
		return []uint16{80}
	case ServiceTLS:
		return []uint16{443}
	}
	return nil
}

// heartbeat remembers when each service last proved to be alive, for the log,
// and until when we step aside at which gate.
type heartbeat struct {
	mu    sync.Mutex
	last  map[Service]time.Time
	aside map[gate]time.Time
	ended map[devices.MAC]int // what Ended answers
}

// stepAside notes that we step aside at g, and reports whether that is new.
func (h *heartbeat) stepAside(g gate, until time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, known := h.aside[g]; known {
		return false
	}
	if h.aside == nil {
		h.aside = make(map[gate]time.Time)
	}
	h.aside[g] = until
	return true
}

// comeBack forgets, and returns, the gates whose time is over.
func (h *heartbeat) comeBack(now time.Time) (back []gate) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for g, until := range h.aside {
		if !now.Before(until) {
			back = append(back, g)
			delete(h.aside, g)
		}
	}
	return back
}

func (h *heartbeat) forgetAside() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.aside)
}

// asideAt lists the gates where we step aside, in order.
func (h *heartbeat) asideAt() (all []gate) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for g := range h.aside {
		all = append(all, g)
	}
	slices.SortFunc(all, func(a, b gate) int {
		return cmp.Or(strings.Compare(a.from, b.from), cmp.Compare(a.port, b.port))
	})
	return all
}

// beat notes a proof of life at now and reports whether it is the first after a silence.
func (h *heartbeat) beat(s Service, now time.Time) (back bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last == nil {
		h.last = make(map[Service]time.Time)
	}
	before, known := h.last[s]
	h.last[s] = now
	return !known || now.Sub(before) > AliveFor
}

func (h *heartbeat) stop(s Service) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.last, s)
}

// Alive says that s has just answered a real request through its own listener:
// for the next AliveFor the kernel brings it traffic. Call it after each such
// answer, at least every 2 s; a ticker proves nothing. ErrBlocked says that from
// some interface the traffic would not arrive, and is left alone there.
func (k *Kernel) Alive(ctx context.Context, s Service) error {
	if s.taken() == nil {
		return fmt.Errorf("enforce: service %d is none of ours", s)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	lost := k.arrives(s)
	if lost != nil && !errors.Is(lost, ErrBlocked) {
		return fmt.Errorf("enforce: keeping %s alive: %w", s, lost)
	}
	if err := k.refresh("alive", k.ports(s)); err != nil {
		return fmt.Errorf("enforce: keeping %s alive: %w", s, err)
	}
	if k.beats.beat(s, k.now()) {
		k.log.Info("the kernel brings traffic to us", "service", s.String())
	}
	k.metrics.alive.WithLabelValues(s.String()).Set(float64(k.now().Unix()))
	return lost
}

// Dead takes traffic away from s at once, without waiting for AliveFor to pass.
func (k *Kernel) Dead(ctx context.Context, s Service) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	k.beats.stop(s)
	set, elems := liveSet("alive"), k.ports(s)
	err := k.live.batch(func(c *nftables.Conn) error {
		// Added first, for deleting what is not there is an error.
		return errors.Join(c.SetAddElements(set, elems), c.SetDeleteElements(set, elems))
	})
	if err != nil {
		return fmt.Errorf("enforce: taking traffic from %s: %w", s, err)
	}
	k.log.Info("the kernel leaves traffic alone", "service", s.String())
	return nil
}

// taken are the ports that the kernel takes over for s now: who carries TLS carries
// the further ports too.
func (k *Kernel) taken(s Service) []uint16 {
	if handed := k.handed.Load(); s == ServiceTLS && handed != nil {
		return append(s.taken(), *handed...)
	}
	return s.taken()
}

func (k *Kernel) ports(s Service) []nftables.SetElement {
	var e []nftables.SetElement
	for _, p := range k.taken(s) {
		e = append(e, nftables.SetElement{Key: portKey(p), Timeout: AliveFor})
	}
	return e
}

// maxBlock bounds how long one Block may last.
const maxBlock = 30 * 24 * time.Hour

// Block refuses each device its address until the Block expires; a Block that is
// there already lasts as long as the new one says. Connections that run already
// are not ended: see Delete.
func (k *Kernel) Block(ctx context.Context, blocks ...Block) error {
	var v4, v6 []nftables.SetElement
	for _, b := range blocks {
		if !b.Addr.IsValid() || b.MAC.IsZero() || b.For < time.Second {
			return fmt.Errorf("enforce: block of %s for device %s over %s: an address, a device and at least a second are needed", b.Addr, b.MAC, b.For)
		}
		e := nftables.SetElement{Key: blockKey(b.MAC, b.Addr), Timeout: min(b.For, maxBlock)}
		if b.Addr.Unmap().Is4() {
			v4 = append(v4, e)
		} else {
			v6 = append(v6, e)
		}
	}
	for name, elems := range map[string][]nftables.SetElement{"blocked4": v4, "blocked6": v6} {
		// One netlink attribute holds 64 KiB.
		for part := range slices.Chunk(elems, 500) {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := k.refresh(name, part); err != nil {
				return fmt.Errorf("enforce: blocking %d addresses: %w", len(part), err)
			}
			k.metrics.blocks.Add(float64(len(part)))
		}
	}
	return nil
}

// Unblock lifts blocks before their end; For is ignored. A block that is not there
// is no error.
func (k *Kernel) Unblock(ctx context.Context, blocks ...Block) error {
	sets := map[string][]nftables.SetElement{}
	for _, b := range blocks {
		set := "blocked6"
		if b.Addr.Unmap().Is4() {
			set = "blocked4"
		}
		sets[set] = append(sets[set], nftables.SetElement{Key: blockKey(b.MAC, b.Addr), Timeout: time.Minute})
	}
	for name, elems := range sets {
		byKey := func(a, b nftables.SetElement) int { return bytes.Compare(a.Key, b.Key) }
		slices.SortFunc(elems, byKey) // each once, for deleting a second time is an error
		elems = slices.CompactFunc(elems, func(a, b nftables.SetElement) bool { return byKey(a, b) == 0 })
		for part := range slices.Chunk(elems, 500) {
			if err := ctx.Err(); err != nil {
				return err
			}
			err := k.live.batch(func(c *nftables.Conn) error {
				// Added first, for deleting what is not there is an error.
				return errors.Join(c.SetAddElements(liveSet(name), part), c.SetDeleteElements(liveSet(name), part))
			})
			if err != nil {
				return fmt.Errorf("enforce: lifting %d blocks: %w", len(part), err)
			}
		}
	}
	return nil
}

// blockKey is MAC . address as nft lays concatenations out: each part padded to four octets.
func blockKey(mac devices.MAC, a netip.Addr) []byte {
	key := append(mac[:], 0, 0)
	return append(key, a.Unmap().AsSlice()...)
}

// refresh adds elements or renews their time. Kernels before 6.12 do not renew
// what is added again, so it goes out and in within one transaction.
func (k *Kernel) refresh(set string, elems []nftables.SetElement) error {
	s := liveSet(set)
	return k.live.batch(func(c *nftables.Conn) error {
		return errors.Join(c.SetAddElements(s, elems), c.SetDeleteElements(s, elems), c.SetAddElements(s, elems))
	})
}

// liveConn is the connection for what lives in sets. It stays open: closing one
// that has deleted something waits for the kernel to clean up, some 15 ms.
type liveConn struct {
	mu sync.Mutex
	c  *nftables.Conn
}

// batch sends what fill puts in as one transaction, if anything.
func (l *liveConn) batch(fill func(*nftables.Conn) error) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.c == nil {
		if l.c, err = nftables.New(nftables.AsLasting()); err != nil {
			return mend(err)
		}
	}
	if err = mend(fill(l.c)); err == nil {
		err = flush(l.c)
	}
	if err != nil { // answers may be left unread: begin anew
		_ = l.c.CloseLasting()
		l.c = nil
	}
	return err
}

// Close frees what the Kernel holds open. It leaves the kernel as it is: see Release.
func (k *Kernel) Close() error {
	k.live.mu.Lock()
	defer k.live.mu.Unlock()
	if k.live.c == nil {
		return nil
	}
	c := k.live.c
	k.live.c = nil
	return c.CloseLasting()
}

func liveSet(name string) *nftables.Set {
	return &nftables.Set{Table: table(mainTable), Name: name, HasTimeout: true}
}

func table(name string) *nftables.Table {
	return &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
}

// setMembers makes the followed sets hold m and nothing else: it reads them and
// replaces those that differ, all in one transaction.
func (k *Kernel) setMembers(ctx context.Context, m members) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := nftables.New()
	if err != nil {
		return err
	}
	for name, want := range m.keys() {
		s := &nftables.Set{Table: table(mainTable), Name: name}
		have, err := c.GetSetElements(s)
		if err != nil {
			return fmt.Errorf("enforce: reading set %s: %w", name, mend(err))
		}
		if sameKeys(have, want) {
			continue
		}
		c.FlushSet(s)
		for part := range slices.Chunk(want, 500) {
			elems := make([]nftables.SetElement, len(part))
			for i, key := range part {
				elems[i].Key = key
			}
			if err := c.SetAddElements(s, elems); err != nil {
				return err
			}
		}
		if name == "unfiltered" { // whoever is seen again is seen at once
			c.FlushSet(&nftables.Set{Table: table(mainTable), Name: "unseen4"})
			c.FlushSet(&nftables.Set{Table: table(mainTable), Name: "unseen6"})
		}
	}
	if err := flush(c); err != nil {
		return fmt.Errorf("enforce: changing set elements: %w", err)
	}
	return nil
}

// keys are the elements of each followed set as the kernel keys them.
func (m members) keys() map[string][][]byte {
	return map[string][][]byte{
		"lan":        keys(m.lan, ifname),
		"web":        keys(m.web, portKey),
		"unfiltered": keys(m.unfiltered, macKey),
		"guarded":    keys(m.guarded, macKey),
		"proxied":    keys(m.proxied, macKey),
		"cut":        keys(m.cut, macKey),
		"exempt4":    keys(m.exempt4, netip.Addr.AsSlice),
		"exempt6":    keys(m.exempt6, netip.Addr.AsSlice),
		"doors4":     keys(m.doors4, netip.Addr.AsSlice),
		"doors6":     keys(m.doors6, netip.Addr.AsSlice),
	}
}

// sameKeys reports whether a set holds exactly these keys, none of them twice.
func sameKeys(have []nftables.SetElement, want [][]byte) bool {
	if len(have) != len(want) {
		return false
	}
	there := make(map[string]bool, len(have))
	for _, e := range have {
		there[string(e.Key)] = true
	}
	return !slices.ContainsFunc(want, func(key []byte) bool { return !there[string(key)] })
}

func keys[T any](in []T, key func(T) []byte) [][]byte {
	out := make([][]byte, len(in))
	for i, v := range in {
		out[i] = key(v)
	}
	return out
}

func portKey(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }

func macKey(m devices.MAC) []byte { return m[:] }

// ifname is an interface name as the kernel keys it: 16 octets, zero-filled.
func ifname(s string) []byte {
	key := make([]byte, 16)
	copy(key, s)
	return key
}

// tableStands reports whether a table of ours is in the kernel.
func tableStands(name string) (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("enforce: listing nftables tables: %w", mend(err))
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == name }), nil
}

// deleteTable removes a table, if it is there.
func deleteTable(name string) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t := c.AddTable(table(name)) // deleting what is not there is an error
	c.DelTable(t)
	if err := flush(c); err != nil {
		return fmt.Errorf("enforce: removing table inet %s: %w", name, err)
	}
	return nil
}

func flush(c *nftables.Conn) error { return mend(c.Flush()) }

// mend names the remedy of the errors that have one.
func mend(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrPermission), strings.Contains(err.Error(), syscall.EPERM.Error()): // nftables does not wrap all
		return ErrNoRights
	case errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("%w (the set is full: fewer or shorter blocks are needed)", err)
	case errors.Is(err, syscall.ENOENT), strings.Contains(err.Error(), syscall.ENOENT.Error()):
		return fmt.Errorf("%w (the table inet netcurtain is not loaded: Set loads it)", err)
	}
	return err
}
