package devices

import (
	"fmt"
	"net"
	"net/netip"
	"time"
)

// MAC is an IEEE 802 address. The zero MAC means that none is known.
type MAC [6]byte

// ParseMAC reads the colon, dash or dot form of a 48-bit address.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return MAC{}, fmt.Errorf("hardware address %.40q: six octets such as 02:00:5e:10:00:01 are needed", s)
	}
	return MAC(hw), nil
}

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// IsZero reports whether no hardware address is known.
func (m MAC) IsZero() bool { return m == MAC{} }

// IsRandomised reports whether the locally-administered bit is set: such an
// address names no maker and may change tomorrow.
func (m MAC) IsRandomised() bool { return m[0]&0x02 != 0 }

// IsGroup reports whether m is a multicast or broadcast address, which no device owns.
func (m MAC) IsGroup() bool { return m[0]&0x01 != 0 }

// ID names a device for as long as the house knows it: the text of the first
// MAC under which it was seen, or of its address where no MAC can be had (a
// capture of raw IP).
type ID string

// Source says who told us something about a device. A larger Source is trusted
// more: its name replaces the name from a smaller one.
type Source uint8

const (
	SourceNone      Source = iota
	SourcePacket           // the MAC that a logged packet carried
	SourceNeighbour        // the kernel's neighbour table
	SourceDiscovery        // mDNS, SSDP and DHCP as heard
	SourceLease            // a DHCP server's lease file
	SourceHousehold        // a person said so
)

// String is the word that pages and JSON use.
func (s Source) String() string {
	switch s {
	case SourcePacket:
		return "packet"
	case SourceNeighbour:
		return "neighbour"
	case SourceDiscovery:
		return "discovery"
	case SourceLease:
		return "lease"
	case SourceHousehold:
		return "household"
	}
	return ""
}

// Sighting is one dated observation of a device from one source. Hostname is
// the attacker's: the registry bounds and cleans it.
type Sighting struct {
	MAC      MAC
	Addr     netip.Addr // may be invalid
	Hostname string     // may be empty
	Source   Source
	At       time.Time
	// Gone says that Addr no longer belongs to MAC.
	Gone bool
}

// Mode is how a device is treated.
type Mode uint8

const (
	ModeUnset   Mode = iota // the house's default applies
	ModeOff                 // nothing is filtered, nothing is seen
	ModeWatch               // everything is answered, what would be blocked is noted
	ModeProtect             // look-ups are filtered, flows are seen
	ModeGuard               // and the web traffic goes through the proxy
	ModeLocal               // local names only, no internet
)

var modeNames = [...]string{"", "off", "watch", "protect", "guard", "local"}

func (m Mode) String() string { return modeNames[m] }

// ParseMode reads one of "off", "watch", "protect", "guard", "local".
func ParseMode(s string) (Mode, error) {
	for i, n := range modeNames {
		if i > 0 && n == s {
			return Mode(i), nil
		}
	}
	return ModeUnset, fmt.Errorf("mode %.20q: off, watch, protect, guard or local is needed", s)
}

// LogLevel is how much of a device's traffic is written down: smart devices are
// watched, people are not. The zero value is LogCounts, the modest one.
type LogLevel uint8

const (
	LogCounts LogLevel = iota // filtered and counted; names stay in memory
	LogNames                  // destinations by name
	LogNone                   // nothing is written
)

var logNames = [...]string{"counts", "names", "none"}

func (l LogLevel) String() string { return logNames[l] }

// ParseLogLevel reads one of "names", "counts", "none".
func ParseLogLevel(s string) (LogLevel, error) {
	for i, n := range logNames {
		if n == s {
			return LogLevel(i), nil
		}
	}
	return LogCounts, fmt.Errorf("log level %.20q: names, counts or none is needed", s)
}

// Kind is what a device is, as far as that is known.
type Kind string

const (
	KindUnknown   Kind = ""
	KindTV        Kind = "tv"
	KindCamera    Kind = "camera"
	KindSpeaker   Kind = "speaker"
	KindToy       Kind = "toy"
	KindPlug      Kind = "plug"
	KindHub       Kind = "hub"
	KindPrinter   Kind = "printer"
	KindSensor    Kind = "sensor"
	KindPhone     Kind = "phone"
	KindTablet    Kind = "tablet"
	KindComputer  Kind = "computer"
	KindLight     Kind = "light"
	KindConsole   Kind = "console"
	KindAppliance Kind = "appliance" // vacuum cleaners, thermostats, kitchen and laundry machines
	KindOther     Kind = "other"     // surely a smart device, but which kind is not known
)

// ParseKind reads one of the kinds above; "" is KindUnknown.
func ParseKind(s string) (Kind, error) {
	switch k := Kind(s); k {
	case KindUnknown, KindTV, KindCamera, KindSpeaker, KindToy, KindPlug, KindHub, KindPrinter, KindSensor, KindPhone, KindTablet, KindComputer, KindLight, KindConsole, KindAppliance, KindOther:
		return k, nil
	}
	return KindUnknown, fmt.Errorf("kind %.20q: tv, camera, speaker, toy, plug, hub, light, console, appliance, printer, sensor, phone, tablet, computer or other is needed", s)
}

// Smart reports whether k is a smart device, which is watched. Phones, tablets,
// computers and devices not yet known are not: they are people's.
func (k Kind) Smart() bool {
	switch k {
	case KindUnknown, KindPhone, KindTablet, KindComputer:
		return false
	}
	return true
}

// Device is what the house knows of one device. It is a value: a Registry hands
// out copies, whose slices must not be written to.
type Device struct {
	ID       ID
	MACs     []MAC        // the one the ID is made of first
	Addrs    []netip.Addr // newest first
	Name     string       // what to call it: the household's word, else the best hostname, else its maker, else the ID
	Hostname string       // cleaned
	NameFrom Source
	Maker    string // "" when the MAC is randomised or unknown
	Kind     Kind
	KindFrom string // how the kind is known, in words
	Mode     Mode   // never ModeUnset in a Device that a Registry hands out
	Log      LogLevel
	// CarryEncrypted and StripTracking are what the household chose for the readable HTTP of a guarded device: to carry
	// it over TLS from the router on where the host can, and to take trackers' headers and cookies out of it.
	CarryEncrypted, StripTracking bool
	FirstSeen,
	LastSeen time.Time
}
