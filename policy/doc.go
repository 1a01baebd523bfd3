// Package policy decides: given who asks for what, it gives a Verdict with its Reason.
//
// It is pure. It knows no clock, no file, no socket and no DNS library; what it
// needs to know of the world reaches it as a field of Query.
package policy
