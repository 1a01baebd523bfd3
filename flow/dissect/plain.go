package dissect

import (
	"bytes"
	"encoding/binary"

	"github.com/netcurtain/netcurtain/flow"
)

// readPlain knows talks in clear text by the words with which they begin: files, code
// and news, and the JSON by which lamps are switched.
func readPlain(v *view, r *Result) state {
	switch {
	case gitRequest(v.up):
		r.App = "git"
		r.readable("git without TLS or SSH: code in clear")
	case v.prefix("@RSYNCD: "):
		r.App = "rsync"
		r.readable("rsync: files in clear")
	case v.port(11211) && (memcached(v.up) || memcached(v.down)):
		r.App = "memcached"
		r.readable("memcached: what is kept there in clear")
	case v.port(119) && (reply(v.down, "200") || reply(v.down, "201") || words(v.up, "MODE READER", "GROUP", "LIST", "CAPABILITIES", "AUTHINFO")):
		r.App = "nntp"
		asked := false
		eachLine(v.up, func(line []byte) { asked = asked || word(line, "STARTTLS") })
		return upgrade(v, r, asked, "NNTP: news without TLS")
	case bytes.HasPrefix(v.up, []byte("SpotUdp")):
		r.App = "spotify"
		v.discovery(r, "looks for players of Spotify")
	case v.port(17500) && bytes.HasPrefix(v.up, []byte(`{"host_int": `)):
		r.App = "dropbox"
		v.discovery(r, "looks for other copies of Dropbox")
	default:
		return lampJSON(v, r)
	}
	return final
}

// gitRequest knows git's own transport: four hex digits of length, then what is asked for.
func gitRequest(b []byte) bool {
	return len(b) > 16 && isHex(b[:4]) && (bytes.HasPrefix(b[4:], []byte("git-upload-")) || bytes.HasPrefix(b[4:], []byte("git-receive-")))
}

// memcached knows commands and answers, in a datagram behind a frame of eight bytes.
func memcached(b []byte) bool {
	if len(b) > 8 && b[4] == 0 && b[6]|b[7] == 0 {
		b = b[8:]
	}
	return words(b, "get", "gets", "set", "add", "delete", "incr", "stats", "version", "VALUE", "STAT", "STORED", "END", "VERSION") && bytes.Contains(b, []byte("\r\n"))
}

// lampJSON knows lamps that are switched by JSON on a port of their own, in the house.
func lampJSON(v *view, r *Result) state {
	b := v.up
	if len(b) < 8 || b[0] != '{' || !v.c.local || !looksReadable(b) {
		return no
	}
	switch {
	case v.c.proto == flow.UDP && (v.port(38899) || v.port(38900)) && bytes.Contains(b, []byte(`"method"`)):
		r.App = "wiz"
		r.readable("WiZ: commands to lamps in clear, within the house")
	case v.c.proto == flow.UDP && (v.port(4001) || v.port(4002) || v.port(4003)) && bytes.HasPrefix(b, []byte(`{"msg"`)):
		r.App = "govee"
		r.readable("Govee: commands to lamps in clear, within the house")
	case v.c.proto == flow.TCP && v.port(55443) && (bytes.Contains(b, []byte(`"method"`)) || bytes.Contains(b, []byte(`"params"`))):
		r.App = "yeelight"
		r.readable("Yeelight: commands to lamps in clear, within the house")
	default:
		return no
	}
	var ids idScan
	ids.scan(b)
	ids.into(r)
	return final
}

// readRPC knows Sun's remote procedure calls (RFC 5531 §9), over TCP behind a mark of
// the record's size: version 2 of a program, of which NFS is one.
func readRPC(v *view, r *Result) state {
	const nfs, call, version = 100003, 0, 2
	b := v.up
	if v.c.proto == flow.TCP {
		if len(b) < 4 || b[0]&0x80 == 0 {
			return no
		}
		b = b[4:]
	}
	if len(b) < 24 || binary.BigEndian.Uint32(b[4:]) != call || binary.BigEndian.Uint32(b[8:]) != version {
		return no
	}
	program, release := binary.BigEndian.Uint32(b[12:]), binary.BigEndian.Uint32(b[16:])
	if program < 100000 || program >= 200000 || release == 0 || release > 10 { // the assigned ones
		return no
	}
	r.App = "sunrpc"
	r.readable("remote procedure calls in clear")
	if program == nfs {
		r.App = "nfs"
		r.readable("NFS: files in clear")
	}
	const gss = 6
	if len(b) >= 28 && binary.BigEndian.Uint32(b[24:]) == gss { // RFC 2203: from who signs up to who encrypts
		r.cannotTell("remote procedure calls that sign in by Kerberos, and may be encrypted")
	}
	return final
}

// readTunnel knows the tunnels that came before VPNs were encrypted: L2TP (RFC 2661
// §3.1) and the control connection of PPTP (RFC 2637 §2).
func readTunnel(v *view, r *Result) state {
	b := v.up
	if v.c.proto == flow.TCP {
		if len(b) < 12 || string(b[4:8]) != "\x1a\x2b\x3c\x4d" || b[2] != 0 || b[3] != 1 {
			return no
		}
		r.App = "pptp"
		r.cannotTell("PPTP: its encryption, if any, is broken")
		return final
	}
	// A control message says its length; its sequence numbers are there.
	if len(b) < 12 || b[0] != 0xc8 || b[1] != 2 || int(binary.BigEndian.Uint16(b[2:])) != v.size() || !v.port(1701) {
		return no
	}
	r.App = "l2tp"
	r.readable("L2TP: a tunnel without encryption of its own")
	return final
}

// readESPHome knows the frames of ESPHome on its port: a zero, a size and a type in
// clear; or a one and, behind a size of two bytes, what Noise encrypts.
func readESPHome(v *view, r *Result) state {
	b := v.up
	if !v.port(6053) || len(b) < 3 {
		return no
	}
	switch {
	case b[0] == 0 && b[2] == 1: // HelloRequest
		r.readable("ESPHome without encryption: readings and commands in clear")
	case len(b) >= 8 && b[0] == 1 && b[1]|b[2] == 0 && b[3] == 1 && b[4] == 0 && b[5] >= 33 && b[6] == 0: // nothing, then the first message of Noise
		r.encrypted("ESPHome: keys are agreed on by Noise")
	default:
		return no
	}
	return final
}
