package dissect

import (
	"bytes"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/flow"
)

// feedAll makes a flow of what both sides said, cut at a place of the fuzzer's
// choice, and checks what holds of every result.
func feedAll(t *testing.T, p flow.Proto, port uint16, up, down []byte, cut uint16) Result {
	t.Helper()
	c := New(p, port)
	n := min(int(cut), len(up))
	c.Feed(flow.Orig, packet(p, flow.Orig, port, 1, bytes.Clone(up[:n])))
	c.Feed(flow.Orig, packet(p, flow.Orig, port, 1+uint32(n), bytes.Clone(up[n:])))
	c.Feed(flow.Reply, packet(p, flow.Reply, port, 1, bytes.Clone(down)))
	r := c.Result()
	c.Close()
	sound(t, r)
	return r
}

// sound checks what holds of every result: it has words, and a name says where it
// is from and is harmless to show.
func sound(t *testing.T, r Result) {
	t.Helper()
	if r.App == "" || r.Reason == "" {
		t.Errorf("a result without words: %+v", r)
	}
	if (r.ServerName == "") != (r.NameFrom == "") {
		t.Errorf("name %q from %q", r.ServerName, r.NameFrom)
	}
	if strings.ContainsAny(r.ServerName, "<>\"'&\x00 \r\n/%") || len(r.ServerName) > 253 {
		t.Errorf("a dangerous name: %q", r.ServerName)
	}
}

// FuzzHTTP: requests and answers, cut anywhere, on the port of HTTP.
func FuzzHTTP(f *testing.F) {
	f.Add([]byte("GET /a/b?c=d HTTP/1.1\r\nHost: tv.example:80\r\nAuthorization: Basic YWRtaW46YWRtaW4=\r\n\r\n"), []byte("HTTP/1.1 200 OK\r\nServer: x\r\n\r\n"), uint16(12))
	f.Add([]byte("POST /login HTTP/1.0\r\nHost: x.example\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 21\r\n\r\nuser=admin&pass=admin"), []byte("HTTP/1.0 302 Found\r\nLocation: /\r\n\r\n"), uint16(60))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"), []byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00"), uint16(3))
	f.Add([]byte("GET /chat HTTP/1.1\r\nHost: ws.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x05hello"), []byte("HTTP/1.1 101 Switching Protocols\r\n\r\n"), uint16(0))
	f.Add([]byte("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\nProxy-Authorization: Digest username=\"a\"\r\n\r\n"), []byte{}, uint16(9))
	f.Fuzz(func(t *testing.T, up, down []byte, cut uint16) { feedAll(t, flow.TCP, 80, up, down, cut) })
}

// FuzzMQTT: all versions of CONNECT, cut anywhere.
func FuzzMQTT(f *testing.F) {
	f.Add([]byte(mqttHello("MQTT", 4, 0xc2)), []byte("\x20\x02\x00\x00"), uint16(3))
	f.Add([]byte(mqttHello("MQTT", 5, 0xc2)), []byte("\x20\x03\x00\x00\x00"), uint16(1))
	f.Add([]byte(mqttHello("MQIsdp", 3, 0x02)), []byte("\x20\x02\x00\x05"), uint16(8))
	f.Fuzz(func(t *testing.T, up, down []byte, cut uint16) { feedAll(t, flow.TCP, 1883, up, down, cut) })
}

// FuzzDHCP: what devices and servers of both families say on the ports of DHCP.
func FuzzDHCP(f *testing.F) {
	f.Add(uint16(67), []byte(dhcp(1, "tv")), []byte(dhcp(2, "tv")))
	f.Add(uint16(547), []byte("\x01\x12\x34\x56\x00\x01\x00\x0e\x00\x01\x00\x01\x1c\x39\xcf\x88\x08\x00\x27\xfe\x8f\x95"), []byte("\x02\x12\x34\x56"))
	f.Fuzz(func(t *testing.T, port uint16, up, down []byte) {
		feedAll(t, flow.UDP, port, up, down, uint16(len(up)))
	})
}

// FuzzTalks: protocols whose words announce flows, ports and credentials, on the
// port of each.
func FuzzTalks(f *testing.F) {
	const sdp = "v=0\r\nc=IN IP4 192.168.1.9\r\nm=audio 40000 RTP/AVP 0\r\na=crypto:1 x inline:y\r\n"
	f.Add(false, uint16(5060), []byte("INVITE sip:bob@pbx.example SIP/2.0\r\nAuthorization: Digest username=\"a\", nonce=\"n\", response=\"00\"\r\n\r\n"+sdp), []byte("SIP/2.0 200 OK\r\n\r\n"+sdp), uint16(9))
	f.Add(true, uint16(554), []byte("SETUP rtsp://u:p@cam.example/1 RTSP/1.0\r\nTransport: RTP/AVP;unicast;client_port=5000-5001\r\n\r\n"), []byte("RTSP/1.0 200 OK\r\nTransport: RTP/SAVP;server_port=6970-6971\r\n\r\n"), uint16(40))
	f.Add(true, uint16(110), []byte("APOP admin 00\r\nAUTH CRAM-MD5\r\nYWRtaW4gMDA=\r\n"), []byte("+OK <1@b>\r\n+ PDlAYj4=\r\n"), uint16(5))
	f.Add(true, uint16(143), []byte("a LOGIN {5}\r\nadmin {5}\r\nadmin\r\n"), []byte("* OK\r\n"), uint16(12))
	f.Add(true, uint16(25), []byte("EHLO a\r\nAUTH XOAUTH2 dXNlcj1hAWF1dGg9QmVhcmVyIHgBAQ==\r\n"), []byte("220 x ESMTP\r\n334 \r\n"), uint16(8))
	f.Add(true, uint16(5222), []byte("<stream:stream><auth mechanism='PLAIN'>AGEAYg==</auth><username>u</username><password>p</password>"), []byte("<stream:stream>"), uint16(15))
	f.Add(true, uint16(5000), []byte("POST /c HTTP/1.1\r\nSOAPAction: \"x#AddPortMapping\"\r\nContent-Length: 120\r\n\r\n<NewExternalPort a=\"b\">1</NewExternalPort><NewInternalPort>2</NewInternalPort><NewProtocol>TCP</NewProtocol><NewLeaseDuration>9</NewLeaseDuration>"), []byte{}, uint16(80))
	f.Add(false, uint16(5351), []byte("\x00\x02\x00\x00\x01\xbb\x20\xfb\x00\x00\x1c\x20"), []byte("\x02\x81\x00\x00"+strings.Repeat("\x01", 76)), uint16(99))
	f.Add(true, uint16(50051), []byte(http2Preface+"\x00\x00\x0e\x01\x2c\x00\x00\x00\x01\x01\x00\x00\x00\x00\x00\x83\x86\x84\x41\x01a\x00"), []byte{}, uint16(30))
	f.Add(true, uint16(21), []byte("USER a\r\nPORT 10,0,0,1,5,6\r\nEPRT |2|::1|5282|\r\n"), []byte("220 FTP\r\n227 (1,2,3,4,5,6)\r\n229 (|||99|)\r\n"), uint16(8))
	f.Add(true, uint16(23), []byte("\xff\xfb\x18adx\x7fmin\radmin\r"), []byte("\xff\xfd\x18login: Password: "), uint16(4))
	f.Add(true, uint16(1080), []byte("\x05\x01\x02\x01\x05admin\x05admin\x05\x01\x00\x01"), []byte("\x05\x02\x01\x00"), uint16(3))
	f.Add(true, uint16(2049), []byte("\x80\x00\x00\x28\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01\x86\xa3\x00\x00\x00\x03\x00\x00\x00\x00"), []byte{}, uint16(9))
	f.Add(false, uint16(6881), []byte("\x41\x02\x5e\x87\xb4\xe1\x1e\xc2\x00\x00\x00\x00\x00\x04\x00\x00\x56\x54\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00"), []byte("BT-SEARCH * HTTP/1.1\r\n"), uint16(99))
	f.Add(true, uint16(6053), []byte("\x01\x00\x00\x01\x00\x31\x00abc"), []byte("\x01\x00\x00"), uint16(0))
	f.Fuzz(func(t *testing.T, tcp bool, port uint16, up, down []byte, cut uint16) {
		p := flow.UDP
		if tcp {
			p = flow.TCP
		}
		if r := feedAll(t, p, port, up, down, cut); r.PortMap != nil && r.PortMap.Lifetime < 0 {
			t.Errorf("a port for %v", r.PortMap.Lifetime)
		}
	})
}

// FuzzDTLS: handshakes and what follows, both ways.
func FuzzDTLS(f *testing.F) {
	hello := dtlsMessage(f)
	f.Add([]byte(dtlsPiece(hello, 0, 1000)), []byte(dtlsPiece(hello, 1000, 2000)), []byte(dtlsOf(2, 1, serverHello(0xfefd, 0xfefc, 0x1301))))
	f.Add([]byte(dtlsOf(3, 0, []byte{0xfe, 0xff, 2, 1, 2})), []byte(dtlsPiece(hello, 0, len(hello))), []byte("\x17\xfe\xfd\x00\x01\x00\x00\x00\x00\x00\x01\x00\x04abcd"))
	f.Fuzz(func(t *testing.T, one, two, answer []byte) {
		c := New(flow.UDP, 4433)
		for _, d := range []struct {
			dir flow.Dir
			b   []byte
		}{{flow.Orig, one}, {flow.Orig, two}, {flow.Reply, answer}, {flow.Reply, one}, {flow.Orig, answer}} {
			c.Feed(d.dir, packet(flow.UDP, d.dir, 4433, 0, bytes.Clone(d.b)))
		}
		if held := c.Held(); held > 6*maxStream {
			t.Errorf("holds %d octets", held)
		}
		if r := c.Result(); r.App == "" || r.Reason == "" || (r.ServerName == "") != (r.NameFrom == "") {
			t.Errorf("%+v", r)
		}
	})
}
