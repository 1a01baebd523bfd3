package dissect

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strconv"

	"github.com/netcurtain/netcurtain/flow"
)

// textRequest is the head of an RTSP or SIP request: method, target, version. protocol
// is as in " SIP/"; 1.0 and 2.0 of it are read.
func textRequest(b []byte, protocol string) (target, fields []byte, ok bool) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 || end > 1025 {
		return nil, nil, false
	}
	line, fields := bytes.TrimSuffix(b[:end], []byte("\r")), b[end+1:]
	at := len(line) - len(protocol) - len("1.0")
	if at < 0 || string(line[at:at+len(protocol)]) != protocol || string(line[len(line)-2:]) != ".0" {
		return nil, nil, false
	}
	_, rest, ok := bytes.Cut(line, []byte(" "))
	target, _, ok2 := bytes.Cut(rest, []byte(" "))
	return target, fields, ok && ok2
}

// Media is an end of another flow, as a talk announced it in clear: of sound or
// picture over UDP (SDP, RFC 8866; the Transport field of RTSP, RFC 7826 §18.54), of
// a file or a listing over TCP (FTP, RFC 959 §4.1.2, RFC 2428).
type Media struct {
	Addr    netip.Addr // not valid: the address of the side By
	By      flow.Dir
	Port    uint16
	Proto   flow.Proto // zero: UDP
	Secured bool       // SRTP, whose keys were not sent in clear
}

// maxMedia bounds what one talk may announce.
const maxMedia = 16

func (c *Conversation) announce(m Media) {
	if m.Port == 0 || len(c.media) >= maxMedia || slices.Contains(c.media, m) {
		return
	}
	c.media = append(c.media, m)
}

// session reads a session description: an address and, for each kind of media, a
// port and a profile. Keys that stand beside it (RFC 4568) are everybody's.
func (v *view) session(b []byte, by flow.Dir) {
	if !bytes.HasPrefix(b, []byte("v=0")) {
		return
	}
	m := Media{By: by}
	keys := bytes.Contains(b, []byte("\na=crypto:"))
	eachLine(b, func(line []byte) {
		switch {
		case bytes.HasPrefix(line, []byte("c=IN IP")):
			_, addr, _ := bytes.Cut(line[5:], []byte(" "))
			addr, _, _ = bytes.Cut(addr, []byte("/")) // a group's time to live
			if m.Addr, _ = netip.ParseAddr(string(addr)); m.Addr.IsUnspecified() {
				m.Addr = netip.Addr{}
			}
		case bytes.HasPrefix(line, []byte("m=")):
			words := bytes.Fields(line[2:])
			if len(words) < 3 || !bytes.Contains(words[2], []byte("RTP/")) {
				return
			}
			port, _, _ := bytes.Cut(words[1], []byte("/"))
			m.Port, m.Secured = number16(port), bytes.Contains(words[2], []byte("SAVP")) && !keys
			v.c.announce(m)
		}
	})
}

// transport reads RTSP's Transport field: the ports on both sides.
func (v *view) transport(value []byte) {
	secured := bytes.Contains(value, []byte("SAVP"))
	for _, part := range bytes.Split(value, []byte(";")) {
		key, ports, _ := bytes.Cut(bytes.TrimSpace(part), []byte("="))
		m := Media{Secured: secured}
		switch string(key) {
		case "client_port":
		case "server_port":
			m.By = flow.Reply
		default:
			continue
		}
		if v.c.turned {
			m.By ^= 1
		}
		first, last, _ := bytes.Cut(ports, []byte("-"))
		for _, p := range [][]byte{first, last} {
			m.Port = number16(p)
			v.c.announce(m)
		}
	}
}

// number16 is a decimal port, or 0.
func number16(b []byte) uint16 {
	n, err := strconv.ParseUint(string(b), 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// readRTSP knows RTSP (RFC 7826, 2326) by request or status line.
func readRTSP(v *view, r *Result) state {
	target, _, ok := textRequest(v.up, " RTSP/")
	if !ok && !v.prefix("RTSP/1.0 ") && !v.prefix("RTSP/2.0 ") {
		return no
	}
	r.readable("RTSP: camera picture and sound are announced, and mostly sent, in clear")
	if rest, ok := bytes.CutPrefix(target, []byte("rtsp://")); ok {
		if i := bytes.IndexByte(rest, '/'); i >= 0 {
			rest = rest[:i]
		}
		if i := bytes.LastIndexByte(rest, '@'); i >= 0 {
			user, password, _ := bytes.Cut(rest[:i], []byte(":"))
			r.credential("rtsp-url", user, password)
			rest = rest[i+1:]
		}
		r.name(hostHeader(rest), "host")
	}
	for _, said := range [2][]byte{v.up, v.down} { // a camera asks who is there only after the first request
		for n := 0; n < 8 && len(said) > 0; n++ {
			head, rest, whole := cutHead(said)
			line, fields, _ := bytes.Cut(head, []byte("\n"))
			method, _, _ := bytes.Cut(line, []byte(" "))
			size := 0
			eachField(fields, func(name, value []byte) {
				switch {
				case equalFold(name, "authorization"):
					r.authorization("rtsp", method, value)
				case equalFold(name, "transport"):
					v.transport(value)
				case equalFold(name, "content-length"):
					size = int(number16(value))
				}
			})
			if !whole || size > len(rest) {
				break
			}
			said = rest[size:]
		}
	}
	if r.Credentials != "" && len(v.c.media) > 0 {
		return final
	}
	return yes
}

// readSIP knows SIP (RFC 3261) by request or status line.
func readSIP(v *view, r *Result) state {
	target, _, ok := textRequest(v.up, " SIP/")
	ok = ok && (bytes.HasPrefix(target, []byte("sip")) || bytes.HasPrefix(target, []byte("tel:")))
	if !ok && !v.prefix("SIP/2.0 ") {
		return no
	}
	r.readable("SIP without TLS: who calls whom in clear")
	by := v.dir
	if v.c.proto == flow.TCP {
		by = flow.Orig
	}
	for _, said := range [2][]byte{v.up, v.down} {
		head, body, whole := cutHead(said)
		line, fields, _ := bytes.Cut(head, []byte("\n"))
		method, _, _ := bytes.Cut(line, []byte(" "))
		eachField(fields, func(name, value []byte) {
			if equalFold(name, "authorization") || equalFold(name, "proxy-authorization") {
				r.authorization("sip", method, value)
			}
		})
		if whole {
			v.session(body, by)
		}
		by ^= 1
	}
	return finalIf(r.Credentials != "" && len(v.c.media) > 0)
}

// readRTMP knows RTMP by its handshake: version 3, a time, four zeros, 1528 bytes.
func readRTMP(v *view, r *Result) state {
	ok := func(b []byte) bool {
		return len(b) >= 9 && b[0] == 3 && (binary.BigEndian.Uint32(b[5:]) == 0 || v.port(1935))
	}
	if len(v.up) > 0 && !ok(v.up) || len(v.up) == 0 && !ok(v.down) || !v.port(1935) && len(v.up) < 1537 && len(v.down) < 1537 {
		return no
	}
	r.readable("RTMP without TLS")
	return final
}

// readMPEG knows a transport stream, as television over the network is sent (ISO/IEC
// 13818-1 §2.4.3): packets of 188 bytes, each of which begins with 0x47.
func readMPEG(v *view, r *Result) state {
	const size, sync, scrambled = 188, 0x47, 0xc0
	b := v.up
	if len(b) == 0 {
		b = v.down
	}
	if len(b) < 2*size || len(b)%size != 0 && v.c.proto == flow.UDP {
		return no
	}
	r.readable("MPEG-TS: sound or picture in clear")
	for ; len(b) >= size; b = b[size:] {
		if b[0] != sync {
			return no
		}
		if b[3]&scrambled != 0 {
			r.cannotTell("MPEG-TS: sound or picture, at least in part scrambled")
		}
	}
	return final
}

// readBitTorrent knows BitTorrent's handshake and its DHT.
func readBitTorrent(v *view, r *Result) state {
	dht := bytes.HasPrefix(v.up, []byte("d1:")) && (bytes.Contains(v.up, []byte(":id20:")) || bytes.Contains(v.up, []byte("1:y1:"))) ||
		bytes.HasPrefix(v.up, []byte("d2:ip")) && bytes.Contains(v.up, []byte("1:y1:r"))
	udp := v.c.proto == flow.UDP
	switch {
	case v.prefix("\x13BitTorrent protocol"), dht:
	case udp && bytes.HasPrefix(v.up, []byte("BT-SEARCH * HTTP/1.")): // BEP 14
	case udp && len(v.up) >= 40 && string(v.up[20:40]) == "\x13BitTorrent protocol": // within uTP
	case udp && utpOpens(v.up):
		r.cannotTell("BitTorrent over uTP; what is shared is hidden with a key that others may know, or not at all")
		return yes
	case udp && v.c.best.App == "bittorrent" && len(v.up) >= 20 && v.up[0]&0x0f == 1 && v.up[0] <= 0x41:
		r.cannotTell(v.c.best.Reason)
		return yes
	default:
		return no
	}
	r.readable("BitTorrent: what is shared in clear")
	return final
}

// utpOpens knows the first packet of BitTorrent's own transport (BEP 29): type 4,
// version 1, an extension that ends, nothing heard yet and nothing to acknowledge.
func utpOpens(b []byte) bool {
	if len(b) < 20 || b[0] != 0x41 || b[1] > 2 || binary.BigEndian.Uint32(b[8:]) != 0 || binary.BigEndian.Uint16(b[18:]) != 0 {
		return false
	}
	if b[1] == 0 {
		return len(b) == 20
	}
	return len(b) >= 22 && b[20] == 0 && len(b) == 22+int(b[21])
}

const stunMagic = "\x21\x12\xa4\x42"

// isSTUN checks a STUN header (RFC 8489 §5).
func isSTUN(b []byte, missing int) bool {
	return len(b) >= 20 && b[0] < 4 && string(b[4:8]) == stunMagic && b[3]&3 == 0 && int(binary.BigEndian.Uint16(b[2:])) <= len(b)+missing-20
}

// isClassicSTUN checks the header of RFC 3489, which had no magic cookie.
func isClassicSTUN(b []byte, missing int) bool {
	return len(b) >= 20 && b[0] <= 1 && (b[1] == 0x01 || b[1] == 0x11 || b[1] == 0x02) && int(binary.BigEndian.Uint16(b[2:])) == len(b)+missing-20
}

// readSTUN knows STUN and TURN. They find a way for something else, which may
// come in the same flow: so the answer stays open.
func readSTUN(v *view, r *Result) state {
	b := v.up
	if len(b) >= 22 && b[0] == 0 && int(binary.BigEndian.Uint16(b)) == len(b)-2 { // framed for TCP (RFC 4571)
		b = b[2:]
	}
	if v.c.proto == flow.TCP && len(b) >= 22 && b[0] == 0 && b[2] < 4 && string(b[6:10]) == stunMagic { // more follows
		b = b[2:]
	}
	if !isSTUN(b, v.missing) && !isSTUN(v.down, 0) && !(v.port(3478) && isClassicSTUN(b, v.missing)) {
		return no
	}
	r.harmless("STUN: finds a way for a call, and carries none of it")
	return yes
}

// rtpTrace is the last packet of one direction that looked like RTP.
type rtpTrace struct {
	source uint32
	seq    uint16
	kind   byte // with the top bit, so that zero stands for none
}

// readRTP knows RTP (RFC 3550 §5.1) by two packets of one source with rising
// numbers, for one header alone is any bytes; RTCP (§6.1) by reports that fill the
// datagram.
func readRTP(v *view, r *Result) state {
	b := v.up
	if b[0]>>6 != 2 { // a datagram is never empty
		return no
	}
	if isRTCP(b) {
		r.App = "rtcp"
		r.readable("RTCP: reports about a call or a picture in clear")
		return yes
	}
	at, ok := rtpPayload(b)
	if !ok {
		return no
	}
	now := rtpTrace{binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint16(b[2:]), b[1] | 0x80}
	last := v.c.rtp[v.dir]
	v.c.rtp[v.dir] = now
	if step := now.seq - last.seq; last.kind != now.kind || last.source != now.source || step == 0 || step > 32 {
		return no
	}
	r.cannotTell("RTP: sound or picture; nothing in its packets says whether they are encrypted (SRTP)")
	if judge(b[at:]) == looksStructured {
		r.readable("RTP: sound or picture in clear")
	}
	return final
}

// rtpPayload is where the payload of what may be an RTP packet begins.
func rtpPayload(b []byte) (int, bool) {
	if len(b) < 12 || b[0]>>6 != 2 {
		return 0, false
	}
	if kind := b[1] & 0x7f; kind > 34 && kind < 96 { // not assigned (RFC 3551 §6), or RTCP's
		return 0, false
	}
	at := 12 + 4*int(b[0]&0x0f)
	if b[0]&0x10 != 0 { // a header extension
		if len(b) < at+4 {
			return 0, false
		}
		at += 4 + 4*int(binary.BigEndian.Uint16(b[at+2:]))
	}
	return at, at < len(b)
}

func isRTCP(b []byte) bool {
	if len(b) < 8 || b[1] != 200 && b[1] != 201 { // a compound begins with a report
		return false
	}
	for len(b) > 0 {
		if len(b) < 4 || b[0]>>6 != 2 || b[1] < 192 || b[1] > 213 {
			return false
		}
		n := 4 + 4*int(binary.BigEndian.Uint16(b[2:]))
		if n > len(b) {
			return false
		}
		b = b[n:]
	}
	return true
}
