package observe

import (
	"net/netip"
	"time"

	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/flow/dissect"
)

// Some flows cannot be judged alone: how unknown bytes look is to be believed only of
// several flows, and sound, picture and files are known by the talk that announced them.

const (
	minAlike     = 3    // flows of one device to one destination that must look alike
	maxCounted   = 1000 // flows of one pair
	maxLooks     = 4096 // pairs of device and destination whose unknown flows are counted
	maxAnnounced = 512  // ends that were announced lately
	announcedFor = 10 * time.Minute
)

// looks counts a device's unknown flows to one destination by how they look.
type looks struct{ readable, other uint16 }

// announced is an end of which another flow said that sound, picture or a file will flow there.
type announced struct {
	by      string // the protocol that said so
	secured bool
	at      time.Time
}

// judge settles what s.seen says in the light of other flows.
func (c *core) judge(s *running) {
	switch {
	case c.media(s):
	case s.seen.Guessed:
		n := c.alike(s)
		if n.readable+n.other > maxCounted { // what is new counts for more than what was
			n.readable, n.other = n.readable/2, n.other/2
		}
		if s.seen.Protection == flow.Readable {
			n.readable++
		} else {
			n.other++
		}
		s.seen = n.believe(s.seen)
	}
}

// alike is the count that s belongs to.
func (c *core) alike(s *running) *looks {
	far, _ := s.far()
	key := flow.NewTuple(s.Tuple.Proto, netip.AddrPort{}, far)
	if copy(key.Src[:], s.MAC[:]); s.MAC == ([6]byte{}) {
		if key.Src = s.Tuple.Src; s.inbound {
			key.Src = s.Tuple.Dst
		}
	}
	n, _, ok := c.looks.Get(key)
	if !ok {
		n = c.looks.Add(key)
	}
	return n
}

// believe is what may be shown of a guess: it stays Can't tell until enough flows
// look alike, and few look otherwise.
func (n *looks) believe(r dissect.Result) dissect.Result {
	if r.Protection == flow.Readable && (n.readable < minAlike || n.other*2 > n.readable) {
		r.Protection = flow.CannotTell
		r.Reason += "; too few such flows to be sure"
	}
	return r
}

// announce notes the ends that a flow announced.
func (c *core) announce(s *running, media []dissect.Media) {
	for _, m := range media {
		addr := m.Addr
		if !addr.IsValid() {
			if addr = s.Tuple.SrcAddr(); m.By == flow.Reply {
				addr = s.Tuple.DstAddr()
			}
		}
		if m.Secured && addr != s.Tuple.SrcAddr() && addr != s.Tuple.DstAddr() && c.isInside(addr) {
			continue // nobody vouches for the encryption of another device
		}
		proto := m.Proto
		if proto == 0 {
			proto = flow.UDP
		}
		key := flow.NewTuple(proto, netip.AddrPort{}, netip.AddrPortFrom(addr, m.Port))
		a, _, ok := c.announced.Get(key)
		if !ok {
			a = c.announced.Add(key)
		}
		*a = announced{s.conv.Result().App, m.Secured, c.now}
	}
}

// media judges a flow that was announced. RTP's packets alone do not say whether
// they are encrypted.
func (c *core) media(s *running) bool {
	switch s.seen.App {
	case "rtp", "rtcp", "unknown":
	default:
		return false
	}
	for _, end := range [...]netip.AddrPort{s.Tuple.DstAddrPort(), s.Tuple.SrcAddrPort()} {
		a, _, ok := c.announced.Get(flow.NewTuple(s.Tuple.Proto, netip.AddrPort{}, end))
		if !ok || c.now.Sub(a.at) > announcedFor {
			continue
		}
		s.seen.Guessed = false
		if a.by == "ftp" || a.by == "tftp" { // a file, whose bytes may look like anything
			s.seen.App, s.seen.Protection, s.seen.Reason = a.by, flow.Readable, "a file or a listing in clear, as "+a.by+" announced it"
			return true
		}
		if s.seen.App == "unknown" {
			s.seen.App = "rtp"
		}
		s.seen.Protection, s.seen.Reason = flow.Readable, "sound or picture in clear, as "+a.by+" announced it"
		if a.secured {
			s.seen.Protection, s.seen.Reason = flow.Encrypted, "sound or picture over SRTP, as "+a.by+" announced it"
		}
		return true
	}
	return false
}
