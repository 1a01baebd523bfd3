package configs

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/internal/uci"
	"github.com/netcurtain/netcurtain/policy"
)

// Settings is how this box is wired: what the administrator wrote into
// /etc/config/netcurtain, checked. It is never changed once made.
type Settings struct {
	House House
	DNS   DNS
	Proxy Proxy
	Store Store
	Page  Page
	Lists []List
}

// House is where the house lies and where its files are.
type House struct {
	Name                  string   // what the block page calls this house
	LAN                   []string // interfaces with devices behind them
	State                 string   // folder on flash: household.db, memory.db, index, cut.nft
	Volatile              string   // folder in memory: ledger.db
	Socket                string
	Leases                []string
	Destinations          []string // further tables of destinations, in the form of atlas/destinations.tsv
	MarkDeliver, MarkOurs uint32
	Table                 int
	NFLOGGroup            uint16
}

// DNS is how look-ups are answered.
type DNS struct {
	Intercept     bool
	Port          uint16
	RedirectPort  uint16
	Upstreams     []string // empty: what the router already uses
	Resolv        []string // where the router's own upstreams are read
	BlockAnswer   string   // nxdomain, null, nodata, refused
	BlockTTL      time.Duration
	LocalZones    []dnsname.Name
	LocalResolver netip.AddrPort
	Rebinding     []dnsname.Name // names that may answer private addresses
	FailOpen      bool           // when no upstream answers for 30 s, let the router's own resolver answer
	DHCP          []string       // where the router's DHCP server is told which resolver to hand out
	Exempt        []netip.Addr   // resolvers inside the house, whose look-ups are never taken
}

// Proxy is how guarded connections are carried.
type Proxy struct {
	Enabled        bool
	HTTPPort       uint16
	TLSPort        uint16
	Ports          []uint16 // handed over beside 80 and 443
	ExplicitPort   uint16   // of the proxy for devices that are told to use one; 0: none
	MaxConnections int      // 0: as many as the machine's memory allows
	Hellos         policy.Hellos
}

// Store is how much is kept and for how long.
type Store struct {
	Age         time.Duration
	Bytes       int64
	MemoryBytes int64
	Flush       time.Duration
}

// Page is where the pages are served.
type Page struct {
	Listen netip.AddrPort
	URL    string // where the household reaches them, for the link on the block page; empty: no link
	Hosts  []string
}

// List is one blocklist or allowlist.
type List struct {
	Name    string
	URL     string // https, or empty
	File    string // below the state folder's lists/, or empty
	Allow   bool
	Enabled bool
	// Rewrite says that the list may answer with addresses and names of its own. A
	// file may in any case: the household put it there.
	Rewrite  bool
	Insecure bool // it may come over http, and be changed on the way
}

// Defaults are the settings of an empty file.
func Defaults() Settings {
	return Settings{
		House: House{
			Name: "this house", LAN: []string{"br-lan"},
			State: "/etc/netcurtain", Volatile: "/tmp/netcurtain", Socket: "/run/netcurtain/control.sock",
			Leases:      []string{"/tmp/dhcp.leases", "/var/lib/misc/dnsmasq.leases", "/tmp/odhcpd.leases"},
			MarkDeliver: 0x01000000, MarkOurs: 0x02000000, Table: 4743, NFLOGGroup: 4743,
		},
		DNS: DNS{
			Intercept: true, Port: 5300, RedirectPort: 5301, BlockAnswer: "nxdomain", BlockTTL: time.Minute,
			Resolv:     []string{"/tmp/resolv.conf.d/resolv.conf.auto", "/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"},
			DHCP:       []string{"/etc/config/dhcp", "/etc/dnsmasq.conf"},
			LocalZones: []dnsname.Name{"lan"}, LocalResolver: netip.MustParseAddrPort("127.0.0.1:53"), FailOpen: true,
		},
		Proxy: Proxy{Enabled: true, HTTPPort: 8380, TLSPort: 8343, Hellos: policy.ShippedHellos()},
		Store: Store{Age: 7 * 24 * time.Hour, Bytes: 64 << 20, MemoryBytes: 4 << 20, Flush: 10 * time.Second},
		Page:  Page{Listen: netip.MustParseAddrPort("127.0.0.1:8300")},
	}
}

// Parse reads a settings file. name is used in errors, which all say
// file:line: what is wrong, what is allowed; every error is reported.
func Parse(r io.Reader, name string) (Settings, error) {
	sections, err := uci.Parse(r, name)
	if err != nil {
		return Settings{}, err
	}
	s := Defaults()
	var errs []error
	seen := map[string]int{}
	for _, sec := range sections {
		if first, twice := seen[sec.Type]; twice && sec.Type != "list" {
			errs = append(errs, &uci.Error{File: name, Line: sec.Line, Text: fmt.Sprintf("section %q stands twice, first on line %d", sec.Type, first)})
			continue
		}
		seen[sec.Type] = sec.Line
		for _, err := range s.section(sec) {
			errs = append(errs, &uci.Error{File: name, Line: err.line, Text: err.text})
		}
	}
	if len(errs) == 0 {
		errs = s.contradictions(name)
	}
	return s, errors.Join(errs...)
}

// Adopt returns s with what a running daemon can take over from next: lists,
// exceptions from the rebinding protection, whether look-ups are taken, and what
// is handed to the proxy and carried unread.
// restart says that next differs in more than that.
func (s Settings) Adopt(next Settings) (adopted Settings, restart bool) {
	adopted = s
	adopted.Lists, adopted.DNS.Rebinding, adopted.DNS.Intercept = next.Lists, next.DNS.Rebinding, next.DNS.Intercept
	adopted.DNS.FailOpen, adopted.DNS.Exempt = next.DNS.FailOpen, next.DNS.Exempt
	adopted.Proxy.Ports, adopted.Proxy.Hellos = next.Proxy.Ports, next.Proxy.Hellos
	return adopted, !reflect.DeepEqual(adopted, next)
}

type lineError struct {
	line int
	text string
}

// section applies one section to s.
func (s *Settings) section(sec uci.Section) (errs []lineError) {
	known := s.options(sec.Type)
	if sec.Type == "list" {
		s.Lists = append(s.Lists, List{Name: sec.Name, Enabled: true})
		known = s.Lists[len(s.Lists)-1].options()
	}
	if known == nil {
		return []lineError{{sec.Line, fmt.Sprintf("section %.40q is not known%s", sec.Type, didYouMean(sec.Type, sectionNames))}}
	}
	for _, o := range sec.Options {
		opt, ok := find(known, o.Key)
		if !ok {
			var keys []string
			for _, k := range known {
				keys = append(keys, k.key)
			}
			errs = append(errs, lineError{o.Line, fmt.Sprintf("option %.40q is not known in section %s%s", o.Key, sec.Type, didYouMean(o.Key, keys))})
			continue
		}
		if err := opt.apply(o); err != nil {
			errs = append(errs, lineError{o.Line, fmt.Sprintf("%s: %v", o.Key, err)})
		}
	}
	if sec.Type == "list" {
		l := s.Lists[len(s.Lists)-1]
		switch {
		case l.Name == "":
			errs = append(errs, lineError{sec.Line, "a list needs a name: config list 'ads'"})
		case strings.HasPrefix(l.URL, "http://") && !l.Insecure:
			errs = append(errs, lineError{sec.Line, fmt.Sprintf("list %q: https is needed, for anybody on the way could change it; or say option insecure '1'", l.Name)})
		case (l.URL == "") == (l.File == ""):
			errs = append(errs, lineError{sec.Line, fmt.Sprintf("list %q needs either an option url or an option file", l.Name)})
		}
	}
	return errs
}

// contradictions finds what is only wrong in company.
func (s *Settings) contradictions(name string) (errs []error) {
	ports := map[uint16]string{}
	for _, p := range []struct {
		what string
		port uint16
	}{
		{"dns port", s.DNS.Port}, {"dns redirect_port", s.DNS.RedirectPort}, {"proxy http_port", s.Proxy.HTTPPort},
		{"proxy tls_port", s.Proxy.TLSPort}, {"proxy explicit_port", s.Proxy.ExplicitPort}, {"page listen", s.Page.Listen.Port()},
	} {
		if p.port == 0 {
			continue // none
		}
		if other, taken := ports[p.port]; taken {
			errs = append(errs, fmt.Errorf("%s: %s and %s are both port %d", name, other, p.what, p.port))
		}
		ports[p.port] = p.what
	}
	for _, p := range s.Proxy.Ports {
		if what, ours := ports[p]; ours {
			errs = append(errs, fmt.Errorf("%s: proxy port %d is our own %s: handing it to ourselves would never end", name, p, what))
		}
	}
	if p := s.Proxy.ExplicitPort; p != 0 && p < 1024 {
		errs = append(errs, fmt.Errorf("%s: proxy explicit_port %d: 0 or a number from 1024 to 65535 is needed", name, p))
	}
	if s.House.MarkDeliver&s.House.MarkOurs != 0 {
		errs = append(errs, fmt.Errorf("%s: mark_deliver and mark_ours share a bit: that is a routing loop", name))
	}
	if !s.Page.Listen.Addr().IsLoopback() {
		errs = append(errs, fmt.Errorf("%s: page listen %s: only a loopback address is allowed while the pages have no accounts; reach it with ssh -L", name, s.Page.Listen))
	}
	return errs
}

var sectionNames = []string{"house", "dns", "proxy", "store", "page", "list"}

// options are the keys of a section that may stand once; nil for an unknown one.
func (s *Settings) options(section string) []option {
	switch section {
	case "house":
		h := &s.House
		return []option{
			text("name", &h.Name, 40), each("lan", &h.LAN, interfaceName),
			folder("state", &h.State), folder("volatile", &h.Volatile), folder("socket", &h.Socket),
			each("leases", &h.Leases, absolute), each("destinations", &h.Destinations, absolute),
			number("mark_deliver", &h.MarkDeliver, 1, 1<<31), number("mark_ours", &h.MarkOurs, 1, 1<<31),
			number("table", &h.Table, 1, 1<<30), number("nflog_group", &h.NFLOGGroup, 1, 1<<16-1),
		}
	case "dns":
		d := &s.DNS
		return []option{
			yes("intercept", &d.Intercept), number("port", &d.Port, 1024, 1<<16-1), number("redirect_port", &d.RedirectPort, 1024, 1<<16-1),
			each("upstream", &d.Upstreams, upstream), each("resolv", &d.Resolv, absolute),
			word("block_answer", &d.BlockAnswer, "nxdomain", "null", "nodata", "refused"),
			span("block_ttl", &d.BlockTTL, 0, 24*time.Hour),
			each("local_zone", &d.LocalZones, dnsname.Parse), single("local_resolver", &d.LocalResolver, netip.ParseAddrPort, "an address and port such as 127.0.0.1:53"),
			each("rebinding_exempt", &d.Rebinding, dnsname.Parse),
			yes("fail_open", &d.FailOpen), each("exempt", &d.Exempt, address),
			each("dhcp", &d.DHCP, absolute),
		}
	case "proxy":
		p := &s.Proxy
		return []option{
			yes("enabled", &p.Enabled), number("http_port", &p.HTTPPort, 1024, 1<<16-1), number("tls_port", &p.TLSPort, 1024, 1<<16-1),
			each("port", &p.Ports, handedPort), number("explicit_port", &p.ExplicitPort, 0, 1<<16-1),
			number("max_connections", &p.MaxConnections, 0, 100000),
			hello("unfinished", p, policy.HelloUnfinished), hello("no_name", p, policy.HelloNameless), hello("hidden_name", p, policy.HelloHidden),
			hello("not_tls", p, policy.HelloNotTLS), hello("silent", p, policy.HelloSilent),
		}
	case "store":
		st := &s.Store
		return []option{
			span("age", &st.Age, time.Hour, 10*365*24*time.Hour), bytes("bytes", &st.Bytes, 1<<20), bytes("memory_bytes", &st.MemoryBytes, 256<<10),
			span("flush", &st.Flush, time.Second, 10*time.Minute),
		}
	case "page":
		p := &s.Page
		return []option{
			single("listen", &p.Listen, netip.ParseAddrPort, "an address and port such as 127.0.0.1:8300"), each("host", &p.Hosts, hostName),
			each1("url", &p.URL, pageURL),
		}
	}
	return nil
}

func (l *List) options() []option {
	return []option{
		each1("url", &l.URL, httpsURL), each1("file", &l.File, listFile), {key: "kind", parse: func(v []string) error {
			switch v[0] {
			case "block", "allow":
				l.Allow = v[0] == "allow"
				return nil
			}
			return fmt.Errorf("%.40q: block or allow is needed", v[0])
		}}, yes("rewrite", &l.Rewrite), yes("insecure", &l.Insecure), yes("enabled", &l.Enabled),
	}
}
