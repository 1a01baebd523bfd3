package capture

import (
	"encoding/binary"

	"github.com/netcurtain/netcurtain/flow"
)

// What may stand before a frame of the air: by its link type, and by the hardware
// type that Linux cooked captures name.
const (
	linkWiFi     linkType = 105 // IEEE 802.11 alone
	linkPrism    linkType = 119
	linkRadiotap linkType = 127
	linkAVS      linkType = 163
	linkPPI      linkType = 192

	arphrdPrism    = 802
	arphrdRadiotap = 803
)

// monitor reads what a card in monitor mode wrote before the frame.
func (d *decoder) monitor(link linkType, b []byte, wire, depth int, p *flow.Packet) outcome {
	if len(b) < 8 {
		return malformed
	}
	n, padded := 0, false
	switch link {
	case linkWiFi:
	case linkRadiotap, arphrdRadiotap:
		var good bool
		n = int(binary.LittleEndian.Uint16(b[2:]))
		if padded, good = radiotap(b[:min(n, len(b))]); !good {
			return malformed
		}
	case linkPPI:
		n = int(binary.LittleEndian.Uint16(b[2:]))
		if inner := linkType(binary.LittleEndian.Uint32(b[4:])); inner != linkWiFi {
			if n < 8 || n > len(b) || depth == 0 {
				return malformed
			}
			return d.frame(inner, b[n:], wire-n, depth-1, p)
		}
	default: // Prism's header, or AVS's, which has a mark of its own
		if n = int(binary.LittleEndian.Uint32(b[4:])); binary.BigEndian.Uint32(b)>>12 == 0x80211 {
			n = int(binary.BigEndian.Uint32(b[4:]))
		}
	}
	if n < 0 || n >= len(b) || link != linkWiFi && n < 8 {
		return malformed
	}
	return d.wifi(b[n:], wire-n, padded, depth, p)
}

// radiotap reads of a radiotap header whether the frame's header is padded to four
// octets, and whether its checksum was right.
func radiotap(b []byte) (padded, good bool) {
	const hasTime, hasFlags, more = 1 << 0, 1 << 1, 1 << 31
	const flagPadded, flagBad = 0x20, 0x40
	if len(b) < 8 || b[0] != 0 {
		return false, false
	}
	present := binary.LittleEndian.Uint32(b[4:])
	at := 8
	for word := present; word&more != 0; at += 4 {
		if at+4 > len(b) {
			return false, false
		}
		word = binary.LittleEndian.Uint32(b[at:])
	}
	if present&hasTime != 0 {
		at = (at+7)&^7 + 8
	}
	if present&hasFlags == 0 {
		return false, true
	}
	if at >= len(b) {
		return false, false
	}
	return b[at]&flagPadded != 0, b[at]&flagBad == 0
}

// wifi reads a data frame (IEEE 802.11 §9.3.2). Management and control frames hold
// no packets. Of several packets in one frame (A-MSDU) the first is read.
func (d *decoder) wifi(b []byte, wire int, padded bool, depth int, p *flow.Packet) outcome {
	const data, qos, empty = 0x08, 0x80, 0x40 // in the first octet: type, kinds of data
	const toDS, fromDS, protected, order = 0x01, 0x02, 0x40, 0x80
	const aggregated = 0x80
	if len(b) < 24 {
		return notIP
	}
	kind, flags := b[0], b[1]
	if kind&0x0f != data { // Cisco's controllers swap the two
		kind, flags = flags, kind
	}
	if kind&0x0f != data || kind&empty != 0 {
		return notIP
	}
	n, to, from := 24, b[4:10], b[10:16]
	switch flags & (toDS | fromDS) {
	case toDS:
		to = b[16:22]
	case fromDS:
		from = b[16:22]
	case toDS | fromDS:
		if len(b) < 30 {
			return malformed
		}
		n, to, from = 30, b[16:22], b[24:30]
	}
	several := false
	if kind&qos != 0 {
		several = at(b, n)&aggregated != 0
		if n += 2; flags&order != 0 {
			n += 4
		}
	}
	if padded {
		n = (n + 3) &^ 3
	}
	switch {
	case flags&protected != 0:
		return sealed
	case b[22]&0x0f != 0: // a later fragment
		return notIP
	case several:
		n += 14
	}
	if n >= len(b) {
		return malformed
	}
	copy(p.DstMAC[:], to)
	copy(p.MAC[:], from)
	return d.llc(b[n:], wire-n, depth, p)
}
