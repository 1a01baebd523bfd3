// Package atlas knows destinations and makers: which organisation a name belongs
// to, what it is for, what breaks without it, and who made a device.
package atlas
