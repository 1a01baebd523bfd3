package observe

import (
	"net/netip"
	"sync"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// Bounds of what waits for the owner of the table. A dump of the kernel's table
// may not crowd out the ends of flows, so it has half of the room for events.
const (
	maxEvents  = 8192
	maxUpdates = maxEvents / 2
	maxPackets = 4096
	maxPayload = 4 << 20 // bytes of payload that wait, all packets together
	maxLearned = 2048
	maxCarried = 1024
	keepEvents = 512 // a batch that grew beyond this is given back once it was taken in
)

// batch is what came in since the owner last looked, each kind in its order.
type batch struct {
	events  []flow.Event
	packets []waiting
	payload []byte // of the packets, one behind the other
	learned []lesson
	carried []Carried
}

type waiting struct {
	flow.Packet
	from, to int
}

type lesson struct {
	device devices.ID
	name   dnsname.Name
	addr   netip.Addr
	ttl    time.Duration
}

// inbox is filled by anybody and emptied by the owner, who takes all at once:
// the lock is held for the copying of one message, never for work.
type inbox struct {
	mu      sync.Mutex
	in      batch
	updates int           // live counters among the events
	wake    chan struct{} // one token says that there is something
}

// put runs add under the lock and reports what it says, whether there was room, and
// whether half of it is taken.
func (i *inbox) put(add func(*batch) bool) (ok, crowded bool) {
	i.mu.Lock()
	ok = add(&i.in)
	crowded = len(i.in.packets) > maxPackets/2 || len(i.in.payload) > maxPayload/2 || len(i.in.events) > maxEvents/2
	// A name is of use to what comes after it, and goes before it in the batch: it
	// wakes nobody, for that would cost more than the look-up that taught it.
	wake := ok && (len(i.in.learned) > maxLearned/2 || len(i.in.events)+len(i.in.packets)+len(i.in.carried) > 0)
	i.mu.Unlock()
	if wake {
		select {
		case i.wake <- struct{}{}:
		default:
		}
	}
	return ok, crowded
}

// take exchanges what came in for an emptied batch.
func (i *inbox) take(empty batch) batch {
	i.mu.Lock()
	defer i.mu.Unlock()
	full := i.in
	i.in, i.updates = empty, 0
	return full
}

// emptied is b with nothing in it, to be filled again. What a burst made large is
// let go, so that one burst does not cost memory for ever.
func (b *batch) emptied() batch {
	clear(b.learned)
	clear(b.carried)
	return batch{
		events:  keep(b.events),
		packets: keep(b.packets),
		payload: keep(b.payload),
		learned: keep(b.learned),
		carried: keep(b.carried),
	}
}

func keep[T any](s []T) []T {
	limit := keepEvents
	if _, ok := any(s).([]byte); ok {
		limit = maxPayload / 8
	}
	if cap(s) > limit {
		return nil
	}
	return s[:0]
}
