package dissect

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // what CRAM-MD5 and APOP are made of
	"encoding/hex"
)

// sasl notes the credential of a command that signs in by SASL (RFC 4422): the
// mechanism stands in the command, what it says in the same line or in those that
// follow. In tagged talks (IMAP) each command has a word before it.
func (r *Result) sasl(prefix string, v *view, command string, tagged bool) {
	var mechanism []byte
	var said [3][]byte // without their base64
	n := 0
	eachLine(v.up, func(line []byte) {
		if mechanism != nil {
			if n < len(said) && !isCommand(line) {
				said[n] = unbase64(line)
				n++
			}
			return
		}
		if tagged {
			_, line, _ = bytes.Cut(line, []byte(" "))
		}
		if words := bytes.Fields(after(line, command)); len(words) > 0 {
			mechanism = words[0]
			if len(words) > 1 && len(words[1]) > 1 { // "=" stands for none
				said[0], n = unbase64(words[1]), 1
			}
		}
	})
	if mechanism != nil {
		r.mechanism(prefix, mechanism, said, lastChallenge(v.down))
	}
}

// isCommand reports a line that is none of base64.
func isCommand(line []byte) bool { return bytes.IndexByte(line, ' ') >= 0 || equalFold(line, "quit") }

// mechanism notes what the messages of one mechanism tell.
func (r *Result) mechanism(prefix string, mechanism []byte, said [3][]byte, challenge []byte) {
	switch upper := string(bytes.ToUpper(mechanism)); upper {
	case "PLAIN": // RFC 4616
		var user, password []byte
		if parts := bytes.SplitN(said[0], []byte{0}, 3); len(parts) == 3 {
			user, password = parts[1], parts[2]
		}
		r.credential(prefix+"-password", user, password)
	case "LOGIN":
		r.credential(prefix+"-password", said[0], said[1])
	case "CRAM-MD5": // RFC 2195
		user, answer, _ := cutLast(said[0], ' ')
		r.credential(prefix+"-digest", user, nil)
		r.guessed(user, answer, func(password string) []byte {
			mac := hmac.New(md5.New, []byte(password))
			mac.Write(challenge)
			return mac.Sum(nil)
		})
	case "XOAUTH2", "OAUTHBEARER":
		_, rest, _ := bytes.Cut(said[0], []byte("user="))
		user, _, _ := bytes.Cut(rest, []byte{1})
		r.credential(prefix+"-bearer", user, nil)
	case "EXTERNAL", "ANONYMOUS": // tell no secret
	case "GSSAPI", "NTLM", "KERBEROS_V4", "SPNEGO":
		r.Credentials = prefix + "-authorization"
	default: // DIGEST-MD5, SCRAM-…: the user is told, the password only in a digest
		_, rest, ok := bytes.Cut(said[0], []byte("n="))
		user, _, _ := bytes.Cut(rest, []byte(","))
		if !ok {
			user = readDigest(said[1]).user
		}
		r.credential(prefix+"-digest", user, nil)
	}
}

// apop notes POP3's own way to sign in (RFC 1939 §7): the user, and a digest of the
// greeting's time and the password.
func (r *Result) apop(rest, greeting []byte) {
	user, answer, _ := bytes.Cut(rest, []byte(" "))
	r.credential("pop3-digest", user, nil)
	line, _, _ := bytes.Cut(greeting, []byte("\n"))
	if from, to := bytes.IndexByte(line, '<'), bytes.LastIndexByte(line, '>'); from >= 0 && to > from {
		r.guessed(user, answer, func(password string) []byte {
			sum := md5.Sum(append(bytes.Clone(line[from:to+1]), password...)) //nolint:gosec // as above
			return sum[:]
		})
	}
}

// guessed tries the known passwords of this user: a digest hides the password only
// from who cannot guess it.
func (r *Result) guessed(user, answer []byte, digest func(password string) []byte) {
	for _, known := range defaultLogins {
		if string(user) == known.user && bytes.EqualFold(hex.AppendEncode(nil, digest(known.password)), answer) {
			r.expose().Default = true
		}
	}
}

// lastChallenge is what the server's last line asked: "334 " or "+ " and base64.
func lastChallenge(down []byte) (challenge []byte) {
	eachLine(down, func(line []byte) {
		for _, prefix := range [...]string{"334 ", "+ "} {
			if rest, ok := bytes.CutPrefix(line, []byte(prefix)); ok {
				challenge = unbase64(rest)
			}
		}
	})
	return challenge
}

func cutLast(b []byte, sep byte) (before, after []byte, ok bool) {
	if i := bytes.LastIndexByte(b, sep); i >= 0 {
		return b[:i], b[i+1:], true
	}
	return b, nil, false
}

// xmppLogin notes how a client of XMPP signs in: by SASL within elements (RFC 6120
// §6), or as it was before (XEP-0078).
func (r *Result) xmppLogin(up []byte) {
	if _, rest, ok := bytes.Cut(up, []byte("<auth ")); ok {
		tag, text, _ := bytes.Cut(rest, []byte(">"))
		text, _, _ = bytes.Cut(text, []byte("<"))
		if _, value, ok := bytes.Cut(tag, []byte("mechanism=")); ok && len(value) > 1 {
			name, _, _ := bytes.Cut(value[1:], value[:1])
			r.mechanism("xmpp", name, [3][]byte{unbase64(text)}, nil)
		}
		return
	}
	if password := element(up, "password"); password != nil {
		r.credential("xmpp-password", element(up, "username"), password)
	} else if element(up, "digest") != nil {
		r.credential("xmpp-digest", element(up, "username"), nil)
	}
}

// element is the text of the first XML element of a name, or nil.
func element(b []byte, name string) []byte {
	for {
		_, rest, ok := bytes.Cut(b, []byte("<"+name))
		if !ok {
			return nil
		}
		b = rest
		attributes, rest, _ := bytes.Cut(rest, []byte(">"))
		if len(attributes) > 0 && attributes[0] != ' ' { // a longer name
			continue
		}
		text, _, ok := bytes.Cut(rest, []byte("</"+name+">"))
		if !ok {
			return nil
		}
		return text
	}
}
