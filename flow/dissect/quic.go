package dissect

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"strconv"

	"github.com/netcurtain/netcurtain/flow"
)

// QUIC version numbers (IANA QUIC Versions).
const (
	quicV1      = 0x00000001 // RFC 9000
	quicV2      = 0x6b3343cf // RFC 9369
	quicV2Draft = 0x709a50c4 // its drafts
)

// quicTalk collects one connection's ClientHello from Initial packets. Anybody on
// the way can decrypt them: their keys come from the connection ID that stands in
// the first one (RFC 9001 §5.2).
type quicTalk struct {
	version  uint32
	found    bool     // a client Initial was decrypted
	clientAt flow.Dir // known once found
	keys     quicKeys // of the first DCID, also when later packets carry another
	crypto   assembly // CRYPTO frames by their offsets
	plain    []byte   // scratch for one packet
	hello    Hello
}

// quicHeader is a long header (RFC 8999 §5.1).
type quicHeader struct {
	version    uint32
	dcid, scid []byte
	rest       []byte // behind the source connection ID
}

func readQUICHeader(b []byte) (quicHeader, bool) {
	r := reader{b: b}
	first := r.u8()
	v := r.take(4)
	h := quicHeader{dcid: r.vec8(), scid: r.vec8()}
	if r.bad || first&0x80 == 0 || len(h.dcid) > 20 || len(h.scid) > 20 {
		return h, false
	}
	h.version, h.rest = binary.BigEndian.Uint32(v), r.b
	return h, true
}

// quicVersion names a version; known is false for numbers that nobody assigned.
func quicVersion(v uint32) (name string, known bool) {
	switch {
	case v == quicV1:
		return "1", true
	case v == quicV2, v == quicV2Draft:
		return "2", true
	case v>>8 == 0xff0000 && v&0xff > 0 && v&0xff <= 34: // the last one
		return "draft-" + strconv.Itoa(int(v&0xff)), true
	case v>>8 == 0xfaceb0:
		return "mvfst-" + strconv.FormatUint(uint64(v&0xff), 16), true
	case isGoogleQUIC(v):
		return "gquic-" + string([]byte{byte(v >> 8), byte(v)}), true
	case v>>24 == 'T' && v>>16&0xff == '0': // Google's QUIC with TLS
		return "google-t0" + string([]byte{byte(v >> 8), byte(v)}), true
	}
	return "", false
}

func isGoogleQUIC(v uint32) bool {
	return v>>24 == 'Q' && v>>16&0xff == '0' && isDigit(byte(v>>8)) && isDigit(byte(v))
}

// startQUIC looks for a long header of a version that somebody speaks.
func (c *Conversation) startQUIC(dir flow.Dir, b []byte) bool {
	if v, ok := oldGoogleQUIC(b); ok {
		c.quic = &quicTalk{version: v}
		c.followQUIC(dir, b)
		return true
	}
	h, ok := readQUICHeader(b)
	if !ok {
		return false
	}
	_, known := quicVersion(h.version)
	switch {
	case known && (b[0]&0x40 != 0 || len(b) >= 1200): // a client that met the server before may grease the bit (RFC 9287)
	case h.version == 0 && offersQUIC(h.rest): // version negotiation
	case h.version&0x0f0f0f0f == 0x0a0a0a0a && len(b) >= 1200 && b[0]&0x40 != 0: // reserved to try negotiation
	default:
		return false
	}
	c.quic = &quicTalk{version: h.version}
	c.followQUIC(dir, b)
	return true
}

// offersQUIC reports a version negotiation's list that holds a known version.
func offersQUIC(b []byte) bool {
	if len(b) < 4 || len(b)%4 != 0 {
		return false
	}
	for ; len(b) > 0; b = b[4:] {
		if _, known := quicVersion(binary.BigEndian.Uint32(b)); known {
			return true
		}
	}
	return false
}

// followQUIC reads the packets of one datagram, coalesced as they may be
// (RFC 9000 §12.2).
func (c *Conversation) followQUIC(dir flow.Dir, b []byte) {
	q := c.quic
	if q.found && dir != q.clientAt {
		return
	}
	if isGoogleQUIC(q.version) && q.readCHLO(b) {
		c.finish(q.result())
		return
	}
	for len(b) > 0 {
		h, ok := readQUICHeader(b)
		if !ok {
			return // a short header: nothing after it can be read
		}
		packet, at, next := h.split(b)
		b = next
		if packet == nil || !h.isInitial(packet[0]) || !q.decrypt(h, packet, at) {
			continue
		}
		q.found, q.clientAt = true, dir
		if q.readHello() {
			c.finish(q.result())
			return
		}
	}
}

// split cuts one packet off a datagram by its length field and says where its
// packet number stands; what has no length, as Retry, takes all of it.
func (h *quicHeader) split(b []byte) (packet []byte, at int, next []byte) {
	r := reader{b: h.rest}
	if h.isInitial(b[0]) {
		r.take(r.varint()) // token
	} else if h.version == 0 || h.isRetry(b[0]) {
		return nil, 0, nil
	}
	n := r.varint()
	if r.bad || n > len(r.b) {
		return nil, 0, nil
	}
	at = len(b) - len(r.b)
	return b[:at+n], at, b[at+n:]
}

func (h *quicHeader) isInitial(first byte) bool {
	if h.version == quicV2 || h.version == quicV2Draft {
		return first>>4&3 == 1
	}
	return h.version != 0 && first>>4&3 == 0
}

func (h *quicHeader) isRetry(first byte) bool {
	if h.version == quicV2 || h.version == quicV2Draft {
		return first>>4&3 == 0
	}
	return first>>4&3 == 3
}

// varint reads a variable-length integer (RFC 9000 §16); what is too large for
// any packet marks the reader bad.
func (r *reader) varint() int {
	first := r.u8()
	v := uint64(first & 0x3f)
	for range 1<<(first>>6) - 1 {
		v = v<<8 | uint64(r.u8())
	}
	if v > 1<<20 {
		r.b, r.bad = nil, true
		return 0
	}
	return int(v)
}

// decrypt removes the protection of a client Initial and takes its frames. The
// keys of the flow's first packet are tried before those of this packet's own
// connection ID, which are the right ones after a Retry or a new version.
func (q *quicTalk) decrypt(h quicHeader, packet []byte, at int) bool {
	if q.keys.aead != nil && h.version == q.version {
		if plain, ok := q.keys.open(q.plain, packet, at); ok {
			q.takeFrames(plain)
			return true
		}
	}
	keys, ok := clientKeys(h.version, h.dcid)
	if !ok {
		return false
	}
	plain, ok := keys.open(q.plain, packet, at)
	if !ok {
		return false
	}
	q.keys, q.version = keys, h.version
	q.crypto.clear() // the handshake begins again
	q.takeFrames(plain)
	return true
}

// takeFrames puts the CRYPTO frames of a decrypted Initial in place. The other
// frames that may stand there are skipped (RFC 9000 §12.4).
func (q *quicTalk) takeFrames(plain []byte) {
	q.plain = plain[:0]
	r := reader{b: plain}
	for len(r.b) > 0 {
		switch r.u8() {
		case 0x00, 0x01: // PADDING, PING
		case 0x02:
			r.skipACK()
		case 0x03:
			r.skipACK()
			r.skipVarint()
			r.skipVarint()
			r.skipVarint()
		case 0x06:
			off := r.varint()
			data := r.take(r.varint())
			if !r.bad && len(data) > 0 {
				q.crypto.store(off, data)
			}
		case 0x1c: // CONNECTION_CLOSE
			r.skipVarint()
			r.skipVarint()
			r.take(r.varint())
		default:
			return
		}
	}
}

func (r *reader) skipVarint() { r.take(1<<(r.u8()>>6) - 1) }

func (r *reader) skipACK() {
	r.skipVarint() // largest acknowledged
	r.skipVarint() // delay
	ranges := r.varint()
	r.skipVarint() // first range
	for i := 0; i < ranges && !r.bad; i++ {
		r.skipVarint()
		r.skipVarint()
	}
}

// readHello reports whether the ClientHello is whole, and reads it.
func (q *quicTalk) readHello() bool {
	b := q.crypto.bytes()
	if q.readCHLO(b) {
		return true
	}
	if len(b) < 4 {
		return false
	}
	n := int(b[1])<<16 | int(b[2])<<8 | int(b[3])
	if b[0] != hsClientHello || n > maxHello {
		return true // encrypted all the same, but nothing to read
	}
	if len(b) < 4+n {
		return false
	}
	if h, st := parseHello(b[4 : 4+n]); st == Complete {
		q.hello = h
	}
	return true
}

func (q *quicTalk) result() Result {
	r := Result{App: "quic"}
	r.encrypted("QUIC: encrypted by design")
	t := q.hello.TLS
	t.Version = "1.3" // QUIC has no other (RFC 9001 §4.2)
	if isGoogleQUIC(q.version) {
		r.App, t.Version = "gquic", ""
	}
	t.QUICVersion, _ = quicVersion(q.version)
	r.TLS = &t
	if t.ECH {
		r.Reason = "QUIC: encrypted by design; the name in its hello is only the outer one"
	}
	r.name(q.hello.ServerName, "sni")
	return r
}

// quicKeys protect one side's Initial packets.
type quicKeys struct {
	aead cipher.AEAD
	hp   cipher.Block
	iv   [12]byte
}

// Salts of the Initial secrets (RFC 9001 §5.2, RFC 9369 §3.3.1, and drafts).
const (
	saltV1      = "\x38\x76\x2c\xf7\xf5\x59\x34\xb3\x4d\x17\x9a\xe6\xa4\xc8\x0c\xad\xcc\xbb\x7f\x0a"
	saltV2      = "\x0d\xed\xe3\xde\xf7\x00\xa6\xdb\x81\x93\x81\xbe\x6e\x26\x9d\xcb\xf9\xbd\x2e\xd9"
	saltV2Draft = "\xa7\x07\xc2\x03\xa5\x9b\x47\x18\x4a\x1d\x62\xca\x57\x04\x06\xea\x7a\xe3\xe5\xd3"
	saltDraft29 = "\xaf\xbf\xec\x28\x99\x93\xd2\x4c\x9e\x97\x86\xf1\x9c\x61\x11\xe0\x43\x90\xa8\x99"
	saltDraft22 = "\x7f\xbc\xdb\x0e\x7c\x66\xbb\xe9\x19\x3a\x96\xcd\x21\x51\x9e\xbd\x7a\x02\x64\x4a"
	saltDraft17 = "\xef\x4f\xb0\xab\xb4\x74\x70\xc4\x1b\xef\xcf\x80\x31\x33\x4f\xae\x48\x5e\x09\xa0"
	saltT050    = "\x7f\xf5\x79\xe5\xac\xd0\x72\x91\x55\x80\x30\x4c\x43\xa2\x36\x7c\x60\x48\x83\x10"
	saltT051    = "\x7a\x4e\xde\xf4\xe7\xcc\xee\x5f\xa4\x50\x6c\x19\x12\x4f\xc8\xcc\xda\x6e\x03\x3d"
	saltDraft23 = "\xc3\xee\xf7\x12\xc7\x2e\xbb\x5a\x11\xa7\xd2\x43\x2b\xb4\x63\x65\xbe\xf9\xf5\x02"
	saltQ050    = "\x50\x45\x74\xef\xd0\x66\xfe\x2f\x9d\x94\x5c\xfc\xdb\xd3\xa7\xf0\xd3\xb5\x6b\x45"
)

func quicSalt(v uint32) (salt, labels string) {
	switch {
	case v == quicV1, v == 0xff000021, v == 0xff000022, v == 0xfaceb003, v == 0xfaceb004: // the last are Facebook's names for it
		return saltV1, "quic "
	case v == quicV2:
		return saltV2, "quicv2 "
	case v == quicV2Draft:
		return saltV2Draft, "quicv2 "
	case v >= 0xff00001d && v <= 0xff000020:
		return saltDraft29, "quic "
	case v >= 0xff000017 && v <= 0xff00001c, v == 0xfaceb002, v == 0xfaceb00e: // and Facebook's
		return saltDraft23, "quic "
	case v == 0xff000015, v == 0xff000016, v == 0xfaceb001:
		return saltDraft22, "quic "
	case v >= 0xff000011 && v <= 0xff000014:
		return saltDraft17, "quic "
	case v == 'Q'<<24|'0'<<16|'5'<<8|'0':
		return saltQ050, "quic "
	case v == 'T'<<24|'0'<<16|'5'<<8|'0':
		return saltT050, "quic "
	case v == 'T'<<24|'0'<<16|'5'<<8|'1':
		return saltT051, "quic "
	}
	return "", ""
}

// clientKeys derives the client's Initial keys (RFC 9001 §5.2).
func clientKeys(version uint32, dcid []byte) (k quicKeys, ok bool) {
	salt, labels := quicSalt(version)
	if salt == "" {
		return k, false
	}
	initial, err := hkdf.Extract(sha256.New, dcid, []byte(salt))
	if err != nil {
		return k, false
	}
	secret := expandLabel(initial, "client in", sha256.Size)
	key, hp := expandLabel(secret, labels+"key", 16), expandLabel(secret, labels+"hp", 16)
	copy(k.iv[:], expandLabel(secret, labels+"iv", 12))
	block, err := aes.NewCipher(key)
	if err != nil {
		return k, false
	}
	if k.aead, err = cipher.NewGCM(block); err != nil {
		return k, false
	}
	if k.hp, err = aes.NewCipher(hp); err != nil {
		return k, false
	}
	return k, true
}

// expandLabel is HKDF-Expand-Label with an empty context (RFC 8446 §7.1).
func expandLabel(secret []byte, label string, size int) []byte {
	info := string([]byte{byte(size >> 8), byte(size), byte(len("tls13 ") + len(label))}) + "tls13 " + label + "\x00"
	out, err := hkdf.Expand(sha256.New, secret, info, size)
	if err != nil {
		return make([]byte, size) // only for sizes beyond 255 hashes: never here
	}
	return out
}

// open removes header and packet protection (RFC 9001 §5.4, §5.3) and returns
// the frames in dst's memory. at is where the packet number stands.
func (k *quicKeys) open(dst, packet []byte, at int) ([]byte, bool) {
	if at+20 > len(packet) || at > 512 {
		return nil, false
	}
	var mask [16]byte
	k.hp.Encrypt(mask[:], packet[at+4:at+20])
	var headBuf [516]byte
	head := headBuf[:copy(headBuf[:], packet[:at+4])]
	head[0] ^= mask[0] & 0x0f
	size := int(head[0]&3) + 1
	head = head[:at+size]
	var number uint32
	for i := range size {
		head[at+i] ^= mask[1+i]
		number = number<<8 | uint32(head[at+i])
	}
	nonce := k.iv
	binary.BigEndian.PutUint32(nonce[8:], binary.BigEndian.Uint32(nonce[8:])^number)
	plain, err := k.aead.Open(dst[:0], nonce[:], packet[at+size:], head)
	return plain, err == nil
}

// oldGoogleQUIC knows Google's first QUICs: up to Q043 by a public header of
// flags, eight bytes of connection ID and version; up to Q049 by a long header
// whose connection IDs have their lengths in one byte.
func oldGoogleQUIC(b []byte) (version uint32, ok bool) {
	if len(b) < 14 {
		return 0, false
	}
	if b[0]&0xc0 == 0xc0 {
		v := binary.BigEndian.Uint32(b[1:])
		return v, isGoogleQUIC(v) && v&0xffff < '5'<<8
	}
	if b[0]&0x80 != 0 || b[0]&0x01 == 0 || b[0]&0x08 == 0 {
		return 0, false
	}
	v := binary.BigEndian.Uint32(b[9:])
	return v, isGoogleQUIC(v)
}

// readCHLO reads the name out of Google's own client hello: a tag list, each
// entry with the end of its value.
func (q *quicTalk) readCHLO(b []byte) bool {
	i := bytes.Index(b, []byte("CHLO"))
	if i < 0 || len(b) < i+8 {
		return false
	}
	tags := int(binary.LittleEndian.Uint16(b[i+4:]))
	table := b[i+8:]
	if tags == 0 || tags > 128 || len(table) < 8*tags {
		return false
	}
	values := table[8*tags:]
	from := 0
	for ; tags > 0; tags, table = tags-1, table[8:] {
		to := int(binary.LittleEndian.Uint32(table[4:]))
		if to < from || to > len(values) {
			return false
		}
		if string(table[:4]) == "SNI\x00" {
			q.hello.ServerName = serverName(values[from:to])
			q.hello.TLS.Hello = true
			return true
		}
		from = to
	}
	return true
}
