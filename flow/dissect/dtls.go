package dissect

import "encoding/binary"

// dtlsTalk follows a DTLS handshake, whichever side it began on. The fragments of
// a message (RFC 6347 §4.2.3) come in several records or datagrams: a
// post-quantum hello does not fit into one.
type dtlsTalk struct {
	client, server dtlsPieces // what is being put together
	hello          Hello
	asked, chosen  bool   // the ClientHello, the ServerHello was read
	version        string // of the records: the one that was agreed, once one was
}

// dtlsPieces is one handshake message as its fragments come.
type dtlsPieces struct {
	msg    assembly
	size   int
	number [2]byte // of the message within the handshake
}

// readDTLS knows DTLS records (RFC 6347 §4.1, RFC 9147 §4): type, version, and
// lengths that fill the datagram.
func readDTLS(v *view, r *Result) state {
	b := v.up
	talk := v.c.dtls
	if talk != nil && isDTLS13(b) { // keys are agreed on
		talk.result(r)
		return final
	}
	first, ok := dtlsRecords(b, v.missing)
	if !ok && isChannelData(b) { // TURN carries it with four bytes in front (RFC 8656 §12.4)
		b = b[4:]
		first, ok = dtlsRecords(b, v.missing)
	}
	if !ok {
		return no
	}
	if talk == nil {
		talk = new(dtlsTalk)
		v.c.dtls = talk
	}
	if talk.version = dtlsVersion(first.version); first.kind != recHandshake || first.epoch != 0 {
		talk.result(r)
		return finalIf(first.kind == recAppData || first.epoch != 0) // an alert, or the change of keys
	}
	talk.take(b)
	talk.result(r)
	return finalIf(talk.asked && talk.chosen)
}

func finalIf(done bool) state {
	if done {
		return final
	}
	return yes
}

// result is what the talk says so far.
func (d *dtlsTalk) result(r *Result) {
	t := d.hello.TLS
	r.encrypted("DTLS")
	if d.asked || d.chosen {
		r.encrypted("DTLS handshake seen")
	}
	if t.Version == "" {
		t.Version = d.version
	}
	if nullCipher(t.Cipher) && d.chosen {
		r.readable("the handshake chose a cipher that does not encrypt")
	}
	t.nameWeak()
	r.TLS = &t
	r.name(d.hello.ServerName, "sni")
}

// isDTLS13 knows the header of an encrypted record of DTLS 1.3 (RFC 9147 §4): three
// bits, and little else in clear, so that it counts only where DTLS was seen before.
func isDTLS13(b []byte) bool { return len(b) >= 18 && b[0]>>5 == 1 }

// take puts the pieces of hellos in the datagram's records in place, and reads
// them once they are whole.
func (d *dtlsTalk) take(b []byte) {
	for len(b) >= 13+12 && b[0] == recHandshake && b[3] == 0 && b[4] == 0 {
		n := 13 + int(binary.BigEndian.Uint16(b[11:]))
		if n > len(b) {
			return // cut by the snap length
		}
		for record := b[13:n]; len(record) >= 12; {
			got := size24(record[9:])
			if got > len(record)-12 {
				break
			}
			piece, kind := record[:12+got], record[0]
			record = record[12+got:]
			switch {
			case kind == hsClientHello && !d.chosen: // the one that follows a cookie says the same, and counts
				if body := d.client.put(piece); body != nil {
					d.readClient(body)
				}
			case kind == hsServerHello && !d.chosen:
				if body := d.server.put(piece); body != nil {
					d.chosen = d.hello.TLS.parseServerHello(body)
				}
			}
		}
		b = b[n:]
	}
}

// put places one piece, and returns the message's body when that made it whole.
func (m *dtlsPieces) put(piece []byte) []byte {
	size, off, got := size24(piece[1:]), size24(piece[6:]), size24(piece[9:])
	if size > maxHello || off+got > size {
		return nil
	}
	if off == 0 && got == size {
		return piece[12:]
	}
	if number := [2]byte(piece[4:6]); m.size != size || m.number != number {
		m.msg.clear()
		m.size, m.number = size, number
	}
	m.msg.store(off, piece[12:])
	if whole := m.msg.bytes(); len(whole) >= size {
		return whole[:size]
	}
	return nil
}

// readClient reads a ClientHello. It differs from TLS by a cookie behind the session.
func (d *dtlsTalk) readClient(b []byte) {
	r := reader{b: b}
	r.take(34)
	session := len(r.vec8())
	at := 34 + 1 + session
	cookie := len(r.vec8())
	if r.bad {
		return
	}
	msg := make([]byte, 0, len(b)) // without the cookie it is a TLS hello
	msg = append(msg, b[:at]...)
	msg = append(msg, b[at+1+cookie:]...)
	h, st := parseHello(msg)
	if st != Complete {
		return
	}
	d.hello, d.asked = h, true
}

type dtlsRecord struct {
	kind    byte
	version uint16
	epoch   uint16
	body    []byte
}

// dtlsRecords checks that records fill the datagram, of which missing bytes were
// cut off, and returns the first.
func dtlsRecords(b []byte, missing int) (first dtlsRecord, ok bool) {
	for n := 0; len(b) > 0; n++ {
		if n > 0 && isDTLS13(b) { // the rest of a first flight is encrypted
			return first, true
		}
		if len(b) < 13 || b[0] < recChangeCipher || b[0] > 26 {
			return first, n > 0 && missing > 0
		}
		version := binary.BigEndian.Uint16(b[1:])
		if b[0] == 25 && version == 0xfefd && b[3] == 0 && b[4] > 0 && judge(b[13:]) == looksRandom {
			// A connection ID, whose size only the two ends know (RFC 9146), stands before the length.
			return dtlsRecord{b[0], version, 1, b[13:]}, true
		}
		size := int(binary.BigEndian.Uint16(b[11:]))
		if version != 0xfeff && version != 0xfefd && version != 0x0100 || size == 0 || size > len(b)-13+missing {
			return first, false
		}
		if version == 0x0100 && size > len(b)-13 {
			return first, false // too little of it to be told from other things
		}
		body := b[13:min(13+size, len(b))]
		if b[0] == recHandshake && b[3]|b[4] == 0 && !dtlsOpens(body, size) {
			return first, false
		}
		if n == 0 {
			first = dtlsRecord{b[0], version, binary.BigEndian.Uint16(b[3:]), body}
			if first.kind == recAppData && first.epoch == 0 {
				return first, false // application data is never sent without keys
			}
		}
		b = b[13+len(body):]
	}
	return first, first.version != 0
}

// dtlsOpens reports whether a handshake record in clear, size bytes on the wire, begins
// with a message that there is, and a fragment of it that fits (RFC 6347 §4.2.2).
func dtlsOpens(b []byte, size int) bool {
	if len(b) < 12 {
		return size > len(b)
	}
	whole, off, got := size24(b[1:]), size24(b[6:]), size24(b[9:])
	return b[0] <= 24 && got <= size-12 && off+got <= whole
}

func dtlsVersion(v uint16) string {
	switch v {
	case 0xfefd:
		return "1.2"
	case 0xfeff, 0x0100: // OpenSSL had a number of its own
		return "1.0"
	}
	return ""
}

func isChannelData(b []byte) bool {
	return len(b) > 17 && b[0] >= 0x40 && b[0] <= 0x4f && int(binary.BigEndian.Uint16(b[2:])) <= len(b)-4
}
