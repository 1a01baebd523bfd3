package ui_test

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/ui/api"
)

// spite is what a device may call itself.
var spite = []string{
	`<script>alert(1)</script>`,
	`"><img src=x onerror=alert(1)>`,
	`' onmouseover='alert(1)' x='`,
	`javascript:alert(1)//`,
	`{{.Page}}${7*7}`,
	`</title><style>*{display:none}</style>`,
	"harmless\u202etxt.exe\u2066\u200b\u0000\x1b[31m",
	strings.Repeat("A", 64<<10),
	"\xff\xfe broken UTF-8",
	`../../etc/passwd?x=1&y=2#z`,
}

// hostile is a house in which every string that a device can choose is spite.
func hostile() *house {
	h := &house{on: true, destinations: map[devices.ID][]journal.DestinationTotals{}}
	for i, s := range spite {
		id := devices.ID(mac(byte(i)).String())
		h.devices = append(h.devices, devices.Device{
			ID: id, MACs: []devices.MAC{mac(byte(i))}, Name: s, Hostname: s, Maker: s, Kind: devices.Kind(s), KindFrom: s,
			Mode: devices.ModeProtect, Log: devices.LogNames, FirstSeen: noon, LastSeen: noon, NameFrom: devices.SourceLease,
		})
		h.totals = append(h.totals, journal.DeviceTotals{Device: id, Flows: 1, Blocked: 1, ReadableFlows: 1, Organisations: spite})
		for _, s := range spite {
			h.destinations[id] = append(h.destinations[id], journal.DestinationTotals{
				Name: s, NameSource: s, Organisation: s, Purpose: s, Country: s, Breaks: s, Why: s, Verdict: "block", Reason: "list", Rule: s, List: s, Readable: 1,
			})
		}
		n := int64(i + 1)
		h.flows = append(h.flows, journal.FlowRow{ID: n, Device: id, Proto: s, App: s, Why: s, Name: s, NameSource: s, TLSVersion: s, Organisation: s, Purpose: s, Country: s, Verdict: "block", Reason: "list", Rule: s, List: s, Credentials: s, Protection: "readable"})
		h.lookups = append(h.lookups, journal.LookupRow{ID: n, Device: id, Name: s, Verdict: "block", Reason: "list", Rule: s, List: s, Organisation: s})
		h.events = append(h.events, journal.EventRow{ID: n, Device: id, Kind: journal.EventKind(s), Text: s})
		h.lists = append(h.lists, api.ListDetail{
			List:    api.List{Name: s, Owner: s, Source: s, Address: s, Kind: s, Enabled: true, Devices: spite, Licence: s, LastError: s, Using: s, Unfit: s, Doing: s},
			Overlap: []api.Overlap{{List: s, Shared: 1}}, Rejects: spite,
		})
		h.rules = append(h.rules, policy.Rule{ID: n, Name: "example.com", Device: devices.ID(s), Action: policy.Block, By: s})
	}
	return h
}

// crowd is a house of n busy devices.
func crowd(n int) *house {
	h := &house{on: true, destinations: map[devices.ID][]journal.DestinationTotals{}}
	for i := range n {
		id := devices.ID(mac(byte(i)).String())
		h.devices = append(h.devices, devices.Device{
			ID: id, MACs: []devices.MAC{mac(byte(i))}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})},
			Name: fmt.Sprintf("Device with a rather long name %d", i), Maker: "Some Maker Company Limited", Kind: devices.KindSensor,
			Mode: devices.ModeProtect, Log: devices.LogNames, FirstSeen: noon, LastSeen: noon,
		})
		t := journal.DeviceTotals{Device: id, BytesOut: int64(i) * 7_777_777, BytesIn: int64(i) << 33, Flows: 100, Blocked: int64(i) * 1234, ReadableFlows: int64(i % 3)}
		for j := range 30 {
			t.Organisations = append(t.Organisations, fmt.Sprintf("Organisation %d", j))
			h.destinations[id] = append(h.destinations[id], journal.DestinationTotals{
				Name: fmt.Sprintf("host-%d.a-rather-long-label-in-a-name.example.com", j), Organisation: fmt.Sprintf("Organisation %d", j),
				Purpose: "telemetry", Country: "DE", BytesOut: int64(j) * 1e6, Flows: 10, Encrypted: 10, Why: "TLS 1.3 handshake seen", Verdict: "none",
			})
		}
		h.totals = append(h.totals, t)
	}
	for i := range 500 {
		id := h.devices[i%n].ID
		h.lookups = append(h.lookups, journal.LookupRow{ID: int64(i + 1), At: noon, Device: id, Name: fmt.Sprintf("host-%d.example.com", i), Verdict: "none"})
	}
	return h
}
