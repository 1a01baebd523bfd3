//go:build race

package lists

// underRace tells tests that the race detector multiplies the memory.
const underRace = true
