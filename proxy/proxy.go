package proxy

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/elazarl/goproxy"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
)

// Devices finds the device that talks from an address, and how one is treated now.
type Devices interface {
	ByAddr(addr netip.Addr) (devices.Device, bool)
	ByID(id devices.ID) (devices.Device, bool)
}

// Decider decides; *policy.Engine is one.
type Decider interface {
	Decide(q policy.Query) policy.Verdict
}

// Carried is one connection that was judged, or one host's share of a connection
// that speaks HTTP with several. Flow says everything but the bytes.
type Carried struct {
	Device devices.Device
	Flow   journal.Flow // with Proxied set
	// To is where the explicit proxy takes it: Flow's Tuple is then the connection
	// to the proxy itself, by which the kernel counts. Not valid on the transparent way.
	To netip.AddrPort
	// Before is what the kernel had counted of a connection, when it turned from another
	// host to this; zero for the first host of a connection, and where nobody counts.
	Before flow.Counters
}

// Observer is handed every Carried as soon as it is judged, before anything is
// carried or refused. It records the flow when it ends, with the bytes that the
// kernel counts. It must not block.
type Observer interface {
	Proxied(c Carried)
}

// Recorder keeps what happened and never blocks. Without an Observer, and only
// then, for no flow may be kept twice, it gets each flow when it has ended, with
// the TCP payload that the device's socket sent and received.
type Recorder interface {
	Record(e journal.Entry)
}

// Config says how to carry. Devices, Decider and a port must be set.
type Config struct {
	// Listen lists the addresses at which the kernel hands connections over; none
	// is every address of both families, where TPROXY looks unless its rule names one.
	Listen            []netip.Addr
	HTTPPort, TLSPort uint16
	// ExplicitPort is where devices that are told to use a proxy find it, at each of
	// Listen; 0 is none. Then LookUp must be set: it gives the addresses of a name as a
	// client would get them, an error where it would get none.
	ExplicitPort uint16
	LookUp       func(ctx context.Context, client netip.Addr, name dnsname.Name) ([]netip.Addr, error)
	// Forwards reports whether the firewall would let a device open a connection by
	// itself, for it sees nothing of what we open; handed says that the kernel handed it over,
	// which it does not where it could judge for itself. nil is always.
	Forwards func(ctx context.Context, d devices.Device, client netip.Addr, to netip.AddrPort, handed bool) bool
	// GoesOn reports whether the firewall lets a connection go on that it let begin;
	// Reconsider asks. nil is always.
	GoesOn       func(d devices.Device, client netip.Addr, to netip.AddrPort) bool
	FurtherPorts func() []uint16 // that it may be asked for beside 80 and 443; may be nil
	Transparent  bool            // listen with IP_TRANSPARENT; needs CAP_NET_ADMIN
	MarkOurs     uint32          // SO_MARK of every socket that we open; 0 is none
	MaxConns     int             // carried at once; 0 is 1024. One device may have half of them
	PeekTimeout  time.Duration   // for a ClientHello from its first byte on; 0 is 5 s
	SilentAfter  time.Duration   // a client that said nothing waits for the server to speak; 0 is 500 ms
	IdleTimeout  time.Duration   // of a spliced connection; 0 is 2 h, as long as a NAT remembers
	Devices      Devices
	Resolve      func(addr netip.Addr) (devices.Device, bool) // asked for a client that Devices does not know; may be nil
	Decider      Decider
	Describe     func(name dnsname.Name) atlas.Destination             // may be nil
	NameOf       func(device devices.ID, addr netip.Addr) dnsname.Name // what the device last looked up for an address; may be nil
	Counted      func(flow.Tuple) flow.Counters                        // what the kernel has counted of a connection; may be nil: an Observer then goes by what it hears
	Observer     Observer                                              // may be nil
	Recorder     Recorder                                              // nil where the Observer records
	// Own reports whether an address is the router's. nil asks the kernel which
	// addresses the interfaces have.
	Own func(addr netip.Addr) bool
	// Inside reports whether an address must not be reached through us. nil is
	// every address that is private, shared, link-local, loopback or multicast.
	Inside func(addr netip.Addr) bool
	// House reports whether an address is on a network of the house, public ones of
	// IPv6 included: those are not reached through us, either. nil is none.
	House func(addr netip.Addr) bool
	// Original gives the destination that a client dialled. nil is what TPROXY
	// leaves in the accepted socket: its local address; where that is our own, what
	// the kernel's address translation remembers.
	Original func(c net.Conn) netip.AddrPort
	// Dial opens a connection to an original destination. nil dials with MarkOurs.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	HouseName string // how the block page calls the house; "" is Netcurtain
	HouseURL  string // where the household can allow what was blocked; "" shows no link

	Roots *x509.CertPool // whom certificates must come from, for what is carried over TLS; nil is the system's

	Now        func() time.Time // nil is time.Now
	Logger     *slog.Logger     // nil discards
	Registerer prometheus.Registerer
}

// Proxy carries the web traffic of guarded devices.
type Proxy struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	slots   chan struct{} // one for each connection that is carried
	probes  chan struct{} // and for each that may be Probe's
	token   string        // by which Probe's connection is known
	changes atomic.Uint64 // how often Reconsider was told of some
	page    *blockPage
	goproxy *goproxy.ProxyHttpServer
	http    *http.Server
	handoff *handoff
	own     atomic.Pointer[ownAddrs]
	live    sync.Map // of *conn: what is carried now
	conns   sync.WaitGroup
	copies  sync.Pool // of *[]byte, to copy bodies
	parking *parking
	ctx     context.Context // of Run, for what net/http's goroutines leave to us

	mu   sync.Mutex // guards held
	held map[devices.ID]int

	servers  *servers
	tallies  tallies
	tracking map[string]bool // the fields of trackingHeaders
}

// New checks the configuration. It opens no socket and starts nothing.
func New(cfg Config) (*Proxy, error) {
	switch {
	case cfg.Devices == nil:
		return nil, errors.New("proxy: Devices is needed")
	case cfg.Decider == nil:
		return nil, errors.New("proxy: Decider is needed")
	case cfg.HTTPPort == 0 && cfg.TLSPort == 0:
		return nil, errors.New("proxy: a port to listen at is needed")
	case cfg.ExplicitPort != 0 && cfg.LookUp == nil:
		return nil, errors.New("proxy: LookUp is needed by the explicit proxy")
	case cfg.HTTPPort == cfg.TLSPort:
		return nil, fmt.Errorf("proxy: HTTP and TLS need two different ports, both are %d", cfg.HTTPPort)
	}
	if len(cfg.Listen) == 0 {
		cfg.Listen = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	cfg.MaxConns = orElse(cfg.MaxConns, 1024)
	cfg.PeekTimeout = orElse(cfg.PeekTimeout, 5*time.Second)
	cfg.SilentAfter = orElse(cfg.SilentAfter, 500*time.Millisecond)
	cfg.IdleTimeout = orElse(cfg.IdleTimeout, 2*time.Hour)
	cfg.HouseName = orElse(cfg.HouseName, "Netcurtain")
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Inside == nil {
		cfg.Inside = inside
	}
	if cfg.House == nil {
		cfg.House = func(netip.Addr) bool { return false }
	}
	if cfg.Dial == nil {
		// No keep-alive of ours: the device's own silence would not have been broken, either.
		d := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: -1, Control: markSocket(cfg.MarkOurs)}
		d.SetMultipathTCP(false)
		cfg.Dial = d.DialContext
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("proxy metrics: %w", err)
	}
	page, err := newBlockPage(cfg.HouseName, cfg.HouseURL)
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		cfg:     cfg,
		log:     cfg.Logger.With("room", "proxy"),
		metrics: m,
		slots:   make(chan struct{}, cfg.MaxConns),
		probes:  make(chan struct{}, maxProbes),
		token:   "netcurtain-probe-" + rand.Text() + "\n",
		page:    page,
		held:    map[devices.ID]int{},
		servers: newServers(), tallies: tallies{all: map[devices.ID]*tally{}}, tracking: readTrackingHeaders(),
	}
	p.copies.New = func() any { b := make([]byte, 16<<10); return &b }
	p.goproxy = p.newGoproxy()
	return p, nil
}

func orElse[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// Run listens and carries until ctx is cancelled, then closes its listeners and
// every connection it carries, and returns nil.
func (p *Proxy) Run(ctx context.Context) error {
	var listeners, explicit []net.Listener
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	for _, ep := range p.endpoints() {
		l, err := listenAt(ctx, ep, transparentSocket(p.cfg.Transparent))
		if err != nil {
			return fmt.Errorf("listening for handed-over connections: %w", err)
		}
		listeners = append(listeners, l)
	}
	if p.cfg.ExplicitPort != 0 {
		for _, a := range p.cfg.Listen {
			l, err := listenAt(ctx, netip.AddrPortFrom(a, p.cfg.ExplicitPort), nil)
			if err != nil {
				return fmt.Errorf("listening for devices that use a proxy: %w", err)
			}
			listeners, explicit = append(listeners, l), append(explicit, l)
		}
	}
	p.handoff = newHandoff(listeners[0].Addr())
	p.http = p.newHTTPServer()
	var err error
	if p.parking, err = newParking(); err != nil {
		return err
	}

	g, ctx := errgroup.WithContext(ctx)
	p.ctx = ctx
	for _, l := range listeners {
		handed := !slices.Contains(explicit, l)
		g.Go(func() error { return p.accept(ctx, l, handed) })
	}
	for range maxAsking {
		g.Go(func() error { return p.askServers(ctx) })
	}
	g.Go(func() error {
		if err := p.http.Serve(p.handoff); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving handed-over HTTP: %w", err)
		}
		return nil
	})
	g.Go(func() error { return p.parking.run(ctx, p.parking.wake) })
	g.Go(func() error {
		<-ctx.Done()
		for _, l := range listeners {
			l.Close()
		}
		return p.http.Close()
	})
	p.log.Info("carrying guarded connections", "http_port", p.cfg.HTTPPort, "tls_port", p.cfg.TLSPort)
	err = g.Wait()
	p.live.Range(func(c, _ any) bool { c.(*conn).abort(); return true })
	p.conns.Wait()
	return err
}

// listenAt opens a listener whose connections ask a silent device every ten minutes whether
// it is still there. Go would ask every 15 s: a device on batteries would never sleep, for
// a connection that would have been silent without us.
func listenAt(ctx context.Context, at netip.AddrPort, before control) (net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: -1, Control: func(network, address string, c syscall.RawConn) error {
		if before != nil {
			if err := before(network, address, c); err != nil {
				return err
			}
		}
		return askSeldom(network, address, c)
	}}
	lc.SetMultipathTCP(false)
	return lc.Listen(ctx, family(at.Addr()), at.String())
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "tcp4"
	}
	return "tcp6"
}

func (p *Proxy) endpoints() []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range p.cfg.Listen {
		for _, port := range []uint16{p.cfg.HTTPPort, p.cfg.TLSPort} {
			if port != 0 {
				out = append(out, netip.AddrPortFrom(a, port))
			}
		}
	}
	return out
}

// accept has each connection of l taken up in a goroutine of its own until ctx ends.
// handed says that the kernel hands them over; else devices ask us by name.
func (p *Proxy) accept(ctx context.Context, l net.Listener, handed bool) error {
	for {
		c, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if c != nil {
				c.Close()
			}
			return nil
		case err != nil:
			// Out of descriptors, most likely. Accepting goes on when some are free.
			p.log.Warn("taking over a connection", "err", err)
			p.metrics.refused.WithLabelValues("accept").Inc()
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		switch taken := p.newConn(c.(*net.TCPConn)); {
		case handed && taken.mayBeProbe():
			p.takeProbe(ctx, taken)
		case !p.takeSlot():
			p.metrics.refused.WithLabelValues("cap").Inc()
			reset(taken.TCPConn)
		default:
			p.enter(taken)
			if handed {
				go taken.carry(ctx)
			} else {
				go taken.acceptExplicit()
			}
		}
	}
}

// Reconsider asks policy again about everything that is carried and ends what it
// would refuse now, and what the firewall would: for when a rule was made or came to
// its end, when a device is to be treated otherwise, and when the firewall changed.
// What is being judged meanwhile is judged once more.
func (p *Proxy) Reconsider() {
	p.changes.Add(1)
	p.live.Range(func(key, _ any) bool {
		key.(*conn).reconsider()
		return true
	})
}
