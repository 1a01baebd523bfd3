package ui

import (
	"context"
	"errors"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/ui/api"
)

// House is what the household knows and chooses. An error that wraps
// fs.ErrNotExist says that the device or rule is not there.
type House interface {
	DeviceBook
	RuleBook
	ListBook
	// Erase forgets what was written of one device, or of all when device is "",
	// and says how many rows went.
	Erase(ctx context.Context, device devices.ID) (rows int64, err error)
	// Forget does what Erase does of one device, and forgets what was chosen for it, its
	// rules and that it was ever here.
	Forget(ctx context.Context, device devices.ID) (rows int64, err error)
	// Switch turns the whole house on or off, over a restart too.
	Switch(ctx context.Context, on bool) error
	On() bool
	// Dismiss drops a proposal for good: what is a health line's Dismiss.
	Dismiss(ctx context.Context, what string) error
}

// DeviceBook knows the devices and how each is treated.
type DeviceBook interface {
	// Devices lists every device, in any order.
	Devices(now time.Time) []devices.Device
	// SetMode says how a device is treated from now on, and returns how many of its
	// running connections ended for that.
	SetMode(ctx context.Context, device devices.ID, mode devices.Mode) (ended int, err error)
	SetLog(ctx context.Context, device devices.ID, level devices.LogLevel) error
	// SetKind says what a device is; KindUnknown leaves it to our guess again.
	SetKind(ctx context.Context, device devices.ID, kind devices.Kind) error
	// SetCarry says whether a guarded device's readable requests leave the house
	// encrypted where the other side can; SetStrip whether what follows people
	// about is taken out of them.
	SetCarry(ctx context.Context, device devices.ID, on bool) error
	SetStrip(ctx context.Context, device devices.ID, on bool) error
	// SetName gives a device the household's own word; "" forgets it.
	SetName(ctx context.Context, device devices.ID, name string) error
}

// RuleBook keeps the household's own rules.
type RuleBook interface {
	Rules(ctx context.Context) ([]policy.Rule, error)
	// AddRule keeps r and returns it with its ID. Created and By are set by the caller.
	AddRule(ctx context.Context, r policy.Rule) (policy.Rule, error)
	RemoveRule(ctx context.Context, id int64) error
}

// Ledger answers what happened, in the journal's shapes.
type Ledger interface {
	Totals(ctx context.Context, since time.Time) ([]journal.DeviceTotals, error)
	Destinations(ctx context.Context, device devices.ID, since time.Time) ([]journal.DestinationTotals, error)
	Days(ctx context.Context, device devices.ID, since time.Time) ([]journal.DayTotals, error)
	Top(ctx context.Context, since time.Time, by journal.TopBy, limit int) ([]journal.TopRow, error)
	Flows(ctx context.Context, f journal.Filter) ([]journal.FlowRow, error)
	Lookups(ctx context.Context, f journal.Filter) ([]journal.LookupRow, error)
	Events(ctx context.Context, f journal.Filter) ([]journal.EventRow, error)
}

// Live hands out what happens as it happens; a *journal.Recorder does.
type Live interface {
	Subscribe(name string, buffer int) *journal.Subscription
}

// Config is what New needs. House, Ledger and Live must be set.
type Config struct {
	House  House
	Ledger Ledger
	Live   Live
	// Health asks the rooms how they are. nil shows no lines.
	Health func(context.Context) api.Health
	// Kept says in plain sentences what this box keeps, where and for how long;
	// the page "What we keep" shows them. nil shows none.
	Kept func(context.Context) []string
	// Carrying says what was done, since the start, to what a device asks in clear. nil
	// shows nothing.
	Carrying func(devices.ID) api.Carrying
	// Gatherer feeds /metrics; nil leaves /metrics out.
	Gatherer prometheus.Gatherer
	// Registerer takes this room's own metrics; nil discards them.
	Registerer prometheus.Registerer
	// Hosts are further names under which the pages may be asked for, besides
	// localhost, 127.0.0.1 and [::1]; without a port.
	Hosts    []string
	Version  string
	Location *time.Location   // of the times on the pages; nil is time.Local
	Now      func() time.Time // nil is time.Now
	Logger   *slog.Logger     // nil discards
}

// Server answers for the house. It starts nothing; the caller listens.
type Server struct {
	cfg     Config
	started time.Time
	hosts   map[string]bool
	pages   map[string]*template.Template
	assets  assets
	readers chan struct{} // one token for each live feed
	exports chan struct{} // one for each export
	metrics metrics
	tcp     http.Handler
	control http.Handler
}

// maxLiveReaders bounds the live feeds that are open at once: each holds a
// goroutine, a connection and a queue on a small router.
const maxLiveReaders = 8

// New checks cfg and prepares the handlers.
func New(cfg Config) (*Server, error) {
	if cfg.House == nil || cfg.Ledger == nil || cfg.Live == nil {
		return nil, errors.New("ui: House, Ledger and Live are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Location == nil {
		cfg.Location = time.Local
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Health == nil {
		cfg.Health = func(context.Context) api.Health { return api.Health{} }
	}
	if cfg.Kept == nil {
		cfg.Kept = func(context.Context) []string { return nil }
	}
	if cfg.Carrying == nil {
		cfg.Carrying = func(devices.ID) api.Carrying { return api.Carrying{} }
	}
	s := &Server{
		cfg:     cfg,
		started: cfg.Now(),
		hosts:   allowedHosts(cfg.Hosts),
		readers: make(chan struct{}, maxLiveReaders),
		exports: make(chan struct{}, maxExports),
	}
	var err error
	if s.metrics, err = newMetrics(cfg.Registerer, func() float64 { return float64(len(s.readers)) }); err != nil {
		return nil, err
	}
	if s.assets, err = loadAssets(); err != nil {
		return nil, err
	}
	if s.pages, err = s.parsePages(); err != nil {
		return nil, err
	}
	s.tcp = s.guard(s.mux(append(s.apiRoutes(), s.pageRoutes()...)), "tcp")
	s.control = s.guard(s.mux(s.apiRoutes()), "control")
	return s, nil
}

// TCP serves pages, JSON API, /metrics and /healthz to browsers. There are no
// accounts yet: bind it to loopback only.
func (s *Server) TCP() http.Handler { return s.tcp }

// Control serves the JSON API, /metrics and /healthz on the control socket,
// whose owner has checked the peer's credentials: any Host is welcome.
func (s *Server) Control() http.Handler { return s.control }

// HTTPServer wraps h with limits that suit a small router. Live feeds end when
// ctx does, so that Shutdown need not wait for them.
func HTTPServer(ctx context.Context, h http.Handler, logger *slog.Logger) *http.Server {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second, // the live feed moves its own deadline
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}
