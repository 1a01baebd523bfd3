package capture

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/netcurtain/netcurtain/flow"
)

const magicGzip = 0x1f8b

// Stats says what a Reader has read so far.
type Stats struct {
	Packets   int64 // records in the file
	Bytes     int64 // captured, of those
	NotIP     int64 // ARP, LLDP and their like: passed over
	Malformed int64 // cut before the end of a header, or nonsense in one: passed over
	Unknown   int64 // of a link type that is not understood: passed over
	Sealed    int64 // frames of the air that are encrypted: passed over
	LinkType  int   // the last such link type (pcap-linktype(7))
	Fragments int64 // later fragments, counted with the flow of the first one; the one that makes a packet whole is none
}

// BrokenError says that the file ended, or stopped making sense, before its
// end. What was read until then is good.
type BrokenError struct {
	Stats Stats
	Err   error
}

func (e *BrokenError) Error() string {
	return fmt.Sprintf("capture breaks off after packet %d: %v", e.Stats.Packets, e.Err)
}

func (e *BrokenError) Unwrap() error { return e.Err }

// Reader yields the IP packets of a pcap or pcapng file, plain or compressed
// with gzip. It holds one packet at a time, whatever the size of the file.
type Reader struct {
	file    format
	record  record
	decoder decoder
	stats   Stats
	any     bool // there was a packet
}

// format is a file's reader. The error is io.EOF only where a record may end.
type format interface {
	next(*record) error
}

// Open reads the head of a capture. The error says what the file is not, or
// which link type would be needed.
func Open(r io.Reader) (*Reader, error) {
	s := stream{bufio.NewReaderSize(r, bufferSize)}
	head, err := s.Peek(4)
	if err == nil && binary.BigEndian.Uint16(head) == magicGzip {
		z, err := gzip.NewReader(s)
		if err != nil {
			return nil, fmt.Errorf("read the head of the capture: gzip: %w", within(err))
		}
		s = stream{bufio.NewReaderSize(z, bufferSize)}
		if head, err = s.Peek(4); err != nil && err != io.EOF {
			return nil, fmt.Errorf("read the head of the capture: gzip: %w", within(err))
		}
	}
	if len(head) < 4 {
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("read the head of the capture: %w", err)
		}
		return nil, errors.New("not a capture: the file is empty or shorter than its first word")
	}
	out := new(Reader)
	if _, _, ok := pcapMagic(head); ok {
		out.file, err = openPcap(s)
	} else if binary.BigEndian.Uint32(head) == blockSection {
		out.file, err = openPcapng(s)
	} else {
		return nil, fmt.Errorf("not a capture: it begins with %x; a pcap or pcapng file is needed, as tcpdump -w writes it", head)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Next fills p with the next IP packet. p.Payload is good until the call after.
// At the end of the file the error is io.EOF; when the file breaks off, it is a
// *BrokenError. Frames that hold no IP packet are passed over and counted; when
// there was nothing but frames of a link type that is not understood, or that are
// encrypted on the air, the error at the end says so.
func (r *Reader) Next(p *flow.Packet) error {
	rec := &r.record
	for {
		if err := r.file.next(rec); err != nil {
			switch {
			case err != io.EOF:
				return &BrokenError{r.stats, err}
			case r.stats.Unknown > 0 && r.stats.Unknown == r.stats.Packets:
				return linkType(r.stats.LinkType).refused()
			case r.stats.Sealed > 0 && !r.any:
				return errSealed
			}
			return io.EOF
		}
		r.stats.Packets++
		r.stats.Bytes += int64(len(rec.data))
		*p = flow.Packet{At: rec.at}
		switch r.decoder.decode(rec.link, rec.data, rec.wire, p) {
		case decoded:
			r.any = true
			return nil
		case laterFragment:
			r.any = true
			r.stats.Fragments++
			return nil
		case notIP:
			r.stats.NotIP++
		case malformed:
			r.stats.Malformed++
		case unknownLink:
			r.stats.Unknown++
			r.stats.LinkType = int(rec.link)
		case sealed:
			r.stats.Sealed++
		}
	}
}

// Stats says what has been read so far.
func (r *Reader) Stats() Stats { return r.stats }
