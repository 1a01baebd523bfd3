// Package configs holds what ships beside the binary and says what the settings
// file means.
package configs
