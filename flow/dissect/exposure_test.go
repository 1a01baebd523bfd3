package dissect

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcurtain/netcurtain/flow"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func httpGet(target string, fields ...string) string {
	return "> GET " + target + " HTTP/1.1\r\nHost: a.example\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n"
}

func httpPost(kind, body string) string {
	return fmt.Sprintf("> POST /p HTTP/1.1\r\nHost: a.example\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", kind, len(body), body)
}

// mqttConnectOf is a CONNECT with everything in it: a will, a user, a password.
func mqttConnectOf(level byte, client, user, password string) string {
	properties := ""
	if level == 5 {
		properties = "\x00"
	}
	body := prefixed("MQTT") + string([]byte{level, 0xc6, 0, 60}) + properties + prefixed(client) + properties + prefixed("home/bye") + prefixed("gone") + prefixed(user) + prefixed(password)
	return "> \x10" + string([]byte{byte(len(body))}) + body
}

// Whose credential it was and whether everybody knows it, in every protocol.
func TestExposedCredentials(t *testing.T) {
	const theirs = "wilhelmina" // the planted user and password: no part of either may be in a Result
	const secret = "Zaphod-42-hush"
	// RFC 7616 §3.9.1's way of answering, for admin and 12345.
	digestOf := func(user, password, method string) string {
		secret := hashed([]byte(user), []byte("cam"), []byte(password))
		return fmt.Sprintf(`Digest username="%s", realm="cam", nonce="n0", uri="/x", qop=auth, nc=00000001, cnonce="c", response="%s"`,
			user, hashed(secret, []byte("n0"), []byte("00000001"), []byte("c"), []byte("auth"), hashed([]byte(method), []byte("/x"))))
	}
	snmp := func(community string) string {
		return "> \x30\x1d\x02\x01\x01\x04" + string([]byte{byte(len(community))}) + community + "\xa0\x10\x02\x01\x01\x02\x01\x00\x02\x01\x00\x30\x05\x30\x03\x06\x01\x2b"
	}
	ldap := func(user, password string) string {
		name := "cn=" + user + ",dc=x"
		bind := "\x02\x01\x03\x04" + string([]byte{byte(len(name))}) + name + "\x80" + string([]byte{byte(len(password))}) + password
		return "> \x30" + string([]byte{byte(len(bind) + 5)}) + "\x02\x01\x01\x60" + string([]byte{byte(len(bind))}) + bind
	}
	redis := func(words ...string) string {
		s := fmt.Sprintf("> *%d\r\n", len(words))
		for _, w := range words {
			s += fmt.Sprintf("$%d\r\n%s\r\n", len(w), w)
		}
		return s
	}
	amqp := func(user, password string) string {
		answer := "\x00" + user + "\x00" + password
		return "> AMQP\x00\x00\x09\x01" + strings.Repeat("\x00", 60) + "\x05PLAIN\x00\x00\x00" + string([]byte{byte(len(answer))}) + answer
	}

	for _, tc := range []struct {
		name  string
		proto flow.Proto
		port  uint16
		talk  func(user, password string) []string
		kind  string
		user  string // who signs in with a default password
		pass  string
		blind bool // the user stands nowhere
	}{
		{"http basic", flow.TCP, 80, func(u, p string) []string { return []string{httpGet("/", "Authorization: Basic "+b64(u+":"+p))} }, "http-basic", "admin", "admin", false},
		{"http basic, empty password", flow.TCP, 80, func(u, p string) []string { return []string{httpGet("/", "Authorization: Basic "+b64(u+":"+p))} }, "http-basic", "admin", "", false},
		{"http digest", flow.TCP, 80, func(u, p string) []string { return []string{httpGet("/x", "Authorization: "+digestOf(u, p, "GET"))} }, "http-digest", "admin", "12345", false},
		{"http form", flow.TCP, 80, func(u, p string) []string {
			return []string{httpPost("application/x-www-form-urlencoded", "user_name="+u+"&password="+p)}
		}, "http-form", "root", "vizxv", false},
		{"http query", flow.TCP, 80, func(u, p string) []string {
			return []string{httpGet("/cgi-bin/snap.cgi?loginuse=" + u + "&loginpas=" + p)}
		}, "http-query", "admin", "888888", false},
		{"rtsp basic, once asked for", flow.TCP, 554, func(u, p string) []string {
			return []string{"> OPTIONS rtsp://cam.example/1 RTSP/1.0\r\nCSeq: 1\r\n\r\n", "< RTSP/1.0 200 OK\r\n\r\n",
				"> DESCRIBE rtsp://cam.example/1 RTSP/1.0\r\nCSeq: 2\r\nAuthorization: Basic " + b64(u+":"+p) + "\r\n\r\n"}
		}, "rtsp-basic", "admin", "12345", false},
		{"rtsp digest", flow.TCP, 554, func(u, p string) []string {
			return []string{"> DESCRIBE rtsp://cam.example/x RTSP/1.0\r\nAuthorization: " + digestOf(u, p, "DESCRIBE") + "\r\n\r\n"}
		}, "rtsp-digest", "admin", "123456", false},
		{"rtsp url", flow.TCP, 554, func(u, p string) []string {
			return []string{"> OPTIONS rtsp://" + u + ":" + p + "@cam.example/1 RTSP/1.0\r\n\r\n"}
		}, "rtsp-url", "admin", "4321", false},
		{"ftp", flow.TCP, 21, func(u, p string) []string {
			return []string{"< 220 box\r\n", "> USER " + u + "\r\n", "< 331 ?\r\n", "> PASS " + p + "\r\n"}
		}, "ftp-password", "root", "root", false},
		{"pop3", flow.TCP, 110, func(u, p string) []string {
			return []string{"< +OK ready\r\n", "> USER " + u + "\r\n", "< +OK\r\n", "> PASS " + p + "\r\n"}
		}, "pop3-password", "test", "test", false},
		{"imap", flow.TCP, 143, func(u, p string) []string {
			return []string{"< * OK ready\r\n", `> a1 LOGIN "` + u + `" "` + p + "\"\r\n"}
		}, "imap-password", "guest", "guest", false},
		{"imap plain", flow.TCP, 143, func(u, p string) []string {
			return []string{"< * OK ready\r\n", "> a1 AUTHENTICATE PLAIN\r\n", "< +\r\n", "> " + b64("\x00"+u+"\x00"+p) + "\r\n"}
		}, "imap-password", "guest", "guest", false},
		{"smtp plain", flow.TCP, 25, func(u, p string) []string {
			return []string{"< 220 mx ESMTP\r\n", "> EHLO cam\r\n", "< 250 mx\r\n", "> AUTH PLAIN " + b64("\x00"+u+"\x00"+p) + "\r\n"}
		}, "smtp-password", "user", "user", false},
		{"smtp login", flow.TCP, 25, func(u, p string) []string {
			return []string{"< 220 mx ESMTP\r\n", "> EHLO cam\r\n", "< 250 mx\r\n", "> AUTH LOGIN\r\n", "< 334 VXNlcm5hbWU6\r\n", "> " + b64(u) + "\r\n", "< 334 UGFzc3dvcmQ6\r\n", "> " + b64(p) + "\r\n"}
		}, "smtp-password", "user", "user", false},
		{"mqtt", flow.TCP, 1883, func(u, p string) []string { return []string{mqttConnectOf(4, "toy", u, p)} }, "mqtt-password", "admin", "public", false},
		{"mqtt 5", flow.TCP, 1883, func(u, p string) []string { return []string{mqttConnectOf(5, "toy", u, p)} }, "mqtt-password", "guest", "guest", false},
		{"snmp", flow.UDP, 161, func(_, p string) []string { return []string{snmp(p)} }, "snmp-community", "", "public", true},
		{"ldap", flow.TCP, 389, func(u, p string) []string { return []string{ldap(u, p)} }, "ldap-password", "admin", "admin", false},
		{"redis", flow.TCP, 6379, func(_, p string) []string { return []string{redis("AUTH", p)} }, "redis-password", "", "foobared", true},
		{"redis with user", flow.TCP, 6379, func(u, p string) []string { return []string{redis("auth", u, p)} }, "redis-password", "default", "default", false},
		{"amqp", flow.TCP, 5672, func(u, p string) []string { return []string{amqp(u, p)} }, "amqp-password", "guest", "guest", false},
		{"telnet", flow.TCP, 23, func(u, p string) []string {
			return []string{"< \xff\xfd\x18box login: ", "> \xff\xfc\x18" + u + "\r\x00", "< Password: ", "> " + p + "\r\x00"}
		}, "telnet-password", "root", "xc3511", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := &Exposure{User: "w…(9+)"}
			if tc.blind {
				want = nil
			}
			r := talk(tc.proto, tc.port, tc.talk(theirs, secret)...)
			if r.Credentials != tc.kind || r.Protection != flow.Readable {
				t.Errorf("%+v", r)
			}
			if d := cmp.Diff(want, r.Exposure); d != "" {
				t.Error(d)
			}
			keepsNothing(t, r, theirs, secret, b64(secret))

			r = talk(tc.proto, tc.port, tc.talk(tc.user, tc.pass)...)
			if d := cmp.Diff(&Exposure{User: mask([]byte(tc.user)), Default: true}, r.Exposure); d != "" || r.Credentials != tc.kind {
				t.Errorf("a default: %s%s", r.Credentials, d)
			}
		})
	}
}

// keepsNothing greps everything that a Result holds, in whatever way it is printed.
func keepsNothing(t *testing.T, r Result, values ...string) {
	t.Helper()
	deep, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.ToLower(fmt.Sprintf("%+v %#v %+v %+v %s", r, r, r.Exposure, r.TLS, deep))
	for _, v := range values {
		for n := 4; n <= len(v); n++ { // nor any beginning of it
			if strings.Contains(all, strings.ToLower(v[:n])) {
				t.Errorf("%q is kept in %s", v[:n], all)
			}
		}
	}
}

func TestMask(t *testing.T) {
	for user, want := range map[string]string{"": "", "a": "…(1)", "ab": "…(2)", "admin": "a…(5)", "9to5": "9…(4)", "<b>": "…(3)", "wilhelmina": "w…(9+)"} {
		if got := mask([]byte(user)); got != want {
			t.Errorf("%q: %q, want %q", user, got, want)
		}
	}
}

// Who signs in as nobody tells no secret.
func TestAnonymousFTP(t *testing.T) {
	if r := talk(flow.TCP, 21, "< 220 box\r\n", "> USER anonymous\r\n", "< 331 ?\r\n", "> PASS me@\r\n"); r.Credentials != "" || r.Exposure != nil {
		t.Errorf("%+v", r)
	}
}

func TestIdentifiers(t *testing.T) {
	const (
		mac  = "a4:cf:12:9b:77:e1"
		bare = "A4CF129B77E1"
		imei = "490154203237518" // the example of 3GPP's rule
		uuid = "38400000-8cf0-11bd-b23e-10b96e40000d"
	)
	for _, tc := range []struct {
		name string
		sent string
		want map[string]int
	}{
		{"query", httpGet("/v1/ping?mac=a4%3Acf%3A12%3A9b%3A77%3Ae1&imei=" + imei + "&idfa=" + uuid), map[string]int{"mac": 1, "imei": 1, "advertising-id": 1}},
		{"bare, by its name", httpGet("/?device_mac=" + bare + "&sn=QX-77120"), map[string]int{"mac": 1, "serial": 1}},
		{"fields", httpGet("/", "X-Device-ID: "+uuid, "Cookie: e=bob@mail.example; lat=52.5163; lon=13.3777"), map[string]int{"device-id": 1, "e-mail": 1, "location": 1}},
		{"json", httpPost("application/json", `{"deviceId": "`+uuid+`", "wifi":{"bssid":"`+mac+`"},"mail":"bob@mail.example","lat":52.5163,"lng":-13.37}`), map[string]int{"device-id": 1, "mac": 1, "e-mail": 1, "location": 1}},
		{"in the path", httpGet("/users/bob@mail.example"), map[string]int{"e-mail": 1}},
		{"location in one", httpGet("/?ll=52.5163,13.3777"), map[string]int{"location": 1}},
		{"two of one kind", httpGet("/?a=" + mac + "&b=a4-cf-12-9b-77-e2"), map[string]int{"mac": 2}},
		{"zeros and refusals", httpGet("/?mac=00:00:00:00:00:00&idfa=00000000-0000-0000-0000-000000000000&b=ff:ff:ff:ff:ff:ff"), nil},
		{"numbers that are none", httpGet("/?imei=490154203237519&lat=5&lon=7&t=1700000000000&v=1.2.3.4&u=http://u:p@host.example"), nil},
		{"an ordinary request", httpGet("/index.html", "User-Agent: Mozilla/5.0 (X11; Linux x86_64)", "Accept: */*"), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := talk(flow.TCP, 80, tc.sent)
			got := map[string]int(nil)
			if r.Exposure != nil {
				got = map[string]int{}
				for _, i := range r.Exposure.Identifiers {
					got[i.Kind] = i.Count
				}
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
			keepsNothing(t, r, mac, bare, imei, uuid, "bob@mail", "QX-77120", "52.51", "13.37", "a4%3A")
		})
	}

	r := talk(flow.TCP, 1883, mqttConnectOf(4, "cam-"+mac, "bob@mail.example", "hush"))
	if want := []Identifier{{"mac", 1}, {"e-mail", 1}}; r.Exposure == nil || !slices.Equal(r.Exposure.Identifiers, want) {
		t.Errorf("mqtt: %+v", r.Exposure)
	}
	keepsNothing(t, r, mac, "bob@mail", "hush")
	r = talk(flow.UDP, 5683, "> \x41\x02\x00\x01t\xffmac="+mac)
	if want := []Identifier{{"mac", 1}}; r.Exposure == nil || !slices.Equal(r.Exposure.Identifiers, want) {
		t.Errorf("coap: %+v", r.Exposure)
	}
}

// FuzzExposure feeds text that may hold anything: what comes out is kinds, counts
// and a mask, and no panic.
func FuzzExposure(f *testing.F) {
	f.Add([]byte("GET /?mac=a4%3Acf%3A12%3A9b%3A77%3Ae1&ll=52.51,13.37 HTTP/1.1\r\nAuthorization: Digest username=\"admin\", response=\"00112233445566778899aabbccddeeff\"\r\n\r\n"), uint16(80))
	f.Add([]byte("*3\r\n$4\r\nAUTH\r\n$5\r\nadmin\r\n$5\r\nadmin\r\n"), uint16(6379))
	f.Add([]byte("AUTH LOGIN\r\nYWRtaW4=\r\nYWRtaW4=\r\n"), uint16(25))
	f.Add([]byte(mqttConnectOf(5, "toy", "admin", "public")[2:]), uint16(1883))
	f.Fuzz(func(t *testing.T, b []byte, port uint16) {
		r := talk(flow.TCP, port, "< Password: ", "> "+string(b))
		if x := r.Exposure; x != nil {
			if len(x.User) > len("w…(9+)") || len(x.Identifiers) > idKinds {
				t.Errorf("%+v", x)
			}
			for _, i := range x.Identifiers {
				if i.Count < 1 || i.Count > 255 || !slices.Contains(idNames[:], i.Kind) {
					t.Errorf("%+v", i)
				}
			}
		}
	})
}
