package proxy

import (
	"io"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A device that is silent may sleep: nobody asks it every few seconds whether it is
// there, and nobody asks its server at all.
func TestSilenceIsNotBroken(t *testing.T) {
	origin := make(chan net.Conn, 1)
	to := listen(t, func(c net.Conn) { origin <- c; io.Copy(io.Discard, c) })
	l := newLab(t, nil)
	io.WriteString(l.dial(to), "\x00x")
	defer (<-origin).Close()
	l.waitForRest(2)
	l.live.Range(func(key, _ any) bool {
		c := key.(*conn)
		if on, idle := option(t, c.TCPConn, unix.SOL_SOCKET, unix.SO_KEEPALIVE), option(t, c.TCPConn, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE); on != 1 || idle != 600 {
			t.Errorf("the device is asked after %d s (on: %d), want 600", idle, on)
		}
		if on := option(t, c.origin, unix.SOL_SOCKET, unix.SO_KEEPALIVE); on != 0 {
			t.Error("the server is asked")
		}
		return true
	})
}

func option(t *testing.T, s syscall.Conn, level, name int) (v int) {
	t.Helper()
	raw, err := s.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) { v, err = unix.GetsockoptInt(int(fd), level, name) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return v
}
