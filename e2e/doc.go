// Package e2e runs the real binary in houses made of namespaces, as txtar
// stories that anybody can read and add to; see testdata.
package e2e
