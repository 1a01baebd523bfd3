package devices

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config says how a Registry works. Zero fields take the defaults named here.
type Config struct {
	// Maker names who made the device with this address, "" when not known. It
	// is called without any lock held.
	Maker func(MAC) string
	// Now is the clock of look-ups that carry no time. Without one, the newest
	// time that a sighting brought is now, as a capture file needs it.
	Now func() time.Time
	// Own are the router's own addresses and OwnMACs its hardware addresses:
	// the router is not a device of the house.
	Own     []netip.Addr
	OwnMACs []MAC
	// Since is when the household said yes to filtering: devices seen until then are
	// protected from then on, later ones are watched first. Zero is not yet.
	Since time.Time
	// Probation is how long a later device is only watched; default one hour.
	Probation time.Duration
	// MaxDevices bounds the devices, default 1000; MaxAddrs the addresses of
	// each, default 64. Beyond them the one unseen for longest makes room.
	MaxDevices, MaxAddrs int
}

// Choice is what the household said of one device. A field left unset does not choose.
type Choice struct {
	Name string
	Kind Kind
	Mode Mode
	Log  *LogLevel
	// CarryEncrypted and StripTracking choose what Device's fields of these names say.
	CarryEncrypted, StripTracking bool
}

// Registry knows the devices of the house. It is safe for concurrent use, and
// calls nothing while it holds its lock.
type Registry struct {
	cfg Config

	mu      sync.RWMutex
	ids     map[ID]*record
	macs    map[MAC]*record
	addrs   map[netip.Addr]*record
	choices map[ID]Choice
	newest  time.Time // of all sightings
}

// record is one device as it is kept. The slices inside known are replaced,
// never written to, since copies of known are out with callers.
type record struct {
	known Device // Mode and Log are the defaults' business and filled in on the way out
	seen  []spot // of known.Addrs, same order
}

// spot is how an address of a device is known.
type spot struct {
	at     time.Time // last seen
	source Source    // the most trusted that ever said so
}

// sure reports that the device answered for its address: the router's neighbour
// table or a lease says so. The source of a packet is whatever its sender writes.
func (s spot) sure() bool { return s.source > SourcePacket }

// comeback is how long an address must have been silent to count as the newest
// again when it is next seen. Shorter silences keep the order, and so the slice.
const comeback = 10 * time.Minute

// NewRegistry returns an empty registry.
func NewRegistry(cfg Config) *Registry {
	if cfg.Maker == nil {
		cfg.Maker = func(MAC) string { return "" }
	}
	cfg.Probation = cmp.Or(cfg.Probation, time.Hour)
	cfg.MaxDevices = cmp.Or(cfg.MaxDevices, 1000)
	cfg.MaxAddrs = cmp.Or(cfg.MaxAddrs, 64)
	cfg.Own = slices.Clone(cfg.Own)
	return &Registry{
		cfg:   cfg,
		ids:   map[ID]*record{},
		macs:  map[MAC]*record{},
		addrs: map[netip.Addr]*record{},
	}
}

// Sight takes one observation in and returns the device that it is of. It
// returns the zero Device for what is no device: group addresses, the router
// itself, an observation with neither a MAC nor an address.
func (r *Registry) Sight(s Sighting) (d Device, isNew bool) {
	s.Addr = s.Addr.Unmap().WithZone("")
	if s.MAC.IsGroup() || slices.Contains(r.cfg.OwnMACs, s.MAC) || slices.Contains(r.cfg.Own, s.Addr) {
		return Device{}, false
	}
	if !ownable(s.Addr) {
		s.Addr = netip.Addr{}
	}
	if s.MAC.IsZero() && !s.Addr.IsValid() {
		return Device{}, false
	}
	if s.At.IsZero() {
		s.At = r.now()
	}
	maker, hostname := "", ""
	if r.isNewMAC(s.MAC) { // asked here, for nothing may be called under the lock
		maker = r.cfg.Maker(s.MAC)
	}
	if s.Hostname != "" {
		hostname = cleanHostname(s.Hostname)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	if s.At.After(r.newest) {
		r.newest = s.At
	}
	if s.Gone {
		return r.forgetAddr(s), false
	}
	rec := r.find(s)
	if isNew = rec == nil; isNew {
		rec = r.add(s, maker)
	}
	r.note(rec, s, hostname)
	return r.out(rec, s.At), isNew
}

// ownable reports whether a device can own a.
func ownable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func (r *Registry) isNewMAC(m MAC) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return !m.IsZero() && r.macs[m] == nil
}

// find returns the record that s is of. Only where no MAC can be had does an
// address identify a device.
func (r *Registry) find(s Sighting) *record {
	if !s.MAC.IsZero() {
		return r.macs[s.MAC]
	}
	return r.addrs[s.Addr]
}

func (r *Registry) add(s Sighting, maker string) *record {
	if len(r.ids) >= r.cfg.MaxDevices {
		r.evictDevice()
	}
	rec := &record{known: Device{FirstSeen: s.At, LastSeen: s.At, Maker: maker}}
	if s.MAC.IsZero() {
		rec.known.ID = ID(s.Addr.String())
	} else {
		rec.known.ID = ID(s.MAC.String())
		rec.known.MACs = []MAC{s.MAC}
		r.macs[s.MAC] = rec
	}
	r.ids[rec.known.ID] = rec
	rec.describe(r.choices[rec.known.ID])
	return rec
}

// note writes down what s says of rec.
func (r *Registry) note(rec *record, s Sighting, hostname string) {
	d := &rec.known
	// A lease proves that a device was here once, not that it is here now.
	if s.Source != SourceLease && s.At.After(d.LastSeen) {
		d.LastSeen = s.At
	}
	if s.At.Before(d.FirstSeen) {
		d.FirstSeen = s.At
	}
	if s.Addr.IsValid() {
		r.bind(rec, s.Addr, spot{s.At, s.Source})
	}
	if hostname != "" && s.Source >= d.NameFrom && hostname != d.Hostname {
		d.Hostname, d.NameFrom = hostname, s.Source
		rec.describe(r.choices[d.ID])
	}
}

// bind makes a an address of rec, taking it from whoever had it. A sighting
// that is older than the owner's own last one takes nothing, and nor does a mere
// packet take an address for which somebody else answered lately.
func (r *Registry) bind(rec *record, a netip.Addr, now spot) {
	owner := r.addrs[a]
	if owner == rec {
		i := slices.Index(rec.known.Addrs, a)
		last := rec.seen[i]
		now.source = max(now.source, last.source)
		if i > 0 && now.at.Sub(last.at) > comeback {
			rec.drop(a)
			rec.prepend(a, now)
			return
		}
		if now.at.Before(last.at) {
			now.at = last.at
		}
		rec.seen[i] = now
		return
	}
	if owner != nil {
		last := owner.seen[slices.Index(owner.known.Addrs, a)]
		if last.at.After(now.at) || last.sure() && !now.sure() && now.at.Sub(last.at) <= comeback {
			return
		}
		r.unbind(owner, a)
	}
	if len(rec.known.Addrs) >= r.cfg.MaxAddrs {
		oldest := rec.expendable()
		if rec.seen[oldest].sure() && !now.sure() {
			return // a device that writes any source must not push out its own addresses
		}
		r.unbind(rec, rec.known.Addrs[oldest])
	}
	rec.prepend(a, now)
	r.addrs[a] = rec
}

// expendable is the address that makes room for another: the one unseen for
// longest, of those that only packets brought while there are any.
func (rec *record) expendable() int {
	oldest := 0
	for i, s := range rec.seen {
		if first := rec.seen[oldest]; s.sure() != first.sure() && !s.sure() || s.sure() == first.sure() && s.at.Before(first.at) {
			oldest = i
		}
	}
	return oldest
}

// unbind takes a away from rec. A device known by nothing but its address is
// gone with it: its packets have got a MAC now, and so a lasting identity.
func (r *Registry) unbind(rec *record, a netip.Addr) {
	rec.drop(a)
	delete(r.addrs, a)
	if len(rec.known.MACs) == 0 && len(rec.known.Addrs) == 0 {
		delete(r.ids, rec.known.ID)
	}
}

func (rec *record) prepend(a netip.Addr, now spot) {
	rec.known.Addrs = append([]netip.Addr{a}, rec.known.Addrs...)
	rec.seen = slices.Insert(rec.seen, 0, now)
}

func (rec *record) drop(a netip.Addr) {
	i := slices.Index(rec.known.Addrs, a)
	rec.known.Addrs = slices.Delete(slices.Clone(rec.known.Addrs), i, i+1)
	rec.seen = slices.Delete(rec.seen, i, i+1)
}

// forgetAddr handles a sighting that says that an address is gone.
func (r *Registry) forgetAddr(s Sighting) Device {
	rec := r.addrs[s.Addr]
	if rec == nil || (!s.MAC.IsZero() && r.macs[s.MAC] != rec) {
		return Device{}
	}
	if len(rec.known.MACs) > 0 {
		r.unbind(rec, s.Addr)
	}
	return r.out(rec, s.At)
}

// evictDevice makes room for one. Somebody in the house may invent a thousand
// MACs: what the household spoke of goes last.
func (r *Registry) evictDevice() {
	var victim *record
	for _, rec := range r.ids {
		if victim == nil || r.expendable(rec, victim) {
			victim = rec
		}
	}
	if victim != nil {
		r.remove(victim)
	}
}

// expendable reports whether a should go before b.
func (r *Registry) expendable(a, b *record) bool {
	_, keepA := r.choices[a.known.ID]
	_, keepB := r.choices[b.known.ID]
	if keepA != keepB {
		return keepB
	}
	return a.known.LastSeen.Before(b.known.LastSeen)
}

func (r *Registry) remove(rec *record) {
	for _, a := range rec.known.Addrs {
		delete(r.addrs, a)
	}
	for _, m := range rec.known.MACs {
		delete(r.macs, m)
	}
	delete(r.ids, rec.known.ID)
}

// Forget removes a device, as the household may ask. It comes back as new when
// it is next seen.
func (r *Registry) Forget(id ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec := r.ids[id]; rec != nil {
		r.remove(rec)
	}
}

// Restore puts back devices as they were known before a restart: identity,
// hostname and the times, from which the mode follows. Devices already known
// keep what they have but take the earlier FirstSeen.
func (r *Registry) Restore(ds ...Device) {
	for _, d := range ds {
		r.restore(d)
	}
}

func (r *Registry) restore(d Device) {
	maker := ""
	if len(d.MACs) > 0 {
		maker = r.cfg.Maker(d.MACs[0])
	}
	hostname := cleanHostname(d.Hostname)
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec := r.ids[d.ID]; rec != nil {
		if d.FirstSeen.Before(rec.known.FirstSeen) {
			rec.known.FirstSeen = d.FirstSeen
		}
		return
	}
	if d.ID == "" || len(r.ids) >= r.cfg.MaxDevices {
		return
	}
	rec := &record{known: Device{
		ID: d.ID, Hostname: hostname, NameFrom: d.NameFrom, Maker: maker,
		FirstSeen: d.FirstSeen, LastSeen: d.LastSeen,
	}}
	for _, m := range d.MACs {
		if r.macs[m] == nil && !m.IsGroup() {
			rec.known.MACs = append(rec.known.MACs, m)
			r.macs[m] = rec
		}
	}
	for _, a := range d.Addrs[:min(len(d.Addrs), r.cfg.MaxAddrs)] {
		if r.addrs[a] == nil && ownable(a) {
			rec.known.Addrs = append(rec.known.Addrs, a)
			rec.seen = append(rec.seen, spot{at: d.LastSeen})
			r.addrs[a] = rec
		}
	}
	r.ids[d.ID] = rec
	rec.describe(r.choices[d.ID])
}

// Choose replaces everything that the household has said of its devices.
func (r *Registry) Choose(choices map[ID]Choice) {
	mine := make(map[ID]Choice, len(choices))
	for id, c := range choices {
		c.Name = cleanHostname(c.Name)
		mine[id] = c
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.choices = mine
	for id, rec := range r.ids {
		rec.describe(mine[id])
	}
}

// describe works out what to call the device and what it is.
func (rec *record) describe(c Choice) {
	d := &rec.known
	d.Kind, d.KindFrom = guessKind(d.Hostname, d.Maker)
	if c.Kind != KindUnknown {
		d.Kind, d.KindFrom = c.Kind, "the household said so"
	}
	switch {
	case c.Name != "":
		d.Name = c.Name
	case d.Hostname != "":
		d.Name = d.Hostname
	case d.Maker != "" && len(d.MACs) > 0:
		d.Name = d.Maker + " " + strings.ToUpper(d.MACs[0].String()[12:])
	default:
		d.Name = string(d.ID)
	}
}

// out is rec as callers see it at the time now.
func (r *Registry) out(rec *record, now time.Time) Device {
	d := rec.known
	c := r.choices[d.ID]
	if d.Mode = c.Mode; d.Mode == ModeUnset {
		d.Mode = r.defaultMode(d.FirstSeen, now)
	}
	d.CarryEncrypted, d.StripTracking = c.CarryEncrypted, c.StripTracking
	switch {
	case c.Log != nil:
		d.Log = *c.Log
	case d.Kind.Smart():
		d.Log = LogNames
	default:
		d.Log = LogCounts
	}
	return d
}

// defaultMode is for a device of which the household said nothing: watched until it
// said yes to filtering, then protected; one that comes later is watched first. A clock
// that was set back must not keep anything in watch for years, so an age below zero
// counts by its size.
func (r *Registry) defaultMode(first, now time.Time) Mode {
	switch {
	case r.cfg.Since.IsZero():
		return ModeWatch
	case !first.After(r.cfg.Since):
		return ModeProtect
	case now.Sub(first).Abs() < r.cfg.Probation:
		return ModeWatch
	}
	return ModeProtect
}

func (r *Registry) now() time.Time {
	if r.cfg.Now != nil {
		return r.cfg.Now()
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.newest
}

// ByAddr returns the device that owns a now.
func (r *Registry) ByAddr(a netip.Addr) (Device, bool) {
	now := r.now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.get(r.addrs[a.Unmap().WithZone("")], now)
}

// ByMAC returns the device that has the hardware address m.
func (r *Registry) ByMAC(m MAC) (Device, bool) {
	now := r.now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.get(r.macs[m], now)
}

// ByID returns the device called id.
func (r *Registry) ByID(id ID) (Device, bool) {
	now := r.now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.get(r.ids[id], now)
}

func (r *Registry) get(rec *record, now time.Time) (Device, bool) {
	if rec == nil {
		return Device{}, false
	}
	return r.out(rec, now), true
}

// All returns every device as it is treated at now, sorted by name.
func (r *Registry) All(now time.Time) []Device {
	r.mu.RLock()
	all := make([]Device, 0, len(r.ids))
	for _, rec := range r.ids {
		all = append(all, r.out(rec, now))
	}
	r.mu.RUnlock()
	slices.SortFunc(all, func(a, b Device) int {
		return cmp.Or(strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)), strings.Compare(string(a.ID), string(b.ID)))
	})
	return all
}
