//go:build linux

package enforce

import (
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/netlink"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/netlab"
)

// logged counts what the kernel copies to us, by prefix and payload text.
type logged struct {
	mu   sync.Mutex
	seen []string // "U" or "D", a blank, the packet's bytes
}

func (g *logged) with(prefix, text string) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.seen {
		if strings.HasPrefix(s, prefix) && strings.Contains(s, text) {
			n++
		}
	}
	return n
}

// listenLog reads the group in the router until the test ends.
func (l *lab) listenLog(group uint16) *logged {
	l.Helper()
	g := &logged{}
	var conn *netlink.Conn
	l.in(func() (err error) {
		if conn, err = netlink.Dial(syscall.NETLINK_NETFILTER, nil); err != nil {
			return err
		}
		_ = conn.SetOption(netlink.NoENOBUFS, true)
		// NFULA_CFG_CMD: bind; NFULA_CFG_MODE: copy the packet.
		for _, attr := range []string{"\x05\x00\x01\x00\x01\x00\x00\x00", "\x0a\x00\x02\x00\x00\x00\x10\x00\x02\x00\x00\x00"} {
			if _, err := conn.Execute(netlink.Message{
				Header: netlink.Header{Type: 4<<8 | 1, Flags: netlink.Request | netlink.Acknowledge},
				Data:   append([]byte{0, 0, byte(group >> 8), byte(group)}, attr...),
			}); err != nil {
				return err
			}
		}
		return nil
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			msgs, err := conn.Receive()
			if err != nil {
				return
			}
			g.add(msgs)
		}
	}()
	l.Cleanup(func() { _ = conn.SetReadDeadline(time.Unix(1, 0)); <-ended; _ = conn.Close() })
	return g
}

func (g *logged) add(msgs []netlink.Message) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range msgs {
		attrs, err := netlink.UnmarshalAttributes(m.Data[4:])
		if err != nil || m.Header.Type != 4<<8 {
			continue
		}
		var prefix, payload string
		for _, a := range attrs {
			switch a.Type {
			case 9: // NFULA_PAYLOAD
				payload = string(a.Data)
			case 10: // NFULA_PREFIX
				prefix = strings.TrimRight(string(a.Data), "\x00")
			}
		}
		g.seen = append(g.seen, prefix+" "+payload)
	}
}

// TestFirstPacketsAreCopied: the first data packets of each flow, both ways, and
// none of a device that is not to be seen.
func TestFirstPacketsAreCopied(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(l.internet, "site", 8883, site4, site6)
	d := wanted()
	d.Unfiltered = []devices.MAC{phoneMAC}
	l.set(d)
	g := l.listenLog(d.NFLOGGroup)
	ask := func(word string, addr netip.Addr) {
		t.Helper()
		for _, network := range []string{"tcp", "udp"} {
			l.expect("unharmed", l.tv, network, addr, 8883, "site")
			l.expect("unharmed", l.phone, network, addr, 8883, "site")
		}
	}
	for _, a := range sites {
		ask("hello", a)
	}
	tv4, phone4 := string(l.tv.Addr4.AsSlice()), string(l.phone.Addr4.AsSlice())
	tv6, phone6 := string(l.tv.Addr6.AsSlice()), string(l.phone.Addr6.AsSlice())
	deadline := time.Now().Add(patient) // the kernel gathers up to 32 packets, for up to a second
	for time.Now().Before(deadline) && (g.with("D", "site") < 4 || g.with("U", "hello\n") < 4) {
		time.Sleep(50 * time.Millisecond)
	}
	for _, c := range []struct {
		why, prefix, text string
		want              int
	}{
		{"questions, TCP and UDP in both families", "U", "hello\n", 4},
		{"answers", "D", "site", 4},
		{"from the television, IPv4", "U", tv4, 2},
		{"from the television, IPv6", "U", tv6, 2},
		{"from the unfiltered phone, IPv4", "U", phone4, 0},
		{"from the unfiltered phone, IPv6", "U", phone6, 0},
		{"to the unfiltered phone, IPv4", "D", phone4, 0},
		{"to the unfiltered phone, IPv6", "D", phone6, 0},
		{"all that goes up: no empty acknowledgement among it", "U", "", 4},
		{"all that comes down", "D", "", 4},
	} {
		if got := g.with(c.prefix, c.text); got != c.want {
			t.Errorf("%s: %d packets, want %d", c.why, got, c.want)
		}
	}
}

// TestPortMapsAreCopied: of what devices say to the router itself, only what may ask
// it to open a port.
func TestPortMapsAreCopied(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	router := []netip.Addr{netlab.RouterLAN4.Addr(), netlab.RouterLAN6.Addr()}
	for _, port := range []uint16{5351, 5000, 80} {
		l.serve(l.router, "router", port, router...)
	}
	d := wanted()
	d.Unfiltered = []devices.MAC{phoneMAC}
	l.set(d)
	g := l.listenLog(d.NFLOGGroup)
	for _, a := range router {
		l.expect("UPnP", l.tv, "tcp", a, 5000, "router")
		l.expect("NAT-PMP", l.tv, "udp", a, 5351, "router")
		l.expect("the router's own page", l.tv, "tcp", a, 80, "router")
		l.expect("UPnP of a device that is not seen", l.phone, "tcp", a, 5000, "router")
	}
	deadline := time.Now().Add(patient) // the kernel gathers up to 32 packets, for up to a second
	for time.Now().Before(deadline) && g.with("U", "") < 4 {
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(1500 * time.Millisecond)                                           // and more would come by now
	for text, want := range map[string]int{"": 4, "\x13\x88": 2, "\x14\xe7": 2} { // all; to 5000; to 5351
		if got := g.with("U", text); got != want {
			t.Errorf("%d packets with %q, want %d", got, text, want)
		}
	}
}
