//go:build linux

package conntrack_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	timo "github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/conntrack"
	"github.com/netcurtain/netcurtain/internal/netlab"
	"github.com/netcurtain/netcurtain/internal/netlab/labtest"
)

func table(t testing.TB, registry *prometheus.Registry) *conntrack.Table {
	t.Helper()
	c, err := conntrack.New(conntrack.Config{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// lab is a house whose router counts bytes, with an echo server on the internet.
type lab struct {
	t      testing.TB
	house  *netlab.House
	table  *conntrack.Table
	events chan flow.Event
}

var server = netip.MustParseAddrPort("198.51.100.7:7")

func newLab(t testing.TB) *lab {
	h := labtest.House(t, netlab.Plan{
		Devices:  []netlab.DevicePlan{{Name: "tv", Number: 10}},
		Internet: []netip.Addr{server.Addr()},
	})
	l := &lab{t: t, house: h, table: table(t, prometheus.NewRegistry()), events: make(chan flow.Event, 1000)}
	err := h.Router.Do(func() error {
		for name, value := range map[string]string{"acct": "1", "timestamp": "1", "tcp_timeout_time_wait": "1"} {
			if err := os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_"+name, []byte(value), 0); err != nil {
				return err
			}
		}
		return l.table.Check()
	})
	if err != nil {
		t.Fatal(err)
	}
	l.echo()
	return l
}

// echo answers each connection with what it sends, until it is closed.
func (l *lab) echo() {
	err := l.house.Internet.Do(func() error {
		ln, err := net.Listen("tcp4", server.String())
		if err != nil {
			return err
		}
		l.t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					_, _ = io.Copy(c, c)
				}()
			}
		}()
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// follow runs the event source in the router and waits until it hears.
func (l *lab) follow() (stop func() error) {
	ctx, cancel := context.WithCancel(l.t.Context())
	l.t.Cleanup(cancel)
	done := make(chan error, 1)
	go func() {
		done <- l.house.Router.Do(func() error { return l.table.Run(ctx, func(e flow.Event) { l.events <- e }) })
	}()
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) { // a look that nobody answers makes an event for sure
		if c := l.dial("udp4", "198.51.100.7:9"); c != nil {
			_, _ = c.Write([]byte("?"))
			c.Close()
		}
		select {
		case <-l.events:
			return func() error { cancel(); return <-done }
		case err := <-done:
			l.t.Fatalf("events ended: %v", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	l.t.Fatal("no event at all")
	return nil
}

func (l *lab) dial(network, addr string) (c net.Conn) {
	l.t.Helper()
	if err := l.house.Devices["tv"].Do(func() (err error) { c, err = net.Dial(network, addr); return err }); err != nil {
		l.t.Fatal(err)
	}
	return c
}

// await returns the first event that fits. The kernel may take a minute to
// notice that an entry is over, a dump makes it look at once.
func (l *lab) await(kind flow.Kind, tuple flow.Tuple) flow.Event {
	l.t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case e := <-l.events:
			if e.Kind == kind && e.Tuple == tuple {
				return e
			}
		case <-time.After(500 * time.Millisecond):
			err := l.house.Router.Do(func() error { return l.table.Dump(l.t.Context(), func(flow.Event) {}) })
			if err != nil {
				l.t.Fatal(err)
			}
		case <-timeout:
			l.t.Fatalf("no event of kind %d for %v", kind, tuple)
		}
	}
}

func tupleOf(c net.Conn) flow.Tuple {
	return flow.NewTuple(flow.TCP, netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(c.RemoteAddr().String()))
}

func exchange(t testing.TB, c net.Conn, n int) {
	t.Helper()
	if _, err := c.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
}

// counted asks nft for the bytes of a named counter in the router.
func (l *lab) counted(name string) (packets, bytes uint64) {
	l.t.Helper()
	out, err := l.house.Router.Command(l.t.Context(), "nft", "list", "counter", "inet", "measure", name).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%v: %s", err, out)
	}
	i := strings.Index(string(out), "packets")
	if _, err := fmt.Sscanf(string(out[i:]), "packets %d bytes %d", &packets, &bytes); err != nil {
		l.t.Fatalf("%v: %s", err, out)
	}
	return packets, bytes
}

func TestEventsCarryExactBytes(t *testing.T) {
	l := newLab(t)
	stop := l.follow()
	nft := l.house.Router.Command(t.Context(), "nft", "-f", "-")
	nft.Stdin = strings.NewReader(`table inet measure {
	counter up {}
	counter down {}
	chain fw {
		type filter hook forward priority 0;
		tcp dport 7 counter name up
		tcp sport 7 counter name down
	}
}
`)
	if out, err := nft.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	began := time.Now()
	c := l.dial("tcp4", server.String())
	tuple := tupleOf(c)
	first := l.await(flow.New, tuple)
	if first.ID == 0 || first.At.IsZero() || first.Reply.DstAddr() != netlab.RouterWAN4.Addr() || first.Reply.SrcAddrPort() != server {
		t.Errorf("NEW: %+v", first)
	}
	exchange(t, c, 100_000)
	c.Close()
	last := l.await(flow.Destroy, tuple)
	if last.ID != first.ID {
		t.Errorf("its ID changed from %d to %d", first.ID, last.ID)
	}
	up, upBytes := l.counted("up")
	down, downBytes := l.counted("down")
	want := flow.Counters{Orig: flow.Count{Packets: up, Bytes: upBytes}, Reply: flow.Count{Packets: down, Bytes: downBytes}}
	if last.Counters != want || upBytes < 100_000 {
		t.Errorf("conntrack counted %+v, nft %+v", last.Counters, want)
	}
	if last.Start.Before(began.Add(-time.Second)) || last.Stop.Before(last.Start) || last.Stop.After(time.Now()) {
		t.Errorf("times %s to %s, began %s", last.Start, last.Stop, began)
	}
	if err := stop(); err != nil {
		t.Errorf("after cancel: %v", err)
	}
}

func TestDump(t *testing.T) {
	l := newLab(t)
	c := l.dial("tcp4", server.String())
	defer c.Close()
	exchange(t, c, 5000)
	tuple := tupleOf(c)
	find := func() (found flow.Event, n int) {
		t.Helper()
		err := l.house.Router.Do(func() error {
			return l.table.Dump(t.Context(), func(e flow.Event) {
				if n++; e.Tuple == tuple {
					found = e
				}
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		return found, n
	}
	live, n := find()
	if live.Kind != flow.Update || live.ID == 0 || live.Counters.Orig.Bytes < 5000 || live.Counters.Reply.Bytes < 5000 || live.Start.IsZero() {
		t.Fatalf("of %d entries, ours is %+v", n, live)
	}
	exchange(t, c, 5000)
	if more, _ := find(); more.ID != live.ID || more.Counters.Orig.Bytes < live.Counters.Orig.Bytes+5000 {
		t.Errorf("counters went from %+v to %+v", live.Counters, more.Counters)
	}
}

// An independent implementation must see the same table.
func TestDumpAgreesWithAnotherReader(t *testing.T) {
	l := newLab(t)
	for i := range 50 {
		c := l.dial("udp4", fmt.Sprintf("198.51.100.7:%d", 1000+i))
		_, _ = c.Write([]byte("hello"))
		c.Close()
	}
	for range 5 {
		c := l.dial("tcp4", server.String())
		defer c.Close()
		exchange(t, c, 100)
	}
	var ours, theirs map[uint32]string
	look := func() error {
		ours, theirs = map[uint32]string{}, map[uint32]string{}
		err := l.table.Dump(t.Context(), func(e flow.Event) {
			ours[e.ID] = fmt.Sprint(e.Tuple.Proto, e.Tuple.SrcAddrPort(), e.Tuple.DstAddrPort(), e.Reply.SrcAddrPort(), e.Reply.DstAddrPort(), e.Counters, e.Mark, e.Start.UnixNano())
		})
		if err != nil {
			return err
		}
		other, err := timo.Dial(nil)
		if err != nil {
			return err
		}
		defer other.Close()
		flows, err := other.Dump(nil)
		for _, f := range flows {
			end := func(a netip.Addr, p uint16) netip.AddrPort { return netip.AddrPortFrom(a, p) }
			theirs[f.ID] = fmt.Sprint(flow.Proto(f.TupleOrig.Proto.Protocol),
				end(f.TupleOrig.IP.SourceAddress, f.TupleOrig.Proto.SourcePort), end(f.TupleOrig.IP.DestinationAddress, f.TupleOrig.Proto.DestinationPort),
				end(f.TupleReply.IP.SourceAddress, f.TupleReply.Proto.SourcePort), end(f.TupleReply.IP.DestinationAddress, f.TupleReply.Proto.DestinationPort),
				flow.Counters{
					Orig:  flow.Count{Packets: f.CountersOrig.Packets, Bytes: f.CountersOrig.Bytes},
					Reply: flow.Count{Packets: f.CountersReply.Packets, Bytes: f.CountersReply.Bytes},
				}, f.Mark, f.Timestamp.Start.UnixNano())
		}
		return err
	}
	// The last acknowledgements may be on their way between the two looks.
	for deadline := time.Now().Add(20 * time.Second); ; {
		if err := l.house.Router.Do(look); err != nil {
			t.Fatal(err)
		}
		if len(ours) >= 55 && maps.Equal(ours, theirs) || time.Now().After(deadline) {
			break
		}
	}
	if len(ours) < 55 || len(ours) != len(theirs) {
		t.Errorf("we see %d entries, the other reader %d", len(ours), len(theirs))
	}
	for id, f := range theirs {
		if ours[id] != f {
			t.Errorf("entry %d:\n  ours  %s\n  other %s", id, ours[id], f)
		}
	}
}

// Too slow a reader loses events; that must show, and reading must go on.
func TestOverflowIsCounted(t *testing.T) {
	l := newLab(t)
	registry := prometheus.NewRegistry()
	small, err := conntrack.New(conntrack.Config{Logger: slog.New(slog.DiscardHandler), Registerer: registry, ReadBuffer: 4096})
	if err != nil {
		t.Fatal(err)
	}
	l.table = small
	stop := l.follow()
	for range cap(l.events) + 500 { // nobody reads l.events meanwhile
		c := l.dial("udp4", "198.51.100.7:9")
		_, _ = c.Write([]byte("x"))
		c.Close()
	}
	deadline := time.Now().Add(time.Minute)
	for value(t, registry, "netcurtain_conntrack_overflows_total") == 0 {
		if time.Now().After(deadline) {
			t.Fatal("no overflow was counted")
		}
		select {
		case <-l.events:
		case <-time.After(10 * time.Millisecond):
		}
	}
	// The kernel keeps dropping until its queue was read empty once.
	again := func() bool {
		c := l.dial("tcp4", server.String())
		defer c.Close()
		for {
			select {
			case e := <-l.events:
				if e.Kind == flow.New && e.Tuple == tupleOf(c) {
					return true
				}
			case <-time.After(200 * time.Millisecond):
				return false
			}
		}
	}
	for deadline := time.Now().Add(time.Minute); !again(); {
		if time.Now().After(deadline) {
			t.Fatal("no event after an overflow")
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func value(t testing.TB, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestCheck(t *testing.T) {
	const dir = "proc/sys/net/netfilter/nf_conntrack_"
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	for want, files := range map[string]fstest.MapFS{
		"":                                     {dir + "acct": file("1\n"), dir + "timestamp": file("1\n")},
		"net.netfilter.nf_conntrack_acct is 0": {dir + "acct": file("0\n"), dir + "timestamp": file("1\n")},
		"nf_conntrack_timestamp is 0":          {dir + "acct": file("1\n"), dir + "timestamp": file("0\n")},
		"reading a conntrack setting":          {},
	} {
		c, err := conntrack.New(conntrack.Config{Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), FS: files})
		if err != nil {
			t.Fatal(err)
		}
		err = c.Check()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Check gives %v, want %q", err, want)
		}
	}
}

func BenchmarkDump(b *testing.B) {
	l := newLab(b)
	var c net.PacketConn
	err := l.house.Devices["tv"].Do(func() (err error) { c, err = net.ListenPacket("udp4", ":0"); return err })
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for i := range 10_000 {
		_, _ = c.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(server.Addr(), uint16(1000+i))))
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n = 0
		if err := l.house.Router.Do(func() error { return l.table.Dump(b.Context(), func(flow.Event) { n++ }) }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n), "entries")
}

// The counters of one connection are those that a dump tells.
func TestCounters(t *testing.T) {
	l := newLab(t)
	c := l.dial("tcp4", server.String())
	defer c.Close()
	exchange(t, c, 5000)
	tuple := tupleOf(c)
	missing := tuple
	missing.SrcPort++
	var told, before, after flow.Counters
	err := l.house.Router.Do(func() (err error) {
		// The last acknowledgement may be on its way.
		for before.Orig.Packets == 0 || before != after {
			if before, err = l.table.Counters(tuple); err != nil {
				return err
			}
			if err = l.table.Dump(t.Context(), func(e flow.Event) {
				if e.Tuple == tuple {
					told = e.Counters
				}
			}); err != nil {
				return err
			}
			if after, err = l.table.Counters(tuple); err != nil {
				return err
			}
		}
		if _, err := l.table.Counters(missing); !errors.Is(err, unix.ENOENT) {
			t.Errorf("of a connection that is not there: %v", err)
		}
		return nil
	})
	if err != nil || told != before || told.Orig.Bytes < 5000 || told.Reply.Bytes < 5000 {
		t.Errorf("%+v, %v; the dump has %+v", before, err, told)
	}
}

func BenchmarkCounters(b *testing.B) {
	l := newLab(b)
	c := l.dial("tcp4", server.String())
	defer c.Close()
	tuple := tupleOf(c)
	err := l.house.Router.Do(func() error {
		for b.Loop() {
			if _, err := l.table.Counters(tuple); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}
