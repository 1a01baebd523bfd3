package dissect

import (
	"bytes"
	"time"

	"github.com/netcurtain/netcurtain/flow"
)

// Conversation learns what a flow is from its first packets. It is not safe for
// use by several goroutines. A Conversation may be Reset and used again, which
// is what keeps the common path free of allocations.
//
// Bytes decide; a port only breaks a tie. The caller's directions are taken as
// given, but handshakes are recognised on either side, for a capture may begin
// in the middle.
type Conversation struct {
	proto   flow.Proto
	ports   [2]uint16 // opener's and responder's
	local   bool      // the responder's address is private, or a group on the link
	turned  bool      // a capture of one side only: what was taken for the opener answers
	state   state
	rec     *recogniser // the one that said yes last; nil when none did
	best    Result
	tls     tlsTalk
	quic    *quicTalk // only while QUIC is being read
	dir     [2]stream
	dtls    *dtlsTalk // only while a handshake is being read
	rtp     [2]rtpTrace
	short   [2]quicTrace // while nothing is known, on QUIC's port
	counted [2]numbered  // the last datagram that may have been a sealed one with a number
	oddQUIC bool         // one of them was none of QUIC's
	media   []Media      // announced so far
	sizes   [2]int       // bytes of payload seen
	look    view         // what the recognisers are shown; here so that it costs no allocation
	try     Result       // what one of them fills in
	at      time.Time    // of the packet at hand
}

// state of a conversation, and a recogniser's answer.
type state uint8

const (
	no    state = iota // not this protocol
	maybe              // not enough bytes to say
	yes                // this protocol; more may still be learned
	final              // this protocol, and nothing more will be learned
)

// New starts a conversation over p towards port dst (0 when not known).
func New(p flow.Proto, dst uint16) *Conversation {
	c := new(Conversation)
	c.Reset(p, dst)
	return c
}

// Reset forgets everything and starts another conversation, keeping small buffers.
func (c *Conversation) Reset(p flow.Proto, dst uint16) {
	c.proto, c.ports, c.local, c.state, c.rec = p, [2]uint16{0, dst}, false, no, nil
	c.best, c.tls, c.quic, c.sizes, c.try = Result{}, tlsTalk{}, nil, [2]int{}, Result{}
	c.dtls, c.rtp, c.media, c.turned = nil, [2]rtpTrace{}, nil, false
	c.short, c.counted, c.oddQUIC = [2]quicTrace{}, [2]numbered{}, false
	c.dir[0].reset()
	c.dir[1].reset()
}

// Close frees what the conversation holds of the flow's bytes. Its Result stays.
func (c *Conversation) Close() {
	if c.state == no && !c.tls.seen { // a beginning that was lost: what came after it may tell
		for dir := range c.dir {
			if s := &c.dir[dir]; c.proto == flow.TCP && c.state == no && s.skip() {
				c.readTCP(flow.Dir(dir), s.base, s.bytes(), 0)
			}
		}
	}
	c.settle()
}

// Held is how many octets of buffers the conversation holds for what it has not
// read to its end.
func (c *Conversation) Held() int {
	const keys = 1 << 10 // of one connection of QUIC, about
	n := cap(c.dir[0].held.buf) + cap(c.dir[1].held.buf)
	if q := c.quic; q != nil {
		n += keys + cap(q.plain) + cap(q.crypto.buf)
	}
	if d := c.dtls; d != nil {
		n += cap(d.client.msg.buf) + cap(d.server.msg.buf)
	}
	return n
}

// Done reports that nothing more will be learned: further packets are ignored.
func (c *Conversation) Done() bool { return c.state == final }

// Feed takes one packet of the flow. dir is flow.Orig for packets of the side
// that opened it. The packet and its payload are only read during the call.
func (c *Conversation) Feed(dir flow.Dir, pkt *flow.Packet) {
	if c.state == final || dir > flow.Reply {
		return
	}
	c.learnEnds(dir, pkt)
	c.at = pkt.At
	switch c.proto {
	case flow.TCP:
		c.feedTCP(dir, pkt)
	case flow.UDP:
		c.feedUDP(dir, pkt)
	default:
		c.feedIP(pkt)
	}
}

// learnEnds notes ports and whether the flow stays in the house; the first packet tells.
func (c *Conversation) learnEnds(dir flow.Dir, pkt *flow.Packet) {
	t := &pkt.Tuple
	if c.ports[0] != 0 || t.SrcPort == 0 && t.DstPort == 0 {
		return
	}
	src, dst, addr := t.SrcPort, t.DstPort, t.DstAddr()
	if dir == flow.Reply {
		src, dst, addr = dst, src, t.SrcAddr()
	}
	c.ports[0] = src
	if c.ports[1] == 0 {
		c.ports[1] = dst
	}
	c.local = addr.IsPrivate() || addr.IsMulticast() || addr.IsLinkLocalUnicast() || addr.IsLoopback() ||
		addr.Is4() && addr.As4() == [4]byte{255, 255, 255, 255}
}

// port reports whether one of the flow's two ends is port p.
func (c *Conversation) port(p uint16) bool { return c.ports[0] == p || c.ports[1] == p }

func (c *Conversation) feedTCP(dir flow.Dir, pkt *flow.Packet) {
	s := &c.dir[dir]
	seq := pkt.Seq
	if pkt.Flags&flow.SYN != 0 {
		s.anchor(seq)
		seq++ // data may ride on a SYN (TCP Fast Open)
	}
	if len(pkt.Payload) == 0 {
		return
	}
	if !s.add(seq, pkt.Payload) {
		c.answered(dir)
		return
	}
	c.sizes[dir] += len(pkt.Payload)
	if s.moved { // what was read began in the middle
		s.moved = false
		c.rec, c.state, c.best = nil, no, Result{}
	}
	if c.tls.seen {
		c.followTLS()
	} else {
		c.readTCP(dir, seq, pkt.Payload, pkt.Missing)
	}
	if c.state != final {
		c.dir[dir].keep()
		if c.spent() {
			c.settle()
		}
	}
}

// settle makes the best of what was seen.
func (c *Conversation) settle() { c.finish(c.quicUnderWay(c.byPort(c.Result()))) }

// spent reports that the flow was given all the attention that it may have.
func (c *Conversation) spent() bool {
	a, b := &c.dir[0], &c.dir[1]
	return a.full() && b.full() || !a.typed && a.packets+b.packets >= 12
}

// readTCP asks the recognisers about both streams.
func (c *Conversation) readTCP(dir flow.Dir, seq uint32, segment []byte, missing int) {
	defer c.lookAway()
	c.lookBoth(dir)
	c.look.segment = segment
	if c.look.dir == flow.Orig {
		c.look.missing = missing
	}
	if c.rec != nil {
		c.ask(c.rec)
		return
	}
	if c.startTLS(c.dir[flow.Orig].bytes(), c.dir[flow.Reply].bytes()) || c.askTCP() {
		return
	}
	if s := &c.dir[dir]; s.packets > 1 && !s.anchored && opensTalk(segment) { // the capture began in the middle of what was before
		s.begin(seq, segment)
		if c.lookBoth(dir); c.startTLS(c.dir[flow.Orig].bytes(), c.dir[flow.Reply].bytes()) || c.askTCP() {
			return
		}
	}
	if up, down := &c.dir[flow.Orig], &c.dir[flow.Reply]; !up.anchored && !down.anchored && (up.empty() || down.empty()) {
		c.turned = true
		if c.lookBoth(dir); c.askTCP() {
			return
		}
		c.turned = false
	}
	if tlsRecords(segment, missing) || tlsWithin(c.dir[dir].bytes()) { // the capture began after the handshake
		c.finish(Result{App: "tls", Protection: flow.Encrypted, Reason: "TLS records seen; the handshake was not", TLS: &TLS{}})
	}
}

// lookBoth points the view at both streams.
func (c *Conversation) lookBoth(dir flow.Dir) {
	up, down := c.dir[flow.Orig].bytes(), c.dir[flow.Reply].bytes()
	if c.turned {
		up, down, dir = down, up, dir^1
	}
	c.look = view{c: c, up: up, down: down, dir: dir}
}

func (c *Conversation) askTCP() bool {
	for i := range tcpRecognisers {
		if c.ask(&tcpRecognisers[i]) {
			return true
		}
	}
	return false
}

// opensTalk knows the segments with which a talk surely begins anew.
func opensTalk(b []byte) bool {
	return handshakeStart(b, hsClientHello) || handshakeStart(b, hsServerHello) || startsRequest(b) == yes || isStatusLine(b) ||
		bytes.HasPrefix(b, []byte("SSH-"))
}

// lookAway drops the reference to the packet.
func (c *Conversation) lookAway() { c.look = view{} }

// ask shows the view to one recogniser and notes a positive answer.
func (c *Conversation) ask(r *recogniser) bool {
	if c.try.touched() {
		c.try = Result{}
	}
	c.try.App = r.app
	switch r.read(&c.look, &c.try) {
	case final:
		c.finish(c.try)
	case yes:
		c.state, c.rec, c.best = yes, r, c.try
		c.dir[0].typed, c.dir[1].typed = r.typed, r.typed
	default:
		return false
	}
	return true
}

func (c *Conversation) feedUDP(dir flow.Dir, pkt *flow.Packet) {
	s := &c.dir[dir]
	if len(pkt.Payload) == 0 || s.full() {
		return
	}
	c.sizes[dir] += len(pkt.Payload)
	s.packets++
	switch {
	case c.quic != nil:
		c.followQUIC(dir, pkt.Payload)
	case c.state == no && c.startQUIC(dir, pkt.Payload):
	default:
		c.readUDP(dir, pkt)
	}
	if c.state == no && c.quic == nil {
		s.join(pkt.Payload, statBytes)
		c.oddQUIC = c.oddQUIC || c.port(443) && !c.short[dir].note(pkt.Payload)
	}
	if c.state == final {
		return
	}
	if c.spent() {
		c.settle()
	}
}

// readUDP asks the recognisers about one datagram. An answer that is not final
// (STUN, which makes way for something else) may be replaced by a later one.
func (c *Conversation) readUDP(dir flow.Dir, pkt *flow.Packet) {
	c.look = view{c: c, up: pkt.Payload, dir: dir, missing: pkt.Missing}
	defer c.lookAway()
	for i := range udpRecognisers {
		if c.ask(&udpRecognisers[i]) {
			return
		}
	}
	if c.best.App == "stun" && len(pkt.Payload) >= 12 {
		c.best.Harmless = false
		c.best.cannotTell("STUN made way for something that cannot be told: likely sound or picture")
	}
}

// feedIP judges what is neither TCP nor UDP by its protocol number, IPsec by its bytes too.
func (c *Conversation) feedIP(pkt *flow.Packet) {
	r, ok := ipProtocol(c.proto, pkt.Payload)
	if !ok {
		return
	}
	c.finish(r)
}

// Result is the best judgement so far.
func (c *Conversation) Result() Result {
	switch {
	case c.state == final, c.best.App != "":
		return c.best
	case c.tls.seen:
		return c.tls.result()
	case c.quic != nil:
		return c.quic.result()
	}
	return unknown(c.dir[flow.Orig].bytes(), c.dir[flow.Reply].bytes(), c.sizes)
}

// Media is where the flow announced, so far, that sound or picture will flow; it
// is to be read only.
func (c *Conversation) Media() []Media { return c.media }

// finish settles the judgement and lets the bytes go.
func (c *Conversation) finish(r Result) {
	if c.local && c.state != final {
		if name := product(c.ports[1], &r); name != "" {
			r.Reason = name + ": " + r.Reason
		}
	}
	c.best, c.state, c.quic, c.dtls = r, final, nil, nil
	c.dir[0].mute()
	c.dir[1].mute()
}
