package dissect

import (
	"bytes"
	"encoding/binary"

	"github.com/netcurtain/netcurtain/flow"
)

// readWireGuard knows WireGuard's four messages by type, reserved zeros and size.
// Cloudflare's WARP writes a client's number where the zeros are; there the second
// MAC of a handshake must be empty, as it is unless the server is under load.
func readWireGuard(v *view, r *Result) state {
	b, size := v.up, v.size()
	if len(b) < 32 {
		return no
	}
	if b[1]|b[2]|b[3] != 0 {
		zero := string(make([]byte, 16))
		opens := b[0] == 1 && len(b) == 148 && string(b[132:]) == zero || b[0] == 2 && len(b) == 92 && string(b[76:]) == zero
		if !opens || looksReadable(b[12:76]) || distinct(b[12:76]) < 48 { // keys: of 64 random bytes 57 differ
			return no
		}
		r.encrypted("WireGuard handshake seen, of Cloudflare's WARP by its form")
		return final
	}
	switch {
	case b[0] == 1 && size == 148, b[0] == 2 && size == 92, b[0] == 3 && size == 64:
		r.encrypted("WireGuard handshake seen")
	case b[0] == 4 && size%16 == 0 && (size >= 144 || v.port(51820)) && b[13] == 0 && b[14] == 0 && b[15] == 0 && sealedBytes(b[16:]):
		r.encrypted("WireGuard data seen")
	default:
		return no
	}
	return final
}

// sealedBytes reports whether b can be ciphertext: below 128 bytes by how few repeat.
func sealedBytes(b []byte) bool {
	if len(b) >= 128 {
		return judge(b) == looksRandom
	}
	return len(b) >= 16 && !looksReadable(b) && distinct(b) >= min(len(b)*3/4, 64)
}

// numbered is what sealed packets show of themselves: whose they are, and a number
// that rises with each. One packet alone may be anything that looks random.
type numbered struct{ of, number uint32 }

// goesOn reports whether the packet of the given number follows the last one that this
// side sent.
func (v *view) goesOn(of, number uint32) bool {
	last := v.c.counted[v.dir]
	v.c.counted[v.dir] = numbered{of, number}
	step := number - last.number
	return last.of == of && last.number != 0 && step > 0 && step < 1<<10
}

// distinct is how many different bytes b holds.
func distinct(b []byte) int {
	var seen [256]bool
	n := 0
	for _, c := range b {
		if !seen[c] {
			seen[c] = true
			n++
		}
	}
	return n
}

// readOpenVPN knows OpenVPN by the packets that open its control channel, over
// UDP or, with a length in front, over TCP.
func readOpenVPN(v *view, r *Result) state {
	b := v.up
	if v.c.proto == 6 {
		if len(b) < 16 || int(binary.BigEndian.Uint16(b)) > len(b)-2 {
			return no
		}
		b = b[2 : 2+int(binary.BigEndian.Uint16(b))]
	}
	if len(b) < 14 {
		return no
	}
	op := b[0] >> 3
	opens := b[0]&7 == 0 && (op == 7 || op == 8 || op == 10)
	if !opens {
		return openVPNGoesOn(v, r, b)
	}
	first := func(at int) bool { // the replay counter of a first packet; version 2.6 says by it that it can do without state
		if len(b) < at+4 {
			return false
		}
		n := binary.BigEndian.Uint32(b[at:])
		return n == 1 || n == 0x0f000001
	}
	plain := len(b) == 14 && binary.BigEndian.Uint32(b[10:]) == 0 && b[9] == 0
	wrapped := first(9) || first(25) || first(29) || first(41) || first(73) // tls-crypt; tls-auth with MD5, SHA1, SHA256, SHA512
	if !plain && !(wrapped && (len(b) <= 128 || op == 10)) {
		return openVPNGoesOn(v, r, b)
	}
	r.encrypted("OpenVPN handshake seen")
	return final
}

// openVPNGoesOn knows on its port what is no opening: two packets of one side that begin
// alike, of the control channel with the same session.
func openVPNGoesOn(v *view, r *Result, b []byte) state {
	const data1, data2, session = 6, 9, 8
	op := b[0] >> 3
	if !v.port(1194) || op < 4 || op > 10 || (op == 7 || op == 8 || op == 10) && b[0]&7 != 0 { // a reset is of key 0
		return no
	}
	of := numbered{of: uint32(b[0])}
	if op == data1 || op == data2 {
		if !sealedBytes(b[1:]) {
			return no
		}
		of.number = binary.BigEndian.Uint32(b[len(b)-4:]) // in which no two are alike
	} else {
		if id := b[1 : 1+session]; distinct(id) < 6 || looksReadable(id) || bytes.Count(id, []byte{0}) > 1 {
			return no
		}
		of = numbered{binary.BigEndian.Uint32(b[1:]), uint32(b[0])}
	}
	last := v.c.counted[v.dir]
	if v.c.proto == flow.TCP { // where one stands behind the other
		last = numbered{}
		if rest := v.up[2+len(b):]; len(rest) >= 7 && int(binary.BigEndian.Uint16(rest)) >= 14 {
			last = numbered{uint32(rest[2]), 0}
			if op != data1 && op != data2 {
				last = numbered{binary.BigEndian.Uint32(rest[3:]), 0}
			}
		}
	}
	if v.c.counted[v.dir] = of; last.of != of.of || (op == data1 || op == data2) && last.number == of.number {
		r.cannotTell("by its port it is OpenVPN; one packet alone does not show it") // for such a byte comes by chance
		return yes
	}
	r.encrypted("OpenVPN seen; its handshake was not")
	return final
}

// readIPsec knows IKE (RFC 7296 §3.1) and ESP in UDP (RFC 3948).
func readIPsec(v *view, r *Result) state {
	b := v.up
	if !v.port(500) && !v.port(4500) {
		return no
	}
	if v.port(4500) {
		if len(b) == 1 && b[0] == 0xff {
			return maybe // a keep-alive
		}
		if len(b) >= 4 && binary.BigEndian.Uint32(b) == 0 {
			b = b[4:]
		} else if len(b) >= 8+24 && b[4] == 0 && binary.BigEndian.Uint32(b[4:]) > 0 && binary.BigEndian.Uint32(b) > 255 { // packets are numbered from 1 on, lower indices kept free (RFC 4303 §2)
			return espInUDP(v, r, b)
		}
	}
	if len(b) < 28 || b[17]>>4 != 1 && b[17]>>4 != 2 || binary.BigEndian.Uint64(b) == 0 {
		return no
	}
	if n, size := int64(binary.BigEndian.Uint32(b[24:])), int64(len(b)+v.missing); n != size && (n < size || n > 1<<16 || size < 1200) || b[19]&0xc0 != 0 || b[18] > 44 && b[18] < 240 { // length, unless this is the first fragment; flags, kind of exchange
		return no
	}
	r.encrypted("IPsec key exchange seen")
	return finalIf(!v.port(4500)) // what follows there may be signed only
}

// espInUDP judges ESP by its index and numbers, which rise from packet to packet, and
// by what it carries.
func espInUDP(v *view, r *Result, b []byte) state {
	spi, number := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	goesOn := v.goesOn(spi, number)
	switch {
	case espInClear(b):
		r.readable(whyNullESP)
		return final
	case !sealedBytes(b[8:]):
		return no
	case goesOn, v.c.best.App == "ipsec" && v.c.best.Protection == flow.Encrypted:
		r.encrypted("IPsec ESP in UDP")
	default:
		r.cannotTell("by its port and form it is IPsec ESP; one packet alone does not show it")
	}
	return yes
}

const whyNullESP = "IPsec ESP without encryption: it signs, and what it carries can be read"

// readESP judges IPsec's ESP (RFC 4303), which by its cipher NULL (RFC 2410) only signs.
func readESP(b []byte) (r Result) {
	r.App = "esp"
	r.encrypted("IPsec ESP")
	if espInClear(b) {
		r.readable(whyNullESP)
	}
	return r
}

// espInClear looks for what NULL encryption leaves as it was, as RFC 5879 does: a packet
// within the tunnel, or a header behind which only padding and a checksum follow.
func espInClear(b []byte) bool {
	const head = 8 // index and number; NULL has no initialization vector
	if len(b) < head+20 {
		return false
	}
	inner := b[head:]
	switch inner[0] >> 4 {
	case 4:
		size, n := int(inner[0]&15)*4, int(binary.BigEndian.Uint16(inner[2:]))
		if size >= 20 && size <= len(inner) && onesSum(inner[:size]) == 0xffff && n+48 >= len(inner) && n <= 2000 {
			return true
		}
	case 6:
		if n := 40 + int(binary.BigEndian.Uint16(inner[4:])); len(inner) >= 40 && n+48 >= len(inner) && n <= 2000 && ipv6Address(inner[8]) && ipv6Address(inner[24]) {
			return true
		}
	}
	for _, icv := range [...]int{12, 16, 0, 24, 32} { // SHA-1 and MD5, SHA-256 and GMAC, none, SHA-384, SHA-512
		if end := len(inner) - icv; end >= 10 && espTrailer(inner[:end]) {
			return true
		}
	}
	return judge(inner) == looksText
}

// ipv6Address reports whether an address in use may begin so: global, of the house, of
// the link, or a group.
func ipv6Address(first byte) bool { return first>>5 == 1 || first >= 0xfc }

// espTrailer reports whether b ends as RFC 4303 §2.4 says, in padding that counts from 1,
// its size and the kind of what is before it, and holds such a thing.
func espTrailer(b []byte) bool {
	const icmp, tcp, udp, icmpv6 = 1, 6, 17, 58
	pad, kind := int(b[len(b)-2]), b[len(b)-1]
	end := len(b) - 2 - pad
	if end < 8 {
		return false
	}
	for i, c := range b[end : end+pad] {
		if int(c) != i+1 {
			return false
		}
	}
	switch body := b[:end]; kind {
	case udp:
		return int(binary.BigEndian.Uint16(body[4:])) == len(body)
	case tcp:
		return len(body) >= 20 && body[12]&0x0f == 0 && body[12]>>4 >= 5 && int(body[12]>>4)*4 <= len(body) && body[13]&0xc0 == 0 && body[13] != 0 && pad > 0
	case icmp:
		return onesSum(body) == 0xffff
	case icmpv6:
		return body[0] >= 128 && body[0] <= 137 && body[1] == 0 && pad > 0
	}
	return false
}

// onesSum is the internet's checksum (RFC 1071), before it is turned over.
func onesSum(b []byte) uint16 {
	sum := uint32(0)
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
