package journal

import (
	"time"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
)

// Entry is one thing that happened. Exactly one of Lookup, Flow and Event is
// set. Entries are immutable: readers share the pointers.
type Entry struct {
	At     time.Time
	Device devices.ID       // "" for the house itself
	Log    devices.LogLevel // the device's level when it happened; every reader that keeps or shows names obeys it
	Lookup *Lookup
	Flow   *Flow
	Event  *Event
}

// kind is what a lost Entry is counted as. A flow is lost with its first entry; with
// a later one, some of its bytes.
type kind int

const (
	lookup kind = iota
	wholeFlow
	laterPart
	event
	kinds
)

func (k kind) String() string { return [kinds]string{"lookup", "flow", "part", "event"}[k] }

func (e *Entry) kind() kind {
	switch {
	case e.Lookup != nil:
		return lookup
	case e.Flow == nil:
		return event
	case e.Flow.Part > 0:
		return laterPart
	}
	return wholeFlow
}

// Lookup is one DNS question and what became of it.
type Lookup struct {
	Name        dnsname.Name
	Type        uint16
	Rcode       int // as the device got it
	Verdict     policy.Verdict
	Destination atlas.Destination
	Redirected  bool // was sent to a hard-coded resolver
}

// Flow is one flow that ended, or a carried connection that closed.
type Flow struct {
	flow.Flow
	Seen        dissect.Result
	Destination atlas.Destination
	Verdict     policy.Verdict
	// Part counts the entries that were made of this flow before, while it ran:
	// Counters hold only what it did since then. Readers that count flows count
	// those with Part 0, and those with a trait by News.
	Part    int
	Late    Traits // of Part > 0: what the flow came to since the entries before
	Proxied bool   // carried by our proxy
	Inbound bool   // opened from outside: the device is the responder, so Orig counts what came in
	// PortMapped says of an inbound flow that it came through a port which a device had the router open (UPnP, NAT-PMP, PCP).
	PortMapped bool
	// ByNameOnly says of a blocked flow that its address also carries names this device may reach: it is refused where
	// its name is seen, not by its address.
	ByNameOnly bool
	// CarriedEncrypted says that the device spoke readable HTTP and the proxy carried it over TLS from the router on.
	CarriedEncrypted bool
}

// Traits are what flows are counted by beside their number. A flow may come to a
// trait late: a household blocks what already runs.
type Traits uint8

// Each is counted once for a flow, however many entries have it.
const (
	Blocked Traits = 1 << iota
	Weak           // its encryption is outdated or badly set up
	Carried        // left the device readable and the router encrypted
)

// TraitsOf are those of a flow of which so much is known.
func TraitsOf(v policy.Verdict, seen *dissect.Result, carriedEncrypted bool) (t Traits) {
	if v.Action == policy.Block {
		t |= Blocked
	}
	if seen.TLS != nil && len(seen.TLS.Weak) > 0 {
		t |= Weak
	}
	if carriedEncrypted {
		t |= Carried
	}
	return t
}

// News are the traits which no entry of the flow had before.
func (f *Flow) News() Traits {
	if f.Part > 0 {
		return f.Late
	}
	return TraitsOf(f.Verdict, &f.Seen, f.CarriedEncrypted)
}

// EventKind names the rare events, which outlive the rest.
type EventKind string

const (
	EventNewDevice       EventKind = "new-device"
	EventFirstContact    EventKind = "first-contact"    // with an organisation
	EventReadableSecret  EventKind = "readable-secret"  // a credential travelled readable
	EventWeakTLS         EventKind = "weak-tls"         // outdated or badly set up encryption, with whom
	EventPortMap         EventKind = "port-map"         // a device had the router open a port to the outside
	EventSideDoor        EventKind = "side-door"        // hard-coded resolver, DoT, DoH
	EventHealth          EventKind = "health"           // something of ours broke or mended
	EventHouseholdChange EventKind = "household-change" // a person changed something
)

// Event is one rare event in plain words.
type Event struct {
	Kind EventKind
	// Subject is what it is about: a destination, an organisation, "itself". The
	// Recorder tells an event of a device once for each Kind and Subject; one without
	// a Subject always.
	Subject string
	Text    string
}
