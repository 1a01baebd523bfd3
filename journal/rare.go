package journal

import (
	"hash/maphash"
	"sync"

	"github.com/netcurtain/netcurtain/devices"
)

// Bounds of rare events. Who floods the house with names, or with devices that he
// invents, gets so many a day and no more: what he would push out of the list is
// what the household should read.
const (
	perDevice   = 24  // events of one device in a day
	perHouse    = 400 // of all devices in a day
	ofHouse     = 100 // of the house itself in a day: something that breaks and mends by the minute
	newDevices  = 50  // first sightings in a day
	maxSubjects = 512 // remembered of one device; then all of them are forgotten
	maxDevices  = 2048
)

// rare keeps rare events rare: of a device, each kind and subject is told once.
// It holds hashes and no names.
type rare struct {
	seed maphash.Seed

	mu       sync.Mutex // guards what follows
	told     map[devices.ID]*toldOf
	day      int64 // Unix days, of the counters
	today    int
	newcomer int
}

// toldOf is what was told of one device.
type toldOf struct {
	subjects map[uint64]struct{}
	day      int64
	today    int
}

func newRare() *rare {
	return &rare{seed: maphash.MakeSeed(), told: make(map[devices.ID]*toldOf)}
}

// tell reports whether an event is to be told, and then remembers it if it is a device's. What is over a day's bounds is not remembered, so that a later day may tell it.
func (r *rare) tell(e *Entry) bool {
	kind, subject := e.Event.Kind, e.Event.Subject
	once := subject != "" && e.Device != ""
	if e.Log != devices.LogNames {
		subject = "" // nobody may write it down, so that nobody would know it again
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.of(e.Device)
	key := r.key(kind, subject)
	if _, ok := t.subjects[key]; ok && once {
		return false
	}
	day := e.At.Unix() / 86400
	if r.day != day {
		r.day, r.today, r.newcomer = day, 0, 0
	}
	if t.day != day {
		t.day, t.today = day, 0
	}
	if e.Device == "" {
		t.today++
		return t.today <= ofHouse
	}
	if t.today >= perDevice || r.today >= perHouse || kind == EventNewDevice && r.newcomer >= newDevices {
		return false
	}
	t.today++
	r.today++
	if kind == EventNewDevice {
		r.newcomer++
	}
	t.add(key)
	return true
}

func (r *rare) key(kind EventKind, subject string) uint64 {
	return maphash.Comparable(r.seed, [2]string{string(kind), subject})
}

func (r *rare) of(d devices.ID) *toldOf {
	t := r.told[d]
	if t == nil {
		if len(r.told) >= maxDevices {
			clear(r.told)
		}
		t = &toldOf{subjects: make(map[uint64]struct{})}
		r.told[d] = t
	}
	return t
}

func (t *toldOf) add(key uint64) {
	if len(t.subjects) >= maxSubjects {
		clear(t.subjects)
	}
	t.subjects[key] = struct{}{}
}

// Remember says which events of devices were told before, in an earlier run, so
// that they are not told again. Their day's bounds begin anew.
func (r *Recorder) Remember(told []EventRow) {
	r.rare.mu.Lock()
	defer r.rare.mu.Unlock()
	for _, e := range told {
		if e.Device != "" {
			r.rare.of(e.Device).add(r.rare.key(e.Kind, e.Subject))
		}
	}
}

// Forget makes everything of a device worth telling again; "" is of all.
func (r *Recorder) Forget(d devices.ID) {
	r.rare.mu.Lock()
	defer r.rare.mu.Unlock()
	if d == "" {
		clear(r.rare.told)
	}
	delete(r.rare.told, d)
}
