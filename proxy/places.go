package proxy

// The rule at the cap: who rests between two HTTP requests makes room, for clients
// must bear that anyway; where nobody rests, the new connection is reset. Our own
// probe fails then, too, and while that lasts the kernel leaves new connections alone:
// they pass by us, seen as those of unguarded devices are.

// takeSlot takes one of all places.
func (p *Proxy) takeSlot() bool {
	for {
		select {
		case p.slots <- struct{}{}:
			return true
		default:
			if !p.makeRoom(func(*conn) bool { return true }) {
				return false
			}
		}
	}
}

// hasRoom reports whether c's device has room for it. No device may have more than
// half of all places: the others' web must not depend on how it behaves.
func (p *Proxy) hasRoom(c *conn) bool {
	for {
		p.mu.Lock()
		if p.held[c.device.ID] < max(p.cfg.MaxConns/2, 1) {
			p.held[c.device.ID]++
			c.counted = true
			p.mu.Unlock()
			return true
		}
		p.mu.Unlock()
		if !p.makeRoom(func(other *conn) bool { return other.device.ID == c.device.ID }) {
			return false
		}
	}
}

// couldTakeSlot reports whether takeSlot would find a place.
func (p *Proxy) couldTakeSlot() (could bool) {
	if len(p.slots) < cap(p.slots) {
		return true
	}
	p.live.Range(func(key, _ any) bool {
		could = key.(*conn).rest.now.Load()
		return !could
	})
	return could
}

// makeRoom ends a connection that rests, among those that will do.
func (p *Proxy) makeRoom(willDo func(*conn) bool) (made bool) {
	p.live.Range(func(key, _ any) bool {
		c := key.(*conn)
		made = c.rest.now.Load() && willDo(c) && c.proxy.parking.forget(c.waits[0].Load())
		if made {
			_ = c.Close()
		}
		return !made
	})
	return made
}

// enter makes c, which has a place, one of those that are carried.
func (p *Proxy) enter(c *conn) {
	p.metrics.open.Inc()
	p.conns.Add(1)
	p.live.Store(c, struct{}{})
}

// leave gives c's place back.
func (p *Proxy) leave(c *conn) {
	if c.counted {
		p.mu.Lock()
		if p.held[c.device.ID]--; p.held[c.device.ID] == 0 {
			delete(p.held, c.device.ID)
		}
		p.mu.Unlock()
	}
	p.live.Delete(c)
	p.metrics.open.Dec()
	<-p.slots
	p.conns.Done()
}
