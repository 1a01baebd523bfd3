package lists

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	lists, rules, names, bytes, resident, mapped prometheus.Gauge
	compiles, failures                           prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "netcurtain", Subsystem: "lists", Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "netcurtain", Subsystem: "lists", Name: name, Help: help})
	}
	m := &metrics{
		lists:    gauge("lists", "Lists in the index in force."),
		rules:    gauge("rules", "Rules of all lists in the index in force, equal ones counted each time."),
		names:    gauge("names", "Distinct names in the index in force."),
		bytes:    gauge("index_bytes", "Size of the index file in force."),
		resident: gauge("index_resident_bytes", "Memory that the index in force needs: what every look-up touches, and all of it where it lies in a memory file system."),
		mapped:   gauge("mapped_indexes", "Index files that are mapped: the one in force, and old ones that are still read."),
		compiles: counter("compiles_total", "Times that the index was compiled and brought into force."),
		failures: counter("failures_total", "Times that a list could not be had or was refused."),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.lists, m.rules, m.names, m.bytes, m.resident, m.mapped, m.compiles, m.failures} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) inForce(lists, rules, names, size, resident int) {
	m.resident.Set(float64(resident))
	m.lists.Set(float64(lists))
	m.rules.Set(float64(rules))
	m.names.Set(float64(names))
	m.bytes.Set(float64(size))
}
