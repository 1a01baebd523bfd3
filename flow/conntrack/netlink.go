//go:build linux

package conntrack

import (
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/netcurtain/netcurtain/flow"
)

// Of linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h.
const (
	subsystem = unix.NFNL_SUBSYS_CTNETLINK << 8
	ctNew     = subsystem
	ctGet     = subsystem | 1
	ctDelete  = subsystem | 2

	// Bits of the multicast groups NFNLGRP_CONNTRACK_NEW (1) and _DESTROY (3).
	groupNew     = 1 << 0
	groupDestroy = 1 << 2

	nfgenmsgLen = 4 // family, version, resource id
)

// socket is a netlink socket as a file, so that Go's poller waits for it and
// deadlines work. One datagram at a time goes through the caller's buffer:
// libraries that collect messages cost ten times the CPU of this on a dump.
type socket struct{ f *os.File }

// listen opens a socket in the calling thread's network namespace.
func listen(readBuffer int, groups uint32) (socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return socket{}, os.NewSyscallError("socket", err)
	}
	s := socket{os.NewFile(uintptr(fd), "conntrack netlink")}
	if readBuffer > 0 && unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, readBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, readBuffer); err != nil {
			return socket{}, errors.Join(os.NewSyscallError("setsockopt", err), s.f.Close())
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return socket{}, errors.Join(os.NewSyscallError("bind", err), s.f.Close())
	}
	return s, nil
}

func (s socket) close() { _ = s.f.Close() }

func (s socket) write(b []byte) error {
	_, err := s.f.Write(b)
	return err
}

func (s socket) read(buf []byte) ([]byte, error) {
	n, err := s.f.Read(buf)
	return buf[:max(n, 0)], err
}

// interruptWhen ends a read in progress when ctx ends; call what it returns
// when the socket is no longer in use.
func (s socket) interruptWhen(ctx context.Context) func() {
	stop := context.AfterFunc(ctx, func() { _ = s.f.SetReadDeadline(time.Unix(1, 0)) })
	return func() { stop() }
}

// message is one netlink message about a connection.
type message struct {
	typ, flags uint16
	attributes []byte // behind nfgenmsg; for errors, the whole body
}

// messages walks the messages in one datagram and stops at a broken one.
func messages(b []byte) iter.Seq[message] {
	return func(yield func(message) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			n := int(binary.NativeEndian.Uint32(b))
			if n < unix.SizeofNlMsghdr || n > len(b) {
				return
			}
			m := message{
				typ:        binary.NativeEndian.Uint16(b[4:]),
				flags:      binary.NativeEndian.Uint16(b[6:]),
				attributes: b[unix.SizeofNlMsghdr:n],
			}
			if m.typ > unix.NLMSG_MIN_TYPE {
				m.attributes = m.attributes[min(nfgenmsgLen, len(m.attributes)):]
			}
			if !yield(m) {
				return
			}
			b = b[min(align4(n), len(b)):]
		}
	}
}

// kind tells new from changed by the flags, as the kernel does; 0 is none of ours.
func (m message) kind() flow.Kind {
	switch m.typ {
	case ctNew:
		if m.flags&(unix.NLM_F_CREATE|unix.NLM_F_EXCL) != 0 {
			return flow.New
		}
		return flow.Update
	case ctDelete:
		return flow.Destroy
	}
	return 0
}

// errno is the error in an NLMSG_ERROR; nil is an acknowledgement.
func (m message) errno() error {
	if len(m.attributes) < 4 {
		return errors.New("netlink error without a number")
	}
	if n := int32(binary.NativeEndian.Uint32(m.attributes)); n != 0 {
		return unix.Errno(-n)
	}
	return nil
}

// request builds one netlink message with nfgenmsg and the given attributes.
func request(typ, flags uint16, family uint8, attributes []byte) []byte {
	n := unix.SizeofNlMsghdr + nfgenmsgLen + len(attributes)
	b := make([]byte, unix.SizeofNlMsghdr, n)
	binary.NativeEndian.PutUint32(b, uint32(n))
	binary.NativeEndian.PutUint16(b[4:], typ)
	binary.NativeEndian.PutUint16(b[6:], flags)
	b = append(b, family, 0, 0, 0)
	return append(b, attributes...)
}

// requestAbout asks for the entry of the connection whose original direction is t.
func requestAbout(t flow.Tuple) []byte {
	family, src, dst := uint8(unix.AF_INET), uint16(ctaIPv4Src), uint16(ctaIPv4Dst)
	if t.SrcAddr().Is6() {
		family, src, dst = unix.AF_INET6, ctaIPv6Src, ctaIPv6Dst
	}
	addrs := appendAttribute(nil, src, t.SrcAddr().AsSlice())
	addrs = appendAttribute(addrs, dst, t.DstAddr().AsSlice())
	proto := appendAttribute(nil, ctaProtoNum, []byte{byte(t.Proto)})
	proto = appendAttribute(proto, ctaProtoSrcPort, binary.BigEndian.AppendUint16(nil, t.SrcPort))
	proto = appendAttribute(proto, ctaProtoDstPort, binary.BigEndian.AppendUint16(nil, t.DstPort))
	tuple := appendAttribute(nil, unix.NLA_F_NESTED|ctaTupleIP, addrs)
	tuple = appendAttribute(tuple, unix.NLA_F_NESTED|ctaTupleProto, proto)
	return request(ctGet, unix.NLM_F_REQUEST, family,
		appendAttribute(nil, unix.NLA_F_NESTED|ctaTupleOrig, tuple))
}

func appendAttribute(b []byte, typ uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(nlaHeaderLen+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
