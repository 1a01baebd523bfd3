package dissect

import (
	"encoding/binary"
)

// readDNS knows the DNS message format (RFC 1035 §4) in a datagram; the port says
// which of its dialects it is. Away from their ports a message must fit exactly.
func readDNS(v *view, r *Result) state {
	b := v.up
	switch {
	case v.port(5353):
		return readLocalDNS(v, r, "mdns")
	case v.port(5355):
		return readLocalDNS(v, r, "llmnr")
	case v.port(137):
		return no // NetBIOS has its own reader
	}
	q, ok := dnsMessage(b, !v.port(53))
	if !ok {
		return no
	}
	r.name(q, "qname")
	judgeDNS(v.c, r)
	if q == "" {
		return yes
	}
	return final
}

func judgeDNS(c *Conversation, r *Result) {
	r.readable("DNS without encryption: the names looked up can be read on the way")
	if c.local {
		r.harmless("DNS within the house")
	}
}

// readLocalDNS is for mDNS (RFC 6762) and LLMNR (RFC 4795): they stay on the
// link, and the names in them are announcements, not servers of this flow.
func readLocalDNS(v *view, r *Result, app string) state {
	b := v.up
	if len(b) < 12 {
		return no
	}
	if op := b[2] >> 3 & 0x0f; op > 6 {
		return no
	}
	if app == "llmnr" && binary.BigEndian.Uint16(b[4:]) > 1 {
		return no
	}
	r.App = app
	v.discovery(r, "looks for neighbours by name")
	return final
}

// readDNSStream knows DNS over TCP by its length prefix (RFC 1035 §4.2.2).
func readDNSStream(v *view, r *Result) state {
	b := v.up
	if len(b) < 2 {
		b = v.down
	}
	if len(b) < 2 {
		return maybe
	}
	n := int(binary.BigEndian.Uint16(b))
	if n < 17 {
		return no
	}
	if len(b) < 2+12 {
		return maybe
	}
	// On its port the first message may go on in later segments.
	msg := b[2:min(len(b), 2+n)]
	if len(msg) < n && !v.port(53) {
		return no
	}
	q, ok := dnsMessage(msg, !v.port(53))
	if !ok {
		return no
	}
	r.name(q, "qname")
	judgeDNS(v.c, r)
	return final
}

// dnsMessage checks a message and returns its question's name. With exact set it
// must be a plain query, or an answer, that ends where the bytes end.
func dnsMessage(b []byte, exact bool) (name string, ok bool) {
	if len(b) < 12 {
		return "", false
	}
	flags := binary.BigEndian.Uint16(b[2:])
	qd, an := binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
	ns, ar := binary.BigEndian.Uint16(b[8:]), binary.BigEndian.Uint16(b[10:])
	opcode := flags >> 11 & 0x0f
	if opcode > 6 || flags&0x0040 != 0 || qd > 8 {
		return "", false
	}
	if exact && (qd != 1 || opcode != 0 || flags&0x8000 == 0 && (an != 0 || ns != 0 || ar > 2) || an > 64 || ns > 64 || ar > 64) {
		return "", false
	}
	if qd == 0 {
		return "", flags&0x8000 != 0 || opcode != 0
	}
	var buf [256]byte
	label, at, ok := dnsName(buf[:0], b, 12)
	if !ok || at+4 > len(b) {
		// A name that breaks the rules on the DNS port is still DNS.
		return "", !exact
	}
	qtype, class := binary.BigEndian.Uint16(b[at:]), binary.BigEndian.Uint16(b[at+2:])
	if exact && (class != 1 || qtype == 0) {
		return "", false
	}
	if exact && flags&0x8000 == 0 && ar == 0 && at+4 != len(b) {
		return "", false
	}
	return hostName(label), true
}

// dnsName appends the dotted form of the name at off and returns where it ends.
// Compression is not followed: a question's name is the first in its message.
func dnsName(dst, b []byte, off int) ([]byte, int, bool) {
	for {
		if off >= len(b) {
			return dst, off, false
		}
		n := int(b[off])
		off++
		switch {
		case n == 0:
			return dst, off, true
		case n > 63, off+n > len(b), len(dst)+n+1 > 255:
			return dst, off, false
		}
		if len(dst) > 0 {
			dst = append(dst, '.')
		}
		for _, c := range b[off : off+n] {
			if c == '.' {
				c = 0 // a dot within a label is no separator; the name is refused later
			}
			dst = append(dst, c)
		}
		off += n
	}
}
