//go:build linux

package enforce

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
)

// ErrBlocked says that the kernel takes traffic for a service and that none of
// it arrives: a firewall of somebody else stands between. Where it does, the
// traffic goes its own way for an hour, then it is tried again.
var ErrBlocked = errors.New("enforce: a firewall on this machine drops what is brought to us")

// aside is how long we step aside before a firewall gets another chance.
const aside = time.Hour

// gate is where traffic is taken: an interface of the house and a port.
type gate struct {
	from string
	port uint16
}

// enough is how much must be lost at a gate before that means something: one
// device may well be barred by its household.
func (g gate) enough() uint64 {
	if g.port == 53 {
		return 20
	}
	return 3
}

// key is a gate as nft lays concatenations out: each part padded to four octets.
func (g gate) key() []byte {
	return append(binary.BigEndian.AppendUint16(ifname(g.from), g.port), 0, 0)
}

func readGate(key []byte) (g gate, ok bool) {
	if len(key) < 18 {
		return g, false
	}
	name, _, _ := bytes.Cut(key[:16], []byte{0})
	return gate{string(name), binary.BigEndian.Uint16(key[16:])}, true
}

// arrives steps aside at the gates of s where what is taken does not arrive, and
// comes back to those where an hour has passed. The error, ErrBlocked among it,
// names the interfaces where we are aside.
func (k *Kernel) arrives(s Service) error {
	now := k.now()
	taken, arrived, err := k.counts()
	if err != nil {
		return err
	}
	barred := k.Barred() // nothing of theirs need arrive
	for g, n := range taken {
		if slices.Contains(barred, g.from) || !slices.Contains(k.taken(s), g.port) || n < g.enough() || arrived[g] > 0 || !k.beats.stepAside(g, now.Add(aside)) {
			continue
		}
		k.log.Warn("a firewall on this machine drops what is brought to us; stepping aside", "from", g.from, "port", g.port, "for", aside)
		if err := k.turnAside(g, true); err != nil {
			return err
		}
	}
	for _, g := range k.beats.comeBack(now) {
		if err := k.turnAside(g, false); err != nil {
			return err
		}
	}
	var from []string
	for _, g := range k.beats.asideAt() {
		if slices.Contains(k.taken(s), g.port) && !slices.Contains(from, g.from) {
			from = append(from, g.from)
		}
	}
	if len(from) > 0 {
		return fmt.Errorf("%w from %s: its devices go their own way", ErrBlocked, strings.Join(from, " and "))
	}
	return nil
}

// counts reads how many packets were taken at each gate and how many arrived.
// Taken is read first, so that what is on its way does not look lost.
func (k *Kernel) counts() (taken, arrived map[gate]uint64, err error) {
	read := func(name string) (map[gate]uint64, error) {
		var elems []nftables.SetElement
		err := k.live.batch(func(c *nftables.Conn) (err error) {
			elems, err = c.GetSetElements(&nftables.Set{Table: table(mainTable), Name: name, Concatenation: true, Counter: true})
			return err
		})
		n := make(map[gate]uint64, len(elems))
		for _, e := range elems {
			if g, ok := readGate(e.Key); ok && e.Counter != nil {
				n[g] = e.Counter.Packets
			}
		}
		return n, err
	}
	if taken, err = read("taken"); err == nil {
		arrived, err = read("arrived")
	}
	return taken, arrived, err
}

// turnAside leaves a gate's traffic alone, or takes it again; either way it is
// counted anew.
func (k *Kernel) turnAside(g gate, leave bool) error {
	open := liveSet("aside")
	counted := &nftables.Set{Table: table(mainTable), Name: "taken"}
	elems := func(timeout time.Duration) []nftables.SetElement {
		return []nftables.SetElement{{Key: g.key(), Timeout: timeout}}
	}
	return k.live.batch(func(c *nftables.Conn) error {
		// Added first, for deleting what is not there is an error.
		errs := []error{
			c.SetAddElements(open, elems(aside)), c.SetDeleteElements(open, elems(aside)),
			c.SetAddElements(counted, elems(0)), c.SetDeleteElements(counted, elems(0)),
		}
		if leave {
			errs = append(errs, c.SetAddElements(open, elems(aside)))
		}
		return errors.Join(errs...)
	})
}

// freshCount forgets what was lost, for other rules of others stand now.
func (k *Kernel) freshCount() error {
	k.beats.forgetAside()
	return k.live.batch(func(c *nftables.Conn) error {
		for _, name := range []string{"taken", "arrived", "aside"} {
			c.FlushSet(&nftables.Set{Table: table(mainTable), Name: name})
		}
		return nil
	})
}

// checkArrival tells where we step aside.
func (k *Kernel) checkArrival() []Problem {
	lookups, web := map[string]bool{}, map[string]bool{}
	var found []Problem
	for _, g := range k.beats.asideAt() {
		p, told := Problem{
			What: fmt.Sprintf("A firewall on this machine drops what is handed to the proxy from %s: guarded devices there go straight to the internet.", g.from),
			Fix:  fmt.Sprintf(`nft insert rule inet filter input iifname "%s" meta mark and 0x01000000 != 0 accept (or the like in your firewall), then restart netcurtain`, g.from),
		}, web
		if g.port == 53 {
			p, told = Problem{
				What: fmt.Sprintf("A firewall on this machine drops the look-ups that are brought to us from %s: they go to the router's own resolver, or to another, unfiltered.", g.from),
				Fix:  fmt.Sprintf(`nft insert rule inet filter input iifname "%s" udp dport 53 accept (or the like in your firewall), then restart netcurtain`, g.from),
			}, lookups
		}
		if !told[g.from] {
			told[g.from] = true
			found = append(found, p)
		}
	}
	return found
}
