package devices

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var (
	noon  = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	tv    = MAC{0xd0, 0x4d, 0x2c, 0, 0x10, 0x01}
	phone = MAC{0xd2, 0x11, 0x22, 0x33, 0x44, 0x55} // randomised
	v4    = netip.MustParseAddr("192.168.77.10")
	v6    = netip.MustParseAddr("fd77::10")
)

func maker(m MAC) string {
	if m == tv {
		return "Roku"
	}
	return ""
}

func TestWhatADeviceIsCalled(t *testing.T) {
	r := NewRegistry(Config{Maker: maker})
	d, isNew := r.Sight(Sighting{MAC: tv, Addr: v4, Source: SourceNeighbour, At: noon})
	want := Device{
		ID: "d0:4d:2c:00:10:01", MACs: []MAC{tv}, Addrs: []netip.Addr{v4},
		Name: "Roku 10:01", Maker: "Roku", Kind: KindTV, KindFrom: "its maker is Roku",
		Mode: ModeWatch, Log: LogNames, FirstSeen: noon, LastSeen: noon,
	}
	if diff := cmp.Diff(want, d, cmpopts.EquateComparable(netip.Addr{})); diff != "" || !isNew {
		t.Fatalf("first sighting (new %v):\n%s", isNew, diff)
	}
	say := func(name string, from Source) string {
		d, isNew := r.Sight(Sighting{MAC: tv, Addr: v4, Hostname: name, Source: from, At: noon})
		if isNew {
			t.Error("new twice")
		}
		return d.Name
	}
	for _, c := range []struct {
		name string
		from Source
		want string
	}{
		{"Roku-mDNS", SourceDiscovery, "Roku-mDNS"},
		{"Roku-Lease", SourceLease, "Roku-Lease"},
		{"Roku-mDNS", SourceDiscovery, "Roku-Lease"}, // less trusted
		{"", SourceLease, "Roku-Lease"},              // a lease without a name takes none away
		{"Roku-Renamed", SourceLease, "Roku-Renamed"},
	} {
		if got := say(c.name, c.from); got != c.want {
			t.Errorf("after %q from %s it is called %q, want %q", c.name, c.from, got, c.want)
		}
	}
	r.Choose(map[ID]Choice{want.ID: {Name: "Living room"}})
	if got := say("Roku-Again", SourceLease); got != "Living room" {
		t.Errorf("the household's word is %q", got)
	}
	r.Choose(nil)
	if d, _ := r.ByMAC(tv); d.Name != "Roku-Again" {
		t.Errorf("without the household's word it is %q", d.Name)
	}
	d, _ = r.Sight(Sighting{MAC: phone, Source: SourceNeighbour, At: noon})
	if d.Name != "d2:11:22:33:44:55" || d.Kind != KindUnknown || d.Log != LogCounts {
		t.Errorf("a device of which nothing is known: %+v", d)
	}
}

func TestHostnamesAreTheAttackers(t *testing.T) {
	for in, want := range map[string]string{
		"LG-webOS TV":                           "LG-webOS TV",
		"Anna's iPhone":                         "Anna’s iPhone",
		"Küche":                                 "Küche",
		"телевизор":                             "телевизор",
		"<script>alert(1)</script>":             "-script-alert(1)--script-",
		`"><img src=x>`:                         "---img src-x-",
		"a\x00b\x1b[31mc\r\nd":                  "ab-31mc d",
		"evil\u202egnp.exe":                     "evilgnp.exe",
		"zero\u200bwidth\ufeff":                 "zerowidth",
		"  much \t  space  ":                    "much space",
		"bad\xff\xfeutf8":                       "bad--utf8",
		"z\u0301\u0302\u0303\u0304\u0305algo":   "z\u0301\u0302algo",
		"📺 Küche & Bad":                         "📺 Küche - Bad",
		"tv.local":                              "tv",
		"tv.lan":                                "tv",
		"tv.":                                   "tv",
		"localhost":                             "",
		"-":                                     "",
		"&&&":                                   "",
		strings.Repeat("a", 100):                strings.Repeat("a", 63),
		strings.Repeat("ä", 100):                strings.Repeat("ä", 31),
		"{{.}}`rm -rf`;$(x)|%s":                 "-.-rm -rf--(x)--s",
		"\U000e0041tagged":                      "tagged",
		strings.Repeat("\u202e", 5000) + "tail": "tail",
	} {
		got := cleanHostname(in)
		if in == "{{.}}`rm -rf`;$(x)|%s" {
			if strings.ContainsAny(got, "{}`$|%;") {
				t.Errorf("cleanHostname(%q) = %q", in, got)
			}
			continue
		}
		if got != want {
			t.Errorf("cleanHostname(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzHostname(f *testing.F) {
	f.Add("LG-webOS TV")
	f.Add("Anna's <iPhone>\u202e")
	f.Add(strings.Repeat("ä", 40) + "\xff")
	f.Fuzz(func(t *testing.T, s string) {
		c := cleanHostname(s)
		if len(c) > maxHostname || strings.ContainsAny(c, "<>\"'`&\x00\n\r\t\u202e\u2066\\") || !isValid(c) {
			t.Errorf("cleanHostname(%q) = %q", s, c)
		}
		if again := cleanHostname(c); again != c && !strings.Contains(strings.ToLower(c), ".l") {
			t.Errorf("cleaning twice gives %q, then %q", c, again)
		}
		guessKind(c, s)
	})
}

func isValid(s string) bool { return strings.ToValidUTF8(s, "") == s }

func TestKinds(t *testing.T) {
	for _, c := range []struct {
		hostname, maker string
		want            Kind
	}{
		{"Roku-Streambar", "", KindTV}, {"LG-webOS", "", KindTV}, {"Samsung-TV", "", KindTV}, {"living-room-tv", "", KindTV},
		{"iPhone", "", KindPhone}, {"Annas-iPhone", "", KindPhone}, {"Anna’s iPhone", "", KindPhone}, {"Galaxy-S23", "Samsung Electronics", KindPhone}, {"android-1a2b3c4d5e6f7a8b", "", KindPhone},
		{"iPad", "", KindTablet}, {"DESKTOP-AB12CD3", "", KindComputer}, {"Annas-MacBook-Pro", "Apple", KindComputer},
		{"shellyplug-s-123456", "", KindPlug}, {"ESP_1A2B3C", "Espressif", KindOther}, {"", "Espressif", KindOther},
		{"ring-a1b2c3", "", KindCamera}, {"", "Hangzhou Hikvision Digital", KindCamera}, {"Sonos-ZP", "", KindSpeaker},
		{"", "Sonos", KindSpeaker}, {"", "SonoSite", KindUnknown}, {"EPSON1A2B3C", "", KindPrinter},
		{"", "Samsung Electronics", KindUnknown}, {"", "Apple", KindUnknown}, {"nas", "", KindUnknown}, {"", "", KindUnknown},
	} {
		got, why := guessKind(c.hostname, c.maker)
		if got != c.want || (why == "") != (got == KindUnknown) {
			t.Errorf("%q made by %q: %q because %q, want %q", c.hostname, c.maker, got, why, c.want)
		}
	}
}

func TestDefaultModes(t *testing.T) {
	r := NewRegistry(Config{Maker: maker})
	mode := func(m MAC, now time.Time) Mode {
		for _, d := range r.All(now) {
			if d.MACs[0] == m {
				return d.Mode
			}
		}
		t.Fatalf("%s is gone", m)
		return 0
	}
	r.Sight(Sighting{MAC: tv, At: noon})
	if m := mode(tv, noon.Add(48*time.Hour)); m != ModeWatch {
		t.Errorf("before the household said yes: %s", m)
	}
	yes := noon.Add(time.Minute)
	r = NewRegistry(Config{Maker: maker, Since: yes})
	r.Sight(Sighting{MAC: tv, At: noon})
	if m := mode(tv, yes); m != ModeProtect {
		t.Errorf("already there when the household said yes: %s", m)
	}
	later := yes.Add(time.Hour)
	r.Sight(Sighting{MAC: phone, At: later})
	for after, want := range map[time.Duration]Mode{
		0: ModeWatch, 59 * time.Minute: ModeWatch, time.Hour: ModeProtect, 1000 * time.Hour: ModeProtect,
		-time.Second:      ModeWatch,   // a clock may step back a little …
		-1000 * time.Hour: ModeProtect, // … or a lot, which must not mean years in watch
	} {
		if m := mode(phone, later.Add(after)); m != want {
			t.Errorf("%s after it came, a later device is in %s, want %s", after, m, want)
		}
	}
	r.Choose(map[ID]Choice{ID(phone.String()): {Mode: ModeOff}})
	if m := mode(phone, later.Add(2*time.Hour)); m != ModeOff {
		t.Errorf("the household said off, it is in %s", m)
	}
}

// Invariant 11: smart devices are watched, people are not.
func TestDefaultLogLevels(t *testing.T) {
	r := NewRegistry(Config{})
	for i, c := range []struct {
		hostname string
		want     LogLevel
	}{{"roku", LogNames}, {"shelly1", LogNames}, {"iPhone", LogCounts}, {"iPad", LogCounts}, {"DESKTOP-AB12CD3", LogCounts}, {"", LogCounts}} {
		m := MAC{0, 1, 2, 3, 4, byte(i)}
		if d, _ := r.Sight(Sighting{MAC: m, Hostname: c.hostname, Source: SourceLease, At: noon}); d.Log != c.want {
			t.Errorf("%q is logged by %s, want %s", c.hostname, d.Log, c.want)
		}
	}
	id := ID(MAC{0, 1, 2, 3, 4, 0}.String())
	r.Choose(map[ID]Choice{id: {Log: new(LogNone)}})
	if d, _ := r.ByID(id); d.Log != LogNone {
		t.Errorf("the household said none, it is %s", d.Log)
	}
	// Choosing counts, the zero level, is a choice too.
	r.Choose(map[ID]Choice{id: {Log: new(LogCounts)}})
	if d, _ := r.ByID(id); d.Log != LogCounts {
		t.Errorf("the household said counts, it is %s", d.Log)
	}
	// A device that turns out to be somebody's telephone stops being named.
	r.Choose(map[ID]Choice{id: {Kind: KindPhone}})
	if d, _ := r.ByID(id); d.Log != LogCounts || d.KindFrom != "the household said so" {
		t.Errorf("the household said phone: %+v", d)
	}
}

func TestAddressesMove(t *testing.T) {
	r := NewRegistry(Config{MaxAddrs: 3})
	owner := func(a netip.Addr) string {
		d, ok := r.ByAddr(a)
		if !ok {
			return ""
		}
		return d.MACs[0].String()
	}
	r.Sight(Sighting{MAC: tv, Addr: v4, At: noon})
	r.Sight(Sighting{MAC: tv, Addr: v6, At: noon})
	if owner(v4) != tv.String() || owner(v6) != tv.String() {
		t.Fatal("two addresses of one device")
	}
	if owner(netip.MustParseAddr("::ffff:192.168.77.10")) != tv.String() {
		t.Error("the mapped form of an address is another one")
	}
	if owner(netip.MustParseAddr("fd77::10%eth0")) != tv.String() {
		t.Error("an address with a zone is another one")
	}
	// Older news about an address takes it from nobody.
	r.Sight(Sighting{MAC: phone, Addr: v4, At: noon.Add(-time.Hour), Source: SourceLease})
	if owner(v4) != tv.String() {
		t.Error("an old lease took the address of a device that uses it")
	}
	before, _ := r.ByMAC(tv)
	r.Sight(Sighting{MAC: phone, Addr: v4, At: noon.Add(time.Hour)})
	if owner(v4) != phone.String() {
		t.Error("the address did not move")
	}
	if d, _ := r.ByMAC(tv); len(d.Addrs) != 1 || d.Addrs[0] != v6 {
		t.Errorf("the former owner has %v", d.Addrs)
	}
	if len(before.Addrs) != 2 || before.Addrs[1] != v4 {
		t.Errorf("a copy that was handed out changed: %v", before.Addrs)
	}
	// Gone counts only for whoever has it.
	r.Sight(Sighting{MAC: tv, Addr: v4, Gone: true, At: noon.Add(time.Hour)})
	if owner(v4) != phone.String() {
		t.Error("somebody else's address was taken away")
	}
	r.Sight(Sighting{MAC: phone, Addr: v4, Gone: true, At: noon.Add(time.Hour)})
	if owner(v4) != "" {
		t.Error("the address is not gone")
	}
	// Privacy addresses: the one unseen for longest makes room, newest first.
	var privacy []netip.Addr
	for i := range 5 {
		a := netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i+1))
		privacy = append([]netip.Addr{a}, privacy...)
		r.Sight(Sighting{MAC: phone, Addr: a, At: noon.Add(time.Duration(i) * time.Minute)})
	}
	d, _ := r.ByMAC(phone)
	if diff := cmp.Diff(privacy[:3], d.Addrs, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}
	if owner(privacy[4]) != "" {
		t.Error("an evicted address still leads somewhere")
	}
	// One that comes back after a silence is the newest again.
	r.Sight(Sighting{MAC: phone, Addr: privacy[2], At: noon.Add(time.Hour)})
	if d, _ := r.ByMAC(phone); d.Addrs[0] != privacy[2] || len(d.Addrs) != 3 {
		t.Errorf("after the comeback: %v", d.Addrs)
	}
}

// A device may write any source into its packets. It takes no address for which
// another answered lately, and does not push out the one for which it answered itself.
func TestSpoofedSources(t *testing.T) {
	r := NewRegistry(Config{MaxAddrs: 4})
	owner := func(a netip.Addr) string {
		d, ok := r.ByAddr(a)
		if !ok {
			return "nobody"
		}
		return d.MACs[0].String()
	}
	r.Sight(Sighting{MAC: tv, Addr: v4, Source: SourcePacket, At: noon})
	r.Sight(Sighting{MAC: tv, Addr: v4, Source: SourceNeighbour, At: noon}) // it answered
	r.Sight(Sighting{MAC: phone, Addr: v6, Source: SourceNeighbour, At: noon})
	for i := range 100 {
		at := noon.Add(time.Duration(i) * time.Second)
		r.Sight(Sighting{MAC: phone, Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Source: SourcePacket, At: at})
		r.Sight(Sighting{MAC: phone, Addr: v4, Source: SourcePacket, At: at})
	}
	if got := owner(v4); got != tv.String() {
		t.Errorf("the television's address belongs to %s", got)
	}
	if got := owner(v6); got != phone.String() {
		t.Errorf("the phone's own address belongs to %s", got)
	}
	if d, _ := r.ByMAC(phone); len(d.Addrs) != 4 {
		t.Errorf("the phone has %v", d.Addrs)
	}
	// Only addresses that were answered for: a mere packet makes no room for itself.
	for i := range 4 {
		r.Sight(Sighting{MAC: phone, Addr: netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), Source: SourceNeighbour, At: noon.Add(time.Hour)})
	}
	r.Sight(Sighting{MAC: phone, Addr: netip.AddrFrom4([4]byte{10, 0, 2, 1}), Source: SourcePacket, At: noon.Add(2 * time.Hour)})
	if got := owner(netip.AddrFrom4([4]byte{10, 0, 2, 1})); got != "nobody" {
		t.Errorf("a packet's address belongs to %s", got)
	}
	// What was silent for long is free to go, as when a lease moved on.
	r.Sight(Sighting{MAC: MAC{2, 0, 0, 0, 0, 9}, Addr: v4, Source: SourcePacket, At: noon.Add(time.Hour)})
	if got := owner(v4); got == tv.String() {
		t.Error("an address that was silent for an hour did not move")
	}
}

func TestWhatIsNoDevice(t *testing.T) {
	own := netip.MustParseAddr("192.168.77.1")
	r := NewRegistry(Config{Own: []netip.Addr{own}, OwnMACs: []MAC{{2, 0, 0x5e, 0x77, 0, 1}}})
	for _, s := range []Sighting{
		{}, {MAC: MAC{1, 0, 0x5e, 0, 0, 0xfb}, Addr: v4}, {MAC: MAC{255, 255, 255, 255, 255, 255}},
		{MAC: tv, Addr: own}, {Addr: own}, {MAC: MAC{2, 0, 0x5e, 0x77, 0, 1}, Addr: v4},
		{Addr: netip.MustParseAddr("224.0.0.251")}, {Addr: netip.MustParseAddr("::")}, {Addr: netip.MustParseAddr("127.0.0.1")},
	} {
		s.At = noon
		if d, isNew := r.Sight(s); isNew || d.ID != "" {
			t.Errorf("%+v made the device %q", s, d.ID)
		}
	}
	if d, isNew := r.Sight(Sighting{MAC: tv, Addr: netip.MustParseAddr("ff02::fb"), At: noon}); !isNew || len(d.Addrs) != 0 {
		t.Errorf("a device whose address is a group's: %+v", d)
	}
	if n := len(r.All(noon)); n != 1 {
		t.Errorf("%d devices", n)
	}
}

// A capture of raw IP has no MACs; as soon as one is known, it is the identity.
func TestDevicesKnownByAddressOnly(t *testing.T) {
	r := NewRegistry(Config{})
	d, isNew := r.Sight(Sighting{Addr: v4, Source: SourcePacket, At: noon})
	if !isNew || d.ID != "192.168.77.10" || d.Name != "192.168.77.10" {
		t.Fatalf("%+v", d)
	}
	if _, isNew := r.Sight(Sighting{Addr: v4, At: noon}); isNew {
		t.Error("new twice")
	}
	r.Sight(Sighting{MAC: tv, Addr: v4, At: noon.Add(time.Second)})
	if all := r.All(noon); len(all) != 1 || all[0].ID != ID(tv.String()) {
		t.Errorf("after its MAC is known: %+v", all)
	}
	if d, _ := r.Sight(Sighting{Addr: v4, At: noon.Add(2 * time.Second)}); d.ID != ID(tv.String()) {
		t.Errorf("a sighting without MAC of a known address is %q", d.ID)
	}
}

// Somebody in the house may invent MACs without end.
func TestBounded(t *testing.T) {
	r := NewRegistry(Config{MaxDevices: 10, MaxAddrs: 4})
	r.Choose(map[ID]Choice{ID(tv.String()): {Name: "TV"}})
	r.Sight(Sighting{MAC: tv, Addr: v4, At: noon})
	for i := range 10000 {
		m := MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}
		a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		r.Sight(Sighting{MAC: m, Addr: a, Hostname: strings.Repeat("x", i), Source: SourceLease, At: noon.Add(time.Duration(i) * time.Second)})
	}
	if n := len(r.All(noon)); n != 10 {
		t.Errorf("%d devices", n)
	}
	if len(r.ids) != 10 || len(r.macs) != 10 || len(r.addrs) != 10 {
		t.Errorf("inside: %d ids, %d MACs, %d addresses", len(r.ids), len(r.macs), len(r.addrs))
	}
	if d, ok := r.ByMAC(tv); !ok || d.Name != "TV" {
		t.Error("the device that the household named was evicted")
	}
}

func TestRestore(t *testing.T) {
	r := NewRegistry(Config{Maker: maker, Since: noon})
	r.Sight(Sighting{MAC: tv, Addr: v4, Hostname: "Roku", Source: SourceLease, At: noon.Add(-time.Hour)})
	saved := r.All(noon)

	again := NewRegistry(Config{Maker: maker, Since: noon})
	again.Restore(saved...)
	got, ok := again.ByAddr(v4)
	if diff := cmp.Diff(saved[0], got, cmpopts.EquateComparable(netip.Addr{})); diff != "" || !ok {
		t.Error(diff)
	}
	if d, isNew := again.Sight(Sighting{MAC: tv, Addr: v4, At: noon.Add(time.Hour)}); isNew || d.Mode != ModeProtect {
		t.Errorf("after a restart: new %v, %+v", isNew, d)
	}
	again.Forget(ID(tv.String()))
	if _, ok := again.ByMAC(tv); ok {
		t.Error("a forgotten device is still known")
	}
	if _, isNew := again.Sight(Sighting{MAC: tv, At: noon}); !isNew {
		t.Error("a forgotten device does not come back as new")
	}
}

func TestLookUpsUseTheClock(t *testing.T) {
	now := noon
	r := NewRegistry(Config{Since: noon.Add(-time.Hour), Now: func() time.Time { return now }})
	r.Sight(Sighting{MAC: tv, Addr: v4, At: noon})
	if d, _ := r.ByAddr(v4); d.Mode != ModeWatch {
		t.Errorf("at first: %s", d.Mode)
	}
	now = noon.Add(time.Hour)
	if d, _ := r.ByAddr(v4); d.Mode != ModeProtect {
		t.Errorf("after an hour without any sighting: %s", d.Mode)
	}
}

func TestAllIsSorted(t *testing.T) {
	r := NewRegistry(Config{})
	for i, n := range []string{"b", "C", "a", "b"} {
		r.Sight(Sighting{MAC: MAC{0, 0, 0, 0, 1, byte(9 - i)}, Hostname: n, Source: SourceLease, At: noon})
	}
	var got []string
	for _, d := range r.All(noon) {
		got = append(got, d.Name+" "+string(d.ID[15:]))
	}
	if diff := cmp.Diff([]string{"a 07", "b 06", "b 09", "C 08"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestManyAtOnce(t *testing.T) {
	r := NewRegistry(Config{Maker: maker, MaxDevices: 20, MaxAddrs: 4})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				m, a := MAC{2, 0, 0, 0, 0, byte(i * g)}, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
				r.Sight(Sighting{MAC: m, Addr: a, Hostname: "x", Source: SourceLease, At: noon.Add(time.Duration(i) * time.Second)})
				r.ByAddr(a)
				r.All(noon)
				r.Choose(map[ID]Choice{ID(m.String()): {Name: "y"}})
			}
		})
	}
	wg.Wait()
}

func TestAllocations(t *testing.T) {
	r := NewRegistry(Config{Maker: maker})
	s := Sighting{MAC: tv, Addr: v4, Source: SourcePacket, At: noon}
	r.Sight(s)
	r.Sight(Sighting{MAC: tv, Addr: v6, Source: SourcePacket, At: noon})
	for what, fn := range map[string]func(){
		"ByAddr":            func() { r.ByAddr(v4) },
		"ByMAC":             func() { r.ByMAC(tv) },
		"Sight of the same": func() { r.Sight(s) },
	} {
		if n := testing.AllocsPerRun(100, fn); n != 0 {
			t.Errorf("%s allocates %v times", what, n)
		}
	}
}

func BenchmarkByAddr(b *testing.B) {
	r := NewRegistry(Config{Now: time.Now})
	r.Sight(Sighting{MAC: tv, Addr: v4, At: noon})
	for b.Loop() {
		r.ByAddr(v4)
	}
}

func BenchmarkSight(b *testing.B) {
	r := NewRegistry(Config{})
	s := Sighting{MAC: tv, Addr: v4, Source: SourcePacket, At: noon}
	for b.Loop() {
		r.Sight(s)
	}
}
