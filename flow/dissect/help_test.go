package dissect

import (
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/flow"
)

var (
	device = netip.MustParseAddr("192.168.77.20")
	server = netip.MustParseAddr("203.0.113.7")
)

// packet is one of a flow between the device's port 40000 and the server's port.
func packet(p flow.Proto, dir flow.Dir, port uint16, seq uint32, payload []byte) *flow.Packet {
	t := flow.NewTuple(p, netip.AddrPortFrom(device, 40000), netip.AddrPortFrom(server, port))
	if dir == flow.Reply {
		t = t.Reverse()
	}
	return &flow.Packet{Tuple: t, Seq: seq, Flags: flow.ACK, Payload: payload}
}

// talk feeds segments, alternating as the prefix of each says: "> " from the
// device, "< " to it.
func talk(p flow.Proto, port uint16, lines ...string) Result {
	c := New(p, port)
	seq := [2]uint32{1000, 5000}
	for _, l := range lines {
		dir := flow.Orig
		if l[0] == '<' {
			dir = flow.Reply
		}
		b := []byte(l[2:])
		c.Feed(dir, packet(p, dir, port, seq[dir], b))
		seq[dir] += uint32(len(b))
		for i := range b { // whoever kept the packet's memory is found out
			b[i] = 0xee
		}
	}
	return c.Result()
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// goHello is the first flight of Go's own TLS client: with its default groups a
// hello of about 1.5 kB.
func goHello(t testing.TB, cfg *tls.Config) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go tls.Client(a, cfg).Handshake() //nolint:errcheck // it fails when the pipe closes
	if err := b.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 5)
	if _, err := io.ReadFull(b, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(b, body); err != nil {
		t.Fatal(err)
	}
	return append(head, body...)
}

// records cuts the hello's one record into many of n bytes each.
func records(hello []byte, n int) []byte {
	var out []byte
	for body := hello[5:]; len(body) > 0; {
		k := min(n, len(body))
		out = append(out, hello[0], hello[1], hello[2], byte(k>>8), byte(k))
		out = append(out, body[:k]...)
		body = body[k:]
	}
	return out
}
