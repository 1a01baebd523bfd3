//go:build linux

package enforce

import "github.com/prometheus/client_golang/prometheus"

// metrics of the room; none has a label that names a device or a place.
type metrics struct {
	sets   *prometheus.CounterVec
	alive  *prometheus.GaugeVec
	blocks prometheus.Counter
	ended  prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (metrics, error) {
	m := metrics{
		sets: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "netcurtain_enforce_sets_total", Help: "How often the kernel was told what to do, by result.",
		}, []string{"result"}),
		alive: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "netcurtain_enforce_alive_timestamp_seconds", Help: "When a service last proved to be alive.",
		}, []string{"service"}),
		blocks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "netcurtain_enforce_blocks_total", Help: "Pairs of device and address that were blocked or renewed.",
		}),
		ended: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "netcurtain_enforce_ended_connections_total", Help: "Tracked connections that were ended.",
		}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.sets, m.alive, m.blocks, m.ended} {
		if err := r.Register(c); err != nil {
			return m, err
		}
	}
	return m, nil
}

func (m metrics) set(err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.sets.WithLabelValues(result).Inc()
}
