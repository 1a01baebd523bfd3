package blocklist

import (
	"bufio"
	"bytes"
	"container/heap"
	"encoding/binary"
	"fmt"
	"io"
)

// A run is a sorted piece of one list: shared, rest length, rest, list, form.

type runWriter struct {
	w    *bufio.Writer
	last []byte
	n    int64
}

// write leaves its error to the Flush at the run's end, where bufio reports it.
func (w *runWriter) write(name []byte, list uint8, f form) {
	shared := commonPrefix(w.last, name)
	rest := name[shared:]
	_ = w.w.WriteByte(byte(shared))
	_ = w.w.WriteByte(byte(len(rest)))
	_, _ = w.w.Write(rest)
	_ = w.w.WriteByte(list)
	_ = w.w.WriteByte(byte(f))
	w.last = append(w.last[:0], name...)
	w.n += int64(len(rest)) + 4
}

// entryReader reads names that share prefixes: the part which runs and the
// index's names have in common.
type entryReader struct {
	r    *bufio.Reader
	name []byte
}

func (e *entryReader) readName() error {
	shared, err := e.r.ReadByte()
	if err != nil {
		return err
	}
	rest, err := e.r.ReadByte()
	if err != nil {
		return noEOF(err)
	}
	if int(shared) > len(e.name) {
		return fmt.Errorf("an entry shares %d octets of %d", shared, len(e.name))
	}
	for e.name = e.name[:shared]; rest > 0; rest-- {
		c, err := e.r.ReadByte()
		if err != nil {
			return noEOF(err)
		}
		e.name = append(e.name, c)
	}
	return nil
}

// next reads an entry of the index.
func (e *entryReader) next() (set int, err error) {
	if err := e.readName(); err != nil {
		return 0, noEOF(err)
	}
	n, err := binary.ReadUvarint(e.r)
	return int(n), noEOF(err)
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// runReader is one run on its way through the merge.
type runReader struct {
	entryReader
	tail [2]byte // list and form
}

// advance reads the next record; io.EOF is the clean end.
func (r *runReader) advance() error {
	if err := r.readName(); err != nil {
		return err
	}
	_, err := io.ReadFull(r.r, r.tail[:])
	return noEOF(err)
}

func (r *runReader) compare(o *runReader) int {
	if order := bytes.Compare(r.name, o.name); order != 0 {
		return order
	}
	return bytes.Compare(r.tail[:], o.tail[:])
}

// merge walks all runs in order and joins what is said of one name.
type merge struct {
	runs  runHeap
	name  []byte
	pairs []byte // list and form of each distinct rule, in order
	err   error
}

func newMerge(scratch io.ReaderAt, runs []run) (*merge, error) {
	m := &merge{}
	for _, r := range runs {
		in := &runReader{entryReader: entryReader{r: bufio.NewReaderSize(io.NewSectionReader(scratch, r.off, r.len), 8<<10)}}
		switch err := in.advance(); err {
		case nil:
			m.runs = append(m.runs, in)
		case io.EOF:
		default:
			return nil, err
		}
	}
	heap.Init(&m.runs)
	return m, nil
}

func (m *merge) next() bool {
	if len(m.runs) == 0 || m.err != nil {
		return false
	}
	m.name = append(m.name[:0], m.runs[0].name...)
	m.pairs = m.pairs[:0]
	for len(m.runs) > 0 && bytes.Equal(m.runs[0].name, m.name) {
		first := m.runs[0]
		if n := len(m.pairs); n == 0 || !bytes.Equal(m.pairs[n-2:], first.tail[:]) {
			m.pairs = append(m.pairs, first.tail[:]...)
		}
		switch err := first.advance(); err {
		case nil:
			heap.Fix(&m.runs, 0)
		case io.EOF:
			heap.Pop(&m.runs)
		default:
			m.err = err
			return false
		}
	}
	return true
}

type runHeap []*runReader

func (h runHeap) Len() int           { return len(h) }
func (h runHeap) Less(i, j int) bool { return h[i].compare(h[j]) < 0 }
func (h runHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *runHeap) Push(x any)        { *h = append(*h, x.(*runReader)) }
func (h *runHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

// Memory is a File in memory.
type Memory struct{ b []byte }

// Write appends.
func (m *Memory) Write(p []byte) (int, error) {
	m.b = append(m.b, p...)
	return len(p), nil
}

// ReadAt implements io.ReaderAt.
func (m *Memory) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > int64(len(m.b)) {
		return 0, io.EOF
	}
	n := copy(p, m.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Bytes is what was written.
func (m *Memory) Bytes() []byte { return m.b }

// Compile is a Builder for lists that are at hand: it keeps all in memory and
// gives an Index over it. For starter lists and tests.
func Compile(lists ...Text) (*Index, []Report, error) {
	b := NewBuilder(Options{})
	var reports []Report
	for _, l := range lists {
		rep, err := b.Add(l.Source, l.Text)
		if err != nil {
			return nil, nil, err
		}
		reports = append(reports, rep)
	}
	var out Memory
	if err := b.Write(&out); err != nil {
		return nil, nil, err
	}
	x, err := Open(out.Bytes())
	return x, reports, err
}

// Text is a list at hand.
type Text struct {
	Source
	Text io.Reader
}
