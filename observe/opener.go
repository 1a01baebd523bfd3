package observe

import (
	"bytes"

	"github.com/netcurtain/netcurtain/flow"
)

// openedBySender guesses from one packet whether its sender opened the flow.
// Connection tracking knows better and is asked first; this is for captures and
// for packets that come before their event. What counts, best first: a SYN, a
// ClientHello or request, the ports; else whoever is heard first.
func openedBySender(p *flow.Packet) bool {
	if p.Tuple.Proto == flow.TCP {
		if p.Flags&flow.SYN != 0 {
			return p.Flags&flow.ACK == 0
		}
		switch b := p.Payload; {
		case len(b) > 5 && b[0] == 0x16 && b[1] == 3: // a TLS handshake record (RFC 8446 §5.1)
			switch b[5] {
			case 1:
				return true
			case 2:
				return false
			}
		case bytes.HasPrefix(b, []byte("HTTP/1.")):
			return false
		case isRequest(b):
			return true
		}
	}
	from, to := isServerPort(p.Tuple.Proto, p.Tuple.SrcPort), isServerPort(p.Tuple.Proto, p.Tuple.DstPort)
	return to || !from
}

func isRequest(b []byte) bool {
	for _, method := range [...]string{"GET ", "POST ", "PUT ", "HEAD ", "OPTIONS ", "DELETE ", "PATCH ", "CONNECT "} {
		if len(b) > len(method) && string(b[:len(method)]) == method {
			return true
		}
	}
	return false
}

// isServerPort reports whether a service usually listens on port. DHCP's client
// port is well known, too, but is a client's.
func isServerPort(proto flow.Proto, port uint16) bool {
	if proto == flow.UDP && (port == 68 || port == 546) {
		return false
	}
	if port != 0 && port < 1024 {
		return true
	}
	switch port {
	case 1433, 1521, 1812, 1813, 1883, 1900, 1935, 2049, 3128, 3306, 3389, 3478, 3702, 4500, 5060, 5061, 5222, 5223, 5228,
		5269, 5349, 5353, 5355, 5432, 5671, 5672, 5683, 5684, 5900, 6379, 6667, 8000, 8080, 8081, 8443, 8554, 8883, 8888,
		9000, 9100, 9443, 11211, 19302, 20000, 27017, 51820:
		return true
	}
	return false
}
