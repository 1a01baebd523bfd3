package dissect

import (
	"bytes"
	"crypto/md5" //nolint:gosec // RFC 7616's older half, which cameras speak
	"encoding/base64"
	"encoding/hex"
	"strconv"
)

// Exposure is what anybody on the way could have learned of a person from a
// flow's first bytes. It holds kinds and counts, never what was seen: values are
// looked at while a packet is at hand, and no part of them is kept.
type Exposure struct {
	// User is whose credential it was, masked: the first letter and the length,
	// "a…(5)", no letter of fewer than three and "9+" for the long. "" when none was seen.
	User string
	// Default reports that user and password are ones that makers document, or that
	// are tried by everybody who breaks into devices.
	Default     bool
	Identifiers []Identifier // one for each kind that was seen, in a fixed order
}

// Identifier is a kind of identifier that travelled readable.
type Identifier struct {
	Kind  string // "mac", "imei", "serial", "e-mail", "location", "advertising-id", "device-id"
	Count int    // how often, at most 255
}

// expose is r's exposure, made when there is none yet.
func (r *Result) expose() *Exposure {
	if r.Exposure == nil {
		r.Exposure = new(Exposure)
	}
	return r.Exposure
}

// credential notes that a credential was readable. A nil password is one that
// was not seen.
func (r *Result) credential(kind string, user, password []byte) {
	r.Credentials = kind
	known := password != nil && knownDefault(user, password)
	if len(user) == 0 && !known {
		return
	}
	x := r.expose()
	x.User, x.Default = mask(user), known
}

// mask is what may be told of a user's name.
func mask(user []byte) string {
	n, letter := len(user), ""
	if n == 0 {
		return ""
	}
	if c := user[0]; n >= 3 && (isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'z') {
		letter = string([]byte{c})
	}
	if n >= 9 {
		return letter + "…(9+)"
	}
	return letter + "…(" + strconv.Itoa(n) + ")"
}

// defaultLogins are pairs that makers print in manuals or that malware for
// devices is published to try; gathered by hand from both.
var defaultLogins = [...]struct{ user, password string }{
	{"admin", "admin"}, {"admin", ""}, {"admin", "password"}, {"admin", "1234"}, {"admin", "12345"}, {"admin", "123456"},
	{"admin", "1111"}, {"admin", "111111"}, {"admin", "4321"}, {"admin", "54321"}, {"admin", "9999"}, {"admin", "0000"},
	{"admin", "666666"}, {"admin", "888888"}, {"admin", "admin123"}, {"admin", "admin1234"}, {"admin", "pass"}, {"admin", "default"},
	{"admin", "public"}, {"admin", "smcadmin"}, {"admin", "meinsm"}, {"admin", "jvc"}, {"admin", "tlJwpbo6"}, {"admin", "changeme"},
	{"Admin", "Admin"}, {"administrator", "administrator"}, {"Administrator", "admin"}, {"administrator", "1234"},
	{"admin1", "password"}, {"666666", "666666"}, {"888888", "888888"},
	{"root", "root"}, {"root", ""}, {"root", "admin"}, {"root", "pass"}, {"root", "password"}, {"root", "1234"}, {"root", "12345"},
	{"root", "123456"}, {"root", "1111"}, {"root", "54321"}, {"root", "666666"}, {"root", "888888"}, {"root", "default"}, {"root", "system"},
	{"root", "user"}, {"root", "toor"}, {"root", "alpine"}, {"root", "vizxv"}, {"root", "xc3511"}, {"root", "xmhdipc"}, {"root", "juantech"},
	{"root", "hi3518"}, {"root", "jvbzd"}, {"root", "anko"}, {"root", "klv123"}, {"root", "klv1234"}, {"root", "Zte521"}, {"root", "7ujMko0admin"},
	{"root", "7ujMko0vizxv"}, {"root", "ikwb"}, {"root", "dreambox"}, {"root", "realtek"}, {"root", "zlxx."}, {"root", "00000000"},
	{"user", "user"}, {"guest", "guest"}, {"guest", "12345"}, {"support", "support"}, {"service", "service"}, {"supervisor", "supervisor"},
	{"tech", "tech"}, {"test", "test"}, {"default", "default"}, {"default", ""}, {"ubnt", "ubnt"}, {"pi", "raspberry"},
	{"openhabian", "openhabian"}, {"postgres", "postgres"}, {"sa", ""}, {"", "foobared"},
}

func knownDefault(user, password []byte) bool {
	for _, d := range defaultLogins {
		if string(user) == d.user && string(password) == d.password {
			return true
		}
	}
	return false
}

// authorization notes the credential in an Authorization field (RFC 9110 §11.6.2)
// of HTTP or of RTSP, which took it over; prefix says which.
func (r *Result) authorization(prefix string, method, value []byte) {
	scheme, rest, _ := bytes.Cut(value, []byte(" "))
	switch {
	case equalFold(scheme, "basic"):
		user, password, ok := bytes.Cut(unbase64(rest), []byte(":"))
		if !ok {
			password = nil
		}
		r.credential(prefix+"-basic", user, password)
	case equalFold(scheme, "digest"):
		d := readDigest(rest)
		r.credential(prefix+"-digest", d.user, nil)
		if d.isDefault(method) {
			r.expose().Default = true
		}
	case equalFold(scheme, "bearer"):
		r.Credentials = prefix + "-bearer"
	default:
		r.Credentials = prefix + "-authorization"
	}
}

// unbase64 is at most 512 bytes decoded, or nil. It accepts what lacks its padding.
func unbase64(b []byte) []byte {
	b = bytes.TrimRight(bytes.TrimSpace(b), "=")
	if len(b) == 0 || len(b) > 512 {
		return nil
	}
	out := make([]byte, base64.RawStdEncoding.DecodedLen(len(b)))
	n, err := base64.RawStdEncoding.Decode(out, b)
	if err != nil {
		return nil
	}
	return out[:n]
}

// digest is an answer to a challenge (RFC 7616 §3.4).
type digest struct {
	user, realm, nonce, uri, response, qop, nc, cnonce []byte
	md5                                                bool
}

func readDigest(b []byte) digest {
	d := digest{md5: true}
	for n := 0; len(b) > 0 && n < 16; n++ {
		key, rest, ok := bytes.Cut(b, []byte("="))
		if !ok {
			break
		}
		var value []byte
		if len(rest) > 0 && rest[0] == '"' {
			value, b, _ = bytes.Cut(rest[1:], []byte(`"`))
			_, b, _ = bytes.Cut(b, []byte(","))
		} else {
			value, b, _ = bytes.Cut(rest, []byte(","))
			value = bytes.TrimSpace(value)
		}
		switch key = bytes.TrimSpace(key); {
		case equalFold(key, "username"):
			d.user = value
		case equalFold(key, "realm"):
			d.realm = value
		case equalFold(key, "nonce"):
			d.nonce = value
		case equalFold(key, "uri"):
			d.uri = value
		case equalFold(key, "response"):
			d.response = value
		case equalFold(key, "qop"):
			d.qop = value
		case equalFold(key, "nc"):
			d.nc = value
		case equalFold(key, "cnonce"):
			d.cnonce = value
		case equalFold(key, "algorithm"):
			d.md5 = equalFold(value, "md5")
		}
	}
	return d
}

// isDefault tries the known passwords of this user: the answer hides the password
// only from who cannot guess it.
func (d *digest) isDefault(method []byte) bool {
	if !d.md5 || len(d.response) != 2*md5.Size || string(d.qop) == "auth-int" {
		return false
	}
	for _, known := range defaultLogins {
		if string(d.user) != known.user {
			continue
		}
		secret := hashed(d.user, d.realm, []byte(known.password))
		asked := hashed(method, d.uri)
		answer := hashed(secret, d.nonce, asked)
		if len(d.qop) > 0 {
			answer = hashed(secret, d.nonce, d.nc, d.cnonce, d.qop, asked)
		}
		if bytes.EqualFold(answer, d.response) {
			return true
		}
	}
	return false
}

// hashed is the MD5 of the parts joined by colons, in hex.
func hashed(parts ...[]byte) []byte {
	sum := md5.Sum(bytes.Join(parts, []byte(":"))) //nolint:gosec // as above
	return hex.AppendEncode(nil, sum[:])
}

// formLogin is the user and the password among a form's or a query's fields; ok
// reports that there is a password.
func formLogin(fields []byte) (user, password []byte, ok bool) {
	for n := 0; len(fields) > 0 && n < 64; n++ {
		pair, rest, _ := bytes.Cut(fields, []byte("&"))
		fields = rest
		key, value, _ := bytes.Cut(pair, []byte("="))
		if len(value) == 0 {
			continue
		}
		var lower [16]byte
		switch k := plainKey(key, &lower); string(k) {
		case "password", "passwd", "pass", "pwd", "passphrase", "userpassword", "loginpassword", "loginpas", "psw":
			password, ok = value, true
		case "user", "username", "usr", "login", "loginuse", "email", "account", "uname", "userid", "loginname":
			user = value
		}
	}
	return user, password, ok
}

// after is what follows a command in its line, once.
func after(line []byte, command string) []byte {
	if !word(line, command) {
		return nil
	}
	return bytes.TrimSpace(line[len(command):])
}

// plainKey writes key in lower case and without what joins its words to buf; it
// is empty when that does not fit.
func plainKey(key []byte, buf *[16]byte) []byte {
	n := 0
	for _, c := range key {
		switch {
		case c == '_' || c == '-' || c == '.':
			continue
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		}
		if n == len(buf) {
			return nil
		}
		buf[n] = c
		n++
	}
	return buf[:n]
}
