package ui

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/netcurtain/netcurtain/ui/api"
)

// apiRoutes is the JSON API.
func (s *Server) apiRoutes() []route {
	routes := []route{
		{"GET", "/api/v1/status", s.answer(s.getStatus)},
		{"GET", "/api/v1/devices", s.answer(s.getDevices)},
		{"GET", "/api/v1/devices/{id}", s.answer(s.getDevice)},
		{"GET", "/api/v1/top", s.answer(s.getTop)},
		{"GET", "/api/v1/days", s.answer(s.getDays)},
		{"GET", "/api/v1/flows", listing(s, s.getFlows, s.flowSource)},
		{"GET", "/api/v1/lookups", listing(s, s.getLookups, s.lookupSource)},
		{"GET", "/api/v1/events", listing(s, s.getEvents, s.eventSource)},
		{"GET", "/api/v1/rules", s.answer(s.getRules)},
		{"GET", "/api/v1/live", s.serveLive},
		{"POST", "/api/v1/rules", s.answer(s.postRule)},
		{"DELETE", "/api/v1/rules/{id}", s.answer(s.deleteRule)},
		{"POST", "/api/v1/devices/{id}/mode", s.answer(s.postMode)},
		{"POST", "/api/v1/devices/{id}/log", s.answer(s.postLog)},
		{"POST", "/api/v1/devices/{id}/carry", s.answer(s.postCarry)},
		{"POST", "/api/v1/devices/{id}/strip", s.answer(s.postStrip)},
		{"POST", "/api/v1/devices/{id}/kind", s.answer(s.postKind)},
		{"POST", "/api/v1/devices/{id}/name", s.answer(s.postName)},
		{"POST", "/api/v1/devices/{id}/forget", s.answer(s.postForget)},
		{"POST", "/api/v1/erase", s.answer(s.postErase)},
		{"POST", "/api/v1/switch", s.answer(s.postSwitch)},
		{"POST", "/api/v1/dismiss", s.answer(s.postDismiss)},
		{"GET", "/healthz", s.serveHealth},
	}
	routes = append(routes, s.listRoutes()...)
	if s.cfg.Gatherer != nil {
		h := promhttp.HandlerFor(s.cfg.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 2, Timeout: 10 * time.Second})
		routes = append(routes, route{"GET", "/metrics", h.ServeHTTP})
	}
	return routes
}

func (s *Server) getStatus(r *http.Request) (any, error) {
	h := s.cfg.Health(r.Context())
	now := s.cfg.Now()
	return api.Status{
		Version: s.cfg.Version,
		Started: s.started, UptimeSeconds: int64(now.Sub(s.started).Seconds()),
		On: s.cfg.House.On(), OK: wellness(h.Lines) == 0,
		Place: h.Place, Devices: len(s.cfg.House.Devices(now)), LiveReaders: len(s.readers),
		Health: orEmpty(h.Lines), Dropped: h.Dropped,
	}, nil
}

// wellness counts the lines that are not well.
func wellness(lines []api.HealthLine) (failing int) {
	for _, l := range lines {
		if !l.OK {
			failing++
		}
	}
	return failing
}

func (s *Server) serveHealth(w http.ResponseWriter, r *http.Request) {
	failing := []string{}
	for _, l := range s.cfg.Health(r.Context()).Lines {
		if !l.OK {
			failing = append(failing, l.Name)
		}
	}
	status := http.StatusOK
	if len(failing) > 0 {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, map[string]any{"ok": len(failing) == 0, "failing": failing})
}
