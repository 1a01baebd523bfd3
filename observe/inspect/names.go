package inspect

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
)

// trust says how a device told its own name; a larger one wins.
type trust uint8

const (
	fromNetBIOS trust = iota + 1
	fromLLMNR
	fromMDNS
	fromDHCP // as the router would call it
)

// maxNamed bounds the devices whose names are kept.
const maxNamed = 4096

// names is what devices call themselves. Only a device's own word counts: a name
// that it claims for the very address that it speaks from, or the host name that
// it gives for its own hardware address.
type names map[devices.ID]ownName

type ownName struct {
	name string // cleaned
	from trust
}

// hear takes in one packet.
func (n names) hear(p *flow.Packet) {
	if p.Tuple.Proto != flow.UDP || len(p.Payload) < 12 {
		return
	}
	src := p.Tuple.SrcAddr()
	switch p.Tuple.SrcPort {
	case 68:
		n.learn(p, dhcpHostname(p.Payload, p.MAC), fromDHCP)
	case 5353:
		n.learn(p, announced(p.Payload, src), fromMDNS)
	case 5355:
		n.learn(p, announced(p.Payload, src), fromLLMNR)
	case 137:
		n.learn(p, netbiosName(p.Payload, src), fromNetBIOS)
	}
}

func (n names) learn(p *flow.Packet, name string, from trust) {
	if name = devices.CleanHostname(name); name == "" {
		return
	}
	id := idOf(p.MAC, p.Tuple.SrcAddr())
	if old, known := n[id]; known && old.from > from || !known && len(n) >= maxNamed {
		return
	}
	n[id] = ownName{name, from}
}

// idOf is the device that sent something, as bench calls it.
func idOf(mac devices.MAC, addr netip.Addr) devices.ID {
	if mac.IsZero() {
		return devices.ID(addr.String())
	}
	return devices.ID(mac.String())
}

// dhcpHostname is the host name (RFC 2132 §3.14), else the client's full name
// (RFC 4702), of a request that mac makes for itself. A zero mac was not captured.
func dhcpHostname(b []byte, mac devices.MAC) string {
	const cookie = "\x63\x82\x53\x63"
	if len(b) < 240 || b[0] != 1 || b[1] != 1 || b[2] != 6 || string(b[236:240]) != cookie {
		return ""
	}
	if !mac.IsZero() && devices.MAC(b[28:34]) != mac {
		return "" // relayed for somebody else
	}
	full := ""
	for b = b[240:]; len(b) > 0 && b[0] != 255; {
		if b[0] == 0 {
			b = b[1:]
			continue
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			break
		}
		code, value := b[0], b[2:2+int(b[1])]
		b = b[2+len(value):]
		switch {
		case code == 12 && len(value) > 0:
			return strings.TrimRight(string(value), "\x00")
		case code == 81 && len(value) > 3 && value[0]&0x04 == 0: // in words, not in DNS labels
			full = string(value[3:])
		case code == 81 && len(value) > 4 && int(value[3]) < len(value)-3:
			full = string(value[4 : 4+int(value[3])]) // the first label
		}
	}
	name, _, _ := strings.Cut(full, ".")
	return name
}

// announced is the host name for which an answer by mDNS (RFC 6762) or LLMNR
// (RFC 4795) gives the sender's own address.
func announced(b []byte, sender netip.Addr) string {
	if b[2]&0x80 == 0 {
		return "" // a question
	}
	var m dns.Msg
	_ = m.Unpack(b) // what stands before the damage is good
	for _, section := range [][]dns.RR{m.Answer, m.Extra} {
		for _, rr := range section {
			var addr netip.Addr
			switch rr := rr.(type) {
			case *dns.A:
				addr, _ = netip.AddrFromSlice(rr.A)
			case *dns.AAAA:
				addr, _ = netip.AddrFromSlice(rr.AAAA)
			}
			if addr.IsValid() && addr.Unmap() == sender {
				return firstLabel(rr.Header().Name)
			}
		}
	}
	return ""
}

// firstLabel undoes the escapes of a presented name (RFC 1035 §5.1).
func firstLabel(name string) string {
	var s strings.Builder
	for i := 0; i < len(name) && name[i] != '.'; i++ {
		c := name[i]
		if c == '\\' && i+1 < len(name) {
			i++
			c = name[i]
			if i+2 < len(name) && '0' <= c && c <= '2' {
				c = (c-'0')*100 + (name[i+1]-'0')*10 + name[i+2] - '0'
				i += 2
			}
		}
		s.WriteByte(c)
	}
	return s.String()
}

// netbiosName is the name that its sender registers, refreshes, or gives as an
// answer, for its own address (RFC 1002 §4.2). Names of groups are nobody's own.
func netbiosName(b []byte, sender netip.Addr) string {
	const name, encoded = 12, 34 // a length, 32 letters, the root
	if len(b) < name+encoded || b[name] != 32 || b[name+33] != 0 {
		return ""
	}
	record := b[name+encoded:]
	switch answer, op := b[2]&0x80 != 0, b[2]>>3&0x0f; {
	case answer && op == 0 && b[7] == 1:
	case !answer && (op == 5 || op == 8 || op == 9) && b[11] == 1 && len(record) > 6: // question and record
		record = record[6:] // type and class of the question, pointer to the name
	default:
		return ""
	}
	if len(record) < 16 || binary.BigEndian.Uint16(record) != 0x20 || record[10]&0x80 != 0 || netip.AddrFrom4([4]byte(record[12:16])) != sender {
		return ""
	}
	var plain [16]byte
	for i := range plain {
		hi, lo := b[name+1+2*i]-'A', b[name+2+2*i]-'A'
		if hi > 15 || lo > 15 {
			return ""
		}
		plain[i] = hi<<4 | lo
	}
	if kind := plain[15]; kind != 0x00 && kind != 0x20 { // a workstation, a file server
		return ""
	}
	return strings.TrimRight(string(plain[:15]), " \x00")
}
