// Package storetest makes the traffic of a household, for tests and benchmarks of
// whoever keeps, shows or judges it.
package storetest
