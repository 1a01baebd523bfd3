package proxy

import (
	"net"

	"golang.org/x/sys/unix"

	"github.com/netcurtain/netcurtain/flow"
)

// acknowledgements is how many packets without payload came from the device, and went
// to it, and how long each is. Those are never put together on the way, as others are:
// connection tracking has counted each.
func acknowledgements(c *net.TCPConn) (n flow.Counters) {
	raw, err := c.SyscallConn()
	if err != nil {
		return n
	}
	_ = raw.Control(func(fd uintptr) {
		t, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		header := uint64(20 + 20) // IPv4 and TCP (RFC 791 §3.1, RFC 9293 §3.1)
		if addrPort(c.RemoteAddr()).Addr().Is6() {
			header += 20 // RFC 8200 §3
		}
		const timestamps = 1 // TCPI_OPT_TIMESTAMPS, of linux/tcp.h
		if t.Options&timestamps != 0 {
			header += 12 // RFC 7323 §3.2, padded
		}
		in, out := uint64(t.Segs_in-t.Data_segs_in), uint64(t.Segs_out-t.Data_segs_out)
		n.Orig = flow.Count{Packets: in, Bytes: in * header}
		n.Reply = flow.Count{Packets: out, Bytes: out * header}
	})
	return n
}
