package dissect

import (
	"math"
)

// Limits of judging bytes by their statistics (measured: below 64 bytes random
// data and text cannot be told apart).
const (
	statMin   = 64
	statBytes = 2 << 10
	textShare = 0.90 // printable share from which bytes are called text
)

// unknown judges bytes that no recogniser knew. It never says Encrypted: random
// bytes and compressed ones look the same.
func unknown(up, down []byte, sizes [2]int) Result {
	r := Result{App: "unknown"}
	a, b := judge(up), judge(down)
	switch {
	case sizes[0]+sizes[1] == 0:
		r.cannotTell("no content was seen")
		return r
	case len(up) < statMin && len(down) < statMin:
		r.cannotTell("an unknown protocol, and too few bytes to judge")
		return r
	case a == looksText || b == looksText:
		r.readable("an unknown protocol that sends text")
	case a == looksMedia || b == looksMedia:
		r.readable("an unknown protocol that sends a known clear file format")
	case a == looksRandom || b == looksRandom:
		r.cannotTell("an unknown protocol; its bytes look random, so encrypted or compressed")
	case a == looksStructured || b == looksStructured:
		r.cannotTell("an unknown binary protocol; its bytes look structured, not random")
	default:
		r.cannotTell("an unknown binary protocol")
	}
	r.Guessed = true
	return r
}

type look uint8

const (
	looksNothing look = iota
	looksText
	looksMedia
	looksRandom
	looksStructured
)

func judge(b []byte) look {
	if len(b) > statBytes {
		b = b[:statBytes]
	}
	if len(b) < statMin {
		return looksNothing
	}
	switch {
	case looksReadable(b):
		return looksText
	case clearFormat(b):
		return looksMedia
	}
	switch rel := relativeEntropy(b); {
	case len(b) < 128:
		return looksNothing
	case rel >= 0.95:
		return looksRandom
	case rel <= 0.85:
		return looksStructured
	}
	return looksNothing
}

// looksReadable reports whether b is text by its share of printable bytes.
func looksReadable(b []byte) bool {
	n := 0
	for _, c := range b {
		if c >= ' ' && c <= '~' || c == '\r' || c == '\n' || c == '\t' {
			n++
		}
	}
	return len(b) > 0 && float64(n) >= textShare*float64(len(b))
}

// clearFormat reports file formats that are never a cipher's output by chance:
// only magic numbers of at least four bytes count.
func clearFormat(b []byte) bool {
	switch string(b[:4]) {
	case "\x89PNG", "PK\x03\x04", "GIF8", "RIFF", "OggS", "fLaC", "\xff\xd8\xff\xe0", "\xff\xd8\xff\xe1", "\xff\xd8\xff\xdb", "%PDF",
		"\x28\xb5\x2f\xfd", "\xfd7zX", "\x04\x22\x4d\x18", "7z\xbc\xaf", "Rar!", // zstd, xz, LZ4, 7z, RAR
		"\x00\x00\x01\xba", "\x1a\x45\xdf\xa3", "FLV\x01": // MPEG, Matroska and WebM, Flash
		return true
	}
	return string(b[:3]) == "\x1f\x8b\x08" && b[3] < 0x20 || string(b[:3]) == "BZh" && string(b[4:10]) == "1AY&SY" ||
		string(b[4:8]) == "ftyp" && b[0]|b[1] == 0 || // MP4
		string(b[:3]) == "\x00\x00\x01" && b[3]&0x9f == 0x07 || string(b[:4]) == "\x00\x00\x00\x01" && b[4]&0x9f == 0x07 // H.264: the parameters of a picture
}

// relativeEntropy is the Shannon entropy of b against what as many random bytes
// have: about 1 for random data of any length.
func relativeEntropy(b []byte) float64 {
	var counts [256]uint16
	for _, c := range b {
		counts[c]++
	}
	n := float64(len(b))
	h := 0.0
	for _, k := range counts {
		if k > 0 {
			p := float64(k) / n
			h -= p * math.Log2(p)
		}
	}
	return h / randomEntropy(len(b))
}

// randomEntropy is the expected entropy, in bits a byte, of n random bytes:
// bytes repeat by chance less often than the plain formula for large n assumes,
// so each length has its own value.
func randomEntropy(n int) float64 {
	lambda := float64(n) / 256
	// Each of 256 values occurs Poisson(lambda) times.
	h, p := 0.0, math.Exp(-lambda)
	for k := 1; k < int(2*lambda)+16; k++ { // what comes after is too rare to matter
		if p *= lambda / float64(k); p < 1e-8 && float64(k) > lambda {
			break
		}
		f := float64(k) / float64(n)
		h -= 256 * p * f * math.Log2(f)
	}
	return h
}
