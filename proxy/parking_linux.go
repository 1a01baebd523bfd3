package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// watcher is an epoll instance (epoll(7)), itself waited for by the runtime.
type watcher struct{ epoll *os.File }

func newWatcher() (watcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return watcher{}, fmt.Errorf("waiting for idle connections: %w", err)
	}
	return watcher{os.NewFile(uintptr(fd), "epoll")}, nil
}

// run wakes whose socket has something to say until ctx ends.
func (w watcher) run(ctx context.Context, wake func(ticket uint64)) error {
	defer context.AfterFunc(ctx, func() { _ = w.epoll.Close() })()
	raw, err := w.epoll.SyscallConn()
	if err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 64)
	for {
		var n int
		var failed error
		err := raw.Read(func(fd uintptr) bool {
			n, failed = unix.EpollWait(int(fd), events, 0)
			return n > 0 || failed != nil && !errors.Is(failed, unix.EINTR)
		})
		if ctx.Err() != nil {
			return nil
		}
		if err := errors.Join(err, failed); err != nil {
			return fmt.Errorf("waiting for idle connections: %w", err)
		}
		for _, e := range events[:n] {
			wake(uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32)
		}
	}
}

// watch has c's next event wake a ticket; first says that it was most likely never
// watched before. A socket that is closed is forgotten by the kernel itself.
func (w watcher) watch(c *net.TCPConn, ticket uint64, first bool, _ func(uint64)) error {
	socket, err := c.SyscallConn()
	if err != nil {
		return err
	}
	epoll, err := w.epoll.SyscallConn()
	if err != nil {
		return err
	}
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(ticket), Pad: int32(ticket >> 32)}
	var failed, closed error
	err = socket.Control(func(fd uintptr) {
		closed = epoll.Control(func(ep uintptr) {
			likely, otherwise, mistaken := unix.EPOLL_CTL_MOD, unix.EPOLL_CTL_ADD, unix.ENOENT
			if first {
				likely, otherwise, mistaken = otherwise, likely, unix.EEXIST
			}
			failed = unix.EpollCtl(int(ep), likely, int(fd), &e)
			if errors.Is(failed, mistaken) {
				failed = unix.EpollCtl(int(ep), otherwise, int(fd), &e)
			}
		})
	})
	return errors.Join(err, closed, failed)
}
