// Package leases brings sightings from the lease files of DHCP servers: which
// name and address a device was given.
package leases
