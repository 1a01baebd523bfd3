package dissect

// Weakness says what is weak in what a handshake offers or chose; several may be set.
type Weakness uint8

const (
	WeakVersion   Weakness = 1 << iota // before TLS 1.2 (RFC 8996)
	WeakNull                           // no encryption at all
	WeakExport                         // keys of 40 or 56 bits, once for export
	WeakAnonymous                      // nobody proves who he is
	WeakRC4                            // RFC 7465
	WeakDES                            // DES or 3DES (RFC 7525 §4.2, Sweet32)
	WeakCBCSHA1                        // CBC with SHA-1, which padding attacks are made for
)

// words are for a person, in the order of the bits.
var weaknessWords = [...]string{
	"the version is outdated",
	"the cipher does not encrypt",
	"the cipher has an export key",
	"the cipher proves nobody's identity",
	"the cipher is RC4",
	"the cipher is DES or 3DES",
	"the cipher is CBC with SHA-1",
}

// Words names each weakness for a person, worst kinds first as far as the
// constants are ordered; nil when there is none.
func (w Weakness) Words() []string {
	var words []string
	for i, s := range weaknessWords {
		if w&(1<<i) != 0 {
			words = append(words, s)
		}
	}
	return words
}

// cipherWeakness is what is weak in one suite (IANA TLS Cipher Suites).
func cipherWeakness(suite uint16) Weakness {
	switch suite >> 8 {
	case 0x00:
		return weakOld[suite&0xff]
	case 0xc0:
		return weakCurves[suite&0xff]
	}
	return 0
}

const (
	expRC4, expDES   = WeakExport | WeakRC4, WeakExport | WeakDES
	anonRC4, anonDES = WeakAnonymous | WeakRC4, WeakAnonymous | WeakDES
	anonCBC          = WeakAnonymous | WeakCBCSHA1
)

// weakOld are the suites 0x00XX, weakCurves 0xC0XX: read for every hello, so by index.
var weakOld = [256]Weakness{
	0x00: WeakNull, 0x01: WeakNull, 0x02: WeakNull, 0x2c: WeakNull, 0x2d: WeakNull, 0x2e: WeakNull, 0x3b: WeakNull,
	0xb0: WeakNull, 0xb1: WeakNull, 0xb4: WeakNull, 0xb5: WeakNull, 0xb8: WeakNull, 0xb9: WeakNull,

	0x03: expRC4, 0x06: WeakExport, 0x08: expDES, 0x0b: expDES, 0x0e: expDES, 0x11: expDES, 0x14: expDES,
	0x17: expRC4 | WeakAnonymous, 0x19: expDES | WeakAnonymous, 0x26: expDES, 0x27: WeakExport, 0x28: expRC4, 0x29: expDES, 0x2a: WeakExport, 0x2b: expRC4,
	0x60: expRC4, 0x61: WeakExport, 0x62: expDES, 0x63: expDES, 0x64: expRC4, 0x65: expRC4,

	0x04: WeakRC4, 0x05: WeakRC4, 0x18: anonRC4, 0x20: WeakRC4, 0x24: WeakRC4, 0x66: WeakRC4, 0x8a: WeakRC4, 0x8e: WeakRC4, 0x92: WeakRC4,

	0x09: WeakDES, 0x0a: WeakDES, 0x0c: WeakDES, 0x0d: WeakDES, 0x0f: WeakDES, 0x10: WeakDES, 0x12: WeakDES, 0x13: WeakDES, 0x15: WeakDES, 0x16: WeakDES,
	0x1a: anonDES, 0x1b: anonDES, 0x1e: WeakDES, 0x1f: WeakDES, 0x22: WeakDES, 0x23: WeakDES, 0x8b: WeakDES, 0x8f: WeakDES, 0x93: WeakDES,

	0x6c: WeakAnonymous, 0x6d: WeakAnonymous, 0xa6: WeakAnonymous, 0xa7: WeakAnonymous, 0xbf: WeakAnonymous, 0xc5: WeakAnonymous,
	0x34: anonCBC, 0x3a: anonCBC, 0x46: anonCBC, 0x89: anonCBC, 0x9b: anonCBC,

	0x2f: WeakCBCSHA1, 0x30: WeakCBCSHA1, 0x31: WeakCBCSHA1, 0x32: WeakCBCSHA1, 0x33: WeakCBCSHA1, // AES-128
	0x35: WeakCBCSHA1, 0x36: WeakCBCSHA1, 0x37: WeakCBCSHA1, 0x38: WeakCBCSHA1, 0x39: WeakCBCSHA1, // AES-256
	0x41: WeakCBCSHA1, 0x42: WeakCBCSHA1, 0x43: WeakCBCSHA1, 0x44: WeakCBCSHA1, 0x45: WeakCBCSHA1, // Camellia
	0x84: WeakCBCSHA1, 0x85: WeakCBCSHA1, 0x86: WeakCBCSHA1, 0x87: WeakCBCSHA1, 0x88: WeakCBCSHA1,
	0x8c: WeakCBCSHA1, 0x8d: WeakCBCSHA1, 0x90: WeakCBCSHA1, 0x91: WeakCBCSHA1, 0x94: WeakCBCSHA1, 0x95: WeakCBCSHA1, // PSK
	0x96: WeakCBCSHA1, 0x97: WeakCBCSHA1, 0x98: WeakCBCSHA1, 0x99: WeakCBCSHA1, 0x9a: WeakCBCSHA1, // SEED
}

var weakCurves = [256]Weakness{
	0x01: WeakNull, 0x06: WeakNull, 0x0b: WeakNull, 0x10: WeakNull, 0x15: WeakNull | WeakAnonymous, 0x39: WeakNull, 0x3a: WeakNull, 0x3b: WeakNull,
	0xb4: WeakNull, 0xb5: WeakNull, // TLS 1.3 with integrity only (RFC 9150)

	0x02: WeakRC4, 0x07: WeakRC4, 0x0c: WeakRC4, 0x11: WeakRC4, 0x16: anonRC4, 0x33: WeakRC4,
	0x03: WeakDES, 0x08: WeakDES, 0x0d: WeakDES, 0x12: WeakDES, 0x17: anonDES, 0x1a: WeakDES, 0x1b: WeakDES, 0x1c: WeakDES, 0x34: WeakDES,

	0x04: WeakCBCSHA1, 0x05: WeakCBCSHA1, 0x09: WeakCBCSHA1, 0x0a: WeakCBCSHA1, 0x0e: WeakCBCSHA1, 0x0f: WeakCBCSHA1,
	0x13: WeakCBCSHA1, 0x14: WeakCBCSHA1, 0x18: anonCBC, 0x19: anonCBC,
	0x1d: WeakCBCSHA1, 0x1e: WeakCBCSHA1, 0x1f: WeakCBCSHA1, 0x20: WeakCBCSHA1, 0x21: WeakCBCSHA1, 0x22: WeakCBCSHA1, // SRP
	0x35: WeakCBCSHA1, 0x36: WeakCBCSHA1,
	0x46: WeakAnonymous, 0x47: WeakAnonymous, 0x5a: WeakAnonymous, 0x5b: WeakAnonymous, 0x84: WeakAnonymous, 0x85: WeakAnonymous,
}
