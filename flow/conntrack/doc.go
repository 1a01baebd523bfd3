// Package conntrack brings connections from the kernel: events when one begins
// and ends, live counters by dump, and the means to end one.
package conntrack
