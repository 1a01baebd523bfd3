package dissect

import "github.com/netcurtain/netcurtain/flow"

// view is what a recogniser looks at: for TCP both directions from their first
// byte on, in order; for UDP one datagram, in up, and its direction.
type view struct {
	c        *Conversation
	up, down []byte
	dir      flow.Dir
	missing  int // bytes of the datagram that the source cut off
}

// size is how long the datagram was on the wire.
func (v *view) size() int { return len(v.up) + v.missing }

func (v *view) port(p uint16) bool { return v.c.port(p) }

// recogniser knows one protocol. read looks at the view, which may hold any
// bytes at all, fills in r and answers how sure it is; r is only used when the
// answer is yes or final. It keeps no reference to the view's bytes.
type recogniser struct {
	app  string
	read func(v *view, r *Result) state
}

// readable, encrypted and cannotTell fill in a judgement.
func (r *Result) readable(reason string)   { r.Protection, r.Reason = flow.Readable, reason }
func (r *Result) encrypted(reason string)  { r.Protection, r.Reason = flow.Encrypted, reason }
func (r *Result) cannotTell(reason string) { r.Protection, r.Reason = flow.CannotTell, reason }
func (r *Result) harmless(reason string)   { r.readable(reason); r.Harmless = true }

// touched reports whether a recogniser wrote anything but the protocol; asking is
// cheaper than wiping after each.
func (r *Result) touched() bool {
	return r.Reason != "" || r.ServerName != "" || r.Credentials != "" || r.Path != "" || r.TLS != nil || r.Exposure != nil || r.PortMap != nil || r.Harmless
}

// discovery judges the search for neighbours: harmless as long as it stays in the house.
func (v *view) discovery(r *Result, what string) {
	if v.c.local {
		r.harmless(what + " within the house")
		return
	}
	r.readable(what + ", but outside the house")
}

// name notes a name that the flow's own bytes gave, when there is one.
func (r *Result) name(n, from string) {
	if n != "" {
		r.ServerName, r.NameFrom = n, from
	}
}

// The tables are in the order of asking: the surest signs first. TLS over TCP and
// QUIC are asked before either, for they keep state over packets.
var tcpRecognisers = [...]recogniser{
	{"ssh", readSSH},
	{"rtsp", readRTSP},
	{"sip", readSIP},
	{"http", readHTTP},
	{"mqtt", readMQTT},
	{"smb", readSMB},
	{"amqp", readAMQP},
	{"vnc", readVNC},
	{"bittorrent", readBitTorrent},
	{"dnp3", readDNP3},
	{"xmpp", readXMPP},
	{"smtp", readSMTP},
	{"ftp", readFTP},
	{"pop3", readPOP3},
	{"imap", readIMAP},
	{"irc", readIRC},
	{"redis", readRedis},
	{"stun", readSTUN},
	{"tuya", readTuya},
	{"kasa", readKasa},
	{"postgres", readPostgres},
	{"mysql", readMySQL},
	{"ldap", readLDAP},
	{"tds", readTDS},
	{"rdp", readRDP},
	{"openvpn", readOpenVPN},
	{"socks", readSOCKS},
	{"rtmp", readRTMP},
	{"knx", readKNX},
	{"modbus", readModbus},
	{"dns", readDNSStream},
	{"kerberos", readKerberos},
	{"syslog", readSyslog},
	{"telnet", readTelnet},
}

var udpRecognisers = [...]recogniser{
	{"dtls", readDTLS},
	{"stun", readSTUN},
	{"dhcp", readDHCP},
	{"wireguard", readWireGuard},
	{"ssdp", readSSDP},
	{"ntp", readNTP},
	{"dns", readDNS},
	{"rtp", readRTP},
	{"netbios", readNetBIOS},
	{"dhcpv6", readDHCPv6},
	{"ipsec", readIPsec},
	{"sip", readSIP},
	{"snmp", readSNMP},
	{"ldap", readLDAP},
	{"lifx", readLIFX},
	{"miio", readMiIO},
	{"tuya", readTuya},
	{"kasa", readKasa},
	{"bittorrent", readBitTorrent},
	{"bacnet", readBACnet},
	{"knx", readKNX},
	{"openvpn", readOpenVPN},
	{"radius", readRADIUS},
	{"dnp3", readDNP3},
	{"coap", readCoAP},
	{"mqtt-sn", readMQTTSN},
	{"tftp", readTFTP},
	{"nat-pmp", readPortMapping},
	{"ws-discovery", readWSDiscovery},
	{"syslog", readSyslog},
	{"kerberos", readKerberos},
	{"matter", readMatter},
}

// ipProtocol judges protocols without ports.
func ipProtocol(p flow.Proto) (Result, bool) {
	r := Result{}
	switch p {
	case flow.ICMP, flow.ICMPv6:
		r.App = "icmp"
		r.harmless("control messages of the network itself")
	case 2:
		r.App = "igmp"
		r.harmless("control messages of the network itself")
	case 50:
		r.App = "esp"
		r.encrypted("IPsec ESP")
	case 51:
		r.App = "ah"
		r.readable("IPsec AH signs but does not encrypt")
	case 47:
		r.App = "gre"
		r.cannotTell("a GRE tunnel; what is inside was not looked at")
	case 132:
		r.App = "sctp"
		r.cannotTell("SCTP; what is inside was not looked at")
	default:
		return r, false
	}
	return r, true
}
