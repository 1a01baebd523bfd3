// Package houserules holds tests that keep the repository honest: who imports
// whom, one package comment each, no hidden state, a known list of dependencies,
// a package for OpenWrt that is built as the binary is.
package houserules
