package capture

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// The magic numbers of the classic format (draft-ietf-opsawg-pcap §4), in the
// writer's order.
const (
	magicMicro    = 0xa1b2c3d4
	magicNano     = 0xa1b23c4d
	magicModified = 0xa1b2cd34 // Kuznetzov's: longer record heads, with interface, protocol and kind
)

const pcapHead, pcapRecordHead = 24, 16

// pcap reads the classic format: a head, then records of one link type.
type pcap struct {
	stream
	order order
	tick  int64 // nanoseconds
	more  int   // octets of a record's head behind the usual ones
	link  linkType
}

// pcapMagic reports the writer's order and the magic number, when b begins with one.
func pcapMagic(b []byte) (o order, magic uint32, ok bool) {
	for _, o := range []order{{}, {big: true}} {
		switch m := o.u32(b); m {
		case magicMicro, magicNano, magicModified:
			return o, m, true
		}
	}
	return order{}, binary.BigEndian.Uint32(b), false
}

// openPcap reads the head: magic, version, time zone and accuracy (never used by
// anybody), snap length, link type.
func openPcap(s stream) (*pcap, error) {
	b, err := s.take(pcapHead)
	if err != nil {
		return nil, fmt.Errorf("read the head of the capture: %w", within(err))
	}
	o, magic, _ := pcapMagic(b)
	if major, minor := o.u16(b[4:]), o.u16(b[6:]); major != 2 || minor != 4 {
		return nil, fmt.Errorf("pcap version %d.%d is not understood; 2.4 is needed", major, minor)
	}
	p := &pcap{stream: s, order: o, tick: 1000, link: linkType(o.u32(b[20:]))} // the upper bits tell of the check sequence
	switch magic {
	case magicNano:
		p.tick = 1
	case magicModified:
		p.more = 8
	}
	if !p.link.understood() {
		return nil, p.link.refused()
	}
	return p, nil
}

// next implements format.
func (p *pcap) next(r *record) error {
	head, err := p.take(pcapRecordHead + p.more)
	if err == io.EOF {
		return io.EOF
	}
	if err != nil {
		return within(err)
	}
	sec, frac := p.order.u32(head), p.order.u32(head[4:])
	n, wire, err := length(p.order.u32(head[8:]), p.order.u32(head[12:]))
	if err != nil {
		return err
	}
	data, err := p.take(n)
	if err != nil {
		return within(err)
	}
	*r = record{time.Unix(int64(sec), int64(frac)*p.tick).UTC(), data, wire, p.link}
	return nil
}
