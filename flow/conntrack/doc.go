// Package conntrack brings connections from the kernel: events when one begins
// and ends, and live counters.
package conntrack
