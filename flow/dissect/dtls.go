package dissect

import "encoding/binary"

// readDTLS knows DTLS records (RFC 6347 §4.1): type, version, and lengths that
// fill the datagram.
func readDTLS(v *view, r *Result) state {
	first, ok := dtlsRecords(v.up)
	if !ok {
		if isChannelData(v.up) { // TURN carries it with four bytes in front (RFC 8656 §12.4)
			if first, ok = dtlsRecords(v.up[4:]); !ok {
				return no
			}
		} else {
			return no
		}
	}
	r.encrypted("DTLS")
	t := &TLS{Version: dtlsVersion(first.version)}
	r.TLS = t
	if first.kind != recHandshake || first.epoch != 0 {
		return final
	}
	r.encrypted("DTLS handshake seen")
	if h, ok := dtlsHello(first.body); ok {
		h.TLS.Version = dtlsVersion(first.version)
		*t = h.TLS
		r.name(h.ServerName, "sni")
		return final
	}
	return yes
}

type dtlsRecord struct {
	kind    byte
	version uint16
	epoch   uint16
	body    []byte
}

// dtlsRecords checks that records fill the datagram and returns the first.
func dtlsRecords(b []byte) (first dtlsRecord, ok bool) {
	for n := 0; len(b) > 0; n++ {
		if len(b) < 13 || b[0] < recChangeCipher || b[0] > 26 {
			return first, false
		}
		version := binary.BigEndian.Uint16(b[1:])
		if b[0] == 25 && version == 0xfefd && b[3] == 0 && b[4] > 0 && judge(b[13:]) == looksRandom {
			// A connection ID, whose size only the two ends know (RFC 9146), stands before the length.
			return dtlsRecord{b[0], version, 1, b[13:]}, true
		}
		size := int(binary.BigEndian.Uint16(b[11:]))
		if version != 0xfeff && version != 0xfefd && version != 0x0100 || size == 0 || size > len(b)-13 {
			return first, false
		}
		if n == 0 {
			first = dtlsRecord{b[0], version, binary.BigEndian.Uint16(b[3:]), b[13 : 13+size]}
			if first.kind == recAppData && first.epoch == 0 {
				return first, false // application data is never sent without keys
			}
		}
		b = b[13+size:]
	}
	return first, first.body != nil
}

func dtlsVersion(v uint16) string {
	switch v {
	case 0xfefd:
		return "1.2"
	case 0xfeff:
		return "1.0"
	}
	return ""
}

// dtlsHello reads a ClientHello that stands whole in one record. It differs from
// TLS by a cookie behind the session.
func dtlsHello(b []byte) (Hello, bool) {
	if len(b) < 12 || b[0] != hsClientHello {
		return Hello{}, false
	}
	size := int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	off := int(b[6])<<16 | int(b[7])<<8 | int(b[8])
	got := int(b[9])<<16 | int(b[10])<<8 | int(b[11])
	if off != 0 || got != size || size > len(b)-12 || size > maxHello {
		return Hello{}, false
	}
	r := reader{b: b[12 : 12+size]}
	r.take(34)
	session := len(r.vec8())
	cookieAt := 12 + 34 + 1 + session
	cookie := len(r.vec8())
	if r.bad {
		return Hello{}, false
	}
	// Without the cookie, and with a TLS version, it is a TLS hello.
	msg := make([]byte, 0, size)
	msg = append(msg, 3, 3)
	msg = append(msg, b[14:cookieAt]...)
	msg = append(msg, b[cookieAt+1+cookie:12+size]...)
	h, st := parseHello(msg)
	return h, st == Complete
}

func isChannelData(b []byte) bool {
	return len(b) > 17 && b[0] >= 0x40 && b[0] <= 0x4f && int(binary.BigEndian.Uint16(b[2:])) <= len(b)-4
}
