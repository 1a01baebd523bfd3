package journal

import (
	"net/netip"
	"time"

	"github.com/netcurtain/netcurtain/devices"
)

// The shapes below are what can be asked of the ledger: the store answers with
// them, pages and JSON show them. Out is from the device to the outside.

// DeviceTotals is what one device did in a span of time.
type DeviceTotals struct {
	Device        devices.ID
	BytesOut      int64
	BytesIn       int64
	Flows         int64
	ReadableFlows int64 // readable and not harmless
	ReadableBytes int64 // out, of those
	Weak          int64 // flows whose encryption is outdated or badly set up
	Lookups       int64
	Blocked       int64 // look-ups and connections
	// Organisations are those whom the device reached, the one that got most first:
	// what was blocked or answered with an error reached nobody. Where nobody
	// knows the organisation, a registrable domain or a public address stands for it.
	Organisations []string
	LastActive    time.Time
}

// DestinationTotals is what one device did with one destination. For a device
// that is not logged by name, everything falls into one row without a name.
type DestinationTotals struct {
	Name         string // server name, else address text, else ""
	NameSource   string
	Organisation string
	Purpose      string
	Country      string
	Breaks       string
	BytesOut     int64
	BytesIn      int64
	Flows        int64
	Lookups      int64
	Blocked      int64
	Readable     int64  // flows; readable and not harmless
	Harmless     int64  // flows; readable, but of no concern
	Encrypted    int64  // flows
	CannotTell   int64  // flows
	Weak         int64  // flows whose encryption is outdated or badly set up
	Carried      int64  // flows that left the device readable and the router encrypted
	Why          string // newest reason of protection, in words
	Verdict      string // newest: "allow", "block", "none", of look-ups also "rewrite"; with Reason, Rule, List
	Reason       string
	Rule         string
	List         string
	First, Last  time.Time
}

// FlowRow is one finished flow as it was kept.
type FlowRow struct {
	ID           int64
	Device       devices.ID
	First, Last  time.Time
	Proto        string
	Src, Dst     netip.AddrPort
	App          string
	Protection   string // "encrypted", "readable", "cannot-tell"
	Harmless     bool
	Why          string
	Name         string
	NameSource   string
	TLSVersion   string
	Organisation string
	Purpose      string
	Country      string
	BytesOut     int64
	BytesIn      int64
	PacketsOut   int64
	PacketsIn    int64
	Verdict      string
	Reason       string
	Rule         string
	List         string
	Proxied      bool
	Credentials  string
	Findings
	Ambiguous  bool  // the address has other names, too, and the flow itself names none
	Inbound    bool  // opened from outside
	PortMapped bool  // and through a port that a device had the router open
	ByNameOnly bool  // blocked by its name, for its address is needed for others
	Carried    bool  // left the device readable and the router encrypted (Flow.CarriedEncrypted)
	Parts      int64 // how many times it was told of, from its beginning to its end
}

// LookupRow is one look-up as it was kept.
type LookupRow struct {
	ID           int64
	At           time.Time
	Device       devices.ID
	Name         string
	Type         uint16
	Rcode        int
	Verdict      string
	Noted        bool
	Reason       string
	Rule         string
	List         string
	Organisation string
	Redirected   bool
	Count        int64 // how often the same was asked and answered within a moment
}

// EventRow is one rare event as it was kept.
type EventRow struct {
	ID     int64
	At     time.Time
	Device devices.ID
	Kind   EventKind
	// Subject is "" where the device is not logged by name.
	Subject string
	Text    string
}

// TopBy says what Top adds up by.
type TopBy uint8

const (
	TopByDestination  TopBy = iota // each device with each destination
	TopByOrganisation              // of all devices together
	TopByDevice
)

// TopRow is one of those with the most bytes. What it was not added up by is empty.
type TopRow struct {
	Device       devices.ID
	Name         string // server name, else address, else ""
	Organisation string
	Purpose      string
	Country      string
	BytesOut     int64
	BytesIn      int64
	Flows        int64
	Readable     int64 // flows; readable and not harmless
	Blocked      int64 // connections; by device look-ups, too
	Last         time.Time
}

// DayTotals is what one device did on one day with one organisation: what is
// left when the ledger's rows are gone.
type DayTotals struct {
	Day          time.Time // the day's first moment
	Device       devices.ID
	Organisation string // "" when not known, or when the device is not logged by name
	Protection   string // "encrypted", "readable", "harmless", "cannot-tell"; "" for what is no flow
	BytesOut     int64
	BytesIn      int64
	Flows        int64
	Lookups      int64
	Blocked      int64
}

// Filter narrows what is asked. Zero fields do not narrow. Rows come newest
// first; Before pages by key (the smallest ID of the page before).
type Filter struct {
	Device       devices.ID
	Since, Until time.Time
	Readable     bool // flows: readable and not harmless only
	Blocked      bool // blocked only
	Before       int64
	Limit        int // 0 is 100; never more than 1000
}
