//go:build linux

package enforce

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/florianl/go-nflog/v2"
	"github.com/mdlayher/netlink"

	"github.com/netcurtain/netcurtain/devices"
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
	l.in(func() error {
		nf, err := nflog.Open(&nflog.Config{Group: group, Copymode: nflog.CopyPacket, Bufsize: 4096})
		if err != nil {
			return err
		}
		_ = nf.SetOption(netlink.NoENOBUFS, true)
		ctx, stop := context.WithCancel(context.Background())
		l.Cleanup(func() { stop(); _ = nf.Close() })
		return nf.RegisterWithErrorFunc(ctx, func(a nflog.Attribute) int {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.seen = append(g.seen, *a.Prefix+" "+string(*a.Payload))
			return 0
		}, func(error) int { return 0 })
	})
	return g
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
	deadline := time.Now().Add(3 * time.Second) // the kernel gathers up to 32 packets, for up to a second
	for time.Now().Before(deadline) && g.with("D", "site") < 4 {
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
