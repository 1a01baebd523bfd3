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
	if r.App == "" || r.Reason == "" {
		t.Errorf("a result without words: %+v", r)
	}
	if (r.ServerName == "") != (r.NameFrom == "") {
		t.Errorf("name %q from %q", r.ServerName, r.NameFrom)
	}
	if strings.ContainsAny(r.ServerName, "\x00\r\n <>\"") || len(r.ServerName) > 255 {
		t.Errorf("name %q", r.ServerName)
	}
	return r
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
