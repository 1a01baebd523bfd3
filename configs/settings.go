package configs

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"path/filepath"
	"reflect"
	"strconv"
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

// option is one known key and where its value goes.
type option struct {
	key   string
	list  bool
	parse func(values []string) error
}

func (o option) apply(u uci.Option) error {
	if u.List && !o.list {
		return errors.New("takes one value: write option, not list")
	}
	return o.parse(u.Values)
}

func find(known []option, key string) (option, bool) {
	for _, o := range known {
		if o.key == key {
			return o, true
		}
	}
	return option{}, false
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

func text(key string, to *string, most int) option {
	return option{key: key, parse: func(v []string) error {
		if v[0] == "" || len(v[0]) > most {
			return fmt.Errorf("1 to %d octets are needed", most)
		}
		*to = v[0]
		return nil
	}}
}

func yes(key string, to *bool) option {
	return option{key: key, parse: func(v []string) error {
		switch v[0] {
		case "1", "yes", "on", "true", "enabled":
			*to = true
		case "0", "no", "off", "false", "disabled":
			*to = false
		default:
			return fmt.Errorf("%.40q: 1 or 0 is needed", v[0])
		}
		return nil
	}}
}

func word(key string, to *string, allowed ...string) option {
	return option{key: key, parse: func(v []string) error {
		for _, a := range allowed {
			if v[0] == a {
				*to = a
				return nil
			}
		}
		return fmt.Errorf("%.40q: one of %s is needed", v[0], strings.Join(allowed, ", "))
	}}
}

func hello(key string, p *Proxy, kind policy.Hello) option {
	return option{key: key, parse: func(v []string) (err error) {
		p.Hellos[kind], err = policy.ParseHelloRule(v[0])
		return err
	}}
}

func number[T ~int | ~uint16 | ~uint32](key string, to *T, least, most int64) option {
	return option{key: key, parse: func(v []string) error {
		n, err := strconv.ParseInt(v[0], 0, 64)
		if err != nil || n < least || n > most {
			return fmt.Errorf("%.40q: a number from %d to %d is needed", v[0], least, most)
		}
		*to = T(n)
		return nil
	}}
}

// span reads a duration with d for days beside Go's units.
func span(key string, to *time.Duration, least, most time.Duration) option {
	return option{key: key, parse: func(v []string) error {
		d, err := time.ParseDuration(v[0])
		if days, ok := strings.CutSuffix(v[0], "d"); ok {
			var n int
			n, err = strconv.Atoi(days)
			if n > 100000 {
				n = 100000
			}
			d = time.Duration(n) * 24 * time.Hour
		}
		if err != nil || d < least || d > most {
			return fmt.Errorf("%.40q: a time from %s to %s such as 90s, 15m, 12h or 7d is needed", v[0], least, most)
		}
		*to = d
		return nil
	}}
}

func bytes(key string, to *int64, least int64) option {
	return option{key: key, parse: func(v []string) error {
		digits, unit := v[0], int64(1)
		for suffix, u := range map[string]int64{"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30} {
			if d, ok := strings.CutSuffix(v[0], suffix); ok {
				digits, unit = d, u
			}
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 32)
		if err != nil || n*unit < least {
			return fmt.Errorf("%.40q: a size of at least %d KB, such as 64MB, is needed", v[0], least>>10)
		}
		*to = n * unit
		return nil
	}}
}

func single[T any](key string, to *T, parse func(string) (T, error), needed string) option {
	return option{key: key, parse: func(v []string) error {
		x, err := parse(v[0])
		if err != nil {
			return fmt.Errorf("%.60q: %s is needed", v[0], needed)
		}
		*to = x
		return nil
	}}
}

// each reads a list; what the file says replaces the default whole.
func each[T any](key string, to *[]T, parse func(string) (T, error)) option {
	return option{key: key, list: true, parse: func(v []string) error {
		out := make([]T, 0, len(v))
		for _, s := range v {
			x, err := parse(s)
			if err != nil {
				return err
			}
			out = append(out, x)
		}
		*to = out
		return nil
	}}
}

func each1(key string, to *string, parse func(string) (string, error)) option {
	return option{key: key, parse: func(v []string) (err error) { *to, err = parse(v[0]); return err }}
}

func folder(key string, to *string) option { return each1(key, to, absolute) }

func absolute(s string) (string, error) {
	if !filepath.IsAbs(s) || filepath.Clean(s) != s {
		return "", fmt.Errorf("%.80q: a clean absolute path is needed", s)
	}
	return s, nil
}

func interfaceName(s string) (string, error) {
	if s == "" || len(s) > 15 || strings.ContainsAny(s, "/ \t\"'\\{};,") {
		return "", fmt.Errorf("%.40q: the name of an interface such as br-lan is needed (ip link shows them)", s)
	}
	return s, nil
}

func hostName(s string) (string, error) {
	n, err := dnsname.Parse(s)
	return string(n), err
}

func upstream(s string) (string, error) {
	addr, tls := strings.CutPrefix(s, "tls://")
	server := addr
	if tls {
		if host, name, ok := strings.Cut(addr, "#"); ok { // tls://9.9.9.9#dns.quad9.net
			if _, err := dnsname.Parse(name); err != nil {
				return "", err
			}
			server = host
		}
	}
	if _, err := netip.ParseAddr(strings.Trim(server, "[]")); err == nil {
		return s, nil
	}
	if _, err := netip.ParseAddrPort(server); err == nil {
		return s, nil
	}
	return "", fmt.Errorf("%.80q: an address such as 192.0.2.1, 192.0.2.1:53 or tls://9.9.9.9#dns.quad9.net is needed", s)
}

func address(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
		return a, fmt.Errorf("%.60q: the address of a machine in the house such as 192.168.1.5 is needed", s)
	}
	return a.Unmap(), nil
}

// handedPort is a further port whose connections go to the proxy. Look-ups have
// their own way.
func handedPort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	switch {
	case err != nil || n == 0:
		return 0, fmt.Errorf("%.40q: a TCP port from 1 to 65535 is needed", s)
	case n == 80 || n == 443:
		return 0, fmt.Errorf("%d is handed over anyway: leave the line out", n)
	case n == 53 || n == 853:
		return 0, fmt.Errorf("%d is for look-ups, which section dns is about", n)
	}
	return uint16(n), nil
}

func httpsURL(s string) (string, error) {
	if !strings.HasPrefix(s, "https://") && !strings.HasPrefix(s, "http://") || len(s) > 2048 {
		return "", fmt.Errorf("%.80q: an https:// address is needed", s)
	}
	return s, nil
}

// pageURL is where people reach the pages: scheme and host, and a path if need be.
func pageURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || len(s) > 256 {
		return "", fmt.Errorf("%.80q: an address such as http://netcurtain.lan/ is needed", s)
	}
	return strings.TrimSuffix(s, "/") + "/", nil
}

// listFile keeps list files below the state folder's lists/: a settings page
// must never become a way to read any file of the router.
func listFile(s string) (string, error) {
	if !filepath.IsLocal(s) || filepath.Clean(s) != s {
		return "", fmt.Errorf("%.80q: a file name below the state folder's lists/ is needed, without .. and not absolute", s)
	}
	return s, nil
}

// didYouMean names the nearest known word, or all of them.
func didYouMean(got string, known []string) string {
	best, dist := "", 3
	for _, k := range known {
		if d := distance(got, k); d < dist {
			best, dist = k, d
		}
	}
	if best != "" {
		return fmt.Sprintf(": did you mean %q?", best)
	}
	return ": allowed are " + strings.Join(known, ", ")
}

// distance is the edit distance of two short words, bounded.
func distance(a, b string) int {
	if len(a) > 40 {
		return 40
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		diag := row[0]
		row[0] = i + 1
		for j := range b {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag, row[j+1] = row[j+1], min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
