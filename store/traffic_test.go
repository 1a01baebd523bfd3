package store_test

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

// traffic makes entries as a household makes them: each device has its own
// circle of names, which begins somewhere among all names; some of the circle
// very often, most hardly ever; four look-ups in ten blocked, one flow in ten
// readable. The same seed makes the same traffic.
type traffic struct {
	rng     *rand.Rand
	zipf    *rand.Zipf
	devices int
	names   uint64
	circle  uint64 // names of one device; 0 is all
	level   devices.LogLevel
	tag     string // is in every name
}

func newTraffic(seed uint64, devices int, names uint64) *traffic {
	rng := rand.New(rand.NewPCG(seed, seed))
	return &traffic{rng: rng, zipf: rand.NewZipf(rng, 1.2, 4, names-1), devices: devices, names: names, level: 1 /* names */, tag: "site"}
}

func deviceID(i int) devices.ID {
	return devices.ID(fmt.Sprintf("02:00:5e:20:%02x:%02x", i>>8&0xff, i&0xff))
}

// entry is one look-up (five times in six) or flow at the given time.
func (g *traffic) entry(at time.Time) journal.Entry {
	return g.entryOf(deviceID(g.rng.IntN(g.devices)), at)
}

func (g *traffic) entryOf(device devices.ID, at time.Time) journal.Entry {
	n := g.zipf.Uint64()
	if g.circle > 0 {
		n = (n%g.circle + uint64(device[len(device)-1])*7919 + uint64(device[len(device)-2])*104729) % g.names
	}
	name := fmt.Sprintf("n%d.%s%d.example", n, g.tag, n%97)
	dest := atlas.Destination{Organisation: fmt.Sprintf("%s org %d", g.tag, n%41), Purpose: atlas.PurposeTelemetry, Country: "US"}
	e := journal.Entry{At: at, Device: device, Log: g.level}
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
	if n%10 == 7 {
		f.Seen = dissect.Result{App: "http", Protection: flow.Readable, Reason: "an HTTP request was read"}
	}
	e.Flow = f
	return e
}
