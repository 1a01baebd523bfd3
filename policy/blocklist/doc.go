// Package blocklist reads the list languages and matches names against the index
// compiled from them: readers and bytes in, matches out.
package blocklist
