package observe

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/journal"
)

func budgetCore(t testing.TB, devs Devices) *core {
	t.Helper()
	o, err := New(Config{Devices: devs, Record: &book{}})
	if err != nil {
		t.Fatal(err)
	}
	o.core.now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return o.core
}

// The hot path's budget: nothing is allocated for a packet or an event of a flow
// that is known, nor for what waits in a queue that has been used before.
func TestAllocationBudget(t *testing.T) {
	c := budgetCore(t, house())
	p := flow.Packet{MAC: macTV, Tuple: tvWeb, Flags: flow.ACK, Length: 1500, Payload: request("a.example")}
	c.packet(&p) // settles at once: the request is whole
	e := flow.Event{Kind: flow.Update, ID: 1, Tuple: tvWeb, Counters: count(1)}
	if n := testing.AllocsPerRun(1000, func() { c.packet(&p) }); n != 0 {
		t.Errorf("a packet of a known flow costs %v allocations, 0 are allowed", n)
	}
	if n := testing.AllocsPerRun(1000, func() { e.Counters.Orig.Bytes++; c.event(&e) }); n != 0 {
		t.Errorf("an event of a known flow costs %v allocations, 0 are allowed", n)
	}

	o, err := New(Config{Devices: house(), Record: &book{}})
	if err != nil {
		t.Fatal(err)
	}
	var spare batch
	o.core.now = c.now
	if n := testing.AllocsPerRun(1000, func() {
		for range 8 {
			o.Packet(p)
			o.Tracked(t.Context(), e)
		}
		<-o.inbox.wake
		full := o.inbox.take(spare)
		o.core.takeIn(&full)
		spare = full.emptied()
	}); n > 0 {
		t.Errorf("a batch of eight packets and events costs %v allocations, 0 are allowed", n)
	}
}

// BenchmarkPacket is a packet of a flow whose first bytes have been read.
func BenchmarkPacket(b *testing.B) {
	c := budgetCore(b, house())
	p := flow.Packet{MAC: macTV, Tuple: tvWeb, Flags: flow.ACK, Length: 1500, Payload: request("a.example")}
	c.packet(&p)
	b.ReportAllocs()
	for b.Loop() {
		c.packet(&p)
	}
}

// BenchmarkNewFlow is a whole short life: event, request, answer, end.
func BenchmarkNewFlow(b *testing.B) {
	c := budgetCore(b, house())
	c.cfg.Record = nowhere{}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		t := tvWeb
		t.SrcPort = uint16(i)
		e := flow.Event{Kind: flow.New, ID: uint32(i + 1), Tuple: t}
		c.event(&e)
		c.packet(&flow.Packet{MAC: macTV, Tuple: t, Flags: flow.ACK, Length: 1500, Payload: request("a.example")})
		c.packet(&flow.Packet{Tuple: t.Reverse(), Flags: flow.ACK, Length: 1500, Payload: answer()})
		e.Kind, e.Counters = flow.Destroy, count(1)
		c.event(&e)
	}
}

// BenchmarkRunningFlows reports what 20,000 running, named flows hold in memory: of
// each kind alone, and of all in turn. The bound of the whole is 12 MB.
func BenchmarkRunningFlows(b *testing.B) {
	const flows = 20_000
	for name, kinds := range kindsOfFlows(b) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				c := budgetCore(b, house())
				for i := range flows {
					begin(c, kinds[i%len(kinds)], i)
				}
				c.sweep()
				runtime.GC()
				runtime.ReadMemStats(&after)
				if c.flows.Len() != flows {
					b.Fatalf("%d flows run", c.flows.Len())
				}
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/flows, "octets/flow")
				runtime.KeepAlive(c)
			}
		})
	}
}

// aKind is what the two sides of a kind of flow say first.
type aKind struct {
	proto    flow.Proto
	port     uint16
	up, down []byte
}

// kindsOfFlows are the kinds that homes speak most.
func kindsOfFlows(tb testing.TB) map[string][]aKind {
	hello, choice := tlsFlight(tb)
	tls := aKind{flow.TCP, 443, hello, choice}
	http := aKind{flow.TCP, 80, request("www.some-longer-name.example"), answer()}
	quic := aKind{flow.UDP, 443, quicInitial(tb), nil}
	dns := aKind{flow.UDP, 53, dnsQuery("www.some-longer-name.example"), nil}
	unread := aKind{flow.TCP, 8883, nil, nil} // known by connection tracking alone
	return map[string][]aKind{
		"TLS": {tls}, "HTTP": {http}, "QUIC": {quic}, "DNS": {dns}, "mixed": {tls, quic, http, dns, tls, unread},
	}
}

// tupleOf is the i-th flow, if it is of kind k.
func tupleOf(k aKind, i int) flow.Tuple {
	t := flow.NewTuple(k.proto, netip.AddrPortFrom(netip.MustParseAddr("192.168.1.10"), uint16(i)),
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i % 50)}), k.port))
	t.Src[15] = byte(10 + 10*(i>>16)) // more flows than one address has ports
	return t
}

// begin takes in the beginning of the i-th flow.
func begin(c *core, k aKind, i int) {
	t := tupleOf(k, i)
	e := flow.Event{Kind: flow.New, ID: uint32(i + 1), Tuple: t}
	c.event(&e)
	if k.up != nil {
		c.packet(&flow.Packet{MAC: macTV, Tuple: t, Seq: 1, Flags: flow.ACK, Length: 40 + len(k.up), Payload: k.up})
	}
	if k.down != nil {
		c.packet(&flow.Packet{Tuple: t.Reverse(), Seq: 1, Flags: flow.ACK, Length: 40 + len(k.down), Payload: k.down})
	}
}

type nowhere struct{}

func (nowhere) Record(journal.Entry) {}
