package nflog

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/netcurtain/netcurtain/flow"
)

// What a packet may be refused for. They are values, so that refusing costs
// no memory: whoever is on the LAN chooses how often it happens.
var (
	errShort    = errors.New("packet ends within its headers")
	errVersion  = errors.New("neither IPv4 nor IPv6")
	errHeader   = errors.New("header length is not possible")
	errFragment = errors.New("not the first fragment: it has no ports")
	errChain    = errors.New("more extension headers than any device sends")
)

const maxExtensions = 8

// decode reads the IP packet b into p: addresses, ports, TCP sequence and flags,
// length and payload, which stays a part of b. It leaves the other fields alone.
func decode(b []byte, p *flow.Packet) error {
	if len(b) == 0 {
		return errShort
	}
	switch b[0] >> 4 {
	case 4:
		return decodeIPv4(b, p)
	case 6:
		return decodeIPv6(b, p)
	}
	return errVersion
}

func decodeIPv4(b []byte, p *flow.Packet) error { // RFC 791 §3.1
	if len(b) < 20 {
		return errShort
	}
	header := int(b[0]&0x0f) * 4
	total := int(binary.BigEndian.Uint16(b[2:]))
	if total == 0 { // segmentation offload leaves it to be filled in later
		total = len(b)
	}
	switch {
	case header < 20 || total < header:
		return errHeader
	case len(b) < header:
		return errShort
	case binary.BigEndian.Uint16(b[6:])&0x1fff != 0:
		return errFragment
	}
	p.Length = total
	p.Tuple.Src = netip.AddrFrom4([4]byte(b[12:16])).As16()
	p.Tuple.Dst = netip.AddrFrom4([4]byte(b[16:20])).As16()
	return decodeTransport(b[9], b[header:min(total, len(b))], len(b), p)
}

func decodeIPv6(b []byte, p *flow.Packet) error { // RFC 8200 §3
	if len(b) < 40 {
		return errShort
	}
	p.Length = 40 + int(binary.BigEndian.Uint16(b[4:]))
	if p.Length == 40 { // a jumbogram, or segmentation offload
		p.Length = len(b)
	}
	p.Tuple.Src, p.Tuple.Dst = [16]byte(b[8:24]), [16]byte(b[24:40])
	next, rest := b[6], b[40:min(p.Length, len(b))]
	for range maxExtensions {
		size := 0
		switch next {
		default:
			return decodeTransport(next, rest, len(b), p)
		case 0, 43, 60, 135, 139, 140: // hop-by-hop, routing, destination, mobility, HIP, shim6
			if len(rest) < 8 {
				return errShort
			}
			size = 8 + int(rest[1])*8
		case 51: // authentication, RFC 4302 §2.2
			if len(rest) < 8 {
				return errShort
			}
			size = 8 + int(rest[1])*4
		case 44: // fragment
			if len(rest) < 8 {
				return errShort
			}
			if binary.BigEndian.Uint16(rest[2:])&0xfff8 != 0 {
				return errFragment
			}
			size = 8
		}
		if len(rest) < size {
			return errShort
		}
		next, rest = rest[0], rest[size:]
	}
	return errChain
}

// decodeTransport reads what stands behind the IP headers; whole is how much was
// captured with them.
func decodeTransport(proto uint8, b []byte, whole int, p *flow.Packet) error {
	p.Tuple.Proto = flow.Proto(proto)
	switch p.Tuple.Proto {
	case flow.TCP: // RFC 9293 §3.1
		if len(b) < 20 {
			return errShort
		}
		header := int(b[12]>>4) * 4
		if header < 20 {
			return errHeader
		}
		if len(b) < header {
			return errShort
		}
		p.Seq = binary.BigEndian.Uint32(b[4:])
		p.Flags = b[13] & (flow.FIN | flow.SYN | flow.RST | flow.PSH | flow.ACK)
		p.Payload = b[header:]
		p.Missing = max(p.Length-whole, 0)
	case flow.UDP: // RFC 768
		if len(b) < 8 {
			return errShort
		}
		n := int(binary.BigEndian.Uint16(b[4:]))
		if n == 0 || n > len(b) { // offload, or cut short by the snap length
			p.Missing = max(n-len(b), 0)
			n = len(b)
		}
		if n < 8 {
			return errHeader
		}
		p.Payload = b[8:n]
	default:
		p.Payload = b
		return nil
	}
	p.Tuple.SrcPort = binary.BigEndian.Uint16(b)
	p.Tuple.DstPort = binary.BigEndian.Uint16(b[2:])
	return nil
}
