package capture

import (
	"errors"
	"fmt"
)

// linkType is what a frame begins with, by its number in pcap-linktype(7).
type linkType uint16

// The link types that are understood.
const (
	linkNull     linkType = 0   // BSD loopback: address family in host order
	linkEthernet linkType = 1   //
	linkPPP      linkType = 9   // RFC 1661, with or without HDLC framing
	linkRawBSD   linkType = 12  // raw IP as some systems number it
	linkRawOBSD  linkType = 14  // ditto
	linkPPPHDLC  linkType = 50  // RFC 1662 framing
	linkPPPoE    linkType = 51  // RFC 2516 header, no Ethernet before it
	linkRaw      linkType = 101 // IPv4 or IPv6
	linkLoop     linkType = 108 // OpenBSD loopback: address family in network order
	linkATM      linkType = 100 // LLC frames (RFC 2684), of DSL
	linkCHDLC    linkType = 104 // Cisco HDLC
	linkENC      linkType = 109 // OpenBSD IPsec
	linkSLL      linkType = 113 // Linux cooked v1
	linkPFLOG    linkType = 117 // OpenBSD packet filter log
	linkUser2    linkType = 149 // macOS pktap as older systems number it
	linkPPPD     linkType = 166 // PPP, with its direction in place of the address
	linkPPPDir   linkType = 204 // PPP, with its direction before it
	linkIPv4     linkType = 228
	linkIPv6     linkType = 229
	linkNFLOG    linkType = 239 // Linux netfilter log
	linkPKTAP    linkType = 258 // macOS, also of iPhones
	linkSLL2     linkType = 276 // Linux cooked v2
)

// LinkTypes says in words which link types are read.
const LinkTypes = "Ethernet, Linux cooked (v1 and v2), raw IP, loopback (BSD and OpenBSD), PPP, PPPoE, Cisco HDLC, ATM, 802.11 without encryption, netfilter log, pflog, enc, pktap"

func (l linkType) understood() bool {
	switch l {
	case linkNull, linkEthernet, linkPPP, linkRawBSD, linkRawOBSD, linkPPPHDLC, linkPPPoE, linkRaw, linkLoop, linkATM, linkCHDLC,
		linkENC, linkSLL, linkPFLOG, linkUser2, linkPPPD, linkPPPDir, linkIPv4, linkIPv6, linkNFLOG, linkPKTAP, linkSLL2:
		return true
	}
	return l.wireless()
}

// wireless reports the frames of a card in monitor mode.
func (l linkType) wireless() bool {
	switch l {
	case linkWiFi, linkPrism, linkRadiotap, linkAVS, linkPPI:
		return true
	}
	return false
}

// String names the link types that people meet and that are not understood.
func (l linkType) String() string {
	name := ""
	switch l {
	case 187, 201, 251, 254, 255, 256, 272:
		name = "Bluetooth"
	case 186, 189, 220, 249, 266, 288, 292, 293, 294, 295:
		name = "USB"
	case 195, 215, 230, 283:
		name = "802.15.4: Zigbee, Thread"
	case 227:
		name = "CAN bus"
	case 253:
		name = "Linux netlink"
	default:
		return fmt.Sprintf("link type %d", int(l))
	}
	return fmt.Sprintf("link type %d (%s)", int(l), name)
}

// refused says why a file of this link type cannot be read, and what can.
func (l linkType) refused() error {
	return fmt.Errorf("%v is not understood; what is read: %s", l, LinkTypes)
}

// errSealed is for a capture of the air in which every frame with content is encrypted.
var errSealed = errors.New("every packet in this capture of the air is encrypted for its device; capture on the router's bridge (br-lan) instead")

// LinkName is a link type's number and, where it has one, its name.
func LinkName(number int) string { return linkType(number).String() }
