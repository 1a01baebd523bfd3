// Package lists fetches lists, compiles the index file, maps it and swaps it.
//
// What a list was is kept only in the index: when one list has changed, the
// others are taken over from the index that is in force, so that no raw text
// stays on flash. A list that cannot be had, or that is no list, keeps its old
// rules, and its Status says why.
package lists
