package dissect

import (
	"bytes"
	"encoding/binary"
)

// prefix reports whether either side begins with s.
func (v *view) prefix(s string) bool {
	return bytes.HasPrefix(v.up, []byte(s)) || bytes.HasPrefix(v.down, []byte(s))
}

// readSSH knows SSH by its identification line (RFC 4253 §4.2).
func readSSH(v *view, r *Result) state {
	if !v.prefix("SSH-") {
		if keyExchange(v.up) || keyExchange(v.down) {
			r.encrypted("SSH, whose first line was not seen")
			return final
		}
		return no
	}
	r.encrypted("SSH")
	if v.prefix("SSH-1.") && !v.prefix("SSH-1.99") && !v.prefix("SSH-2.") {
		r.encrypted("SSH version 1, whose encryption is outdated")
	}
	return final
}

// keyExchange knows SSH's second message (RFC 4253 §7.1): size, padding, number 20,
// a cookie and a list of methods.
func keyExchange(b []byte) bool {
	const kexInit = 20
	if len(b) < 32 || b[0] != 0 || b[5] != kexInit || b[22] != 0 || b[23] != 0 {
		return false
	}
	list := b[26:min(len(b), 26+int(binary.BigEndian.Uint16(b[24:])))]
	return looksReadable(list) && (bytes.Contains(list, []byte("sha")) || bytes.Contains(list, []byte("curve25519")))
}

// readTelnet knows Telnet by its option negotiation (RFC 854); on its port text is enough.
func readTelnet(v *view, r *Result) state {
	if !telnetOption(v.up) && !telnetOption(v.down) {
		if !v.port(23) || !looksReadable(v.up) && !looksReadable(v.down) {
			return no
		}
	}
	r.readable("Telnet: everything typed, passwords too, in clear")
	if bytes.Contains(v.down, []byte("assword")) {
		if user, password, ok := telnetLogin(v.up); ok {
			r.credential("telnet-password", user, password)
			return final
		}
	}
	return yes
}

// telnetLogin is the first two lines typed, without the options between (RFC 854).
func telnetLogin(up []byte) (user, password []byte, ok bool) {
	typed := make([]byte, 0, 128)
	for i := 0; i < len(up) && len(typed) < cap(typed); i++ {
		switch {
		case up[i] == 0x08 || up[i] == 0x7f: // rubbed out
			typed = typed[:max(len(typed)-1, 0)]
		case up[i] != 0xff:
			typed = append(typed, up[i])
		case i+1 < len(up) && up[i+1] == 0xfa: // an option's parameters, up to their end
			end := bytes.Index(up[i:], []byte{0xff, 0xf0})
			if end < 0 {
				return nil, nil, false
			}
			i += end + 1
		case i+1 < len(up) && up[i+1] >= 0xfb:
			i += 2
		default:
			i++
		}
	}
	user, rest, ok1 := bytes.Cut(typed, []byte("\r"))
	password, _, ok2 := bytes.Cut(bytes.TrimLeft(rest, "\x00\n"), []byte("\r"))
	return user, password, ok1 && ok2
}

func telnetOption(b []byte) bool {
	return len(b) >= 3 && b[0] == 0xff && b[1] >= 0xfa && b[1] <= 0xfe && b[2] < 0x40 && (len(b) == 3 || b[3] == 0xff || b[1] == 0xfa || len(b) > 3 && b[3] < 0x80)
}

// readRDP knows RDP by its connection request in TPKT (MS-RDPBCGR §2.2.1.1).
func readRDP(v *view, r *Result) state {
	b := v.up
	if len(b) > 0 && len(b) < 7 && b[0] == 3 {
		return maybe
	}
	if len(b) < 11 || b[0] != 3 || b[1] != 0 || b[5] != 0xe0 {
		return no
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < 11 || n > 512 || int(b[4]) != n-5 {
		return no
	}
	if len(b) > n && handshakeStart(b[n:], hsClientHello) {
		return upgrade(v, r, true, "")
	}
	r.cannotTell("RDP; whether it changes to TLS was not seen yet")
	if refusesTLS(v.down) {
		r.cannotTell("RDP with its own encryption, which is outdated and may be switched off")
	}
	return yes
}

// readRDPDatagram knows RDP's own transport over UDP by the packet that opens it: nothing
// heard yet, and padding up to the size that the way has to carry (MS-RDPEUDP §3.1.5.1.1).
func readRDPDatagram(v *view, r *Result) state {
	const syn, smallest = 0x0001, 1132
	b := v.up
	if len(b) < 16 || !v.port(3389) || string(b[:4]) != "\xff\xff\xff\xff" || binary.BigEndian.Uint16(b[6:])&syn == 0 || v.size() < smallest {
		return no
	}
	r.cannotTell("RDP over UDP; that it is sealed by TLS or DTLS shows only behind its own headers")
	return yes
}

// refusesTLS reports whether the connection is confirmed without TLS: the answer
// names protocol 0, or none at all (MS-RDPBCGR §2.2.1.2).
func refusesTLS(b []byte) bool {
	if len(b) < 11 || b[0] != 3 || b[5] != 0xd0 {
		return false
	}
	const response = 2
	return b[4] == 6 || len(b) >= 19 && b[11] == response && binary.LittleEndian.Uint32(b[15:]) == 0
}

// readVNC knows RFB (RFC 6143) by its version line.
func readVNC(v *view, r *Result) state {
	if !v.prefix("RFB 00") {
		return no
	}
	if helloIn(v.up) >= 0 { // VeNCrypt
		return upgrade(v, r, true, "")
	}
	r.readable("VNC: screen and keys in clear")
	return yes
}

// readSMB knows SMB over TCP (MS-SMB2 §2.1) by the signature behind its length.
func readSMB(v *view, r *Result) state {
	best := no
	for _, b := range [2][]byte{v.up, v.down} {
		for len(b) >= 4 && (v.port(139) && b[0] >= 0x81 && b[0] <= 0x85) { // NetBIOS session service
			n := int(binary.BigEndian.Uint16(b[2:]))
			b = b[min(4+n, len(b)):]
			if best == no { // SMB may follow
				r.App, best = "netbios", yes
				r.readable("NetBIOS: names two neighbours who want to talk, in clear")
			}
		}
		for len(b) >= 20 && b[0] == 0 && string(b[5:8]) == "SMB" {
			r.App = "smb"
			switch string(b[4:8]) {
			case "\xffSMB":
				r.readable("SMB version 1: files in clear")
				return final
			case "\xfdSMB":
				r.encrypted("SMB with encryption")
				return final
			case "\xfcSMB":
				r.readable("SMB: files compressed, not encrypted")
				return final
			case "\xfeSMB":
				if cmd := binary.LittleEndian.Uint16(b[16:]); cmd >= 5 && cmd <= 17 {
					r.readable("SMB: files without encryption")
					return final
				}
				r.cannotTell("SMB; whether it encrypts shows only after the sign-in")
				best = yes
			default:
				return no
			}
			n := int(b[1])<<16 | int(b[2])<<8 | int(b[3])
			b = b[min(4+n, len(b)):]
		}
	}
	return best
}

// readSOCKS knows SOCKS 5 (RFC 1928) and 4 by request and answer.
func readSOCKS(v *view, r *Result) state {
	up, down := v.up, v.down
	if len(up) == 0 && (socksAnswers(down) || len(down) == 2 && v.port(1080) && down[0] == 5 && down[1] == 0) {
		r.readable("SOCKS: the proxy's clients, and what they do not encrypt themselves, in clear")
		return yes
	}
	if len(up) < 3 {
		return no
	}
	v5 := up[0] == 5 && up[1] > 0 && up[1] < 16 && len(up) >= 2+int(up[1]) && methods(up[2:2+int(up[1])])
	v4 := up[0] == 4 && (up[1] == 1 || up[1] == 2) && len(up) >= 9 && bytes.IndexByte(up[8:], 0) >= 0
	switch {
	case !v5 && !v4:
		return no
	case len(down) < 2 && !v.port(1080):
		return maybe
	case len(down) >= 2 && v5 && (down[0] != 5 || down[1] > 3 && down[1] != 0xff):
		return no
	case len(down) >= 2 && v4 && (down[0] != 0 || down[1] < 90 || down[1] > 93):
		return no
	}
	r.readable("SOCKS: the proxy's clients, and what they do not encrypt themselves, in clear")
	if v5 {
		if user, password, ok := socksLogin(up[2+int(up[1]):], down); ok {
			r.credential("socks-password", user, password)
		}
	}
	return v.tunnel(r, up, "SOCKS")
}

// socksAnswers knows a server's side alone: how to sign in, and where it went.
func socksAnswers(b []byte) bool {
	if len(b) >= 4 && b[0] == 5 && b[1] == 2 && b[2] == 1 && b[3] == 0 { // signed in
		b = b[2:]
	}
	return len(b) >= 6 && b[1] == 0 && (b[0] == 5 || b[0] == 1) && b[2] == 5 && b[3] <= 8 && b[4] == 0 && (b[5] == 1 || b[5] == 3 || b[5] == 4)
}

// socksLogin is what a client says when the server chose that it shall sign in by
// user and password (RFC 1929).
func socksLogin(b, down []byte) (user, password []byte, ok bool) {
	const byPassword = 2
	r := reader{b: b}
	if len(down) < 2 || down[1] != byPassword || r.u8() != 1 {
		return nil, nil, false
	}
	user, password = r.vec8(), r.vec8()
	return user, password, !r.bad
}

// tunnel looks at what a client sends through a proxy. Where it goes is readable, so
// the flow is, whatever is inside; that it is TLS is said.
func (v *view) tunnel(r *Result, b []byte, through string) state {
	at := helloIn(b)
	if at < 0 {
		return yes
	}
	h, st := ParseClientHello(b[at:])
	if st != Complete {
		return yes
	}
	r.TLS = &h.TLS
	r.Reason = through + ": where it goes is readable, what it carries is TLS"
	return final
}

func methods(b []byte) bool {
	for _, m := range b {
		if m > 9 && m < 0x80 {
			return false
		}
	}
	return true
}

// readIRC knows IRC (RFC 2812) by its registration.
func readIRC(v *view, r *Result) state {
	spoke := words(v.up, "NICK", "USER", "CAP LS", "CAP REQ") || word(v.up, "PASS") && bytes.Contains(v.up, []byte("NICK "))
	answered := bytes.HasPrefix(v.down, []byte(":")) && (bytes.Contains(v.down, []byte(" NOTICE ")) || bytes.Contains(v.down, []byte(" 001 ")) || bytes.Contains(v.down, []byte(" PRIVMSG ")))
	irc := v.port(6667) || v.port(6666) || v.port(6668) || v.port(6669)
	switch {
	case answered, word(v.up, "NICK"), words(v.up, "USER", "PASS") && bytes.Contains(v.up, []byte("\nNICK ")), words(v.up, "CAP LS", "CAP REQ"), irc && (spoke || words(v.up, "PRIVMSG", "PING", "PONG", "JOIN")):
	case bytes.HasPrefix(v.down, []byte("NOTICE AUTH")), irc && word(v.down, "PING"):
	default:
		return no
	}
	r.readable("IRC without TLS")
	return final
}
