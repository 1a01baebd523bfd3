//go:build !linux

package proxy

import (
	"context"
	"net"
)

// watcher has a goroutine for each socket: only on Linux is anything handed over.
type watcher struct{}

func newWatcher() (watcher, error) { return watcher{}, nil }

func (watcher) run(ctx context.Context, _ func(uint64)) error { <-ctx.Done(); return nil }

func (watcher) watch(c *net.TCPConn, ticket uint64, _ bool, wake func(uint64)) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	go func() {
		asked := false
		_ = raw.Read(func(uintptr) bool { again := asked; asked = true; return again })
		wake(ticket)
	}()
	return nil
}
