// Package dissect reads the first bytes of a flow and says which protocol they
// speak, which server they name and how well they are protected.
package dissect
