package proxy

import (
	"net"
	"sync"
	"sync/atomic"
)

// parking waits for sockets that have nothing to say, without a goroutine for each:
// an idle connection costs its sockets and little more.
type parking struct {
	watcher
	mu      sync.Mutex
	last    uint64
	waiting map[uint64]func()
}

func newParking() (*parking, error) {
	w, err := newWatcher()
	return &parking{watcher: w, waiting: map[uint64]func(){}}, err
}

// wait calls then once, in a goroutine of its own, when c has something to be read,
// was ended by its other side or broke. Closing c on our side does not: see wake,
// which takes what stands in ticket by then.
func (p *parking) wait(c *net.TCPConn, ticket *atomic.Uint64, then func()) error {
	p.mu.Lock()
	p.last++
	t := p.last
	first := ticket.Swap(t) == 0 // now: then may run and wait again before we return
	p.waiting[t] = then
	p.mu.Unlock()
	err := p.watch(c, t, first, p.wake)
	if err != nil && p.forget(t) {
		return err
	}
	return nil
}

// wake calls what waits with a ticket, if it still does.
func (p *parking) wake(ticket uint64) {
	if then := p.take(ticket); then != nil {
		go then()
	}
}

// forget takes a ticket back. It reports whether it was still waited with: if not,
// what should be called was called.
func (p *parking) forget(ticket uint64) bool { return p.take(ticket) != nil }

func (p *parking) take(ticket uint64) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	then := p.waiting[ticket]
	delete(p.waiting, ticket)
	return then
}
