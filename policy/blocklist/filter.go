package blocklist

import (
	"encoding/binary"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// The filter is a blocked Bloom filter: each key sets filterBits bits within one
// block of 64 octets, so that asking costs one cache line. It may say yes for a
// name on no list (about 3 in 1,000); it never says no for one that is on a list.
const (
	filterBlock      = 64 // octets
	filterBits       = 6  // per key
	filterBitsPerKey = 13
)

// filterLen is the size in octets of a filter for n keys.
func filterLen(n uint64) uint64 {
	return (n*filterBitsPerKey/8/filterBlock + 1) * filterBlock
}

func filterAdd(filter []byte, key uint64) {
	block := filterBlockOf(filter, key)
	for i, bits := 0, key; i < filterBits; i, bits = i+1, bits>>9 {
		block[bits>>3&63] |= 1 << (bits & 7)
	}
}

// filterHas looks at all bits at once: to leave at the first that is missing costs
// more in branches that nobody can foretell.
func filterHas(filter []byte, key uint64) bool {
	b := (*[filterBlock]byte)(filterBlockOf(filter, key))
	return b[key>>3&63]>>(key&7)&
		(b[key>>12&63]>>(key>>9&7))&
		(b[key>>21&63]>>(key>>18&7))&
		(b[key>>30&63]>>(key>>27&7))&
		(b[key>>39&63]>>(key>>36&7))&
		(b[key>>48&63]>>(key>>45&7))&1 != 0
}

// filterBlockOf chooses the block by a second mix of the key, for the key's own
// bits choose the bits within it.
func filterBlockOf(filter []byte, key uint64) []byte {
	n := uint64(len(filter) / filterBlock)
	i := (key * 0x9e3779b97f4a7c15 >> 32) * n >> 32 * filterBlock
	return filter[i : i+filterBlock : i+filterBlock]
}

// Hashes run over a name from its end, so that one pass gives the hash of every
// parent. FNV-1a for its simplicity, and a final mix, for FNV's low bits are weak.
const (
	hashStart = 0xcbf29ce484222325
	hashPrime = 0x100000001b3
	saltBelow = 0x9ae16a3b2f90404f // keys of rules that cover what is below their name
)

func hashStep(h uint64, c byte) uint64 { return (h ^ uint64(c)) * hashPrime }

func hashMix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// filterKeys are the keys under which an entry is found: one for a rule of its
// own name alone, one for a rule that reaches below.
func filterKeys(reversed []byte, m masks) (keys [2]uint64, n int) {
	h := uint64(hashStart)
	for _, c := range reversed {
		h = hashStep(h, c)
	}
	below := m[blockBelow] | m[allowBelow]
	if below != 0 {
		keys[n] = hashMix(h ^ saltBelow)
		n++
	}
	if (m[blockSelf]|m[allowSelf])&^below != 0 {
		keys[n] = hashMix(h)
		n++
	}
	return keys, n
}

// mayHold reports whether the entry for n, which is the name that was asked for or a
// parent of it, may be there and say something of it.
func (x *Index) mayHold(n dnsname.Name, self bool) bool {
	h := uint64(hashStart)
	for i := len(n) - 1; i >= 0; i-- {
		h = hashStep(h, n[i])
	}
	return filterHas(x.filter, hashMix(h^saltBelow)) || self && filterHas(x.filter, hashMix(h))
}

// masks says which lists hold an entry, one bit a list, for each thing that a
// rule can do. The order is part of the file format.
type masks [4]uint64

const (
	blockSelf = iota
	blockBelow
	allowSelf
	allowBelow
)

func (m *masks) add(list uint8, s shape) {
	self, below := blockSelf, blockBelow
	if s.allow {
		self, below = allowSelf, allowBelow
	}
	if s.self {
		m[self] |= 1 << list
	}
	if s.below {
		m[below] |= 1 << list
	}
}

func (m *masks) append(b []byte) []byte {
	for _, v := range m {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}
