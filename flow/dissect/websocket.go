package dissect

const whyWebSocket = "WebSocket without TLS: every word can be read on the way"

// webSocket looks into the client's first frame (RFC 6455 §5.2), whose mask stands
// before what it hides: MQTT is often spoken within, and who signs in then can be read.
func webSocket(r *Result, b []byte) state {
	const text, binaryData = 1, 2
	f := reader{b: b}
	head, size := f.u8(), f.u8()
	masked := size&0x80 != 0
	switch size &= 0x7f; size {
	case 126:
		size = f.u16()
	case 127:
		return final // more than is ever collected
	}
	mask := f.take(4)
	if f.bad {
		return yes
	}
	if kind := head & 0x0f; !masked || kind != text && kind != binaryData {
		return final
	}
	if len(f.b) < size && size <= maxHead {
		return yes
	}
	var plain [1 << 10]byte
	n := copy(plain[:], f.b[:min(size, len(f.b))])
	for i := range n {
		plain[i] ^= mask[i&3]
	}
	var within Result
	if mqttConnect(plain[:n], &within) == final {
		r.Reason = "MQTT within WebSocket, without TLS: topics and messages can be read on the way"
	} else {
		within = Result{}
		var ids idScan
		ids.scan(plain[:n])
		ids.into(&within)
	}
	if within.Credentials != "" {
		r.Credentials = within.Credentials
	}
	r.Exposure = r.Exposure.Plus(within.Exposure)
	return final
}
