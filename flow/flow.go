package flow

import (
	"net/netip"
	"time"
)

// Proto is an IP protocol number (IANA). Only TCP and UDP have ports.
type Proto uint8

const (
	ICMP   Proto = 1
	TCP    Proto = 6
	UDP    Proto = 17
	ICMPv6 Proto = 58
)

// String is "tcp", "udp", "icmp" or "ip-47".
func (p Proto) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case ICMP, ICMPv6:
		return "icmp"
	}
	const digits = "0123456789"
	b := []byte("ip-")
	if p >= 100 {
		b = append(b, digits[p/100])
	}
	if p >= 10 {
		b = append(b, digits[p/10%10])
	}
	return string(append(b, digits[p%10]))
}

// Tuple is a packed, comparable 5-tuple: addresses in 16-byte form, no
// pointers, so that it is a cheap map key. Src is the side that opened the flow.
type Tuple struct {
	Src, Dst         [16]byte
	SrcPort, DstPort uint16
	Proto            Proto
}

// NewTuple packs two ends. IPv4 addresses are mapped (RFC 4291 §2.5.5.2).
func NewTuple(p Proto, src, dst netip.AddrPort) Tuple {
	return Tuple{
		Src: src.Addr().As16(), Dst: dst.Addr().As16(),
		SrcPort: src.Port(), DstPort: dst.Port(), Proto: p,
	}
}

// SrcAddr is the opener's address, unmapped.
func (t Tuple) SrcAddr() netip.Addr { return netip.AddrFrom16(t.Src).Unmap() }

// DstAddr is the responder's address, unmapped.
func (t Tuple) DstAddr() netip.Addr { return netip.AddrFrom16(t.Dst).Unmap() }

// SrcAddrPort is the opener's end.
func (t Tuple) SrcAddrPort() netip.AddrPort { return netip.AddrPortFrom(t.SrcAddr(), t.SrcPort) }

// DstAddrPort is the responder's end.
func (t Tuple) DstAddrPort() netip.AddrPort { return netip.AddrPortFrom(t.DstAddr(), t.DstPort) }

// Reverse is the tuple as the other side writes it.
func (t Tuple) Reverse() Tuple {
	return Tuple{Src: t.Dst, Dst: t.Src, SrcPort: t.DstPort, DstPort: t.SrcPort, Proto: t.Proto}
}

// Count is what went one way. Bytes count from the IP header on, as conntrack does.
type Count struct{ Packets, Bytes uint64 }

// Counters is what went both ways: Orig from the opener to the responder.
type Counters struct{ Orig, Reply Count }

// Since is what was counted after before; nothing where before is more.
func (c Counters) Since(before Counters) Counters {
	return Counters{c.Orig.since(before.Orig), c.Reply.since(before.Reply)}
}

func (n Count) since(before Count) Count {
	return Count{Packets: n.Packets - min(before.Packets, n.Packets), Bytes: n.Bytes - min(before.Bytes, n.Bytes)}
}

// Most is whichever is more of each.
func (c Counters) Most(other Counters) Counters {
	return Counters{
		Count{max(c.Orig.Packets, other.Orig.Packets), max(c.Orig.Bytes, other.Orig.Bytes)},
		Count{max(c.Reply.Packets, other.Reply.Packets), max(c.Reply.Bytes, other.Reply.Bytes)},
	}
}

// Protection is how well a flow's content is protected. The zero value is
// CannotTell: never a guess.
type Protection uint8

const (
	CannotTell Protection = iota
	Encrypted
	Readable
)

// String is the word that JSON uses.
func (p Protection) String() string {
	switch p {
	case Encrypted:
		return "encrypted"
	case Readable:
		return "readable"
	}
	return "cannot-tell"
}

// Dir is the direction of a packet within its flow.
type Dir uint8

const (
	Orig  Dir = iota // from the opener
	Reply            // back to it
)

// NameSource says how a flow's destination got its name, best first as the
// precedence runs: Host, SNI, this device's own DNS answer, any device's, none.
type NameSource uint8

const (
	NameFromAddress   NameSource = iota // no name is known
	NameFromDNSAny                      // another device's DNS answer
	NameFromDNSDevice                   // this device's own DNS answer
	NameFromSNI
	NameFromHost
)

// String is the word that JSON uses.
func (s NameSource) String() string {
	switch s {
	case NameFromHost:
		return "host"
	case NameFromSNI:
		return "sni"
	case NameFromDNSDevice:
		return "dns-device"
	case NameFromDNSAny:
		return "dns-any"
	}
	return "address"
}

// Flow is one tracked connection, both directions.
type Flow struct {
	Tuple    Tuple  // as the opener wrote it, before any translation
	ID       uint32 // conntrack's id; 0 where there is none
	MAC      [6]byte
	Counters Counters
	First,
	Last time.Time
	Name       string // best name after joining; "" when none is known
	NameSource NameSource
	Ambiguous  bool // several names are known for this address
}

// Kind of Event.
type Kind uint8

const (
	New     Kind = iota + 1
	Update       // live counters, from a dump
	Destroy      // the last counters
)

// Event is what a source of connections says of one of them.
type Event struct {
	Kind     Kind
	ID       uint32 // stable for the entry's life; 0 when the source has none
	Tuple    Tuple  // original direction, before translation
	Reply    Tuple  // reply direction, as the kernel expects it
	Counters Counters
	Mark     uint32
	At       time.Time // when the event was read
	Start,
	Stop time.Time // kernel timestamps; zero when not known
}

// Packet is one of the first packets of a flow, as a source saw it. Payload
// begins behind the transport header and is only valid until the callback that
// brought it returns.
type Packet struct {
	At      time.Time
	MAC     [6]byte // source hardware address; zero when not known
	DstMAC  [6]byte // captures only
	Tuple   Tuple   // as on the wire: Src is this packet's sender
	Seq     uint32  // TCP only
	Flags   uint8   // TCP only: FIN 1, SYN 2, RST 4, PSH 8, ACK 16
	Length  int     // of the IP packet on the wire, header included
	Payload []byte  // may be cut short by the source's snap length
	Missing int     // octets of the payload that the source cut off
}

// TCP header flags (RFC 9293 §3.1).
const (
	FIN uint8 = 1 << iota
	SYN
	RST
	PSH
	ACK
)
