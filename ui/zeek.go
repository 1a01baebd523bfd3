package ui

import (
	"bufio"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/netcurtain/netcurtain/devices"
)

// column is one column of a log as Zeek's ASCII writer writes it. A value of ""
// is one that is not known: "-".
type column[T any] struct {
	name, kind string // Zeek's own, also in #types
	value      func(*T) string
}

// zeekLog is one of Zeek's logs.
type zeekLog[T any] struct {
	path    string // "conn", "dns"
	columns []column[T]
}

// zeekRows writes a log with Zeek's header, so that zeek-cut and whatever reads
// Zeek's logs reads ours.
type zeekRows[T any] struct {
	*zeekLog[T]
	w   *bufio.Writer
	now time.Time
}

func (z zeekRows[T]) begin() error {
	fmt.Fprintf(z.w, "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\t%s\n#open\t%s\n#fields", z.path, zeekDate(z.now))
	for _, c := range z.columns {
		z.w.WriteString("\t" + c.name)
	}
	z.w.WriteString("\n#types")
	for _, c := range z.columns {
		z.w.WriteString("\t" + c.kind)
	}
	_, err := z.w.WriteString("\n")
	return err
}

func (z zeekRows[T]) row(x *T) error {
	for i, c := range z.columns {
		if i > 0 {
			z.w.WriteByte('\t')
		}
		z.w.WriteString(zeekText(c.value(x)))
	}
	return z.w.WriteByte('\n')
}

func (z zeekRows[T]) end() error {
	_, err := fmt.Fprintf(z.w, "#close\t%s\n", zeekDate(z.now))
	return err
}

func zeekDate(t time.Time) string { return t.UTC().Format("2006-01-02-15-04-05") }

// zeekText escapes what would break the line or be taken for something else, as
// Zeek's writer does.
func zeekText(text string) string {
	switch text {
	case "":
		return "-"
	case "-", "(empty)":
		return fmt.Sprintf(`\x%02x%s`, text[0], text[1:])
	}
	var b strings.Builder
	if text[0] == '#' { // else the line would be a comment
		b.WriteString(`\x23`)
		text = text[1:]
	}
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case r == utf8.RuneError && n == 1, !visible(r):
			for _, c := range []byte(text[:n]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		default:
			b.WriteString(text[:n])
		}
		text = text[n:]
	}
	return b.String()
}

// zeekTime is seconds since 1970 with microseconds.
func zeekTime(t time.Time) string {
	us := t.UnixMicro()
	return fmt.Sprintf("%d.%06d", us/1e6, us%1e6)
}

// zeekID tells a row from all others: flows and look-ups never share an id.
func zeekID(id int64) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	b := []byte{}
	for ; id > 0; id /= 62 {
		b = append([]byte{digits[id%62]}, b...)
	}
	return "C" + string(b)
}

func zeekBool(b bool) string {
	if b {
		return "T"
	}
	return "F"
}

func unknown[T any](*T) string { return "" }

// host and port of what addrPort wrote; "" for what was not kept.
func host(end string) string {
	a, err := netip.ParseAddrPort(end)
	if err != nil {
		return ""
	}
	return a.Addr().String()
}

func port(end string) string {
	a, err := netip.ParseAddrPort(end)
	if err != nil {
		return ""
	}
	return strconv.Itoa(int(a.Port()))
}

// hardware is a device's address where that is what it is known by.
func hardware(id string) string {
	if _, err := devices.ParseMAC(id); err != nil {
		return ""
	}
	return id
}

// connState is Zeek's word where the packets alone say it: S0, an attempt that nobody
// answered, and SF, for UDP an exchange. How a TCP connection went is not kept.
func connState(f *exportedFlow) string {
	from, back := f.PacketsOut, f.PacketsIn
	if f.Inbound {
		from, back = back, from
	}
	switch {
	case from > 0 && back == 0 && (f.L4 == "tcp" || f.L4 == "udp"):
		return "S0"
	case from > 0 && back > 0 && f.L4 == "udp":
		return "SF"
	}
	return ""
}

// connLog are the columns of Zeek's conn.log, in its order, and then ours. We count
// bytes from the IP header on and keep no connection's course: the columns of
// payload and history are unset, never guessed.
func connLog() *zeekLog[exportedFlow] {
	type flow = exportedFlow
	count := func(up, down func(*flow) int64) func(*flow) string { // from the opener's side
		return func(f *flow) string {
			if f.Inbound {
				return strconv.FormatInt(down(f), 10)
			}
			return strconv.FormatInt(up(f), 10)
		}
	}
	bytesOut, bytesIn := func(f *flow) int64 { return f.BytesOut }, func(f *flow) int64 { return f.BytesIn }
	packetsOut, packetsIn := func(f *flow) int64 { return f.PacketsOut }, func(f *flow) int64 { return f.PacketsIn }
	return &zeekLog[flow]{"conn", []column[flow]{
		{"ts", "time", func(f *flow) string { return zeekTime(f.First) }},
		{"uid", "string", func(f *flow) string { return zeekID(f.ID) }},
		{"id.orig_h", "addr", func(f *flow) string { return host(f.Src) }},
		{"id.orig_p", "port", func(f *flow) string { return port(f.Src) }},
		{"id.resp_h", "addr", func(f *flow) string { return host(f.Dst) }},
		{"id.resp_p", "port", func(f *flow) string { return port(f.Dst) }},
		{"proto", "enum", func(f *flow) string { return zeekProto(f.L4) }},
		{"service", "string", func(f *flow) string { return zeekService(f.Protocol) }},
		{"duration", "interval", func(f *flow) string {
			us := max(f.Last.Sub(f.First).Microseconds(), 0)
			return fmt.Sprintf("%d.%06d", us/1e6, us%1e6)
		}},
		{"orig_bytes", "count", unknown[flow]},
		{"resp_bytes", "count", unknown[flow]},
		{"conn_state", "string", connState},
		{"local_orig", "bool", func(f *flow) string { return zeekBool(!f.Inbound) }},
		{"local_resp", "bool", func(f *flow) string { return zeekBool(f.Inbound || isLocal(host(f.Dst))) }},
		{"missed_bytes", "count", unknown[flow]},
		{"history", "string", unknown[flow]},
		{"orig_pkts", "count", count(packetsOut, packetsIn)},
		{"orig_ip_bytes", "count", count(bytesOut, bytesIn)},
		{"resp_pkts", "count", count(packetsIn, packetsOut)},
		{"resp_ip_bytes", "count", count(bytesIn, bytesOut)},
		{"tunnel_parents", "set[string]", unknown[flow]},
		// As Zeek's policy script mac-logging adds them.
		{"orig_l2_addr", "string", func(f *flow) string {
			if f.Inbound {
				return ""
			}
			return hardware(f.Device)
		}},
		{"resp_l2_addr", "string", func(f *flow) string {
			if !f.Inbound {
				return ""
			}
			return hardware(f.Device)
		}},
		{"device", "string", func(f *flow) string { return f.DeviceName }},
		{"server_name", "string", func(f *flow) string { return f.Name }},
		{"organisation", "string", func(f *flow) string { return f.Organisation }},
		{"protection", "string", func(f *flow) string { return f.Protection }},
		{"verdict", "string", func(f *flow) string { return f.Verdict }},
	}}
}

func isLocal(addr string) bool {
	a, err := netip.ParseAddr(addr)
	return err == nil && (a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsMulticast())
}

func zeekProto(l4 string) string {
	switch l4 {
	case "tcp", "udp", "icmp":
		return l4
	}
	return "unknown_transport"
}

// zeekService is what Zeek calls a protocol, where that differs.
func zeekService(app string) string {
	switch app {
	case "unknown":
		return ""
	case "tls":
		return "ssl"
	}
	return app
}

// dnsLog are the columns of Zeek's dns.log, in its order, and then ours. From where
// a device asked, the header's flags and the answers are not kept.
func dnsLog() *zeekLog[exportedLookup] {
	type lookup = exportedLookup
	return &zeekLog[lookup]{"dns", []column[lookup]{
		{"ts", "time", func(l *lookup) string { return zeekTime(l.At) }},
		{"uid", "string", func(l *lookup) string { return zeekID(l.ID) }},
		{"id.orig_h", "addr", unknown[lookup]},
		{"id.orig_p", "port", unknown[lookup]},
		{"id.resp_h", "addr", unknown[lookup]},
		{"id.resp_p", "port", unknown[lookup]},
		{"proto", "enum", unknown[lookup]},
		{"trans_id", "count", unknown[lookup]},
		{"rtt", "interval", unknown[lookup]},
		{"query", "string", func(l *lookup) string { return l.Name }},
		{"qclass", "count", func(*lookup) string { return "1" }},
		{"qclass_name", "string", func(*lookup) string { return "C_INTERNET" }},
		{"qtype", "count", func(l *lookup) string { return strconv.Itoa(int(l.qtype)) }},
		{"qtype_name", "string", func(l *lookup) string { return l.Type }},
		{"rcode", "count", func(l *lookup) string { return strconv.Itoa(l.rcode) }},
		{"rcode_name", "string", func(l *lookup) string { return l.Rcode }},
		{"AA", "bool", unknown[lookup]},
		{"TC", "bool", unknown[lookup]},
		{"RD", "bool", unknown[lookup]},
		{"RA", "bool", unknown[lookup]},
		{"Z", "count", unknown[lookup]},
		{"answers", "vector[string]", unknown[lookup]},
		{"TTLs", "vector[interval]", unknown[lookup]},
		{"rejected", "bool", func(l *lookup) string { return zeekBool(l.Verdict == "block") }},
		{"orig_l2_addr", "string", func(l *lookup) string { return hardware(l.Device) }},
		{"device", "string", func(l *lookup) string { return l.DeviceName }},
		{"count", "count", func(l *lookup) string { return strconv.FormatInt(l.Count, 10) }}, // times within a moment
		{"organisation", "string", func(l *lookup) string { return l.Organisation }},
		{"rule", "string", func(l *lookup) string { return l.Rule }},
		{"list", "string", func(l *lookup) string { return l.List }},
	}}
}
