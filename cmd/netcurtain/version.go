package main

import (
	"fmt"
	"runtime"

	"github.com/netcurtain/netcurtain/internal/buildinfo"
)

type versionCmd struct{ jsonFlag }

func (versionCmd) Help() string { return "Example:\n  netcurtain version --json" }

// Run prints which build this is.
func (c versionCmd) Run(io std) error {
	if c.JSON {
		return printJSON(io.out, map[string]string{"version": buildinfo.Version, "go": runtime.Version(), "arch": runtime.GOARCH})
	}
	_, err := fmt.Fprintf(io.out, "netcurtain %s (%s, %s)\n", buildinfo.Version, runtime.Version(), runtime.GOARCH)
	return err
}
