package observe

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	running   prometheus.Gauge
	reading   prometheus.Gauge
	recorded  prometheus.Counter
	evicted   prometheus.Counter
	forgotten prometheus.Counter
	dropped   *prometheus.CounterVec
	blocks    *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	const prefix = "netcurtain_observe_"
	m := &metrics{
		running: prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "running_flows",
			Help: "Flows that are running."}),
		reading: prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "open_conversations",
			Help: "Flows whose first bytes are being read."}),
		recorded: prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + "recorded_flows_total",
			Help: "Flows handed to the journal."}),
		evicted: prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + "evicted_flows_total",
			Help: "Flows recorded before their end because the table was full."}),
		forgotten: prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + "forgotten_flows_total",
			Help: "Flows recorded before their end that had to be forgotten, and may be counted again."}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "dropped_messages_total",
			Help: "What came in, or was to go out, while its queue was full."}, []string{"queue"}),
		blocks: prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "blocks_total",
			Help: "Flows that policy wanted stopped, by what became of it."}, []string{"result"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.running, m.reading, m.recorded, m.evicted, m.forgotten, m.dropped, m.blocks} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("observe metrics: %w", err)
		}
	}
	return m, nil
}
