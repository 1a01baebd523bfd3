// Package capture reads capture files, one packet at a time.
package capture
