package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/internal/netlab/scene"
	"github.com/netcurtain/netcurtain/internal/netlab/scene/personas"
	"github.com/netcurtain/netcurtain/ui/api"
)

type demoCmd struct {
	Listen   string        `default:"127.0.0.1:8300" help:"Where the page is, a loopback address."`
	Personas string        `help:"Folder of persona files instead of the built-in ones." type:"existingdir" placeholder:"DIR"`
	For      time.Duration `help:"End by itself after so long; 0 is never." default:"0"`
	Verify   bool          `help:"At the end, fail unless the ledger holds what the personas did."`
	Quiet    bool          `help:"Do not print what happens."`
}

func (demoCmd) Help() string {
	return `Builds a house of network namespaces on this machine: a router, an internet and a handful of smart
devices that really talk, and runs the real daemon in the router. Nothing leaves this machine. Needs
root on Linux; elsewhere it shows a capture that was recorded from this house.

Step into the house while it runs:
  ip netns exec nc-tv dig @192.168.77.1 ad.lgappstv.com
  sudo netcurtain devices --socket /run/netcurtain-demo/control.sock

Examples:
  sudo netcurtain demo
  sudo netcurtain demo --listen 127.0.0.1:8400 --for 1m
  sudo netcurtain demo --personas ./my-personas   # text files; the built-in ones are in internal/netlab/scene/personas`
}

// loadPersonas reads every .txt of the folder, or the built-in ones.
func (c demoCmd) loadPersonas() ([]scene.Persona, error) {
	var files fs.FS = personas.Files
	if c.Personas != "" {
		files = os.DirFS(c.Personas)
	}
	names, err := fs.Glob(files, "*.txt")
	if err != nil {
		return nil, err
	}
	var all []scene.Persona
	for _, n := range names {
		f, err := files.Open(n)
		if err != nil {
			return nil, err
		}
		p, err := scene.Parse(io.LimitReader(f, 1<<16), strings.TrimSuffix(n, ".txt"))
		_ = f.Close()
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	if len(all) == 0 {
		return nil, usageError{fmt.Sprintf("no persona (*.txt) in %s", c.Personas)}
	}
	slices.SortFunc(all, func(a, b scene.Persona) int { return cmp.Compare(a.Number, b.Number) })
	return all, nil
}

// check finds what is wrong with the wish before anything is done.
func (c demoCmd) check() error {
	addr, err := net.ResolveTCPAddr("tcp", c.Listen)
	switch {
	case err != nil || !addr.IP.IsLoopback():
		return usageError{fmt.Sprintf("--listen %s: a loopback address and port such as 127.0.0.1:8300 is needed", c.Listen)}
	case c.For < 0:
		return usageError{fmt.Sprintf("--for %s: a span such as 40s or 10m is needed", c.For)}
	case c.Verify && c.For == 0:
		return usageError{"--verify: it looks at the end, so --for is needed; --for 40s is enough"}
	}
	return nil
}

// listenPage opens the page's port before anything else is made, so that a
// taken port leaves nothing behind.
func (c demoCmd) listenPage(ctx context.Context) (*net.TCPListener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("the page: %w: another program (or another demo) has that port; choose one with --listen 127.0.0.1:8400", err)
	}
	return l.(*net.TCPListener), nil
}

// verify asks the running house whether it saw what the personas did.
func (f socketFlag) verify(ctx context.Context, io std, all []scene.Persona) error {
	var errs []error
	for _, p := range all {
		var d api.DeviceDetail
		if err := f.get(ctx, "/api/v1/devices/"+url.PathEscape(p.MAC.String()), nil, &d); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.Name, err))
			continue
		}
		errs = append(errs, missing(p, d)...)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("the ledger does not hold what it must:\n%w", err)
	}
	fmt.Fprintf(io.err, "verified: the ledger holds what %d devices did\n", len(all))
	return nil
}

// missing compares one device's page with its persona.
func missing(p scene.Persona, d api.DeviceDetail) (errs []error) {
	complain := func(format string, arg ...any) {
		errs = append(errs, fmt.Errorf("%s: "+format, append([]any{p.Name}, arg...)...))
	}
	if d.Device.Name != p.Host {
		complain("is called %q, not %q as its lease says", d.Device.Name, p.Host)
	}
	if d.Device.Totals.BytesOut == 0 || d.Device.Totals.Lookups == 0 {
		complain("nothing was counted: %+v", d.Device.Totals)
	}
	byName := map[string]api.Destination{}
	for _, x := range d.Destinations {
		byName[x.Name] = x
	}
	for _, a := range p.Acts {
		x, seen := byName[string(a.Host)]
		switch {
		case d.Device.Log != "names":
			if seen {
				complain("%s stands in the ledger of a device that is not logged by name", a.Host)
			}
			continue
		case !seen:
			complain("%s is not in the ledger", a.Host)
			continue
		}
		refused := x.Flows == 0 || x.Verdict == "block"
		switch {
		case refused && x.Blocked == 0 && a.Verb != "lookup":
			complain("%s has neither a flow nor a block", a.Host)
		case refused:
		case a.Verb == "https" || a.Verb == "quic":
			if x.Encrypted == 0 || x.Readable > 0 {
				complain("%s by %s: %d encrypted, %d readable", a.Host, a.Verb, x.Encrypted, x.Readable)
			}
			if want := int64(a.Up); x.BytesOut < want {
				complain("%s: %d bytes out, at least %d were sent", a.Host, x.BytesOut, want)
			}
		case a.Verb == "http" || a.Verb == "mqtt":
			if x.Encrypted > 0 || x.Readable == 0 && !strings.Contains(a.Path, "generate_204") {
				complain("%s by %s: %d encrypted, %d readable", a.Host, a.Verb, x.Encrypted, x.Readable)
			}
		}
	}
	return errs
}
