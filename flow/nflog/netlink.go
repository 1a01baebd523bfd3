//go:build linux

package nflog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
)

// The kernel's words (linux/netfilter/nfnetlink_log.h). They are spoken here and
// not by a library, because none reads what chains of family netdev log.
const (
	typePacket = 4 << 8 // NFNL_SUBSYS_ULOG, NFULNL_MSG_PACKET
	typeConfig = typePacket | 1

	configCommand = 1 // NFULA_CFG_CMD
	configMode    = 2 // NFULA_CFG_MODE
	configTimeout = 4 // NFULA_CFG_TIMEOUT
	configFlags   = 6 // NFULA_CFG_FLAGS

	attrTimestamp = 3
	attrInDev     = 4
	attrHWAddr    = 8
	attrPayload   = 9
	attrSeq       = 12
)

// open takes a group for this process. delay is in hundredths of a second.
func open(group uint16, delay uint32, readBuffer int) (*netlink.Conn, error) {
	c, err := netlink.Dial(syscall.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("opening the netfilter log: %w", err)
	}
	if err := join(c, group, delay, readBuffer); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func join(c *netlink.Conn, group uint16, delay uint32, readBuffer int) error {
	if err := c.SetReadBuffer(readBuffer); err != nil {
		return fmt.Errorf("netfilter log: a buffer of %d octets: %w", readBuffer, err)
	}
	// Sequence numbers tell of losses; an error would only cost more packets.
	if err := c.SetOption(netlink.NoENOBUFS, true); err != nil {
		return fmt.Errorf("netfilter log: %w", err)
	}
	const bind, copyPacket, withSeq = 1, 2, 1
	for _, attr := range []netlink.Attribute{
		{Type: configCommand, Data: []byte{bind}},
		{Type: configMode, Data: []byte{0, 0, 0, 0, copyPacket, 0}}, // as much as the rule says
		{Type: configFlags, Data: binary.BigEndian.AppendUint16(nil, withSeq)},
		{Type: configTimeout, Data: binary.BigEndian.AppendUint32(nil, delay)},
	} {
		b, err := netlink.MarshalAttributes([]netlink.Attribute{attr})
		if err != nil {
			return err
		}
		_, err = c.Execute(netlink.Message{
			Header: netlink.Header{Type: typeConfig, Flags: netlink.Request | netlink.Acknowledge},
			Data:   append(binary.BigEndian.AppendUint16([]byte{syscall.AF_UNSPEC, 0}, group), b...), // nfgenmsg
		})
		if err != nil {
			return fmt.Errorf("netfilter log group %d, which only one process can have: %w", group, err)
		}
	}
	return nil
}

// logged is what the kernel tells of one packet. Zero values were not told; the
// slices are the message's.
type logged struct {
	at      time.Time
	inDev   uint32
	mac     []byte
	payload []byte
	seq     uint32
	hasSeq  bool
}

var errMessage = errors.New("the kernel's message ends within its attributes")

// read takes a message of the log apart, of whatever family.
func (l *logged) read(b []byte) error {
	if len(b) < 4 { // nfgenmsg
		return errMessage
	}
	for b = b[4:]; len(b) >= 4; {
		n, typ := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])&0x3fff
		if n < 4 || n > len(b) {
			return errMessage
		}
		v := b[4:n]
		switch {
		case typ == attrTimestamp && len(v) >= 16:
			l.at = time.Unix(int64(binary.BigEndian.Uint64(v)), int64(binary.BigEndian.Uint64(v[8:]))*1000)
		case typ == attrInDev && len(v) >= 4:
			l.inDev = binary.BigEndian.Uint32(v)
		case typ == attrHWAddr && len(v) >= 4:
			if m := int(binary.BigEndian.Uint16(v)); m <= len(v)-4 {
				l.mac = v[4 : 4+m]
			}
		case typ == attrPayload:
			l.payload = v
		case typ == attrSeq && len(v) >= 4:
			l.seq, l.hasSeq = binary.BigEndian.Uint32(v), true
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}
