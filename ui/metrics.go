package ui

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are this room's own; none is labelled by device, name or address.
type metrics struct {
	requests *prometheus.CounterVec
	refused  prometheus.Counter
	sent     prometheus.Counter
	render   prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, readers func() float64) (metrics, error) {
	m := metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "netcurtain_ui_requests_total", Help: "HTTP requests answered, by surface (tcp, control) and class of status.",
		}, []string{"surface", "status"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "netcurtain_ui_live_refused_total", Help: "Live feeds refused because too many were open.",
		}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "netcurtain_ui_live_entries_total", Help: "Entries written to live feeds.",
		}),
		render: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "netcurtain_ui_page_seconds", Help: "Time from asking the ledger for a page to its last byte.",
			Buckets: []float64{.005, .02, .05, .2, 1, 5},
		}),
	}
	if reg == nil {
		return m, nil
	}
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "netcurtain_ui_live_readers", Help: "Live feeds open now.",
	}, readers)
	for _, c := range []prometheus.Collector{m.requests, m.refused, m.sent, m.render, open} {
		if err := reg.Register(c); err != nil {
			return m, fmt.Errorf("ui: register metrics: %w", err)
		}
	}
	return m, nil
}
