package dissect

import (
	"crypto/tls"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"

	"github.com/netcurtain/netcurtain/flow"
)

func query(t testing.TB, name string) string {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeHTTPS)
	m.SetEdns0(1232, false)
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func prefixed(s string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(len(s)))) + s
}

// mqttHello is a CONNECT of the given protocol name, level and flags.
func mqttHello(name string, level, flags byte) string {
	body := prefixed(name) + string([]byte{level, flags, 0, 60}) + prefixed("toy-1234") + prefixed("user") + prefixed("secret")
	return "\x10" + string([]byte{byte(len(body))}) + body
}

// dhcp is a client's DISCOVER with a host name option.
func dhcp(op byte, host string) string {
	b := make([]byte, 236)
	b[0], b[1], b[2] = op, 1, 6
	return string(b) + "\x63\x82\x53\x63\x35\x01\x01\x0c" + string([]byte{byte(len(host))}) + host + "\xff"
}

// Each protocol by hand-made bytes. What is not asserted is left out; the reason must be there.
func TestProtocols(t *testing.T) {
	hello := string(goHello(t, clientConfig()))
	snmp := "\x30\x1d\x02\x01\x01\x04\x06public\xa0\x10\x02\x01\x01\x02\x01\x00\x02\x01\x00\x30\x05\x30\x03\x06\x01\x2b"
	stun := "\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl"
	dtls := "\x16\xfe\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0e\x02\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x02ab"
	wg := func(kind byte, n int) string { return string([]byte{kind, 0, 0, 0}) + strings.Repeat("\xa7", n-4) }
	ike := "initspi!respspi!\x21\x20\x22\x08\x00\x00\x00\x00\x00\x00\x00\x1c"

	for _, tc := range []struct {
		name  string
		proto flow.Proto
		port  uint16
		lines []string
		want  Result
	}{
		{"http", flow.TCP, 8080, []string{"> GET /api/v1/me?id=7 HTTP/1.1\r\nHost: Api.Vendor.example:8080\r\n\r\n"},
			Result{App: "http", ServerName: "api.vendor.example", NameFrom: "host", Protection: flow.Readable, Path: "GET /api/v1"}},
		{"http over segments", flow.TCP, 80, []string{"> GE", "> T / HTTP/1.1\r\nHo", "> st: a.exam", "> ple\r\n\r\n"},
			Result{App: "http", ServerName: "a.example", NameFrom: "host", Protection: flow.Readable, Path: "GET /"}},
		{"http without host", flow.TCP, 80, []string{"> GET / HTTP/1.0\r\n\r\n"},
			Result{App: "http", Protection: flow.Readable, Path: "GET /"}},
		{"http, host is an address", flow.TCP, 80, []string{"> GET / HTTP/1.1\r\nHost: 10.0.0.1:80\r\n\r\n"},
			Result{App: "http", ServerName: "10.0.0.1", NameFrom: "host", Protection: flow.Readable, Path: "GET /"}},
		{"http, host is an IPv6 address", flow.TCP, 80, []string{"> GET / HTTP/1.1\r\nHost: [2001:DB8::1]:80\r\n\r\n"},
			Result{App: "http", ServerName: "2001:db8::1", NameFrom: "host", Protection: flow.Readable, Path: "GET /"}},
		{"http, absolute form wins", flow.TCP, 3128, []string{"> GET http://u:p@real.example/x HTTP/1.1\r\nHost: other.example\r\n\r\n"},
			Result{App: "http", ServerName: "real.example", NameFrom: "host", Protection: flow.Readable, Path: "GET /x"}},
		{"http, evil host", flow.TCP, 80, []string{"> GET / HTTP/1.1\r\nHost: <b>x</b>\r\n\r\n"},
			Result{App: "http", Protection: flow.Readable, Path: "GET /"}},
		{"http, first host stays", flow.TCP, 80, []string{"> GET /1 HTTP/1.1\r\nHost: a.example\r\n\r\n", "> GET /2 HTTP/1.1\r\nHost: b.example\r\n\r\n"},
			Result{App: "http", ServerName: "a.example", NameFrom: "host", Protection: flow.Readable, Path: "GET /1"}},
		{"http basic", flow.TCP, 80, []string{"> GET / HTTP/1.1\r\nHost: a.example\r\nAuthorization: Basic dTpw\r\n\r\n"},
			Result{App: "http", ServerName: "a.example", NameFrom: "host", Protection: flow.Readable, Path: "GET /", Credentials: "http-basic"}},
		{"http bearer", flow.TCP, 80, []string{"> GET / HTTP/1.1\r\nHost: a.example\r\nauthorization: bearer x\r\n\r\n"},
			Result{App: "http", ServerName: "a.example", NameFrom: "host", Protection: flow.Readable, Path: "GET /", Credentials: "http-bearer"}},
		{"http form in the next segment", flow.TCP, 80, []string{
			"> POST /login HTTP/1.1\r\nHost: a.example\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 22\r\n\r\n",
			"> user=bob&password=hush"},
			Result{App: "http", ServerName: "a.example", NameFrom: "host", Protection: flow.Readable, Path: "POST /login", Credentials: "http-form"}},
		{"connectivity check", flow.TCP, 80, []string{"> GET /generate_204 HTTP/1.1\r\nHost: www.google.com\r\n\r\n"},
			Result{App: "http", ServerName: "www.google.com", NameFrom: "host", Protection: flow.Readable, Path: "GET /generate_204", Harmless: true}},
		{"ocsp", flow.TCP, 80, []string{"> POST / HTTP/1.1\r\nHost: any.ca.example\r\nContent-Type: application/ocsp-request\r\nContent-Length: 2\r\n\r\n00"},
			Result{App: "http", ServerName: "any.ca.example", NameFrom: "host", Protection: flow.Readable, Path: "POST /", Harmless: true}},
		{"crl", flow.TCP, 80, []string{"> GET /root.crl HTTP/1.1\r\nHost: any.ca.example\r\n\r\n"},
			Result{App: "http", ServerName: "any.ca.example", NameFrom: "host", Protection: flow.Readable, Path: "GET /root.crl", Harmless: true}},
		{"the same host, another path", flow.TCP, 80, []string{"> GET /search?q=x HTTP/1.1\r\nHost: www.google.com\r\n\r\n"},
			Result{App: "http", ServerName: "www.google.com", NameFrom: "host", Protection: flow.Readable, Path: "GET /search"}},
		{"http2 prior knowledge", flow.TCP, 80, []string{"> PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00"},
			Result{App: "http", Protection: flow.Readable, Path: "PRI"}},
		{"http answer only", flow.TCP, 80, []string{"< HTTP/1.1 200 OK\r\n\r\n"}, Result{App: "http", Protection: flow.Readable}},
		{"tls on port 80", flow.TCP, 80, []string{"> " + hello}, Result{App: "tls", ServerName: site, NameFrom: "sni", Protection: flow.Encrypted}},
		{"tls, captured the other way round", flow.TCP, 443, []string{"< " + hello}, Result{App: "tls", ServerName: site, NameFrom: "sni", Protection: flow.Encrypted}},

		{"mqtt with password", flow.TCP, 1884, []string{"> " + mqttHello("MQTT", 4, 0xc2)}, Result{App: "mqtt", Protection: flow.Readable, Credentials: "mqtt-password"}},
		{"mqtt 5 without", flow.TCP, 1883, []string{"> " + mqttHello("MQTT", 5, 0x02)}, Result{App: "mqtt", Protection: flow.Readable}},
		{"mqtt 3.1", flow.TCP, 1883, []string{"> " + mqttHello("MQIsdp", 3, 0x82)}, Result{App: "mqtt", Protection: flow.Readable, Credentials: "mqtt-user"}},
		{"mqtt, not quite", flow.TCP, 1884, []string{"> " + mqttHello("MQTX", 4, 0xc2)}, Result{App: "unknown"}},

		{"dns", flow.UDP, 53, []string{"> " + query(t, "Tracker.Example.")}, Result{App: "dns", ServerName: "tracker.example", NameFrom: "qname", Protection: flow.Readable}},
		{"dns on another port", flow.UDP, 5300, []string{"> " + query(t, "a.example.")}, Result{App: "dns", ServerName: "a.example", NameFrom: "qname", Protection: flow.Readable}},
		{"dns over tcp", flow.TCP, 53, []string{"> " + prefixed(query(t, "a.example."))}, Result{App: "dns", ServerName: "a.example", NameFrom: "qname", Protection: flow.Readable}},
		{"mdns", flow.UDP, 5353, []string{"> " + query(t, "_hap._tcp.local.")}, Result{App: "mdns", Protection: flow.Readable}},
		{"llmnr", flow.UDP, 5355, []string{"> " + query(t, "printer.")}, Result{App: "llmnr", Protection: flow.Readable}},
		{"netbios", flow.UDP, 137, []string{"> " + query(t, "fhepfcelehfcepfffacacacacacacaaa.")}, Result{App: "netbios", Protection: flow.Readable}},
		{"dhcp", flow.UDP, 67, []string{"> " + dhcp(1, "Kitchen-TV")}, Result{App: "dhcp", ServerName: "kitchen-tv", NameFrom: "dhcp", Protection: flow.Readable, Harmless: true}},
		{"dhcp answer names nobody", flow.UDP, 68, []string{"> " + dhcp(2, "Kitchen-TV")}, Result{App: "dhcp", Protection: flow.Readable, Harmless: true}},
		{"ntp", flow.UDP, 123, []string{"> \x23" + strings.Repeat("\x00", 47)}, Result{App: "ntp", Protection: flow.Readable, Harmless: true}},
		{"ssdp", flow.UDP, 1900, []string{"> M-SEARCH * HTTP/1.1\r\nMAN: \"ssdp:discover\"\r\n\r\n"}, Result{App: "ssdp", Protection: flow.Readable}},
		{"coap", flow.UDP, 5683, []string{"> \x41\x01\x00\x01t\x39host.test"}, Result{App: "coap", ServerName: "host.test", NameFrom: "host", Protection: flow.Readable}},
		{"snmp", flow.UDP, 161, []string{"> " + snmp}, Result{App: "snmp", Protection: flow.Readable, Credentials: "snmp-community"}},
		{"syslog", flow.UDP, 514, []string{"> <34>Oct 11 22:14:15 cam su: hello"}, Result{App: "syslog", Protection: flow.Readable}},
		{"tftp", flow.UDP, 69, []string{"> \x00\x01fw.bin\x00octet\x00"}, Result{App: "tftp", Protection: flow.Readable}},
		{"radius", flow.UDP, 1812, []string{"> \x01\x05\x00\x1a" + strings.Repeat("a", 16) + "\x01\x06user"}, Result{App: "radius", Protection: flow.Readable}},

		{"smtp in clear", flow.TCP, 25, []string{"< 220 mx ESMTP\r\n", "> EHLO cam\r\n", "< 250-mx\r\n250 STARTTLS\r\n", "> MAIL FROM:<a@b>\r\n"},
			Result{App: "smtp", Protection: flow.Readable}},
		{"smtp with login", flow.TCP, 2525, []string{"< 220 mx ESMTP\r\n", "> EHLO cam\r\n", "< 250 mx\r\n", "> AUTH PLAIN AGJvYgBodXNo\r\n"},
			Result{App: "smtp", Protection: flow.Readable, Credentials: "smtp-password"}},
		{"smtp, TLS asked for and refused", flow.TCP, 25, []string{"< 220 mx ESMTP\r\n", "> EHLO cam\r\n", "< 250 mx\r\n", "> STARTTLS\r\n", "< 454 no\r\n", "> MAIL FROM:<a@b>\r\n"},
			Result{App: "smtp", Protection: flow.Readable}},
		{"smtp, TLS asked for and followed", flow.TCP, 25, []string{"< 220 mx ESMTP\r\n", "> EHLO cam\r\n", "< 250 mx\r\n", "> STARTTLS\r\n", "< 220 go\r\n", "> " + hello},
			Result{App: "smtp", ServerName: site, NameFrom: "sni", Protection: flow.Encrypted}},
		{"imap starttls", flow.TCP, 143, []string{"< * OK ready\r\n", "> a1 STARTTLS\r\n", "< a1 OK go\r\n", "> " + hello},
			Result{App: "imap", ServerName: site, NameFrom: "sni", Protection: flow.Encrypted}},
		{"imap login", flow.TCP, 143, []string{"< * OK ready\r\n", "> a1 LOGIN bob hush\r\n"}, Result{App: "imap", Protection: flow.Readable, Credentials: "imap-password"}},
		{"pop3", flow.TCP, 110, []string{"< +OK ready\r\n", "> USER bob\r\n", "< +OK\r\n", "> PASS hush\r\n"}, Result{App: "pop3", Protection: flow.Readable, Credentials: "pop3-password"}},
		{"pop3 stls", flow.TCP, 110, []string{"< +OK ready\r\n", "> STLS\r\n", "< +OK\r\n", "> " + hello}, Result{App: "pop3", ServerName: site, NameFrom: "sni", Protection: flow.Encrypted}},
		{"ftp", flow.TCP, 21, []string{"< 220 box\r\n", "> USER cam\r\n", "< 331 ?\r\n", "> PASS hush\r\n"}, Result{App: "ftp", Protection: flow.Readable, Credentials: "ftp-password"}},
		{"ftp auth tls", flow.TCP, 21, []string{"< 220 box\r\n", "> AUTH TLS\r\n", "< 234 go\r\n", "> " + hello}, Result{App: "ftp", ServerName: site, NameFrom: "sni", Protection: flow.Encrypted}},
		{"xmpp starttls", flow.TCP, 5222, []string{"> <?xml version='1.0'?><stream:stream to='x'>", "< <stream:stream>", "> <starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "< <proceed/>", "> " + hello},
			Result{App: "xmpp", ServerName: site, NameFrom: "sni", Protection: flow.Encrypted}},
		{"postgres ssl", flow.TCP, 5432, []string{"> \x00\x00\x00\x08\x04\xd2\x16\x2f", "< S", "> " + hello}, Result{App: "postgres", ServerName: site, NameFrom: "sni", Protection: flow.Encrypted}},
		{"postgres", flow.TCP, 5433, []string{"> \x00\x00\x00\x13\x00\x03\x00\x00user\x00postgr\x00\x00"}, Result{App: "postgres", Protection: flow.Readable}},
		{"mysql", flow.TCP, 3306, []string{"< \x4a\x00\x00\x00\x0a8.0.36\x00" + strings.Repeat("a", 66)}, Result{App: "mysql", Protection: flow.Readable}},
		{"ldap simple bind", flow.TCP, 389, []string{"> \x30\x11\x02\x01\x01\x60\x0c\x02\x01\x03\x04\x03cn=\x80\x02pw"}, Result{App: "ldap", Protection: flow.Readable, Credentials: "ldap-password"}},
		{"redis", flow.TCP, 6380, []string{"> *2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n"}, Result{App: "redis", Protection: flow.Readable, Credentials: "redis-password"}},
		{"amqp", flow.TCP, 5672, []string{"> AMQP\x00\x00\x09\x01"}, Result{App: "amqp", Protection: flow.Readable}},

		{"ssh", flow.TCP, 443, []string{"< SSH-2.0-dropbear\r\n"}, Result{App: "ssh", Protection: flow.Encrypted}},
		{"telnet", flow.TCP, 2323, []string{"< \xff\xfd\x18\xff\xfd\x20"}, Result{App: "telnet", Protection: flow.Readable}},
		{"vnc", flow.TCP, 5900, []string{"< RFB 003.008\n"}, Result{App: "vnc", Protection: flow.Readable}},
		{"rdp without tls", flow.TCP, 3389, []string{"> \x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x00\x00\x00\x00"}, Result{App: "rdp"}},
		{"rdp with tls", flow.TCP, 3389, []string{"> \x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00", "> " + hello}, Result{App: "rdp", ServerName: site, NameFrom: "sni", Protection: flow.Encrypted}},
		{"smb1", flow.TCP, 445, []string{"> \x00\x00\x00\x20\xffSMB\x72" + strings.Repeat("\x00", 27)}, Result{App: "smb", Protection: flow.Readable}},
		{"smb2 negotiate", flow.TCP, 445, []string{"> \x00\x00\x00\x40\xfeSMB\x40\x00" + strings.Repeat("\x00", 58)}, Result{App: "smb"}},
		{"smb3 encrypted", flow.TCP, 445, []string{"> \x00\x00\x00\x40\xfdSMB" + strings.Repeat("\x07", 60)}, Result{App: "smb", Protection: flow.Encrypted}},
		{"socks5", flow.TCP, 1080, []string{"> \x05\x01\x00", "< \x05\x00"}, Result{App: "socks", Protection: flow.Readable}},
		{"irc", flow.TCP, 6667, []string{"> NICK bot\r\nUSER bot 0 * :x\r\n"}, Result{App: "irc", Protection: flow.Readable}},
		{"rtsp", flow.TCP, 554, []string{"> DESCRIBE rtsp://cam.local:554/1 RTSP/1.0\r\nCSeq: 1\r\nAuthorization: Digest x\r\n\r\n"},
			Result{App: "rtsp", ServerName: "cam.local", NameFrom: "host", Protection: flow.Readable, Credentials: "rtsp-digest"}},
		{"sip", flow.UDP, 5060, []string{"> REGISTER sip:pbx.example SIP/2.0\r\nVia: x\r\n\r\n"}, Result{App: "sip", Protection: flow.Readable}},
		{"bittorrent", flow.TCP, 6881, []string{"> \x13BitTorrent protocol" + strings.Repeat("\x00", 48)}, Result{App: "bittorrent", Protection: flow.Readable}},
		{"modbus", flow.TCP, 502, []string{"> \x00\x01\x00\x00\x00\x06\x01\x03\x00\x00\x00\x0a"}, Result{App: "modbus", Protection: flow.Readable}},
		{"dnp3", flow.TCP, 20000, []string{"> \x05\x64\x05\xc0\x01\x00\x00\x04\xe9\x21"}, Result{App: "dnp3", Protection: flow.Readable}},

		{"stun", flow.UDP, 3478, []string{"> " + stun}, Result{App: "stun", Protection: flow.Readable, Harmless: true}},
		{"stun without cookie", flow.UDP, 3478, []string{"> \x00\x01\x00\x00" + strings.Repeat("t", 16)}, Result{App: "stun", Protection: flow.Readable, Harmless: true}},
		{"syslog, counted", flow.TCP, 601, []string{"> 31 <34>1 2026-01-01T00:00:00Z cam a"}, Result{App: "syslog", Protection: flow.Readable}},
		{"stun, then dtls", flow.UDP, 3478, []string{"> " + stun, "< " + dtls}, Result{App: "dtls", Protection: flow.Encrypted}},
		{"stun, then media", flow.UDP, 3478, []string{"> " + stun, "> \x80\x60\x00\x01aaaabbbbcccc"}, Result{App: "stun"}},
		{"wireguard", flow.UDP, 51820, []string{"> " + wg(1, 148), "< " + wg(2, 92)}, Result{App: "wireguard", Protection: flow.Encrypted}},
		{"not wireguard", flow.UDP, 51820, []string{"> " + wg(1, 147)}, Result{App: "unknown"}},
		{"ike", flow.UDP, 500, []string{"> " + ike}, Result{App: "ipsec", Protection: flow.Encrypted}},
		{"openvpn", flow.UDP, 1195, []string{"> \x38abcdefgh\x00\x00\x00\x00\x00"}, Result{App: "openvpn", Protection: flow.Encrypted}},

		{"tuya", flow.TCP, 6668, []string{"> \x00\x00\x55\xaa\x00\x00\x00\x01\x00\x00\x00\x07"}, Result{App: "tuya"}},
		{"kasa", flow.UDP, 9999, []string{"> \xd0\xf2\x81\xf8\x8b\xff\x9a\xf7"}, Result{App: "kasa", Protection: flow.Readable}},
		{"miio", flow.UDP, 54321, []string{"> \x21\x31\x00\x20" + strings.Repeat("\xff", 28)}, Result{App: "miio", Protection: flow.Readable}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := talk(tc.proto, tc.port, tc.lines...)
			if d := cmp.Diff(tc.want, got, cmpopts.IgnoreFields(Result{}, "Reason", "Guessed", "TLS", "Exposure")); d != "" {
				t.Errorf("-want +got\n%s%s", d, got.Reason)
			}
			if got.Reason == "" {
				t.Error("no reason")
			}
			if tc.want.Protection == flow.Readable { // nor is any beginning of it taken for encrypted
				for i, line := range tc.lines {
					for n := 3; n <= min(len(line), 600); n++ {
						cut := append(slices.Clone(tc.lines[:i]), line[:n])
						if r := talk(tc.proto, tc.port, cut...); r.Protection == flow.Encrypted {
							t.Fatalf("%d bytes of line %d: %+v", n-2, i, r)
						}
					}
				}
			}
			if strings.Contains(got.Reason+got.Credentials+got.Path, "hush") {
				t.Error("a password was kept")
			}
		})
	}
}

func TestDNSWithinTheHouseIsHarmless(t *testing.T) {
	c := New(flow.UDP, 53)
	p := packet(flow.UDP, flow.Orig, 53, 0, []byte(query(t, "a.example.")))
	p.Tuple.Dst = flow.NewTuple(flow.UDP, p.Tuple.SrcAddrPort(), p.Tuple.SrcAddrPort()).Dst
	c.Feed(flow.Orig, p)
	if r := c.Result(); !r.Harmless || !c.Done() {
		t.Errorf("%+v", r)
	}
}

func TestDiscoveryIsHarmlessWithinTheHouse(t *testing.T) {
	for group, want := range map[string]bool{"224.0.0.251": true, "ff02::fb": true, "192.168.1.255": true, "255.255.255.255": true, "203.0.113.7": false} {
		c := New(flow.UDP, 5353)
		to := netip.AddrPortFrom(netip.MustParseAddr(group), 5353)
		c.Feed(flow.Orig, &flow.Packet{Tuple: flow.NewTuple(flow.UDP, netip.AddrPortFrom(device, 5353), to), Payload: []byte(query(t, "_hap._tcp.local."))})
		if r := c.Result(); r.App != "mdns" || r.Harmless != want {
			t.Errorf("%s: %+v", group, r)
		}
	}
}

func TestUnknown(t *testing.T) {
	random := make([]byte, 1024)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(random)
	structured := []byte(strings.Repeat("\x00\x01\x02\x03\x00\x00\x00\x08\x00\x02\x01\x07", 40))
	for _, tc := range []struct {
		name string
		sent string
		want flow.Protection
		says string
	}{
		{"nothing", "", flow.CannotTell, "no content"},
		{"short text", "hello there, short", flow.CannotTell, "too few"},
		{"json", `{"device":"toy","id":"00:11:22:33:44:55","wake_word":"hello robot","battery":77}`, flow.Readable, "text"},
		{"random", string(random), flow.CannotTell, "random"},
		{"structured", string(structured), flow.CannotTell, "structured"},
		{"png", "\x89PNG\r\n\x1a\n" + string(random[:100]), flow.Readable, "file format"},
		{"zstd", "\x28\xb5\x2f\xfd" + string(random[:100]), flow.Readable, "file format"},
		{"bzip2", "BZh91AY&SY" + string(random[:100]), flow.Readable, "file format"},
		{"mp4", "\x00\x00\x00\x20ftypisom" + string(random[:100]), flow.Readable, "file format"},
		{"h264", "\x00\x00\x00\x01\x67\x42" + string(random[:100]), flow.Readable, "file format"},
		{"nearly h264", "\x00\x00\x00\x01\x13\x42" + string(random[:100]), flow.CannotTell, "unknown"},
		{"63 random bytes", string(random[:63]), flow.CannotTell, "too few"},
	} {
		c := New(flow.TCP, 4711)
		c.Feed(flow.Orig, packet(flow.TCP, flow.Orig, 4711, 1, []byte(tc.sent)))
		if got := c.Result(); got.App != "unknown" || got.Protection != tc.want || !strings.Contains(got.Reason, tc.says) {
			t.Errorf("%s: %+v", tc.name, got)
		}
	}
}

// Random data of any length is as random as random data of that length.
func TestRelativeEntropy(t *testing.T) {
	r := rand.NewChaCha8([32]byte{2})
	for _, n := range []int{128, 256, 512, 1024, 2048} {
		low := 2.0
		b := make([]byte, n)
		for range 200 {
			r.Read(b)
			low = min(low, relativeEntropy(b))
		}
		if low < 0.95 {
			t.Errorf("%d random bytes: down to %.3f", n, low)
		}
	}
}

// The table of TLS versions that crypto/tls knows and ours agree.
func TestVersionNames(t *testing.T) {
	for v, want := range map[int]string{tls.VersionTLS10: "1.0", tls.VersionTLS11: "1.1", tls.VersionTLS12: "1.2", tls.VersionTLS13: "1.3", 0x7f1c: "1.3", 0x0300: "ssl-3.0", 0x0a0a: ""} {
		if got := versionName(v); got != want {
			t.Errorf("%#x: %q", v, got)
		}
	}
}

// No suite that crypto/tls would offer counts as without encryption, and what its
// name says is what is weak in it.
func TestCipherTables(t *testing.T) {
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if nullCipher(s.ID) {
			t.Errorf("%s is called readable", s.Name)
		}
		var want Weakness
		for word, w := range map[string]Weakness{"RC4": WeakRC4, "3DES": WeakDES, "CBC_SHA$": WeakCBCSHA1} {
			if strings.Contains(s.Name+"$", word) {
				want |= w
			}
		}
		if want&WeakDES != 0 {
			want = WeakDES // which is worse than how it is chained
		}
		if got := cipherWeakness(s.ID); got != want {
			t.Errorf("%s: %v, want %v", s.Name, got.Words(), want.Words())
		}
	}
}
