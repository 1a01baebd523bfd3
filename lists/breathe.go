package lists

import "time"

// Compiling a million rules would take a small router's only core for seconds, and
// Go gives a core away every 10 ms at most. So half of the time is left to others,
// by the millisecond: look-ups that wait are answered in between, and nobody waits
// for a refresh.
const (
	breathWork = time.Millisecond
	breathRest = time.Millisecond
)

// breather returns what is called in the midst of work, again and again.
func breather() func() {
	last := time.Now()
	return func() {
		if time.Since(last) >= breathWork {
			time.Sleep(breathRest)
			last = time.Now()
		}
	}
}
