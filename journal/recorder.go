package journal

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config is what a Recorder needs.
type Config struct {
	Registerer prometheus.Registerer // nil: no metrics
}

// Recorder hands each Entry to every subscriber. It has no goroutine and no
// queue of its own: each subscriber brings its own bounded buffer, and a slow
// one loses entries, which is counted, without slowing the recorder or the others.
type Recorder struct {
	entries prometheus.Counter
	dropped *prometheus.CounterVec
	held    prometheus.Counter
	rare    *rare

	// mu guards subs, and keeps Close from closing a channel under a send. It is
	// held for as long as it takes to offer one entry to each subscriber.
	mu   sync.RWMutex
	subs []*Subscription
}

// NewRecorder registers the metrics of a Recorder.
func NewRecorder(c Config) (*Recorder, error) {
	r := &Recorder{
		entries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "netcurtain_journal_entries_total",
			Help: "Look-ups, flows and events that were recorded.",
		}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "netcurtain_journal_dropped_total",
			Help: "Entries that a reader was too slow for: a flow's first, a later part of one, look-ups, rare events.",
		}, []string{"entry", "subscriber"}),
		held: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "netcurtain_journal_events_held_back_total",
			Help: "Rare events that were told before, or were more than a day may bring.",
		}),
		rare: newRare(),
	}
	if c.Registerer == nil {
		return r, nil
	}
	for _, m := range []prometheus.Collector{r.entries, r.dropped, r.held} {
		if err := c.Registerer.Register(m); err != nil {
			return nil, fmt.Errorf("journal metrics: %w", err)
		}
	}
	return r, nil
}

// Record offers e to every subscriber and returns at once, whether they had
// room or not. It may be called from any goroutine and allocates nothing. A
// device's rare event that was told before goes to nobody, and neither does one
// that is more than a day may bring.
func (r *Recorder) Record(e Entry) {
	if e.Event != nil && !r.rare.tell(&e) {
		r.held.Inc()
		return
	}
	r.entries.Inc()
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, s := range r.subs {
		s.offer(e)
	}
}

// Subscribe returns a reader of everything recorded from now on, with room for
// buffer entries (at least one). The name labels a metric: it is a word of our
// own ("store", "live"), and may be used by several subscriptions. The caller
// closes the subscription.
func (r *Recorder) Subscribe(name string, buffer int) *Subscription {
	c := make(chan Entry, max(buffer, 1))
	s := &Subscription{C: c, send: c, recorder: r}
	for k := range s.total {
		s.total[k] = r.dropped.WithLabelValues(kind(k).String(), name)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.subs = append(r.subs, s)
	return s
}

// Subscription is one reader's bounded view of the journal.
type Subscription struct {
	// C brings entries in the order in which they were recorded. Close closes it.
	C <-chan Entry

	send     chan<- Entry
	recorder *Recorder
	total    [kinds]prometheus.Counter
	dropped  atomic.Int64
	hangs    atomic.Bool // Ease waited in vain
}

func (s *Subscription) offer(e Entry) {
	select {
	case s.send <- e:
	default:
		s.dropped.Add(1)
		s.total[e.kind()].Inc()
	}
}

// Dropped is how many entries this reader missed because C was full.
func (s *Subscription) Dropped() int64 { return s.dropped.Load() }

// Ease waits until at least half of C is free, at most for so long; then it does not
// wait again before that is so, lest a reader that hangs take its writers along. It is
// for who brings more at once than C holds, and has room of its own for what comes meanwhile.
func (s *Subscription) Ease(atMost time.Duration) {
	half := cap(s.send) / 2
	if len(s.send) <= half {
		s.hangs.Store(false)
		return
	}
	if s.hangs.Load() {
		return
	}
	for began := time.Now(); len(s.send) > half; time.Sleep(200 * time.Microsecond) {
		if time.Since(began) > atMost {
			s.hangs.Store(true)
			return
		}
	}
}

// Close ends the subscription and closes C; what is still in C can be read. A
// second Close does nothing.
func (s *Subscription) Close() {
	r := s.recorder
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.subs, s); i >= 0 {
		r.subs = slices.Delete(r.subs, i, i+1)
		close(s.send)
	}
}
