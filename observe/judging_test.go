package observe

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/journal"
)

// How unknown bytes look is believed of the third flow of a device to a
// destination, not of the first, and not where others look otherwise.
func TestUnknownBytesOverSeveralFlows(t *testing.T) {
	text := []byte(strings.Repeat("temperature 21.5 humidity 40 ", 8))
	random := []byte("\x00\x9f\xd5\xf8\x75\xda\x0b\x0d\x88\xfd\x7e\x94\xc6\x44\x13\x5f\xc2\x9b\xe5\x2b\x9c\x12\xf1\x63\xa3\x1d\x27\x6f\x6a\xd8\x50\x34" +
		"\xea\x5b\xbb\x2c\x80\x02\x77\xae\x31\xca\x4a\x7c\xb9\xdf\x61\xfe\x47\x90\x05\x3e\xcd\x86\x55\xb4\x21\x99\x6d\xf3\x1e\x38\xec\x59\xc0\xaa")
	for name, tc := range map[string]struct {
		said [][]byte
		to   []string // where it differs from one flow to the next
		want string
	}{
		"alike":              {[][]byte{text, text, text, text}, nil, "cannot-tell cannot-tell readable readable"},
		"not alike":          {[][]byte{text, random, text, random, text}, nil, "cannot-tell cannot-tell cannot-tell cannot-tell cannot-tell"},
		"other destinations": {[][]byte{text, text, text}, []string{"203.0.113.1", "203.0.113.2", "203.0.113.3"}, "cannot-tell cannot-tell cannot-tell"},
	} {
		t.Run(name, func(t *testing.T) {
			b := live(t, nil, func(o *Observer) {
				for i, said := range tc.said {
					to := "203.0.113.1"
					if tc.to != nil {
						to = tc.to[i]
					}
					tuple := ends(fmt.Sprintf("192.168.1.10:%d", 4000+i), to+":7777", flow.TCP)
					o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: uint32(i + 1), Tuple: tuple, At: time.Now()})
					o.Packet(flow.Packet{At: time.Now(), MAC: macTV, Tuple: tuple, Seq: 1, Flags: flow.ACK, Length: 300, Payload: said})
					time.Sleep(time.Second)
					o.Tracked(t.Context(), flow.Event{Kind: flow.Destroy, ID: uint32(i + 1), Tuple: tuple, Counters: count(1), At: time.Now()})
					time.Sleep(time.Second)
				}
			})
			var got []string
			for _, e := range b.flows() {
				got = append(got, e.Flow.Seen.Protection.String())
			}
			if diff := cmp.Diff(tc.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Sound that SIP announced is judged as announced, though its own packets do not say.
func TestAnnouncedSound(t *testing.T) {
	for name, tc := range map[string]struct{ from, profile, want string }{
		"in clear":   {"192.168.1.10:5060", "RTP/AVP", "rtp readable: sound or picture in clear, as sip announced it"},
		"encrypted":  {"192.168.1.10:5060", "UDP/TLS/RTP/SAVPF", "rtp encrypted: sound or picture over SRTP, as sip announced it"},
		"by another": {"192.168.1.20:5060", "RTP/SAVP", "rtp readable: RTP: sound or picture in clear"},
	} {
		t.Run(name, func(t *testing.T) {
			talk := ends(tc.from, "203.0.113.1:5060", flow.UDP)
			sound := ends("203.0.113.9:30000", "192.168.1.10:40000", flow.UDP).Reverse()
			b := live(t, nil, func(o *Observer) {
				o.Packet(flow.Packet{At: time.Now(), Tuple: talk, Length: 300,
					Payload: []byte("INVITE sip:bob@pbx.example SIP/2.0\r\nContent-Type: application/sdp\r\n\r\nv=0\r\nc=IN IP4 192.168.1.10\r\nm=audio 40000 " + tc.profile + " 0\r\n")})
				time.Sleep(time.Second)
				for seq := range byte(3) {
					o.Packet(flow.Packet{At: time.Now(), MAC: macTV, Tuple: sound, Length: 200, Payload: append([]byte{0x80, 96, 0, seq, 0, 0, 0, 1, 'S', 'S', 'R', 'C'}, make([]byte, 160)...)})
				}
				time.Sleep(time.Second)
			})
			var got []string
			for _, e := range b.flows() {
				if s := e.Flow.Seen; e.Flow.Tuple == sound {
					got = append(got, s.App+" "+s.Protection.String()+": "+s.Reason)
				}
			}
			if diff := cmp.Diff([]string{tc.want}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A file that FTP announced is readable, whatever its bytes look like; another
// connection to the same server is not.
func TestAnnouncedFile(t *testing.T) {
	talk, file, other := ends("192.168.1.10:4000", "203.0.113.1:21", flow.TCP), ends("192.168.1.10:4001", "203.0.113.1:50000", flow.TCP), ends("192.168.1.10:4002", "203.0.113.1:50001", flow.TCP)
	b := live(t, nil, func(o *Observer) {
		say := func(t flow.Tuple, seq uint32, text string) {
			o.Packet(flow.Packet{At: time.Now(), MAC: macTV, Tuple: t, Seq: seq, Flags: flow.ACK, Length: 100, Payload: []byte(text)})
			time.Sleep(time.Second)
		}
		for i, tuple := range []flow.Tuple{talk, file, other} {
			o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: uint32(i + 1), Tuple: tuple, At: time.Now()})
		}
		say(talk.Reverse(), 1, "220 FTP\r\n")
		say(talk, 1, "PASV\r\n")
		say(talk.Reverse(), 10, "227 Entering Passive Mode (203,0,113,1,195,80).\r\n")
		say(file.Reverse(), 1, "\x00\x01\x02\x03")
		say(other.Reverse(), 1, "\x00\x01\x02\x03")
		for i, tuple := range []flow.Tuple{talk, file, other} {
			o.Tracked(t.Context(), flow.Event{Kind: flow.Destroy, ID: uint32(i + 1), Tuple: tuple, Counters: count(1), At: time.Now()})
		}
		time.Sleep(time.Second)
	})
	got := map[flow.Tuple]string{}
	for _, e := range b.flows() {
		got[e.Flow.Tuple] = e.Flow.Seen.App + " " + e.Flow.Seen.Protection.String()
	}
	if diff := cmp.Diff(map[flow.Tuple]string{talk: "ftp readable", file: "ftp readable", other: "unknown cannot-tell"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A port that a device had the router open is told, the talk with the router is no
// flow, and what comes in through the port is marked until its time is over.
func TestPortMaps(t *testing.T) {
	ask := ends("192.168.1.10:50000", "192.168.1.1:5351", flow.UDP)
	const open = "\x00\x02\x00\x00\x01\xbb\x20\xfb\x00\x00\x1c\x20"  // TCP 443, as 8443, for two hours
	const close = "\x00\x02\x00\x00\x01\xbb\x00\x00\x00\x00\x00\x00" // and not any more
	said := func(o *Observer, b string) {
		o.Packet(flow.Packet{At: time.Now(), MAC: macTV, Tuple: ask, Length: 40, Payload: []byte(b)})
		time.Sleep(10 * time.Second) // the router does not answer where we see it
	}
	come := func(o *Observer, id uint32, port string) {
		in := ends(fmt.Sprintf("203.0.113.7:%d", 1000+id), wan.String()+":"+port, flow.TCP)
		reply := ends("192.168.1.10:443", fmt.Sprintf("203.0.113.7:%d", 1000+id), flow.TCP)
		o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: id, Tuple: in, Reply: reply, At: time.Now()})
		time.Sleep(time.Second)
		o.Tracked(t.Context(), flow.Event{Kind: flow.Destroy, ID: id, Tuple: in, Reply: reply, Counters: count(1), At: time.Now()})
		time.Sleep(time.Second)
	}
	b := live(t, nil, func(o *Observer) {
		come(o, 1, "8443")
		said(o, open)
		come(o, 2, "8443")
		time.Sleep(3 * time.Hour)
		come(o, 3, "8443")
		said(o, open)
		said(o, close)
		come(o, 4, "8443")
	})
	var got []string
	for _, e := range b.flows() {
		got = append(got, fmt.Sprintf("%v to %v, inbound %v, mapped %v", e.Flow.Tuple.SrcAddrPort(), e.Flow.Tuple.DstAddrPort(), e.Flow.Inbound, e.Flow.PortMapped))
	}
	want := []string{
		"203.0.113.7:1001 to 192.168.1.10:443, inbound true, mapped false",
		"203.0.113.7:1002 to 192.168.1.10:443, inbound true, mapped true",
		"203.0.113.7:1003 to 192.168.1.10:443, inbound true, mapped false",
		"203.0.113.7:1004 to 192.168.1.10:443, inbound true, mapped false",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("flows (-want +got):\n%s", diff)
	}
	events := b.events()
	if len(events) == 0 || !strings.HasPrefix(events[0], "tv asked the router to open TCP port 443 to anybody outside, as port 8443, for 2 hours") {
		t.Errorf("events: %q", events)
	}
}

// UPnP names the device for which it asks, which may be another.
func TestPortMapOfAnother(t *testing.T) {
	const body = `<NewExternalPort>2222</NewExternalPort><NewProtocol>TCP</NewProtocol><NewInternalPort>22</NewInternalPort><NewInternalClient>192.168.1.30</NewInternalClient>`
	ask := ends("192.168.1.10:50000", "192.168.1.1:5000", flow.TCP)
	b := live(t, nil, func(o *Observer) {
		o.Packet(flow.Packet{At: time.Now(), MAC: macTV, Tuple: ask, Seq: 1, Flags: flow.ACK, Length: 400,
			Payload: fmt.Appendf(nil, "POST /c HTTP/1.1\r\nHost: 192.168.1.1\r\nSOAPAction: \"urn:x#AddPortMapping\"\r\nContent-Length: %d\r\n\r\n%s", len(body), body)})
		time.Sleep(time.Second)
	})
	if n := len(b.flows()); n != 0 {
		t.Errorf("%d flows to the router itself were recorded", n)
	}
	var kinds []journal.EventKind
	for _, e := range b.all {
		if e.Event != nil {
			kinds = append(kinds, e.Event.Kind)
		}
	}
	if diff := cmp.Diff([]journal.EventKind{journal.EventPortMap}, kinds); diff != "" {
		t.Errorf("events (-want +got):\n%s\n%q", diff, b.events())
	}
	if events := b.events(); len(events) == 1 && !strings.Contains(events[0], "open TCP port 22 of 192.168.1.30 to anybody outside, as port 2222") {
		t.Errorf("event %q", events)
	}
}
