// Package dnsfilter is a CoreDNS plugin that asks policy about every question
// and answer, and the embedded CoreDNS servers around it.
//
// It never decides by itself, never fetches lists and never waits for the disk.
// The chain is errors, dnsfilter, cache, waiting, forward: the filter stands above
// the cache, for verdicts are per device while the cache is everybody's. Look-ups
// by UDP go through it in the loop that receives them, until they must wait.
//
// CoreDNS opens the sockets to plain upstreams itself and offers no hook to mark
// them. Nothing needs the mark there: the kernel brings us only what comes in
// from the LAN, so that what the router itself sends to a resolver is never ours.
package dnsfilter
