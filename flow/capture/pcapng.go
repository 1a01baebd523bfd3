package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"time"
)

// Block types (draft-ietf-opsawg-pcapng §4). All others are skipped.
const (
	blockSection   = 0x0a0d0d0a // the same in both orders
	blockInterface = 1
	blockPacket    = 2 // obsolete, Appendix A
	blockSimple    = 3
	blockEnhanced  = 6
)

const (
	magicOrder  = 0x1a2b3c4d
	blockHead   = 8  // type, length
	sectionHead = 12 // the same and the mark of the byte order
	blockFrame  = 12 // type, length, and the length once more behind the body
)

// Options of an interface description (§4.2).
const (
	optEnd      = 0
	optTSResol  = 9
	optTSOffset = 14
)

// pcapng reads the block format: sections, each with its own byte order and
// interfaces, each of those with its own link type and clock.
type pcapng struct {
	stream
	order      order
	interfaces []iface
}

// iface is what an interface description says.
type iface struct {
	link   linkType
	snap   uint32 // 0: none
	units  uint64 // of time in a second, at least 1
	offset int64  // seconds to be added
}

// openPcapng reads the head of the first section.
func openPcapng(s stream) (*pcapng, error) {
	p := &pcapng{stream: s}
	typ, body, err := p.block()
	if err != nil {
		return nil, fmt.Errorf("read the head of the capture: %w", err)
	}
	if typ != blockSection {
		return nil, errors.New("no section header stands at the beginning of the pcapng file")
	}
	return p, p.section(body)
}

// block reads one whole block and returns its body, or an empty one when nobody
// here reads blocks of its type. The error is io.EOF only between blocks.
func (p *pcapng) block() (typ uint32, body []byte, err error) {
	head, err := p.Peek(blockHead)
	if err == io.EOF && len(head) == 0 {
		return 0, nil, io.EOF
	}
	if err != nil {
		return 0, nil, within(err)
	}
	if typ = p.order.u32(head); typ == blockSection {
		if err := p.learnOrder(); err != nil {
			return 0, nil, err
		}
		head, _ = p.Peek(blockHead) // looking further ahead may have moved them
	}
	size := p.order.u32(head[4:])
	if size < blockFrame || size%4 != 0 {
		return 0, nil, fmt.Errorf("a pcapng block of %d octets; at least 12 and a multiple of 4 is needed", size)
	}
	switch typ {
	case blockSection, blockInterface, blockPacket, blockSimple, blockEnhanced:
	default:
		return typ, nil, p.skip(size)
	}
	if size > maxBlock {
		return 0, nil, fmt.Errorf("a pcapng block of %d octets; none that holds a packet is longer than %d", size, maxBlock)
	}
	b, err := p.take(int(size))
	if err != nil {
		return 0, nil, within(err)
	}
	return typ, b[blockHead : size-4], p.sameSize(size, b[size-4:])
}

// learnOrder looks ahead to the mark that tells a section's byte order, without
// which not even its length can be read.
func (p *pcapng) learnOrder() error {
	b, err := p.Peek(sectionHead)
	if len(b) < sectionHead {
		return within(err)
	}
	switch b = b[blockHead:]; uint32(magicOrder) {
	case binary.LittleEndian.Uint32(b):
		p.order = order{}
	case binary.BigEndian.Uint32(b):
		p.order = order{big: true}
	default:
		return fmt.Errorf("a pcapng section whose byte order is marked %x; 1a2b3c4d or 4d3c2b1a is needed", b)
	}
	return nil
}

// skip passes over a block without holding it.
func (p *pcapng) skip(size uint32) error {
	if size > maxSkipped {
		return fmt.Errorf("a pcapng block of %d octets; none is longer than %d", size, maxSkipped)
	}
	if _, err := p.Discard(int(size) - 4); err != nil {
		return within(err)
	}
	b, err := p.take(4)
	if err != nil {
		return within(err)
	}
	return p.sameSize(size, b)
}

// sameSize checks the length behind a block: where it differs, the file is damaged.
func (p *pcapng) sameSize(size uint32, b []byte) error {
	if behind := p.order.u32(b); behind != size {
		return fmt.Errorf("a pcapng block that begins as one of %d octets and ends as one of %d", size, behind)
	}
	return nil
}

// next implements format: it goes on to the next packet, taking in sections and
// interfaces on the way.
func (p *pcapng) next(r *record) error {
	for {
		typ, body, err := p.block()
		if err != nil {
			return err
		}
		switch typ {
		case blockSection:
			err = p.section(body)
		case blockInterface:
			err = p.describe(body)
		case blockEnhanced:
			if len(body) < 20 {
				return tooShort("an enhanced packet", body)
			}
			return p.packet(r, uint64(p.order.u32(body)), body)
		case blockPacket:
			if len(body) < 20 {
				return tooShort("a packet", body)
			}
			return p.packet(r, uint64(p.order.u16(body)), body) // a count of drops is in the other half
		case blockSimple:
			return p.simple(r, body)
		}
		if err != nil {
			return err
		}
	}
}

func tooShort(what string, body []byte) error {
	return fmt.Errorf("%s block with %d octets in it, too few for its fields", what, len(body))
}

// section begins a new section (§4.1).
func (p *pcapng) section(body []byte) error {
	if len(body) < 16 {
		return tooShort("a section header", body)
	}
	if major, minor := p.order.u16(body[4:]), p.order.u16(body[6:]); major != 1 {
		return fmt.Errorf("pcapng version %d.%d is not understood; 1.0 is needed", major, minor)
	}
	p.interfaces = p.interfaces[:0]
	return nil
}

// describe takes in an interface description (§4.2).
func (p *pcapng) describe(body []byte) error {
	if len(body) < 8 {
		return tooShort("an interface description", body)
	}
	if len(p.interfaces) >= maxInterfaces {
		return fmt.Errorf("more than %d interfaces in one section", maxInterfaces)
	}
	i := iface{link: linkType(p.order.u16(body)), snap: p.order.u32(body[4:]), units: 1e6}
	for opts := body[8:]; len(opts) >= 4; {
		code, n := p.order.u16(opts), int(p.order.u16(opts[2:]))
		if code == optEnd {
			break
		}
		padded := 4 + (n+3)&^3
		if padded > len(opts) {
			return errors.New("an interface description whose options run past its end")
		}
		value := opts[4 : 4+n]
		switch {
		case code == optTSResol && n == 1:
			var err error
			if i.units, err = resolution(value[0]); err != nil {
				return err
			}
		case code == optTSOffset && n == 8:
			i.offset = int64(p.order.u64(value))
		}
		opts = opts[padded:]
	}
	p.interfaces = append(p.interfaces, i)
	return nil
}

// resolution is how many units of time a second has: a power of 10, or, with the
// top bit set, of 2.
func resolution(b byte) (uint64, error) {
	exp := int(b & 0x7f)
	if b&0x80 != 0 {
		if exp > 63 {
			return 0, fmt.Errorf("a time resolution of 2^-%d s; at most 2^-63 is understood", exp)
		}
		return 1 << exp, nil
	}
	if exp > 19 {
		return 0, fmt.Errorf("a time resolution of 10^-%d s; at most 10^-19 is understood", exp)
	}
	units := uint64(1)
	for range exp {
		units *= 10
	}
	return units, nil
}

// time converts a time stamp. What is left of a second is multiplied in 128 bits,
// so that no resolution loses anything.
func (i *iface) time(stamp uint64) (time.Time, error) {
	sec, rest := stamp/i.units, stamp%i.units
	hi, lo := bits.Mul64(rest, 1e9)
	nanos, _ := bits.Div64(hi, lo, i.units) // rest < units, so the quotient is below 1e9
	if sec > maxSeconds || i.offset > maxSeconds || i.offset < -maxSeconds || uint64(int64(sec)+i.offset) > maxSeconds {
		return time.Time{}, fmt.Errorf("a packet dated %d s and %d s more after 1970, which no calendar has", sec, i.offset)
	}
	return time.Unix(int64(sec)+i.offset, int64(nanos)).UTC(), nil
}

func (p *pcapng) iface(id uint64) (*iface, error) {
	if id >= uint64(len(p.interfaces)) {
		return nil, fmt.Errorf("a packet of interface %d, of which there are %d", id, len(p.interfaces))
	}
	return &p.interfaces[id], nil
}

// packet reads an enhanced (§4.3) or obsolete (Appendix A) packet: interface,
// time stamp, both lengths, then the frame. Options behind it are of no use here.
func (p *pcapng) packet(r *record, id uint64, body []byte) error {
	i, err := p.iface(id)
	if err != nil {
		return err
	}
	n, wire, err := length(p.order.u32(body[12:]), p.order.u32(body[16:]))
	if err != nil {
		return err
	}
	if n > len(body)-20 {
		return fmt.Errorf("a packet of %d octets in a block with room for %d", n, len(body)-20)
	}
	at, err := i.time(uint64(p.order.u32(body[4:]))<<32 | uint64(p.order.u32(body[8:])))
	if err != nil {
		return err
	}
	*r = record{at, body[20 : 20+n], wire, i.link}
	return nil
}

// simple reads a simple packet (§4.4): of the first interface, without a time,
// cut to that interface's snap length.
func (p *pcapng) simple(r *record, body []byte) error {
	if len(body) < 4 {
		return tooShort("a simple packet", body)
	}
	i, err := p.iface(0)
	if err != nil {
		return err
	}
	wire := p.order.u32(body)
	captured := wire
	if i.snap != 0 {
		captured = min(captured, i.snap)
	}
	n, onWire, err := length(captured, wire)
	if err != nil {
		return err
	}
	if n > len(body)-4 {
		return fmt.Errorf("a packet of %d octets in a block with room for %d", n, len(body)-4)
	}
	*r = record{time.Time{}, body[4 : 4+n], onWire, i.link}
	return nil
}
