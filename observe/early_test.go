package observe

import (
	"net/netip"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/flow"
)

// More flows than the table holds, told of by the kernel in full several times
// over: each is recorded once, with all of its bytes.
func TestABurstIsCountedOnce(t *testing.T) {
	b := &book{}
	o, err := New(Config{Devices: house(), Record: b, Flows: 100})
	if err != nil {
		t.Fatal(err)
	}
	c := o.core
	c.now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const n = 1000
	event := func(kind flow.Kind, i int, counters flow.Counters) {
		e := flow.Event{Kind: kind, ID: uint32(i + 1), Counters: counters, Start: c.now.Add(time.Second),
			Tuple: flow.NewTuple(flow.UDP, netip.MustParseAddrPort("192.168.1.10:4000"), netip.AddrPortFrom(netip.MustParseAddr("203.0.113.1"), uint16(1000+i)))}
		c.event(&e)
	}
	all := func(kind flow.Kind, counters flow.Counters) {
		for i := range n {
			event(kind, i, counters)
		}
	}
	c.started = c.now
	all(flow.New, flow.Counters{})
	for range 3 {
		c.now = c.now.Add(10 * time.Second)
		all(flow.Update, count(1))
		c.sweep()
	}
	c.now = c.now.Add(10 * time.Second)
	all(flow.Update, count(2)) // each sent more
	if len(c.early.told) < n-100 {
		t.Errorf("%d flows are known to be recorded early", len(c.early.told))
	}
	all(flow.Destroy, count(2))
	c.endAll()
	var flows, bytes uint64
	for _, e := range b.flows() {
		if e.Flow.Part == 0 {
			flows++
		}
		bytes += e.Flow.Counters.Orig.Bytes
	}
	if flows != n || bytes != n*count(2).Orig.Bytes {
		t.Errorf("%d flows with %d bytes recorded, %d with %d wanted", flows, bytes, n, n*count(2).Orig.Bytes)
	}
	if len(c.early.told) != 0 || c.early.told != nil {
		t.Errorf("%d flows are held after their end", len(c.early.told))
	}
}

// What a burst drives out of the table before anything was counted of it is a flow,
// though the kernel had no room for the news of its end.
func TestABurstWithoutAnEndIsCounted(t *testing.T) {
	b := &book{}
	o, err := New(Config{Devices: house(), Record: b, Flows: 100})
	if err != nil {
		t.Fatal(err)
	}
	c := o.core
	c.now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for i := range 1000 {
		c.event(&flow.Event{Kind: flow.New, ID: uint32(i + 1), Tuple: flow.NewTuple(flow.UDP,
			netip.MustParseAddrPort("192.168.1.10:4000"), netip.AddrPortFrom(netip.MustParseAddr("203.0.113.1"), uint16(1000+i)))})
	}
	c.endAll()
	if got := len(b.flows()); got != 1000 {
		t.Errorf("%d flows are recorded, 1000 wanted", got)
	}
}

func TestEarlyIsBounded(t *testing.T) {
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	x := newEarly(m)
	for i := range maxEarly + 10 {
		x.put(tvWeb, uint32(i), recorded{})
	}
	if len(x.told) != maxEarly {
		t.Errorf("%d are held, at most %d wanted", len(x.told), maxEarly)
	}
}

// The kernel's table may tell of a connection before its event is read, right after
// our start, too: whether it ran before us says its beginning.
func TestADumpIsReadBeforeTheEvent(t *testing.T) {
	began := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		why   string
		start time.Time // of the connection, where the kernel says it
		dump  time.Time
		want  uint64 // packets
	}{
		{"began since", began.Add(time.Second), began.Add(2 * time.Second), 9},
		{"ran before us", began.Add(-time.Second), began.Add(2 * time.Second), 4},
		{"ran before us, told late", began.Add(-time.Second), began.Add(time.Minute), 4},
		{"of the first dump, from a kernel that dates nothing", time.Time{}, began.Add(2 * time.Second), 4},
		{"of a later one", time.Time{}, began.Add(time.Minute), 9},
	} {
		b := &book{}
		o, err := New(Config{Devices: house(), Record: b})
		if err != nil {
			t.Fatal(err)
		}
		o.core.started, o.core.now = began, c.dump
		o.core.event(&flow.Event{Kind: flow.Update, ID: 1, Tuple: tvWeb, Start: c.start, Counters: count(5)})
		o.core.event(&flow.Event{Kind: flow.New, ID: 1, Tuple: tvWeb, Start: c.start})
		o.core.event(&flow.Event{Kind: flow.Destroy, ID: 1, Tuple: tvWeb, Start: c.start, Counters: count(9)})
		var got uint64
		for _, e := range b.flows() {
			got += e.Flow.Counters.Orig.Packets
		}
		if got != c.want {
			t.Errorf("%s: %d packets recorded, want %d", c.why, got, c.want)
		}
	}
}
