package dissect

import (
	"bytes"
	"encoding/binary"

	"github.com/netcurtain/netcurtain/flow"
)

// readDHCP knows DHCP (RFC 2131) by its magic cookie. Only what a client says of
// itself names the flow.
func readDHCP(v *view, r *Result) state {
	b := v.up
	if len(b) < 240 || b[0] != 1 && b[0] != 2 || string(b[236:240]) != "\x63\x82\x53\x63" {
		if !(v.port(67) && (v.port(68) || v.missing > 0)) || len(b) < 28 || v.size() < 236 || b[0] != 1 && b[0] != 2 || b[1] != 1 || b[2] != 6 {
			return no
		}
		r.App = "dhcp" // plain BOOTP
		r.harmless("asks for an address within the house")
		return final
	}
	r.harmless("asks for an address within the house")
	if b[0] == 2 {
		return yes
	}
	opts := reader{b: b[240:]}
	for len(opts.b) > 0 {
		switch code := opts.u8(); code {
		case 0:
		case 255:
			return yes
		default:
			value := opts.vec8()
			if code == 12 && !opts.bad {
				r.name(hostName(bytes.TrimRight(value, "\x00")), "dhcp")
				if r.ServerName != "" {
					return final
				}
			}
		}
	}
	return yes
}

// readDHCPv6 knows DHCPv6 (RFC 9915) on its ports.
func readDHCPv6(v *view, r *Result) state {
	b := v.up
	if !(v.port(546) || v.port(547)) {
		// Elsewhere a client's message must be whole, and say by which number it is known (option 1).
		if len(b) < 14 || b[0] == 0 || b[0] > 11 || b[4] != 0 || b[5] != 1 || b[6] != 0 || b[7] < 6 || b[8] != 0 || b[9] == 0 || b[9] > 4 || !optionsFit(b[4:]) {
			return no
		}
	} else if len(b) < 4 || b[0] == 0 || b[0] > 36 {
		return no
	}
	const relayed, relayReply = 12, 13
	r.readable("on the ports of DHCPv6, but not in its form")
	if b[0] == relayed || b[0] == relayReply || v.missing > 0 || optionsFit(b[4:]) {
		r.harmless("asks for an address within the house")
	}
	return final
}

// optionsFit reports whether options of two bytes each for code and length fill b.
func optionsFit(b []byte) bool {
	r := reader{b: b}
	for len(r.b) > 0 && !r.bad {
		r.u16()
		r.vec16()
	}
	return !r.bad
}

// readNTP knows NTP (RFC 5905) on its port, elsewhere a client's question of the
// simplest form.
func readNTP(v *view, r *Result) state {
	b := v.up
	if len(b) < 12 || !v.port(123) && (len(b) != 48 || !bareNTP(b)) {
		return no
	}
	version, mode := b[0]>>3&7, b[0]&7
	if version == 0 || version > 4 || mode == 0 && version > 1 || mode < 6 && len(b) < 48 {
		return no
	}
	r.readable("on the port of time, but not in the form in which it is asked for")
	if mode >= 6 || b[1] <= 16 && len(b)%4 == 0 { // strata end at 16; keys and extensions come in words
		r.harmless("asks for the time")
	}
	return final
}

// bareNTP is a client's message in which only versions, poll, precision and the time
// of sending stand.
func bareNTP(b []byte) bool {
	if b[0]&7 != 3 || b[0]>>3&7 < 3 || b[1] != 0 {
		return false
	}
	for _, c := range b[12:40] {
		if c != 0 {
			return false
		}
	}
	return binary.BigEndian.Uint64(b[40:]) != 0
}

// readSSDP knows SSDP, UPnP's discovery: HTTP in datagrams.
func readSSDP(v *view, r *Result) state {
	b := v.up
	switch {
	case bytes.HasPrefix(b, []byte("M-SEARCH * HTTP/1.")), bytes.HasPrefix(b, []byte("NOTIFY * HTTP/1.")):
	case v.port(1900) && bytes.HasPrefix(b, []byte("HTTP/1.")):
	case bytes.HasPrefix(b, []byte("HTTP/1.1 200")) && (containsFold(b, "\nST:") || v.missing > 0):
	default:
		return no
	}
	v.discovery(r, "looks for devices")
	return final
}

// readWSDiscovery knows WS-Discovery: SOAP in datagrams, as cameras and printers speak.
func readWSDiscovery(v *view, r *Result) state {
	if !v.port(3702) || !bytes.Contains(v.up[:min(len(v.up), 512)], []byte("<")) || !looksReadable(v.up) {
		return no
	}
	v.discovery(r, "looks for devices")
	return final
}

// readNetBIOS knows NetBIOS name (137) and datagram service (138) (RFC 1002).
func readNetBIOS(v *view, r *Result) state {
	b := v.up
	names := v.port(137) && len(b) >= 12 && b[2]>>3&0x0f <= 9
	datagram := v.port(138) && len(b) >= 14 && b[0] >= 0x10 && b[0] <= 0x16
	if !names && !datagram {
		return no
	}
	v.discovery(r, "looks for neighbours by name")
	return final
}

// readTFTP knows TFTP (RFC 1350): a request on its port, data and acknowledgements
// from any.
func readTFTP(v *view, r *Result) state {
	b := v.up
	if len(b) < 4 || b[0] != 0 {
		return no
	}
	switch {
	case (b[1] == 1 || b[1] == 2) && tftpRequest(b[2:]):
		if v.dir == flow.Orig && v.port(69) { // the answer comes from another port (RFC 1350 §4)
			v.c.announce(Media{Port: v.c.ports[0]})
		}
	case b[1] >= 3 && b[1] <= 6 && v.port(69):
	case b[1] == 6 && bytes.HasSuffix(b, []byte{0}) && (bytes.HasPrefix(b[2:], []byte("blksize\x00")) || bytes.HasPrefix(b[2:], []byte("tsize\x00"))):
	case b[1] == 3 && b[2] == 0 && b[3] == 1 && len(b) == 516: // the first full block
	case b[1] == 4 && len(b) == 4 && b[2] == 0 && b[3] <= 1 && v.c.best.App == "" && v.c.sizes[v.dir^1] > 4: // its acknowledgement
	default:
		return no
	}
	r.readable("TFTP: files in clear")
	return final
}

func tftpRequest(b []byte) bool {
	name, rest, ok := bytes.Cut(b, []byte{0})
	mode, _, ok2 := bytes.Cut(rest, []byte{0})
	return ok && ok2 && len(name) > 0 && looksReadable(name) &&
		(equalFold(mode, "octet") || equalFold(mode, "netascii") || equalFold(mode, "mail"))
}

// readSyslog knows syslog by its priority (RFC 5424, 3164).
func readSyslog(v *view, r *Result) state {
	b := v.up
	if i := bytes.IndexByte(b[:min(len(b), 6)], ' '); i > 0 && isDigit(b[0]) { // counted octets over TCP (RFC 6587 §3.4.1)
		b = b[i+1:]
	}
	end := bytes.IndexByte(b[:min(len(b), 5)], '>')
	if end < 2 || b[0] != '<' || len(b) < 8 {
		return no
	}
	for _, c := range b[1:end] {
		if !isDigit(c) {
			return no
		}
	}
	if !v.port(514) && !looksReadable(b) {
		return no
	}
	r.readable("syslog: a device's diary in clear")
	return final
}

// readSNMP knows SNMP (RFC 3416, 3412) by version and community.
func readSNMP(v *view, r *Result) state {
	b := reader{b: v.up}
	if b.u8() != 0x30 {
		return no
	}
	b.berLength()
	if b.u8() != 2 || b.u8() != 1 {
		return no
	}
	switch version := b.u8(); version {
	case 0, 1:
		if b.u8() != 4 {
			return no
		}
		community := b.take(b.berLength())
		if pdu := b.u8(); b.bad || pdu < 0xa0 || pdu > 0xa8 {
			return no
		}
		r.readable("SNMP: readings and the community, which is its password, in clear")
		r.Credentials = "snmp-community"
		switch string(community) {
		case "public", "private", "ILMI", "cable-docsis":
			r.expose().Default = true
		}
	case 3:
		if b.u8() != 0x30 {
			return no
		}
		b.berLength()
		for range 2 { // message ID, size
			if b.u8() != 2 {
				return no
			}
			b.take(b.berLength())
		}
		if b.u8() != 4 || b.u8() != 1 {
			return no
		}
		flags := b.u8()
		if b.bad {
			return no
		}
		switch flags & 3 {
		case 0: // a client asks who is there before it knows how to sign and to encrypt
			r.readable("SNMP version 3 without privacy")
			return yes
		case 1:
			r.readable("SNMP version 3 without privacy")
		default:
			r.encrypted("SNMP version 3 with privacy")
		}
	default:
		return no
	}
	return final
}

// readRADIUS knows RADIUS (RFC 2865) by code, length and attributes that fit.
func readRADIUS(v *view, r *Result) state {
	b := v.up
	if len(b) < 20 || int(binary.BigEndian.Uint16(b[2:])) > v.size() || int(binary.BigEndian.Uint16(b[2:])) < 20 {
		return no
	}
	port := v.port(1812) || v.port(1813) || v.port(1645) || v.port(1646) || v.port(3799)
	code := b[0]
	if code == 0 || code > 45 || !port && (code > 5 && code != 11 || int(binary.BigEndian.Uint16(b[2:])) != v.size() || len(b) == 20) {
		return no
	}
	for attrs := b[20:min(int(binary.BigEndian.Uint16(b[2:])), len(b))]; len(attrs) > 0; {
		if len(attrs) < 2 || attrs[1] < 2 || int(attrs[1]) > len(attrs) {
			if port || v.missing > 0 {
				break // broken, but RADIUS
			}
			return no
		}
		attrs = attrs[attrs[1]:]
	}
	r.readable("RADIUS: who signs in where in clear, passwords only hidden")
	return final
}

// readCoAP knows CoAP (RFC 7252 §3) on its port, elsewhere a request that has to be
// acknowledged and whose options are whole and name a path.
func readCoAP(v *view, r *Result) state {
	b := v.up
	if len(b) < 4 || b[0]>>6 != 1 || b[0]&0x0f > 8 || !v.port(5683) && (b[0]>>4 != 4 || b[1] == 0 || b[1] > 4 || !coapPath(b[4:], int(b[0]&0x0f))) {
		return no
	}
	class, detail := b[1]>>5, b[1]&0x1f
	if class == 1 || class == 3 || class > 5 || class == 0 && detail > 7 || b[1] == 0 && v.size() > 4 {
		return no
	}
	if !coapOptions(b[4:], int(b[0]&0x0f), v.missing > 0) {
		return no
	}
	r.readable("CoAP without DTLS")
	r.name(coapHost(b[4:], int(b[0]&0x0f)), "host")
	var ids idScan
	ids.scan(b[4:])
	ids.into(r)
	return final
}

// coapOptions reports whether a token and options stand in b, in order, up to its end or
// to a payload (RFC 7252 §3.1).
func coapOptions(b []byte, token int, cut bool) bool {
	r := reader{b: b}
	r.take(token)
	for number := 0; len(r.b) > 0; {
		head := r.u8()
		if head == 0xff {
			return len(r.b) > 0 || cut
		}
		delta, size := r.coapNumber(head>>4), r.coapNumber(head&0x0f)
		number += delta
		if r.take(size); r.bad || number == 0 || number > 1<<16 {
			return cut
		}
	}
	return cut || !r.bad
}

// coapNumber is a delta or a length, of which larger ones stand in the bytes that follow.
func (r *reader) coapNumber(n int) int {
	switch n {
	case 13:
		return 13 + r.u8()
	case 14:
		return 269 + r.u16()
	case 15: // kept free
		r.take(len(r.b) + 1)
	}
	return n
}

// coapPath reports whether b is a token and ordered options, one of which is a
// readable Uri-Path (RFC 7252 §5.10).
func coapPath(b []byte, token int) bool {
	r := reader{b: b}
	r.take(token)
	number, path := 0, false
	for len(r.b) > 0 && r.b[0] != 0xff {
		head := r.u8()
		delta, size := head>>4, head&0x0f
		if delta > 13 || size > 13 {
			return false
		}
		if delta == 13 {
			delta += r.u8()
		}
		if size == 13 {
			size += r.u8()
		}
		value := r.take(size)
		number += delta
		if r.bad || number == 0 || number > 60 {
			return false
		}
		if number == 11 {
			if !looksReadable(value) {
				return false
			}
			path = path || len(value) >= 2
		}
	}
	return path && !r.bad
}

// readMQTTSN knows MQTT for sensor networks (MQTT-SN 1.2 §5): a length that fits and
// a CONNECT; on its ports any message.
func readMQTTSN(v *view, r *Result) state {
	b := v.up
	if len(b) < 2 || int(b[0]) != len(b) {
		return no
	}
	connect := b[1] == 0x04 && len(b) > 6 && b[2]&^0x0c == 0 && b[3] == 1 && looksReadable(b[6:])
	if port := v.port(1883) || v.port(1884) || v.port(10000) || v.port(2442); !connect && !(port && b[1] <= 0x1d) {
		return no
	}
	r.readable("MQTT-SN: topics and messages can be read on the way")
	if connect {
		var ids idScan
		ids.scan(b[6:])
		ids.into(r)
		return final
	}
	return yes
}

// coapHost is the Uri-Host option (RFC 7252 §5.10.1), which comes third at most.
func coapHost(b []byte, token int) string {
	r := reader{b: b}
	r.take(token)
	number := 0
	for len(r.b) > 0 && number <= 3 {
		head := r.u8()
		delta, size := head>>4, head&0x0f
		if delta > 12 || size > 13 {
			return "" // beyond Uri-Host, or the payload marker
		}
		if size == 13 {
			size = 13 + r.u8()
		}
		number += delta
		value := r.take(size)
		if number == 3 && !r.bad {
			return hostName(value)
		}
	}
	return ""
}
