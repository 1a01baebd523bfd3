package proxy

import "github.com/netcurtain/netcurtain/flow"

// wire is what the kernel had counted of the device's connection when an answer had
// been written: to the byte, one host's share of it ends there.
type wire struct{ counted, acks flow.Counters }

// answered notes what is counted when an answer has been written. What acknowledges
// it comes meanwhile: so often it is looked again.
func (c *conn) answered() {
	if c.proxy.cfg.Counted == nil {
		return
	}
	for range 3 {
		w := wire{acks: acknowledgements(c.TCPConn)}
		w.counted = c.proxy.cfg.Counted(c.tuple())
		if c.rest.wire = w; acknowledgements(c.TCPConn).Orig == w.acks.Orig {
			return
		}
	}
}

// turned is what was counted of c before the request that was read now. From the
// device only acknowledgements of the answer before came since that was written. To it
// the rest of that answer went, and perhaps an acknowledgement of this request.
func (c *conn) turned() flow.Counters {
	w := c.rest.wire
	if w.counted == (flow.Counters{}) {
		return w.counted
	}
	acks := acknowledgements(c.TCPConn)
	now := c.proxy.cfg.Counted(c.tuple())
	since := acks.Since(w.acks)
	return flow.Counters{
		Orig:  flow.Count{Packets: w.counted.Orig.Packets + since.Orig.Packets, Bytes: w.counted.Orig.Bytes + since.Orig.Bytes},
		Reply: now.Since(flow.Counters{Reply: since.Reply}).Reply,
	}
}
