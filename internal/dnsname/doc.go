// Package dnsname holds the one form in which the house writes domain names:
// lower-case A-labels without a trailing dot.
package dnsname
