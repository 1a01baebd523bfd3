package capture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/netcurtain/netcurtain/flow"
)

// Stats says what a Reader has read so far.
type Stats struct {
	Packets   int64 // records in the file
	Bytes     int64 // captured, of those
	NotIP     int64 // ARP, LLDP and their like: passed over
	Malformed int64 // cut before the end of a header, or nonsense in one: passed over
	Unknown   int64 // of a link type that is not understood: passed over
	LinkType  int   // the last such link type (pcap-linktype(7))
	Fragments int64 // later fragments, counted with the flow of the first one
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
	next    func() (data []byte, ci gopacket.CaptureInfo, link layers.LinkType, err error)
	decoder decoder
	stats   Stats
}

// Magic numbers of the two formats as they stand in the file.
const (
	magicNg      = 0x0a0d0d0a
	magicGzip    = 0x1f8b
	maxPacket    = 256 << 10 // libpcap's own bound for a record
	readerBuffer = 64 << 10
)

// Open reads the head of a capture. The error says what the file is not, or
// which link type would be needed.
func Open(r io.Reader) (*Reader, error) {
	br := bufio.NewReaderSize(r, readerBuffer)
	head, err := br.Peek(4)
	if err != nil {
		return nil, errors.New("not a capture: the file is empty or shorter than its first word")
	}
	ng := binary.BigEndian.Uint32(head) == magicNg
	if !ng && binary.BigEndian.Uint16(head) != magicGzip && !isPcap(head) {
		return nil, fmt.Errorf("not a capture: it begins with %x; a pcap or pcapng file is needed, as tcpdump -w writes it", head)
	}
	out := new(Reader)
	if ng {
		err = out.openNg(br)
	} else {
		err = out.openPcap(br)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

func isPcap(head []byte) bool {
	for _, order := range []binary.ByteOrder{binary.BigEndian, binary.LittleEndian} {
		if m := order.Uint32(head); m == 0xa1b2c3d4 || m == 0xa1b23c4d {
			return true
		}
	}
	return false
}

func (r *Reader) openPcap(br *bufio.Reader) error {
	src, err := pcapgo.NewReader(br)
	if err != nil {
		return fmt.Errorf("read the head of the capture: %w", unexpected(err))
	}
	link := src.LinkType() & 0x0fff // the upper bits carry the length of the frame check sequence
	if !understood(link) {
		return fmt.Errorf("link type %d is not understood; Ethernet, Linux cooked, raw IP, loopback or PPP is needed", int(link))
	}
	r.next = func() ([]byte, gopacket.CaptureInfo, layers.LinkType, error) {
		data, ci, err := src.ZeroCopyReadPacketData()
		if err == io.EOF && ci.CaptureLength > 0 {
			err = io.ErrUnexpectedEOF // between a record's head and its packet
		}
		return data, ci, link, err
	}
	return nil
}

func (r *Reader) openNg(br *bufio.Reader) error {
	src, err := pcapgo.NewNgReader(br, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
	if err != nil {
		return fmt.Errorf("read the head of the capture: %w", unexpected(err))
	}
	r.next = func() ([]byte, gopacket.CaptureInfo, layers.LinkType, error) {
		data, ci, err := src.ZeroCopyReadPacketData()
		if err != nil {
			return nil, ci, 0, err
		}
		link, _ := ci.AncillaryData[0].(layers.LinkType)
		return data, ci, link, nil
	}
	return nil
}

// Next fills p with the next IP packet. p.Payload is good until the call after.
// At the end of the file the error is io.EOF; when the file breaks off, it is a
// *BrokenError. Frames that hold no IP packet are passed over and counted.
func (r *Reader) Next(p *flow.Packet) error {
	for {
		data, ci, link, err := r.next()
		if err != nil {
			if err == io.EOF {
				return io.EOF
			}
			return &BrokenError{r.stats, unexpected(err)}
		}
		if len(data) > maxPacket {
			return &BrokenError{r.stats, fmt.Errorf("a record of %d octets; no packet is longer than %d", len(data), maxPacket)}
		}
		r.stats.Packets++
		r.stats.Bytes += int64(len(data))
		*p = flow.Packet{At: ci.Timestamp}
		switch r.decoder.decode(link, data, ci.Length, p) {
		case decoded:
			return nil
		case laterFragment:
			r.stats.Fragments++
			return nil
		case notIP:
			r.stats.NotIP++
		case malformed:
			r.stats.Malformed++
		case unknownLink:
			r.stats.Unknown++
			r.stats.LinkType = int(link)
		}
	}
}

// Stats says what has been read so far.
func (r *Reader) Stats() Stats { return r.stats }

// unexpected words the ends that readers meet in the middle of something.
func unexpected(err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the file ends in the middle of a record: %w", io.ErrUnexpectedEOF)
	}
	return err
}
