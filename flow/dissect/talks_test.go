package dissect

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/netcurtain/netcurtain/flow"
)

// dtlsOf is one message of a DTLS handshake, whole.
func dtlsOf(kind byte, number byte, body []byte) string {
	size := []byte{0, byte(len(body) >> 8), byte(len(body))}
	head := slices.Concat([]byte{kind}, size, []byte{0, number, 0, 0, 0}, size)
	return "\x16\xfe\xfd" + strings.Repeat("\x00", 8) + prefixed(string(head)+string(body))
}

// serverHello chooses a version, by the extension where one is given, and a cipher.
func serverHello(legacy, chosen, cipher uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, legacy)
	b = append(b, make([]byte, 32)...)
	b = append(b, 0) // no session
	b = binary.BigEndian.AppendUint16(b, cipher)
	b = append(b, 0) // no compression
	if chosen == 0 {
		return b
	}
	b = append(b, 0, 6, 0, extSupportedVersions, 0, 2)
	return binary.BigEndian.AppendUint16(b, chosen)
}

// What was chosen counts, whichever side is heard first; what was offered stands
// where there is no answer.
func TestDTLSHandshake(t *testing.T) {
	hello := dtlsMessage(t)
	const data = "\x17\xfe\xfd\x00\x01\x00\x00\x00\x00\x00\x01\x00\x10sixteen bytes !!"
	verify := "< " + dtlsOf(3, 0, []byte{0xfe, 0xff, 2, 1, 2})
	ask := "> " + dtlsPiece(hello, 0, len(hello))
	for _, tc := range []struct {
		name  string
		lines []string
		want  TLS
		site  string
	}{
		{"1.2", []string{ask, verify, ask, "< " + dtlsOf(2, 1, serverHello(0xfefd, 0, 0xc02f))}, TLS{Version: "1.2", Cipher: 0xc02f}, site},
		{"1.3", []string{ask, "< " + dtlsOf(2, 0, serverHello(0xfefd, 0xfefc, 0x1301))}, TLS{Version: "1.3", Cipher: 0x1301}, site},
		{"1.0 is weak", []string{ask, "< " + dtlsOf(2, 1, serverHello(0xfeff, 0, 0x002f))},
			TLS{Version: "1.0", Cipher: 0x002f, Weak: []string{"its version (1.0) is outdated", "the cipher is CBC with SHA-1"}}, site},
		{"the answer alone", []string{"< " + dtlsOf(2, 1, serverHello(0xfefd, 0, 0xc02f))}, TLS{Version: "1.2", Cipher: 0xc02f}, ""},
		{"never answered", []string{ask}, TLS{Version: "1.3"}, site},
		{"keys before the answer", []string{ask, "> " + data}, TLS{Version: "1.3"}, site},
		{"the answer in two records", []string{ask, "< " + dtlsOf(2, 1, serverHello(0xfefd, 0, 0xc02f)) + dtlsOf(14, 2, nil)}, TLS{Version: "1.2", Cipher: 0xc02f}, site},
		{"data alone", []string{"> " + data}, TLS{Version: "1.2"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := talk(flow.UDP, 4433, tc.lines...)
			if r.App != "dtls" || r.Protection != flow.Encrypted || r.ServerName != tc.site || r.TLS == nil {
				t.Fatalf("%+v", r)
			}
			got := TLS{Version: r.TLS.Version, Cipher: r.TLS.Cipher, Weak: r.TLS.Weak}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A datagram that the snap length cut is known all the same.
func TestCutDatagrams(t *testing.T) {
	for name, tc := range map[string]struct {
		port uint16
		b    string
		keep int
	}{
		"dtls":      {4433, dtlsOf(hsClientHello, 0, dtlsMessage(t)), 60},
		"wireguard": {51820, "\x01\x00\x00\x00" + noise(144)[:144], 54},
		"bacnet":    {47808, "\x81\x0b\x00\x0c\x01\x20\xff\xff\x00\xff\x10\x08", 8},
		"knx":       {3671, "\x06\x10\x02\x01\x00\x0e\x08\x01\xc0\xa8\x01\x02\x0e\x57", 10},
		"dhcp":      {67, dhcp(1, "tv"), 100},
		"stun":      {3478, "\x00\x01\x00\x10\x21\x12\xa4\x42abcdefghijkl0123456789abcdef", 24},
		"radius":    {1812, "\x01\x07\x00\x1c0123456789abcdef\x01\x08tester", 22},
		"lifx":      {56700, string(append([]byte{49, 0, 0, 0x34}, make([]byte, 45)...)), 40},
	} {
		c := New(flow.UDP, tc.port)
		p := packet(flow.UDP, flow.Orig, tc.port, 0, []byte(tc.b[:tc.keep]))
		p.Missing = len(tc.b) - tc.keep
		c.Feed(flow.Orig, p)
		if got := c.Result().App; got != name {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// A server that does not know TLS answers in its own words: nothing went encrypted.
func TestTLSRefused(t *testing.T) {
	hello := goHello(t, clientConfig())
	for answer, want := range map[string]flow.Protection{
		"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n": flow.Readable,
		"\x15\x03\x01\x00\x02\x02\x46":                          flow.Encrypted, // an alert
	} {
		c := New(flow.TCP, 8443)
		for dir := range flow.Dir(2) {
			syn := packet(flow.TCP, dir, 8443, 99, nil)
			syn.Flags = flow.SYN
			c.Feed(dir, syn)
		}
		c.Feed(flow.Orig, packet(flow.TCP, flow.Orig, 8443, 100, hello))
		c.Feed(flow.Reply, packet(flow.TCP, flow.Reply, 8443, 100, []byte(answer)))
		if r := c.Result(); r.App != "tls" || r.ServerName != site || r.Protection != want {
			t.Errorf("%q: %+v", answer, r)
		}
	}
}

func TestOddTalks(t *testing.T) {
	hello := string(goHello(t, clientConfig()))
	var h2 bytes.Buffer
	h2.WriteString(http2Preface)
	frames := http2.NewFramer(&h2, nil)
	_ = frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65535})
	_ = frames.WriteWindowUpdate(0, 1<<20)
	var block bytes.Buffer
	fields := hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/pkg.Service/Call?x=1"},
		{Name: ":authority", Value: "Grpc.Example:50051"}, {Name: "authorization", Value: "Basic " + base64.StdEncoding.EncodeToString([]byte("admin:admin"))}} {
		_ = fields.WriteField(f)
	}
	_ = frames.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, PadLength: 3, Priority: http2.PriorityParam{StreamDep: 3, Weight: 7}})
	const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

	for _, tc := range []struct {
		name  string
		proto flow.Proto
		port  uint16
		lines []string
		want  Result
	}{
		{"h2, the authority", flow.TCP, 50051, []string{"> " + h2.String()}, Result{App: "http", ServerName: "grpc.example", NameFrom: "host", Protection: flow.Readable, Path: "POST /pkg.Service/Call", Credentials: "http-basic"}},
		{"h2, the head in later segments", flow.TCP, 80, []string{"> " + h2.String()[:24], "< " + settings, "> " + h2.String()[24:50], "> " + h2.String()[50:]},
			Result{App: "http", ServerName: "grpc.example", NameFrom: "host", Protection: flow.Readable, Path: "POST /pkg.Service/Call", Credentials: "http-basic"}},
		{"h2, only the preface", flow.TCP, 80, []string{"> " + http2Preface}, Result{App: "http", Protection: flow.Readable, Path: "PRI"}},
		{"http after an empty line", flow.TCP, 80, []string{"> \r\nGET /a HTTP/1.1\r\nHost: a.example\r\n\r\n"},
			Result{App: "http", ServerName: "a.example", NameFrom: "host", Protection: flow.Readable, Path: "GET /a"}},
		{"http, the capture began within a body", flow.TCP, 80, []string{"> \x01\x02 the rest of what was sent before", "> GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n"},
			Result{App: "http", ServerName: "a.example", NameFrom: "host", Protection: flow.Readable, Path: "GET /next"}},
		{"tls, the capture began before", flow.TCP, 443, []string{"> \x01\x02 from before", "> " + hello}, Result{App: "tls", ServerName: site, NameFrom: "sni", Protection: flow.Encrypted}},
		{"ssh, only the server is heard, taken for the client", flow.TCP, 2222, []string{"> SSH-2.0-dropbear\r\n"}, Result{App: "ssh", Protection: flow.Encrypted}},
		{"smtp, only the server is heard, taken for the client", flow.TCP, 25, []string{"> 220 mx.example ESMTP\r\n", "> 250 mx.example\r\n"}, Result{App: "smtp", Protection: flow.Readable}},
		{"ftp, only the server is heard, taken for the client", flow.TCP, 2121, []string{"> 220 FTP server ready\r\n"}, Result{App: "ftp", Protection: flow.Readable}},
		{"wireguard, a keep-alive", flow.UDP, 51820, []string{"> \x04\x00\x00\x00\x07\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00" + noise(64)[:16]}, Result{App: "wireguard", Protection: flow.Encrypted}},
		{"pop3, only the client, whose commands have no words", flow.TCP, 110, []string{"> AUTH\r\n", "> CAPA\r\n"}, Result{App: "pop3", Protection: flow.Readable}},
		{"ftp, only the client", flow.TCP, 21, []string{"> SYST\r\n"}, Result{App: "ftp", Protection: flow.Readable}},
		{"mysql, only the client, which asks for TLS", flow.TCP, 3306, []string{"> \x20\x00\x00\x01\x85\xae\xff\x19\x00\x00\x00\x01\x2d" + strings.Repeat("\x00", 23), "> " + hello},
			Result{App: "mysql", ServerName: site, NameFrom: "sni", Protection: flow.Encrypted}},
		{"ssh, its first line was lost", flow.TCP, 2222, []string{"> \x00\x00\x02\x4c\x07\x14" + noise(64)[:16] + "\x00\x00\x00\x2ecurve25519-sha256,diffie-hellman-group14-sha256"}, Result{App: "ssh", Protection: flow.Encrypted}},
		{"amqp, the server's long first frame", flow.TCP, 5672, []string{"< \x01\x00\x00\x00\x00\x01\xf0\x00\x0a\x00\x0a\x00\x09"}, Result{App: "amqp", Protection: flow.Readable}},
		{"postgres, only the server", flow.TCP, 5432, []string{"< R\x00\x00\x00\x0c\x00\x00\x00\x05abcd"}, Result{App: "postgres", Protection: flow.Readable}},
		{"openvpn under way", flow.UDP, 1194, []string{"> \x48\x00\x00\x01" + noise(200), "> \x48\x00\x00\x01" + noise(90)}, Result{App: "openvpn", Protection: flow.Encrypted}},
		{"one packet of openvpn, perhaps", flow.UDP, 1194, []string{"> \x48\x00\x00\x01" + noise(200), "> \x30\x00\x00\x01" + noise(90)}, Result{App: "openvpn"}},
		{"vnc on the port of mqtt", flow.TCP, 1883, []string{"< RFB 003.008\n", "> RFB 003.008\n"}, Result{App: "vnc", Protection: flow.Readable}},
		{"mqtt under way", flow.TCP, 1883, []string{"> \x32\x08\x00\x01a\x00\x01on!", "< \x40\x02\x00\x01", "> \xc0\x00", "< \xd0\x00"}, Result{App: "mqtt", Protection: flow.Readable}},
		{"socks, only the server, with TLS within", flow.TCP, 1080, []string{"< \x05\x00", "< \x05\x00\x00\x01\x0a\x00\x00\x01\x1f\x90", "< \x16\x03\x03\x00\x30\x02" + noise(47)}, Result{App: "socks", Protection: flow.Readable}},
		{"smb, compressed", flow.TCP, 445, []string{"> \x00\x00\x00\x40\xfcSMB" + noise(60)}, Result{App: "smb", Protection: flow.Readable}},
		{"tuya, a call of old", flow.UDP, 6666, []string{"> \x00\x00\x55\xaa\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x9c\x00\x00\x00\x00" + `{"ip":"192.168.1.9","gwId":"0123456789","active":2}`}, Result{App: "tuya", Protection: flow.Readable}},
		{"no draft of quic has such a number", flow.UDP, 443, []string{"> \xc0\xff\x00\x00\xf8\x04" + noise(1200)}, Result{App: "unknown"}},
		{"openvpn over tcp under way", flow.TCP, 1194, []string{"> \x00\xc9\x48\x00\x00\x01" + noise(197), "> \x00\x5e\x48\x00\x00\x01" + noise(90)}, Result{App: "openvpn", Protection: flow.Encrypted}},
		{"one frame of openvpn over tcp, perhaps", flow.TCP, 1194, []string{"> \x00\x40\x20" + noise(40), "> " + noise(23)}, Result{App: "openvpn"}},
		{"openvpn, its control channel", flow.UDP, 1194, []string{"> \x20session\xf1" + noise(60), "> \x20session\xf1" + noise(40)}, Result{App: "openvpn", Protection: flow.Encrypted}},
		{"spotify on the port of openvpn", flow.UDP, 1194, []string{"> SpotUdp0" + noise(16) + "\x00\x01\x00\x04\x48\x95\xc2\x03", "> SpotUdp0" + noise(16) + "\x00\x01\x00\x04\x48\x95\xc2\x03"}, Result{App: "spotify", Protection: flow.Readable}},
		{"rdp over udp", flow.UDP, 3389, []string{"> \xff\xff\xff\xff\x00\x40\x10\x01" + noise(8) + strings.Repeat("\x00", 1216)}, Result{App: "rdp"}},
		{"like a hello, but far too long", flow.TCP, 4433, []string{"> \x16\x03\x01\x00\x50\x01\x7f\x00\x00\x03\x03" + noise(40)}, Result{App: "unknown"}},
		{"like a hello, but of no version", flow.TCP, 4433, []string{"> \x16\x03\x01\x00\x50\x01\x00\x00\x4c\x00\x07" + noise(40)}, Result{App: "unknown"}},
		{"text in records", flow.TCP, 4433, []string{"> \x16\x03\x01\x00\x20" + strings.Repeat("word", 8)}, Result{App: "unknown"}},
		{"a change of keys that is none", flow.TCP, 4433, []string{"> \x14\x03\x01\x00\x02\x01\x02"}, Result{App: "unknown"}},
		{"rtmp, only the server", flow.TCP, 1935, []string{"< \x03\x00\x00\x00\x01\x00\x00\x00\x00" + noise(128)}, Result{App: "rtmp", Protection: flow.Readable}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := talk(tc.proto, tc.port, tc.lines...)
			if diff := cmp.Diff(tc.want, got, cmpopts.IgnoreFields(Result{}, "Reason", "Guessed", "TLS", "Exposure", "Harmless")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A connection that was tried again counts from the SYN that was answered, and one
// whose beginning was lost from what there is.
func TestStreamsThatBeginOddly(t *testing.T) {
	hello := goHello(t, clientConfig())
	syn := func(seq uint32) *flow.Packet {
		p := packet(flow.TCP, flow.Orig, 443, seq, nil)
		p.Flags = flow.SYN
		return p
	}
	for name, packets := range map[string][]*flow.Packet{
		"a second SYN":             {syn(100), syn(900_000), packet(flow.TCP, flow.Orig, 443, 900_001, hello)},
		"far from the SYN":         {syn(100), packet(flow.TCP, flow.Orig, 443, 5_000_000, hello)},
		"a keep-alive first":       {packet(flow.TCP, flow.Orig, 443, 99, []byte{0}), packet(flow.TCP, flow.Orig, 443, 100, hello)},
		"two halves, turned round": {packet(flow.TCP, flow.Orig, 443, 600, hello[500:]), packet(flow.TCP, flow.Orig, 443, 100, hello[:500])},
	} {
		c := New(flow.TCP, 443)
		for _, p := range packets {
			c.Feed(flow.Orig, p)
		}
		if got := c.Result(); got.ServerName != site {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// Ways to sign in that hide the password only from who cannot guess it.
func TestExposedDigests(t *testing.T) {
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	apop := func(user, password string) string {
		return "> APOP " + user + fmt.Sprintf(" %x\r\n", md5.Sum([]byte("<1.2@box>"+password)))
	}
	cram := func(user, password string) string {
		mac := hmac.New(md5.New, []byte(password))
		mac.Write([]byte("<9.8@box>"))
		return "> " + b64(user+" "+hex.EncodeToString(mac.Sum(nil))) + "\r\n"
	}
	register := func(auth string) string {
		return "> REGISTER sip:pbx.example SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.1.9\r\n" + auth + "Content-Length: 0\r\n\r\n"
	}
	sip := `Authorization: Digest username="admin", realm="pbx", nonce="n", uri="sip:pbx.example", response="` + fmt.Sprintf("%x", md5.Sum(fmt.Appendf(nil, "%x:n:%x",
		md5.Sum([]byte("admin:pbx:admin")), md5.Sum([]byte("REGISTER:sip:pbx.example"))))) + `", algorithm=MD5` + "\r\n"
	for _, tc := range []struct {
		name  string
		proto flow.Proto
		port  uint16
		lines []string
		kind  string
		want  Exposure
	}{
		{"apop", flow.TCP, 110, []string{"< +OK ready <1.2@box>\r\n", apop("admin", "admin")}, "pop3-digest", Exposure{User: "a…(5)", Default: true}},
		{"apop, a good password", flow.TCP, 110, []string{"< +OK ready <1.2@box>\r\n", apop("admin", "wJ7#kq")}, "pop3-digest", Exposure{User: "a…(5)"}},
		{"pop3 cram", flow.TCP, 110, []string{"< +OK ready\r\n", "> AUTH CRAM-MD5\r\n", "< + " + b64("<9.8@box>") + "\r\n", cram("root", "vizxv")}, "pop3-digest", Exposure{User: "r…(4)", Default: true}},
		{"imap cram", flow.TCP, 143, []string{"< * OK ready\r\n", "> a AUTHENTICATE CRAM-MD5\r\n", "< + " + b64("<9.8@box>") + "\r\n", cram("bob", "x")}, "imap-digest", Exposure{User: "b…(3)"}},
		{"imap literals", flow.TCP, 143, []string{"< * OK ready\r\n", "> a LOGIN {5}\r\n", "< + go on\r\n", "> admin {5}\r\n", "< + go on\r\n", "> admin\r\n"}, "imap-password", Exposure{User: "a…(5)", Default: true}},
		{"smtp cram", flow.TCP, 25, []string{"< 220 mx ESMTP\r\n", "> EHLO a\r\n", "< 250 mx\r\n", "> AUTH CRAM-MD5\r\n", "< 334 " + b64("<9.8@box>") + "\r\n", cram("admin", "1234")}, "smtp-digest", Exposure{User: "a…(5)", Default: true}},
		{"smtp xoauth2", flow.TCP, 587, []string{"< 220 mx ESMTP\r\n", "> EHLO a\r\n", "> AUTH XOAUTH2 " + b64("user=bob@a.example\x01auth=Bearer secret\x01\x01") + "\r\n"}, "smtp-bearer", Exposure{User: "b…(9+)"}},
		{"smtp scram", flow.TCP, 587, []string{"< 220 mx ESMTP\r\n", "> EHLO a\r\n", "> AUTH SCRAM-SHA-256 " + b64("n,,n=bob,r=nonce") + "\r\n"}, "smtp-digest", Exposure{User: "b…(3)"}},
		{"xmpp plain", flow.TCP, 5222, []string{"> <?xml version='1.0'?><stream:stream to='a'>", "> <auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + b64("\x00admin\x00admin") + "</auth>"}, "xmpp-password", Exposure{User: "a…(5)", Default: true}},
		{"xmpp as it was", flow.TCP, 5222, []string{"> <stream:stream to='a'>", "> <iq type='set'><query xmlns='jabber:iq:auth'><username>bob</username><password>x</password></query></iq>"}, "xmpp-password", Exposure{User: "b…(3)"}},
		{"sip over udp", flow.UDP, 5060, []string{register(""), "< SIP/2.0 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"pbx\", nonce=\"n\"\r\n\r\n", register(sip)}, "sip-digest", Exposure{User: "a…(5)", Default: true}},
		{"sip over tcp", flow.TCP, 5060, []string{register(sip)}, "sip-digest", Exposure{User: "a…(5)", Default: true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := talk(tc.proto, tc.port, tc.lines...)
			if r.Credentials != tc.kind || r.Exposure == nil {
				t.Fatalf("credentials %q, %+v", r.Credentials, r)
			}
			if diff := cmp.Diff(tc.want, *r.Exposure, cmpopts.IgnoreFields(Exposure{}, "Identifiers")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Where sound and picture will flow, as a talk announces it.
func TestAnnouncedMedia(t *testing.T) {
	invite := func(sdp string) string {
		return fmt.Sprintf("INVITE sip:bob@pbx.example SIP/2.0\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%s", len(sdp), sdp)
	}
	const sdp = "v=0\r\no=- 1 1 IN IP4 192.168.1.9\r\nc=IN IP4 192.168.1.9\r\n"
	phone := netip.MustParseAddr("192.168.1.9")
	for _, tc := range []struct {
		name  string
		proto flow.Proto
		lines []string
		want  []Media
	}{
		{"sip, in clear", flow.UDP, []string{"> " + invite(sdp+"m=audio 40000 RTP/AVP 0 8\r\nm=video 0 RTP/AVP 96\r\n")}, []Media{{Addr: phone, Port: 40000}}},
		{"sip, the answer", flow.UDP, []string{"< SIP/2.0 200 OK\r\nContent-Type: application/sdp\r\n\r\nv=0\r\nm=audio 40002 RTP/AVP 0\r\n"}, []Media{{By: flow.Reply, Port: 40002}}},
		{"sip, encrypted", flow.UDP, []string{"> " + invite(sdp+"m=audio 40000 UDP/TLS/RTP/SAVPF 111\r\na=fingerprint:sha-256 AB\r\n")}, []Media{{Addr: phone, Port: 40000, Secured: true}}},
		{"sip, the keys in clear", flow.UDP, []string{"> " + invite(sdp+"m=audio 40000 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:xxx\r\n")}, []Media{{Addr: phone, Port: 40000}}},
		{"rtsp", flow.TCP, []string{"> SETUP rtsp://cam.example/1 RTSP/1.0\r\nTransport: RTP/AVP;unicast;client_port=5000-5001\r\n\r\n",
			"< RTSP/1.0 200 OK\r\nTransport: RTP/AVP;unicast;client_port=5000-5001;server_port=6970-6971\r\n\r\n"},
			[]Media{{Port: 5000}, {Port: 5001}, {By: flow.Reply, Port: 6970}, {By: flow.Reply, Port: 6971}}},
		{"rtsp within itself", flow.TCP, []string{"> SETUP rtsp://cam.example/1 RTSP/1.0\r\nTransport: RTP/AVP/TCP;interleaved=0-1\r\n\r\n"}, nil},
		{"no session", flow.UDP, []string{"> " + invite("hello")}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := New(tc.proto, 5060)
			seq := [2]uint32{1, 1}
			for _, l := range tc.lines {
				dir := flow.Orig
				if l[0] == '<' {
					dir = flow.Reply
				}
				c.Feed(dir, packet(tc.proto, dir, 5060, seq[dir], []byte(l[2:])))
				seq[dir] += uint32(len(l) - 2)
			}
			if diff := cmp.Diff(tc.want, c.Media(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Each way to have the router open a port.
func TestPortMaps(t *testing.T) {
	soap := func(action, body string) []string {
		b := `<?xml version="1.0"?><s:Envelope><s:Body><u:` + action + ` xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:1">` + body + `</u:` + action + `></s:Body></s:Envelope>`
		return []string{"> " + "POST /ctl/IPConn HTTP/1.1\r\nHost: 192.168.1.1:5000\r\nSOAPAction: \"urn:schemas-upnp-org:service:WANIPConnection:1#" + action + "\"\r\nContent-Type: text/xml\r\nContent-Length: " + fmt.Sprint(len(b)) + "\r\n\r\n", "> " + b}
	}
	const add = `<NewRemoteHost></NewRemoteHost><NewExternalPort xmlns:dt="urn:x" dt:dt="ui2">8443</NewExternalPort><NewProtocol>TCP</NewProtocol><NewInternalPort>443</NewInternalPort>` +
		`<NewInternalClient>192.168.1.7</NewInternalClient><NewEnabled>1</NewEnabled><NewPortMappingDescription>cam</NewPortMappingDescription><NewLeaseDuration>3600</NewLeaseDuration>`
	pcp := func(op, result byte, life string, more string) string {
		return "\x02" + string([]byte{op, 0, result}) + life + strings.Repeat("\x00", 16) + "noncenonce12" + "\x11\x00\x00\x00" + "\x1f\x90\x20\x00" + strings.Repeat("\x00", 10) + "\xff\xff\xcb\x00\x71\x01" + more
	}
	cam := netip.MustParseAddr("192.168.1.7")
	for _, tc := range []struct {
		name  string
		proto flow.Proto
		port  uint16
		lines []string
		want  *PortMap
	}{
		{"nat-pmp", flow.UDP, 5351, []string{"> \x00\x02\x00\x00\x01\xbb\x20\xfb\x00\x00\x1c\x20"}, &PortMap{Proto: flow.TCP, Port: 443, Outside: 8443, Lifetime: 2 * time.Hour}},
		{"nat-pmp, the answer alone", flow.UDP, 5351, []string{"< \x00\x81\x00\x00\x00\x00\x10\x00\x01\xbb\x20\xfc\x00\x00\x0e\x10"}, &PortMap{Proto: flow.UDP, Port: 443, Outside: 8444, Lifetime: time.Hour}},
		{"nat-pmp, refused", flow.UDP, 5351, []string{"< \x00\x81\x00\x02\x00\x00\x10\x00\x01\xbb\x00\x00\x00\x00\x0e\x10"}, &PortMap{Proto: flow.UDP, Port: 443, Lifetime: time.Hour, Refused: true}},
		{"nat-pmp, closed", flow.UDP, 5351, []string{"> \x00\x02\x00\x00\x01\xbb\x00\x00\x00\x00\x00\x00"}, &PortMap{Proto: flow.TCP, Port: 443, Close: true}},
		{"nat-pmp, asks for the address", flow.UDP, 5351, []string{"> \x00\x00"}, nil},
		{"pcp", flow.UDP, 5351, []string{"> " + pcp(1, 0, "\x00\x00\x0e\x10", "")}, &PortMap{Proto: flow.UDP, Port: 8080, Outside: 8192, Lifetime: time.Hour}},
		{"pcp, refused", flow.UDP, 5351, []string{"< " + pcp(0x81, 2, "\x00\x00\x00\x1e", "")}, &PortMap{Proto: flow.UDP, Port: 8080, Outside: 8192, Refused: true}},
		{"pcp, one peer", flow.UDP, 5351, []string{"> " + pcp(2, 0, "\x00\x00\x0e\x10", "\x01\xbb\x00\x00"+strings.Repeat("\x00", 10)+"\xff\xff\xcb\x00\x71\x09")},
			&PortMap{Proto: flow.UDP, Port: 8080, Outside: 8192, Lifetime: time.Hour, Remote: netip.MustParseAddr("203.0.113.9")}},
		{"pcp, announce", flow.UDP, 5351, []string{"> \x02\x00" + strings.Repeat("\x00", 22)}, nil},
		{"upnp", flow.TCP, 5000, soap("AddPortMapping", add), &PortMap{Proto: flow.TCP, Port: 443, Outside: 8443, Client: cam, Lifetime: time.Hour}},
		{"upnp, after another request", flow.TCP, 5000, append(soap("GetExternalIPAddress", ""), soap("AddAnyPortMapping", add)...), &PortMap{Proto: flow.TCP, Port: 443, Outside: 8443, Client: cam, Lifetime: time.Hour}},
		{"upnp, deleted", flow.TCP, 5000, soap("DeletePortMapping", `<NewExternalPort>8443</NewExternalPort><NewProtocol>UDP</NewProtocol>`), &PortMap{Proto: flow.UDP, Outside: 8443, Close: true}},
		{"upnp, IPv6", flow.TCP, 5000, soap("AddPinhole", `<RemoteHost></RemoteHost><RemotePort>0</RemotePort><InternalClient>fd00::7</InternalClient><InternalPort>443</InternalPort><Protocol>6</Protocol><LeaseTime>60</LeaseTime>`),
			&PortMap{Proto: flow.TCP, Port: 443, Client: netip.MustParseAddr("fd00::7"), Lifetime: time.Minute}},
		{"upnp, something else", flow.TCP, 5000, soap("GetStatusInfo", ""), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := talk(tc.proto, tc.port, tc.lines...).PortMap
			if diff := cmp.Diff(tc.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Where the first segment was lost, what came after it may tell, at the latest when
// nothing more is waited for.
func TestLostBeginnings(t *testing.T) {
	for name, tc := range map[string]struct {
		lines []string // segments behind the one that was lost
		want  string
	}{
		"http":                  {[]string{"GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n"}, "http"},
		"tls records":           {[]string{"\x17\x03\x03\x00\x60" + noise(128)[:96]}, "tls"},
		"nothing anybody knows": {[]string{noise(128)}, "unknown"},
	} {
		c := New(flow.TCP, 7777)
		syn := packet(flow.TCP, flow.Orig, 7777, 99, nil)
		syn.Flags = flow.SYN
		c.Feed(flow.Orig, syn)
		seq := uint32(100 + 700)
		for _, l := range tc.lines {
			c.Feed(flow.Orig, packet(flow.TCP, flow.Orig, 7777, seq, []byte(l)))
			seq += uint32(len(l))
		}
		c.Close()
		if got := c.Result().App; got != tc.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// A record of which the source kept but the beginning still fills its segment.
func TestCutRecord(t *testing.T) {
	c := New(flow.TCP, 443)
	p := packet(flow.TCP, flow.Orig, 443, 1, []byte("\x17\x03\x03\x05\x00"+noise(64)[:40]))
	p.Missing = 0x500 - 40
	c.Feed(flow.Orig, p)
	if got := c.Result(); got.App != "tls" || got.Protection != flow.Encrypted {
		t.Errorf("%+v", got)
	}
}
