//go:build linux

package enforce

import (
	"cmp"
	"embed"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"text/template"

	"github.com/netcurtain/netcurtain/devices"
)

//go:embed *.nft.tmpl
var templates embed.FS

// zone is the conntrack zone in which redirected look-ups are tracked.
const zone = 4743

// skeleton is what the rules are made of; who they apply to is in sets.
type skeleton struct {
	Ports        Ports
	Marks        Marks
	NFLOGGroup   uint16
	InterceptDNS bool
	Zones        bool   // the kernel has conntrack zones
	Guards       bool   // somebody is guarded, or was since we started
	Handover     string // how guarded connections come to us: "tproxy", "redirect", or "" where the kernel can neither
	Inside       string // interfaces that lead into the house and nowhere else, as nft lists them
	Asks, Asked  string // the chain by which other firewalls are asked, "" for nobody; their rules for our table
}

// members are the elements of the sets that follow the household, in order.
type members struct {
	lan                      []string
	web                      []uint16 // what is handed to the proxy
	unfiltered, guarded, cut []devices.MAC
	proxied                  []devices.MAC // guarded now, or since we started
	exempt4, exempt6         []netip.Addr
	doors4, doors6           []netip.Addr
}

func (d Desired) split(f features) (skeleton, members) {
	m := members{
		lan:        sorted(d.LAN, strings.Compare),
		web:        sorted(append([]uint16{80, 443}, d.Handed...), cmp.Compare),
		unfiltered: sorted(d.Unfiltered, compareMAC),
		guarded:    sorted(d.Guarded, compareMAC),
		cut:        sorted(d.Cut, compareMAC),
	}
	m.proxied = sorted(slices.Concat(f.proxied, m.guarded), compareMAC)
	var inside []string
	for _, name := range m.lan {
		if !slices.Contains(f.wayOut, name) {
			inside = append(inside, name)
		}
	}
	handover := ""
	switch {
	case f.tproxy:
		handover = "tproxy"
	case f.redirect && f.zones:
		handover = "redirect"
	}
	m.exempt4, m.exempt6 = byFamily(d.Exempt)
	m.doors4, m.doors6 = byFamily(d.Doors)
	return skeleton{
		Ports: d.Ports, Marks: d.Marks, NFLOGGroup: d.NFLOGGroup, InterceptDNS: d.InterceptDNS,
		Zones: f.zones, Guards: len(m.proxied) > 0, Handover: handover, Inside: strings.Join(quoted(inside), ", "),
	}, m
}

// all are the ports that are in use.
func (p Ports) all() []uint16 {
	all := []uint16{p.DNS, p.DNSRedirect, p.HTTPProxy, p.TLSProxy}
	if p.Explicit != 0 {
		all = append(all, p.Explicit)
	}
	return all
}

// byFamily parts addresses, in order and each once.
func byFamily(addrs []netip.Addr) (v4, v6 []netip.Addr) {
	plain := make([]netip.Addr, len(addrs))
	for i, a := range addrs {
		plain[i] = a.Unmap().WithZone("")
	}
	for _, a := range sorted(plain, netip.Addr.Compare) {
		if a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	return v4, v6
}

// sorted is a copy in order without doubles.
func sorted[T comparable](in []T, cmp func(a, b T) int) []T {
	out := slices.Clone(in)
	slices.SortFunc(out, cmp)
	return slices.Compact(out)
}

func compareMAC(a, b devices.MAC) int { return slices.Compare(a[:], b[:]) }

// page is what the templates see.
type page struct {
	skeleton
	Fresh                                 bool
	Followed                              []string
	LAN, Web, Unfiltered, Guarded, Cut    []string
	Proxied                               []string
	Exempt4, Exempt6, Doors4, Doors6, Was []string
	Zone                                  uint16
}

func (p page) PortList() []string {
	return texts(p.Ports.all())
}

// Both is the two marks in one mask.
func (p page) Both() uint32 { return p.Marks.Deliver | p.Marks.Ours }

// renderMain writes the table inet netcurtain. A fresh one replaces whatever is
// there; another keeps the live sets of the table that is.
func renderMain(s skeleton, m members, was map[string]uint32, fresh bool) (string, error) {
	p := page{
		skeleton: s, Fresh: fresh, Followed: followed[:], Zone: zone,
		LAN: quoted(m.lan), Web: texts(m.web), Unfiltered: texts(m.unfiltered), Guarded: texts(m.guarded), Cut: texts(m.cut),
		Proxied: texts(m.proxied), Exempt4: texts(m.exempt4), Exempt6: texts(m.exempt6), Doors4: texts(m.doors4), Doors6: texts(m.doors6),
	}
	for k, v := range was {
		p.Was = append(p.Was, fmt.Sprintf("%q : %#x", k, v))
	}
	slices.Sort(p.Was)
	return execute("netcurtain.nft.tmpl", p)
}

// renderCut writes the table inet netcurtain_cut, or only its removal when no device is cut.
func renderCut(m members) (string, error) {
	return execute("cut.nft.tmpl", page{LAN: quoted(m.lan), Cut: texts(m.cut)})
}

func execute(name string, p any) (string, error) {
	t, err := template.New(name).Funcs(template.FuncMap{
		"hex": func(v uint32) string { return fmt.Sprintf("%#010x", v) },
		"elements": func(e []string) string {
			if len(e) == 0 {
				return ""
			}
			return "elements = { " + strings.Join(e, ", ") + " }; "
		},
	}).ParseFS(templates, name)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, p)
	return b.String(), err
}

func quoted(in []string) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = `"` + s + `"` // validate keeps quotes out
	}
	return out
}

func texts[T any](in []T) []string {
	out := make([]string, len(in))
	for i, v := range in {
		out[i] = fmt.Sprint(v)
	}
	return out
}
