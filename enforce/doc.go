// Package enforce makes the kernel obey: our nftables tables, policy route,
// conntrack deletes and sysctls, each put back when we stop.
package enforce
