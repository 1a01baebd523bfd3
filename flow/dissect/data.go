package dissect

import (
	"bytes"
	"encoding/binary"
)

// readRedis knows RESP, Redis's protocol.
func readRedis(v *view, r *Result) state {
	if !respArray(v.up) && !(v.port(6379) && (respReply(v.up) || respReply(v.down) || words(v.up, "PING", "AUTH", "INFO", "SELECT", "GET", "SET"))) {
		return no
	}
	r.readable("Redis without TLS")
	if user, password, ok := redisLogin(v.up); ok {
		r.credential("redis-password", user, password)
	}
	return final
}

// redisLogin is what AUTH [user] password said, as an array of bulk strings or in a line.
func redisLogin(b []byte) (user, password []byte, ok bool) {
	if line, _, whole := bytes.Cut(b[:min(len(b), 128)], []byte("\r\n")); whole && word(line, "AUTH") {
		words := bytes.Fields(line[len("AUTH"):])
		switch len(words) {
		case 1:
			return nil, words[0], true
		case 2:
			return words[0], words[1], true
		}
	}
	for i := 0; i+6 <= min(len(b), 128); i++ {
		if ok = equalFold(b[i:i+6], "auth\r\n"); ok {
			b = b[i+6:]
			break
		}
	}
	for n := 0; ok && n < 2; n++ {
		size, rest, _ := bytes.Cut(b, []byte("\r\n"))
		value, rest, whole := bytes.Cut(rest, []byte("\r\n"))
		if !whole || len(size) < 2 || size[0] != '$' {
			break
		}
		user, password, b = password, value, rest
	}
	return user, password, ok
}

func respArray(b []byte) bool {
	line, rest, ok := bytes.Cut(b, []byte("\r\n"))
	return ok && len(line) >= 2 && len(line) < 8 && line[0] == '*' && isDigit(line[1]) && len(rest) > 1 && rest[0] == '$' && isDigit(rest[1])
}

func respReply(b []byte) bool {
	return len(b) >= 3 && bytes.IndexByte([]byte("+-:$*"), b[0]) >= 0 && bytes.Contains(b, []byte("\r\n"))
}

// readAMQP knows AMQP 0-9-1 and 1.0 by their protocol header.
func readAMQP(v *view, r *Result) state {
	if !v.prefix("AMQP") {
		if !amqpFrame(v.up) && !amqpFrame(v.down) {
			return no
		}
		r.readable("AMQP without TLS")
		return final
	}
	if len(v.up) >= 8 && v.up[4] == 2 && helloIn(v.up) >= 0 {
		return upgrade(v, r, true, "")
	}
	r.readable("AMQP without TLS")
	if bytes.Contains(v.up, []byte("\x05PLAIN")) {
		_, rest, _ := bytes.Cut(v.up, []byte("\x05PLAIN"))
		body := reader{b: rest}
		body.u16()
		parts := bytes.SplitN(body.vec16(), []byte{0}, 3) // sizes beyond 64 KiB are none that we hold
		if len(parts) == 3 {
			r.credential("amqp-password", parts[1], parts[2])
		} else {
			r.Credentials = "amqp-password"
		}
	}
	if len(v.up) > 64 {
		return final
	}
	return yes
}

// amqpFrame knows a session under way: type, channel, size, payload, 0xCE.
func amqpFrame(b []byte) bool {
	if len(b) < 8 || b[0] != 1 && b[0] != 2 && b[0] != 3 && b[0] != 8 || b[1] != 0 {
		return false
	}
	n := binary.BigEndian.Uint32(b[3:])
	if b[0] == 1 && b[2] == 0 && len(b) >= 13 && string(b[7:11]) == "\x00\x0a\x00\x0a" { // connection.start
		return true
	}
	return n < maxStream && len(b) >= 8+int(n) && b[7+n] == 0xce
}

// readPostgres knows PostgreSQL by its startup or SSL request.
func readPostgres(v *view, r *Result) state {
	b := v.up
	if v.port(5432) && len(b) == 0 && postgresMessages(v.down) {
		r.readable("PostgreSQL without TLS")
		return yes
	}
	if len(b) < 8 {
		return no
	}
	n, code := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	switch {
	case n == 8 && code == 80877103:
		return upgrade(v, r, true, "PostgreSQL without TLS")
	case n == 8 && code == 80877104, n == 16 && code == 80877102: // GSS encryption, cancel
	case code == 3<<16 && n < 1024 && bytes.Contains(b, []byte("user\x00")):
		if len(v.down) >= 9 && v.down[0] == 'R' && v.down[8] == 3 && bytes.IndexByte(b[min(int(n), len(b)):], 'p') == 0 {
			_, user, _ := bytes.Cut(b[:n], []byte("user\x00"))
			user, _, _ = bytes.Cut(user, []byte{0})
			message := reader{b: b[n:]}
			message.take(3) // its type and half its size
			r.credential("postgres-password", user, bytes.TrimRight(message.take(message.u16()-4), "\x00"))
		}
	case v.port(5432) && postgresMessages(v.up) && (len(v.down) == 0 || postgresMessages(v.down)):
	default:
		return no
	}
	r.readable("PostgreSQL without TLS")
	return yes
}

// postgresMessages knows a session under way: typed messages that fit.
func postgresMessages(b []byte) bool {
	seen := 0
	for len(b) >= 5 {
		n := binary.BigEndian.Uint32(b[1:])
		if !(b[0] >= 'A' && b[0] <= 'Z' || b[0] >= 'a' && b[0] <= 'z' || b[0] == '1' || b[0] == '2' || b[0] == '3') || n < 4 || n > 1<<20 {
			return false
		}
		seen++
		b = b[min(len(b), 1+int(n)):]
	}
	return seen > 0
}

// readMySQL knows MySQL by the server's greeting: protocol 10, a version, a NUL.
func readMySQL(v *view, r *Result) state {
	b := v.down
	if len(b) == 0 && mysqlAsksTLS(v.up) {
		return upgrade(v, r, true, "MySQL without TLS")
	}
	if len(b) < 12 || b[3] != 0 {
		return no
	}
	if b[4] == 0xff && mysqlRefuses(b) {
		r.readable("MySQL without TLS: the server refused to talk")
		return yes
	}
	if b[4] != 10 {
		return no
	}
	n := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
	end := bytes.IndexByte(b[5:min(len(b), 70)], 0)
	if n < 30 || n > 512 || end < 3 || !isDigit(b[5]) {
		return no
	}
	if up := v.up; len(up) >= 36 && up[3] == 1 && binary.LittleEndian.Uint32(up[4:])&0x0800 != 0 { // CLIENT_SSL
		return upgrade(v, r, true, "MySQL without TLS")
	}
	r.readable("MySQL without TLS")
	return yes
}

// mysqlRefuses knows an error in place of the greeting: its number, 1000 or more,
// and a text up to the end.
func mysqlRefuses(b []byte) bool {
	number := binary.LittleEndian.Uint16(b[5:])
	return int(b[0])|int(b[1])<<8|int(b[2])<<16 == len(b)-4 && number >= 1000 && number < 5000 && looksReadable(b[7:])
}

// mysqlAsksTLS knows the request for TLS where the greeting was not seen: 32 octets,
// the first answer, flags, a size, a character set and 23 zeros.
func mysqlAsksTLS(b []byte) bool {
	return len(b) >= 36 && b[0] == 32 && b[1] == 0 && b[2] == 0 && b[3] == 1 &&
		binary.LittleEndian.Uint32(b[4:])&0x0a00 == 0x0a00 && len(bytes.Trim(b[13:36], "\x00")) == 0
}

// readLDAP knows LDAP (RFC 4511 §4.1.1): a sequence of message ID and operation.
func readLDAP(v *view, r *Result) state {
	op, body := ldapOperation(v.up)
	if op == 0 {
		if op, body = ldapOperation(v.down); op == 0 {
			return no
		}
	}
	if !v.port(389) && !v.port(3268) && op != 0x60 && op != 0x63 && op != 0x77 {
		return no
	}
	const request, response = 0x77, 0x78
	if op == request && bytes.Contains(body, []byte("1.3.6.1.4.1.1466.20037")) || op == response && len(v.up) == 0 && serverHelloIn(v.down) > 0 {
		return upgrade(v, r, true, "LDAP without TLS")
	}
	if op == 0x60 {
		if user, password := ldapSimple(body); len(password) > 0 {
			r.credential("ldap-password", user, password)
		}
	}
	r.readable("LDAP without TLS")
	return yes
}

// ldapOperation returns the tag and content of the first message's operation.
func ldapOperation(b []byte) (op int, body []byte) {
	r := reader{b: b}
	if r.u8() != 0x30 {
		return 0, nil
	}
	r.berLength()
	if r.u8() != 0x02 {
		return 0, nil
	}
	if n := r.u8(); n < 1 || n > 4 || r.take(n) == nil {
		return 0, nil
	}
	op = r.u8()
	r.berLength()
	switch {
	case r.bad:
		return 0, nil
	case op >= 0x60 && op <= 0x79, op == 0x42, op == 0x4a, op == 0x50:
		return op, r.b
	}
	return 0, nil
}

func (r *reader) berLength() int {
	n := r.u8()
	if n < 0x80 {
		return n
	}
	k := n & 0x7f
	if k == 0 || k > 4 {
		r.b, r.bad = nil, true
		return 0
	}
	n = 0
	for range k {
		n = n<<8 | r.u8()
	}
	return n
}

// ldapSimple is who binds with which password (RFC 4511 §4.2): of his distinguished
// name the first value.
func ldapSimple(body []byte) (user, password []byte) {
	r := reader{b: body}
	if r.u8() != 2 || r.u8() != 1 {
		return nil, nil
	}
	r.u8()
	if r.u8() != 4 {
		return nil, nil
	}
	user = r.take(r.berLength())
	if _, value, ok := bytes.Cut(user, []byte("=")); ok {
		user, _, _ = bytes.Cut(value, []byte(","))
	}
	if r.u8() != 0x80 {
		return nil, nil
	}
	password = r.take(r.berLength())
	return user, password
}

// readKerberos knows Kerberos (RFC 4120) on its port.
func readKerberos(v *view, r *Result) state {
	b := v.up
	if v.c.proto == 6 && len(b) > 4 {
		b = b[4:]
	}
	if !v.port(88) || len(b) < 16 || b[0] < 0x6a || b[0] > 0x7e {
		return no
	}
	r.readable("Kerberos: who signs in where is clear, the tickets are encrypted")
	return final
}

// readTDS knows TDS, SQL Server's protocol (MS-TDS §2.2.6.5), by its first message,
// whose options say whether TLS is wanted. It comes inside further such messages,
// and stays only when both sides want it: else it hides but the sign-in.
func readTDS(v *view, r *Result) state {
	asked, ok := tdsEncryption(v.up, 0x12)
	if !ok {
		return no
	}
	granted, _ := tdsEncryption(v.down, 0x04)
	const on, required = 1, 3
	if (asked == on || asked == required) && (granted == on || granted == required) {
		return upgrade(v, r, true, "TDS (SQL Server) without TLS")
	}
	r.readable("TDS (SQL Server) without TLS")
	return yes
}

// tdsEncryption is the ENCRYPTION option of a pre-login message of the given type.
func tdsEncryption(b []byte, kind byte) (byte, bool) {
	if len(b) < 8+6 || b[0] != kind || b[1] > 1 || b[7] != 0 || b[8] != 0 { // the first option is VERSION
		return 0, false
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < 8+6 || n > 512 || n > len(b) {
		return 0, false
	}
	body := b[8:n]
	for at := 0; at+5 <= len(body) && body[at] != 0xff; at += 5 {
		off, size := int(binary.BigEndian.Uint16(body[at+1:])), int(binary.BigEndian.Uint16(body[at+3:]))
		if off+size > len(body) {
			return 0, false
		}
		if body[at] == 1 && size == 1 {
			return body[off], true
		}
	}
	return 0, false
}
