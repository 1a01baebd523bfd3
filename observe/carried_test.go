package observe

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
)

// One connection that begins in clear and goes on encrypted is two flows, and each
// says how it left the house.
func TestTheWayOutIsPartOfAFlow(t *testing.T) {
	seen := dissect.Result{App: "http", ServerName: "m.example", NameFrom: "host", Protection: flow.Readable}
	b := live(t, nil, func(o *Observer) {
		o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: 1, Tuple: tvWeb})
		for _, encrypted := range []bool{false, true, true} {
			o.Proxied(Carried{Tuple: tvWeb, MAC: macTV, Seen: seen, Encrypted: encrypted})
			synctest.Wait()
			o.Tracked(t.Context(), flow.Event{Kind: flow.Update, ID: 1, Tuple: tvWeb, Counters: count(4), At: time.Now()})
			synctest.Wait()
		}
		o.Tracked(t.Context(), flow.Event{Kind: flow.Destroy, ID: 1, Tuple: tvWeb, Counters: count(9), At: time.Now()})
	})
	var got []string
	for _, e := range b.flows() {
		got = append(got, fmt.Sprintf("%v %s %d/%d", e.Flow.CarriedEncrypted, e.Flow.Seen.Protection, e.Flow.Part, e.Flow.Counters.Orig.Packets))
	}
	if fmt.Sprint(got) != "[false readable 0/4 true readable 0/5]" {
		t.Errorf("recorded %q", got)
	}
}

// The kernel may tell of a connection before anybody knows whose its address is: the
// proxy, which asked, says it.
func TestTheProxySaysWhoseAFlowIs(t *testing.T) {
	stranger := ends("192.168.1.99:40000", "203.0.113.1:443", flow.TCP)
	b := live(t, nil, func(o *Observer) {
		o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: 1, Tuple: stranger})
		synctest.Wait()
		o.Proxied(Carried{Tuple: stranger, MAC: macTV, Seen: dissect.Result{App: "tls", ServerName: "a.example", NameFrom: "sni"}})
		synctest.Wait()
		o.Tracked(t.Context(), flow.Event{Kind: flow.Destroy, ID: 1, Tuple: stranger, Counters: count(9), At: time.Now()})
	})
	flows := b.flows()
	if len(flows) != 1 || flows[0].Device != "tv" || flows[0].Log != devices.LogNames || flows[0].Flow.Counters != count(9) {
		t.Errorf("recorded %+v", flows)
	}
}

// A connection that turns to another site takes with it what the kernel had counted
// then, whatever the last dump of the kernel's table said, before or after.
func TestBytesFollowTheTurn(t *testing.T) {
	site := func(name string, before flow.Counters) Carried {
		return Carried{Tuple: tvWeb, MAC: macTV, Before: before, Seen: dissect.Result{App: "http", ServerName: name, NameFrom: "host", Protection: flow.Readable}}
	}
	for _, tc := range []struct {
		name   string
		heard  uint64 // of the connection when the turn is told; 0 is nothing
		before flow.Counters
		want   string
	}{
		{"nothing was heard yet", 0, count(5), "[a.example 5 b.example 4]"},
		{"the last dump is old", 2, count(5), "[a.example 5 b.example 4]"},
		{"the last dump came after", 7, count(5), "[a.example 5 b.example 4]"},
		{"the kernel did not say", 7, flow.Counters{}, "[a.example 7 b.example 2]"},
		{"more was recorded already", 7, count(1), "[a.example 7 b.example 2]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := live(t, nil, func(o *Observer) {
				o.Tracked(t.Context(), flow.Event{Kind: flow.New, ID: 1, Tuple: tvWeb})
				o.Proxied(site("a.example", flow.Counters{}))
				synctest.Wait()
				if tc.heard > 0 {
					o.Tracked(t.Context(), flow.Event{Kind: flow.Update, ID: 1, Tuple: tvWeb, Counters: count(tc.heard), At: time.Now()})
				}
				if synctest.Wait(); tc.before == count(1) {
					time.Sleep(2 * time.Second)
				}
				o.Proxied(site("b.example", tc.before))
				synctest.Wait()
				o.Tracked(t.Context(), flow.Event{Kind: flow.Destroy, ID: 1, Tuple: tvWeb, Counters: count(9), At: time.Now()})
			})
			sums := map[string]uint64{}
			for _, e := range b.flows() {
				sums[e.Flow.Name] += e.Flow.Counters.Orig.Packets
			}
			if got := fmt.Sprintf("[a.example %d b.example %d]", sums["a.example"], sums["b.example"]); got != tc.want || len(sums) != 2 {
				t.Errorf("%s of %v, want %s", got, sums, tc.want)
			}
		})
	}
}

// The proxy asks by which name a device knows an address; what it was told a moment
// ago counts, what another was told does not.
func TestNameOf(t *testing.T) {
	live(t, nil, func(o *Observer) {
		o.Learn("tv", "old.example", tvWeb.DstAddr(), time.Minute)
		o.Learn("tv", "new.example", tvWeb.DstAddr(), time.Minute)
		o.Learn("lamp", "lamp.example", router, time.Minute)
		if got := o.NameOf(context.Background(), "tv", tvWeb.DstAddr()); got != "new.example" {
			t.Errorf("the television knows it as %q", got)
		}
		if got := o.NameOf(context.Background(), "tv", router); got != "" {
			t.Errorf("what the lamp was told names the television's: %q", got)
		}
		time.Sleep(3 * time.Hour)
		if got := o.NameOf(context.Background(), "tv", tvWeb.DstAddr()); got != "" {
			t.Errorf("hours later it is still %q", got)
		}
	})
	o, err := New(Config{Record: &book{}}) // nobody runs it
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if got := o.NameOf(ctx, "tv", router); got != "" {
		t.Errorf("nobody answers %q", got)
	}
}
