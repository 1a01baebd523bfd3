//go:build linux

package enforce

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/devices"
)

// Config of a Kernel.
type Config struct {
	Logger *slog.Logger
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// CutFile is where the cut that outlives us is written: "/etc/netcurtain/cut.nft".
	CutFile string
	// Marks are what Check compares with those of other programs; zero compares nothing.
	Marks Marks
	// NFT is the nft program; "" finds it in PATH.
	NFT string
	// Registerer takes the metrics; nil keeps none.
	Registerer prometheus.Registerer
}

// Kernel makes the kernel obey one Desired at a time. It works on the network
// namespace of the thread that calls it, always the same one. Its methods may be
// called from several goroutines.
type Kernel struct {
	log     *slog.Logger
	now     func() time.Time
	cutFile string
	nft     nft
	marks   Marks // for Check
	metrics metrics

	turn        chan struct{} // one Set at a time; the fields below belong to its holder
	set         *applied      // nil until the first Set
	bound       *members      // for whom running connections were ended; nil until the first Set
	feat        *features     // nil until asked
	was         map[string]uint32
	offload     string                         // table netdev netcurtain as rendered
	cut         struct{ text, listing string } // as rendered, and as nft then listed it
	asks, asked string                         // of other firewalls, as in skeleton
	wayOut      []string                       // interfaces of default routes, when those were read

	beats  heartbeat
	live   liveConn
	sets   setAnswers
	handed atomic.Pointer[[]uint16]  // Desired's, for Alive
	others atomic.Pointer[firewalls] // as last read

	watched       atomic.Bool // Watch runs
	othersChanged atomic.Bool // another program changed the kernel's rules since Set looked
}

// applied is what the kernel was last told.
type applied struct {
	skeleton skeleton
	members  members
	rules    string // as nft listed them then
}

// New checks cfg. It touches nothing.
func New(cfg Config) (*Kernel, error) {
	if cfg.Logger == nil {
		return nil, errors.New("enforce: a Logger is needed")
	}
	if cfg.CutFile == "" {
		return nil, errors.New("enforce: a CutFile is needed, such as /etc/netcurtain/cut.nft")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.NFT == "" {
		cfg.NFT = "nft"
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("enforce: %w", err)
	}
	return &Kernel{
		log: cfg.Logger, now: cfg.Now, cutFile: cfg.CutFile, nft: nft(cfg.NFT), marks: cfg.Marks, metrics: m,
		turn: make(chan struct{}, 1),
	}, nil
}

// Set makes the kernel do d, the whole of it and nothing else. Where the rules
// need not change, only set elements do; where they must, they are replaced in
// one transaction which keeps what the live sets hold. Setting the same d again
// changes nothing, but repairs what someone else removed.
//
// Connections of devices that are newly cut or newly guarded end; all others go on.
func (k *Kernel) Set(ctx context.Context, d Desired) (err error) {
	if err := d.validate(); err != nil {
		return err
	}
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	lan := sorted(d.LAN, strings.Compare)
	out := waysOut()
	look := k.othersChanged.Swap(false) || !k.watched.Load() || k.set == nil || !slices.Equal(k.set.members.lan, lan) || !slices.Equal(k.wayOut, out)
	defer func() {
		if k.metrics.set(err); err != nil && look {
			k.othersChanged.Store(true)
		}
	}()
	if k.feat == nil {
		f, err := k.nft.probe(ctx)
		if err != nil {
			return err
		}
		k.feat = &f
	}
	now := *k.feat
	now.wayOut = out
	next := applied{}
	if k.set != nil {
		now.proxied = k.set.members.proxied
	}
	next.skeleton, next.members = d.split(now)
	// The cut first: it may not wait for anything that can fail.
	if err := k.setCut(ctx, next.members); err != nil {
		return err
	}
	// What others said before holds for as long as they cannot be asked; and they are
	// asked again with the next Set.
	var unasked error
	if look {
		if unasked = k.askOthers(ctx, lan, out); unasked != nil && k.others.Load() == nil {
			return unasked
		}
		k.wayOut = out
	}
	next.skeleton.Asks, next.skeleton.Asked = k.asks, k.asked
	// Before the first connection is handed over, and not at all while there can be none:
	// with any rule of its own the kernel looks up each packet's routes twice as long.
	if k.set != nil && k.set.skeleton.Marks != d.Marks {
		if err := removeRoute(k.set.skeleton.Marks.Table); err != nil {
			return err
		}
	}
	if len(next.members.proxied) > 0 {
		if err := setRoute(d.Marks); err != nil {
			return err
		}
	}
	if err := k.setMain(ctx, &next); err != nil {
		return err
	}
	before := k.set
	k.set = &next
	k.handed.Store(&d.Handed)
	if unasked == nil && (look || before.skeleton != next.skeleton || !slices.Equal(before.members.unfiltered, next.members.unfiltered)) {
		// Another firewall that is being loaded at this very moment can make this fail.
		// What it is to end shall end all the same.
		err = k.besideOthers(ctx, next.skeleton, next.members)
	}
	return errors.Join(unasked, err, k.endNewlyBound(ctx, next.members))
}

// askOthers reads what other firewalls say of connections from lan.
func (k *Kernel) askOthers(ctx context.Context, lan, out []string) error {
	r, err := k.nft.ruleset(ctx)
	if err != nil {
		return err
	}
	f := newFirewalls(r, lan)
	a := f.asked()
	text, err := execute("asked.nft.tmpl", a)
	if err != nil {
		return err
	}
	if text != k.asked && a.First != "" {
		trial := "table inet netcurtain_probe {\n" + text + "\tchain " + handed + " {}\n\tchain " + refused + " {}\n" +
			"\tchain probe {\n\t\ttype filter hook prerouting priority raw;\n\t\tgoto " + a.First + "\n\t}\n}\n"
		if err := k.nft.check(ctx, trial); err != nil {
			if ctx.Err() != nil || !saysNo(err) {
				return err
			}
			k.log.Error("another firewall cannot be asked, so nothing is handed to the proxy", "error", err)
			f.unaskable = true
		}
	}
	if k.asks, k.asked = a.First, text; f.unaskable {
		k.asks, k.asked = refused, ""
	}
	f.bars, f.since = f.barred(lan, out), k.now()
	before := k.others.Load()
	if before != nil && before.running.print == f.running.print {
		f.since = before.since
	}
	if k.others.Store(f); len(f.bars) > 0 && (before == nil || !slices.Equal(before.bars, f.bars)) {
		k.log.Info("another firewall keeps devices from the internet, and so do we", "behind", f.bars)
	}
	return nil
}

// setMain brings table inet netcurtain to next.
func (k *Kernel) setMain(ctx context.Context, next *applied) error {
	stands, err := tableStands(mainTable)
	if err != nil {
		return err
	}
	// What an earlier process remembered is the truth; what it left switched on is not.
	if k.was == nil {
		if k.was, err = remembered(); err != nil {
			return err
		}
	}
	changed, err := setSysctls()
	if err != nil {
		return err
	}
	for name, v := range changed {
		if _, known := k.was[name]; !known {
			k.was[name] = v
		}
	}
	if k.set != nil && stands && k.set.skeleton == next.skeleton {
		rules, err := k.nft.rules(ctx, mainTable)
		if err != nil {
			return err
		}
		if rules == k.set.rules {
			next.rules = rules
			return k.setMembers(ctx, next.members)
		}
		k.log.Warn("somebody changed our kernel rules, which are loaded again")
	}
	k.was["table"] = uint32(next.skeleton.Marks.Table)
	if err := k.loadMain(ctx, next, k.set == nil || !stands); err != nil {
		return fmt.Errorf("loading table inet netcurtain: %w", err)
	}
	k.log.Info("kernel rules loaded", "lan", next.members.lan, "look-ups", next.skeleton.InterceptDNS,
		"zones", next.skeleton.Zones, "handover", next.skeleton.Handover)
	next.rules, err = k.nft.rules(ctx, mainTable)
	return err
}

// loadMain writes the rules anew. Where the table cannot take them beside its
// live sets, because somebody replaced parts of it, it starts fresh.
func (k *Kernel) loadMain(ctx context.Context, next *applied, fresh bool) error {
	text, err := renderMain(next.skeleton, next.members, k.was, fresh)
	if err != nil {
		return err
	}
	err = k.nft.load(ctx, text)
	if err == nil || fresh || ctx.Err() != nil {
		return err
	}
	return k.loadMain(ctx, next, true)
}

// setCut writes the cut's file and loads it, when either is not as it should be.
func (k *Kernel) setCut(ctx context.Context, m members) error {
	text, err := renderCut(m)
	if err != nil {
		return err
	}
	stands, err := tableStands(cutTable)
	if err != nil {
		return err
	}
	old, err := os.ReadFile(k.cutFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("reading the cut's file: %w", err)
	}
	nobody := len(m.cut) == 0
	if nobody && len(old) == 0 && !stands {
		return nil // never used, leaves no trace
	}
	if string(old) != text {
		if err := k.nft.check(ctx, text); err != nil {
			return fmt.Errorf("checking table inet netcurtain_cut: %w", err)
		}
		if err := writeFile(k.cutFile, text); err != nil {
			return fmt.Errorf("writing the cut's file: %w", err)
		}
	}
	if stands != nobody && k.cut.text == text && k.cutUntouched(ctx, stands) {
		return nil
	}
	if err := k.nft.run(ctx, text, "-f", "-"); err != nil {
		return fmt.Errorf("loading table inet netcurtain_cut: %w", err)
	}
	k.log.Info("devices without internet", "count", len(m.cut))
	k.cut.text, k.cut.listing = text, ""
	if nobody {
		return nil
	}
	k.cut.listing, err = k.nft.list(ctx, "list", "table", "inet", cutTable)
	return err
}

// cutUntouched reports whether the table is as we loaded it.
func (k *Kernel) cutUntouched(ctx context.Context, stands bool) bool {
	if !stands {
		return true
	}
	now, err := k.nft.list(ctx, "list", "table", "inet", cutTable)
	return err == nil && now == k.cut.listing
}

// RemoveCut gives all devices their internet back and removes the cut's file.
// Only the household and an uninstall do that.
func (k *Kernel) RemoveCut(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := deleteTable(cutTable); err != nil {
		return err
	}
	if err := os.Remove(k.cutFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing the cut's file: %w", err)
	}
	return nil
}

// writeFile replaces path in one step that outlives a power cut.
func writeFile(path, text string) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".cut-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// validate keeps out what the rules cannot say.
func (d Desired) validate() error {
	if len(d.LAN) == 0 {
		return errors.New(`enforce: no LAN interface: name at least one, such as "br-lan"`)
	}
	for _, name := range d.LAN {
		if name == "" || len(name) > 15 || strings.ContainsFunc(name, notInterface) {
			return fmt.Errorf("enforce: LAN interface %.20q: 1 to 15 letters, digits, dots, dashes, underscores or @ are needed", name)
		}
	}
	ports := d.Ports.all()
	if slices.Contains(ports, 0) || len(sorted(ports, cmp.Compare)) < len(ports) {
		return fmt.Errorf("enforce: ports %v: four different ones are needed", ports)
	}
	for _, p := range d.Handed {
		if p == 0 || p == 53 || p == 853 || slices.Contains(ports, p) {
			return fmt.Errorf("enforce: port %d cannot be handed to the proxy: it is for look-ups, or our own", p)
		}
	}
	m := d.Marks
	if !singleBit(m.Deliver) || !singleBit(m.Ours) || m.Deliver == m.Ours {
		return fmt.Errorf("enforce: marks deliver %#x and ours %#x: two different single bits are needed", m.Deliver, m.Ours)
	}
	if m.Table < 256 || m.Table > 32765 {
		return fmt.Errorf("enforce: routing table %d: a number from 256 to 32765 is needed", m.Table)
	}
	if slices.ContainsFunc(slices.Concat(d.Exempt, d.Doors), func(a netip.Addr) bool { return !a.IsValid() }) {
		return errors.New("enforce: an address of an exempt or of a refused resolver is not valid")
	}
	for _, mac := range slices.Concat(d.Unfiltered, d.Guarded, d.Cut) {
		if mac.IsZero() || mac.IsGroup() {
			return fmt.Errorf("enforce: hardware address %s belongs to no device", mac)
		}
	}
	return nil
}

func singleBit(v uint32) bool { return v != 0 && v&(v-1) == 0 }

func notInterface(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".-_@", r)
}

// endNewlyBound ends the running connections of devices that were cut or guarded
// since it last managed to.
func (k *Kernel) endNewlyBound(ctx context.Context, now members) error {
	if k.bound == nil {
		k.bound = &members{guarded: now.guarded} // their connections go on when we merely start
	}
	cut, guarded := added(k.bound.cut, now.cut), added(k.bound.guarded, now.guarded)
	n, err := k.endConnections(ctx, cut, guarded, now.web)
	if n > 0 {
		k.metrics.ended.Add(float64(n))
		k.log.Info("running connections ended", "count", n, "newly cut", len(cut), "newly guarded", len(guarded))
	}
	if err == nil {
		k.bound = &now
	}
	return err
}

// added lists what is in now and was not in before.
func added(before, now []devices.MAC) []devices.MAC {
	old := make(map[devices.MAC]bool, len(before))
	for _, m := range before {
		old[m] = true
	}
	return slices.DeleteFunc(slices.Clone(now), func(m devices.MAC) bool { return old[m] })
}
