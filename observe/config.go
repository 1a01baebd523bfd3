package observe

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
)

// Devices says whose a hardware address or an address is, and how a device is treated.
type Devices interface {
	ByMAC(devices.MAC) (devices.Device, bool)
	ByAddr(netip.Addr) (devices.Device, bool)
	ByID(devices.ID) (devices.Device, bool)
}

// Decider is policy's engine.
type Decider interface {
	Decide(policy.Query) policy.Verdict
}

// Describer is the atlas: what is known of a name; of an address when there is
// no name.
type Describer interface {
	Describe(name dnsname.Name, addr netip.Addr) atlas.Destination
}

// Recorder is the journal. Record must not block.
type Recorder interface {
	Record(journal.Entry)
}

// Blocker makes the kernel stop a flow and refuse its destination to its device
// for a while. It is called from a goroutine of its own.
type Blocker interface {
	Block(ctx context.Context, b Cut) error
}

// Cut is one flow to stop, or, with Free, a destination to reach again.
type Cut struct {
	Device devices.ID
	MAC    devices.MAC   // refuse this device …
	Addr   netip.Addr    // … this address
	Tuple  flow.Tuple    // and forget this connection, so that the refusal applies to it
	For    time.Duration // 0: refuse nothing more than is refused already, only forget the connection
	Asked  policy.Query  // what was answered with Block
	// ByName refuses this one connection, which said itself that it is for what is
	// blocked: its address also carries names that the device may reach.
	ByName bool
	// Free lifts the refusal of Addr: the device was just given it for a name that
	// it may reach. Tuple is not set.
	Free bool
}

// Config is what an Observer needs. Only Record must be set.
type Config struct {
	Devices Devices   // nil: a device is its MAC, else its address, and is only counted
	Decide  Decider   // nil: nothing is decided
	Atlas   Describer // nil: nothing is described
	Block   Blocker   // nil: nothing is stopped
	Record  Recorder

	// Ease, when set, is called before a flow is recorded. It may wait for a moment, while
	// the inbox and the kernel's buffers take up what comes: in a burst thousands of flows
	// end, or leave the table, within milliseconds.
	Ease func()

	Now     func() time.Time      // nil: time.Now
	Log     *slog.Logger          // nil: silent
	Metrics prometheus.Registerer // nil: no metrics

	// Local reports whether an address is inside the house. nil: private,
	// link-local, shared (RFC 6598) and unique local addresses are.
	Local func(netip.Addr) bool
	// Own reports whether an address is the router's own. Flows to and from it are
	// not a device's talk with the world. nil: none is.
	Own func(netip.Addr) bool

	Flows         int           // most flows held at once; 0: 20,000
	Names         int           // most pairs of device and address with a name; 0: 20,000
	Conversations int           // most flows whose first bytes are being read; 0: 2,000
	Deadline      time.Duration // how long first bytes are waited for; 0: 5 s
	Idle          time.Duration // a flow of which nothing is heard for this long has ended; 0: 30 min
	BlockFor      time.Duration // how long a destination stays refused; 0: 1 h
}

func (c *Config) complete() error {
	if c.Record == nil {
		return errors.New("observe: a Recorder is needed")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Local == nil {
		c.Local = isLocal
	}
	if c.Own == nil {
		c.Own = func(netip.Addr) bool { return false }
	}
	c.Flows = orElse(c.Flows, 20_000)
	c.Names = orElse(c.Names, 20_000)
	c.Conversations = orElse(c.Conversations, 2_000)
	c.Deadline = orElse(c.Deadline, 5*time.Second)
	c.Idle = orElse(c.Idle, 30*time.Minute)
	c.BlockFor = orElse(c.BlockFor, time.Hour)
	return nil
}

func orElse[T int | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// isLocal is the default of Config.Local.
func isLocal(a netip.Addr) bool {
	if a.Is4() {
		if b := a.As4(); b[0] == 100 && b[1]&0xc0 == 64 { // RFC 6598
			return true
		}
	}
	return a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsLoopback() || a.IsUnspecified() || toMany(a)
}

// toMany reports whether a is a multicast or the broadcast address.
func toMany(a netip.Addr) bool {
	return a.IsMulticast() || a.Is4() && a.As4() == [4]byte{255, 255, 255, 255}
}
