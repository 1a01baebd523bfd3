package dnsfilter

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/coredns/caddy"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
)

// Devices finds the device that asks from an address.
type Devices interface {
	ByAddr(addr netip.Addr) (devices.Device, bool)
}

// Decider decides; *policy.Engine is one.
type Decider interface {
	Decide(q policy.Query) policy.Verdict
}

// Names is taught which name gave which device which address.
type Names interface {
	Learn(device devices.ID, name dnsname.Name, addr netip.Addr, ttl time.Duration)
}

// Recorder keeps what happened and never blocks.
type Recorder interface {
	Record(e journal.Entry)
}

// BlockAnswer is the shape of the answer to a blocked question.
type BlockAnswer uint8

const (
	BlockNXDomain BlockAnswer = iota // no such name
	BlockNull                        // 0.0.0.0 and ::; other types get NODATA
	BlockNoData                      // the name exists, the type does not
	BlockRefused                     // will not answer
)

var blockAnswerNames = [...]string{"nxdomain", "null", "nodata", "refused"}

func (b BlockAnswer) String() string { return blockAnswerNames[b] }

// ParseBlockAnswer reads one of "nxdomain", "null", "nodata", "refused".
func ParseBlockAnswer(s string) (BlockAnswer, error) {
	for i, n := range blockAnswerNames {
		if n == s {
			return BlockAnswer(i), nil
		}
	}
	return 0, fmt.Errorf("block answer %.20q: nxdomain, null, nodata or refused is needed", s)
}

// Config says how to serve. Devices, Decider, Listen, Port and Upstreams must be set.
type Config struct {
	// Listen lists the addresses to serve at, UDP and TCP; the single address ::
	// is every address of both families. Port takes the look-ups that were sent
	// to the router, RedirectPort (0: none) those that were sent elsewhere.
	Listen       []netip.Addr
	Port         uint16
	RedirectPort uint16

	Upstreams []Upstream // asked in this order; 1 to 15
	// LocalResolver, when valid, answers LocalZones and the reverse look-ups of
	// private addresses. Without it, private reverse look-ups are answered here
	// with "no such name", for they must not leave the house (RFC 6303 §4).
	LocalResolver netip.AddrPort
	LocalZones    []dnsname.Name

	BlockAnswer BlockAnswer
	BlockTTL    time.Duration // how long clients keep a blocked answer; 0 is 10 s
	CacheSize   int           // answers kept; 0 is 4096

	Devices Devices
	// Resolve is asked when Devices does not know the client: it looks at the
	// kernel's neighbour table there and then. May be nil.
	Resolve func(addr netip.Addr) (devices.Device, bool)
	Decider Decider
	// Describe says what is known of a name; the zero Destination is "nothing". May be nil.
	Describe   func(name dnsname.Name) atlas.Destination
	Names      Names            // may be nil
	Recorder   Recorder         // may be nil
	Now        func() time.Time // nil is time.Now
	Logger     *slog.Logger     // nil discards
	Registerer prometheus.Registerer
}

// Server is the house's DNS server: embedded CoreDNS with the filter in front
// of its cache and forwarder.
type Server struct {
	cfg     Config
	zones   zones
	probe   string // the name that only we know and answer, fully qualified
	metrics *metrics
	doors   doors
	chains  chains
	coredns caddy.Context // what CoreDNS made of its configuration, while Run serves
	log     *slog.Logger
	world   atomic.Pointer[filter] // the chain for public names, while Run serves
}

// New checks the configuration. It opens no socket and starts nothing.
func New(cfg Config) (*Server, error) {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New(what))
		}
	}
	need(cfg.Devices != nil, "dnsfilter: Devices is needed")
	need(cfg.Decider != nil, "dnsfilter: Decider is needed")
	need(len(cfg.Listen) > 0, "dnsfilter: an address to listen at is needed")
	need(cfg.Port != 0, "dnsfilter: a port to listen at is needed")
	need(cfg.RedirectPort != cfg.Port, "dnsfilter: rewritten and redirected look-ups need two different ports")
	need(len(cfg.Upstreams) >= 1 && len(cfg.Upstreams) <= maxUpstreams,
		fmt.Sprintf("dnsfilter: %d upstreams are configured, 1 to %d are needed", len(cfg.Upstreams), maxUpstreams))
	for _, u := range cfg.Upstreams {
		need(u.Addr.IsValid(), "dnsfilter: an upstream has no address")
		need(!ours(cfg, u.Addr), fmt.Sprintf("dnsfilter: upstream %s is this server itself", u))
	}
	need(!ours(cfg, cfg.LocalResolver), fmt.Sprintf("dnsfilter: local resolver %s is this server itself", cfg.LocalResolver))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if cfg.BlockTTL == 0 {
		cfg.BlockTTL = 10 * time.Second
	}
	if cfg.CacheSize == 0 {
		cfg.CacheSize = 4096
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("dnsfilter metrics: %w", err)
	}
	return &Server{
		cfg:     cfg,
		zones:   newZones(cfg.LocalZones),
		probe:   "probe-" + lower(rand.Text()) + ".invalid.",
		metrics: m,
		log:     cfg.Logger.With("room", "dnsfilter"),
	}, nil
}

// ours reports whether a is one of the server's own listeners, to which
// forwarding would be a loop.
func ours(cfg Config, a netip.AddrPort) bool {
	if !a.IsValid() || (a.Port() != cfg.Port && a.Port() != cfg.RedirectPort) {
		return false
	}
	for _, l := range cfg.Listen {
		if l.Unmap() == a.Addr().Unmap() || l.IsUnspecified() && a.Addr().IsLoopback() {
			return true
		}
	}
	return false
}

// mayAsk reports whether a client is answered at all, for we are no open resolver. A
// device that is known is: in IPv6 it asks from a public address.
func mayAsk(a netip.Addr, known bool) bool {
	return known || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast()
}
