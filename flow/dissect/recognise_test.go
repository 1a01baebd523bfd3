package dissect

import (
	"crypto/tls"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/netcurtain/netcurtain/flow"
)

// noise is n random bytes, the same in each run.
func noise(n int) string {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return string(b)
}

// rtp is a packet of one source: version 2, a payload type, a number, a time.
func rtp(kind byte, seq uint16, payload string) string {
	b := binary.BigEndian.AppendUint16([]byte{0x80, kind}, seq)
	return string(append(b, "\x00\x00\x10\x00SSRC"...)) + payload
}

// dtlsPiece is a handshake record with n bytes of a message from off on.
func dtlsPiece(msg []byte, off, n int) string {
	piece := msg[off:min(off+n, len(msg))]
	size := func(n int) []byte { return []byte{byte(n >> 16), byte(n >> 8), byte(n)} }
	body := append([]byte{hsClientHello}, size(len(msg))...)
	body = append(append(append(body, 0, 0), size(off)...), size(len(piece))...)
	body = append(body, piece...)
	return "\x16\xfe\xfd" + strings.Repeat("\x00", 8) + prefixed(string(body))
}

// dtlsMessage is a TLS hello as DTLS writes it: with an empty cookie, and versions
// that count downwards.
func dtlsMessage(t testing.TB) []byte {
	msg := goHello(t, &tls.Config{ServerName: site, InsecureSkipVerify: true})[9:]
	cookie := 2 + 32 + 1 + int(msg[34])
	msg = slices.Insert(slices.Clone(msg), cookie, 0)
	msg[0], msg[1] = 0xfe, 0xfd
	i := strings.Index(string(msg), "\x00\x2b\x00\x05\x04\x03\x04\x03\x03")
	if i < 0 {
		t.Fatal("no supported versions")
	}
	copy(msg[i+5:], "\xfe\xfc\xfe\xfd")
	return msg
}

func TestMoreProtocols(t *testing.T) {
	hello := string(goHello(t, clientConfig()))
	msg := dtlsMessage(t)
	warp := func(kind byte, n int) string {
		return string([]byte{kind, 0x11, 0x22, 0x33}) + noise(n - 20)[:n-20] + strings.Repeat("\x00", 16)
	}
	stun := "\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl"
	verify := "> POST /pair-verify HTTP/1.1\r\nHost: lamp._hap._tcp.local\r\nContent-Type: application/pairing+tlv8\r\nContent-Length: 3\r\n\r\n\x06\x01\x01"
	tds := func(kind, encryption byte) string {
		return string([]byte{kind, 1, 0, 26, 0, 0, 0, 0}) + "\x00\x00\x0b\x00\x06\x01\x00\x11\x00\x01\xff" + "\x10\x00\x00\x00\x00\x00" + string([]byte{encryption})
	}
	for _, tc := range []struct {
		name  string
		proto flow.Proto
		port  uint16
		lines []string
		want  Result
	}{
		{"rtp, two packets", flow.UDP, 30000, []string{"> " + rtp(96, 7, noise(160)), "> " + rtp(96, 8, noise(160))}, Result{App: "rtp"}},
		{"rtp, sound without SRTP", flow.UDP, 30000, []string{"> " + rtp(0, 7, strings.Repeat("\xff\xfe\x7e\x7f", 40)), "> " + rtp(0, 8, strings.Repeat("\xff\xfe\x7e\x7f", 40))},
			Result{App: "rtp", Protection: flow.Readable}},
		{"rtp after stun", flow.UDP, 30000, []string{"> " + stun, "< " + stun, "< " + rtp(111, 7, noise(90)), "< " + rtp(111, 8, noise(90))}, Result{App: "rtp"}},
		{"one packet is any bytes", flow.UDP, 30000, []string{"> " + rtp(96, 7, noise(160))}, Result{App: "unknown"}},
		{"two sources are any bytes", flow.UDP, 30000, []string{"> " + rtp(96, 7, noise(160)), "> " + rtp(96, 8000, noise(160))}, Result{App: "unknown"}},
		{"rtcp", flow.UDP, 30001, []string{"> \x80\xc9\x00\x01SSRC\x81\xca\x00\x02SSRC\x01\x02me"}, Result{App: "rtcp", Protection: flow.Readable}},

		{"dtls 1.3 hello in one", flow.UDP, 4433, []string{"> " + dtlsPiece(msg, 0, len(msg))}, Result{App: "dtls", ServerName: site, NameFrom: "sni", Protection: flow.Encrypted}},
		{"dtls hello in two datagrams", flow.UDP, 4433, []string{"> " + dtlsPiece(msg, 0, 1000), "> " + dtlsPiece(msg, 1000, 1000)}, Result{App: "dtls", ServerName: site, NameFrom: "sni", Protection: flow.Encrypted}},
		{"dtls hello, the second piece first", flow.UDP, 4433, []string{"> " + dtlsPiece(msg, 900, 1000), "> " + dtlsPiece(msg, 0, 900)}, Result{App: "dtls", ServerName: site, NameFrom: "sni", Protection: flow.Encrypted}},
		{"dtls hello in records of one datagram", flow.UDP, 4433, []string{"> " + dtlsPiece(msg, 0, 500) + dtlsPiece(msg, 500, 500) + dtlsPiece(msg, 1000, 1000)},
			Result{App: "dtls", ServerName: site, NameFrom: "sni", Protection: flow.Encrypted}},
		{"dtls hello, a piece is missing", flow.UDP, 4433, []string{"> " + dtlsPiece(msg, 0, 500), "> " + dtlsPiece(msg, 600, 1000)}, Result{App: "dtls", Protection: flow.Encrypted}},

		{"homekit pairs", flow.TCP, 51826, []string{verify}, Result{App: "homekit", ServerName: "lamp._hap._tcp.local", NameFrom: "host", Protection: flow.Readable, Path: "POST /pair-verify", Harmless: true}},
		{"homekit, paired", flow.TCP, 51826, []string{verify, "< HTTP/1.1 200 OK\r\n\r\n", verify, "< HTTP/1.1 200 OK\r\n\r\n", "> \xf0\x00" + noise(0xf0+16)},
			Result{App: "homekit", ServerName: "lamp._hap._tcp.local", NameFrom: "host", Protection: flow.Encrypted, Path: "POST /pair-verify"}},
		{"homekit, clear words follow", flow.TCP, 51826, []string{verify, "> \xf0\x00" + strings.Repeat("lamp=on ", 40)},
			Result{App: "homekit", ServerName: "lamp._hap._tcp.local", NameFrom: "host", Protection: flow.Readable, Path: "POST /pair-verify", Harmless: true}},
		{"the path alone is not homekit", flow.TCP, 80, []string{"> GET /pair-verify HTTP/1.1\r\n\r\n"}, Result{App: "http", Protection: flow.Readable, Path: "GET /pair-verify"}},

		{"mqtt-sn", flow.UDP, 4000, []string{"> \x0b\x04\x04\x01\x00\x3csens1"}, Result{App: "mqtt-sn", Protection: flow.Readable}},
		{"mqtt-sn publish on its port", flow.UDP, 1883, []string{"> \x09\x0c\x00\x00\x01\x00\x0021"}, Result{App: "mqtt-sn", Protection: flow.Readable}},
		{"tds without tls", flow.TCP, 1433, []string{"> " + tds(0x12, 0), "< " + tds(0x04, 2)}, Result{App: "tds", Protection: flow.Readable}},
		{"tds, tls for the sign-in only", flow.TCP, 1433, []string{"> " + tds(0x12, 0), "< " + tds(0x04, 0), "> \x12\x01\x06\x00\x00\x00\x00\x00" + hello}, Result{App: "tds", Protection: flow.Readable}},
		{"tds with tls", flow.TCP, 1433, []string{"> " + tds(0x12, 1), "< " + tds(0x04, 1), "> \x12\x01\x06\x00\x00\x00\x00\x00" + hello}, Result{App: "tds", ServerName: site, NameFrom: "sni", Protection: flow.Encrypted}},
		{"warp", flow.UDP, 2408, []string{"> " + warp(1, 148)}, Result{App: "wireguard", Protection: flow.Encrypted}},
		{"warp's answer", flow.UDP, 2408, []string{"< " + warp(2, 92)}, Result{App: "wireguard", Protection: flow.Encrypted}},
		{"words of warp's length", flow.UDP, 2408, []string{"> \x01abc" + strings.Repeat("word", 32) + strings.Repeat("\x00", 16)}, Result{App: "unknown"}},

		{"ntp elsewhere", flow.UDP, 8123, []string{"> \x23" + strings.Repeat("\x00", 39) + "\xe9\x11\x22\x33\x44\x55\x66\x77"}, Result{App: "ntp", Protection: flow.Readable, Harmless: true}},
		{"zeros are not ntp", flow.UDP, 8123, []string{"> \x23" + strings.Repeat("\x00", 47)}, Result{App: "unknown"}},
		{"dhcpv6 elsewhere", flow.UDP, 5470, []string{"> \x01\x10\x20\x30\x00\x01\x00\x0a\x00\x03\x00\x01\x02\x00\x00\x00\x00\x01\x00\x08\x00\x02\x00\x00"}, Result{App: "dhcpv6", Protection: flow.Readable, Harmless: true}},
		{"coap elsewhere", flow.UDP, 49152, []string{"> \x42\x01\x00\x07to\xb4temp\x01c"}, Result{App: "coap", Protection: flow.Readable}},
		{"coap, an option runs over", flow.UDP, 49152, []string{"> \x42\x01\x00\x07to\xb9temp"}, Result{App: "unknown"}},
		{"knx over tcp", flow.TCP, 3671, []string{"> \x06\x10\x02\x05\x00\x08\x01\x02\x06\x10\x02\x07\x00\x06"}, Result{App: "knx", Protection: flow.Readable}},
		{"dnp3 elsewhere, by its checksum", flow.TCP, 20001, []string{"> \x05\x64\x05\xc0\x01\x00\x00\x04\xe9\x21"}, Result{App: "dnp3", Protection: flow.Readable}},
		{"matter opens elsewhere", flow.UDP, 49153, []string{"> \x04\x00\x00\x00\x01\x02\x03\x04nodenode\x05\x30\x11\x22\x00\x00\x15\x30\x01"}, Result{App: "matter"}},

		{"tls in http connect", flow.TCP, 8080, []string{"> CONNECT 192.0.2.1:443 HTTP/1.1\r\n\r\n", "< HTTP/1.1 200 OK\r\n\r\n", "> " + hello}, Result{App: "http", Protection: flow.Readable, Path: "CONNECT *"}},
		{"tls in socks", flow.TCP, 1080, []string{"> \x05\x01\x00", "< \x05\x00", "> \x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb", "< \x05\x00\x00\x01\x00\x00\x00\x00\x00\x00", "> " + hello}, Result{App: "socks", Protection: flow.Readable}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := talk(tc.proto, tc.port, tc.lines...)
			if d := cmp.Diff(tc.want, got, cmpopts.IgnoreFields(Result{}, "Reason", "Guessed", "TLS", "Exposure")); d != "" {
				t.Errorf("-want +got\n%s%s", d, got.Reason)
			}
			if strings.Contains(tc.name, "dtls hello in") && got.TLS.Version != "1.3" {
				t.Errorf("version %q", got.TLS.Version)
			}
			if through := strings.HasPrefix(tc.name, "tls in"); through && (got.TLS == nil || !strings.Contains(got.Reason, "what it carries is TLS")) {
				t.Errorf("%+v", got)
			}
		})
	}
}
