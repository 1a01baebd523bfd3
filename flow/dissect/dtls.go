package dissect

import "encoding/binary"

// dtlsTalk puts a ClientHello together whose fragments (RFC 6347 §4.2.3) come in
// several records or datagrams: a post-quantum one does not fit into one.
type dtlsTalk struct {
	msg  assembly
	head [12]byte
	size int
}

// readDTLS knows DTLS records (RFC 6347 §4.1, RFC 9147 §4): type, version, and
// lengths that fill the datagram.
func readDTLS(v *view, r *Result) state {
	b := v.up
	if v.c.best.App == "dtls" && isDTLS13(b) {
		r.encrypted("DTLS 1.3")
		r.TLS = &TLS{Version: "1.3"}
		return yes
	}
	first, ok := dtlsRecords(b)
	if !ok && isChannelData(b) { // TURN carries it with four bytes in front (RFC 8656 §12.4)
		b = b[4:]
		first, ok = dtlsRecords(b)
	}
	if !ok {
		return no
	}
	r.encrypted("DTLS")
	t := &TLS{Version: dtlsVersion(first.version)}
	r.TLS = t
	if first.kind != recHandshake || first.epoch != 0 {
		return final
	}
	r.encrypted("DTLS handshake seen")
	h, ok := dtlsHello(first.body)
	if !ok {
		h, ok = v.c.joinDTLS(b)
	}
	if !ok {
		return yes
	}
	if h.TLS.Version != "1.3" {
		h.TLS.Version = dtlsVersion(first.version)
	}
	*t = h.TLS
	r.name(h.ServerName, "sni")
	return final
}

// isDTLS13 knows the header of an encrypted record of DTLS 1.3 (RFC 9147 §4): three
// bits, and little else in clear, so that it counts only where DTLS was seen before.
func isDTLS13(b []byte) bool { return len(b) >= 18 && b[0]>>5 == 1 }

// joinDTLS takes the pieces of a ClientHello in the datagram's records and returns
// the hello once it is whole.
func (c *Conversation) joinDTLS(b []byte) (Hello, bool) {
	for len(b) >= 13+12 && b[0] == recHandshake {
		n := 13 + int(binary.BigEndian.Uint16(b[11:]))
		if n > len(b) {
			break
		}
		piece := b[13:n]
		b = b[n:]
		if len(piece) < 12 || piece[0] != hsClientHello {
			continue
		}
		size, off, got := size24(piece[1:]), size24(piece[6:]), size24(piece[9:])
		if size > maxHello || got > len(piece)-12 || off+got > size {
			continue
		}
		if c.dtls == nil || c.dtls.size != size || c.dtls.head[5] != piece[5] { // the hello that follows a cookie has another number
			c.dtls = &dtlsTalk{size: size}
			copy(c.dtls.head[:], piece)
		}
		c.dtls.msg.store(off, piece[12:12+got])
	}
	d := c.dtls
	if d == nil || len(d.msg.bytes()) < d.size {
		return Hello{}, false
	}
	whole := make([]byte, 12, 12+d.size) // type, size, number, offset 0, size
	copy(whole, d.head[:6])
	copy(whole[9:], d.head[1:4])
	return dtlsHello(append(whole, d.msg.bytes()[:d.size]...))
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
		if n > 0 && isDTLS13(b) { // the rest of a first flight is encrypted
			return first, true
		}
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
