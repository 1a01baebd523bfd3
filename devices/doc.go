// Package devices knows the devices of the house: what they are called, which
// addresses they have, how they are treated, and how we know.
package devices
