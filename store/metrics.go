package store

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	written, dropped, pruned, replaced prometheus.Counter
	flush                              prometheus.Histogram
}

func newMetrics(c Config) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		written:  counter("netcurtain_store_rows_written_total", "Flows, look-ups and events that were written or counted."),
		dropped:  counter("netcurtain_store_rows_dropped_total", "Flows, look-ups and events of batches that could not be written."),
		pruned:   counter("netcurtain_store_rows_pruned_total", "Rows removed for their age or for the byte budget."),
		replaced: counter("netcurtain_store_ledgers_replaced_total", "Ledgers put aside because they could not be read."),
		flush: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "netcurtain_store_flush_duration_seconds",
			Help:    "How long writing one batch took.",
			Buckets: []float64{.001, .005, .02, .1, .5, 2, 10},
		}),
	}
	all := []prometheus.Collector{m.written, m.dropped, m.pruned, m.replaced, m.flush}
	for name, path := range map[string]string{"household": c.HouseholdPath, "ledger": c.LedgerPath, "memory": c.MemoryPath} {
		if path == "" {
			continue
		}
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "netcurtain_store_file_bytes",
			Help:        "Size of a database file with its journals.",
			ConstLabels: prometheus.Labels{"file": name},
		}, func() float64 { return float64(sizeOf(path)) }))
	}
	if c.Registerer == nil {
		return m, nil
	}
	for _, one := range all {
		if err := c.Registerer.Register(one); err != nil {
			return nil, fmt.Errorf("store metrics: %w", err)
		}
	}
	return m, nil
}
