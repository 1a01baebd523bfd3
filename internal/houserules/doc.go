// Package houserules holds tests that keep the repository honest: who imports
// whom, one package comment each, no hidden state, a known list of dependencies.
package houserules
