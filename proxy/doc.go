// Package proxy carries what the kernel hands over of guarded devices: HTTP
// through goproxy, TLS by peeking at the ClientHello and splicing.
//
// The bytes decide which of the two it is, not the port. Whatever a client says
// in Host or SNI is only judged; what is dialled is the destination that the
// client dialled. No byte leaves before the verdict, nothing is decrypted, and
// nothing is carried to the router itself or to private addresses, for the
// firewall's rules between zones do not hold for what the router sends.
package proxy
