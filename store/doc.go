// Package store keeps things in SQLite: the household's choices and the ledger
// of traffic; one goroutine writes.
//
// Three files, because they wear, grow and matter differently:
//
//   - household.db is what people decided, and which devices the house has met.
//     Tiny, on flash, durable before a change is answered, copied before each migration.
//   - ledger.db is what the devices did: flows, look-ups, hourly roll-ups and
//     rare events, within an age and a byte budget. It may lie in RAM, and may be lost.
//   - memory.db is what outlives the ledger: daily roll-ups and rare events,
//     on flash, written once a day and on stop.
//
// Each device's log level is obeyed at the moment of writing (package devices,
// LogLevel): what must not be kept never reaches a file, a journal or a
// write-ahead log, so that there is nothing to hide when they are read.
//
// The views v_flow, v_lookup and v_device of ledger.db and v_day of memory.db
// are stable for other programs; the tables below them are not.
package store
