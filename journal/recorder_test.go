package journal_test

import (
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
)

func newRecorder(t testing.TB, reg prometheus.Registerer) *journal.Recorder {
	t.Helper()
	r, err := journal.NewRecorder(journal.Config{Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func entry(i int) journal.Entry {
	return journal.Entry{Device: devices.ID(fmt.Sprint(i)), Lookup: &journal.Lookup{}}
}

func TestASlowReaderLosesAndIsCounted(t *testing.T) {
	reg := prometheus.NewRegistry()
	r := newRecorder(t, reg)
	slow, quick := r.Subscribe("slow", 2), r.Subscribe("quick", 10)
	for i := range 5 {
		r.Record(entry(i))
	}
	if got := slow.Dropped(); got != 3 {
		t.Errorf("the slow reader missed %d entries, 3 wanted", got)
	}
	if got := quick.Dropped(); got != 0 {
		t.Errorf("the quick reader missed %d entries, none wanted", got)
	}
	slow.Close()
	quick.Close()
	var order []devices.ID
	for e := range slow.C {
		order = append(order, e.Device)
	}
	if fmt.Sprint(order) != "[0 1]" {
		t.Errorf("the slow reader saw %v, the oldest two wanted", order)
	}
	if n := len(quick.C); n != 5 {
		t.Errorf("the quick reader holds %d entries, 5 wanted", n)
	}
	want := map[string]float64{"netcurtain_journal_entries_total": 5, "netcurtain_journal_dropped_total": 3}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		var sum float64
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue()
		}
		if sum != want[f.GetName()] {
			t.Errorf("%s is %v, %v wanted", f.GetName(), sum, want[f.GetName()])
		}
		delete(want, f.GetName())
	}
	if len(want) > 0 {
		t.Errorf("metrics missing: %v", want)
	}
}

// What is lost is told by what it was: a flow is not there at all, or lacks a part.
func TestLossesAreToldByKind(t *testing.T) {
	reg := prometheus.NewRegistry()
	r := newRecorder(t, reg)
	defer r.Subscribe("store", 1).Close()
	r.Record(entry(0)) // the one that fits
	for n, e := range []journal.Entry{{Flow: &journal.Flow{}}, {Flow: &journal.Flow{Part: 2}}, {Lookup: &journal.Lookup{}}, {Event: &journal.Event{}}} {
		for range n + 1 {
			r.Record(e)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if l := m.GetLabel(); f.GetName() == "netcurtain_journal_dropped_total" {
				got[l[0].GetValue()+" "+l[1].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	want := map[string]float64{"flow store": 1, "part store": 2, "lookup store": 3, "event store": 4}
	if !maps.Equal(got, want) {
		t.Errorf("lost %v, want %v", got, want)
	}
}

// Who brings more at once than a reader's buffer holds can wait for the reader: until
// half is free, and for one that hangs once and not again.
func TestEase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder(t, nil)
		s := r.Subscribe("store", 100)
		took := func() time.Duration {
			began := time.Now()
			s.Ease(time.Minute)
			return time.Since(began).Round(time.Second)
		}
		fill := func(n int) {
			for i := range n {
				r.Record(entry(i))
			}
		}
		fill(50)
		if d := took(); d != 0 {
			t.Errorf("waited %s for a reader that has room", d)
		}
		fill(30)
		go func() {
			time.Sleep(10 * time.Second)
			for range 30 {
				<-s.C
			}
		}()
		if d := took(); d != 10*time.Second {
			t.Errorf("waited %s for a reader that needs ten seconds", d)
		}
		fill(30)
		if d := took(); d != time.Minute {
			t.Errorf("waited %s for a reader that hangs, a minute wanted", d)
		}
		if d := took(); d != 0 {
			t.Errorf("waited %s more for a reader that hangs", d)
		}
		for range 60 {
			<-s.C
		}
		if took(); len(s.C) != 20 {
			t.Fatalf("%d wait", len(s.C))
		}
		fill(50)
		if d := took(); d != time.Minute {
			t.Errorf("waited %s for a reader that went on in between, and hangs again", d)
		}
		if n := s.Dropped(); n != 0 {
			t.Errorf("%d entries lost", n)
		}
	})
}

func TestACloseDuringRecordingIsSafe(t *testing.T) {
	r := newRecorder(t, nil)
	var writers, readers sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					r.Record(entry(i))
				}
			}
		})
	}
	for range 4 {
		readers.Go(func() {
			for range 200 {
				s := r.Subscribe("test", 4)
				for range 8 {
					<-s.C
				}
				s.Close()
				s.Close()
				for range s.C {
				}
			}
		})
	}
	readers.Wait()
	close(stop)
	writers.Wait()
}

func TestRecordAllocatesNothing(t *testing.T) {
	r := newRecorder(t, nil)
	s := r.Subscribe("full", 1)
	defer s.Close()
	e := entry(1)
	if n := testing.AllocsPerRun(1000, func() { r.Record(e) }); n != 0 {
		t.Errorf("Record allocates %v times, never wanted", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	r := newRecorder(b, nil)
	s := r.Subscribe("reader", 1024)
	defer s.Close()
	go func() {
		for range s.C {
		}
	}()
	e := entry(1)
	b.ReportAllocs()
	for b.Loop() {
		r.Record(e)
	}
}
