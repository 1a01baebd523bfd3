package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"github.com/netcurtain/netcurtain/internal/buildinfo"
	"github.com/netcurtain/netcurtain/ui"
)

func (d *daemon) pages() (*ui.Server, error) {
	s := d.settings.Load()
	if err := errors.Join(d.metrics.Register(collectors.NewGoCollector()),
		d.metrics.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))); err != nil {
		return nil, err
	}
	return ui.New(ui.Config{
		House: household{d}, Ledger: d.store, Live: d.recorder, Health: d.report, Kept: d.kept, Carrying: d.tally,
		Gatherer: prometheus.Gatherers{d.metrics, ofCoreDNS{}}, Registerer: d.metrics,
		Hosts: s.Page.Hosts, Version: buildinfo.Version, Logger: d.log,
	})
}

// ofCoreDNS gathers CoreDNS's own metrics, which it registers globally, and
// leaves out what else lives there (the Go runtime's are ours already).
type ofCoreDNS struct{}

func (ofCoreDNS) Gather() ([]*dto.MetricFamily, error) {
	all, err := prometheus.DefaultGatherer.Gather()
	var out []*dto.MetricFamily
	for _, f := range all {
		if len(f.GetName()) > 8 && f.GetName()[:8] == "coredns_" {
			out = append(out, f)
		}
	}
	return out, err
}

// kept says what this box keeps, for the page.
func (d *daemon) kept(context.Context) []string {
	s := d.settings.Load()
	asked := "No server was asked by ourselves since the start."
	if d.carrier != nil {
		if a := d.carrier.Asked(); a.Servers > 0 {
			asked = fmt.Sprintf("Servers that we asked by ourselves since the start, for devices whose requests are to leave encrypted: %d, each once a week at most, the last at %s; %d of them answer encrypted.",
				a.Servers, a.Last.Format("15:04 on 2 January"), a.Able)
		}
	}
	return []string{
		fmt.Sprintf("Names of destinations, for devices whose log level is names: %s, at most %d MB, in %s.", s.Store.Age, s.Store.Bytes>>20, s.House.Volatile),
		fmt.Sprintf("Daily sums per device and company, without names for personal devices: at most %d MB, in %s.", s.Store.MemoryBytes>>20, s.House.State),
		"What the household chose: until it is changed.",
		"How often each list decided: sums, for as long as the list is there. What this box itself asked outside: hosts and sums, for ninety days after the last time.",
		"Nothing is sent anywhere. Look-ups go to the resolver that the router uses; lists are fetched from the addresses on the page Lists.",
		asked,
	}
}

// listen opens the page's port and the control socket.
func (d *daemon) listen(ctx context.Context) (page, control net.Listener, err error) {
	s := d.settings.Load()
	if d.cmd.PageFD > 0 {
		f := os.NewFile(uintptr(d.cmd.PageFD), "page")
		page, err = net.FileListener(f)
		err = errors.Join(err, f.Close())
	} else {
		page, err = (&net.ListenConfig{}).Listen(ctx, "tcp", s.Page.Listen.String())
	}
	if err != nil {
		return nil, nil, fmt.Errorf("the page: %w: is another program there? choose another in section page, option listen", err)
	}
	if control, err = listenControl(ctx, s.House.Socket); err != nil {
		return nil, nil, errors.Join(err, page.Close())
	}
	return page, control, nil
}

// listenControl opens the control socket for root and our own user. A socket
// that nobody answers on any more is taken over.
func listenControl(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("the control socket: %w", err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("the control socket %s: another netcurtain runs already", path)
	}
	_ = os.Remove(path)
	mask := syscall.Umask(0o177) // the socket must never be there with other rights
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	syscall.Umask(mask)
	if err != nil {
		return nil, fmt.Errorf("the control socket: %w", err)
	}
	return peersOnly{l.(*net.UnixListener)}, nil
}

// peersOnly lets root and our own user in, whatever the file's rights became.
type peersOnly struct{ *net.UnixListener }

func (l peersOnly) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if peerAllowed(c) {
			return c, nil
		}
		_ = c.Close()
	}
}

func peerAllowed(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	allowed := false
	err = raw.Control(func(fd uintptr) {
		cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		allowed = err == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
	})
	return err == nil && allowed
}

// serveUntil serves l until ctx ends, then gives requests under way a second.
func serveUntil(ctx context.Context, s *http.Server, l net.Listener) error {
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := s.Shutdown(short); err != nil {
		_ = s.Close() // live feeds never end by themselves
	}
	<-done
	return nil
}
