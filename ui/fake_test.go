package ui_test

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/ui"
	"github.com/netcurtain/netcurtain/ui/api"
)

// noon is the clock of every test in this room.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// house keeps devices, choices and a ledger in memory: what the pages need of
// the real ones, without a disk or a kernel.
type house struct {
	mu        sync.Mutex
	devices   []devices.Device
	rules     []policy.Rule
	nextID    int64
	on        bool
	erased    []devices.ID
	dismissed string
	ended     int // connections that end with a change of mode
	changes   int // how often anything was changed
	lists     []api.ListDetail
	updated   []string // lists that were asked for

	carrying     api.Carrying
	totals       []journal.DeviceTotals
	destinations map[devices.ID][]journal.DestinationTotals
	flows        []journal.FlowRow
	lookups      []journal.LookupRow
	events       []journal.EventRow
	broken       error // what the ledger answers, when set

}

func (h *house) change(id devices.ID, do func(*devices.Device)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.devices {
		if h.devices[i].ID == id {
			h.changes++
			do(&h.devices[i])
			return nil
		}
	}
	return fmt.Errorf("device %q: %w", id, fs.ErrNotExist)
}

func (h *house) Devices(time.Time) []devices.Device {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.devices)
}

func (h *house) SetMode(_ context.Context, id devices.ID, m devices.Mode) (int, error) {
	return h.ended, h.change(id, func(d *devices.Device) { d.Mode = m })
}

func (h *house) SetLog(_ context.Context, id devices.ID, l devices.LogLevel) error {
	return h.change(id, func(d *devices.Device) { d.Log = l })
}

func (h *house) SetKind(_ context.Context, id devices.ID, k devices.Kind) error {
	return h.change(id, func(d *devices.Device) { d.Kind, d.KindFrom = k, "the household said so" })
}

func (h *house) SetName(_ context.Context, id devices.ID, name string) error {
	return h.change(id, func(d *devices.Device) { d.Name, d.NameFrom = name, devices.SourceHousehold })
}

func (h *house) SetCarry(_ context.Context, id devices.ID, on bool) error {
	return h.change(id, func(d *devices.Device) { d.CarryEncrypted = on })
}

func (h *house) SetStrip(_ context.Context, id devices.ID, on bool) error {
	return h.change(id, func(d *devices.Device) { d.StripTracking = on })
}

func (h *house) Rules(context.Context) ([]policy.Rule, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.rules), nil
}

func (h *house) AddRule(_ context.Context, r policy.Rule) (policy.Rule, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes++
	h.nextID++
	r.ID = h.nextID
	h.rules = append(h.rules, r)
	return r, nil
}

func (h *house) RemoveRule(_ context.Context, id int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.rules)
	h.rules = slices.DeleteFunc(h.rules, func(r policy.Rule) bool { return r.ID == id })
	if len(h.rules) == n {
		return fmt.Errorf("rule %d: %w", id, fs.ErrNotExist)
	}
	h.changes++
	return nil
}

func (h *house) Erase(_ context.Context, id devices.ID) (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes++
	h.erased = append(h.erased, id)
	return 7, nil
}

func (h *house) Switch(_ context.Context, on bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes++
	h.on = on
	return nil
}

func (h *house) Dismiss(_ context.Context, what string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes++
	h.dismissed = what
	return nil
}

func (h *house) On() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.on
}

func (h *house) changed() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changes
}

func (h *house) Totals(context.Context, time.Time) ([]journal.DeviceTotals, error) {
	return h.totals, h.broken
}

func (h *house) Destinations(_ context.Context, id devices.ID, _ time.Time) ([]journal.DestinationTotals, error) {
	return h.destinations[id], h.broken
}

// newest narrows rows as the ledger does: newest first, by key.
func newest[T any](rows []T, f journal.Filter, id func(T) int64, keep func(T) bool) []T {
	var out []T
	for _, r := range rows {
		if keep(r) && (f.Before == 0 || id(r) < f.Before) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b T) int { return cmp.Compare(id(b), id(a)) })
	return out[:min(len(out), cmp.Or(f.Limit, 100))]
}

func (h *house) Forget(_ context.Context, id devices.ID) (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes++
	h.erased = append(h.erased, id)
	h.devices = slices.DeleteFunc(h.devices, func(d devices.Device) bool { return d.ID == id })
	return 7, nil
}

func (h *house) Days(_ context.Context, device devices.ID, _ time.Time) (days []journal.DayTotals, _ error) {
	const tv = devices.ID("00:00:5e:10:00:14")
	today := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	for _, d := range []journal.DayTotals{
		{Day: today, Device: tv, Organisation: "Netflix", Protection: "encrypted", BytesOut: 90_000, BytesIn: 44_000_000, Flows: 1},
		{Day: today, Device: tv, Organisation: "<b>Samba TV</b>", Protection: "readable", BytesOut: 120_000, BytesIn: 10, Flows: 3, Blocked: 1},
		{Day: today, Device: tv, Organisation: "Netflix", Lookups: 7},
		{Day: today.AddDate(0, 0, -1), Device: tv, Organisation: "Netflix", Protection: "encrypted", BytesOut: 5, BytesIn: 6, Flows: 2},
	} {
		if device == "" || device == d.Device {
			days = append(days, d)
		}
	}
	return days, h.broken
}

func (h *house) Top(_ context.Context, _ time.Time, by journal.TopBy, _ int) ([]journal.TopRow, error) {
	return map[journal.TopBy][]journal.TopRow{
		journal.TopByDestination:  {{Device: h.devices[0].ID, Name: "api.netflix.com", Organisation: "Netflix", Country: "US", BytesOut: 90_000, BytesIn: 44_000_000, Flows: 1, Last: noon}},
		journal.TopByOrganisation: {{Organisation: "Netflix", Country: "US", BytesOut: 90_000, BytesIn: 44_000_000, Flows: 1, Last: noon}},
	}[by], h.broken
}

func (h *house) Flows(_ context.Context, f journal.Filter) ([]journal.FlowRow, error) {
	return newest(h.flows, f, func(r journal.FlowRow) int64 { return r.ID }, func(r journal.FlowRow) bool {
		return (f.Device == "" || r.Device == f.Device) && (!f.Blocked || r.Verdict == "block") &&
			(!f.Readable || r.Protection == "readable" && !r.Harmless)
	}), h.broken
}

func (h *house) Lookups(_ context.Context, f journal.Filter) ([]journal.LookupRow, error) {
	return newest(h.lookups, f, func(r journal.LookupRow) int64 { return r.ID }, func(r journal.LookupRow) bool {
		return (f.Device == "" || r.Device == f.Device) && (!f.Blocked || r.Verdict == "block")
	}), h.broken
}

func (h *house) Events(_ context.Context, f journal.Filter) ([]journal.EventRow, error) {
	return newest(h.events, f, func(r journal.EventRow) int64 { return r.ID }, func(journal.EventRow) bool { return true }), h.broken
}

// newServer is a server over h whose clock stands at noon.
func newServer(t testing.TB, h *house) *ui.Server {
	t.Helper()
	s, _ := newLiveServer(t, h)
	return s
}

// newLiveServer also returns the journal that feeds the live feed.
func newLiveServer(t testing.TB, h *house) (*ui.Server, *journal.Recorder) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	live, err := journal.NewRecorder(journal.Config{Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	s, err := ui.New(ui.Config{
		House: h, Ledger: h, Live: live,
		Carrying: func(devices.ID) api.Carrying { return h.carrying },
		Health: func(context.Context) api.Health {
			return api.Health{
				Lines: []api.HealthLine{
					{Name: "look-ups", OK: true, Meaning: "Look-ups pass through Netcurtain and are answered."},
					{Name: "lists", OK: false, Meaning: "The list “ads” is 9 days old.", Mend: "Check that this box can reach the internet."},
					{Name: "this box", OK: false, Meaning: "unbound seems to be a resolver for other devices.", Mend: "Leave it alone, or not.", Dismiss: "192.168.7.5"},
				},
				Place:   "router of 192.168.7.0/24 on br-lan",
				Dropped: map[string]int64{"journal": 0, "nflog": 1204},
			}
		},
		Kept:     func(context.Context) []string { return []string{"Traffic is kept for 7 days, 64 MB at most."} },
		Gatherer: reg, Registerer: reg,
		Version: "v0.0.0-test", Location: time.UTC, Now: func() time.Time { return noon },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, live
}

func mac(n byte) devices.MAC { return devices.MAC{0x00, 0, 0x5e, 0x10, 0, n} }

// family is the house that the demo shows: a television, a camera, a speaker,
// a toy, a plug and a phone.
func family() *house {
	at := func(minutes int) time.Time { return noon.Add(-time.Duration(minutes) * time.Minute) }
	device := func(n byte, name, maker string, k devices.Kind, from string, m devices.Mode, l devices.LogLevel) devices.Device {
		return devices.Device{
			ID: devices.ID(mac(n).String()), MACs: []devices.MAC{mac(n)}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{192, 168, 7, n})},
			Name: name, Hostname: name, NameFrom: devices.SourceLease, Maker: maker, Kind: k, KindFrom: from, Mode: m, Log: l,
			FirstSeen: at(60 * 24 * 30), LastSeen: at(1),
		}
	}
	h := &house{on: true, nextID: 2, destinations: map[devices.ID][]journal.DestinationTotals{}}
	h.devices = []devices.Device{
		device(20, "Living-room TV", "Samsung Electronics", devices.KindTV, "its maker and its name", devices.ModeProtect, devices.LogNames),
		device(24, "Doorbell", "Ring", devices.KindCamera, "its maker", devices.ModeProtect, devices.LogNames),
		device(28, "Kitchen speaker", "Sonos", devices.KindSpeaker, "what it announces", devices.ModeWatch, devices.LogNames),
		device(32, "Talking bear", "", devices.KindToy, "you said so", devices.ModeGuard, devices.LogNames),
		device(36, "Plug", "Espressif", devices.KindPlug, "its maker", devices.ModeProtect, devices.LogNames),
		device(42, "Anna’s phone", "", devices.KindPhone, "its name", devices.ModeProtect, devices.LogCounts),
	}
	tv, camera, speaker, toy, plug, phone := h.devices[0].ID, h.devices[1].ID, h.devices[2].ID, h.devices[3].ID, h.devices[4].ID, h.devices[5].ID
	h.totals = []journal.DeviceTotals{
		{Device: tv, BytesOut: 48_210_334, BytesIn: 2_310_422_118, Flows: 412, ReadableFlows: 3, ReadableBytes: 18_420, Lookups: 980, Blocked: 312, Organisations: []string{"Samsung", "Netflix", "Google", "Amazon", "Akamai", "Gracenote"}, LastActive: at(1)},
		{Device: camera, BytesOut: 310_554_120, BytesIn: 4_120_998, Flows: 66, Lookups: 41, Organisations: []string{"Ring", "Amazon"}, LastActive: at(3)},
		{Device: speaker, BytesOut: 1_204_112, BytesIn: 88_120_554, Flows: 51, Lookups: 77, Blocked: 4, Organisations: []string{"Sonos", "Spotify"}, LastActive: at(9)},
		{Device: toy, BytesOut: 220_114, BytesIn: 90_442, Flows: 19, ReadableFlows: 12, ReadableBytes: 201_008, Lookups: 25, Blocked: 9, Organisations: []string{"Cuddle Cloud", "Flurry"}, LastActive: at(2)},
		{Device: plug, BytesOut: 40_112, BytesIn: 22_004, Flows: 8, ReadableFlows: 8, ReadableBytes: 40_112, Lookups: 12, Organisations: []string{"Tuya"}, LastActive: at(5)},
		{Device: phone, BytesOut: 22_114_998, BytesIn: 404_554_120, Flows: 688, Lookups: 1_204, Blocked: 122, LastActive: at(1)},
	}
	h.destinations[tv] = []journal.DestinationTotals{
		{Name: "api.netflix.com", NameSource: "sni", Organisation: "Netflix", Purpose: "content", Country: "US", BytesOut: 40_200_000, BytesIn: 2_300_000_000, Flows: 120, Encrypted: 120, Why: "TLS 1.3 handshake seen", Verdict: "none", First: at(600), Last: at(4)},
		{Name: "lcprd1.samsungcloudsolution.net", NameSource: "sni", Organisation: "Samsung", Purpose: "control", Country: "KR", Breaks: "the app store and signing in", BytesOut: 6_010_000, BytesIn: 9_000_000, Flows: 230, Encrypted: 229, CannotTell: 1, Why: "no handshake and no protocol that we know", Verdict: "none", First: at(610), Last: at(2)},
		{Name: "gpm.samsungqbe.com", NameSource: "host", Organisation: "Samsung", Purpose: "telemetry", Country: "KR", BytesOut: 18_420, BytesIn: 2_100, Flows: 3, Readable: 3, Why: "plain HTTP request", Verdict: "none", First: at(400), Last: at(30)},
		{Name: "ads.samsungads.com", NameSource: "dns-device", Organisation: "Samsung Ads", Purpose: "ads", Country: "US", Lookups: 300, Blocked: 300, Verdict: "block", Reason: "list", Rule: "samsungads.com", List: "starter", First: at(600), Last: at(1)},
	}
	h.destinations[toy] = []journal.DestinationTotals{
		{Name: "api.cuddlecloud.example", NameSource: "host", Organisation: "Cuddle Cloud", Purpose: "control", Country: "HK", Breaks: "talking", BytesOut: 201_008, BytesIn: 80_000, Flows: 12, Readable: 12, Weak: 1, Carried: 3, Why: "plain HTTP request", Verdict: "allow", Reason: "rule", Rule: "allow api.cuddlecloud.example", List: "household", First: at(300), Last: at(2)},
		{Name: "data.flurry.com", NameSource: "dns-device", Organisation: "Flurry", Purpose: "telemetry", Country: "US", Lookups: 9, Blocked: 9, Verdict: "block", Reason: "list", Rule: "flurry.com", List: "starter", First: at(300), Last: at(2)},
	}
	h.destinations[phone] = []journal.DestinationTotals{{BytesOut: 22_114_998, BytesIn: 404_554_120, Flows: 688, Lookups: 1204, Blocked: 122, Encrypted: 680, CannotTell: 8, First: at(600), Last: at(1)}}
	for i := range 24 {
		h.lookups = append(h.lookups, journal.LookupRow{ID: int64(100 - 2*i), At: at(i), Device: tv, Name: "ads.samsungads.com", Type: 1, Rcode: 3, Verdict: "block", Reason: "list", Rule: "samsungads.com", List: "starter", Organisation: "Samsung Ads"})
		h.lookups = append(h.lookups, journal.LookupRow{ID: int64(99 - 2*i), At: at(i), Device: toy, Name: "api.cuddlecloud.example", Type: 28, Verdict: "none", Organisation: "Cuddle Cloud", Redirected: i%3 == 0})
	}
	h.lookups = append(h.lookups, journal.LookupRow{ID: 101, At: at(0), Device: phone, Type: 65, Verdict: "block", Reason: "list"})
	end := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	h.flows = []journal.FlowRow{
		{ID: 12, Device: toy, First: at(3), Last: at(2), Proto: "tcp", Src: end("192.168.7.32:40112"), Dst: end("203.0.113.9:80"), App: "http", Protection: "readable", Why: "plain HTTP request", Name: "api.cuddlecloud.example", NameSource: "host", Organisation: "Cuddle Cloud", Purpose: "control", Country: "HK", BytesOut: 18_000, BytesIn: 6_200, PacketsOut: 22, PacketsIn: 20, Verdict: "allow", Reason: "rule", Rule: "allow api.cuddlecloud.example", List: "household", Proxied: true},
		{ID: 11, Device: plug, First: at(60), Last: at(5), Proto: "tcp", Src: end("192.168.7.36:50100"), Dst: end("203.0.113.40:1883"), App: "mqtt", Protection: "readable", Why: "MQTT CONNECT in clear", Name: "mq.tuya.example", NameSource: "dns-device", Organisation: "Tuya", BytesOut: 5_000, BytesIn: 2_000, PacketsOut: 9, PacketsIn: 8, Verdict: "none", Credentials: "mqtt-password", Findings: journal.Findings{CredentialUser: "a…(5)", CredentialDefault: true, Identifiers: "mac:1,imei:2"}, Ambiguous: true, Parts: 61},
		{ID: 10, Device: tv, First: at(9), Last: at(4), Proto: "tcp", Src: end("192.168.7.20:41234"), Dst: end("198.51.100.7:443"), App: "tls", Protection: "encrypted", Why: "TLS handshake seen", Name: "api.netflix.com", NameSource: "sni", TLSVersion: "1.0", Findings: journal.Findings{TLSCipher: "TLS_RSA_WITH_RC4_128_SHA", TLSWeak: "its version (1.0) is outdated; the certificate is self-signed", Certificate: "self-signed"}, Organisation: "Netflix", Purpose: "content", Country: "US", BytesOut: 90_000, BytesIn: 44_000_000, PacketsOut: 900, PacketsIn: 31_000, Verdict: "none"},
		{ID: 9, Device: tv, First: at(12), Last: at(12), Proto: "tcp", Src: end("192.168.7.20:41200"), Dst: end("8.8.8.8:853"), App: "unknown", Protection: "cannot-tell", Why: "no data was sent", BytesOut: 60, PacketsOut: 1, Verdict: "block", Reason: "side-door", Rule: "8.8.8.8"},
		{ID: 8, Device: phone, First: at(20), Last: at(15), Proto: "udp", Protection: "encrypted", BytesOut: 9_000, BytesIn: 80_000, PacketsOut: 30, PacketsIn: 90, Verdict: "none"},
	}
	h.events = []journal.EventRow{
		{ID: 3, At: at(5), Device: plug, Kind: journal.EventReadableSecret, Text: "sent a password readable to mq.tuya.example (MQTT)"},
		{ID: 2, At: at(12), Device: tv, Kind: journal.EventSideDoor, Text: "tried its own resolver at 8.8.8.8 over TLS"},
		{ID: 1, At: at(700), Kind: journal.EventHouseholdChange, Text: "switched on"},
	}
	h.lists = someLists(tv)
	h.rules = []policy.Rule{
		{ID: 1, Action: policy.Allow, Name: "api.cuddlecloud.example", Device: toy, Created: at(1000), By: "page"},
		{ID: 2, Action: policy.Block, Name: "doubleclick.net", Until: noon.Add(10 * time.Minute), Created: at(5), By: "cli"},
	}
	return h
}
