// Package netlab builds houses out of network namespaces: a router with a bridge
// and NAT, devices behind it and an internet before it, on a real kernel.
//
// It is for tests and for the demo. It needs root on Linux.
package netlab
