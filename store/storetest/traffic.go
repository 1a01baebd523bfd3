package storetest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/policy"
)

// Traffic makes entries as a household makes them: each device has its own
// circle of names, which begins somewhere among all names; some of the circle
// very often, most hardly ever; four look-ups in ten blocked, one flow in ten
// readable, one in fifty with weak encryption. The same seed makes the same traffic.
type Traffic struct {
	Circle uint64           // names of one device; 0 is all
	Level  devices.LogLevel // of every device; LogNames when made by New
	Tag    string           // is in every name

	rng     *rand.Rand
	zipf    *rand.Zipf
	devices int
	names   uint64
}

// New is the traffic of so many devices that know so many names together.
func New(seed uint64, count int, names uint64) *Traffic {
	rng := rand.New(rand.NewPCG(seed, seed))
	return &Traffic{rng: rng, zipf: rand.NewZipf(rng, 1.2, 4, names-1), devices: count, names: names, Level: devices.LogNames, Tag: "site"}
}

// DeviceID is the i-th device's.
func DeviceID(i int) devices.ID {
	return devices.ID(fmt.Sprintf("02:00:5e:20:%02x:%02x", i>>8&0xff, i&0xff))
}

// Entry is one look-up (five times in six) or flow at the given time.
func (g *Traffic) Entry(at time.Time) journal.Entry {
	return g.EntryOf(DeviceID(g.rng.IntN(g.devices)), at)
}

// EntryOf is the same, of one device.
func (g *Traffic) EntryOf(device devices.ID, at time.Time) journal.Entry {
	n := g.zipf.Uint64()
	if g.Circle > 0 {
		n = (n%g.Circle + uint64(device[len(device)-1])*7919 + uint64(device[len(device)-2])*104729) % g.names
	}
	name := fmt.Sprintf("n%d.%s%d.example", n, g.Tag, n%97)
	dest := atlas.Destination{Organisation: fmt.Sprintf("%s org %d", g.Tag, n%41), Purpose: atlas.PurposeTelemetry, Country: "US"}
	e := journal.Entry{At: at, Device: device, Log: g.Level}
	verdict := policy.Verdict{}
	if n%10 < 4 {
		verdict = policy.Verdict{Action: policy.Block, Reason: policy.ReasonList, Rule: "||" + name + "^", List: "starter"}
	}
	if g.rng.IntN(6) > 0 {
		e.Lookup = &journal.Lookup{Name: dnsname.Name(name), Type: uint16(1 + 27*g.rng.IntN(2)), Destination: dest, Verdict: verdict}
		return e
	}
	addr := netip.AddrFrom4([4]byte{203, 0, byte(n >> 8), byte(n)})
	f := &journal.Flow{
		Flow: flow.Flow{
			Tuple:    flow.NewTuple(flow.TCP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, 1, byte(n)}), uint16(g.rng.IntN(65536))), netip.AddrPortFrom(addr, 443)),
			Counters: flow.Counters{Orig: flow.Count{Packets: 10, Bytes: uint64(g.rng.IntN(50_000))}, Reply: flow.Count{Packets: 20, Bytes: uint64(g.rng.IntN(500_000))}},
			First:    at.Add(-time.Duration(g.rng.IntN(60)) * time.Second), Last: at, Name: name, NameSource: flow.NameFromSNI,
		},
		Seen:        dissect.Result{App: "tls", Protection: flow.Encrypted, Reason: "a TLS 1.3 handshake was seen", TLS: &dissect.TLS{Version: "1.3"}},
		Destination: dest,
	}
	if n%50 == 9 {
		f.Seen.TLS = &dissect.TLS{Version: "1.0", Cipher: 0x0005, Weak: []string{"its version (1.0) is outdated", "the cipher is RC4"}}
	}
	if n%10 == 7 {
		f.Seen = dissect.Result{App: "http", Protection: flow.Readable, Reason: "an HTTP request was read"}
	}
	e.Flow = f
	return e
}
