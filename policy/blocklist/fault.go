package blocklist

import (
	"fmt"
	"runtime/debug"
)

// A page of a mapped file that cannot be read is a SIGBUS, which by default ends
// the process, and with it the house's look-ups. debug.SetPanicOnFault makes it a
// panic of the goroutine that read, and that one can be caught. Anything else
// that panics is a bug of ours and goes on.

// unreadable is the panic of who reads from the file and cannot.
type unreadable struct{ error }

// isFault reports whether a recovered value is one of these; the runtime's error for
// a memory fault has the address.
func isFault(recovered any) bool {
	switch recovered.(type) {
	case interface{ Addr() uintptr }, unreadable:
		return true
	}
	return false
}

// damage notes that a page is lost, and tells the owner once.
func (x *Index) damage() {
	if !x.damaged.Swap(true) && x.onDamage != nil {
		x.onDamage()
	}
}

// survive is deferred by readers who then find nothing; before is what
// SetPanicOnFault said.
func (x *Index) survive(before bool, ok *bool) {
	debug.SetPanicOnFault(before)
	if r := recover(); r != nil {
		if !isFault(r) {
			panic(r)
		}
		x.damage()
		*ok = false
	}
}

// faultToError is deferred by readers who can say what went wrong.
func faultToError(before bool, err *error) {
	debug.SetPanicOnFault(before)
	if r := recover(); r != nil {
		if !isFault(r) {
			panic(r)
		}
		*err = fmt.Errorf("%w: a page of it cannot be read", ErrNotIndex)
	}
}
