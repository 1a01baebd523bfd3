package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/netcurtain/netcurtain/flow"
)

// Attributes of linux/netfilter/nfnetlink_conntrack.h. Numbers inside them are
// big-endian on every machine; only netlink's own headers are in host order.
const (
	ctaTupleOrig     = 1
	ctaTupleReply    = 2
	ctaMark          = 8
	ctaCountersOrig  = 9
	ctaCountersReply = 10
	ctaID            = 12
	ctaTimestamp     = 20

	ctaTupleIP    = 1
	ctaTupleProto = 2

	ctaIPv4Src = 1
	ctaIPv4Dst = 2
	ctaIPv6Src = 3
	ctaIPv6Dst = 4

	ctaProtoNum     = 1
	ctaProtoSrcPort = 2
	ctaProtoDstPort = 3

	ctaCountersPackets = 1
	ctaCountersBytes   = 2

	ctaTimestampStart = 1
	ctaTimestampStop  = 2

	nlaHeaderLen = 4
	nlaTypeMask  = 0x3fff // without the flags for nested and byte order
)

var errAttribute = errors.New("attribute runs past its end")

// attribute takes the first netlink attribute off b.
func attribute(b []byte) (typ uint16, data, rest []byte, err error) {
	if len(b) < nlaHeaderLen {
		return 0, nil, nil, errAttribute
	}
	n := int(binary.NativeEndian.Uint16(b))
	if n < nlaHeaderLen || n > len(b) {
		return 0, nil, nil, errAttribute
	}
	typ = binary.NativeEndian.Uint16(b[2:]) & nlaTypeMask
	return typ, b[nlaHeaderLen:n], b[min(align4(n), len(b)):], nil
}

func align4(n int) int { return (n + 3) &^ 3 }

// decode reads the attributes of one conntrack entry into e, of which it leaves
// Kind and At alone. Unknown attributes are skipped: kernels add some.
func decode(b []byte, e *flow.Event) error {
	for len(b) > 0 {
		typ, data, rest, err := attribute(b)
		if err != nil {
			return err
		}
		switch typ {
		case ctaTupleOrig:
			err = decodeTuple(data, &e.Tuple)
		case ctaTupleReply:
			err = decodeTuple(data, &e.Reply)
		case ctaMark:
			e.Mark, err = be32(data)
		case ctaID:
			e.ID, err = be32(data)
		case ctaCountersOrig:
			err = decodeCount(data, &e.Counters.Orig)
		case ctaCountersReply:
			err = decodeCount(data, &e.Counters.Reply)
		case ctaTimestamp:
			err = decodeTimes(data, e)
		}
		if err != nil {
			return fmt.Errorf("conntrack attribute %d: %w", typ, err)
		}
		b = rest
	}
	if e.Tuple == (flow.Tuple{}) {
		return errors.New("conntrack entry without its original tuple")
	}
	return nil
}

func decodeTuple(b []byte, t *flow.Tuple) error {
	for len(b) > 0 {
		typ, data, rest, err := attribute(b)
		if err != nil {
			return err
		}
		switch typ {
		case ctaTupleIP:
			err = decodeAddrs(data, t)
		case ctaTupleProto:
			err = decodeProto(data, t)
		}
		if err != nil {
			return err
		}
		b = rest
	}
	return nil
}

func decodeAddrs(b []byte, t *flow.Tuple) error {
	for len(b) > 0 {
		typ, data, rest, err := attribute(b)
		if err != nil {
			return err
		}
		end := &t.Src
		if typ == ctaIPv4Dst || typ == ctaIPv6Dst {
			end = &t.Dst
		}
		switch {
		case (typ == ctaIPv4Src || typ == ctaIPv4Dst) && len(data) == 4:
			*end = netip.AddrFrom4([4]byte(data)).As16()
		case (typ == ctaIPv6Src || typ == ctaIPv6Dst) && len(data) == 16:
			*end = [16]byte(data)
		default:
			return fmt.Errorf("address of type %d with %d octets", typ, len(data))
		}
		b = rest
	}
	return nil
}

func decodeProto(b []byte, t *flow.Tuple) error {
	for len(b) > 0 {
		typ, data, rest, err := attribute(b)
		if err != nil {
			return err
		}
		switch {
		case typ == ctaProtoNum && len(data) == 1:
			t.Proto = flow.Proto(data[0])
		case typ == ctaProtoSrcPort && len(data) == 2:
			t.SrcPort = binary.BigEndian.Uint16(data)
		case typ == ctaProtoDstPort && len(data) == 2:
			t.DstPort = binary.BigEndian.Uint16(data)
		case typ <= ctaProtoDstPort:
			return fmt.Errorf("protocol attribute %d with %d octets", typ, len(data))
		}
		b = rest
	}
	return nil
}

func decodeCount(b []byte, c *flow.Count) error {
	for len(b) > 0 {
		typ, data, rest, err := attribute(b)
		if err != nil {
			return err
		}
		switch typ {
		case ctaCountersPackets:
			c.Packets, err = be64(data)
		case ctaCountersBytes:
			c.Bytes, err = be64(data)
		}
		if err != nil {
			return err
		}
		b = rest
	}
	return nil
}

func decodeTimes(b []byte, e *flow.Event) error {
	for len(b) > 0 {
		typ, data, rest, err := attribute(b)
		if err != nil {
			return err
		}
		var ns uint64
		switch typ {
		case ctaTimestampStart:
			if ns, err = be64(data); ns != 0 {
				e.Start = time.Unix(0, int64(ns))
			}
		case ctaTimestampStop:
			if ns, err = be64(data); ns != 0 {
				e.Stop = time.Unix(0, int64(ns))
			}
		}
		if err != nil {
			return err
		}
		b = rest
	}
	return nil
}

func be32(b []byte) (uint32, error) {
	if len(b) != 4 {
		return 0, fmt.Errorf("%d octets, 4 are needed", len(b))
	}
	return binary.BigEndian.Uint32(b), nil
}

func be64(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("%d octets, 8 are needed", len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}
