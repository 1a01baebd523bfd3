package proxy

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/policy"
)

type metrics struct {
	carried *prometheus.CounterVec
	refused *prometheus.CounterVec
	bytes   *prometheus.CounterVec
	open    prometheus.Gauge

	requests *prometheus.CounterVec
	asked    *prometheus.CounterVec
	stripped *prometheus.CounterVec
}

// newMetrics registers with r, which may be nil. A proxy made anew in the same
// process goes on counting where the one before it stopped.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		carried: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "netcurtain_proxy_connections_total",
			Help: "Connections and HTTP hosts carried or blocked, by protocol and verdict.",
		}, []string{"protocol", "action"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "netcurtain_proxy_refused_connections_total",
			Help: "Connections not carried, by why.",
		}, []string{"why"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "netcurtain_proxy_carried_bytes_total",
			Help: "TCP payload carried from (out) and to (in) devices.",
		}, []string{"direction"}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "netcurtain_proxy_open_connections",
			Help: "Connections being carried now.",
		}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "netcurtain_proxy_requests_total",
			Help: "Requests that devices made in clear and that were answered, by how they left the house: clear or encrypted.",
		}, []string{"way"}),
		asked: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "netcurtain_proxy_servers_asked_total",
			Help: "Servers that we asked by ourselves whether they answer encrypted, by answer.",
		}, []string{"answer"}),
		stripped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "netcurtain_proxy_stripped_total",
			Help: "What was taken out of requests and answers because it follows people about, by kind.",
		}, []string{"kind"}),
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(register(r, &m.carried), register(r, &m.refused), register(r, &m.bytes), register(r, &m.open),
		register(r, &m.requests), register(r, &m.asked), register(r, &m.stripped))
}

// register registers *c, or puts into it what was registered before.
func register[C prometheus.Collector](r prometheus.Registerer, c *C) error {
	err := r.Register(*c)
	if already, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if old, ok := already.ExistingCollector.(C); ok {
			*c = old
			return nil
		}
	}
	return err
}

func (m *metrics) ended(protocol string, v policy.Verdict, out, in uint64) {
	m.carried.WithLabelValues(protocol, v.Action.String()).Inc()
	m.bytes.WithLabelValues("out").Add(float64(out))
	m.bytes.WithLabelValues("in").Add(float64(in))
}

// wayLabel is how a request left the house.
func wayLabel(encrypted bool) string {
	if encrypted {
		return "encrypted"
	}
	return "clear"
}
