package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/enforce"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/internal/uci"
	"github.com/netcurtain/netcurtain/journal"
)

// A second resolver in the house (a Pi-hole, a domain controller) asks on behalf
// of others: what we decide for it is decided for all of them, and what it asks
// elsewhere is brought back to us. We propose to leave it alone when we recognise
// it, by either of two marks. The router tells its devices to ask it, as the files
// of the DHCP server say. Or devices that never ask us go where nobody but it was
// told the way.

// teacher recognises resolvers by the second mark. All it keeps is in memory, for
// a day, and names no destination.
type teacher struct {
	now func() time.Time

	mu     sync.Mutex
	since  time.Time
	taught map[netip.Addr]devices.ID
	went   map[devices.ID]*ways
}

// ways are how a device came to where it went.
type ways struct {
	asked bool               // it asks us itself
	flows int                // that it opened
	by    map[devices.ID]int // of those, how many to addresses that this other device was told
}

// Bounds, and what it takes to be recognised: so many devices, each with so many
// connections, nearly all of which that one resolver explains.
const (
	maxTaught     = 8192
	maxPupils     = 512
	enoughPupils  = 2
	enoughFlows   = 8
	teacherMemory = 24 * time.Hour
)

func newTeacher(now func() time.Time) *teacher {
	t := &teacher{now: now}
	t.forget()
	return t
}

func (t *teacher) forget() {
	t.since, t.taught, t.went = t.now(), map[netip.Addr]devices.ID{}, map[devices.ID]*ways{}
}

// pupil is how device d came to where it went; nil when there are too many.
func (t *teacher) pupil(d devices.ID) *ways {
	w := t.went[d]
	if w == nil && len(t.went) < maxPupils && d != "" {
		w = &ways{by: map[devices.ID]int{}}
		t.went[d] = w
	}
	return w
}

// Learn notes that a device was told the way to an address, and thus asks us.
func (t *teacher) Learn(d devices.ID, a netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.now().Sub(t.since).Abs() > teacherMemory {
		t.forget()
	}
	if len(t.taught) >= maxTaught {
		clear(t.taught)
	}
	t.taught[a.Unmap()] = d
	if w := t.pupil(d); w != nil {
		w.asked = true
	}
}

// Flow notes where a device went.
func (t *teacher) Flow(d devices.ID, a netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.pupil(d)
	if w == nil {
		return
	}
	w.flows++
	if by, ok := t.taught[a.Unmap()]; ok && by != d && len(w.by) < 8 || w.by[by] > 0 {
		w.by[by]++
	}
}

// Resolvers are the devices that answer for others, in order.
func (t *teacher) Resolvers() (found []devices.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pupils := map[devices.ID]int{}
	for _, w := range t.went {
		for by, n := range w.by {
			if !w.asked && w.flows >= enoughFlows && n*5 >= w.flows*4 {
				pupils[by]++
			}
		}
	}
	for d, n := range pupils {
		if n >= enoughPupils {
			found = append(found, d)
		}
	}
	slices.Sort(found)
	return found
}

// taughtNames teaches the observer, and the teacher beside it.
type taughtNames struct {
	observer interface {
		Learn(devices.ID, dnsname.Name, netip.Addr, time.Duration)
	}
	teacher *teacher
}

func (n taughtNames) Learn(d devices.ID, name dnsname.Name, a netip.Addr, ttl time.Duration) {
	n.observer.Learn(d, name, a, ttl)
	n.teacher.Learn(d, a)
}

// followed tells the teacher where devices go, on the way to the journal. It is no
// reader of the journal: each look-up of the house would wake it.
type followed struct {
	to interface{ Record(journal.Entry) }
	d  *daemon
}

func (r followed) Record(e journal.Entry) {
	if f := e.Flow; f != nil && f.Part == 0 && !f.Inbound && !r.d.isLAN(f.Tuple.DstAddr()) {
		r.d.teacher.Flow(e.Device, f.Tuple.DstAddr())
	}
	r.to.Record(e)
}

// handedOut reads which resolvers the router tells its devices to ask: option 6
// of DHCP, `list dns` of odhcpd. What cannot be read says nothing.
func handedOut(paths []string) (all []netip.Addr) {
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(f, 1<<20))
		if err := errors.Join(err, f.Close()); err != nil {
			continue
		}
		all = append(all, handedOutBy(string(b), path)...)
	}
	return all
}

var dhcpDNS = regexp.MustCompile(`(?:^|,)(?:6|option:dns-server|option6:(?:23|dns-server)),(.*)$`)

// handedOutBy reads one file, of UCI or of dnsmasq.
func handedOutBy(text, name string) (all []netip.Addr) {
	add := func(list string) {
		for _, s := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' }) {
			if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil && !a.IsUnspecified() && !a.IsLoopback() {
				all = append(all, a.Unmap())
			}
		}
	}
	sections, err := uci.Parse(strings.NewReader(text), name)
	if err == nil && len(sections) > 0 {
		for _, s := range sections {
			for _, o := range s.Options {
				for _, v := range o.Values {
					switch m := dhcpDNS.FindStringSubmatch(v); {
					case s.Type == "dhcp" && o.Key == "dns":
						add(v)
					case o.Key == "dhcp_option" && m != nil:
						add(m[1])
					}
				}
			}
		}
		return all
	}
	for line := range strings.Lines(text) {
		v, ok := strings.CutPrefix(strings.TrimSpace(line), "dhcp-option=")
		if m := dhcpDNS.FindStringSubmatch(v); ok && m != nil {
			add(m[1])
		}
	}
	return all
}

// called is what a person knows a device by.
func called(d devices.Device) string { return cmp.Or(d.Name, d.Hostname, string(d.ID)) }

// keyDismissed is the household's setting with the addresses of resolvers of which it
// wants to hear no more, parted by blanks; maxDismissed bounds them.
const (
	keyDismissed = "dismissed"
	maxDismissed = 64
)

// dismissed are those addresses. What cannot be read hides nothing.
func (d *daemon) dismissed(ctx context.Context) []string {
	text, _, err := d.store.Setting(ctx, keyDismissed)
	if err != nil {
		d.log.Warn("reading what was dismissed", "error", err)
	}
	return strings.Fields(text)
}

// secondResolvers proposes to leave alone the resolvers of the house that were
// recognised and are neither exempt nor the router itself.
func (d *daemon) secondResolvers(ctx context.Context) (found []enforce.Problem) {
	s := d.settings.Load()
	if !s.DNS.Intercept {
		return nil
	}
	dismissed := d.dismissed(ctx)
	exempt, own := d.exempt(s), *d.own.Load()
	told := map[string]bool{}
	propose := func(name, how string, addrs ...netip.Addr) {
		i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return d.isLAN(a) && !a.IsLinkLocalUnicast() })
		if i < 0 || slices.ContainsFunc(addrs, func(a netip.Addr) bool { return own[a] || slices.Contains(exempt, a) }) || told[name] {
			return
		}
		told[name] = true
		about := addrs[i].String()
		if slices.Contains(dismissed, about) {
			return
		}
		found = append(found, enforce.Problem{
			What: fmt.Sprintf("%s seems to be a resolver for other devices: %s. What is decided for it is decided for all of them.", name, how),
			Fix: fmt.Sprintf("list exempt '%s' in section dns of /etc/config/netcurtain, then reload: it is left alone, and what devices ask of it is not seen; or let them ask the router; "+
				"or netcurtain dismiss %s: it stays as it is, and nothing more is said", about, about),
			About: about,
		})
	}
	for _, a := range handedOut(s.DNS.DHCP) {
		name, addrs := a.String(), []netip.Addr{a}
		if dev, ok := d.registry.ByAddr(a); ok {
			name, addrs = called(dev), append(addrs, dev.Addrs...)
		}
		propose(name, "the router's DHCP server tells devices to ask it", addrs...)
	}
	for _, id := range d.teacher.Resolvers() {
		if dev, ok := d.registry.ByID(id); ok {
			propose(called(dev), "devices that never ask the router go where only it was told the way", dev.Addrs...)
		}
	}
	return found
}
