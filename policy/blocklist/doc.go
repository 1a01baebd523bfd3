// Package blocklist reads the list languages and matches names against the index
// compiled from them: readers and bytes in, matches out.
//
// # The language
//
// Lines of every kind may be mixed in one list:
//
//	tracker.example            this name alone
//	0.0.0.0 tracker.example    this name alone; any address that leads nowhere: 0, 0.0.0.0, 127.x.x.x, ::, ::1, …
//	*.tracker.example          every name below tracker.example, not itself (as a DNS wildcard does)
//	||tracker.example^         tracker.example and every name below it
//	@@||cdn.example^           an exception: allowed, whatever a block rule says
//	# comment   ! comment      and "# comment" behind any rule, after a space
//
// In a list that the household uses as an allow list every rule allows. A byte
// order mark, CRLF, capitals, trailing dots and Unicode names are understood.
// What is not understood is never guessed at: the line is rejected, with the
// reason, and counted.
//
// # The index
//
// A Builder sorts any number of lists with bounded memory and writes one
// immutable file; Open reads it in place, usually from a mapping. An approximate
// filter in front means that a name on no list touches no further page; a name
// that passes it is compared octet by octet, so a hash never blocks an innocent
// one. Every entry knows which lists hold it (at most MaxLists), so that what a
// device uses is a mask over the one file.
package blocklist
