package dissect

import (
	"bytes"
	"encoding/binary"
)

// readTuya knows Tuya's frames: 000055aa … 0000aa55, or 00006699 since version 3.5.
func readTuya(v *view, r *Result) state {
	if !v.prefix("\x00\x00\x55\xaa\x00") && !v.prefix("\x00\x00\x66\x99\x00") {
		return no
	}
	r.cannotTell("Tuya's own protocol; its content is hidden with a key per device, how well differs by version")
	for _, b := range [2][]byte{v.up, v.down} { // version 3.1, and who calls out its presence: JSON as it is
		if i := bytes.Index(b, []byte(`{"`)); i >= 16 && i < 64 && len(b) > i+8 && looksReadable(b[i:min(len(b), i+32)]) {
			r.readable("Tuya's own protocol, whose content is not hidden")
		}
	}
	return final
}

// readKasa knows TP-Link Kasa: JSON behind an XOR that starts with 171, which hides nothing.
func readKasa(v *view, r *Result) state {
	hidden := func(b []byte) bool { return len(b) >= 2 && b[0] == 0xd0 && (b[1] == 0xf2 || b[1] == 0xad) } // {" and {}
	framed := func(b []byte) bool {
		return len(b) >= 8 && binary.BigEndian.Uint32(b) < 1<<16 && hidden(b[4:])
	}
	if !hidden(v.up) && !framed(v.up) && !framed(v.down) || !v.port(9999) && !framed(v.up) {
		return no
	}
	r.readable("TP-Link Kasa: scrambled with a published constant, so readable")
	return final
}

// readLIFX knows LIFX's LAN protocol: size, then protocol number 1024.
func readLIFX(v *view, r *Result) state {
	b := v.up
	if len(b) < 36 || int(binary.LittleEndian.Uint16(b)) != v.size() || binary.LittleEndian.Uint16(b[2:])&0x0fff != 1024 {
		return no
	}
	r.readable("LIFX: commands to lamps in clear, within the house")
	return final
}

// readMiIO knows Xiaomi's miIO: magic 2131, then its length.
func readMiIO(v *view, r *Result) state {
	b := v.up
	if len(b) < 32 || b[0] != 0x21 || b[1] != 0x31 || int(binary.BigEndian.Uint16(b[2:])) != v.size() {
		return no
	}
	if v.size() == 32 {
		r.readable("Xiaomi miIO: a greeting that names the device")
		return yes
	}
	r.cannotTell("Xiaomi miIO: hidden with a key that older devices hand out in clear")
	return final
}

// readMatter knows Matter's secured messages only by its port, the first message of
// a session by its bytes too: the session's number zero, a source, and a secure
// channel's opening (Matter 1.0 §4.4, §4.13).
func readMatter(v *view, r *Result) state {
	b := v.up
	const settingUp = "Matter: a session is being set up"
	if opensMatter(b) {
		r.cannotTell(settingUp)
		return yes
	}
	if !v.port(5540) && v.c.best.App != "matter" || len(b) < 16 || b[0]>>4 != 0 {
		return no
	}
	if binary.LittleEndian.Uint16(b[1:]) == 0 { // unsecured session: only for setting up a secure one
		r.cannotTell(settingUp)
		return yes
	}
	// Bits that are kept free, a kind of session, and a tag of 16 bytes at the end.
	if b[0]&0x08 != 0 || b[0]&3 == 3 || b[3]&0x1c != 0 || b[3]&3 > 1 || len(b) < 24 || !sealedBytes(b[8:]) {
		return no
	}
	if session := uint32(binary.LittleEndian.Uint16(b[1:])); !v.goesOn(session, binary.LittleEndian.Uint32(b[4:])) && v.c.best.Reason != settingUp {
		r.cannotTell("by its port and form it is Matter; one packet alone does not show it")
		return yes
	}
	r.encrypted("Matter: a secure session")
	return final
}

// opensMatter knows PBKDFParamRequest (0x20) and Sigma1 (0x30) from an initiator.
func opensMatter(b []byte) bool {
	return len(b) > 24 && b[0] == 0x04 && b[1] == 0 && b[2] == 0 && b[3] == 0 &&
		b[16]&0x05 == 0x05 && b[16] < 0x20 && (b[17] == 0x20 || b[17] == 0x30) && b[20] == 0 && b[21] == 0 && b[22] == 0x15 // TLV: a structure
}

// product is what in the house speaks r's protocol on a port of its own, or "". It
// stands before the reason: the protocol stays what the bytes say.
func product(port uint16, r *Result) string {
	switch {
	case r.App == "tls" && port == 8009:
		return "Google Cast"
	case r.App == "http" && port == 1400:
		return "Sonos"
	case r.App == "http" && port == 8060:
		return "Roku"
	case r.App == "dtls" && port == 2100:
		return "Philips Hue's entertainment"
	case r.Credentials == "hue-key":
		return "Philips Hue"
	}
	return ""
}

// hueKey reports whether a request to a bridge of Philips Hue shows the key by which
// lamps are switched: /api/KEY, and the things that a bridge has.
func hueKey(target []byte) bool {
	rest, ok := bytes.CutPrefix(target, []byte("/api/"))
	if !ok {
		return false
	}
	key, thing, _ := bytes.Cut(rest, []byte("/"))
	thing, _, _ = bytes.Cut(thing, []byte("/"))
	digits := 0
	for _, c := range key {
		switch {
		case isDigit(c):
			digits++
		case (c|0x20 < 'a' || c|0x20 > 'z') && c != '-':
			return false
		}
	}
	if digits < 4 || len(key) != 40 && (len(key) != 32 || !isHex(key)) { // the bridge draws them
		return false
	}
	switch string(thing) {
	case "", "lights", "groups", "config", "schedules", "scenes", "sensors", "rules", "resourcelinks", "capabilities":
		return true
	}
	return false
}

// readWeave knows Nest's own protocol, Weave, by its port alone: all but the setting up
// of a session is encrypted, and nothing in a message says so before it is taken apart.
func readWeave(v *view, r *Result) state {
	const weave = 11095
	if v.c.ports[1] != weave || judge(v.up) == looksText || judge(v.down) == looksText {
		return no
	}
	r.cannotTell("by its port it is Weave, which Nest's devices speak among themselves and mostly encrypt")
	return yes
}
