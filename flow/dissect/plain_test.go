package dissect

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/flow"
)

// What real software says first, and what is to be said of it. The lines were shortened
// from what was captured between Debian's programs.
func TestWhatSoftwareSays(t *testing.T) {
	nfs := "\x00\x00\x00\x07" + "\x00\x00\x00\x00" + "\x00\x00\x00\x02" + "\x00\x01\x86\xa3" + "\x00\x00\x00\x03" + "\x00\x00\x00\x00" + strings.Repeat("\x00", 16)
	krb := strings.Replace(nfs, "\x00\x00\x00\x03\x00\x00\x00\x00", "\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x06", 1)
	rdp := "> \x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x0b\x00\x00\x00"
	utp := "> \x41\x02\x5e\x87\xb4\xe1\x1e\xc2\x00\x00\x00\x00\x00\x04\x00\x00\x56\x54\x00\x00\x00\x08" + strings.Repeat("\x00", 8)
	hello := "\x16\x03\x03\x00\x2c\x02\x00\x00\x28" + string(serverHello(0x0303, 0, 0xc02f))
	hello = hello[:4] + string([]byte{byte(len(hello) - 5)}) + hello[5:8] + string([]byte{byte(len(hello) - 9)}) + hello[9:]
	v3 := func(flags string) string { // msgFlags: 4 asks for an answer, 1 is signed, 2 encrypted
		return "> \x30\x20\x02\x01\x03\x30\x0e\x02\x01\x07\x02\x02\x05\xdc\x04\x01" + flags + "\x02\x01\x03\x04\x00\x30\x00"
	}
	for _, tc := range []struct {
		name  string
		proto flow.Proto
		port  uint16
		lines []string
		want  string
	}{
		{"git", flow.TCP, 9418, []string{"> 0032git-upload-pack /a.git\x00host=10.0.0.1\x00\x00version=2\x00"}, "git readable"},
		{"rsync", flow.TCP, 873, []string{"< @RSYNCD: 31.0 sha512 md5\n"}, "rsync readable"},
		{"memcached", flow.TCP, 11211, []string{"> stats\r\n"}, "memcached readable"},
		{"memcached in a datagram", flow.UDP, 11211, []string{"> \x00\x01\x00\x00\x00\x01\x00\x00stats\r\n"}, "memcached readable"},
		{"nntp", flow.TCP, 119, []string{"< 200 news.example ready\r\n", "> MODE READER\r\n"}, "nntp readable"},
		{"nfs", flow.TCP, 2049, []string{"> \x80\x00\x00\x28" + nfs}, "nfs readable"},
		{"nfs in a datagram", flow.UDP, 2049, []string{"> " + nfs}, "nfs readable"},
		{"nfs that may be encrypted", flow.UDP, 2049, []string{"> " + krb}, "nfs cannot-tell"},
		{"pptp", flow.TCP, 1723, []string{"> \x00\x9c\x00\x01\x1a\x2b\x3c\x4d\x00\x01\x00\x00\x01\x00"}, "pptp cannot-tell"},
		{"l2tp", flow.UDP, 1701, []string{"> \xc8\x02\x00\x14\x00\x00\x00\x00\x00\x00\x00\x00\x80\x08\x00\x00\x00\x00\x00\x01"}, "l2tp readable"},
		{"spotify", flow.UDP, 57621, []string{"> SpotUdp0\x8a\x1b\x00\x00\x00\x00"}, "spotify readable"},
		{"esphome", flow.TCP, 6053, []string{"> \x00\x13\x01\x0a\x0daioesphomeapi"}, "esphome readable"},
		{"esphome with noise", flow.TCP, 6053, []string{"> \x01\x00\x00\x01\x00\x31\x00" + noise(48)}, "esphome encrypted"},

		{"television", flow.UDP, 1234, []string{"> " + strings.Repeat("\x47\x40\x11\x10"+strings.Repeat("\xff", 184), 7)}, "mpegts readable"},
		{"television, scrambled", flow.UDP, 1234, []string{"> " + strings.Repeat("\x47\x40\x11\x90"+noise(184), 7)}, "mpegts cannot-tell"},
		{"one packet is not enough", flow.UDP, 1234, []string{"> \x47\x40\x11\x10" + noise(184)}, "unknown cannot-tell"},
		{"irc, the user first", flow.TCP, 7000, []string{"> USER bob 0 * :Bob\r\nNICK bob\r\n"}, "irc readable"},
		{"a session of netbios", flow.TCP, 139, []string{"> \x81\x00\x00\x44" + strings.Repeat(" ", 68), "< \x83\x00\x00\x01\x82"}, "netbios readable"},
		{"smb within one", flow.TCP, 139, []string{"> \x81\x00\x00\x44" + strings.Repeat(" ", 68), "< \x82\x00\x00\x00", "> \x00\x00\x00\x20\xffSMB" + strings.Repeat("\x00", 28)}, "smb readable"},
		{"mysql refuses", flow.TCP, 3306, []string{"< \x19\x00\x00\x00\xff\x6a\x04Host is not allowed he"}, "mysql readable"},
		{"redis answers", flow.TCP, 6379, []string{"< +OK\r\n"}, "redis readable"},
		{"redis in a line", flow.TCP, 6379, []string{"> AUTH foobared\r\n"}, "redis readable redis-password default"},
		{"pop3 greets", flow.TCP, 1110, []string{"< +OK POP3 ready\r\n"}, "pop3 readable"},
		{"socks with a password", flow.TCP, 1080, []string{"> \x05\x01\x02", "< \x05\x02", "> \x01\x05admin\x05admin", "< \x01\x00"}, "socks readable socks-password default"},
		{"socks without, asked twice", flow.TCP, 1080, []string{"> \x05\x02\x00\x02", "< \x05\x00", "> \x05\x01\x00\x01\x0a\x00\x00\x01\x00\x50"}, "socks readable"},
		{"snmp 3 asks who is there, then encrypts", flow.UDP, 161, []string{v3("\x04"), v3("\x07")}, "snmp encrypted"},
		{"snmp 3 signs only", flow.UDP, 161, []string{v3("\x04"), v3("\x05")}, "snmp readable"},
		{"rdp with its own encryption", flow.TCP, 3389, []string{rdp, "< \x03\x00\x00\x13\x0e\xd0\x00\x00\x12\x34\x00\x02\x00\x08\x00\x00\x00\x00\x00"}, "rdp cannot-tell"},
		{"openvpn 2.6, tls-crypt-v2", flow.UDP, 1199, []string{"> \x50" + noise(8) + "\x0f\x00\x00\x01" + noise(300)}, "openvpn encrypted"},
		{"utp", flow.UDP, 6881, []string{utp}, "bittorrent cannot-tell"},
		{"utp that shows what it shares", flow.UDP, 6881, []string{utp, "> \x01\x00\x5e\x88" + strings.Repeat("\x00", 16) + "\x13BitTorrent protocol" + noise(48)}, "bittorrent readable"},
		{"local peers", flow.UDP, 6771, []string{"> BT-SEARCH * HTTP/1.1\r\nHost: 239.192.152.143:6771\r\n"}, "bittorrent readable"},

		{"the server's side of STARTTLS", flow.TCP, 25, []string{"< 220 a.example ESMTP\r\n", "< 250 STARTTLS\r\n", "< 220 go ahead\r\n", "< " + hello}, "smtp encrypted"},
		{"a mail that holds TLS", flow.TCP, 25, []string{"< 220 a.example ESMTP\r\n", "< 250 text " + hello}, "smtp readable"},
		{"all but records was lost", flow.TCP, 143, []string{"< * OK\r\n", "> \x17\x03\x03\x00\x60" + noise(96)}, "imap encrypted"},
		{"a mail whose lines look like records", flow.TCP, 143, []string{"< * OK\r\n", "> \x17\x03\x03\x00\x60" + strings.Repeat("a line of text. ", 6)}, "imap readable"},
		{"ldap, the server's side", flow.TCP, 389, []string{"< \x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00" + hello}, "ldap encrypted"},
		{"http/2, the server's side", flow.TCP, 8082, []string{"< \x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\x00\x00\x00\x04\x01\x00\x00\x00\x00"}, "http readable"},
		{"the client's hello was lost", flow.TCP, 143, []string{"< * OK\r\n", "> a STARTTLS\r\n", "< a OK\r\n" + hello}, "imap encrypted"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := talk(tc.proto, tc.port, tc.lines...)
			got := r.App + " " + r.Protection.String()
			if r.Credentials != "" {
				got += " " + r.Credentials
			}
			if r.Exposure != nil && r.Exposure.Default {
				got += " default"
			}
			if got != tc.want {
				t.Errorf("%s (%s), want %s", got, r.Reason, tc.want)
			}
			sound(t, r)
		})
	}
}

// A person types letter by letter, is echoed, and sometimes rubs out.
func TestTypedLetterByLetter(t *testing.T) {
	lines := []string{"< \xff\xfd\x18\xff\xfd\x20", "> \xff\xfb\x18\xff\xfc\x20", "< \xff\xfa\x18\x01\xff\xf0", "> \xff\xfa\x18\x00XTERM\xff\xf0", "< login: "}
	for _, letter := range strings.Split("adx\x7fmin\r", "") {
		lines = append(lines, "> "+letter, "< "+letter)
	}
	lines = append(lines, "< Password: ")
	for _, letter := range strings.Split("admin\r", "") {
		lines = append(lines, "> "+letter)
	}
	r := talk(flow.TCP, 23, lines...)
	if r.Credentials != "telnet-password" || r.Exposure == nil || r.Exposure.User != "a…(5)" || !r.Exposure.Default {
		t.Errorf("%+v, %+v", r, r.Exposure)
	}
}

// FTP says where its files will be carried, in four ways, and late in the talk.
func TestAnnouncedFiles(t *testing.T) {
	c := New(flow.TCP, 21)
	seq := [2]uint32{1, 1}
	for _, l := range []string{
		"< 220 ready\r\n", "> USER bob\r\n", "< 331 -\r\n", "> PASS x\r\n", "< 230 -\r\n", "> SYST\r\n", "< 215 UNIX\r\n", "> FEAT\r\n", "< 211 -\r\n", "> PWD\r\n", "< 257 /\r\n",
		"> PASV\r\n", "< 227 Entering Passive Mode (10,0,0,1,195,80).\r\n", "> EPSV\r\n", "< 229 Entering Extended Passive Mode (|||6446|)\r\n",
		"> PORT 192,168,77,20,156,64\r\n", "> EPRT |2|fd00::1|5282|\r\n", "< 227 nonsense (1,2,3)\r\n", "< 229 (||||||||)\r\n", "< 227 (1,1,1,1,999,1)\r\n",
	} {
		dir := flow.Orig
		if l[0] == '<' {
			dir = flow.Reply
		}
		c.Feed(dir, packet(flow.TCP, dir, 21, seq[dir], []byte(l[2:])))
		seq[dir] += uint32(len(l) - 2)
	}
	want := map[Media]bool{
		{By: flow.Reply, Port: 195<<8 | 80, Proto: flow.TCP}: true, {By: flow.Reply, Port: 6446, Proto: flow.TCP}: true,
		{By: flow.Orig, Port: 156<<8 | 64, Proto: flow.TCP}: true, {By: flow.Orig, Port: 5282, Proto: flow.TCP}: true,
	}
	for _, m := range c.Media() {
		if !want[m] {
			t.Errorf("announced %+v", m)
		}
		delete(want, m)
	}
	for m := range want {
		t.Errorf("not announced: %+v", m)
	}
}

// What was captured from the middle on is named by its port, and never called encrypted
// for that.
func TestUnderWay(t *testing.T) {
	for _, tc := range []struct {
		name     string
		port     uint16
		up, down string
		syn      bool
		want     string
	}{
		{"ssh", 22, noise(200), noise(300), false, "ssh cannot-tell"},
		{"a file over http", 80, "", noise(900), false, "http cannot-tell"},
		{"text over http", 80, "", strings.Repeat("<p>some text</p>\n", 30), false, "http readable"},
		{"a port that says nothing", 4711, noise(200), noise(300), false, "unknown cannot-tell"},
		{"the beginning was seen", 22, noise(200), noise(300), true, "unknown cannot-tell"},
		{"nothing was said", 22, "", "", false, "unknown cannot-tell"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := New(flow.TCP, tc.port)
			if tc.syn {
				syn := packet(flow.TCP, flow.Orig, tc.port, 99, nil)
				syn.Flags = flow.SYN
				c.Feed(flow.Orig, syn)
			}
			c.Feed(flow.Orig, packet(flow.TCP, flow.Orig, tc.port, 100, []byte(tc.up)))
			c.Feed(flow.Reply, packet(flow.TCP, flow.Reply, tc.port, 100, []byte(tc.down)))
			c.Close()
			if r := c.Result(); r.App+" "+r.Protection.String() != tc.want {
				t.Errorf("%s %s (%s), want %s", r.App, r.Protection, r.Reason, tc.want)
			}
		})
	}
}

// QUIC under way has a form: the same ID in every packet of a direction, and nothing
// else that repeats.
func TestQUICUnderWay(t *testing.T) {
	bytesOf := []byte(noise(4000))
	shorts := func(n int, id string) (all [][]byte) {
		for i := range n {
			all = append(all, append([]byte{0x40 | bytesOf[i]&0x3f}, append([]byte(id), bytesOf[100*i:100*i+300]...)...))
		}
		return all
	}
	text := func(n int) (all [][]byte) {
		for range n {
			all = append(all, bytes.Repeat([]byte("A text on this port. "), 12))
		}
		return all
	}
	for _, tc := range []struct {
		name    string
		port    uint16
		packets [][]byte
		want    string
	}{
		{"one ID", 443, shorts(4, "\x01\x9a\x77\x42\xc3\x0e\x5f\x88"), "quic encrypted"},
		{"too few", 443, shorts(2, "\x01\x9a\x77\x42\xc3\x0e\x5f\x88"), "quic cannot-tell"},
		{"no ID", 443, shorts(4, ""), "quic cannot-tell"},
		{"an ID that is none", 443, shorts(4, "\x00\x00\x00\x00\x00\x00\x00\x00"), "quic cannot-tell"},
		{"another port", 4711, shorts(4, "\x01\x9a\x77\x42\xc3\x0e\x5f\x88"), "unknown cannot-tell"},
		{"one of another form", 443, append(shorts(4, "\x01\x9a\x77\x42\xc3\x0e\x5f\x88"), []byte(noise(100))), "unknown cannot-tell"},
		{"text", 443, text(4), "unknown readable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := New(flow.UDP, tc.port)
			for _, b := range tc.packets {
				c.Feed(flow.Orig, packet(flow.UDP, flow.Orig, tc.port, 0, b))
			}
			c.Close()
			if r := c.Result(); r.App+" "+r.Protection.String() != tc.want {
				t.Errorf("%s %s (%s), want %s", r.App, r.Protection, r.Reason, tc.want)
			}
		})
	}
}

// Lamps are switched by JSON, which is told from other text by the port and the house.
func TestLampsByJSON(t *testing.T) {
	for _, tc := range []struct {
		proto flow.Proto
		port  uint16
		to    string
		says  string
		want  string
	}{
		{flow.UDP, 38899, "192.168.1.7", `{"method":"getPilot","params":{"mac":"a8:bb:50:01:02:03"}}`, "wiz readable"},
		{flow.UDP, 4003, "192.168.1.7", `{"msg":{"cmd":"devStatus","data":{}}}`, "govee readable"},
		{flow.TCP, 55443, "192.168.1.7", `{"id":1,"method":"set_power","params":["on"]}` + "\r\n", "yeelight readable"},
		{flow.UDP, 38899, "203.0.113.7", `{"method":"getPilot","params":{}}`, "unknown cannot-tell"},
		{flow.TCP, 55443, "192.168.1.7", noise(60), "unknown cannot-tell"},
	} {
		c := New(tc.proto, tc.port)
		pkt := packet(tc.proto, flow.Orig, tc.port, 1, []byte(tc.says))
		pkt.Tuple = flow.NewTuple(tc.proto, netip.AddrPortFrom(device, 40000), netip.AddrPortFrom(netip.MustParseAddr(tc.to), tc.port))
		c.Feed(flow.Orig, pkt)
		if r := c.Result(); r.App+" "+r.Protection.String() != tc.want {
			t.Errorf("%s: %s %s (%s), want %s", tc.says, r.App, r.Protection, r.Reason, tc.want)
		}
	}
}

// Products that speak TLS or HTTP in the house are named before the reason, by the port
// that is theirs; elsewhere the port says nothing.
func TestProducts(t *testing.T) {
	const key = "1028d66426293e821ecfd9ef1a0731df"
	get := func(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: bridge\r\n\r\n" }
	play := "POST /MediaRenderer/AVTransport/Control HTTP/1.1\r\nHost: 192.168.1.9:1400\r\nSOAPACTION: \"urn:schemas-upnp-org:service:AVTransport:1#Play\"\r\nContent-Length: 0\r\n\r\n"
	for _, tc := range []struct {
		proto    flow.Proto
		port     uint16
		to, says string
		want     string // protocol, credential, and how the reason begins
	}{
		{flow.TCP, 8009, "192.168.1.9", string(goHello(t, clientConfig())), "tls: Google Cast: TLS"},
		{flow.TCP, 8009, "203.0.113.7", string(goHello(t, clientConfig())), "tls: TLS"},
		{flow.TCP, 1400, "192.168.1.9", play, "http: Sonos: HTTP without TLS"},
		{flow.TCP, 1400, "203.0.113.7", play, "http: HTTP without TLS"},
		{flow.TCP, 8060, "192.168.1.9", get("/query/device-info"), "http: Roku: HTTP without TLS"},
		{flow.UDP, 2100, "192.168.1.9", dtlsPiece(dtlsMessage(t), 0, len(dtlsMessage(t))), "dtls: Philips Hue's entertainment: DTLS"},
		{flow.TCP, 80, "192.168.1.9", get("/api/" + key + "/lights"), "http hue-key: Philips Hue: HTTP without TLS"},
		{flow.TCP, 80, "192.168.1.9", get("/api/" + key), "http hue-key: Philips Hue: HTTP without TLS"},
		{flow.TCP, 80, "192.168.1.9", get("/api/" + key + "/other"), "http: HTTP without TLS"},
		{flow.TCP, 80, "192.168.1.9", get("/api/device-settings-of-the-second-version/config"), "http: HTTP without TLS"},
		{flow.TCP, 11095, "192.168.1.9", noise(80), "weave: by its port it is Weave"},
		{flow.TCP, 11095, "192.168.1.9", strings.Repeat("hello ", 20), "unknown: an unknown protocol that sends text"},
	} {
		c := New(tc.proto, tc.port)
		pkt := packet(tc.proto, flow.Orig, tc.port, 1, []byte(tc.says))
		pkt.Tuple = flow.NewTuple(tc.proto, netip.AddrPortFrom(device, 40000), netip.AddrPortFrom(netip.MustParseAddr(tc.to), tc.port))
		c.Feed(flow.Orig, pkt)
		c.Close()
		c.Close() // which changes nothing
		r := c.Result()
		got := strings.TrimSpace(r.App+" "+r.Credentials) + ": " + r.Reason
		if !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s:%d: %s, want %s", tc.to, tc.port, got, tc.want)
		}
	}
}

// What is within WebSocket is masked, but not hidden.
func TestWithinWebSocket(t *testing.T) {
	const ask = "GET /mqtt HTTP/1.1\r\nHost: tv.example\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
	frame := func(kind byte, payload string) string {
		b := []byte{0x80 | kind, 0x80 | 126, byte(len(payload) >> 8), byte(len(payload)), 1, 2, 3, 4}
		for i := range len(payload) {
			b = append(b, payload[i]^byte(i%4+1))
		}
		return string(b)
	}
	connect := mqttConnectOf(4, "sensor", "admin", "admin")[2:]
	for name, tc := range map[string]struct {
		lines []string
		want  string
	}{
		"mqtt":            {[]string{"> " + ask, "> " + frame(2, connect)}, "http mqtt-password: MQTT within"},
		"over segments":   {[]string{"> " + ask, "> " + frame(2, connect)[:9], "> " + frame(2, connect)[9:]}, "http mqtt-password: MQTT within"},
		"text":            {[]string{"> " + ask, "> " + frame(1, `{"mac":"a8:bb:50:01:02:03"}`)}, "http: WebSocket without TLS: every word can be read on the way (1 mac)"},
		"a ping":          {[]string{"> " + ask, "> " + frame(9, "")}, "http: WebSocket without TLS"},
		"not masked":      {[]string{"> " + ask, "> \x82\x05hello"}, "http: WebSocket without TLS"},
		"nothing more":    {[]string{"> " + ask}, "http: WebSocket without TLS"},
		"of a huge frame": {[]string{"> " + ask, "> \x82\xff\x00\x00\x00\x00\x00\x10\x00\x00abcd"}, "http: WebSocket without TLS"},
	} {
		r := talk(flow.TCP, 8083, tc.lines...)
		got := strings.TrimSpace(r.App+" "+r.Credentials) + ": " + r.Reason
		if x := r.Exposure; x != nil {
			for _, id := range x.Identifiers {
				got += fmt.Sprintf(" (%d %s)", id.Count, id.Kind)
			}
		}
		if !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

// What stands on a well-known port without the form of its protocol is neither harmless
// nor encrypted.
func TestPortsAreNoForm(t *testing.T) {
	matter := func(flags, security string) string {
		return flags + "\x01\x02" + security + "\x00\x00\x00\x09" + noise(64)
	}
	ike := "initspi!respspi!\x21\x20\x22\x08\x00\x00\x00\x00\x00\x00\x00\x1c"
	for name, tc := range map[string]struct {
		port uint16
		says string
		want string
	}{
		"time":                    {123, "\x23\x02\x06\xec" + strings.Repeat("\x01", 44), "ntp readable true"},
		"time with a key":         {123, "\x23\x02\x06\xec" + strings.Repeat("\x01", 64), "ntp readable true"},
		"no stratum":              {123, "\x23\x77\x06\xec" + strings.Repeat("\x01", 44), "ntp readable false"},
		"no words":                {123, "\x23\x02\x06\xec" + strings.Repeat("\x01", 45), "ntp readable false"},
		"an address":              {547, "\x01\x12\x34\x56\x00\x08\x00\x02\x00\x00", "dhcpv6 readable true"},
		"options that do not fit": {547, "\x01\x12\x34\x56" + noise(40), "dhcpv6 readable false"},
		"matter":                  {5540, matter("\x00", "\x00"), "matter cannot-tell false"},
		"matter, bits not free":   {5540, matter("\x08", "\x00"), "unknown cannot-tell false"},
		"matter, no such session": {5540, matter("\x00", "\x02"), "unknown cannot-tell false"},
		"matter, not sealed":      {5540, "\x00\x01\x02\x00\x00\x00\x00\x09" + strings.Repeat("\x07", 64), "unknown cannot-tell false"},
		"esp":                     {4500, "\x12\x34\x56\x78\x00\x00\x00\x07" + noise(160), "ipsec cannot-tell false"},
		"esp without a number":    {4500, "\x12\x34\x56\x78\x7f\x00\x00\x07" + noise(160), "unknown cannot-tell false"},
		"keys":                    {500, ike, "ipsec encrypted false"},
		"keys of no kind":         {500, ike[:18] + "\x99" + ike[19:], "unknown cannot-tell false"},
		"keys without an end":     {500, ike[:24] + "\x7f" + ike[25:], "unknown cannot-tell false"},
		"keys of another length":  {500, ike + "more", "unknown cannot-tell false"},
		"coap, options in order":  {5683, "\x42\x01\x00\x01ab\xb4read\x04temp\xff1", "coap readable false"},
		"coap, no such option":    {5683, "\x42\x01\x00\x01ab\xf4read", "unknown cannot-tell false"},
		"coap, beyond its end":    {5683, "\x42\x01\x00\x01ab\xb9read", "unknown cannot-tell false"},
		"coap, empty with more":   {5683, "\x40\x00\x00\x01more", "unknown cannot-tell false"},
		"coap on OpenVPN's port":  {1194, "\x40\x01\x00\x01\xb4read", "coap readable false"},
		"an id of DNS like DTLS":  {5400, "\x16\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07printer\x00\x00\x01\x00\x01", "dns readable false"},
	} {
		r := talk(flow.UDP, tc.port, "> "+tc.says)
		if got := fmt.Sprint(r.App, " ", r.Protection, " ", r.Harmless); got != tc.want {
			t.Errorf("%s: %s (%s), want %s", name, got, r.Reason, tc.want)
		}
	}
}

// What looks random and has a number is known by the numbers that rise.
func TestNumberedPackets(t *testing.T) {
	esp := func(spi, n byte) string { return "> \x12\x34\x56" + string([]byte{spi, 0, 0, 0, n}) + noise(160) }
	const exchange = "initspi!respspi!\x21\x20\x22\x08\x00\x00\x00\x00\x00\x00\x00\x1c"
	matter := func(session, n byte) string {
		return "> \x00" + string([]byte{session, 2, 0, n, 0, 0, 9}) + noise(64)
	}
	for name, tc := range map[string]struct {
		port  uint16
		lines []string
		want  string
	}{
		"esp":                    {4500, []string{esp(1, 7), esp(1, 8)}, "ipsec encrypted"},
		"esp, some lost":         {4500, []string{esp(1, 7), esp(1, 90)}, "ipsec encrypted"},
		"esp, the same again":    {4500, []string{esp(1, 7), esp(1, 7)}, "ipsec cannot-tell"},
		"esp, of somebody else":  {4500, []string{esp(1, 7), esp(2, 8)}, "ipsec cannot-tell"},
		"matter":                 {5540, []string{matter(1, 7), matter(1, 8)}, "matter encrypted"},
		"matter, two sessions":   {5540, []string{matter(1, 7), matter(2, 8)}, "matter cannot-tell"},
		"keys, then esp":         {4500, []string{"> \x00\x00\x00\x00" + exchange, esp(1, 1)}, "ipsec encrypted"},
		"keys, then only signed": {4500, []string{"> \x00\x00\x00\x00" + exchange, "> \x12\x34\x56\x01\x00\x00\x00\x01\x30\x39\x00\x35\x00\x0c\x00\x00\x00\x01\x02\x03\x01\x02\x02\x11" + noise(12)}, "ipsec readable"},
		"gzip":                   {4500, []string{"> \x1f\x8b\x08\x00\x00\x00\x00\x00" + noise(160), "> \x1f\x8b\x08\x00\x00\x00\x00\x00" + noise(160)}, "unknown readable"},
	} {
		r := talk(flow.UDP, tc.port, tc.lines...)
		if got := fmt.Sprint(r.App, " ", r.Protection); got != tc.want {
			t.Errorf("%s: %s (%s), want %s", name, got, r.Reason, tc.want)
		}
	}
}

// IPsec may sign without encrypting: then what it carries can be read (RFC 2410).
func TestESPWithoutEncryption(t *testing.T) {
	const head = "\x00\x00\x10\x01\x00\x00\x00\x01"
	ping4 := "\x45\x00\x00\x1c\x00\x01\x00\x00\x40\x01\xf9\x8c\xc0\xa8\x00\x01\xc0\xa8\x00\x02" + "\x08\x00\xf7\xfe\x00\x00\x00\x01"
	ping6 := "\x60\x00\x00\x00\x00\x08\x3a\x40\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x02\x80\x00\x00\x00\x00\x00\x00\x01"
	udp := "\x30\x39\x00\x35\x00\x0c\x00\x00\x00\x01\x02\x03"
	tcp := "\x30\x39\x00\x50\x00\x00\x00\x01\x00\x00\x00\x01\x50\x18\xff\xff\x00\x00\x00\x00\x01\x02"
	for name, tc := range map[string]struct{ inner, want string }{
		"a packet in the tunnel":         {ping4 + "\x01\x02\x02\x04" + noise(12), "readable"},
		"a packet of IPv6":               {ping6 + "\x01\x02\x02\x29" + noise(16), "readable"},
		"udp":                            {udp + "\x01\x02\x02\x11" + noise(12), "readable"},
		"udp, signed with SHA-512":       {udp + "\x01\x02\x02\x11" + noise(32), "readable"},
		"tcp":                            {tcp + "\x01\x02\x03\x04\x04\x06" + noise(16), "readable"},
		"encrypted":                      {noise(120), "encrypted"},
		"encrypted, with a like trailer": {noise(60) + "\x01\x02\x02\x11" + noise(12), "encrypted"},
		"cut":                            {"", "encrypted"},
	} {
		c := New(50, 0)
		c.Feed(flow.Orig, packet(50, flow.Orig, 0, 0, []byte(head+tc.inner)))
		if r := c.Result(); r.App != "esp" || r.Protection.String() != tc.want {
			t.Errorf("%s: %s %v (%s), want %s", name, r.App, r.Protection, r.Reason, tc.want)
		}
	}
	if r := talk(flow.UDP, 4500, "> "+head+ping4+"\x01\x02\x02\x04"+noise(12)); r.Protection != flow.Readable {
		t.Errorf("in UDP: %+v", r)
	}
}

// A hello or a request that comes in small segments is read to its end; what only drips
// is given up.
func TestSmallSegments(t *testing.T) {
	hello := string(goHello(t, clientConfig()))
	for name, tc := range map[string]struct {
		says string
		size int
		want string
	}{
		"tls":                 {hello, 60, site},
		"tls, far too small":  {hello, 3, ""},
		"http":                {"GET /a HTTP/1.1\r\nUser-Agent: test\r\nHost: www.example\r\n\r\n", 2, "www.example"},
		"http, far too small": {"GET /" + strings.Repeat("a", 200) + " HTTP/1.1\r\nHost: www.example\r\n\r\n", 1, ""},
	} {
		var lines []string
		for says := tc.says; says != ""; says = says[min(tc.size, len(says)):] {
			lines = append(lines, "> "+says[:min(tc.size, len(says))])
		}
		if r := talk(flow.TCP, 443, lines...); r.ServerName != tc.want {
			t.Errorf("%s: %q, want %q", name, r.ServerName, tc.want)
		}
	}
}
