//go:build race

package blocklist

// underRace says that the race detector is on: it slows these single-threaded
// checks tenfold, and lets pools forget. They run in full without it, too
// (scripts/test).
const underRace = true
