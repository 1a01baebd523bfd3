// Package flow holds the nouns of traffic: which two ends talk, how much, by
// which name, and how well protected.
package flow
