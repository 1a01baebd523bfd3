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
)

// IP protocol numbers (IANA) that are not the end of the chain.
const (
	ipHopByHop    = 0
	ipInIP        = 4
	ipv6InIP      = 41
	ipRouting     = 43
	ipFragment    = 44
	ipAuth        = 51
	ipDestOptions = 60
	ipMobility    = 135
)

// Bounds against packets made to keep us busy.
const (
	maxTags    = 4 // VLAN tags and MPLS labels
	maxTunnels = 4 // IP in IP
	maxHeaders = 8 // IPv6 extension headers
)

type outcome uint8

const (
	decoded outcome = iota
	laterFragment
	notIP
	malformed
	unknownLink
)

// decoder turns frames into packets. It remembers first fragments, because only
// they carry ports.
type decoder struct {
	fragments [64]fragment // ring
	at        int
}

type fragment struct {
	src, dst [16]byte
	id       uint32
	proto    flow.Proto
	ports    [2]uint16
	used     bool
}

// decode fills p from one frame. wire is the frame's length before it was cut
// to the snap length.
func (d *decoder) decode(link linkType, b []byte, wire int, p *flow.Packet) outcome {
	var off int
	var next uint16 // EtherType
	switch link {
	case linkEthernet:
		if len(b) < 14 {
			return malformed
		}
		copy(p.DstMAC[:], b)
		copy(p.MAC[:], b[6:])
		off, next = 14, binary.BigEndian.Uint16(b[12:])
	case linkSLL: // packet type, hardware type, address length, address in 8 octets, protocol
		if len(b) < 16 {
			return malformed
		}
		if binary.BigEndian.Uint16(b[4:]) == 6 {
			copy(p.MAC[:], b[6:12])
		}
		off, next = 16, binary.BigEndian.Uint16(b[14:])
	case linkSLL2: // protocol, reserved, interface, hardware type, packet type, address length, address in 8 octets
		if len(b) < 20 {
			return malformed
		}
		if b[11] == 6 {
			copy(p.MAC[:], b[12:18])
		}
		off, next = 20, binary.BigEndian.Uint16(b)
	case linkNull, linkLoop: // the family's number differs between systems; the version nibble does not
		if len(b) < 4 {
			return malformed
		}
		off, next = 4, versionOf(b[4:])
	case linkPPP, linkPPPHDLC:
		return d.ppp(b, 0, wire, p)
	case linkPPPoE:
		return d.pppoe(b, 0, wire, p)
	case linkRaw, linkRawBSD, linkRawOBSD, linkIPv4, linkIPv6:
		next = versionOf(b)
	default:
		return unknownLink
	}
	return d.ether(next, b, off, wire, p)
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
func (d *decoder) ether(next uint16, b []byte, off, wire int, p *flow.Packet) outcome {
	for range maxTags {
		switch next {
		case etherIPv4, etherIPv6:
			return d.ip(b[off:], wire-off, maxTunnels, p)
		case etherVLAN, etherQinQ, etherQinQ1:
			if len(b) < off+4 {
				return malformed
			}
			next = binary.BigEndian.Uint16(b[off+2:])
			off += 4
		case etherMPLS:
			if len(b) < off+4 {
				return malformed
			}
			bottom := b[off+2]&1 != 0
			off += 4
			if bottom {
				if next = versionOf(b[off:]); next == 0 {
					return notIP
				}
			}
		case etherPPPoE:
			return d.pppoe(b, off, wire, p)
		default:
			return notIP
		}
	}
	return notIP
}

// pppoe reads a session header (RFC 2516 §4): version and type, code, session, length.
func (d *decoder) pppoe(b []byte, off, wire int, p *flow.Packet) outcome {
	if len(b) < off+6 {
		return malformed
	}
	if b[off] != 0x11 || b[off+1] != 0 {
		return notIP
	}
	return d.ppp(b, off+6, wire, p)
}

// ppp reads an optional address and control field and the protocol number,
// which is one octet when compressed (RFC 1661 §2, RFC 1662 §3.1).
func (d *decoder) ppp(b []byte, off, wire int, p *flow.Packet) outcome {
	if len(b) >= off+2 && b[off] == 0xff && b[off+1] == 0x03 {
		off += 2
	}
	if len(b) < off+2 {
		return malformed
	}
	proto := uint16(b[off])
	off++
	if proto&1 == 0 {
		proto = proto<<8 | uint16(b[off])
		off++
	}
	switch proto {
	case 0x0021, 0x0057:
		return d.ip(b[off:], wire-off, maxTunnels, p)
	}
	return notIP
}

// ip reads an IP header and what follows. wire is the length of b before it was cut.
func (d *decoder) ip(b []byte, wire, tunnels int, p *flow.Packet) outcome {
	if tunnels == 0 || len(b) == 0 {
		return malformed
	}
	switch b[0] >> 4 {
	case 4:
		return d.ipv4(b, wire, tunnels, p)
	case 6:
		return d.ipv6(b, wire, tunnels, p)
	}
	return malformed
}

func (d *decoder) ipv4(b []byte, wire, tunnels int, p *flow.Packet) outcome {
	if len(b) < 20 {
		return malformed
	}
	header := int(b[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	if total == 0 { // the card was to fill it in (segmentation offload)
		total = wire
	}
	if header < 20 || total < header || len(b) < header {
		return malformed
	}
	p.Length = total
	p.Tuple = flow.Tuple{Proto: flow.Proto(b[9])}
	p.Tuple.Src = netip.AddrFrom4([4]byte(b[12:16])).As16()
	p.Tuple.Dst = netip.AddrFrom4([4]byte(b[16:20])).As16()
	body := b[header:min(total, len(b))] // what is behind total is Ethernet's padding

	frag := binary.BigEndian.Uint16(b[6:])
	id := uint32(binary.BigEndian.Uint16(b[4:]))
	if frag&0x1fff != 0 {
		return d.later(id, p)
	}
	return d.transport(body, total-header, tunnels, frag&0x2000 != 0, id, p)
}

func (d *decoder) ipv6(b []byte, wire, tunnels int, p *flow.Packet) outcome {
	if len(b) < 40 {
		return malformed
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	if length == 0 { // jumbogram or offload
		length = max(wire-40, 0)
	}
	p.Length = 40 + length
	p.Tuple = flow.Tuple{Src: [16]byte(b[8:24]), Dst: [16]byte(b[24:40])}
	next := b[6]
	body := b[40:min(40+length, len(b))]
	var id uint32
	first := false
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
			offset := binary.BigEndian.Uint16(body[2:])
			id = binary.BigEndian.Uint32(body[4:])
			first = offset&1 != 0
			p.Tuple.Proto = flow.Proto(body[0])
			if offset>>3 != 0 {
				return d.later(id, p)
			}
			next, body, length = body[0], body[8:], length-8
		default:
			p.Tuple.Proto = flow.Proto(next)
			return d.transport(body, length, tunnels, first, id, p)
		}
	}
	return malformed
}

// transport reads what stands behind the IP headers. length is its length on the wire.
func (d *decoder) transport(b []byte, length, tunnels int, moreFragments bool, id uint32, p *flow.Packet) outcome {
	switch p.Tuple.Proto {
	case ipInIP, ipv6InIP:
		if !moreFragments && len(b) > 0 {
			outer := *p
			if out := d.ip(b, length, tunnels-1, p); out != malformed {
				return out
			}
			*p = outer // not what it says: a flow of its own protocol
		}
		p.Payload = b
		return decoded
	case ipAuth: // authenticated, not encrypted (RFC 4302): what follows is there to read
		if len(b) >= 12 {
			if n := (int(b[1]) + 2) * 4; n >= 12 && len(b) >= n {
				p.Tuple.Proto = flow.Proto(b[0])
				if p.Tuple.Proto == ipAuth {
					return malformed
				}
				return d.transport(b[n:], length-n, tunnels, moreFragments, id, p)
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
	case flow.UDP:
		if len(b) < 8 {
			return d.short(b, p)
		}
		n := int(binary.BigEndian.Uint16(b[4:]))
		p.Payload = b[8:]
		if n >= 8 && n < len(b) {
			p.Payload = b[8:n]
		}
	default:
		p.Payload = b
		return decoded
	}
	p.Tuple.SrcPort, p.Tuple.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	if moreFragments {
		d.fragments[d.at] = fragment{p.Tuple.Src, p.Tuple.Dst, id, p.Tuple.Proto,
			[2]uint16{p.Tuple.SrcPort, p.Tuple.DstPort}, true}
		d.at = (d.at + 1) % len(d.fragments)
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

// later gives a later fragment the ports of the first one. When the first one
// was not seen the fragment is a flow without ports.
func (d *decoder) later(id uint32, p *flow.Packet) outcome {
	for i := range d.fragments {
		f := &d.fragments[i]
		if f.used && f.id == id && f.proto == p.Tuple.Proto && f.src == p.Tuple.Src && f.dst == p.Tuple.Dst {
			p.Tuple.SrcPort, p.Tuple.DstPort = f.ports[0], f.ports[1]
			break
		}
	}
	return laterFragment
}
