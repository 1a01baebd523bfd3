package api

import "time"

// Error is every answer with a 4xx or 5xx status: what is wrong and what to do.
type Error struct {
	Error string `json:"error"`
}

// Done is the answer to a change.
type Done struct {
	OK bool `json:"ok"`
}

// HealthLine is one thing that must be well for the house to be protected.
type HealthLine struct {
	Name    string `json:"name"`    // what is watched: "dns", "conntrack", "ledger"
	OK      bool   `json:"ok"`      // whether it is well
	Meaning string `json:"meaning"` // what its state means for the household
	Mend    string `json:"mend"`    // what a person can do; "" when it is well
	// Dismiss is what to name in POST /api/v1/dismiss to hear no more of a mere proposal.
	Dismiss string `json:"dismiss,omitempty"`
}

// Dismiss is the body of POST /api/v1/dismiss.
type Dismiss struct {
	What string `json:"what"`
}

// Health is how the rooms are.
type Health struct {
	Lines   []HealthLine     `json:"lines"`
	Place   string           `json:"place"`   // where the box stands: "router of 192.168.1.0/24 on br-lan"
	Dropped map[string]int64 `json:"dropped"` // what was dropped since the start, by queue
}

// Status is the answer to GET /api/v1/status.
type Status struct {
	Version       string           `json:"version"`
	Started       time.Time        `json:"started"`
	UptimeSeconds int64            `json:"uptime_seconds"`
	On            bool             `json:"on"`
	OK            bool             `json:"ok"` // every health line is well
	Place         string           `json:"place"`
	Devices       int              `json:"devices"`
	LiveReaders   int              `json:"live_readers"`
	Health        []HealthLine     `json:"health"`
	Dropped       map[string]int64 `json:"dropped"`
}

// Totals is what one device did in the span that was asked for. Out is from
// the device to the outside.
type Totals struct {
	BytesOut      int64      `json:"bytes_out"`
	BytesIn       int64      `json:"bytes_in"`
	Flows         int64      `json:"flows"`
	ReadableFlows int64      `json:"readable_flows"` // readable and not harmless
	ReadableBytes int64      `json:"readable_bytes"` // out, of those
	Weak          int64      `json:"weak"`           // flows whose encryption is outdated or badly set up
	Lookups       int64      `json:"lookups"`
	Blocked       int64      `json:"blocked"` // look-ups and connections
	Organisations []string   `json:"organisations"`
	LastActive    *time.Time `json:"last_active"` // null when it did nothing
}

// Device is one device with its identity, its treatment and its totals.
type Device struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	NameFrom   string    `json:"name_from"` // "packet", "neighbour", "discovery", "lease", "household" or ""
	Hostname   string    `json:"hostname"`
	Maker      string    `json:"maker"`
	Kind       string    `json:"kind"` // "tv", "camera", …, "" when not known
	KindFrom   string    `json:"kind_from"`
	Personal   bool      `json:"personal"` // a person's, or not yet known: counted, not logged by name, unless chosen otherwise
	MACs       []string  `json:"macs"`
	Randomised bool      `json:"randomised"` // its hardware address names no maker and may change
	Addresses  []string  `json:"addresses"`  // newest first
	Mode       string    `json:"mode"`       // "off", "watch", "protect", "guard", "local"
	Log        string    `json:"log"`        // "names", "counts", "none"
	Carry      bool      `json:"carry"`      // readable requests leave the house encrypted where the other side can; in mode guard
	Strip      bool      `json:"strip"`      // what follows people about is taken out of readable requests; in mode guard
	FirstSeen  time.Time `json:"first_seen"`
	LastSeen   time.Time `json:"last_seen"`
	Totals     Totals    `json:"totals"`
}

// Devices is the answer to GET /api/v1/devices.
type Devices struct {
	Since   time.Time `json:"since"`
	Devices []Device  `json:"devices"`
}

// Destination is what one device did with one destination.
type Destination struct {
	Name         string    `json:"name"` // "" for a device that is not logged by name
	NameSource   string    `json:"name_source"`
	Organisation string    `json:"organisation"`
	Purpose      string    `json:"purpose"`
	Country      string    `json:"country"`
	Breaks       string    `json:"breaks"`
	Protection   string    `json:"protection"` // the worst seen: "readable", "cannot-tell", "encrypted"; "harmless" when every flow was readable but of no concern; "" without any flow
	Why          string    `json:"why"`
	Readable     int64     `json:"readable"` // flows, without the harmless ones
	Encrypted    int64     `json:"encrypted"`
	CannotTell   int64     `json:"cannot_tell"`
	Harmless     int64     `json:"harmless"` // readable, but of no concern; not among readable
	Weak         int64     `json:"weak"`     // flows whose encryption is outdated or badly set up
	Carried      int64     `json:"carried"`  // flows that left the device readable and the router encrypted
	BytesOut     int64     `json:"bytes_out"`
	BytesIn      int64     `json:"bytes_in"`
	Flows        int64     `json:"flows"`
	Lookups      int64     `json:"lookups"`
	Blocked      int64     `json:"blocked"`
	Verdict      string    `json:"verdict"` // newest: "allow", "block", "none"; of look-ups also "rewrite"
	Reason       string    `json:"reason"`
	Rule         string    `json:"rule"`
	List         string    `json:"list"`
	First        time.Time `json:"first"`
	Last         time.Time `json:"last"`
}

// Block is one thing that was blocked.
type Block struct {
	At           time.Time `json:"at"`
	What         string    `json:"what"` // "lookup" or "flow"
	Name         string    `json:"name"`
	Address      string    `json:"address"` // flows only
	Organisation string    `json:"organisation"`
	Reason       string    `json:"reason"`
	Rule         string    `json:"rule"`
	List         string    `json:"list"`
}

// DeviceDetail is the answer to GET /api/v1/devices/{id}.
type DeviceDetail struct {
	Since        time.Time     `json:"since"`
	Device       Device        `json:"device"`
	Destinations []Destination `json:"destinations"`
	Blocks       []Block       `json:"blocks"` // the last 20, newest first
	Carrying     Carrying      `json:"carrying"`
}

// Carrying is what was done, since the daemon's start, to what a guarded device asks
// in clear.
type Carrying struct {
	Places    int `json:"places"`    // hosts that it asked in clear
	Encrypted int `json:"encrypted"` // of those, whose last request left the house encrypted
	Headers   int `json:"headers"`   // tracking headers taken out
	Referrers int `json:"referrers"` // referrers cut or taken out
	Cookies   int `json:"cookies"`   // third parties' cookies taken out, of requests and answers
}

// Days is the answer to GET /api/v1/days.
type Days struct {
	Since time.Time `json:"since"`
	Days  []Day     `json:"days"`
}

// Day is what one device, or all, did on one day.
type Day struct {
	Day           string   `json:"day"` // "2026-11-22", where the house is
	BytesOut      int64    `json:"bytes_out"`
	BytesIn       int64    `json:"bytes_in"`
	Flows         int64    `json:"flows"`
	ReadableFlows int64    `json:"readable_flows"` // readable and not harmless
	ReadableBytes int64    `json:"readable_bytes"` // out, of those
	Lookups       int64    `json:"lookups"`
	Blocked       int64    `json:"blocked"`       // look-ups and connections
	Organisations []string `json:"organisations"` // the one that got most first
}

// Top is the answer to GET /api/v1/top.
type Top struct {
	Since time.Time `json:"since"`
	By    string    `json:"by"` // "destination", "organisation", "device"
	Rows  []TopRow  `json:"rows"`
}

// TopRow is one of those with the most bytes. What it was not added up by is "".
type TopRow struct {
	Device       string    `json:"device"`
	DeviceName   string    `json:"device_name"`
	Name         string    `json:"name"`
	Organisation string    `json:"organisation"`
	Purpose      string    `json:"purpose"`
	Country      string    `json:"country"`
	BytesOut     int64     `json:"bytes_out"`
	BytesIn      int64     `json:"bytes_in"`
	Flows        int64     `json:"flows"`
	Readable     int64     `json:"readable"` // flows, without the harmless ones
	Blocked      int64     `json:"blocked"`
	Last         time.Time `json:"last"`
}

// Flow is one finished flow.
type Flow struct {
	ID           int64     `json:"id"`
	Device       string    `json:"device"`
	First        time.Time `json:"first"`
	Last         time.Time `json:"last"`
	L4           string    `json:"l4"`
	Src          string    `json:"src"` // address and port of the side that opened it
	Dst          string    `json:"dst"`
	Protocol     string    `json:"protocol"`
	Protection   string    `json:"protection"`
	Harmless     bool      `json:"harmless"`
	Why          string    `json:"why"`
	Name         string    `json:"name"`
	NameSource   string    `json:"name_source"`
	TLSVersion   string    `json:"tls_version"`
	Organisation string    `json:"organisation"`
	Purpose      string    `json:"purpose"`
	Country      string    `json:"country"`
	BytesOut     int64     `json:"bytes_out"`
	BytesIn      int64     `json:"bytes_in"`
	PacketsOut   int64     `json:"packets_out"`
	PacketsIn    int64     `json:"packets_in"`
	Verdict      string    `json:"verdict"`
	Reason       string    `json:"reason"`
	Rule         string    `json:"rule"`
	List         string    `json:"list"`
	Proxied      bool      `json:"proxied"`
	Credentials  string    `json:"credentials"` // which kind travelled readable, never the credential

	QUICVersion       string `json:"quic_version"`
	ECH               bool   `json:"ech"`                // the hello was encrypted: a name that it shows is the front's
	TLSCipher         string `json:"tls_cipher"`         // chosen, as IANA calls it
	TLSWeak           string `json:"tls_weak"`           // what is weak or badly set up, in words
	Certificate       string `json:"certificate"`        // what is wrong with it: "expired,self-signed", …
	CredentialUser    string `json:"credential_user"`    // masked
	CredentialDefault bool   `json:"credential_default"` // a login that everybody knows
	Identifiers       string `json:"identifiers"`        // kinds that travelled readable: "mac:1,imei:2"
	NameAmbiguous     bool   `json:"name_ambiguous"`     // the address has other names, too
	Inbound           bool   `json:"inbound"`            // opened from outside
	PortMapped        bool   `json:"port_mapped"`        // and through a port that a device had the router open
	ByNameOnly        bool   `json:"by_name_only"`       // blocked where its name is seen, not by its address
	CarriedEncrypted  bool   `json:"carried_encrypted"`  // left the device readable and the router encrypted
	Parts             int64  `json:"parts"`              // how many times it was told of, from its beginning to its end
}

// Flows is the answer to GET /api/v1/flows. Next, when not 0, is the "before"
// of the page that follows.
type Flows struct {
	Flows []Flow `json:"flows"`
	Next  int64  `json:"next"`
}

// Lookup is one DNS question and what became of it.
type Lookup struct {
	ID           int64     `json:"id"`
	At           time.Time `json:"at"`
	Device       string    `json:"device"`
	Name         string    `json:"name"`
	Type         string    `json:"type"`  // "A", "AAAA", "HTTPS", …, "TYPE123"
	Rcode        string    `json:"rcode"` // "NOERROR", "NXDOMAIN", …, "RCODE23"
	Verdict      string    `json:"verdict"`
	Noted        bool      `json:"noted"` // only watched: it would have been blocked
	Reason       string    `json:"reason"`
	Rule         string    `json:"rule"`
	List         string    `json:"list"`
	Organisation string    `json:"organisation"`
	Redirected   bool      `json:"redirected"` // was sent to a hard-coded resolver
	Count        int64     `json:"count"`      // how often the same was asked and answered within a moment
}

// Lookups is the answer to GET /api/v1/lookups.
type Lookups struct {
	Lookups []Lookup `json:"lookups"`
	Next    int64    `json:"next"`
}

// Event is one rare event in plain words.
type Event struct {
	ID      int64     `json:"id"`
	At      time.Time `json:"at"`
	Device  string    `json:"device"` // "" for the house itself
	Kind    string    `json:"kind"`
	Subject string    `json:"subject"` // what it is about; "" where the device is not logged by name
	Text    string    `json:"text"`
}

// Events is the answer to GET /api/v1/events.
type Events struct {
	Events []Event `json:"events"`
	Next   int64   `json:"next"`
}

// Rule is one of the household's own.
type Rule struct {
	ID      int64      `json:"id"`
	Action  string     `json:"action"` // "allow" or "block"
	Name    string     `json:"name"`   // and everything below it
	Path    string     `json:"path"`   // "/collect": only that, in requests that can be read; "" is everything
	Device  string     `json:"device"` // "" is the whole house
	Until   *time.Time `json:"until"`  // null is for ever
	Created time.Time  `json:"created"`
	By      string     `json:"by"` // "page", "cli", "api"
}

// Rules is the answer to GET /api/v1/rules.
type Rules struct {
	Rules []Rule `json:"rules"`
}

// Live is one thing as it happens. For a device that is counted and not logged
// by name, everything that tells where it went is empty.
type Live struct {
	At           time.Time `json:"at"`
	What         string    `json:"what"` // "lookup", "flow" or "event"
	Device       string    `json:"device"`
	DeviceName   string    `json:"device_name"`
	Log          string    `json:"log"` // the level that this entry was shown under
	Name         string    `json:"name"`
	Organisation string    `json:"organisation"`
	Purpose      string    `json:"purpose"`
	Country      string    `json:"country"`
	Protocol     string    `json:"protocol"`
	Type         string    `json:"type"`       // look-ups: DNS type
	Protection   string    `json:"protection"` // flows
	Harmless     bool      `json:"harmless"`
	Why          string    `json:"why"`
	BytesOut     int64     `json:"bytes_out"`
	BytesIn      int64     `json:"bytes_in"`
	Verdict      string    `json:"verdict"`
	Noted        bool      `json:"noted"`
	Reason       string    `json:"reason"`
	Rule         string    `json:"rule"`
	List         string    `json:"list"`
	Kind         string    `json:"kind"` // events
	Text         string    `json:"text"` // events
}

// Bodies of changes.
type (
	// NewRule is the body of POST /api/v1/rules.
	NewRule struct {
		Name   string `json:"name"` // "ads.example.com" or, for readable requests, "ads.example.com/collect"
		Action string `json:"action"`
		Device string `json:"device,omitempty"` // ID, address or name; "" is the whole house
		For    string `json:"for,omitempty"`    // "15m", "2h", "7d"; "" is for ever
	}
	// SetMode is the body of POST /api/v1/devices/{id}/mode.
	SetMode struct {
		Mode string `json:"mode"`
	}
	// ModeSet is the answer to it. Ended is how many running connections ended on
	// purpose, and Note says why; both are missing when none did.
	ModeSet struct {
		OK    bool   `json:"ok"`
		Ended int    `json:"ended,omitempty"`
		Note  string `json:"note,omitempty"`
	}
	// SetLog is the body of POST /api/v1/devices/{id}/log.
	SetLog struct {
		Level string `json:"level"`
	}
	// SetKind is the body of POST /api/v1/devices/{id}/kind; "" leaves it to our guess.
	SetKind struct {
		Kind string `json:"kind"`
	}
	// SetName is the body of POST /api/v1/devices/{id}/name; "" forgets the household's word.
	SetName struct {
		Name string `json:"name"`
	}
	// Erase is the body of POST /api/v1/erase: one device or all, never both.
	Erase struct {
		Device string `json:"device,omitempty"`
		All    bool   `json:"all,omitempty"`
	}
	// Erased is the answer to it.
	Erased struct {
		Rows int64 `json:"rows"`
	}
	// Switch is the body of POST /api/v1/switch and of …/carry and …/strip of a device.
	Switch struct {
		On *bool `json:"on"`
	}
)
