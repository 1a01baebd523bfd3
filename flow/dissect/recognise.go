package dissect

import "github.com/netcurtain/netcurtain/flow"

// view is what a recogniser looks at: for TCP both directions from their first
// byte on, in order; for UDP one datagram, in up, and its direction.
type view struct {
	c        *Conversation
	up, down []byte
	dir      flow.Dir
	segment  []byte // TCP: what came last, which may stand behind a hole
	missing  int    // bytes of the datagram, or of up's last segment, that the source cut off
}

// size is how long the datagram was on the wire.
func (v *view) size() int { return len(v.up) + v.missing }

func (v *view) port(p uint16) bool { return v.c.port(p) }

// recogniser knows one protocol. read looks at the view, which may hold any
// bytes at all, fills in r and answers how sure it is; r is only used when the
// answer is yes or final. It keeps no reference to the view's bytes.
type recogniser struct {
	app   string
	read  func(v *view, r *Result) state
	typed bool // over TCP the point may come late, where a person types or many commands go to and fro: worth more packets
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
	{app: "ssh", read: readSSH},
	{app: "rtsp", read: readRTSP},
	{app: "sip", read: readSIP},
	{app: "http", read: readHTTP, typed: true},
	{app: "mqtt", read: readMQTT},
	{app: "smb", read: readSMB},
	{app: "amqp", read: readAMQP},
	{app: "vnc", read: readVNC},
	{app: "bittorrent", read: readBitTorrent},
	{app: "dnp3", read: readDNP3},
	{app: "xmpp", read: readXMPP, typed: true},
	{app: "smtp", read: readSMTP, typed: true},
	{app: "ftp", read: readFTP, typed: true},
	{app: "pop3", read: readPOP3, typed: true},
	{app: "imap", read: readIMAP, typed: true},
	{app: "irc", read: readIRC},
	{app: "redis", read: readRedis},
	{app: "stun", read: readSTUN},
	{app: "tuya", read: readTuya},
	{app: "kasa", read: readKasa},
	{app: "postgres", read: readPostgres},
	{app: "mysql", read: readMySQL},
	{app: "ldap", read: readLDAP},
	{app: "tds", read: readTDS},
	{app: "rdp", read: readRDP},
	{app: "openvpn", read: readOpenVPN},
	{app: "socks", read: readSOCKS},
	{app: "rtmp", read: readRTMP},
	{app: "knx", read: readKNX},
	{app: "modbus", read: readModbus},
	{app: "dns", read: readDNSStream},
	{app: "kerberos", read: readKerberos},
	{app: "syslog", read: readSyslog},
	{app: "plain", read: readPlain},
	{app: "mpegts", read: readMPEG},
	{app: "sunrpc", read: readRPC},
	{app: "pptp", read: readTunnel},
	{app: "esphome", read: readESPHome},
	{app: "weave", read: readWeave},
	{app: "telnet", read: readTelnet, typed: true},
}

var udpRecognisers = [...]recogniser{
	{app: "dtls", read: readDTLS},
	{app: "stun", read: readSTUN},
	{app: "dhcp", read: readDHCP},
	{app: "wireguard", read: readWireGuard},
	{app: "ssdp", read: readSSDP},
	{app: "ntp", read: readNTP},
	{app: "dns", read: readDNS},
	{app: "rtp", read: readRTP},
	{app: "netbios", read: readNetBIOS},
	{app: "dhcpv6", read: readDHCPv6},
	{app: "ipsec", read: readIPsec},
	{app: "sip", read: readSIP},
	{app: "snmp", read: readSNMP},
	{app: "ldap", read: readLDAP},
	{app: "lifx", read: readLIFX},
	{app: "miio", read: readMiIO},
	{app: "tuya", read: readTuya},
	{app: "kasa", read: readKasa},
	{app: "bittorrent", read: readBitTorrent},
	{app: "bacnet", read: readBACnet},
	{app: "knx", read: readKNX},
	{app: "openvpn", read: readOpenVPN},
	{app: "radius", read: readRADIUS},
	{app: "dnp3", read: readDNP3},
	{app: "coap", read: readCoAP},
	{app: "mqtt-sn", read: readMQTTSN},
	{app: "tftp", read: readTFTP},
	{app: "nat-pmp", read: readPortMapping},
	{app: "ws-discovery", read: readWSDiscovery},
	{app: "syslog", read: readSyslog},
	{app: "kerberos", read: readKerberos},
	{app: "l2tp", read: readTunnel},
	{app: "sunrpc", read: readRPC},
	{app: "plain", read: readPlain},
	{app: "mpegts", read: readMPEG},
	{app: "matter", read: readMatter},
	{app: "rdp", read: readRDPDatagram},
	{app: "weave", read: readWeave},
}

// ipProtocol judges protocols without ports; b is the first packet's content.
func ipProtocol(p flow.Proto, b []byte) (Result, bool) {
	r := Result{}
	switch p {
	case flow.ICMP, flow.ICMPv6:
		r.App = "icmp"
		r.harmless("control messages of the network itself")
	case 2:
		r.App = "igmp"
		r.harmless("control messages of the network itself")
	case 50:
		return readESP(b), true
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
