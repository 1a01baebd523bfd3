package blocklist

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"sync"
)

// names are the entries of an index, by far the most of it. Only a name that a list
// may hold needs them, and then a few among many: they are read from the file, a
// chunk for a look-up. Through a mapping each look-up would search the whole file,
// and the kernel maps sixteen pages for each that is touched: a hundred blocked names
// would have all of it counted as ours.
type names struct {
	file   *io.SectionReader
	blocks []byte // see format.go
	count  int

	chunks  []chunk
	heads   []byte    // the first name of each chunk, as it stands in the file
	buffers sync.Pool // of *[chunkMost]byte
}

// chunk is what one look-up reads: blocks that lie side by side.
type chunk struct {
	block int32  // its first
	head  uint32 // end of its first name within heads
}

const (
	chunkWanted = 4096
	entryMost   = 2 + 255 + 5
	chunkMost   = chunkWanted + blockNames*entryMost
)

// open reads the first name of each chunk.
func (n *names) open(breathe func()) error {
	n.buffers.New = func() any { return new([chunkMost]byte) }
	size := n.file.Size()
	blocks := len(n.blocks) / 4
	if want := (int64(n.count) + blockNames - 1) / blockNames; n.count < 0 || int64(n.count) > size || int64(blocks) != want || len(n.blocks)%4 != 0 {
		return fmt.Errorf("%w: %d names in %d octets and %d blocks", ErrNotIndex, n.count, size, blocks)
	}
	var head [2 + 255]byte
	for i := range blocks {
		off, length := n.offset(i), n.offset(i+1)-n.offset(i)
		if off < 0 || length < 3 || length > blockNames*entryMost {
			return fmt.Errorf("%w: a block of %d octets", ErrNotIndex, length)
		}
		if last := len(n.chunks) - 1; last >= 0 && n.offset(i+1)-n.offset(int(n.chunks[last].block)) <= chunkWanted {
			continue
		}
		breathe()
		b := head[:min(length, int64(len(head)))]
		if _, err := n.file.ReadAt(b, off); err != nil {
			return fmt.Errorf("%w: reading it: %w", ErrNotIndex, err)
		}
		first := firstName(b)
		if first == nil {
			return fmt.Errorf("%w: a block without a name", ErrNotIndex)
		}
		n.heads = append(n.heads, first...)
		n.chunks = append(n.chunks, chunk{block: int32(i), head: uint32(len(n.heads))})
	}
	n.chunks, n.heads = slices.Clip(n.chunks), slices.Clip(n.heads)
	return nil
}

// resident is how many octets every look-up of a listed name touches.
func (n *names) resident() int { return len(n.blocks) + cap(n.chunks)*8 + cap(n.heads) }

// offset is where the i-th block begins; of the one behind the last, where it ends.
func (n *names) offset(i int) int64 {
	if i*4 >= len(n.blocks) {
		return n.file.Size()
	}
	return int64(binary.BigEndian.Uint32(n.blocks[i*4:]))
}

// head is the first name of the i-th chunk.
func (n *names) head(i int) []byte {
	from := uint32(0)
	if i > 0 {
		from = n.chunks[i-1].head
	}
	return n.heads[from:n.chunks[i].head]
}

// find returns the set of the entry for name. It panics where the file cannot be
// read, as a lost page of a mapping does: see fault.go.
func (n *names) find(name string) (set int, ok bool) {
	i := lastNotBehind(len(n.chunks), name, n.head)
	if i < 0 {
		return 0, false
	}
	first, end := int(n.chunks[i].block), len(n.blocks)/4
	if i+1 < len(n.chunks) {
		end = int(n.chunks[i+1].block)
	}
	from, to := n.offset(first), n.offset(end)
	if to < from || to-from > chunkMost {
		panic(unreadable{ErrNotIndex}) // it was not so when it was opened
	}
	buffer := n.buffers.Get().(*[chunkMost]byte)
	defer n.buffers.Put(buffer)
	b := buffer[:to-from]
	if _, err := n.file.ReadAt(b, from); err != nil {
		panic(unreadable{err})
	}
	block := func(i int) []byte {
		if off := n.offset(first+i) - from; off >= 0 && off <= int64(len(b)) {
			return b[off:]
		}
		panic(unreadable{ErrNotIndex})
	}
	at := lastNotBehind(end-first, name, func(i int) []byte { return firstName(block(i)) })
	if at < 0 {
		return 0, false
	}
	c := cursor{rest: block(at)}
	for i := 0; i < blockNames && c.next(); i++ {
		switch order := compareReversed(name, c.name()); {
		case order == 0:
			return c.set, true
		case order < 0:
			return 0, false
		}
	}
	return 0, false
}

// lastNotBehind is the last of n ordered names that is not behind name, -1 when all are.
func lastNotBehind(n int, name string, at func(int) []byte) int {
	lo, hi := 0, n
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if compareReversed(name, at(mid)) < 0 {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo - 1
}

// cursor walks entries in file order.
type cursor struct {
	rest []byte
	buf  [256]byte
	len  int
	set  int
}

func (c *cursor) name() []byte { return c.buf[:c.len] }

// firstName is the name that a block begins with, which shares nothing; nil when damaged.
func firstName(block []byte) []byte {
	if len(block) < 2 || block[0] != 0 || len(block) < 2+int(block[1]) {
		return nil
	}
	return block[2 : 2+int(block[1])]
}

// next moves to the next entry; false at the end and at damage.
func (c *cursor) next() bool {
	if len(c.rest) < 3 {
		return false
	}
	shared, tail := int(c.rest[0]), int(c.rest[1])
	if shared > c.len || shared+tail > 255 || len(c.rest) < 2+tail+1 {
		return false
	}
	copy(c.buf[shared:], c.rest[2:2+tail])
	c.len = shared + tail
	set, w := binary.Uvarint(c.rest[2+tail:])
	if w <= 0 || set > 1<<31-1 {
		return false
	}
	c.set, c.rest = int(set), c.rest[2+tail+w:]
	return true
}

// compareReversed orders name, read from its end, against reversed octets.
func compareReversed(name string, reversed []byte) int {
	n := min(len(name), len(reversed))
	for i := 0; i < n; i++ {
		if a, b := name[len(name)-1-i], reversed[i]; a != b {
			return int(a) - int(b)
		}
	}
	return len(name) - len(reversed)
}
