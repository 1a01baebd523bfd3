// Package lists fetches lists, compiles the index file, maps it and swaps it.
//
// What a list was is kept only in the index: when one list has changed, the
// others are taken over from the index that is in force, so that no raw text
// stays on flash. A list that cannot be had, or that is no list, keeps its old
// rules, and its Status says why.
//
// Before an index is made, what is wanted is held against the room that this box
// has: the largest lists fall to a smaller one or off, and their Status says so. A
// list is in force whole or not at all.
package lists
