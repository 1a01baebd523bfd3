package capture

import (
	"encoding/binary"

	"github.com/netcurtain/netcurtain/flow"
)

// Ports on which packets travel within UDP.
const (
	portL2TP   = 1701 // RFC 2661
	portGTP    = 2152 // 3GPP TS 29.281
	portTeredo = 3544 // RFC 4380
	portLISP   = 4341 // RFC 9300
	portVXLAN  = 4789 // RFC 7348
	portAYIYA  = 5072 // draft-massar-v6ops-ayiya
	portCAPWAP = 5247 // RFC 5415, the data channel
	portGeneve = 6081 // RFC 8926
	portVXLAN0 = 8472 // before it had its number
	portTZSP   = 37008
)

// inside looks for a packet within the packet p, whose payload is b; wire is its
// length before it was cut. Whoever captures on the far side of a tunnel wants to
// know who speaks in it. What is not what its port or protocol says stays a flow
// of its own.
func (d *decoder) inside(b []byte, wire, depth int, p *flow.Packet) outcome {
	outer := *p
	switch out := d.opened(b, wire, depth-1, p); out {
	case decoded, laterFragment:
		return out
	}
	*p = outer
	return decoded
}

func (d *decoder) opened(b []byte, wire, depth int, p *flow.Packet) outcome {
	if depth <= 0 {
		return notIP
	}
	switch p.Tuple.Proto {
	case ipInIP, ipv6InIP:
		return d.ip(b, wire, depth, p)
	case ipGRE:
		return d.gre(b, wire, depth, p)
	}
	n, link := 0, linkEthernet
	switch port := p.Tuple.DstPort; {
	case port == portVXLAN, port == portVXLAN0:
		n = vxlan(b)
	case port == portGeneve:
		if len(b) < 8 || b[0]>>6 != 0 || len(b) < 8+int(b[0]&0x3f)*4 {
			return notIP
		}
		n = 8 + int(b[0]&0x3f)*4
		return d.ether(binary.BigEndian.Uint16(b[2:]), b[n:], wire-n, depth, p)
	case port == portCAPWAP, p.Tuple.SrcPort == portCAPWAP:
		n, link = capwap(b)
	case port == portTZSP:
		n, link = tzsp(b)
	case port == portGTP:
		n, link = gtp(b), linkRaw
	case port == portLISP:
		n, link = 8, linkRaw
	case port == portTeredo, p.Tuple.SrcPort == portTeredo:
		n, link = teredo(b), linkIPv6
	case port == portAYIYA, p.Tuple.SrcPort == portAYIYA:
		n, link = ayiya(b), linkIPv6
	case port == portL2TP:
		n, link = l2tp(b), linkPPP
	default:
		return notIP
	}
	if n < 0 || n >= len(b) {
		return notIP
	}
	return d.frame(link, b[n:], wire-n, depth, p)
}

// gre reads GRE (RFC 2784, 2890), PPTP's (RFC 2637) and the headers that switches
// which mirror traffic put behind it (ERSPAN).
func (d *decoder) gre(b []byte, wire, depth int, p *flow.Packet) outcome {
	const checksum, routing, key, sequence, acknowledgement = 0x8000, 0x4000, 0x2000, 0x1000, 0x0080
	if len(b) < 4 {
		return notIP
	}
	flags, next := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	n := 4
	for _, field := range [...]struct {
		bits    uint16
		version uint16
	}{{checksum | routing, 0}, {key, 0}, {sequence, 0}, {acknowledgement, 1}} {
		if flags&field.bits != 0 && flags&7 >= field.version {
			n += 4
		}
	}
	if flags&7 > 1 || flags&routing != 0 {
		return notIP
	}
	switch {
	case next == 0x88be: // ERSPAN: its first form has neither sequence nor header
		if next = etherBridged; flags&sequence != 0 {
			n += 8
		}
	case next == 0x22eb: // its third
		if next = etherBridged; len(b) > n+11 && b[n+11]&1 != 0 {
			n += 8
		}
		n += 12
	}
	if n >= len(b) {
		return notIP
	}
	return d.ether(next, b[n:], wire-n, depth, p)
}

// Each of these is where the packet begins within b, or -1.

func vxlan(b []byte) int {
	if len(b) < 8 || b[0]&0x08 == 0 || b[7] != 0 {
		return -1
	}
	return 8
}

func gtp(b []byte) int {
	const user = 0xff
	if len(b) < 8 || b[0]>>4 != 3 || b[1] != user { // version 1, not GTP'
		return -1
	}
	if b[0]&7 == 0 {
		return 8
	}
	n := 12 // sequence, number of the unit, kind of the next header
	for next := at(b, 11); b[0]&4 != 0 && next != 0; {
		size := int(at(b, n)) * 4
		if size == 0 || n+size > len(b) {
			return -1
		}
		next = b[n+size-1]
		n += size
	}
	return n
}

func at(b []byte, i int) byte {
	if i < len(b) {
		return b[i]
	}
	return 0
}

// teredo skips authentication and origin (RFC 4380 §5.1.1); what remains must be
// one IPv6 packet, for the port is anybody's.
func teredo(b []byte) int {
	n := 0
	if len(b) >= 4 && b[0] == 0 && b[1] == 1 {
		n = 13 + int(b[2]) + int(b[3])
	}
	if len(b) >= n+8 && b[n] == 0 && b[n+1] == 0 {
		n += 8
	}
	if len(b) < n+40 || b[n]>>4 != 6 || int(binary.BigEndian.Uint16(b[n+4:])) != len(b)-n-40 {
		return -1
	}
	return n
}

// ayiya skips who sends and how it is signed; what it forwards must be one IPv6 packet.
func ayiya(b []byte) int {
	const forward = 1
	if len(b) < 8 || b[2]&0x0f != forward || b[3] != ipv6InIP || b[0]>>4 > 5 {
		return -1
	}
	n := 8 + 1<<(b[0]>>4) + int(b[1]>>4)*4
	if len(b) < n+40 || b[n]>>4 != 6 {
		return -1
	}
	return n
}

// l2tp reads the head of a data message; control messages hold no packets.
func l2tp(b []byte) int {
	if len(b) < 6 || b[0]&0x80 != 0 || b[1]&0x0f != 2 {
		return -1
	}
	n := 6 // flags, tunnel, session
	if b[0]&0x40 != 0 {
		n += 2 // length
	}
	if b[0]&0x08 != 0 {
		n += 4 // sequence numbers
	}
	if b[0]&0x02 != 0 {
		n += 2 + int(at(b, n))<<8 + int(at(b, n+1))
	}
	return n
}

// capwap reads the header between an access point and its controller (RFC 5415
// §4.3): what follows is a frame of the air, or of Ethernet. Fragments but the
// first, and what is in DTLS, hold none.
func capwap(b []byte) (int, linkType) {
	if len(b) < 8 || b[0] != 0 { // version 0, not DTLS
		return -1, 0
	}
	n := int(b[1]>>3) * 4
	native, fragment := b[2]&0x01 != 0, b[3]&0x80 != 0
	if n < 8 || b[3]&0x08 != 0 || fragment && binary.BigEndian.Uint16(b[6:])>>3 != 0 { // a keep-alive
		return -1, 0
	}
	if native {
		return n, linkWiFi
	}
	return n, linkEthernet
}

// tzsp reads what sniffers of routers send (TaZmen): kind, protocol, tags up to an
// end.
func tzsp(b []byte) (int, linkType) {
	const padding, end = 0, 1
	if len(b) < 5 || b[0] != 1 || b[1] > 1 {
		return -1, 0
	}
	link := linkEthernet
	switch binary.BigEndian.Uint16(b[2:]) {
	case 1:
	case 18:
		link = linkWiFi
	default:
		return -1, 0
	}
	for n := 4; n < len(b); {
		switch b[n] {
		case end:
			return n + 1, link
		case padding:
			n++
		default:
			n += 2 + int(at(b, n+1))
		}
	}
	return -1, 0
}
