package atlas

import (
	_ "embed" // the table
	"sort"

	"github.com/netcurtain/netcurtain/devices"
)

// The table of makers comes from the IEEE Registration Authority's public
// listings (MA-L, MA-M, MA-S and IAB), in which IEEE asserts no copyright, with
// company names shortened. All numbers are big-endian:
//
//	4 × uint32                       how many 24, 28 and 36-bit prefixes, how many names
//	prefix [3]byte, name uint16      the 24-bit ones, sorted
//	prefix [4]byte, name uint16      the 28-bit ones, right-aligned, sorted
//	prefix [5]byte, name uint16      the 36-bit ones, right-aligned, sorted
//	uint32 for every sixteenth name  where it begins in the text
//	text                             each name behind one octet with its length
//
// It is searched where it lies in the binary: nothing is built from it in memory.
//
//go:generate go run ./internal/genoui /usr/share/ieee-data makers.bin
//go:embed makers.bin
var makers string

const (
	makersHeader = 16
	makersStride = 16 // names per offset
)

// Maker names who made the device with this hardware address, by the longest
// assignment that holds it: one of 36, 28 or 24 bits. It is "" for addresses
// that name no maker, because they are made up by the device (the locally
// administered bit), group addresses or not assigned. It does not allocate.
func Maker(m devices.MAC) string {
	if m.IsRandomised() || m.IsGroup() || m.IsZero() {
		return ""
	}
	var address uint64
	for _, b := range m {
		address = address<<8 | uint64(b)
	}
	n24, n28, n36 := int(be(makers[0:4])), int(be(makers[4:8])), int(be(makers[8:12]))
	t24 := makers[makersHeader : makersHeader+n24*5]
	t28 := makers[makersHeader+n24*5:][:n28*6]
	t36 := makers[makersHeader+n24*5+n28*6:][:n36*7]
	for _, t := range []struct {
		table string
		width int // octets of a prefix
		key   uint64
	}{{t36, 5, address >> 12}, {t28, 4, address >> 20}, {t24, 3, address >> 24}} {
		if name, found := findPrefix(t.table, t.width, t.key); found {
			return makerName(name)
		}
	}
	return ""
}

func findPrefix(table string, width int, key uint64) (name int, found bool) {
	row := width + 2
	i := sort.Search(len(table)/row, func(i int) bool { return be(table[i*row:i*row+width]) >= key })
	if i*row >= len(table) || be(table[i*row:i*row+width]) != key {
		return 0, false
	}
	return int(be(table[i*row+width : (i+1)*row])), true
}

// makerName walks at most fifteen names from the offset before it.
func makerName(i int) string {
	names := int(be(makers[12:16]))
	offsets := makers[makersHeader+int(be(makers[0:4]))*5+int(be(makers[4:8]))*6+int(be(makers[8:12]))*7:]
	blocks := (names + makersStride - 1) / makersStride
	text := offsets[blocks*4:][be(offsets[i/makersStride*4:][:4]):]
	for range i % makersStride {
		text = text[1+int(text[0]):]
	}
	return text[1 : 1+int(text[0])]
}

// be reads a big-endian number of up to eight octets.
func be(s string) (n uint64) {
	for i := range len(s) {
		n = n<<8 | uint64(s[i])
	}
	return n
}
