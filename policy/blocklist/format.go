package blocklist

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// The file, all integers big-endian:
//
//	head     magic, version
//	names    entries, sorted by their octets from last to first, in blocks of
//	         blockNames; within a block each shares a prefix with the one before:
//	         shared, rest length, rest, set number (uvarint)
//	blocks   offset of each block within names, uint32
//	sets     each distinct combination of rules: masks, offset within pairs (uint32)
//	pairs    count (uvarint), then list and form of each rule
//	filter   see filter.go
//	rules    records of the rules that are not just names, see record.go
//	keys     where to look for them: hash and offset within rules, uint32 each, sorted
//	rulefilt a filter of the names among the keys; empty when there are none
//	windows  a map of the four-octet windows among the keys; empty when there are none
//	lists    []ListInfo as JSON
//	foot     section table, counts, CRC-32C of all before it, magic
const (
	magic      = "NCINDEX\n"
	version    = 3
	headLen    = len(magic) + 4
	blockNames = 16
	setLen     = 4*8 + 4
)

const (
	secNames = iota
	secBlocks
	secSets
	secPairs
	secFilter
	secRules
	secKeys
	secRuleFilter
	secWindows
	secLists
	secCount
)

const footLen = secCount*16 + 8 + 4 + len(magic)

// foot is the last thing in the file, for only the end knows where all else is.
type foot struct {
	sections [secCount]struct{ off, len uint64 }
	names    uint64
	sum      uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (f *foot) append(b []byte) []byte {
	for _, s := range f.sections {
		b = binary.BigEndian.AppendUint64(b, s.off)
		b = binary.BigEndian.AppendUint64(b, s.len)
	}
	b = binary.BigEndian.AppendUint64(b, f.names)
	b = binary.BigEndian.AppendUint32(b, f.sum)
	return append(b, magic...)
}

func appendHead(b []byte) []byte {
	return binary.BigEndian.AppendUint32(append(b, magic...), version)
}

// parseFoot checks all that can be checked without reading the sections.
func parseFoot(data []byte) (foot, error) {
	var f foot
	if len(data) < headLen+footLen || string(data[:len(magic)]) != magic {
		return f, fmt.Errorf("%w: it does not begin as one", ErrNotIndex)
	}
	if v := binary.BigEndian.Uint32(data[len(magic):]); v != version {
		return f, fmt.Errorf("%w: version %d, this program reads %d", ErrNotIndex, v, version)
	}
	end := len(data) - footLen
	b := data[end:]
	if string(b[footLen-len(magic):]) != magic {
		return f, fmt.Errorf("%w: its end is missing", ErrNotIndex)
	}
	for i := range f.sections {
		s := &f.sections[i]
		s.off, s.len = binary.BigEndian.Uint64(b[i*16:]), binary.BigEndian.Uint64(b[i*16+8:])
		if s.off < uint64(headLen) || s.off > uint64(end) || s.len > uint64(end)-s.off {
			return f, fmt.Errorf("%w: section %d lies outside", ErrNotIndex, i)
		}
	}
	b = b[secCount*16:]
	f.names, f.sum = binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:])
	return f, nil
}

// checkSum compares the sum of the first n octets of file with what was written.
func (f *foot) checkSum(file io.ReaderAt, n int64, breathe func()) error {
	sum := crc32.New(castagnoli)
	read, err := io.CopyBuffer(breathingWriter{sum, breathe}, io.NewSectionReader(file, 0, n), make([]byte, 64<<10))
	switch {
	case err != nil:
		return fmt.Errorf("%w: reading it: %w", ErrNotIndex, err)
	case read != n:
		return fmt.Errorf("%w: %d octets of it are missing", ErrNotIndex, n-read)
	case sum.Sum32() != f.sum:
		return fmt.Errorf("%w: its sum is %08x, %08x was written", ErrNotIndex, sum.Sum32(), f.sum)
	}
	return nil
}

// breathingWriter breathes at each Write.
type breathingWriter struct {
	io.Writer
	breathe func()
}

func (w breathingWriter) Write(p []byte) (int, error) {
	w.breathe()
	return w.Writer.Write(p)
}
