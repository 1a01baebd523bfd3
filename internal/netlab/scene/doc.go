// Package scene plays a made-up internet and the life of made-up devices in a
// netlab.House: real servers, real clients, real packets.
//
// A device's life is a persona, a text file that anybody can edit; see Parse.
package scene
