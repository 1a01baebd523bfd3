// Package blocklist reads the list languages and matches names against the index
// compiled from them: readers and bytes in, matches out.
//
// # The language
//
// Lines of every kind may be mixed in one list; docs/lists.md has the whole of it:
//
//	tracker.example            this name alone
//	0.0.0.0 tracker.example    this name alone; any address, which is then the answer
//	*.tracker.example          every name below tracker.example, not itself (as a DNS wildcard does)
//	||tracker.example^         tracker.example and every name below it
//	@@||cdn.example^           an exception: allowed, whatever a block rule says
//	||ads*.example^$dnstype=A  adblock-style patterns, with modifiers
//	/^ads[0-9]+\./             regular expressions
//	address=/tracker.example/  dnsmasq
//	tracker.example CNAME .    a response policy zone
//	# comment   ! comment      and "# comment" behind any rule, after a space
//
// In a list that the household uses as an allow list every rule allows. Within one
// list of dnsmasq or a zone what is said of the longest name holds. A byte
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
//
// Rules that are but a name, with one of a few forms around it, are the great
// majority and cost about 14 octets each. The others are records in a section of
// the same file, bounded in number and size, and found by a name at or above all
// that they cover or by four octets that all of it holds: a name that none of
// them is about pays for a filter and a map of 8 KiB, and nothing where no list
// has such rules.
package blocklist
