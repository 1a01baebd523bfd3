// Package neigh brings sightings from the kernel's neighbour table: which
// hardware address answers for which IP address on the LAN.
package neigh
