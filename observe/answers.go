package observe

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// Bounds on what is read of one DNS message.
const (
	maxAnswers  = 64
	maxPointers = 16
	maxNameText = 253
)

// readAnswers reads a DNS response (RFC 1035 §4) and calls learn with each
// address in its answers. The name is the one that was asked for, even behind
// a chain of aliases: it is the one the device knows. name is reused between
// messages; the bytes are good until learn returns.
//
// It reads only what it needs, so it accepts some messages that a full parser
// would refuse; it never reads beyond b.
func readAnswers(b []byte, name []byte, learn func(name []byte, addr netip.Addr, ttl time.Duration)) {
	if len(b) < 12 {
		return
	}
	flags := binary.BigEndian.Uint16(b[2:])
	questions, answers := binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
	const response, opcode, rcode = 0x8000, 0x7800, 0x000f
	if flags&response == 0 || flags&(opcode|rcode) != 0 || questions != 1 {
		return
	}
	name, off, ok := readName(b, 12, name[:0])
	if !ok || len(name) == 0 || off+4 > len(b) {
		return
	}
	off += 4
	for range min(answers, maxAnswers) {
		if off, ok = skipName(b, off); !ok || off+10 > len(b) {
			return
		}
		typ, class := binary.BigEndian.Uint16(b[off:]), binary.BigEndian.Uint16(b[off+2:])
		ttl := binary.BigEndian.Uint32(b[off+4:])
		data := off + 10
		off = data + int(binary.BigEndian.Uint16(b[off+8:]))
		if off > len(b) {
			return
		}
		var addr netip.Addr
		switch rdata := b[data:off]; {
		case class != 1: // IN
			continue
		case typ == 1 && len(rdata) == 4:
			addr = netip.AddrFrom4([4]byte(rdata))
		case typ == 28 && len(rdata) == 16:
			addr = netip.AddrFrom16([16]byte(rdata))
		default:
			continue
		}
		learn(name, addr, time.Duration(min(ttl, 1<<31-1))*time.Second)
	}
}

// readName appends the name at off, lower case and without trailing dot, and
// returns the offset behind it. Octets that do not belong in a host's name make
// it fail: such a name is not worth showing.
func readName(b []byte, off int, name []byte) (_ []byte, end int, ok bool) {
	end = -1
	for jumps := 0; off < len(b); {
		n := int(b[off])
		switch {
		case n == 0:
			if end < 0 {
				end = off + 1
			}
			return name, end, true
		case n&0xc0 == 0xc0:
			if off+2 > len(b) || jumps == maxPointers {
				return nil, 0, false
			}
			if end < 0 {
				end = off + 2
			}
			jumps++
			off = int(binary.BigEndian.Uint16(b[off:]) & 0x3fff)
		case n&0xc0 != 0 || off+1+n > len(b) || len(name)+1+n > maxNameText:
			return nil, 0, false
		default:
			if len(name) > 0 {
				name = append(name, '.')
			}
			for _, c := range b[off+1 : off+1+n] {
				switch {
				case c >= 'A' && c <= 'Z':
					c += 'a' - 'A'
				case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
				default:
					return nil, 0, false
				}
				name = append(name, c)
			}
			off += 1 + n
		}
	}
	return nil, 0, false
}

// skipName returns the offset behind the name at off.
func skipName(b []byte, off int) (int, bool) {
	for off < len(b) {
		switch n := int(b[off]); {
		case n == 0:
			return off + 1, true
		case n&0xc0 == 0xc0:
			return off + 2, off+2 <= len(b)
		case n&0xc0 != 0:
			return 0, false
		default:
			off += 1 + n
		}
	}
	return 0, false
}
