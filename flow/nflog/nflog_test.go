//go:build linux

package nflog_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/nflog"
	"github.com/netcurtain/netcurtain/internal/netlab"
	"github.com/netcurtain/netcurtain/internal/netlab/labtest"
)

const group = 4743

const rules = `table inet observe {
	counter logged {}
	chain fw {
		type filter hook forward priority -1;
		iifname "br-lan" jump up
		oifname "br-lan" jump down
	}
	chain up {
		meta l4proto udp ct original packets 1-4 counter name logged log prefix "U" group 4743 snaplen 2048 queue-threshold 32
	}
	chain down {
		meta l4proto udp ct reply packets 1-2 counter name logged log prefix "D" group 4743 snaplen 2048 queue-threshold 32
	}
}
`

type lab struct {
	t        testing.TB
	house    *netlab.House
	registry *prometheus.Registry
	source   *nflog.Source
}

var server = netip.MustParseAddr("198.51.100.7")

func newLab(t testing.TB, readBuffer int) *lab {
	h := labtest.House(t, netlab.Plan{
		Devices:  []netlab.DevicePlan{{Name: "tv", Number: 10}},
		Internet: []netip.Addr{server, netip.MustParseAddr("2001:db8::7")},
	})
	nft := h.Router.Command(t.Context(), "nft", "-f", "-")
	nft.Stdin = strings.NewReader(rules)
	if out, err := nft.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	err := h.Router.Do(func() error { return os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_acct", []byte("1"), 0) })
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, house: h, registry: prometheus.NewRegistry()}
	if l.source, err = nflog.New(nflog.Config{
		Group: group, LAN: []string{netlab.LANInterface}, Logger: slog.New(slog.DiscardHandler), Registerer: l.registry, Delay: 1, ReadBuffer: readBuffer,
	}); err != nil {
		t.Fatal(err)
	}
	return l
}

// run starts the source in the router; packets come on the channel.
func (l *lab) run(buffer int) (<-chan flow.Packet, func() error) {
	ctx, cancel := context.WithCancel(l.t.Context())
	l.t.Cleanup(cancel)
	packets, done := make(chan flow.Packet, buffer), make(chan error, 1)
	go func() {
		done <- l.house.Router.Do(func() error {
			return l.source.Run(ctx, func(p flow.Packet) {
				p.Payload = append([]byte(nil), p.Payload...)
				packets <- p
			})
		})
	}()
	return packets, func() error { cancel(); return <-done }
}

// udpServer answers each datagram with "re:" and what came.
func (l *lab) udpServer(addr string) {
	err := l.house.Internet.Do(func() error {
		c, err := net.ListenPacket("udp", addr)
		if err != nil {
			return err
		}
		l.t.Cleanup(func() { c.Close() })
		go func() {
			b := make([]byte, 2048)
			for {
				n, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = c.WriteTo([]byte("re:"+string(b[:n])), from)
			}
		}()
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) dial(addr string) (c net.Conn) {
	l.t.Helper()
	if err := l.house.Devices["tv"].Do(func() (err error) { c, err = net.Dial("udp", addr); return err }); err != nil {
		l.t.Fatal(err)
	}
	return c
}

func (l *lab) metric(name string) float64 {
	l.t.Helper()
	families, err := l.registry.Gather()
	if err != nil {
		l.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	l.t.Fatalf("no metric %s", name)
	return 0
}

// awaitPayload sends until the source listens, then returns the packet with want.
func awaitPayload(t testing.TB, packets <-chan flow.Packet, want string) flow.Packet {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case p := <-packets:
			if string(p.Payload) == want {
				return p
			}
		case <-timeout:
			t.Fatalf("no packet with %q", want)
		}
	}
}

func (l *lab) warmUp(packets <-chan flow.Packet) {
	l.t.Helper()
	for range 1000 {
		c := l.dial("198.51.100.7:9")
		_, _ = c.Write([]byte("warm"))
		c.Close()
		select {
		case <-packets:
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
	l.t.Fatal("the source hears nothing")
}

func TestBothDirectionsWithTheDevicesMAC(t *testing.T) {
	l := newLab(t, 0)
	l.udpServer("198.51.100.7:7")
	l.udpServer("[2001:db8::7]:7")
	packets, stop := l.run(1000)
	l.warmUp(packets)
	for _, addr := range []string{"198.51.100.7:7", "[2001:db8::7]:7"} {
		began := time.Now()
		c := l.dial(addr)
		defer c.Close()
		if _, err := c.Write([]byte("hello " + addr)); err != nil {
			t.Fatal(err)
		}
		there := flow.NewTuple(flow.UDP, netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(addr))
		up := awaitPayload(t, packets, "hello "+addr)
		if up.Tuple != there || up.MAC != [6]byte(l.house.Devices["tv"].MAC) || up.Length == 0 {
			t.Errorf("up: %+v", up)
		}
		if d := up.At.Sub(began); d < -time.Second || d > 10*time.Second {
			t.Errorf("it is dated %s after the start", d)
		}
		// Back from the internet: after the translation, and without the MAC of
		// whoever handed it to the router.
		down := awaitPayload(t, packets, "re:hello "+addr)
		if down.Tuple.Src != there.Dst || down.MAC != [6]byte{} {
			t.Errorf("down: %+v", down)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("after cancel: %v", err)
	}
}

// A reader that is too slow for its buffer loses packets, and knows how many.
func TestNothingIsLostUnnoticed(t *testing.T) {
	for name, readBuffer := range map[string]int{"the usual buffer": 0, "a tiny buffer": 8192} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, readBuffer)
			packets, stop := l.run(0)
			l.warmUp(packets)
			var c net.PacketConn
			if err := l.house.Devices["tv"].Do(func() (err error) { c, err = net.ListenPacket("udp4", ":0"); return err }); err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			send := func(from, to uint16) {
				t.Helper()
				for port := from; port < to; port++ { // each port is a new flow
					if _, err := c.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(server, port))); err != nil {
						t.Fatal(err)
					}
				}
			}
			drain := func() {
				for {
					select {
					case <-packets:
					case <-time.After(500 * time.Millisecond):
						return
					}
				}
			}
			known := func() float64 {
				return l.metric("netcurtain_nflog_packets_total") + l.metric("netcurtain_nflog_gaps_total")
			}
			send(1000, 4000) // and nobody reads
			drain()
			// The next packet that arrives tells of those that did not; a busy machine may lose some more.
			for port := uint16(4000); known() < 3001 && port < 4100; port++ {
				send(port, port+1)
				drain()
			}
			logged := l.counted()
			seen, gaps := l.metric("netcurtain_nflog_packets_total"), l.metric("netcurtain_nflog_gaps_total")
			t.Logf("logged %v, seen %v, lost %v", logged, seen, gaps)
			// Before we listened nothing was numbered: some of the warm-up.
			if seen+gaps < 3001 || seen+gaps > logged {
				t.Errorf("the rules logged %v packets, %v came and %v are known to be lost", logged, seen, gaps)
			}
			if (gaps > 0) != (readBuffer > 0) {
				t.Errorf("with a buffer of %d, %v packets are lost", readBuffer, gaps)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// counted is how many packets the rules logged.
func (l *lab) counted() (n float64) {
	l.t.Helper()
	out, err := l.house.Router.Command(l.t.Context(), "nft", "list", "counter", "inet", "observe", "logged").CombinedOutput()
	if err != nil {
		l.t.Fatalf("%v: %s", err, out)
	}
	text := string(out)
	if _, err := fmt.Sscanf(text[strings.Index(text, "packets"):], "packets %g", &n); err != nil {
		l.t.Fatalf("%v: %s", err, out)
	}
	return n
}

func TestRunAgainAfterStop(t *testing.T) {
	l := newLab(t, 0)
	for range 3 {
		packets, stop := l.run(1000)
		l.warmUp(packets)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		select {
		case _, open := <-packets:
			_ = open // what was under way before Run returned
		case <-time.After(100 * time.Millisecond):
		}
	}
	// Two at once: the group has one owner, and the second says so.
	packets, stop := l.run(1000)
	l.warmUp(packets)
	err := l.house.Router.Do(func() error { return l.source.Run(t.Context(), func(flow.Packet) {}) })
	if err == nil || !strings.Contains(err.Error(), "only one process can have") {
		t.Errorf("a second reader of the group gets %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestNewChecks(t *testing.T) {
	if _, err := nflog.New(nflog.Config{}); err == nil || !strings.Contains(err.Error(), "a group from 1 to 65535") {
		t.Errorf("error %v", err)
	}
}
