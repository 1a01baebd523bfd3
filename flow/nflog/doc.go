// Package nflog brings the first packets of each flow, as the kernel's netfilter
// log hands them over.
package nflog
