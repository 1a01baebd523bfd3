// Package buildinfo says which build this is.
package buildinfo

// Version is set by the linker: -X github.com/netcurtain/netcurtain/internal/buildinfo.Version=v1.2.3.
// It is read only, the one exported variable that the linker's -X needs.
var Version = "devel"
