package dissect

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/netcurtain/netcurtain/flow"
)

// PortMap is a port that a device asks the router to open to the outside: by
// NAT-PMP (RFC 6886), PCP (RFC 6887) or UPnP's Internet Gateway Device.
type PortMap struct {
	Proto    flow.Proto    // 0: every protocol, or the answer does not say
	Port     uint16        // on the device; 0: every port
	Outside  uint16        // on the router's outer address, as asked for or granted; 0: any
	Client   netip.Addr    // whose port; not valid: who asks
	Remote   netip.Addr    // the only address that may come in; not valid: anybody's
	Lifetime time.Duration // 0: for ever
	Close    bool          // the port is to be closed again
	Refused  bool          // so said the router
}

// readPortMapping knows NAT-PMP and PCP on their port, questions and answers.
func readPortMapping(v *view, r *Result) state {
	b := v.up
	if !v.port(5351) || len(b) < 2 || b[0] != 0 && b[0] != 2 || b[1]&0x7f > 3 {
		return no
	}
	if b[0] == 2 {
		r.App = "pcp"
		r.PortMap = pcpMap(b)
	} else {
		r.App = "nat-pmp"
		r.PortMap = natpmpMap(b)
	}
	if r.PortMap == nil {
		r.harmless("asks the router for its outer address")
		return yes
	}
	r.readable("asks the router to open a port to the outside")
	return final
}

// natpmpMap reads a mapping request or its answer (RFC 6886 §3.3), which has a
// result and a time in front of the ports.
func natpmpMap(b []byte) *PortMap {
	m := &PortMap{Proto: flow.UDP}
	switch b[1] & 0x7f {
	case 1:
	case 2:
		m.Proto = flow.TCP
	default:
		return nil
	}
	body := b[2:]
	if b[1]&0x80 != 0 {
		if len(b) < 16 {
			return nil
		}
		m.Refused = binary.BigEndian.Uint16(b[2:]) != 0
		body = b[6:]
	}
	if len(body) < 10 {
		return nil
	}
	m.Port, m.Outside = binary.BigEndian.Uint16(body[2:]), binary.BigEndian.Uint16(body[4:])
	m.until(binary.BigEndian.Uint32(body[6:]))
	return m
}

// until notes a lifetime in seconds; none at all closes the port.
func (m *PortMap) until(seconds uint32) {
	m.Lifetime, m.Close = time.Duration(seconds)*time.Second, seconds == 0
}

// pcpMap reads MAP and PEER (RFC 6887 §11, §12); their answers have the same form,
// with a result in the head. A PEER opens a way for one remote end.
func pcpMap(b []byte) *PortMap {
	const head, body, mapping, peer = 24, 36, 1, 2
	op := b[1] & 0x7f
	if op != mapping && op != peer || len(b) < head+body {
		return nil
	}
	m := &PortMap{Proto: flow.Proto(b[head+12])}
	m.Port, m.Outside = binary.BigEndian.Uint16(b[head+16:]), binary.BigEndian.Uint16(b[head+18:])
	m.until(binary.BigEndian.Uint32(b[4:]))
	if answer := b[1]&0x80 != 0; answer {
		if m.Refused = b[3] != 0; m.Refused { // the lifetime is that of the refusal
			m.Close, m.Lifetime = false, 0
		}
	}
	if op == peer {
		if len(b) < head+body+20 {
			return nil
		}
		m.Remote = netip.AddrFrom16([16]byte(b[head+body+4:])).Unmap()
	}
	return m
}

// soapAction is what a UPnP control point asks for, without the service: the part
// of the SOAPAction field behind the hash; nil where there is none.
func soapAction(head []byte) (action []byte) {
	_, fields, _ := bytes.Cut(head, []byte("\n"))
	eachField(fields, func(name, value []byte) {
		if equalFold(name, "soapaction") {
			_, rest, _ := cutLast(value, '#')
			action = bytes.Trim(rest, `" `)
		}
	})
	return action
}

// upnpMap reads what a control point asks of the gateway: a port of IPv4, or a
// hole in the firewall of IPv6 (WANIPConnection:2, WANIPv6FirewallControl:1).
func upnpMap(action, body []byte) *PortMap {
	m := new(PortMap)
	prefix := "New"
	switch string(action) {
	case "AddPortMapping", "AddAnyPortMapping":
	case "DeletePortMapping":
		m.Close = true
	case "AddPinhole":
		prefix = ""
	default:
		return nil
	}
	switch text := element(body, prefix+"Protocol"); {
	case equalFold(text, "tcp"), string(text) == "6":
		m.Proto = flow.TCP
	case equalFold(text, "udp"), string(text) == "17":
		m.Proto = flow.UDP
	}
	m.Port, m.Outside = number16(element(body, prefix+"InternalPort")), number16(element(body, prefix+"ExternalPort"))
	m.Client = address(element(body, prefix+"InternalClient"))
	m.Remote = address(element(body, prefix+"RemoteHost"))
	for _, name := range [...]string{"NewLeaseDuration", "LeaseTime"} {
		if d, err := time.ParseDuration(string(element(body, name)) + "s"); err == nil && d > 0 {
			m.Lifetime = d
		}
	}
	if string(element(body, "NewEnabled")) == "0" {
		m.Close = true
	}
	return m
}

// address is an address in a text, or not valid.
func address(b []byte) netip.Addr {
	a, err := netip.ParseAddr(string(bytes.TrimSpace(b)))
	if err != nil || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}
