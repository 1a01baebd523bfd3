package inspect

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/capture"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/observe"
)

// Row is one flow. Its JSON form is documented in docs/inspect.md and stable:
// fields may be added, never renamed or removed.
type Row struct {
	File       string `json:"file"`
	Device     string `json:"device"`      // MAC, else address
	DeviceName string `json:"device_name"` // as it called itself until this flow ended
	Maker      string `json:"maker"`       // by its MAC
	L4         string `json:"l4"`          // "tcp", "udp", "icmp", "ip-47"
	Src        string `json:"src"`         // the side that opened the flow
	SrcPort    uint16 `json:"sport"`
	Dst        string `json:"dst"`
	DstPort    uint16 `json:"dport"`
	Protocol   string `json:"protocol"`   // lower case; "unknown"
	Protection string `json:"protection"` // "encrypted", "readable", "cannot-tell"
	Harmless   bool   `json:"harmless"`
	Reason     string `json:"reason"`
	// What this flow's own bytes say, and nothing else.
	ServerName string `json:"server_name"`
	NameFrom   string `json:"name_from"` // "sni", "host", "qname", "dhcp", ""
	// The best name after joining with what DNS told.
	Name       string `json:"name"`
	NameSource string `json:"name_source"` // "host", "sni", "dns-device", "dns-any", "address"
	Ambiguous  bool   `json:"name_ambiguous"`

	TLSVersion  string `json:"tls_version"`  // "1.3"
	QUICVersion string `json:"quic_version"` // "1", "2", …
	ECH         bool   `json:"ech"`          // server_name is the outer one
	Credentials string `json:"credentials"`  // which kind travelled readable

	TLSCipher         string `json:"tls_cipher"`         // chosen, as IANA calls it
	TLSWeak           string `json:"tls_weak"`           // what is weak or badly set up, in words
	Certificate       string `json:"certificate"`        // what is wrong with it: "expired,self-signed", …
	CredentialUser    string `json:"credential_user"`    // masked
	CredentialDefault bool   `json:"credential_default"` // a login that everybody knows
	Identifiers       string `json:"identifiers"`        // kinds that travelled readable: "mac:1,imei:2"
	Inbound           bool   `json:"inbound"`            // opened from outside

	BytesOut   uint64    `json:"bytes_out"` // from the device; IP headers included
	BytesIn    uint64    `json:"bytes_in"`
	PacketsOut uint64    `json:"packets_out"`
	PacketsIn  uint64    `json:"packets_in"`
	First      time.Time `json:"first"`
	Last       time.Time `json:"last"`

	Organisation string `json:"organisation"`
	Purpose      string `json:"purpose"`
}

// Config is what reading a capture needs.
type Config struct {
	Atlas observe.Describer        // nil: organisations and purposes stay empty
	Maker func(devices.MAC) string // nil: makers stay empty
	// Idle is after how long a silence a flow has ended; 0 is 10 minutes.
	Idle time.Duration
	// Flows is how many running flows are held; 0 is 20,000. When there are more,
	// the one silent for longest is yielded early and its rest makes another row.
	Flows int
}

// patience is how long after its first packet a flow's first bytes are waited
// for, in the capture's time. A file has all the time that a router has not.
const patience = 2 * time.Minute

// Read yields every flow of one capture, called name, as each ends, and says how
// much was read. When yield fails, reading stops with its error. A capture that
// breaks off is a *capture.BrokenError, after the flows until there were yielded.
func Read(ctx context.Context, name string, r io.Reader, cfg Config, yield func(Row) error) (capture.Stats, error) {
	src, err := capture.Open(r)
	if err != nil {
		return capture.Stats{}, err
	}
	if cfg.Idle == 0 {
		cfg.Idle = 10 * time.Minute
	}
	if cfg.Maker == nil {
		cfg.Maker = func(devices.MAC) string { return "" }
	}
	sink := &rows{file: name, yield: yield, names: names{}, maker: cfg.Maker}
	o, err := observe.New(observe.Config{
		Devices: bench{}, Atlas: cfg.Atlas, Record: sink,
		Flows: cfg.Flows, Idle: cfg.Idle, Deadline: patience, Conversations: 4096,
	})
	if err != nil {
		return capture.Stats{}, err
	}
	err = o.Replay(func(p *flow.Packet) error {
		if sink.err != nil {
			return sink.err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := src.Next(p); err != nil {
			return err
		}
		sink.names.hear(p)
		return nil
	})
	if err == nil {
		err = sink.err
	}
	return src.Stats(), err
}

// bench is a bench without a house: every device is one whose names are shown.
type bench struct{}

func (bench) ByMAC(m devices.MAC) (devices.Device, bool) {
	return devices.Device{ID: devices.ID(m.String()), MACs: []devices.MAC{m}, Log: devices.LogNames, Mode: devices.ModeWatch}, true
}

func (bench) ByAddr(a netip.Addr) (devices.Device, bool) {
	return devices.Device{ID: devices.ID(a.String()), Log: devices.LogNames, Mode: devices.ModeWatch}, true
}

func (bench) ByID(id devices.ID) (devices.Device, bool) {
	return devices.Device{ID: id, Log: devices.LogNames, Mode: devices.ModeWatch}, true
}

// rows is the journal of a replay.
type rows struct {
	file  string
	yield func(Row) error
	names names
	maker func(devices.MAC) string
	err   error
}

// Record implements observe.Recorder. Rare events are left out: rows say the same.
func (r *rows) Record(e journal.Entry) {
	if e.Flow == nil || r.err != nil {
		return
	}
	x := row(r.file, &e)
	x.DeviceName, x.Maker = r.names[e.Device].name, r.maker(e.Flow.MAC)
	if err := r.yield(x); err != nil {
		r.err = fmt.Errorf("%s: %w", r.file, err)
	}
}

func row(file string, e *journal.Entry) Row {
	f := e.Flow
	out, in := f.Counters.Orig, f.Counters.Reply
	if f.Inbound {
		out, in = in, out
	}
	r := Row{
		File: file, Device: string(e.Device), L4: f.Tuple.Proto.String(),
		Src: f.Tuple.SrcAddr().String(), SrcPort: f.Tuple.SrcPort,
		Dst: f.Tuple.DstAddr().String(), DstPort: f.Tuple.DstPort,
		Protocol: f.Seen.App, Protection: f.Seen.Protection.String(), Harmless: f.Seen.Harmless, Reason: f.Seen.Reason,
		ServerName: f.Seen.ServerName, NameFrom: f.Seen.NameFrom,
		Name: f.Name, NameSource: f.NameSource.String(), Ambiguous: f.Ambiguous,
		Credentials: f.Seen.Credentials,
		BytesOut:    out.Bytes, BytesIn: in.Bytes, PacketsOut: out.Packets, PacketsIn: in.Packets,
		First: f.First.UTC(), Last: f.Last.UTC(),
		Organisation: f.Destination.Organisation, Purpose: string(f.Destination.Purpose),
	}
	if r.Protocol == "" {
		r.Protocol, r.Reason = "unknown", "no payload seen"
	}
	if f.Seen.TLS != nil {
		r.TLSVersion = f.Seen.TLS.Version
	}
	x := journal.FindingsOf(&f.Seen)
	r.QUICVersion, r.ECH, r.TLSCipher, r.TLSWeak, r.Certificate = x.QUICVersion, x.ECH, x.TLSCipher, x.TLSWeak, x.Certificate
	r.CredentialUser, r.CredentialDefault, r.Identifiers, r.Inbound = x.CredentialUser, x.CredentialDefault, x.Identifiers, f.Inbound
	return r
}
