//go:build linux

package enforce

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/internal/netlab/labtest"
)

// TestSetTwiceAndRelease: a second Set changes nothing, Release leaves nothing.
func TestSetTwiceAndRelease(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	before := l.state()
	l.set(full())
	once := l.state()
	l.set(full())
	if diff := cmp.Diff(once, l.state()); diff != "" {
		t.Errorf("the second Set changed (-once +twice):\n%s", diff)
	}
	if before == once {
		t.Error("the first Set changed nothing")
	}
	for range 2 {
		l.in(func() error { return Release(t.Context()) })
	}
	l.in(func() error { return l.k.RemoveCut(t.Context()) })
	if diff := cmp.Diff(before, l.state()); diff != "" {
		t.Errorf("Release left (-before +after):\n%s", diff)
	}
}

// TestReleaseAfterACrash: a second life that was never released remembers what
// the first one found, other numbers than the usual ones included.
func TestReleaseAfterACrash(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	before := l.state()
	d := wanted()
	d.Marks.Table = 4800
	d.Ports.DNSRedirect = 15301
	l.set(d)
	again, err := New(Config{Logger: l.k.log, CutFile: l.k.cutFile})
	if err != nil {
		t.Fatal(err)
	}
	l.k = again
	l.set(d)
	l.in(func() error { return Release(t.Context()) })
	if diff := cmp.Diff(before, l.state()); diff != "" {
		t.Errorf("Release left (-before +after):\n%s", diff)
	}
}

// TestReleaseFreesAtOnce: whoever was ours is answered by others with the next
// question, and nothing remembers the redirect.
func TestReleaseFreesAtOnce(t *testing.T) {
	t.Parallel()
	l, _ := withResolvers(t)
	l.alive(ServiceDNS)
	var open []net.Conn
	for _, a := range []netip.Addr{google4, google6} {
		c, err := l.dial(l.tv, "udp", 0, a, 53, patient)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		l.answers("alive", c, "ours")
		open = append(open, c)
		l.expect("alive", l.tv, "tcp", a, 53, "ours")
	}
	if n := strings.Count(l.sh("conntrack -L -w 4743 2>/dev/null; conntrack -L -w 4743 -f ipv6 2>/dev/null"), "dport=53"); n == 0 {
		t.Error("no redirected look-up is tracked in our zone")
	}
	l.in(func() error { return Release(t.Context()) })
	if out := l.sh("conntrack -L -w 4743 2>/dev/null; conntrack -L -w 4743 -f ipv6 2>/dev/null"); out != "" {
		t.Errorf("still tracked:\n%s", out)
	}
	for _, c := range open {
		l.answers("released", c, "google")
	}
	l.expect("released", l.tv, "udp", routerLink, 53, "plain")
}

// TestSetKeepsLiveState: who is followed changes by element, the rules change
// in one transaction, and what lives in the sets outlasts both.
func TestSetKeepsLiveState(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	d := wanted()
	l.set(d)
	l.alive(ServiceDNS)
	l.in(func() error { return l.k.Block(t.Context(), Block{tvMAC, site4, time.Hour}) })
	check := func(why string) {
		t.Helper()
		if out := l.sh("nft list set inet netcurtain alive"); !strings.Contains(out, "53 timeout 5s") {
			t.Errorf("%s: not alive any more:\n%s", why, out)
		}
		if out := l.sh("nft list set inet netcurtain blocked4"); !strings.Contains(out, site4.String()) {
			t.Errorf("%s: the block is gone:\n%s", why, out)
		}
	}
	handles := func() string { return l.sh("nft -a list table inet netcurtain | grep 'handle' | grep -v elements") }
	// With the first guarded device the rules come by which it is; before it no packet pays for them.
	if strings.Contains(handles(), "hook prerouting priority mangle") {
		t.Error("every packet is asked whether its device is guarded, and none is")
	}
	d.Guarded = []devices.MAC{toyMAC}
	l.set(d)
	check("the first guarded device")
	rules := handles()
	d.Guarded, d.Unfiltered = []devices.MAC{toyMAC, tvMAC}, []devices.MAC{phoneMAC}
	l.set(d)
	check("other devices")
	if diff := cmp.Diff(rules, handles()); diff != "" {
		t.Errorf("other devices changed rules:\n%s", diff)
	}
	d.NFLOGGroup, d.Ports.DNS, d.Marks.Table = 4744, 5310, 4801
	d.LAN = []string{"br-lan", "br-guest"}
	l.set(d)
	check("other rules")

	fresh := newLab(t)  // what was reached in steps equals what is reached at once
	fresh.set(wanted()) // but for the order in which its chains came
	fresh.set(d)
	fresh.alive(ServiceDNS)
	fresh.in(func() error { return fresh.k.Block(t.Context(), Block{tvMAC, site4, time.Hour}) })
	plain := func(l *lab) string {
		return l.sh("nft -s list table inet netcurtain | sed 's/ expires [^ ,}]*//'; ip rule; ip -6 rule; ip route show table 4743 2>/dev/null; ip route show table 4801")
	}
	if diff := cmp.Diff(plain(fresh), plain(l)); diff != "" {
		t.Errorf("(-at once +in steps):\n%s", diff)
	}
}

// TestSetMends: what someone else removed comes back with the next Set.
func TestSetMends(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	d := full()
	l.set(d)
	want := l.state()
	for _, harm := range []string{
		"nft delete table inet netcurtain",
		"nft delete table inet netcurtain_cut",
		"nft flush table inet netcurtain",
		"nft flush table inet netcurtain_cut",
		"nft flush set inet netcurtain guarded",
		"ip rule del table 4743",
		"ip -6 route flush table 4743",
		"sysctl -q net.netfilter.nf_conntrack_acct=0",
		"rm " + l.k.cutFile,
	} {
		l.sh(harm)
		l.set(d)
		got := l.state()
		if sortedLines(got) != sortedLines(want) {
			t.Errorf("after %q (-want +got):\n%s", harm, cmp.Diff(want, got))
		}
		if _, err := os.Stat(l.k.cutFile); err != nil {
			t.Errorf("after %q: %v", harm, err)
		}
	}
}

// sortedLines forgets the order: tables are listed in the order in which they were made.
func sortedLines(s string) string {
	return strings.Join(sorted(strings.Split(s, "\n"), strings.Compare), "\n")
}

// TestWithoutIPv6: a house whose owner switched IPv6 off is served all the same.
func TestWithoutIPv6(t *testing.T) {
	t.Parallel()
	l, _ := withResolvers(t)
	l.sh("sysctl -q net.ipv6.conf.all.disable_ipv6=1")
	l.in(func() error { return Release(t.Context()) })
	l.set(wanted())
	l.alive(ServiceDNS)
	l.expect("IPv4 alone", l.tv, "udp", google4, 53, "ours")
	l.in(func() error { return Release(t.Context()) })
}

// TestTogether: everything at once, for the race detector.
func TestTogether(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.set(wanted())
	var all sync.WaitGroup
	for i, do := range []func(i int) error{
		func(i int) error {
			d := wanted()
			d.NFLOGGroup += uint16(i % 2)
			d.Guarded = []devices.MAC{toyMAC, tvMAC}[:i%3]
			return l.k.Set(t.Context(), d)
		},
		func(int) error { return l.k.Alive(t.Context(), ServiceDNS) },
		func(int) error { return l.k.Dead(t.Context(), ServiceDNS) },
		func(int) error { return l.k.Block(t.Context(), Block{tvMAC, site4, time.Minute}) },
		func(int) error { return l.k.Delete(t.Context(), flow.Tuple{Proto: flow.TCP, DstPort: 53}) },
		func(int) error { l.k.Check(t.Context(), wanted().LAN); return nil },
	} {
		all.Go(func() {
			for n := range 10 {
				if err := l.router.Do(func() error { return do(n) }); err != nil {
					t.Errorf("activity %d: %v", i, err)
				}
			}
		})
	}
	all.Wait()
}

// TestOldKernel: without zones and tproxy the rest still stands.
func TestOldKernel(t *testing.T) {
	t.Parallel()
	l, _ := withResolvers(t)
	l.k.feat, l.k.set = &features{}, nil
	l.set(wanted())
	l.alive(ServiceDNS)
	l.expect("rewritten", l.tv, "udp", routerAddrs[1], 53, "ours")
	l.expect("over TCP", l.tv, "tcp", routerAddrs[1], 53, "plain")
	l.expect("hard-coded", l.tv, "udp", google4, 53, "google")
}

func TestErrorsNameTheRemedy(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("New takes an empty Config")
	}
	cfg := Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), CutFile: filepath.Join(t.TempDir(), "cut.nft"), NFT: "/nowhere/nft"}
	k, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Set(t.Context(), wanted()); !errors.Is(err, ErrNoNFT) {
		t.Errorf("without nft: %v", err)
	}
	if p := k.Check(t.Context(), wanted().LAN); len(p) == 0 || !strings.Contains(p[len(p)-1].Fix, "apt-get install nftables") || !p[len(p)-1].Fatal {
		t.Errorf("Check without nft: %v", p)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cfg.NFT = ""
	if k, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if err := k.Set(ctx, wanted()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestNoRights runs this test again as nobody, who may not change the kernel.
func TestNoRights(t *testing.T) {
	if os.Getenv("ENFORCE_AS_NOBODY") != "" {
		k, err := New(Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), CutFile: filepath.Join(t.TempDir(), "cut.nft")})
		if err != nil {
			t.Fatal(err)
		}
		for name, err := range map[string]error{
			"Set": k.Set(t.Context(), wanted()), "Alive": k.Alive(t.Context(), ServiceDNS), "Release": Release(t.Context()),
			"Block": k.Block(t.Context(), Block{tvMAC, site4, time.Hour}),
		} {
			if !errors.Is(err, ErrNoRights) {
				t.Errorf("%s as nobody: %v", name, err)
			}
		}
		if p := k.Check(t.Context(), wanted().LAN); len(p) != 1 || !p[0].Fatal || !strings.Contains(p[0].Fix, "root") {
			t.Errorf("Check as nobody: %v", p)
		}
		return
	}
	labtest.NeedRoot(t)
	bin := filepath.Join(t.TempDir(), "enforce.test")
	exe, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(bin, exe, 0o755)
	}
	for dir := t.TempDir(); err == nil && dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), bin, "-test.run=^TestNoRights$", "-test.v")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "ENFORCE_AS_NOBODY=1", "TMPDIR=/tmp")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestNoRights") {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
}

// TestCheck: a machine that does all we ask has no problem, and bridge netfilter is one.
func TestCheck(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	check := func() (p []Problem) {
		l.in(func() error { p = l.k.Check(t.Context(), wanted().LAN); return nil })
		return p
	}
	if p := check(); len(p) > 0 {
		t.Errorf("problems of a sound router: %v", p)
	}
	if _, err := os.Stat("/proc/sys/net/bridge"); err != nil {
		t.Skip("SKIPPED: this kernel has no bridge netfilter")
	}
	l.sh("sysctl -q net.bridge.bridge-nf-call-iptables=1")
	p := check()
	if len(p) != 1 || p[0].Fatal || !strings.Contains(p[0].String(), "sysctl -w net.bridge.bridge-nf-call-iptables=0") {
		t.Errorf("with bridge netfilter: %v", p)
	}
}

func TestOlder(t *testing.T) {
	for _, c := range []struct {
		a    [3]int
		want bool
	}{{[3]int{0, 9, 7}, true}, {[3]int{0, 9, 8}, false}, {[3]int{1, 0, 0}, false}, {[3]int{0, 8, 99}, true}} {
		if got := older(c.a, minNFT); got != c.want {
			t.Errorf("older(%v, %v) = %v", c.a, minNFT, got)
		}
	}
}

func TestMetrics(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	k, err := New(Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), CutFile: "cut.nft", Registerer: r, NFT: "/nowhere/nft"})
	if err != nil {
		t.Fatal(err)
	}
	_ = k.Set(t.Context(), wanted())
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	failed := 0.0
	for _, f := range families {
		if f.GetName() == "netcurtain_enforce_sets_total" && f.Metric[0].Label[0].GetValue() == "error" {
			failed = f.Metric[0].GetCounter().GetValue()
		}
	}
	if failed != 1 {
		t.Errorf("failed sets: %v, want 1", failed)
	}
	if _, err := New(Config{Logger: k.log, CutFile: "cut.nft", Registerer: r}); err == nil {
		t.Error("a second Kernel registers the same metrics")
	}
}
