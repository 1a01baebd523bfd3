package capture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Bounds: what a file may make us hold or skip, whatever it claims.
const (
	maxPacket     = 256 << 10          // libpcap's own bound for a packet
	maxBlock      = maxPacket + 64<<10 // a pcapng block that we read: a packet and its options
	maxSkipped    = 16 << 20           // one that we do not: Wireshark's bound
	maxInterfaces = 4096               // of one pcapng section
	maxSeconds    = 253_402_300_799    // the end of the year 9999, the last that JSON can say
	bufferSize    = maxBlock           // the one buffer: every packet lies in it, none is copied
)

// record is one captured frame, as either format tells it.
type record struct {
	at   time.Time // zero when the file does not say
	data []byte    // good until the next record
	wire int       // octets before the frame was cut to the snap length
	link linkType
}

// stream is a file's octets, looked at in place.
type stream struct{ *bufio.Reader }

// take returns the next n octets, at most bufferSize, which are good until the
// call after. The error is io.EOF only when there is not one octet left.
func (s stream) take(n int) ([]byte, error) {
	b, err := s.Peek(n)
	if len(b) == n {
		_, _ = s.Discard(n) // cannot fail: they are in the buffer
		return b, nil
	}
	if err == io.EOF && len(b) > 0 {
		err = io.ErrUnexpectedEOF
	}
	return nil, err
}

// within words the end of a file where more was promised.
func within(err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the file ends in the middle of a record: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// order reads numbers as the writer of a file had them. It is no interface, so
// that the calls are inlined.
type order struct{ big bool }

func (o order) u16(b []byte) uint16 {
	if o.big {
		return binary.BigEndian.Uint16(b)
	}
	return binary.LittleEndian.Uint16(b)
}

func (o order) u32(b []byte) uint32 {
	if o.big {
		return binary.BigEndian.Uint32(b)
	}
	return binary.LittleEndian.Uint32(b)
}

func (o order) u64(b []byte) uint64 {
	if o.big {
		return binary.BigEndian.Uint64(b)
	}
	return binary.LittleEndian.Uint64(b)
}

// length checks how long a packet says it is. Some writers leave out the length
// on the wire, or mix the two up; the larger one is it then.
func length(captured, wire uint32) (n, onWire int, err error) {
	if captured > maxPacket {
		return 0, 0, fmt.Errorf("a packet of %d octets; none is longer than %d", captured, maxPacket)
	}
	return int(captured), int(min(max(captured, wire), 1<<30)), nil
}
