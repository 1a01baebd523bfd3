package dissect

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/netcurtain/netcurtain/flow"
)

// Status is the outcome of reading bytes that may not be all there yet.
type Status uint8

const (
	NeedMore Status = iota // so far it is what was asked for, but more bytes are needed
	Complete               // all of it was read
	NotTLS                 // it is something else
)

// Hello is a ClientHello as it stood on the wire, unencrypted.
type Hello struct {
	ServerName string // server_name (RFC 6066 §3), validated; "" when absent or not a name
	TLS        TLS    // what was offered; Version is the highest offered
}

// Result is the judgement that the hello alone allows: encrypted, by this name.
func (h Hello) Result() Result { return h.result() }

func (h *Hello) result() Result {
	t := h.TLS
	t.nameWeak()
	r := Result{App: "tls", Protection: flow.Encrypted, TLS: &t}
	if h.ServerName != "" {
		r.ServerName, r.NameFrom = h.ServerName, "sni"
	}
	r.Reason = tlsReason(&t)
	return r
}

// TLS record content types and handshake types (RFC 8446 §B.1, §B.3).
const (
	recChangeCipher = 20
	recAlert        = 21
	recHandshake    = 22
	recAppData      = 23
	recHeartbeat    = 24

	hsClientHello = 1
	hsServerHello = 2
	hsCertificate = 11
)

// maxRecord is 2^14 bytes of content and what TLS 1.2 allows a cipher to add.
const maxRecord = 1<<14 + 2048

// maxMajor bounds the major version of a record. Servers must ignore it before
// the version is agreed (RFC 8446 §5.1), so a hello may carry any; crypto/tls
// draws the line here.
const maxMajor = 0x0f

// maxHello bounds a handshake message that we are willing to collect.
const maxHello = 15 << 10

// ParseClientHello reads the ClientHello at the start of a byte stream: a TLS
// hello over any number of records (RFC 8446 §5.1 allows it to be cut anywhere),
// or an SSLv2-compatible one (RFC 5246 §E.2). It answers NeedMore while b is a
// beginning of one, and keeps no reference to b.
func ParseClientHello(b []byte) (Hello, Status) {
	if len(b) > 0 && b[0]&0x80 != 0 {
		return parseSSLv2Hello(b)
	}
	msg, st := handshakeMessage(b, hsClientHello)
	if st != Complete {
		return Hello{}, st
	}
	return parseHello(msg)
}

// handshakeMessage joins the records at the start of b until the first
// handshake message, which must be of the given type, is whole, and returns its
// body. One record, the common case, is not copied.
func handshakeMessage(b []byte, kind byte) ([]byte, Status) {
	var joined []byte
	for first := true; ; first = false {
		frag, rest, st := nextRecord(b)
		if st != Complete && len(frag) == 0 {
			return nil, st
		}
		if first {
			if frag[0] != kind {
				return nil, NotTLS
			}
			joined = frag[:len(frag):len(frag)]
		} else {
			joined = append(joined, frag...)
		}
		if len(joined) >= 4 {
			n := int(joined[1])<<16 | int(joined[2])<<8 | int(joined[3])
			if n > maxHello {
				return nil, NotTLS
			}
			if len(joined) >= 4+n {
				return joined[4 : 4+n], Complete
			}
		}
		if st != Complete {
			return nil, NeedMore
		}
		b = rest
	}
}

// nextRecord takes one handshake record off b. With NeedMore the fragment is
// what there is of it.
func nextRecord(b []byte) (frag, rest []byte, st Status) {
	switch {
	case len(b) == 0:
		return nil, nil, NeedMore
	case b[0] != recHandshake, len(b) > 1 && b[1] > maxMajor:
		return nil, nil, NotTLS
	case len(b) < 5:
		return nil, nil, NeedMore
	}
	n := int(binary.BigEndian.Uint16(b[3:]))
	if n == 0 || n > maxRecord {
		return nil, nil, NotTLS
	}
	if len(b) < 5+n {
		return b[5:], nil, NeedMore
	}
	return b[5 : 5+n], b[5+n:], Complete
}

// reader walks over length-prefixed fields; after a short read it stays bad and
// yields nothing.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.b, r.bad = nil, true // so that a loop over what is left ends
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) u8() int {
	if b := r.take(1); b != nil {
		return int(b[0])
	}
	return 0
}

func (r *reader) u16() int {
	if b := r.take(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *reader) vec8() []byte  { return r.take(r.u8()) }
func (r *reader) vec16() []byte { return r.take(r.u16()) }

// parseHello reads the body of a ClientHello (RFC 8446 §4.1.2).
func parseHello(msg []byte) (Hello, Status) {
	r := reader{b: msg}
	version := r.u16()
	r.take(32) // random
	r.vec8()   // session
	suites := r.vec16()
	r.vec8()   // compression
	if r.bad { // no stricter than servers are, or the odd hello would pass nameless
		return Hello{}, NotTLS
	}
	h := Hello{TLS: TLS{Hello: true, Version: versionName(version)}}
	exts := reader{b: r.vec16()} // absent before TLS 1.0 extensions: then empty
	for len(exts.b) > 0 && !exts.bad {
		id := exts.u16()
		body := exts.vec16()
		if !exts.bad {
			h.extension(id, body)
		}
	}
	if h.TLS.Version == "" { // supported_versions would have replaced a strange one
		if version < 0x0300 {
			return Hello{}, NotTLS
		}
		h.TLS.Version = "1.2" // what a server answers to a number it does not know
	}
	weak := Weakness(0)
	if h.TLS.Version != "1.3" && weakVersion(h.TLS.Version) {
		weak = WeakVersion
	}
	for i := 0; i+1 < len(suites); i += 2 {
		switch suites[i] {
		case 0x00:
			weak |= weakOld[suites[i+1]]
		case 0xc0:
			weak |= weakCurves[suites[i+1]]
		}
	}
	h.TLS.Offered = Offer{h.TLS.Version, weak}
	return h, Complete
}

// Extension numbers (IANA TLS ExtensionType Values).
const (
	extServerName        = 0
	extALPN              = 16
	extSupportedVersions = 43
	extESNI              = 0xffce // draft-ietf-tls-esni-02, before ECH
	extECH               = 0xfe0d // RFC 9849
)

func (h *Hello) extension(id int, body []byte) {
	r := reader{b: body}
	switch id {
	case extServerName:
		list := reader{b: r.vec16()}
		for len(list.b) > 0 && !list.bad {
			kind, name := list.u8(), list.vec16()
			if kind == 0 && h.ServerName == "" {
				h.ServerName = serverName(name)
				h.settleECH()
			}
		}
	case extALPN:
		list := reader{b: r.vec16()}
		for len(list.b) > 0 && len(h.TLS.ALPN) < 8 {
			p := list.vec8()
			if list.bad || len(p) == 0 {
				return
			}
			if h.TLS.ALPN == nil {
				h.TLS.ALPN = make([]string, 0, 2) // h2 and http/1.1, mostly
			}
			if !isGREASE(p) {
				h.TLS.ALPN = append(h.TLS.ALPN, protocolName(p))
			}
		}
	case extSupportedVersions:
		list := reader{b: r.vec8()}
		best := 0
		for len(list.b) > 0 && !list.bad {
			if v := normalVersion(list.u16()); v > best {
				best = v
			}
		}
		if best != 0 {
			h.TLS.Version = versionName(best)
		}
	case extECH:
		h.TLS.ECHOffered = true
		h.TLS.ECHConfig, h.TLS.ECHSealed = sealedECH(body)
		h.settleECH()
	}
}

// sealedECH reports whether an encrypted_client_hello is one that a client could
// have sealed (RFC 9849 §5): an outer one, with suites of HPKE that are in use, a
// key of their size and room for an inner hello. GREASE of the better clients
// passes too; what does not is GREASE or a test. config is the number of the key
// that the server published.
func sealedECH(body []byte) (config uint8, ok bool) {
	r := reader{b: body}
	outer, kdf, aead := r.u8() == 0, r.u16(), r.u16()
	config = uint8(r.u8())
	key, payload := r.vec16(), r.vec16()
	if r.bad || len(r.b) > 0 || !outer || kdf < 1 || kdf > 3 || aead < 1 || aead > 3 {
		return 0, false
	}
	switch len(key) {
	case 32, 56, 65, 97, 133: // X25519, X448, P-256, P-384, P-521 (RFC 9180 §7.1)
	default:
		return 0, false
	}
	const tag, smallest = 16, 32 + 2 + 1 + 4 + 2 // random, version and the shortest lists
	return config, len(payload) >= smallest+tag
}

// settleECH decides whether the name is an outer one. The extension alone does
// not say so: browsers send it as GREASE beside the real name (RFC 9849 §6.2),
// built so that nobody on the way can tell. The outer name can be told when it is
// one that client-facing servers are known to publish; who sees several hellos can
// tell by ECHConfig.
func (h *Hello) settleECH() {
	if !h.TLS.ECHOffered {
		return
	}
	switch h.ServerName {
	case "cloudflare-ech.com", "cloudflare-esni.com", "public.tls-ech.dev", "cover.defo.ie":
		h.TLS.ECH = true
	}
}

// protocolName returns the usual ALPN names without allocating, and keeps out
// what is not printable.
func protocolName(p []byte) string {
	switch string(p) {
	case "h2":
		return "h2"
	case "http/1.1":
		return "http/1.1"
	case "h3":
		return "h3"
	}
	if len(p) > 32 {
		p = p[:32]
	}
	for _, c := range p {
		if c <= ' ' || c > '~' {
			return fmt.Sprintf("%x", p)
		}
	}
	return string(p)
}

func isGREASE(p []byte) bool { // RFC 8701
	return len(p) == 2 && p[0] == p[1] && p[0]&0x0f == 0x0a
}

// normalVersion maps the drafts of TLS 1.3 to it, and GREASE to 0.
func normalVersion(v int) int {
	switch {
	case v>>8 == 0x7f, v>>8 == 0xfb: // drafts; facebook's fork of draft 23
		return 0x0304
	case v == 0xfefc: // DTLS counts downwards (RFC 9147 §5.3)
		return 0x0304
	case v == 0xfefd:
		return 0x0303
	case v == 0xfeff, v == 0x0100: // as weak as TLS 1.1, but called 1.0
		return 0x0301
	case v>>8 == 3 && v <= 0x0304, v == 0x0002:
		return v
	}
	return 0
}

func versionName(v int) string {
	switch normalVersion(v) {
	case 0x0304:
		return "1.3"
	case 0x0303:
		return "1.2"
	case 0x0302:
		return "1.1"
	case 0x0301:
		return "1.0"
	case 0x0300:
		return "ssl-3.0"
	case 0x0002:
		return "ssl-2.0"
	}
	return ""
}

// parseSSLv2Hello reads a hello in SSLv2 form: two bytes of length with the top
// bit set, type 1, version, lengths of cipher specs, session and challenge.
func parseSSLv2Hello(b []byte) (Hello, Status) {
	if len(b) == 0 || b[0]&0x80 == 0 {
		return Hello{}, NotTLS
	}
	if len(b) > 2 && b[2] != hsClientHello {
		return Hello{}, NotTLS
	}
	if len(b) > 3 && b[3] != 3 && b[3] != 0 {
		return Hello{}, NotTLS
	}
	if len(b) < 11 {
		return Hello{}, NeedMore
	}
	size := int(b[0]&0x7f)<<8 | int(b[1])
	version := int(b[3])<<8 | int(b[4])
	specs, session, challenge := int(b[5])<<8|int(b[6]), int(b[7])<<8|int(b[8]), int(b[9])<<8|int(b[10])
	valid := version == 0x0002 || version >= 0x0300 && version <= 0x0303
	if !valid || specs == 0 || specs%3 != 0 || session != 0 && session != 16 ||
		challenge < 16 || challenge > 32 || size != 9+specs+session+challenge {
		return Hello{}, NotTLS
	}
	if len(b) < 2+size {
		return Hello{}, NeedMore
	}
	return Hello{TLS: TLS{Hello: true, Version: versionName(version), Offered: Offer{versionName(version), WeakVersion}}}, Complete
}

// helloRetry is the random by which a ServerHello is a HelloRetryRequest: the
// SHA-256 of "HelloRetryRequest" (RFC 8446 §4.1.3).
const helloRetry = "\xcf\x21\xad\x74\xe5\x9a\x61\x11\xbe\x1d\x8c\x02\x1e\x65\xb8\x91" +
	"\xc2\xa2\x11\x16\x7a\xbb\x8c\x5e\x07\x9e\x09\xe2\xc8\xa8\x33\x9c"

// parseServerHello notes in t what the server chose (RFC 8446 §4.1.3).
func (t *TLS) parseServerHello(msg []byte) bool {
	r := reader{b: msg}
	version := r.u16()
	random := r.take(32)
	session := r.vec8()
	if draft := version>>8 == 0x7f; draft { // drafts before 22 had no session here
		r = reader{b: msg}
		r.take(34)
		session = nil
	}
	cipher := r.u16()
	if r.bad || len(session) > 32 || versionName(version) == "" {
		return false
	}
	if version>>8 != 0x7f {
		r.u8() // compression
	}
	t.Retried = t.Retried || string(random) == helloRetry
	exts := reader{b: r.vec16()}
	for len(exts.b) > 0 && !exts.bad {
		id, body := exts.u16(), exts.vec16()
		if id == extSupportedVersions && len(body) == 2 {
			version = int(binary.BigEndian.Uint16(body))
		}
	}
	t.Version, t.Cipher = versionName(version), uint16(cipher)
	return true
}

// tlsReason words a TLS judgement for a person.
func tlsReason(t *TLS) string {
	switch {
	case t.Cipher != 0 && nullCipher(t.Cipher):
		return "the handshake chose a cipher that does not encrypt"
	case len(t.Weak) > 0:
		return "TLS handshake seen, but " + strings.Join(t.Weak, ", ")
	case t.ECH:
		return "TLS handshake seen; the name in it is only the outer one"
	case t.Hello || t.Cipher != 0:
		return "TLS handshake seen"
	}
	return "TLS records seen"
}

// nameWeak names what is weak in what the server chose and showed.
func (t *TLS) nameWeak() {
	t.Weak = nil
	if t.Cipher == 0 {
		return
	}
	if weakVersion(t.Version) {
		t.Weak = append(t.Weak, "its version ("+t.Version+") is outdated")
	}
	t.Weak = append(t.Weak, cipherWeakness(t.Cipher).Words()...)
	if t.Cert != nil {
		t.Weak = append(t.Weak, t.Cert.words()...)
	}
}

// before13 reports whether the server's certificate travels in clear.
func before13(v string) bool { return v == "1.2" || v == "1.1" || v == "1.0" || v == "ssl-3.0" }

func weakVersion(v string) bool {
	return v == "1.0" || v == "1.1" || v == "ssl-3.0" || v == "ssl-2.0"
}

// nullCipher reports the suites without encryption.
func nullCipher(c uint16) bool { return cipherWeakness(c)&WeakNull != 0 }
