package dissect

import (
	"bytes"
	"slices"

	"github.com/netcurtain/netcurtain/flow"
)

// upgrade judges a talk that may turn into TLS (RFC 3207, 2595, 4217, 6120): it is
// readable unless a TLS hello followed the request for it. The request alone
// changes nothing, for the answer may have been no, or taken out on the way.
func upgrade(v *view, r *Result, asked bool, clear string) state {
	at := helloIn(v.up)
	if at < 0 && tlsRecords(v.segment, v.missing) { // what came before, the hellos too, was lost
		r.encrypted("began readable, then changed to TLS, whose handshake was not seen")
		return final
	}
	if at < 0 && answeredTLS(v.down, asked) { // the client's side was not captured, or not all of it
		r.encrypted("began readable, then changed to TLS")
		t := new(TLS)
		if msg, got := handshakeMessage(v.down[serverHelloIn(v.down):], hsServerHello); got == Complete && t.parseServerHello(msg) {
			t.nameWeak()
			if r.TLS = t; nullCipher(t.Cipher) {
				r.Protection = flow.Readable
			}
		}
		return yes
	}
	if !asked {
		r.readable(clear)
		return yes
	}
	if at < 0 {
		r.readable(clear + "; it asked for TLS, but none was seen to follow")
		return yes
	}
	h, st := ParseClientHello(v.up[at:])
	if st == NotTLS {
		r.readable(clear + "; it asked for TLS, but none was seen to follow")
		return yes
	}
	server, waiting := false, false
	if i := serverHelloIn(v.down); i >= 0 {
		if msg, got := handshakeMessage(v.down[i:], hsServerHello); got == Complete {
			server = h.TLS.parseServerHello(msg)
		}
		if server && before13(h.TLS.Version) {
			der, got := serverCertificate(v.down[i:])
			waiting = got == NeedMore && !v.c.dir[0].full() && !v.c.dir[1].full()
			if got == Complete {
				h.TLS.Cert = readCertificate(der, h.ServerName, v.c.at)
			}
		}
	}
	t := h.TLS
	t.nameWeak()
	r.TLS = &t
	r.name(h.ServerName, "sni")
	r.encrypted("began readable, then changed to TLS")
	if nullCipher(t.Cipher) && server {
		r.Protection = flow.Readable
	}
	if st == Complete && server && !waiting {
		return final
	}
	return yes
}

// answeredTLS reports whether the server's side of a talk goes on in TLS. Where the
// request for it was not seen, the line before must have ended.
func answeredTLS(down []byte, asked bool) bool {
	at := serverHelloIn(down)
	return at > 0 && (asked || down[at-1] == '\n' || down[at-1] == '>')
}

// helloIn is where a ClientHello begins within b, or -1.
func helloIn(b []byte) int { return recordIn(b, hsClientHello) }

func serverHelloIn(b []byte) int { return recordIn(b, hsServerHello) }

func recordIn(b []byte, kind byte) int {
	for at := 0; ; at++ {
		i := bytes.Index(b[at:], []byte{recHandshake, 3})
		if i < 0 {
			return -1
		}
		at += i
		if handshakeStart(b[at:], kind) && len(b) >= at+11 && b[at+6] == 0 && b[at+9] == 3 { // length below 64 KiB, then a version
			return at
		}
	}
}

// eachLine calls f with each whole line of text, up to the first binary byte.
func eachLine(b []byte, f func(line []byte)) {
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		if !whole || len(line) > 0 && (line[0] < ' ' && line[0] != '\r' && line[0] != '\t' || line[0] == 0x7f) {
			return
		}
		f(bytes.TrimSuffix(line, []byte("\r")))
		b = rest
	}
}

// word reports whether line begins with a command, in any case, followed by a space
// or an end.
func word(line []byte, command string) bool {
	if len(line) < len(command) || !bytes.EqualFold(line[:len(command)], []byte(command)) {
		return false
	}
	rest := line[len(command):]
	return len(rest) == 0 || rest[0] == ' ' || rest[0] == '\r' || rest[0] == '\n'
}

func words(line []byte, commands ...string) bool {
	for _, c := range commands {
		if word(line, c) {
			return true
		}
	}
	return false
}

func reply(b []byte, code string) bool {
	return len(b) >= 4 && string(b[:3]) == code && (b[3] == ' ' || b[3] == '-')
}

func containsFold(b []byte, upper string) bool {
	return bytes.Contains(bytes.ToUpper(b[:min(len(b), 512)]), []byte(upper))
}

// readSMTP knows SMTP (RFC 5321) by its greeting and its first command.
func readSMTP(v *view, r *Result) state {
	greeted := reply(v.down, "220") || reply(v.down, "250") || reply(v.down, "554")
	spoke := words(v.up, "EHLO", "HELO", "LHLO")
	port := v.port(25) || v.port(587) || v.port(2525) || v.port(465)
	switch {
	case spoke:
	case greeted && (port || containsFold(v.down, "SMTP")) && !containsFold(v.down, "FTP"):
	case port && (words(v.up, "MAIL", "RCPT", "QUIT", "NOOP", "RSET", "AUTH", "STARTTLS") || reply(v.down, "221") || reply(v.down, "354") || reply(v.down, "235")):
	default:
		return no
	}
	asked := false
	eachLine(v.up, func(line []byte) {
		asked = asked || word(line, "STARTTLS")
	})
	r.sasl("smtp", v, "AUTH", false)
	return upgrade(v, r, asked, "SMTP: mail without TLS")
}

// readFTP knows FTP (RFC 959).
func readFTP(v *view, r *Result) state {
	spoke := words(v.up, "USER", "FEAT", "AUTH", "PASS", "SYST", "OPTS", "PASV", "EPSV", "PWD", "CWD", "TYPE", "LIST", "RETR", "QUIT", "NOOP")
	greeted := reply(v.down, "220") || reply(v.down, "331") || reply(v.down, "530") || reply(v.down, "230") ||
		reply(v.down, "421") || reply(v.down, "200") || reply(v.down, "227") || reply(v.down, "226") || reply(v.down, "234")
	switch {
	case v.port(21) && (spoke || greeted || reply(v.down, "211") || reply(v.down, "215") || reply(v.down, "500")):
	case reply(v.down, "220") && (containsFold(v.down, "FTP") || words(v.up, "USER", "FEAT", "AUTH TLS", "AUTH SSL")):
	default:
		return no
	}
	asked := false
	var user []byte
	eachLine(v.up, func(line []byte) {
		asked = asked || words(line, "AUTH TLS", "AUTH SSL", "AUTH TLS-C")
		switch {
		case word(line, "USER"):
			user = after(line, "USER")
		case word(line, "PASS") && !equalFold(user, "anonymous") && !equalFold(user, "ftp"): // who has no secret tells none
			r.credential("ftp-password", user, after(line, "PASS"))
		case word(line, "PORT"):
			v.fileAt(flow.Orig, sixth(after(line, "PORT")))
		case word(line, "EPRT"):
			v.fileAt(flow.Orig, extended(after(line, "EPRT")))
		}
	})
	eachLine(v.down, func(line []byte) {
		_, ends, _ := bytes.Cut(line, []byte("("))
		ends, _, _ = bytes.Cut(ends, []byte(")"))
		switch {
		case reply(line, "227"): // the address in it is often one behind a translation
			v.fileAt(flow.Reply, sixth(ends))
		case reply(line, "229"):
			v.fileAt(flow.Reply, extended(ends))
		}
	})
	return upgrade(v, r, asked, "FTP: names, passwords and listings in clear")
}

// fileAt announces the end to which a file or a listing will be carried.
func (v *view) fileAt(by flow.Dir, port uint16) {
	if v.c.turned {
		by ^= 1
	}
	v.c.announce(Media{By: by, Port: port, Proto: flow.TCP})
}

// sixth is the port in "h1,h2,h3,h4,p1,p2", or 0.
func sixth(b []byte) uint16 {
	parts := bytes.Split(b, []byte(","))
	if len(parts) != 6 {
		return 0
	}
	high, low := number16(parts[4]), number16(parts[5])
	if high > 255 || low > 255 {
		return 0
	}
	return high<<8 | low
}

// extended is the port in "|2|::1|5282|" or "|||6446|", or 0.
func extended(b []byte) uint16 {
	if len(b) == 0 {
		return 0
	}
	parts := bytes.Split(b, b[:1])
	if len(parts) != 5 {
		return 0
	}
	return number16(parts[3])
}

// readPOP3 knows POP3 (RFC 1939).
func readPOP3(v *view, r *Result) state {
	greeted := bytes.HasPrefix(v.down, []byte("+OK")) || bytes.HasPrefix(v.down, []byte("-ERR"))
	alone := len(v.up) == 0 && bytes.HasPrefix(v.down, []byte("+OK ")) // Redis says it without words
	spoke := words(v.up, "USER", "CAPA", "APOP", "STLS", "AUTH", "STAT", "QUIT", "PASS", "UIDL", "LIST", "RETR", "TOP")
	if !(greeted && (v.port(110) || spoke || alone) || v.port(110) && spoke) {
		return no
	}
	asked := false
	var user []byte
	eachLine(v.up, func(line []byte) {
		asked = asked || word(line, "STLS")
		switch {
		case word(line, "USER"):
			user = after(line, "USER")
		case word(line, "PASS"):
			r.credential("pop3-password", user, after(line, "PASS"))
		case word(line, "APOP"):
			r.apop(after(line, "APOP"), v.down)
		}
	})
	r.sasl("pop3", v, "AUTH", false)
	return upgrade(v, r, asked, "POP3: mail without TLS")
}

// readIMAP knows IMAP (RFC 9051) by its greeting or a tagged command.
func readIMAP(v *view, r *Result) state {
	greeted := bytes.HasPrefix(v.down, []byte("* OK")) || bytes.HasPrefix(v.down, []byte("* PREAUTH")) || bytes.HasPrefix(v.down, []byte("* BYE")) ||
		bytes.HasPrefix(v.down, []byte("* CAPABILITY"))
	if !greeted && !imapCommand(v.up) && !(v.port(143) && bytes.HasPrefix(v.down, []byte("* "))) {
		return no
	}
	asked := false
	var waiting [][]byte // arguments of LOGIN that follow as literals (RFC 9051 §4.3)
	eachLine(v.up, func(line []byte) {
		if waiting != nil {
			waiting = append(waiting, bytes.Fields(line)...)
			if n := len(waiting) - 1; waiting[n] != nil && !isLiteral(waiting[n]) {
				r.imapLogin(waiting)
				waiting = nil
			}
			return
		}
		_, command, _ := bytes.Cut(line, []byte(" "))
		asked = asked || word(command, "STARTTLS")
		if !word(command, "LOGIN") {
			return
		}
		r.Credentials = "imap-password"
		if args := bytes.Fields(after(command, "LOGIN")); len(args) > 0 && isLiteral(args[len(args)-1]) {
			waiting = args
		} else {
			r.imapLogin(args)
		}
	})
	r.sasl("imap", v, "AUTHENTICATE", true)
	return upgrade(v, r, asked, "IMAP: mail without TLS")
}

func isLiteral(b []byte) bool { return len(b) > 2 && b[0] == '{' && b[len(b)-1] == '}' }

func (r *Result) imapLogin(args [][]byte) {
	args = slices.DeleteFunc(args, isLiteral)
	if len(args) >= 2 {
		r.credential("imap-password", bytes.Trim(args[0], `"`), bytes.Trim(args[1], `"`))
	}
}

func imapCommand(b []byte) bool {
	tag, command, ok := bytes.Cut(b[:min(len(b), 64)], []byte(" "))
	if !ok || len(tag) == 0 || len(tag) > 16 {
		return false
	}
	command, _, _ = bytes.Cut(command, []byte("\r"))
	return words(command, "CAPABILITY", "LOGIN", "AUTHENTICATE", "STARTTLS", "SELECT", "EXAMINE", "NAMESPACE", "IDLE", "UID")
}

// readXMPP knows XMPP (RFC 6120) by its stream header.
func readXMPP(v *view, r *Result) state {
	if !xmppHeader(v.up) && !xmppHeader(v.down) && !(v.port(5222) && (xmppStanza(v.up) || xmppStanza(v.down))) {
		return no
	}
	r.xmppLogin(v.up)
	return upgrade(v, r, bytes.Contains(v.up, []byte("<starttls")), "XMPP without TLS")
}

func xmppHeader(b []byte) bool {
	return bytes.HasPrefix(b, []byte("<stream:")) ||
		bytes.HasPrefix(b, []byte("<?xml")) && bytes.Contains(b[:min(len(b), 512)], []byte("<stream:stream"))
}

func xmppStanza(b []byte) bool {
	return bytes.HasPrefix(b, []byte("<iq ")) || bytes.HasPrefix(b, []byte("</stream:stream>")) || bytes.HasPrefix(b, []byte("<message ")) || bytes.HasPrefix(b, []byte("<presence"))
}
