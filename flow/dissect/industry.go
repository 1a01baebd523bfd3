package dissect

import "encoding/binary"

// readModbus knows Modbus over TCP: protocol 0, a length that fits, a function.
func readModbus(v *view, r *Result) state {
	up, down := modbusFrames(v.up), modbusFrames(v.down)
	if !v.port(502) && !(up && down) || !up && !down || len(v.up) > 0 && !up || len(v.down) > 0 && !down {
		return no
	}
	r.readable("Modbus: no protection by design")
	return final
}

func modbusFrames(b []byte) bool {
	if len(b) < 8 {
		return false
	}
	for len(b) >= 8 {
		n := int(binary.BigEndian.Uint16(b[4:]))
		function := b[7] & 0x7f
		if b[2] != 0 || b[3] != 0 || n < 2 || n > 254 || function == 0 {
			return false
		}
		b = b[min(len(b), 6+n):]
	}
	return true
}

// readDNP3 knows DNP3 by its start bytes (IEEE 1815).
func readDNP3(v *view, r *Result) state {
	ok := func(b []byte) bool {
		return len(b) >= 10 && b[0] == 0x05 && b[1] == 0x64 && b[2] >= 5 &&
			(v.port(20000) || crcDNP(b[:8]) == binary.LittleEndian.Uint16(b[8:]))
	}
	if !ok(v.up) && !ok(v.down) {
		return no
	}
	r.readable("DNP3: no protection by design")
	return final
}

// crcDNP is the checksum behind a DNP3 header: two start bytes alone come by chance.
func crcDNP(b []byte) uint16 {
	crc := uint16(0)
	for _, c := range b {
		crc ^= uint16(c)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0xa6bc
			} else {
				crc >>= 1
			}
		}
	}
	return ^crc
}

// readBACnet knows BACnet/IP (annex J) by type, function and length.
func readBACnet(v *view, r *Result) state {
	b := v.up
	if len(b) < 6 || b[0] != 0x81 || b[1] > 0x0c || int(binary.BigEndian.Uint16(b[2:])) != v.size() {
		return no
	}
	r.readable("BACnet: no protection by design")
	return final
}

// readKNX knows KNXnet/IP by its header.
func readKNX(v *view, r *Result) state {
	b := v.up
	if len(b) < 6 || b[0] != 0x06 || b[1] != 0x10 {
		return no
	}
	n := int(binary.BigEndian.Uint16(b[4:]))
	if n < 6 || n > v.size() || n < v.size() && !(v.c.proto == 6 && v.port(3671)) { // over TCP one follows another
		return no
	}
	if b[2] == 0x09 { // KNX IP Secure
		r.encrypted("KNX IP Secure")
		return final
	}
	r.readable("KNX: no protection by design")
	return final
}
