package proxy

import (
	"sync"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// Bounds of what is counted for pages.
const (
	maxTallied = 256 // devices
	maxPlaces  = 256 // hosts of one device
)

// Tally is what was done, since the start, to what one device asks in clear. It lives
// in memory, holds no names, and is not kept for a device of which nothing is written.
type Tally struct {
	Places    int // hosts that it asked in clear
	Encrypted int // of those, whose last request left the house encrypted
	Taken     Taken
}

// Taken counts what was taken out, by kind.
type Taken struct{ Headers, Referrers, Cookies, SetCookies int }

func (t *Taken) add(kind string) {
	switch kind {
	case tookHeader:
		t.Headers++
	case tookReferrer:
		t.Referrers++
	case tookCookie:
		t.Cookies++
	case tookSetCookie:
		t.SetCookies++
	}
}

// tallies has the tallies of all devices.
type tallies struct {
	mu  sync.Mutex
	all map[devices.ID]*tally
}

type tally struct {
	last  map[dnsname.Name]bool // whether the last request to a host left encrypted
	taken Taken
}

// of runs do on the device's tally, unless there is no room for one more.
func (t *tallies) of(d *devices.Device, do func(*tally)) {
	if d.Log == devices.LogNone {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.all[d.ID]
	if one == nil {
		if len(t.all) >= maxTallied {
			return
		}
		one = &tally{last: map[dnsname.Name]bool{}}
		t.all[d.ID] = one
	}
	do(one)
}

// asked notes how a request to a host left.
func (t *tally) asked(name dnsname.Name, encrypted bool) {
	if _, known := t.last[name]; known || len(t.last) < maxPlaces {
		t.last[name] = encrypted
	}
}

// Tally is what was done to what a device asks in clear.
func (p *Proxy) Tally(id devices.ID) Tally {
	p.tallies.mu.Lock()
	defer p.tallies.mu.Unlock()
	one := p.tallies.all[id]
	if one == nil {
		return Tally{}
	}
	out := Tally{Places: len(one.last), Taken: one.taken}
	for _, encrypted := range one.last {
		if encrypted {
			out.Encrypted++
		}
	}
	return out
}

// Forget drops what is remembered of a device, of all and of servers when id is "".
func (p *Proxy) Forget(id devices.ID) {
	if id == "" {
		p.servers.forget()
	}
	p.tallies.mu.Lock()
	defer p.tallies.mu.Unlock()
	if id == "" {
		clear(p.tallies.all)
	}
	delete(p.tallies.all, id)
}
