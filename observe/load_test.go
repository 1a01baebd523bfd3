package observe

import (
	"context"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/flow"
)

// heapAfter is what lives once garbage is gone.
func heapAfter() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// resident is the process's resident memory, as the kernel words it.
func resident() string {
	b, _ := os.ReadFile("/proc/self/status") // only where there is one
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return "unknown"
}

// 20,000 running flows of each kind that homes speak most, and of all in turn,
// stay within the 12 MB that a small router has for them.
func TestMemoryOfRunningFlows(t *testing.T) {
	const flows, limit = 20_000, 12_000_000
	for name, kinds := range kindsOfFlows(t) {
		before := heapAfter()
		c := budgetCore(t, house())
		for i := range flows {
			begin(c, kinds[i%len(kinds)], i)
		}
		c.sweep()
		used := heapAfter() - before
		t.Logf("%s: %.2f MB, %d octets a flow", name, float64(used)/1e6, used/flows)
		if used > limit || c.flows.Len() != flows {
			t.Errorf("%s: %d flows hold %d octets, at most %d are allowed", name, c.flows.Len(), used, limit)
		}
		runtime.KeepAlive(c)
	}
}

// Whoever opens flows and never finishes a hello fills the common budget of
// buffers, not the router.
func TestHeldBuffersAreBounded(t *testing.T) {
	c := budgetCore(t, house())
	long := append([]byte{0x16, 3, 1, 0x3f, 0, 1, 0, 0x3a, 0xfc, 3, 3}, make([]byte, 1900)...) // the beginning of one of 15 kB
	for i := range 3000 {
		tuple := flow.NewTuple(flow.TCP, netip.AddrPortFrom(netip.MustParseAddr("192.168.1.10"), uint16(1000+i)), netip.MustParseAddrPort("203.0.113.1:443"))
		for part := range uint32(5) {
			c.packet(&flow.Packet{MAC: macTV, Tuple: tuple, Seq: 1 + part*1911, Flags: flow.ACK, Length: 1951, Payload: long})
		}
		if c.reading.held > maxHeld {
			t.Fatalf("after %d flows %d octets are held, at most %d are allowed", i+1, c.reading.held, maxHeld)
		}
	}
	if c.reading.open < 100 {
		t.Errorf("only %d conversations are open: the budget is too small for ordinary ones", c.reading.open)
	}
	c.now = c.now.Add(time.Hour)
	c.sweep()
	if c.reading.open != 0 || c.reading.held != 0 {
		t.Errorf("with none open (%d) %d octets count as held", c.reading.open, c.reading.held)
	}
}

// Memory does not grow with the flows that were: a hundred thousand here, a
// million with NETCURTAIN_FULL set.
func TestMemoryIsSteady(t *testing.T) {
	rounds, each := 10, 10_000
	if os.Getenv("NETCURTAIN_FULL") != "" {
		each = 100_000
	}
	kinds := kindsOfFlows(t)["mixed"]
	c := budgetCore(t, house())
	c.cfg.Record = nowhere{}
	var first int64
	rss := resident()
	for round := range rounds {
		for i := range each {
			k := kinds[i%len(kinds)]
			begin(c, k, i)
			if i%3 != 0 { // most end; some are never heard of again
				tuple := tupleOf(k, i)
				c.event(&flow.Event{Kind: flow.Destroy, ID: uint32(i + 1), Tuple: tuple, Counters: count(1)})
			}
			if c.now = c.now.Add(time.Millisecond); i%1000 == 0 {
				c.sweep()
			}
		}
		c.now = c.now.Add(time.Hour) // silence ends the rest
		c.sweep()
		if c.flows.Len() != 0 {
			t.Fatalf("%d flows run after an hour of silence", c.flows.Len())
		}
		if round == 1 {
			first = heapAfter()
		}
	}
	last := heapAfter()
	t.Logf("heap after %d flows %d kB, after %d flows %d kB; resident before %s, after %s", 2*each, first/1000, rounds*each, last/1000, rss, resident())
	if last > first+1_000_000 {
		t.Errorf("%d octets more live after %d flows than after %d", last-first, rounds*each, 2*each)
	}
	runtime.KeepAlive(c)
}

// On one core, ten thousand flows that come as fast as they can be handed over are
// taken in without loss: who reads from the kernel lets the owner go first.
func TestOneCoreKeepsUp(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const flows = 10_000
	kinds := kindsOfFlows(t)["mixed"]
	reg := prometheus.NewRegistry()
	o, err := New(Config{Devices: house(), Record: nowhere{}, Metrics: reg})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	start := time.Now()
	for i := range flows {
		k, tuple := kinds[i%len(kinds)], tupleOf(kinds[i%len(kinds)], i)
		o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: uint32(i + 1), Tuple: tuple, At: time.Now()})
		if k.up != nil {
			o.Packet(flow.Packet{At: time.Now(), MAC: macTV, Tuple: tuple, Seq: 1, Flags: flow.ACK, Length: 40 + len(k.up), Payload: k.up})
		}
		if k.down != nil {
			o.Packet(flow.Packet{At: time.Now(), Tuple: tuple.Reverse(), Seq: 1, Flags: flow.ACK, Length: 40 + len(k.down), Payload: k.down})
		}
		o.Tracked(t.Context(), flow.Event{Kind: flow.Destroy, ID: uint32(i + 1), Tuple: tuple, Counters: count(1), At: time.Now()})
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Logf("%.0f flows a second", flows/time.Since(start).Seconds())
	for queue, n := range values(t, reg, "netcurtain_observe_dropped_messages_total") {
		t.Errorf("%v lost in queue %q", n, queue)
	}
	if got := values(t, reg, "netcurtain_observe_recorded_flows_total")[""]; got != flows {
		t.Errorf("%v flows were recorded, want %d", got, flows)
	}
}
