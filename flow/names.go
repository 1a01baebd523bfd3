package flow

import (
	"iter"
	"net/netip"
	"strings"
	"time"
)

// How long an answer names its address: its TTL within these bounds, and Linger more,
// for devices keep using an address after its TTL.
const (
	MinTTL = time.Minute
	MaxTTL = 24 * time.Hour
	Linger = time.Hour
	// namesPerAddress is how many names one address keeps: delivery networks
	// serve many from one.
	namesPerAddress = 4
)

// Names remembers which name gave a device which address. It is bounded, pure
// (time is an argument) and belongs to one goroutine. An address costs about
// 300 octets per device that looked it up, and as much again for the house.
type Names struct {
	byAddr *recent[nameKey, named]
}

// nameKey with an empty device is what any device was told.
type nameKey struct {
	device string
	addr   netip.Addr
}

// named keeps the newest name first.
type named struct {
	names [namesPerAddress]struct {
		name  string
		until int64 // Unix seconds
	}
}

// NewNames makes a memory of at most limit pairs of device and address. The one
// unused for longest goes first.
func NewNames(limit int) *Names {
	return &Names{byAddr: newRecent[nameKey, named](limit)}
}

// Learn notes that device, at the time now, was told addr for name. The TTL is
// taken as at least MinTTL and at most MaxTTL. name is the name that was asked
// for, the head of any CNAME chain.
func (n *Names) Learn(device, name string, addr netip.Addr, ttl time.Duration, now time.Time) {
	n.LearnPrivately("", name, addr, ttl, now)
	if device != "" {
		n.LearnPrivately(device, name, addr, ttl, now)
	}
}

// LearnPrivately is Learn for this device alone: no other device's flow will be
// named by what it was told.
func (n *Names) LearnPrivately(device, name string, addr netip.Addr, ttl time.Duration, now time.Time) {
	if name == "" || !addr.IsValid() || addr.IsUnspecified() {
		return
	}
	addr = addr.Unmap().WithZone("")
	n.learn(nameKey{device, addr}, name, now.Add(min(max(ttl, MinTTL), MaxTTL)+Linger).Unix())
}

func (n *Names) learn(k nameKey, name string, until int64) {
	v, i, ok := n.byAddr.get(k)
	if ok {
		n.byAddr.touch(i)
	} else {
		k.device = strings.Clone(k.device) // the caller's string may be part of a packet
		v = n.byAddr.add(k, nil)
	}
	v.put(name, until)
}

// put makes name the newest; an older mention of it moves, else the oldest name goes.
func (v *named) put(name string, until int64) {
	at := len(v.names) - 1
	for i := range v.names {
		if v.names[i].name == name {
			name, at = v.names[i].name, i
			until = max(until, v.names[i].until)
			break
		}
	}
	if v.names[at].name != name {
		name = strings.Clone(name)
	}
	copy(v.names[1:at+1], v.names[:at])
	v.names[0].name, v.names[0].until = name, until
}

// Found is what is known of an address.
type Found struct {
	Name      string     // the newest name; "" when none is known
	Source    NameSource // NameFromDNSDevice, NameFromDNSAny or NameFromAddress
	Ambiguous bool       // other names are known for the address, too
}

// Lookup says by which name device knows addr at the time now: from its own
// answers first, else from any device's.
func (n *Names) Lookup(device string, addr netip.Addr, now time.Time) Found {
	addr = addr.Unmap().WithZone("")
	if device != "" {
		if f, ok := n.lookup(nameKey{device, addr}, now); ok {
			f.Source = NameFromDNSDevice
			return f
		}
	}
	f, ok := n.lookup(nameKey{addr: addr}, now)
	if ok {
		f.Source = NameFromDNSAny
	}
	return f
}

func (n *Names) lookup(k nameKey, now time.Time) (f Found, ok bool) {
	v, i, ok := n.byAddr.get(k)
	if !ok {
		return f, false
	}
	n.byAddr.touch(i)
	at := now.Unix()
	for i := range v.names {
		if v.names[i].name == "" || v.names[i].until < at {
			continue
		}
		if f.Name != "" {
			f.Ambiguous = true
			break
		}
		f.Name = v.names[i].name
	}
	return f, f.Name != ""
}

// Of yields every name by which device itself knows addr at the time now,
// newest first.
func (n *Names) Of(device string, addr netip.Addr, now time.Time) iter.Seq[string] {
	return func(yield func(string) bool) {
		v, _, ok := n.byAddr.get(nameKey{device, addr.Unmap().WithZone("")})
		if !ok {
			return
		}
		at := now.Unix()
		for i := range v.names {
			if v.names[i].name != "" && v.names[i].until >= at && !yield(v.names[i].name) {
				return
			}
		}
	}
}
