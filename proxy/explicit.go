package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
)

// The explicit proxy is for devices that can be told to use one: a browser, a
// television with such a field. They learn of it from a PAC file that it serves
// itself, which ends with DIRECT: without us they go their own way.
//
// It is asked by name, so names are looked up here, as if the device itself had
// asked, and judged as they are on the transparent way. What is inside a tunnel is
// judged once more, by its own name. Only devices of the house that are seen at all
// are served, only web ports, and never an address of the house or of ours.

// acceptExplicit judges who connects to the explicit proxy. A reset makes a device
// with our PAC file go its own way.
func (c *conn) acceptExplicit() {
	p := c.proxy
	c.wire, c.explicit = addrPort(c.LocalAddr()), true
	c.dst = netip.AddrPort{}
	why := ""
	if c.device = p.deviceAt(c.src.Addr()); len(c.device.MACs) == 0 {
		why = "stranger"
	} else if !p.looksAfter(c.device) {
		why = "off"
	} else if !p.hasRoom(c) {
		why = "device-cap"
	}
	if why != "" {
		p.metrics.refused.WithLabelValues(why).Inc()
		c.refuse()
		return
	}
	c.watch(webIdle)
	c.serve()
}

// looksAfter reports whether a device's web traffic is seen at all.
func (p *Proxy) looksAfter(d devices.Device) bool {
	v := p.cfg.Decider.Decide(policy.Query{Layer: policy.LayerHTTP, Now: p.cfg.Now(), Device: d.ID, Kind: d.Kind, Mode: d.Mode})
	return d.Mode != devices.ModeOff && v.Reason != policy.ReasonSwitchedOff
}

// serveExplicit prepares what a device asks of its proxy. It reports whether r is
// now a request like any other, with its destination in c.dst.
func (p *Proxy) serveExplicit(w http.ResponseWriter, r *http.Request) bool {
	c := connOf(r)
	if r.Method != http.MethodConnect && !r.URL.IsAbs() {
		p.servePAC(w, r, c.wire)
		return false
	}
	if r.URL.User != nil || r.URL.IsAbs() && r.URL.Scheme != "http" {
		http.Error(w, "ask for https by CONNECT, and without a name and a password in the address", http.StatusBadRequest)
		return false
	}
	host, otherwise := r.Host, uint16(80)
	if r.Method == http.MethodConnect {
		otherwise = 0
	}
	name, addr, port, err := destination(host, otherwise)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	if port != 80 && port != tlsPort && !slices.Contains(p.furtherPorts(), port) {
		p.metrics.refused.WithLabelValues("port").Inc()
		http.Error(w, fmt.Sprintf("port %d is not for the web: this proxy carries 80, 443 and those that the settings name", port), http.StatusForbidden)
		return false
	}
	c.told, c.dst, c.others = "", netip.AddrPortFrom(addr, port), nil
	layer := policy.LayerHTTP
	if r.Method == http.MethodConnect {
		layer, c.told = policy.LayerTLS, name
	} else { // from here on it looks as if it had been sent to the server itself
		r.RequestURI = r.URL.RequestURI()
		r.URL.Scheme, r.URL.Host = "", ""
	}
	q := policy.Query{Layer: layer}
	if layer == policy.LayerHTTP {
		q.Path = policy.PathClass(r.Method, r.RequestURI)
	}
	if c.newShare(name, flow.NameFromHost, q, dissect.Result{}).verdict.Action != policy.Block { // else nothing is looked up for it
		if err := c.locate(r.Context(), name, addr, port); err != nil {
			p.metrics.refused.WithLabelValues("destination").Inc()
			http.Error(w, err.Error(), http.StatusBadGateway)
			return false
		}
	}
	if r.Method == http.MethodConnect {
		p.tunnel(w, r, name)
		return false
	}
	return true
}

// destination takes apart what a device asks its proxy for. Without a port, and
// without another one to take, it is an error.
func destination(host string, otherwise uint16) (name dnsname.Name, addr netip.Addr, port uint16, err error) {
	if name, addr, err = normalHost(host); err != nil {
		return name, addr, 0, err
	}
	if name == "" && !addr.IsValid() {
		return name, addr, 0, errHost
	}
	_, text, err := net.SplitHostPort(host)
	if err != nil || text == "" {
		if otherwise == 0 {
			return name, addr, 0, errors.New("a name or an address and a port are needed, such as example.org:443")
		}
		return name, addr, otherwise, nil
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return name, addr, uint16(n), err
}

func (p *Proxy) furtherPorts() []uint16 {
	if p.cfg.FurtherPorts == nil {
		return nil
	}
	return p.cfg.FurtherPorts()
}

// maxAddrs bounds how many addresses of one name are tried.
const maxAddrs = 4

// locate finds where name is, as the device itself would, and keeps out what is not
// to be reached through us.
func (c *conn) locate(ctx context.Context, name dnsname.Name, addr netip.Addr, port uint16) error {
	addrs := []netip.Addr{addr}
	if !addr.IsValid() {
		var err error
		if addrs, err = c.proxy.cfg.LookUp(ctx, c.src.Addr(), name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	var usable []netip.AddrPort
	barred, forwards := false, c.proxy.cfg.Forwards
	for _, a := range addrs {
		to := netip.AddrPortFrom(a.Unmap(), port)
		if c.proxy.mayCarry(to) != "" || len(usable) == maxAddrs {
			continue
		}
		if forwards != nil && !forwards(ctx, c.device, c.src.Addr(), to, false) {
			barred = true
			continue
		}
		usable = append(usable, to)
	}
	switch {
	case len(usable) > 0:
	case barred:
		return errors.New("the firewall of this house does not let this device go there")
	default:
		return errors.New("it is not on the internet: what is in the house is reached without a proxy")
	}
	c.dst, c.others = usable[0], usable[1:]
	return nil
}

// tunnel answers CONNECT. What then comes is judged by its own name too, before
// anything is dialled.
func (p *Proxy) tunnel(w http.ResponseWriter, r *http.Request, name dnsname.Name) {
	c := connOf(r)
	s := c.newShare(name, flow.NameFromHost, policy.Query{Layer: policy.LayerTLS}, dissect.Result{App: "unknown", ServerName: string(name), NameFrom: "host"})
	if s.verdict.Action == policy.Block {
		c.setShare(s)
		resp := p.page.respond(r, c.device, s)
		for k, v := range resp.Header {
			w.Header()[k] = v
		}
		w.Header().Set("Connection", "close")
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
		_ = resp.Body.Close()
		return
	}
	_, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	c.explicit = false
	// What the device sent without waiting stands in net/http's buffer.
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	c.peeked = slices.Clone(early)
	c.out.Add(-int64(len(early))) // it is read once more
	_ = c.SetDeadline(time.Time{})
	if _, err := c.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n")); err != nil {
		c.refuse()
		return
	}
	go c.takeUp(p.ctx, p.cfg.SilentAfter)
}

// servePAC tells a device how to use this proxy. Whatever speaks against it is left
// to the device's own way.
func (p *Proxy) servePAC(w http.ResponseWriter, r *http.Request, at netip.AddrPort) {
	if r.URL.Path != "/proxy.pac" && r.URL.Path != "/wpad.dat" || r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "This is the proxy of "+p.cfg.HouseName+". Tell your device to set itself up with http://"+at.String()+"/proxy.pac", http.StatusNotFound)
		return
	}
	ports := []string{"80", "443"}
	for _, n := range p.furtherPorts() {
		ports = append(ports, strconv.Itoa(int(n)))
	}
	w.Header().Set("Content-Type", "application/x-ns-proxy-autoconfig")
	w.Header().Set("Cache-Control", "max-age=3600")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = fmt.Fprintf(w, pac, strings.Join(ports, "|"), at)
}

// pac is the file, for the oldest JavaScript that devices have.
const pac = `// How to reach the web through the proxy of this house. Without it, everything goes direct.
function FindProxyForURL(url, host) {
	var port = /^[a-z]+:\/\/[^\/]*:([0-9]+)(\/|$)/.exec(url);
	if (port && !/^(%s)$/.test(port[1])) return "DIRECT";
	if (isPlainHostName(host) || /\.(lan|local|home|internal|home\.arpa)\.?$/i.test(host)) return "DIRECT";
	if (/^(10|127|192\.168|169\.254|172\.(1[6-9]|2[0-9]|3[01]))(\.[0-9]+){2,3}$/.test(host)) return "DIRECT";
	if (/^\[?(f[cde][0-9a-f]{2}:|::1\]?$)/i.test(host)) return "DIRECT";
	return "PROXY %s; DIRECT";
}
`
