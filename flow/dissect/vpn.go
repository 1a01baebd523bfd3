package dissect

import (
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
	if v.port(1194) && op >= 4 && op <= 9 && op != 7 && op != 8 && sealedBytes(b[1:min(len(b), 1+16)]) {
		before := v.c.vpn[v.dir]
		if v.c.vpn[v.dir] = b[0]; before != b[0] && v.c.proto == flow.UDP {
			r.cannotTell("by its port it is OpenVPN; one packet alone does not show it") // for such a byte comes by chance
			return yes
		}
		r.encrypted("OpenVPN seen; its handshake was not")
		return final
	}
	if b[0]&7 != 0 {
		return no
	}
	if op != 7 && op != 8 && op != 10 {
		return no
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
	switch {
	case plain, wrapped && (len(b) <= 128 || op == 10), v.port(1194) && (len(b) <= 128 || op == 10):
	default:
		return no
	}
	r.encrypted("OpenVPN handshake seen")
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
		} else if len(b) >= 136 && b[4] == 0 && judge(b[8:]) == looksRandom { // packets are numbered from 1 on (RFC 4303 §2.2)
			r.encrypted("IPsec ESP in UDP")
			return yes
		}
	}
	if len(b) < 28 || b[17]>>4 != 1 && b[17]>>4 != 2 || binary.BigEndian.Uint64(b) == 0 {
		return no
	}
	if n := binary.BigEndian.Uint32(b[24:]); n < 28 || n > 1<<16 || b[19]&0xc0 != 0 || b[18] > 44 && b[18] < 240 { // length, flags, kind of exchange
		return no
	}
	r.encrypted("IPsec key exchange seen")
	return final
}
