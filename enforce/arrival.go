//go:build linux

package enforce

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// ErrBlocked says that the kernel takes traffic for a service and that none of
// it arrives: a firewall of somebody else stands between. The traffic goes its
// own way for an hour, then it is tried again.
var ErrBlocked = errors.New("enforce: a firewall on this machine drops what is brought to us")

// aside is how long we step aside before a firewall gets another chance.
const aside = time.Hour

// way is where a service's traffic is counted, and how much of it must be lost
// before that means something: one device may well be barred by its household.
type way struct {
	taken, arrived string
	enough         uint64
}

func (s Service) way() way {
	if s == ServiceDNS {
		return way{"lookups_taken", "lookups_arrived", 20}
	}
	return way{"handover_taken", "handover_arrived", 3}
}

// arrives returns ErrBlocked while s has to step aside.
func (k *Kernel) arrives(s Service) error {
	now := k.now()
	if k.beats.isAside(s.way(), now) {
		return ErrBlocked
	}
	blocked, err := k.blocked(s.way())
	if err != nil {
		return fmt.Errorf("enforce: keeping %s alive: %w", s, err)
	}
	if !blocked {
		return nil
	}
	k.beats.stepAside(s.way(), now.Add(aside))
	k.log.Warn("a firewall on this machine drops what is brought to us; stepping aside", "service", s.String(), "for", aside)
	return errors.Join(ErrBlocked, k.live.batch(func(c *nftables.Conn) error {
		_, err := c.ResetNamedObjects(table(mainTable)) // a new count for the next try
		return err
	}))
}

// blocked compares what was taken with what arrived.
func (k *Kernel) blocked(w way) (bool, error) {
	var objs []nftables.Obj
	err := k.live.batch(func(c *nftables.Conn) (err error) {
		objs, err = c.GetNamedObjects(table(mainTable))
		return err
	})
	if err != nil {
		return false, err
	}
	packets := make(map[string]uint64)
	for _, o := range objs {
		if n, ok := o.(*nftables.NamedObj); ok {
			if counter, ok := n.Obj.(*expr.Counter); ok {
				packets[n.Name] = counter.Packets
			}
		}
	}
	return packets[w.taken] >= w.enough && packets[w.arrived] == 0, nil
}

// checkArrival tells which services step aside; both proxies share a way.
func (k *Kernel) checkArrival() []Problem {
	var found []Problem
	for _, s := range []Service{ServiceDNS, ServiceHTTP} {
		if !k.beats.isAside(s.way(), k.now()) {
			continue
		}
		p := Problem{
			What: "A firewall on this machine drops what is handed to the proxy: guarded devices go straight to the internet.",
			Fix:  "nft insert rule inet filter input meta mark and 0x01000000 != 0 accept (or the like in your firewall), then restart netcurtain",
		}
		if s == ServiceDNS {
			p = Problem{
				What: "A firewall on this machine drops the look-ups that are brought to us: they go to the router's own resolver unfiltered.",
				Fix:  "nft insert rule inet filter input udp dport 53 ct state untracked accept (or the like in your firewall), then restart netcurtain",
			}
		}
		found = append(found, p)
	}
	return found
}
