package capture

import (
	"encoding/binary"
	"net/netip"

	"github.com/netcurtain/netcurtain/flow"
)

// EtherTypes (IEEE 802 numbers).
const (
	etherIPv4  = 0x0800
	etherVLAN  = 0x8100
	etherIPv6  = 0x86dd
	etherMPLS  = 0x8847
	etherPPPoE = 0x8864
	etherQinQ  = 0x88a8
	etherQinQ1 = 0x9100 // before 802.1ad

	etherBridged = 0x6558 // a whole Ethernet frame, in GRE and Geneve
	etherPPP     = 0x880b // in GRE
)

// IP protocol numbers (IANA) that are not the end of the chain.
const (
	ipHopByHop    = 0
	ipInIP        = 4
	ipv6InIP      = 41
	ipRouting     = 43
	ipFragment    = 44
	ipGRE         = 47
	ipAuth        = 51
	ipDestOptions = 60
	ipMobility    = 135
)

// Bounds against packets made to keep us busy.
const (
	maxTags    = 4 // VLAN tags and MPLS labels
	maxTunnels = 4 // packets in packets
	maxHeaders = 8 // IPv6 extension headers
)

type outcome uint8

const (
	decoded outcome = iota
	laterFragment
	notIP
	malformed
	unknownLink
	sealed // encrypted on the air
)

// decoder turns frames into packets. It remembers fragments until the packet
// that they make is whole, and their ports, which only the first one carries.
type decoder struct {
	pieces [maxPieces]pieces // ring
	at     int
}

// decode fills p from one frame. wire is the frame's length before it was cut
// to the snap length.
func (d *decoder) decode(link linkType, b []byte, wire int, p *flow.Packet) outcome {
	return d.frame(link, b, wire, maxTunnels, p)
}

// frame reads a link layer's header. depth is how many packets within packets
// are still followed.
func (d *decoder) frame(link linkType, b []byte, wire, depth int, p *flow.Packet) outcome {
	head := 0
	var next uint16 // EtherType
	switch link {
	case linkEthernet:
		return d.ethernet(b, wire, depth, p)
	case linkSLL: // packet type, hardware type, address length, address in 8 octets, protocol
		if len(b) < 16 {
			return malformed
		}
		if hardware := binary.BigEndian.Uint16(b[2:]); hardware >= arphrdPrism && hardware <= arphrdRadiotap {
			return d.monitor(linkType(hardware), b[16:], wire-16, depth, p)
		}
		if binary.BigEndian.Uint16(b[4:]) == 6 {
			copy(p.MAC[:], b[6:12])
		}
		head, next = 16, binary.BigEndian.Uint16(b[14:])
	case linkSLL2: // protocol, reserved, interface, hardware type, packet type, address length, address in 8 octets
		if len(b) < 20 {
			return malformed
		}
		if b[11] == 6 {
			copy(p.MAC[:], b[12:18])
		}
		head, next = 20, binary.BigEndian.Uint16(b)
	case linkNull, linkLoop: // the family's number differs between systems; the version nibble does not
		if len(b) < 4 {
			return malformed
		}
		head, next = 4, versionOf(b[4:])
	case linkENC: // family, index of the keys, flags
		if len(b) < 12 {
			return malformed
		}
		head, next = 12, versionOf(b[12:])
	case linkPFLOG: // its own length first, rounded up
		if len(b) < 1 || len(b) < (int(b[0])+3)&^3 {
			return malformed
		}
		head = (int(b[0]) + 3) &^ 3
		next = versionOf(b[head:])
	case linkPPP, linkPPPHDLC:
		return d.ppp(b, wire, depth, p)
	case linkPPPD, linkPPPDir: // one octet says which way it went
		if len(b) < 2 {
			return malformed
		}
		if b[1] == 0x03 { // in place of the address
			return d.ppp(b[2:], wire-2, depth, p)
		}
		return d.ppp(b[1:], wire-1, depth, p)
	case linkCHDLC:
		if len(b) < 4 {
			return malformed
		}
		head, next = 4, binary.BigEndian.Uint16(b[2:])
	case linkPPPoE:
		return d.pppoe(b, wire, depth, p)
	case linkATM:
		return d.llc(b, wire, depth, p)
	case linkRaw, linkRawBSD, linkRawOBSD, linkIPv4, linkIPv6:
		next = versionOf(b)
	case linkNFLOG:
		return d.nflog(b, depth, p)
	case linkPKTAP, linkUser2: // its own length, kind of record, link type; in the order of the machine that wrote it
		if len(b) < 12 {
			return malformed
		}
		n, inner := int(binary.LittleEndian.Uint32(b)), linkType(binary.LittleEndian.Uint32(b[8:]))
		if n < 12 || n > len(b) || depth == 0 {
			return malformed
		}
		return d.frame(inner, b[n:], wire-n, depth-1, p)
	default:
		if link.wireless() {
			return d.monitor(link, b, wire, depth, p)
		}
		return unknownLink
	}
	return d.ether(next, b[head:], wire-head, depth, p)
}

func (d *decoder) ethernet(b []byte, wire, depth int, p *flow.Packet) outcome {
	if len(b) < 14 {
		return malformed
	}
	copy(p.DstMAC[:], b)
	copy(p.MAC[:], b[6:])
	next := binary.BigEndian.Uint16(b[12:])
	if next <= 1500 { // a length (IEEE 802.3)
		return d.llc(b[14:], wire-14, depth, p)
	}
	return d.ether(next, b[14:], wire-14, depth, p)
}

// llc reads the headers that stand for an EtherType where there is none (IEEE
// 802.2, RFC 1042).
func (d *decoder) llc(b []byte, wire, depth int, p *flow.Packet) outcome {
	switch {
	case len(b) >= 8 && b[0] == 0xaa && b[1] == 0xaa && b[2] == 0x03 && b[3] == 0 && b[4] == 0 && (b[5] == 0 || b[5] == 0xf8):
		return d.ether(binary.BigEndian.Uint16(b[6:]), b[8:], wire-8, depth, p)
	case len(b) >= 4 && b[0] == 0x06 && b[1] == 0x06 && b[2] == 0x03:
		return d.ether(etherIPv4, b[3:], wire-3, depth, p)
	}
	return notIP
}

// nflog reads Linux's netfilter log (tcpdump -i nflog): family, version, group,
// then fields of length, type and value in the writer's order.
func (d *decoder) nflog(b []byte, depth int, p *flow.Packet) outcome {
	const payload, address = 9, 8
	if len(b) < 4 || b[1] != 0 {
		return malformed
	}
	for b = b[4:]; len(b) >= 4; {
		size, kind := int(binary.LittleEndian.Uint16(b)), binary.LittleEndian.Uint16(b[2:])
		if size < 4 || size > len(b) {
			size, kind = int(binary.BigEndian.Uint16(b)), binary.BigEndian.Uint16(b[2:])
		}
		if size < 4 || size > len(b) {
			return malformed
		}
		switch value := b[4:size]; kind {
		case address: // length, two octets of nothing, address
			if len(value) >= 10 {
				copy(p.MAC[:], value[4:])
			}
		case payload:
			return d.ip(value, len(value), depth, p)
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return notIP
}

// versionOf is the EtherType that fits the IP version nibble.
func versionOf(b []byte) uint16 {
	if len(b) > 0 {
		switch b[0] >> 4 {
		case 4:
			return etherIPv4
		case 6:
			return etherIPv6
		}
	}
	return 0
}

// ether goes on behind an EtherType, through tags and labels.
func (d *decoder) ether(next uint16, b []byte, wire, depth int, p *flow.Packet) outcome {
	for range maxTags {
		switch next {
		case etherIPv4, etherIPv6:
			return d.ip(b, wire, depth, p)
		case etherVLAN, etherQinQ, etherQinQ1:
			if len(b) < 4 {
				return malformed
			}
			next, b, wire = binary.BigEndian.Uint16(b[2:]), b[4:], wire-4
			if next <= 1500 {
				return d.llc(b, wire, depth, p)
			}
		case etherMPLS:
			if len(b) < 4 {
				return malformed
			}
			bottom := b[2]&1 != 0
			b, wire = b[4:], wire-4
			if bottom {
				if next = versionOf(b); next == 0 {
					return notIP
				}
			}
		case etherPPPoE:
			return d.pppoe(b, wire, depth, p)
		case etherPPP:
			return d.ppp(b, wire, depth, p)
		case etherBridged:
			return d.ethernet(b, wire, depth, p)
		default:
			return notIP
		}
	}
	return notIP
}

// pppoe reads a session header (RFC 2516 §4): version and type, code, session, length.
func (d *decoder) pppoe(b []byte, wire, depth int, p *flow.Packet) outcome {
	if len(b) < 6 {
		return malformed
	}
	if b[0] != 0x11 || b[1] != 0 {
		return notIP
	}
	return d.ppp(b[6:], wire-6, depth, p)
}

// ppp reads an optional address and control field and the protocol number,
// which is one octet when compressed (RFC 1661 §2, RFC 1662 §3.1).
func (d *decoder) ppp(b []byte, wire, depth int, p *flow.Packet) outcome {
	if len(b) >= 4 && (b[0] == 0x0f || b[0] == 0x8f) && b[1] == 0 { // Cisco's own framing
		return d.ether(binary.BigEndian.Uint16(b[2:]), b[4:], wire-4, depth, p)
	}
	n := 0
	if len(b) >= 2 && b[0] == 0xff && b[1] == 0x03 {
		n = 2
	}
	if len(b) < n+2 {
		return malformed
	}
	proto := uint16(b[n])
	n++
	if proto&1 == 0 {
		proto = proto<<8 | uint16(b[n])
		n++
	}
	switch proto {
	case 0x0021, 0x0057:
		return d.ip(b[n:], wire-n, depth, p)
	}
	return notIP
}

// ip reads an IP header and what follows. wire is the length of b before it was cut.
func (d *decoder) ip(b []byte, wire, depth int, p *flow.Packet) outcome {
	if depth <= 0 || len(b) == 0 {
		return malformed
	}
	switch b[0] >> 4 {
	case 4:
		return d.ipv4(b, wire, depth, p)
	case 6:
		return d.ipv6(b, wire, depth, p)
	}
	return malformed
}

func (d *decoder) ipv4(b []byte, wire, depth int, p *flow.Packet) outcome {
	if len(b) < 20 {
		return malformed
	}
	header := int(b[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	if total == 0 { // the card was to fill it in (segmentation offload)
		total = wire
	}
	if header < 20 || total < header || len(b) < header || depth < maxTunnels && total > wire {
		return malformed
	}
	p.Length = total
	p.Tuple = flow.Tuple{Proto: flow.Proto(b[9])}
	p.Tuple.Src = netip.AddrFrom4([4]byte(b[12:16])).As16()
	p.Tuple.Dst = netip.AddrFrom4([4]byte(b[16:20])).As16()
	body := b[header:min(total, len(b))] // what is behind total is Ethernet's padding

	frag := binary.BigEndian.Uint16(b[6:])
	if offset, more := int(frag&0x1fff)*8, frag&0x2000 != 0; offset != 0 || more {
		return d.fragment(piece{uint32(binary.BigEndian.Uint16(b[4:])), offset, more, body, total - header}, depth, p)
	}
	return d.transport(body, total-header, depth, false, p)
}

func (d *decoder) ipv6(b []byte, wire, depth int, p *flow.Packet) outcome {
	if len(b) < 40 {
		return malformed
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	if length == 0 { // jumbogram or offload
		length = max(wire-40, 0)
	}
	if depth < maxTunnels && 40+length > wire {
		return malformed
	}
	p.Length = 40 + length
	p.Tuple = flow.Tuple{Src: [16]byte(b[8:24]), Dst: [16]byte(b[24:40])}
	next := b[6]
	body := b[40:min(40+length, len(b))]
	for range maxHeaders {
		switch next {
		case ipHopByHop, ipRouting, ipDestOptions, ipMobility:
			if len(body) < 8 || len(body) < (int(body[1])+1)*8 {
				return malformed
			}
			n := (int(body[1]) + 1) * 8
			next, body, length = body[0], body[n:], length-n
		case ipFragment:
			if len(body) < 8 {
				return malformed
			}
			at := binary.BigEndian.Uint16(body[2:])
			id := binary.BigEndian.Uint32(body[4:])
			next, body, length = body[0], body[8:], length-8
			if offset, more := int(at&^7), at&1 != 0; offset != 0 || more {
				p.Tuple.Proto = flow.Proto(next)
				return d.fragment(piece{id, offset, more, body, length}, depth, p)
			} // else a fragment that is all there is (RFC 6946)
		default:
			p.Tuple.Proto = flow.Proto(next)
			return d.transport(body, length, depth, false, p)
		}
	}
	return malformed
}

// transport reads what stands behind the IP headers. length is its length on the
// wire; partial says that it is but a first fragment.
func (d *decoder) transport(b []byte, length, depth int, partial bool, p *flow.Packet) outcome {
	switch p.Tuple.Proto {
	case ipInIP, ipv6InIP, ipGRE:
		p.Payload = b
		if !partial {
			return d.inside(b, length, depth, p)
		}
		return decoded
	case ipHopByHop, ipRouting, ipDestOptions, ipMobility: // of a first fragment, or of a whole packet put together
		if len(b) < 8 || len(b) < (int(b[1])+1)*8 {
			return malformed
		}
		n := (int(b[1]) + 1) * 8
		p.Tuple.Proto = flow.Proto(b[0])
		return d.transport(b[n:], length-n, depth, partial, p)
	case ipAuth: // authenticated, not encrypted (RFC 4302): what follows is there to read
		if len(b) >= 12 {
			if n := (int(b[1]) + 2) * 4; n >= 12 && len(b) >= n {
				p.Tuple.Proto = flow.Proto(b[0])
				if p.Tuple.Proto == ipAuth {
					return malformed
				}
				return d.transport(b[n:], length-n, depth, partial, p)
			}
		}
		p.Payload = b
		return decoded
	case flow.TCP:
		if len(b) < 20 {
			return d.short(b, p)
		}
		header := int(b[12]>>4) * 4
		if header < 20 {
			return malformed
		}
		p.Seq = binary.BigEndian.Uint32(b[4:])
		p.Flags = b[13] & 0x1f
		p.Payload = b[min(header, len(b)):]
		if !partial {
			p.Missing = max(length-max(len(b), header), 0)
		}
	case flow.UDP:
		if len(b) < 8 {
			return d.short(b, p)
		}
		n := int(binary.BigEndian.Uint16(b[4:]))
		if n < 8 || n > length && !partial { // offload, or nonsense
			n = length
		}
		p.Payload, p.Missing = b[8:min(n, len(b))], max(n-len(b), 0)
	default:
		p.Payload = b
		return decoded
	}
	p.Tuple.SrcPort, p.Tuple.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	if p.Tuple.Proto == flow.UDP && !partial {
		return d.inside(p.Payload, len(p.Payload)+p.Missing, depth, p)
	}
	return decoded
}

// short takes a transport header that was cut behind its ports: the packet still
// counts for its flow.
func (d *decoder) short(b []byte, p *flow.Packet) outcome {
	if len(b) < 4 {
		return malformed
	}
	p.Tuple.SrcPort, p.Tuple.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	return decoded
}
