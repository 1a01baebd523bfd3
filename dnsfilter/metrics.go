package dnsfilter

import (
	"errors"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/policy"
)

// metrics of the filter. CoreDNS's own are in the default registry.
type metrics struct {
	lookups *prometheus.CounterVec
	seconds prometheus.Histogram
}

// newMetrics registers with r, which may be nil. A server made anew in the same
// process goes on counting where the one before it stopped.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "netcurtain_dnsfilter_lookups_total",
			Help: "Look-ups by what became of them and the layer that decided.",
		}, []string{"action", "layer"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "netcurtain_dnsfilter_lookup_duration_seconds",
			Help:    "Time from question to answer.",
			Buckets: []float64{.0005, .002, .01, .05, .2, 1, 5},
		}),
	}
	if r == nil {
		return m, nil
	}
	var err error
	m.lookups, err = register(r, m.lookups)
	if err != nil {
		return nil, err
	}
	m.seconds, err = register(r, m.seconds)
	return m, err
}

func register[C prometheus.Collector](r prometheus.Registerer, c C) (C, error) {
	err := r.Register(c)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if old, ok := already.ExistingCollector.(C); ok {
			return old, nil
		}
	}
	return c, err
}

func (m *metrics) observe(v policy.Verdict, layer policy.Layer, rcode int, took time.Duration) {
	action := v.Action.String()
	switch {
	case v.Noted:
		action = "noted"
	case v.Action != policy.Block && rcode == dns.RcodeServerFailure:
		action = "failed"
	}
	m.lookups.WithLabelValues(action, layer.String()).Inc()
	m.seconds.Observe(took.Seconds())
}
