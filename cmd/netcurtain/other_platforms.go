//go:build !linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

var errNeedsLinux = errors.New("this needs Linux: netcurtain runs on the router; here, try netcurtain inspect FILE, or netcurtain demo")

// Run says where the daemon runs.
func (runCmd) Run(std) error { return errNeedsLinux }

type releaseCmd struct{}

// Run has nothing to take back here.
func (releaseCmd) Run() error { return errNeedsLinux }

// Run checks the settings file; the kernel is another matter.
func (c checkCmd) Run(io std) error {
	meaning, err := c.judge()
	if err != nil {
		return err
	}
	fmt.Fprintf(io.out, "settings: %s\n", meaning)
	return errNeedsLinux
}

// turnAlone has no daemon's house to switch here.
func (switchFlags) turnAlone(context.Context, std, bool) error { return errNeedsLinux }

// askAlone has no daemon's files here.
func (ledgerFlags) askAlone(context.Context, string, string, url.Values, any) (*http.Response, error) {
	return nil, errNeedsLinux
}

// Run shows the capture that was recorded from the demo's house.
func (c demoCmd) Run(ctx context.Context, io std) error {
	if err := c.check(); err != nil {
		return err
	}
	page, err := c.listenPage(ctx)
	if err != nil {
		return err
	}
	defer page.Close()
	fmt.Fprintln(io.err, "The house needs Linux. Here is a capture that was recorded from it.")
	return c.showSample(ctx, io, page)
}
