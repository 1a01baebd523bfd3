package observe

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
)

// The house of these tests: a television at .10, a phone at .20 that is only
// counted, a lamp at .30 that is not written down, a box at .40 that is left alone.
var (
	macTV    = devices.MAC{2, 0, 0x5e, 0, 0x53, 10}
	macPhone = devices.MAC{2, 0, 0x5e, 0, 0x53, 20}
	macLamp  = devices.MAC{2, 0, 0x5e, 0, 0x53, 30}
	macBox   = devices.MAC{2, 0, 0x5e, 0, 0x53, 40}
	router   = netip.MustParseAddr("192.168.1.1")
	wan      = netip.MustParseAddr("198.51.100.1")
)

type registry map[netip.Addr]devices.Device

func house() registry {
	r := registry{}
	for addr, d := range map[string]devices.Device{
		"192.168.1.10": {ID: "tv", MACs: []devices.MAC{macTV}, Log: devices.LogNames, Mode: devices.ModeProtect},
		"192.168.1.20": {ID: "phone", MACs: []devices.MAC{macPhone}, Log: devices.LogCounts, Mode: devices.ModeProtect},
		"192.168.1.30": {ID: "lamp", MACs: []devices.MAC{macLamp}, Log: devices.LogNone, Mode: devices.ModeProtect},
		"192.168.1.40": {ID: "box", MACs: []devices.MAC{macBox}, Log: devices.LogNames, Mode: devices.ModeOff},
		"2001:db8::10": {ID: "tv", MACs: []devices.MAC{macTV}, Log: devices.LogNames, Mode: devices.ModeProtect},
	} {
		r[netip.MustParseAddr(addr)] = d
	}
	return r
}

func (r registry) ByAddr(a netip.Addr) (devices.Device, bool) { d, ok := r[a]; return d, ok }

func (r registry) ByMAC(m devices.MAC) (devices.Device, bool) {
	for _, d := range r {
		if slices.Contains(d.MACs, m) {
			return d, true
		}
	}
	return devices.Device{}, false
}

func (r registry) ByID(id devices.ID) (devices.Device, bool) {
	for _, d := range r {
		if d.ID == id {
			return d, true
		}
	}
	return devices.Device{}, false
}

// book is a journal that remembers.
type book struct {
	mu  sync.Mutex
	all []journal.Entry
}

func (b *book) Record(e journal.Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all = append(b.all, e)
}

func (b *book) flows() (out []journal.Entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.all {
		if e.Flow != nil {
			out = append(out, e)
		}
	}
	return out
}

func (b *book) events() (out []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.all {
		if e.Event != nil {
			out = append(out, string(e.Device)+" "+e.Event.Text)
		}
	}
	return out
}

// blocking is a policy that blocks names below ads.example and the address 203.0.113.66.
type blocking struct{}

func (blocking) Decide(q policy.Query) policy.Verdict {
	if q.Name.IsAtOrBelow("ads.example") && q.Name != "" || q.Addr == netip.MustParseAddr("203.0.113.66") {
		return policy.Verdict{Action: policy.Block, Reason: policy.ReasonList, Rule: "ads.example", List: "test"}
	}
	return policy.Verdict{}
}

type cuts struct {
	mu  sync.Mutex
	all []Cut
	err error
}

func (c *cuts) Block(_ context.Context, b Cut) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, b)
	return c.err
}

func (c *cuts) taken() []Cut {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.all)
}

func ends(src, dst string, p flow.Proto) flow.Tuple {
	return flow.NewTuple(p, netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst))
}

var tvWeb = ends("192.168.1.10:4000", "203.0.113.1:80", flow.TCP)

func request(host string) []byte {
	return []byte("GET / HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: tv\r\n\r\n")
}

func answer() []byte { return []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") }

// live runs an Observer inside a bubble of its own time, lets the test speak to
// it, ends it and returns what was recorded.
func live(t *testing.T, change func(*Config), test func(o *Observer)) *book {
	t.Helper()
	b := &book{}
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Devices: house(), Record: b, Own: func(a netip.Addr) bool { return a == router || a == wan }}
		if change != nil {
			change(&cfg)
		}
		o, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- o.Run(ctx) }()
		time.Sleep(time.Minute) // what runs now did not run before we did
		test(o)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return b
}

func count(n uint64) flow.Counters {
	return flow.Counters{Orig: flow.Count{Packets: n, Bytes: 100 * n}, Reply: flow.Count{Packets: 2 * n, Bytes: 1000 * n}}
}

func TestFlowFromEventsAndPackets(t *testing.T) {
	b := live(t, func(c *Config) { c.Atlas = described{} }, func(o *Observer) {
		start := time.Now()
		o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: 7, Tuple: tvWeb, At: time.Now()})
		o.Packet(flow.Packet{At: time.Now(), MAC: macTV, Tuple: tvWeb, Seq: 1, Flags: flow.ACK, Length: 120, Payload: request("Api.Maker.Example:80")})
		o.Packet(flow.Packet{At: time.Now(), Tuple: tvWeb.Reverse(), Seq: 1, Flags: flow.ACK, Length: 80, Payload: answer()})
		time.Sleep(10 * time.Second)
		o.Tracked(t.Context(), flow.Event{Kind: flow.Update, ID: 7, Tuple: tvWeb, Counters: count(1), At: time.Now()})
		time.Sleep(10 * time.Second)
		o.Tracked(t.Context(), flow.Event{Kind: flow.Destroy, ID: 7, Tuple: tvWeb, Counters: count(3), At: time.Now(), Stop: start.Add(15 * time.Second)})
	})
	flows := b.flows()
	if len(flows) != 2 || flows[0].Flow.Part != 0 || flows[1].Flow.Part != 1 || flows[0].Flow.Counters != count(1) {
		t.Fatalf("recorded %+v, want one flow in two parts", flows)
	}
	e := flows[1] // the end; the beginning was told before
	f := e.Flow
	if e.Device != "tv" || e.Log != devices.LogNames || devices.MAC(f.MAC) != macTV || f.Inbound {
		t.Errorf("device %q at level %v with MAC %v", e.Device, e.Log, devices.MAC(f.MAC))
	}
	if f.Name != "api.maker.example" || f.NameSource != flow.NameFromHost {
		t.Errorf("name %q from %v", f.Name, f.NameSource)
	}
	if f.Seen.App != "http" || f.Seen.Protection != flow.Readable || f.Destination.Organisation != "Maker" {
		t.Errorf("seen %+v, destination %+v", f.Seen, f.Destination)
	}
	if f.Counters != count(2) || f.Last.Sub(f.First) != 15*time.Second {
		t.Errorf("counters %+v over %v", f.Counters, f.Last.Sub(f.First))
	}
}

type described struct{}

func (described) Describe(n dnsname.Name, _ netip.Addr) atlas.Destination {
	if n.IsAtOrBelow("maker.example") {
		return atlas.Destination{Organisation: "Maker"}
	}
	return atlas.Destination{}
}

func TestNamePrecedence(t *testing.T) {
	far := netip.MustParseAddr("203.0.113.1")
	for _, tc := range []struct {
		name  string
		learn func(o *Observer)
		seen  []byte
		want  string
		from  flow.NameSource
	}{
		{"nothing is known", func(*Observer) {}, []byte("\x00\x01\x02"), "", flow.NameFromAddress},
		{"another smart device asked", func(o *Observer) { o.Learn("box", "other.example", far, time.Minute) }, []byte("\x00"), "other.example", flow.NameFromDNSAny},
		{"a person's device asked", func(o *Observer) { o.Learn("phone", "other.example", far, time.Minute) }, []byte("\x00"), "", flow.NameFromAddress},
		{"this device asked", func(o *Observer) {
			o.Learn("tv", "own.example", far, time.Minute)
			o.Learn("phone", "other.example", far, time.Minute)
		}, []byte("\x00"), "own.example", flow.NameFromDNSDevice},
		{"Host wins", func(o *Observer) { o.Learn("tv", "own.example", far, time.Minute) }, request("host.example"), "host.example", flow.NameFromHost},
		{"an address is no Host", func(o *Observer) { o.Learn("tv", "own.example", far, time.Minute) }, request("203.0.113.1"), "own.example", flow.NameFromDNSDevice},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := live(t, nil, func(o *Observer) {
				tc.learn(o)
				o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: 1, Tuple: tvWeb})
				o.Packet(flow.Packet{MAC: macTV, Tuple: tvWeb, Payload: tc.seen})
			})
			f := b.flows()[0].Flow
			if f.Name != tc.want || f.NameSource != tc.from {
				t.Errorf("name %q from %v, want %q from %v", f.Name, f.NameSource, tc.want, tc.from)
			}
		})
	}
}

// The outer name of an encrypted hello is not the site's: what DNS said is
// better, and nothing is better than a wrong name.
func TestOuterNameIsNotTheSite(t *testing.T) {
	outer := dissect.Result{App: "tls", ServerName: "front.example", NameFrom: "sni", TLS: &dissect.TLS{ECH: true}}
	for _, learned := range []string{"", "site.example"} {
		b := live(t, nil, func(o *Observer) {
			if learned != "" {
				o.Learn("tv", dnsname.Name(learned), tvWeb.DstAddr(), time.Minute)
				synctest.Wait()
			}
			o.Proxied(Carried{Tuple: tvWeb, MAC: macTV, Seen: outer})
		})
		if f := b.flows()[0].Flow; f.Name != learned || f.Seen.ServerName != "front.example" {
			t.Errorf("name %q with %q learned", f.Name, learned)
		}
	}
}

// What the kernel tracks is not all a device's talk with the world.
func TestWhoseFlow(t *testing.T) {
	ev := func(src, dst string) flow.Event {
		return flow.Event{Kind: flow.Destroy, ID: 1, Tuple: ends(src, dst, flow.UDP), Counters: count(1)}
	}
	forwarded := ev("203.0.113.9:5000", "198.51.100.1:8080")
	forwarded.Reply = ends("192.168.1.10:80", "203.0.113.9:5000", flow.UDP)
	caught := ev("192.168.1.10:4000", "8.8.8.8:53")
	caught.Reply = ends("192.168.1.1:53", "192.168.1.10:4000", flow.UDP)
	hairpin := ev("192.168.1.20:5000", "198.51.100.1:8080") // the phone, to the television by the outer address
	hairpin.Reply = ends("192.168.1.10:80", "192.168.1.1:61000", flow.UDP)
	nat := ev("192.168.1.10:4000", "203.0.113.1:443")
	nat.Reply = ends("203.0.113.1:443", "198.51.100.1:61000", flow.UDP)
	for _, tc := range []struct {
		name  string
		event flow.Event
		want  string
	}{
		{"a device behind NAT", nat, "tv 192.168.1.10:4000 > 203.0.113.1:443"},
		{"a device to another by the outer address", hairpin, "phone 192.168.1.20:5000 > 192.168.1.10:80"},
		{"a look-up that we caught and answered", caught, ""},
		{"a device to the world", ev("192.168.1.10:4000", "203.0.113.1:443"), "tv 192.168.1.10:4000 > 203.0.113.1:443"},
		{"a device by a public address", ev("[2001:db8::10]:4000", "[2001:db8:1::1]:443"), "tv [2001:db8::10]:4000 > [2001:db8:1::1]:443"},
		{"a device that nobody knows", ev("192.168.1.99:4000", "203.0.113.1:443"), "192.168.1.99 192.168.1.99:4000 > 203.0.113.1:443"},
		{"a look-up at the router", ev("192.168.1.10:4000", "192.168.1.1:53"), ""},
		{"the router itself", ev("198.51.100.1:4000", "203.0.113.1:443"), ""},
		{"to everybody", ev("192.168.1.10:5353", "224.0.0.251:5353"), ""},
		{"neither end ours", ev("203.0.113.1:443", "203.0.113.2:443"), ""},
		{"not written down", ev("192.168.1.30:4000", "203.0.113.1:443"), ""},
		{"left alone", ev("192.168.1.40:4000", "203.0.113.1:443"), ""},
		{"a forwarded port", forwarded, "tv 203.0.113.9:5000 > 192.168.1.10:80 inbound"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := live(t, nil, func(o *Observer) { o.Tracked(t.Context(), tc.event) })
			got := ""
			for _, e := range b.flows() {
				got = string(e.Device) + " " + e.Flow.Tuple.SrcAddrPort().String() + " > " + e.Flow.Tuple.DstAddrPort().String()
				if e.Flow.Inbound {
					got += " inbound"
				}
			}
			if got != tc.want {
				t.Errorf("recorded %q, want %q", got, tc.want)
			}
		})
	}
}

// A hairpin connection is one flow, though its packets are seen with other ends than
// connection tracking names first.
func TestHairpinIsOneFlow(t *testing.T) {
	tracked := flow.Event{Kind: flow.New, ID: 1, Tuple: ends("192.168.1.20:5000", "198.51.100.1:8080", flow.TCP),
		Reply: ends("192.168.1.10:80", "192.168.1.1:61000", flow.TCP)}
	seen := ends("192.168.1.20:5000", "192.168.1.10:80", flow.TCP) // where first packets are copied
	b := live(t, nil, func(o *Observer) {
		tracked.At = time.Now()
		o.Tracked(t.Context(), tracked)
		o.Packet(flow.Packet{At: time.Now(), MAC: macPhone, Tuple: seen, Seq: 1, Flags: flow.ACK, Length: 100, Payload: request("tv.example")})
		o.Packet(flow.Packet{At: time.Now(), Tuple: seen.Reverse(), Seq: 1, Flags: flow.ACK, Length: 100, Payload: answer()})
		time.Sleep(time.Second)
		tracked.Kind, tracked.Counters, tracked.At = flow.Destroy, count(3), time.Now()
		o.Tracked(t.Context(), tracked)
	})
	flows := b.flows()
	if len(flows) != 1 || flows[0].Device != "phone" || flows[0].Flow.Counters != count(3) || flows[0].Flow.Seen.App != "http" || flows[0].Flow.Inbound {
		t.Errorf("%d flows: %+v", len(flows), flows)
	}
}

// Every byte is recorded once: not again after a restart, nor after a flow had to
// leave a full table, nor when its ports are used again.
func TestBytesAreRecordedOnce(t *testing.T) {
	sum := func(b *book) (n uint64) {
		for _, e := range b.flows() {
			n += e.Flow.Counters.Orig.Bytes
		}
		return n
	}
	event := func(kind flow.Kind, id uint32, port string, n uint64) flow.Event {
		return flow.Event{Kind: kind, ID: id, Tuple: ends("192.168.1.10:"+port, "203.0.113.1:443", flow.TCP), Counters: count(n), At: time.Now()}
	}
	t.Run("a full table", func(t *testing.T) {
		b := live(t, func(c *Config) { c.Flows = 1 }, func(o *Observer) {
			o.Tracked(t.Context(), event(flow.Update, 1, "1001", 5)) // from before, but we were there
			o.Tracked(t.Context(), event(flow.Update, 2, "1002", 7))
			o.Tracked(t.Context(), event(flow.Destroy, 1, "1001", 6))
			o.Tracked(t.Context(), event(flow.Destroy, 2, "1002", 7))
		})
		if got := sum(b); got != 1300 {
			t.Errorf("%d bytes recorded, want 1300", got)
		}
	})
	t.Run("silence, then more", func(t *testing.T) {
		b := live(t, nil, func(o *Observer) {
			o.Tracked(t.Context(), event(flow.Update, 1, "1001", 5))
			time.Sleep(2 * time.Hour)
			o.Tracked(t.Context(), event(flow.Update, 1, "1001", 9))
		})
		if got := sum(b); got != 900 || len(b.flows()) != 2 {
			t.Errorf("%d bytes in %d flows, want 900 in 2", got, len(b.flows()))
		}
	})
	t.Run("the same ports again", func(t *testing.T) {
		b := live(t, nil, func(o *Observer) {
			o.Tracked(t.Context(), event(flow.Update, 1, "1001", 5))
			o.Tracked(t.Context(), event(flow.New, 2, "1001", 0))
			o.Tracked(t.Context(), event(flow.Destroy, 2, "1001", 3))
			o.Tracked(t.Context(), event(flow.Destroy, 1, "1001", 5))
		})
		if got := sum(b); got != 800 {
			t.Errorf("%d bytes recorded, want 800", got)
		}
	})
	t.Run("what was read of it comes after its end", func(t *testing.T) {
		b := live(t, nil, func(o *Observer) {
			o.Tracked(t.Context(), event(flow.New, 1, "1001", 0))
			o.Tracked(t.Context(), event(flow.Destroy, 1, "1001", 9))
			o.Tracked(t.Context(), event(flow.Update, 1, "1001", 5))
			o.Tracked(t.Context(), event(flow.Update, 1, "1001", 9))
			o.Tracked(t.Context(), event(flow.New, 2, "1001", 0)) // the same ports again
			o.Tracked(t.Context(), event(flow.Update, 2, "1001", 1))
			o.Tracked(t.Context(), event(flow.Destroy, 2, "1001", 3))
			o.Tracked(t.Context(), event(flow.Update, 2, "1001", 3))
		})
		if got := sum(b); got != 1200 {
			t.Errorf("%d bytes recorded, want 1200", got)
		}
	})
	t.Run("it ran before us", func(t *testing.T) {
		b := live(t, nil, func(o *Observer) {
			old := event(flow.Update, 1, "1001", 5)
			old.Start = time.Now().Add(-time.Hour)
			o.Tracked(t.Context(), old)
			o.Tracked(t.Context(), event(flow.Destroy, 1, "1001", 9))
		})
		if got := sum(b); got != 400 {
			t.Errorf("%d bytes recorded, want the 400 since we began", got)
		}
	})
}

// A packet may come before its event, and the guess who opened may be wrong;
// connection tracking is believed.
func TestTrackingCorrectsTheOpener(t *testing.T) {
	tuple := ends("192.168.1.10:3074", "203.0.113.1:40000", flow.UDP)
	b := live(t, nil, func(o *Observer) {
		o.Packet(flow.Packet{At: time.Now(), Tuple: tuple.Reverse(), Payload: []byte("\x01")})
		synctest.Wait()
		o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: 1, Tuple: tuple, At: time.Now()})
		o.Tracked(t.Context(), flow.Event{Kind: flow.Destroy, ID: 1, Tuple: tuple, Counters: count(1), At: time.Now()})
	})
	flows := b.flows()
	if len(flows) != 1 || flows[0].Flow.Tuple != tuple || flows[0].Flow.Inbound || flows[0].Flow.Counters != count(1) {
		t.Errorf("recorded %+v", flows)
	}
}

func TestBlocking(t *testing.T) {
	for _, tc := range []struct {
		name string
		say  func(o *Observer)
		cuts []Cut
		want policy.Verdict
	}{
		{
			"by Host, once it is read",
			func(o *Observer) {
				o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: 1, Tuple: tvWeb})
				o.Packet(flow.Packet{MAC: macTV, Tuple: tvWeb, Payload: request("x.ads.example")})
			},
			[]Cut{{Device: "tv", MAC: macTV, Addr: tvWeb.DstAddr(), Tuple: tvWeb, For: time.Hour}},
			policy.Verdict{Action: policy.Block, Reason: policy.ReasonList, Rule: "ads.example", List: "test"},
		},
		{
			"by what the device was told, before a byte is seen",
			func(o *Observer) {
				o.Learn("tv", "ads.example", tvWeb.DstAddr(), time.Minute)
				o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: 1, Tuple: tvWeb})
			},
			[]Cut{{Device: "tv", MAC: macTV, Addr: tvWeb.DstAddr(), Tuple: tvWeb, For: time.Hour}},
			policy.Verdict{Action: policy.Block, Reason: policy.ReasonList, Rule: "ads.example", List: "test"},
		},
		{
			"one connection alone when the address also carries what is allowed",
			func(o *Observer) {
				o.Learn("tv", "video.example", tvWeb.DstAddr(), time.Minute)
				o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: 1, Tuple: tvWeb})
				o.Packet(flow.Packet{MAC: macTV, Tuple: tvWeb, Payload: request("x.ads.example")})
			},
			[]Cut{{Device: "tv", MAC: macTV, Addr: tvWeb.DstAddr(), Tuple: tvWeb, ByName: true}},
			policy.Verdict{Action: policy.Block, Reason: policy.ReasonList, Rule: "ads.example", List: "test"},
		},
		{
			"nothing while it does not say which of the names it means",
			func(o *Observer) {
				o.Learn("tv", "video.example", tvWeb.DstAddr(), time.Minute)
				o.Learn("tv", "ads.example", tvWeb.DstAddr(), time.Minute)
				o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: 1, Tuple: tvWeb})
			},
			nil,
			policy.Verdict{Action: policy.Allow, Noted: true, Reason: policy.ReasonList, Rule: "ads.example", List: "test"},
		},
		{
			"the address again, once it is given for a name that is allowed",
			func(o *Observer) {
				o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: 1, Tuple: tvWeb})
				o.Packet(flow.Packet{MAC: macTV, Tuple: tvWeb, Payload: request("x.ads.example")})
				time.Sleep(time.Minute)
				o.Learn("tv", "more.ads.example", tvWeb.DstAddr(), time.Minute) // no reason to
				o.Learn("tv", "video.example", tvWeb.DstAddr(), time.Minute)
				o.Learn("tv", "video.example", tvWeb.DstAddr(), time.Minute)
				time.Sleep(time.Minute) // a name wakes nobody
			},
			[]Cut{
				{Device: "tv", MAC: macTV, Addr: tvWeb.DstAddr(), Tuple: tvWeb, For: time.Hour},
				{Device: "tv", MAC: macTV, Addr: tvWeb.DstAddr(), Free: true},
			},
			policy.Verdict{Action: policy.Block, Reason: policy.ReasonList, Rule: "ads.example", List: "test"},
		},
		{
			"another hour, another site on the address",
			func(o *Observer) {
				o.Learn("tv", "video.example", tvWeb.DstAddr(), time.Minute)
				time.Sleep(2 * time.Hour)
				o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: 1, Tuple: tvWeb})
				o.Packet(flow.Packet{MAC: macTV, Tuple: tvWeb, Payload: request("x.ads.example")})
			},
			[]Cut{{Device: "tv", MAC: macTV, Addr: tvWeb.DstAddr(), Tuple: tvWeb, For: time.Hour}},
			policy.Verdict{Action: policy.Block, Reason: policy.ReasonList, Rule: "ads.example", List: "test"},
		},
		{
			"nothing that is allowed",
			func(o *Observer) {
				o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: 1, Tuple: tvWeb})
				o.Packet(flow.Packet{MAC: macTV, Tuple: tvWeb, Payload: request("video.example")})
			},
			nil, policy.Verdict{},
		},
		{
			"what the proxy carries was decided there",
			func(o *Observer) {
				o.Proxied(Carried{Tuple: tvWeb, MAC: macTV, Verdict: policy.Verdict{Action: policy.Allow},
					Seen: dissect.Result{App: "http", ServerName: "x.ads.example", NameFrom: "host"}})
			},
			nil, policy.Verdict{Action: policy.Allow},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &cuts{}
			b := live(t, func(cfg *Config) { cfg.Decide, cfg.Block = blocking{}, c }, tc.say)
			if diff := cmp.Diff(tc.cuts, c.taken(), cmpopts.IgnoreFields(Cut{}, "Asked"), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("cuts (-want +got):\n%s", diff)
			}
			if got := b.flows()[len(b.flows())-1].Flow.Verdict; got != tc.want {
				t.Errorf("verdict %+v, want %+v", got, tc.want)
			}
			shared := len(tc.cuts) > 0 && tc.cuts[0].ByName || tc.want.Noted
			if got := b.flows()[len(b.flows())-1].Flow.ByNameOnly; got != shared {
				t.Errorf("by name only: %v, want %v", got, shared)
			}
		})
	}
}

// changing is a policy whose household makes rules while flows run.
type changing struct {
	v atomic.Pointer[policy.Verdict]
}

func (c *changing) Decide(q policy.Query) policy.Verdict {
	if v := c.v.Load(); v != nil && q.Addr == tvWeb.DstAddr() {
		return *v
	}
	return policy.Verdict{}
}

// A rule that is made takes hold of flows that run, once.
// A flow that was told of when it began, and is blocked while it runs, is told of as
// blocked at once and once, whether it moves a byte afterwards or not; and one that had
// to leave the table early is no exception.
func TestBlockedWhileItRuns(t *testing.T) {
	block := policy.Verdict{Action: policy.Block, Reason: policy.ReasonRule, Rule: "video.example", List: policy.ListHousehold}
	for _, tc := range []struct {
		name  string
		flows int // that the table holds
		after func(o *Observer)
	}{
		{"it ends", 10, func(o *Observer) {
			o.Tracked(t.Context(), flow.Event{Kind: flow.Destroy, ID: 1, Tuple: tvWeb, Counters: count(5), At: time.Now()})
		}},
		{"it goes on", 10, func(o *Observer) {
			for i := range uint64(5) {
				o.Tracked(t.Context(), flow.Event{Kind: flow.Update, ID: 1, Tuple: tvWeb, Counters: count(6 + i), At: time.Now()})
				time.Sleep(time.Minute)
			}
		}},
		{"its place is needed, and it goes on", 1, func(o *Observer) {
			o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: 2, Tuple: ends("192.168.1.10:4001", "203.0.113.2:80", flow.TCP)})
			synctest.Wait()
			o.Tracked(t.Context(), flow.Event{Kind: flow.Update, ID: 1, Tuple: tvWeb, Counters: count(7), At: time.Now()})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rules := &changing{}
			b := live(t, func(cfg *Config) { cfg.Decide, cfg.Block, cfg.Flows = rules, &cuts{}, tc.flows }, func(o *Observer) {
				o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: 1, Tuple: tvWeb})
				o.Tracked(t.Context(), flow.Event{Kind: flow.Update, ID: 1, Tuple: tvWeb, Counters: count(5), At: time.Now()})
				time.Sleep(10 * time.Second)
				rules.v.Store(&block)
				o.Reconsider()
				time.Sleep(2 * time.Second)
				tc.after(o)
				synctest.Wait()
			})
			var flows, blocked int
			for _, e := range b.flows() {
				if e.Flow.Tuple != tvWeb {
					continue
				}
				if e.Flow.Part == 0 {
					flows++
				}
				if e.Flow.News()&journal.Blocked != 0 {
					blocked++
				}
			}
			if flows != 1 || blocked != 1 {
				t.Errorf("counted as %d flows, %d blocked", flows, blocked)
			}
		})
	}
}

func TestReconsider(t *testing.T) {
	c, rules := &cuts{}, &changing{}
	block := policy.Verdict{Action: policy.Block, Reason: policy.ReasonRule, Rule: "video.example", List: policy.ListHousehold}
	b := live(t, func(cfg *Config) { cfg.Decide, cfg.Block = rules, c }, func(o *Observer) {
		o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: 1, Tuple: tvWeb})
		o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: 2, Tuple: ends("192.168.1.10:4001", "203.0.113.2:80", flow.TCP)})
		synctest.Wait()
		rules.v.Store(&block)
		if len(c.taken()) != 0 {
			t.Error("cut before anybody was asked again")
		}
		for range 3 {
			o.Reconsider()
			synctest.Wait()
		}
	})
	if got := c.taken(); len(got) != 1 || got[0].Tuple != tvWeb || got[0].Asked.Addr != tvWeb.DstAddr() {
		t.Errorf("cuts: %+v", got)
	}
	for _, e := range b.flows() {
		if want := e.Flow.Tuple == tvWeb; (e.Flow.Verdict == block) != want {
			t.Errorf("%s: %+v", e.Flow.Tuple.DstAddrPort(), e.Flow.Verdict)
		}
	}
}

// What the kernel refused with its first packet is told, though no connection ever
// was: soon, and once; no address is refused for it beside the one port.
func TestTurnedAway(t *testing.T) {
	c, rules := &cuts{}, &changing{}
	rules.v.Store(&policy.Verdict{Action: policy.Block, Reason: policy.ReasonSideDoor, Rule: "dns.google at 8.8.8.8", List: policy.ListSideDoors})
	tv := house()[tvWeb.SrcAddr()]
	tv.Mode = devices.ModeGuard
	syn := ends("192.168.1.10:4000", "203.0.113.1:443", flow.TCP)
	b := live(t, func(cfg *Config) { cfg.Decide, cfg.Block, cfg.Devices = rules, c, registry{tvWeb.SrcAddr(): tv} }, func(o *Observer) {
		o.Packet(flow.Packet{MAC: macTV, Tuple: syn, Flags: flow.SYN})
		time.Sleep(10 * time.Second)
	})
	if flows := b.flows(); len(flows) != 1 || flows[0].Flow.Verdict.Action != policy.Block {
		t.Errorf("recorded: %+v", flows)
	}
	if events := b.events(); len(events) != 1 || !strings.Contains(events[0], "(DoH)") {
		t.Errorf("told: %q", events)
	}
	if got := c.taken(); len(got) != 1 || got[0].For != 0 {
		t.Errorf("cuts: %+v", got)
	}
}

// The last packet of a connection may come after the kernel told its end.
func TestLatePacketIsNoFlow(t *testing.T) {
	b := &book{}
	o, err := New(Config{Devices: house(), Record: b})
	if err != nil {
		t.Fatal(err)
	}
	c := o.core
	c.now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	c.event(&flow.Event{Kind: flow.New, ID: 7, Tuple: tvWeb, At: c.now})
	c.event(&flow.Event{Kind: flow.Destroy, ID: 7, Tuple: tvWeb, Counters: count(1), At: c.now})
	c.packet(&flow.Packet{At: c.now, MAC: macTV, Tuple: tvWeb, Flags: flow.FIN | flow.ACK})
	c.sweep()
	if c.flows.Len() != 1 {
		t.Fatal("it may be a new one: the kernel has not spoken")
	}
	c.now = c.now.Add(untracked + time.Second)
	c.sweep()
	if n := len(b.flows()); c.flows.Len() != 0 || n != 1 {
		t.Errorf("%d flows run, %d were recorded", c.flows.Len(), n)
	}
}

func TestFailedBlockIsCounted(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	c := &cuts{err: errors.New("no such table")}
	live(t, func(cfg *Config) { cfg.Decide, cfg.Block, cfg.Metrics = blocking{}, c, reg }, func(o *Observer) {
		o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: 1, Tuple: ends("192.168.1.10:1", "203.0.113.66:9", flow.UDP)})
	})
	if got := values(t, reg, "netcurtain_observe_blocks_total"); got["failed"] != 1 || len(got) != 1 {
		t.Errorf("blocks by result: %v, want one that failed", got)
	}
}

// values gathers one metric, by the value of its only label.
func values(t *testing.T, reg *prometheus.Registry, name string) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			label := ""
			if l := m.GetLabel(); len(l) > 0 {
				label = l[0].GetValue()
			}
			out[label] = m.GetCounter().GetValue()
		}
	}
	return out
}

// A rare event is told once per device and destination, and names the destination
// only where names may be written down.
func TestRareEvents(t *testing.T) {
	login := []byte("GET / HTTP/1.1\r\nHost: cam.example\r\nAuthorization: Basic YWRtaW46YWRtaW4=\r\n\r\n") // admin, admin
	b := live(t, nil, func(o *Observer) {
		for port := range 3 {
			for _, src := range []string{"192.168.1.10", "192.168.1.20", "192.168.1.30"} {
				tuple := flow.NewTuple(flow.TCP, netip.AddrPortFrom(netip.MustParseAddr(src), uint16(4000+port)), netip.MustParseAddrPort("203.0.113.1:80"))
				o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: uint32(port + 1), Tuple: tuple})
				o.Packet(flow.Packet{Tuple: tuple, Payload: login})
			}
		}
		dot := ends("192.168.1.10:4000", "203.0.113.5:853", flow.TCP)
		o.Packet(flow.Packet{MAC: macTV, Tuple: dot, Payload: []byte("\x00")})
		inside := ends("192.168.1.10:4000", "192.168.1.20:853", flow.TCP)
		o.Packet(flow.Packet{MAC: macTV, Tuple: inside, Payload: []byte("\x00")})
	})
	want := []string{
		"tv sent a credential that anybody on the way could read (http-basic of a…(5), a known default): cam.example",
		"phone sent a credential that anybody on the way could read (http-basic, a known default)",
		"tv asked a resolver outside the house over TLS (DoT): 203.0.113.5",
	}
	if diff := cmp.Diff(want, b.events()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// acme knows one organisation.
type acme struct{}

func (acme) Describe(n dnsname.Name, _ netip.Addr) atlas.Destination {
	if n.IsAtOrBelow("acme.example") && n != "" {
		return atlas.Destination{Organisation: "Acme"}
	}
	return atlas.Destination{}
}

// A first contact is an answer from an organisation; weak encryption is told with
// what is weak.
func TestContactsAndWeakEncryption(t *testing.T) {
	b := &book{}
	o, err := New(Config{Devices: house(), Decide: blocking{}, Atlas: acme{}, Record: b})
	if err != nil {
		t.Fatal(err)
	}
	c := o.core
	c.now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	talk := func(from string, port uint16, name string, answered bool, weak ...string) {
		tuple := flow.NewTuple(flow.TCP, netip.AddrPortFrom(netip.MustParseAddr(from), port), netip.MustParseAddrPort("203.0.113.1:443"))
		s := c.add(tuple, nil, &flow.Packet{Tuple: tuple})
		if s == nil {
			return // a device that is off
		}
		s.settled, s.Counters = true, count(1)
		if !answered {
			s.Counters.Reply = flow.Count{}
		}
		s.seen = dissect.Result{App: "tls", ServerName: name, NameFrom: "sni", TLS: &dissect.TLS{Weak: weak}}
		c.conclude(s)
		c.end(s)
	}
	const tv, phone = "192.168.1.10", "192.168.1.20"
	talk(tv, 1, "silent.acme.example", false)
	talk(tv, 2, "api.acme.example", true)
	talk(tv, 3, "www.acme.example", true)
	talk(tv, 4, "x.ads.example", true) // blocked
	talk(tv, 5, "stranger.example", true, "its version (1.0) is outdated")
	talk(tv, 6, "stranger.example", true, "its version (1.0) is outdated")
	talk(tv, 7, "stranger.example", true, "the cipher is RC4")
	talk(phone, 8, "api.acme.example", true, "the cipher is RC4")
	want := []string{
		"tv talked to Acme for the first time: api.acme.example",
		"tv used weak encryption (its version (1.0) is outdated): stranger.example",
		"tv used weak encryption (the cipher is RC4): stranger.example",
		"phone used weak encryption (the cipher is RC4)",
	}
	if diff := cmp.Diff(want, b.events()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	for _, e := range b.all {
		if e.Event != nil && e.Device == "phone" && e.Event.Subject != "" {
			t.Errorf("the counted phone's event names a subject: %q", e.Event.Subject)
		}
	}
}

func TestSideDoor(t *testing.T) {
	for _, tc := range []struct {
		proto flow.Proto
		port  uint16
		seen  dissect.Result
		why   policy.Reason
		want  string
	}{
		{flow.UDP, 53, dissect.Result{App: "dns"}, 0, "asked a resolver outside the house"},
		{flow.UDP, 53, dissect.Result{App: "wireguard"}, 0, ""},
		{flow.UDP, 853, dissect.Result{App: "quic"}, 0, "asked a resolver outside the house over QUIC (DoQ)"},
		{flow.TCP, 443, dissect.Result{ServerName: "dns.google"}, 0, "asked a resolver outside the house over HTTPS (DoH)"},
		{flow.TCP, 443, dissect.Result{ServerName: "mozilla.cloudflare-dns.com"}, 0, "asked a resolver outside the house over HTTPS (DoH)"},
		{flow.TCP, 443, dissect.Result{ServerName: "xdns.google"}, 0, ""},
		{flow.TCP, 443, dissect.Result{ServerName: "unlisted.example"}, policy.ReasonSideDoor, "asked a resolver outside the house over HTTPS (DoH)"},
		{flow.TCP, 443, dissect.Result{}, 0, ""},
	} {
		if got := sideDoor(tc.proto, tc.port, &tc.seen, tc.why); got != tc.want {
			t.Errorf("sideDoor(%v, %d, %q) = %q, want %q", tc.proto, tc.port, tc.seen.ServerName, got, tc.want)
		}
	}
}

// A flow whose first bytes never complete is judged after the deadline by what
// came, and no more than the bound are read at once.
func TestConversationsAreBounded(t *testing.T) {
	hello := []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3} // the beginning of a long ClientHello
	o, err := New(Config{Devices: house(), Record: &book{}, Conversations: 10})
	if err != nil {
		t.Fatal(err)
	}
	c := o.core
	c.now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for port := range uint16(100) {
		tuple := flow.NewTuple(flow.TCP, netip.AddrPortFrom(netip.MustParseAddr("192.168.1.10"), 1000+port), netip.MustParseAddrPort("203.0.113.1:443"))
		c.packet(&flow.Packet{MAC: macTV, Tuple: tuple, Seq: 1, Flags: flow.ACK, Payload: hello})
	}
	if c.reading.open != 10 || len(c.reading.queue) > 100 {
		t.Errorf("%d conversations open, want 10; %d in the queue", c.reading.open, len(c.reading.queue))
	}
	c.now = c.now.Add(4 * time.Second)
	c.sweep()
	if c.reading.open != 10 {
		t.Errorf("%d conversations open before the deadline", c.reading.open)
	}
	c.now = c.now.Add(time.Second)
	c.sweep()
	if c.reading.open != 0 || c.flows.Len() != 100 {
		t.Errorf("%d conversations open after the deadline, %d flows", c.reading.open, c.flows.Len())
	}
}

// Nothing that comes in waits: when nobody empties the queues, they fill to
// their bounds and the rest is counted.
func TestQueuesAreBounded(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	o, err := New(Config{Record: &book{}, Metrics: reg}) // nobody runs it
	if err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end() // who waits for room goes away
	for range maxEvents {
		o.Tracked(ended, flow.Event{Kind: flow.Update})
	}
	if n := len(o.inbox.in.events); n != maxUpdates {
		t.Errorf("%d updates wait, want %d: half of the room is for ends", n, maxUpdates)
	}
	for range maxEvents {
		o.Tracked(ended, flow.Event{Kind: flow.Destroy})
	}
	if n := len(o.inbox.in.events); n != maxEvents {
		t.Errorf("%d events wait, want %d", n, maxEvents)
	}
	for range maxPackets + 3 {
		o.Packet(flow.Packet{Payload: make([]byte, 100)})
	}
	for range maxLearned + 2 {
		o.Learn("tv", "a.example", router, time.Minute)
	}
	for range maxCarried + 1 {
		o.Proxied(Carried{})
	}
	want := map[string]float64{"packet": 3, "name": 2, "carried": 1}
	if diff := cmp.Diff(want, values(t, reg, "netcurtain_observe_dropped_messages_total")); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "Recorder") {
		t.Errorf("New without a Recorder: %v", err)
	}
}

// replay feeds packets to an Observer on their own clock.
func replay(t testing.TB, cfg Config, packets ...flow.Packet) *book {
	t.Helper()
	b := &book{}
	cfg.Record = b
	o, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Replay(func(p *flow.Packet) error {
		if len(packets) == 0 {
			return io.EOF
		}
		*p = packets[0]
		packets = packets[1:]
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReplayCountsAndLearns(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	lookup := ends("192.168.1.10:5000", "192.168.1.1:53", flow.UDP)
	b := replay(t, Config{Devices: house()},
		flow.Packet{At: at, MAC: macTV, Tuple: lookup, Length: 60, Payload: message(t, "a.example.")[:20]},
		flow.Packet{At: at.Add(1), DstMAC: macTV, Tuple: lookup.Reverse(), Length: 90, Payload: message(t, "plain.example.", "plain.example. 60 IN A 203.0.113.1")},
		flow.Packet{At: at.Add(2), MAC: macTV, Tuple: tvWeb, Flags: flow.SYN, Length: 40},
		flow.Packet{At: at.Add(3), DstMAC: macTV, Tuple: tvWeb.Reverse(), Flags: flow.SYN | flow.ACK, Length: 44},
		flow.Packet{At: at.Add(4), MAC: macTV, Tuple: tvWeb, Flags: flow.RST, Length: 40},
		flow.Packet{At: at.Add(5), MAC: macTV, Tuple: tvWeb, Flags: flow.SYN, Length: 40}, // the same ports, another connection
	)
	var got []string
	for _, e := range b.flows() {
		f := e.Flow
		got = append(got, string(e.Device)+" "+f.Tuple.DstAddrPort().String()+" "+f.Name+" "+f.NameSource.String()+
			" out "+time.Duration(f.Counters.Orig.Bytes).String()+" in "+time.Duration(f.Counters.Reply.Bytes).String())
	}
	want := []string{
		"tv 203.0.113.1:80 plain.example dns-device out 80ns in 44ns",
		"tv 192.168.1.1:53  address out 60ns in 90ns",
		"tv 203.0.113.1:80 plain.example dns-device out 40ns in 0s",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("flows (-want +got):\n%s", diff)
	}
}

func TestReplayEndsSilentFlows(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	b := replay(t, Config{Devices: house(), Idle: time.Minute},
		flow.Packet{At: at, MAC: macTV, Tuple: tvWeb, Length: 40},
		flow.Packet{At: at.Add(2 * time.Minute), MAC: macTV, Tuple: tvWeb, Length: 40},
	)
	if got := len(b.flows()); got != 2 {
		t.Errorf("%d flows, want 2", got)
	}
}

func TestReplayKeepsWhatWasRead(t *testing.T) {
	b := &book{}
	o, err := New(Config{Record: b, Devices: house()})
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	n := 0
	err = o.Replay(func(p *flow.Packet) error {
		if n++; n > 1 {
			return broken
		}
		*p = flow.Packet{At: time.Unix(1, 0), MAC: macTV, Tuple: tvWeb, Length: 40}
		return nil
	})
	if !errors.Is(err, broken) || len(b.flows()) != 1 {
		t.Errorf("error %v, %d flows", err, len(b.flows()))
	}
}

func TestOpener(t *testing.T) {
	hello, serverHello := []byte("\x16\x03\x01\x00\x05\x01\x00"), []byte("\x16\x03\x03\x00\x05\x02\x00")
	for _, tc := range []struct {
		name     string
		proto    flow.Proto
		src, dst uint16
		flags    uint8
		payload  []byte
		sender   bool
	}{
		{"SYN", flow.TCP, 443, 50000, flow.SYN, nil, true},
		{"SYN and ACK", flow.TCP, 50000, 443, flow.SYN | flow.ACK, nil, false},
		{"a ClientHello between strange ports", flow.TCP, 443, 50000, flow.ACK, hello, true},
		{"a ServerHello", flow.TCP, 50000, 50001, flow.ACK, serverHello, false},
		{"a request", flow.TCP, 80, 50001, flow.ACK, request("x.example"), true},
		{"a response", flow.TCP, 50000, 50001, flow.ACK, answer(), false},
		{"from a server's port", flow.TCP, 443, 50000, flow.ACK, []byte("x"), false},
		{"to a server's port", flow.UDP, 50000, 443, 0, []byte("x"), true},
		{"both a server's", flow.UDP, 5353, 5353, 0, nil, true},
		{"neither", flow.UDP, 40000, 50000, 0, nil, true},
		{"a DHCP client", flow.UDP, 68, 67, 0, nil, true},
		{"a DHCP server", flow.UDP, 67, 68, 0, nil, false},
	} {
		tuple := flow.Tuple{Proto: tc.proto, SrcPort: tc.src, DstPort: tc.dst}
		if got := openedBySender(&flow.Packet{Tuple: tuple, Flags: tc.flags, Payload: tc.payload}); got != tc.sender {
			t.Errorf("%s: opened by its sender %v, want %v", tc.name, got, tc.sender)
		}
	}
}
