package dissect

import (
	"bytes"
	"encoding/binary"
)

// readMQTT knows MQTT by its CONNECT packet: type 1, remaining length, protocol
// name "MQTT" (3.1.1 §3.1.2.1, 5.0) or "MQIsdp" (3.1).
func readMQTT(v *view, r *Result) state {
	b := v.up
	if st := mqttConnect(b, r); st != no {
		return st
	}
	if st := mqttConnect(v.down, r); st == yes || st == final {
		return st
	}
	return mqttUnderway(v, r)
}

func mqttConnect(b []byte, r *Result) state {
	if len(b) == 0 || b[0] != 0x10 {
		return no
	}
	_, n := mqttLength(b[1:])
	if n == 0 {
		if len(b) < 5 {
			return maybe
		}
		return no
	}
	body := reader{b: b[1+n:]}
	proto := body.vec16()
	level, flags := body.u8(), body.u8()
	if body.bad {
		if len(b) < 14 {
			return maybe
		}
		return no
	}
	v31, v311 := string(proto) == "MQIsdp" && level == 3, string(proto) == "MQTT" && (level == 4 || level == 5)
	if level > 0x80 { // a bridge sets the top bit
		v311 = string(proto) == "MQTT"
	}
	if !v31 && !v311 {
		return no
	}
	r.readable("MQTT without TLS: topics and messages can be read on the way")
	var ids idScan
	ids.scan(b[1+n:])
	client := mqttLogin(&body, level&0x7f, flags, r)
	if telling(client) && !bytes.ContainsAny(client, ":@%=") { // those were found by their form
		ids.note(idDevice)
	}
	ids.into(r)
	return final
}

// mqttLogin reads who signs in from what follows a CONNECT's flags, and returns
// the client's identifier.
func mqttLogin(body *reader, level, flags int, r *Result) (client []byte) {
	properties := func() {
		if level == 5 {
			size, n := mqttLength(body.b)
			body.take(n)
			body.take(size)
		}
	}
	body.u16() // keep alive
	properties()
	client = body.vec16()
	if flags&0x04 != 0 {
		properties()
		body.vec16() // will topic
		body.vec16() // and message
	}
	var user, password []byte
	if flags&0x80 != 0 {
		user = body.vec16()
	}
	switch {
	case flags&0x40 != 0:
		if password = body.vec16(); body.bad {
			password = nil
		}
		r.credential("mqtt-password", user, password)
	case flags&0x80 != 0:
		r.credential("mqtt-user", user, nil)
	}
	return client
}

// mqttLength reads a variable byte integer; n is 0 when it is cut or too long.
func mqttLength(b []byte) (size, n int) {
	for i := 0; i < 4 && i < len(b); i++ {
		size |= int(b[i]&0x7f) << (7 * i)
		if b[i]&0x80 == 0 {
			return size, i + 1
		}
	}
	return 0, 0
}

// mqttUnderway knows a session whose CONNECT was not captured: on the standard
// port, both sides speak whole packets of plausible types.
func mqttUnderway(v *view, r *Result) state {
	if !v.port(1883) || len(v.up)+len(v.down) < 4 || !mqttPackets(v.up) || !mqttPackets(v.down) {
		return no
	}
	r.readable("MQTT without TLS: topics and messages can be read on the way")
	return yes
}

// mqttFlags reports whether a packet of this kind may have these flags (MQTT 5.0 §2.1.3).
func mqttFlags(kind, flags byte) bool {
	switch kind {
	case 3:
		return true
	case 6, 8, 10:
		return flags&^8 == 2 // before 3.1.1 they could be marked as sent again
	}
	return flags == 0
}

func mqttPackets(b []byte) bool {
	for len(b) > 0 {
		kind := b[0] >> 4
		size, n := mqttLength(b[1:])
		if kind == 0 || n == 0 {
			return false
		}
		if !mqttFlags(kind, b[0]&0x0f) || size > 1<<8 && kind >= 4 && kind <= 7 || kind >= 12 && kind < 14 && size != 0 {
			return false
		}
		if kind == 3 && len(b) >= 3+n && int(binary.BigEndian.Uint16(b[1+n:])) > size {
			return false
		}
		if len(b) < 1+n+size {
			return true
		}
		b = b[1+n+size:]
	}
	return true
}
