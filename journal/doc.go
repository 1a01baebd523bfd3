// Package journal carries what happened from the rooms to its readers, without
// ever blocking a hot path.
package journal
