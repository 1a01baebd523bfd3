package dissect

import "github.com/netcurtain/netcurtain/flow"

// Where a capture begins within a connection, its first words are not there. What is
// left may still tell the protocol: the port first of all, and how the bytes look.
// It is never enough to call a connection encrypted, but for QUIC, whose packets have
// a form.

// usual are the ports at which a connection that is under way is what it nearly always
// is there. clear protocols are readable when their bytes are text.
func usual(port uint16) (app string, clear bool) {
	switch port {
	case 22:
		return "ssh", false
	case 443, 465, 853, 993, 995, 8883:
		return "tls", false
	case 3389:
		return "rdp", false
	case 80, 8080:
		return "http", true
	case 21:
		return "ftp", true
	case 23:
		return "telnet", true
	case 25, 587:
		return "smtp", true
	case 110:
		return "pop3", true
	case 143:
		return "imap", true
	case 389:
		return "ldap", true
	case 445:
		return "smb", true
	case 554:
		return "rtsp", true
	case 1883:
		return "mqtt", true
	case 1935:
		return "rtmp", true
	case 3306:
		return "mysql", true
	case 5222:
		return "xmpp", true
	case 5432:
		return "postgres", true
	case 5672:
		return "amqp", true
	case 5900:
		return "vnc", true
	case 6379:
		return "redis", true
	case 6667:
		return "irc", true
	}
	return "", false
}

// byPort names an unknown connection whose beginning was not captured.
func (c *Conversation) byPort(r Result) Result {
	up, down := &c.dir[flow.Orig], &c.dir[flow.Reply]
	if c.proto != flow.TCP || r.App != "unknown" || up.anchored || down.anchored || c.sizes == [2]int{} {
		return r
	}
	app, clear := usual(c.ports[1])
	if app == "" {
		if app, clear = usual(c.ports[0]); app == "" {
			return r
		}
	}
	named := Result{App: app}
	if clear && r.Protection == flow.Readable {
		named.readable("text, and by its port it is " + app + "; its beginning was not seen")
	} else {
		named.cannotTell("by its port it is " + app + "; its beginning was not seen")
	}
	return named
}

// quicTrace is what the packets of one direction that have a short header (RFC 9000
// §17.3) have in common.
type quicTrace struct {
	id      [20]byte // the bytes behind the first, in which the connection's ID stands
	same    int      // how many of them were alike in all packets
	packets int
}

// note takes one datagram, and reports whether it has a short header's form.
func (t *quicTrace) note(b []byte) bool {
	if len(b) < 1+len(t.id) || b[0]&0xc0 != 0x40 {
		return false
	}
	if t.packets++; t.packets == 1 {
		t.same = copy(t.id[:], b[1:])
		return true
	}
	for i := range t.same {
		if b[1+i] != t.id[i] {
			t.same = i
			break
		}
	}
	return true
}

// quicUnderWay judges datagrams on QUIC's port that all have a short header. Where the
// same ID stands in several packets of a direction and all else looks random, it is
// QUIC; fewer are called by the port alone.
func (c *Conversation) quicUnderWay(r Result) Result {
	if c.proto != flow.UDP || r.App != "unknown" || c.oddQUIC || !c.port(443) {
		return r
	}
	for dir := range c.dir {
		if look := judge(c.dir[dir].bytes()); look != looksRandom && look != looksNothing {
			return r
		}
	}
	const fewest, shortest = 3, 4
	named := Result{App: "quic", TLS: &TLS{}}
	named.cannotTell("by its port and form it is QUIC; its beginning was not seen")
	for dir := range c.short {
		if t := &c.short[dir]; t.packets >= fewest && t.same >= shortest && distinct(t.id[:t.same]) > 2 && judge(c.dir[dir].bytes()) == looksRandom {
			named.encrypted("QUIC: encrypted by design; its beginning was not seen")
		}
	}
	if c.short[0].packets+c.short[1].packets == 0 {
		return r
	}
	return named
}
