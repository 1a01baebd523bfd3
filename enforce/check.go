//go:build linux

package enforce

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// Problem is something that keeps the kernel from doing all we ask.
type Problem struct {
	What  string // one sentence for a person
	Fix   string // the command that mends it; "" when none does
	Fatal bool   // nothing can be enforced until it is mended
	About string // of a mere proposal: what it is about, by which it can be dismissed
}

// String is both in one line.
func (p Problem) String() string {
	if p.Fix == "" {
		return p.What
	}
	return p.What + " Mend it with: " + p.Fix
}

// minNFT is the oldest nft whose language our tables speak.
var minNFT = [3]int{0, 9, 8}

// CheckRights is the part of Check that asks nobody.
func CheckRights() []Problem {
	if mayAdministerNetwork() {
		return nil
	}
	return []Problem{{
		What: "The kernel's network may not be changed by this user.",
		Fix:  "sudo netcurtain run (root, or the capability CAP_NET_ADMIN)", Fatal: true,
	}}
}

// Check looks for what would keep this machine from obeying about devices behind these
// interfaces. It changes nothing.
func (k *Kernel) Check(ctx context.Context, lan []string) []Problem {
	found := CheckRights()
	version, err := k.nft.version(ctx)
	switch {
	case errors.Is(err, ErrNoNFT):
		return append(found, Problem{
			What: "The program nft is not installed.",
			Fix:  "apt-get install nftables (Debian), opkg install nftables (OpenWrt)", Fatal: true,
		})
	case err != nil:
		return append(found, Problem{What: fmt.Sprintf("The program nft does not run: %v.", err), Fix: "nft --version", Fatal: true})
	case older(version, minNFT):
		found = append(found, Problem{
			What: fmt.Sprintf("nft %d.%d.%d is too old; %d.%d.%d is needed.", version[0], version[1], version[2], minNFT[0], minNFT[1], minNFT[2]),
			Fix:  "apt-get install --only-upgrade nftables (Debian), opkg upgrade nftables (OpenWrt)", Fatal: true,
		})
	}
	if len(found) > 0 {
		return found // the rest asks the kernel through nft
	}
	found = append(found, k.checkFeatures(ctx)...)
	found = append(found, checkBridge()...)
	found = append(found, k.checkArrival()...)
	found = append(found, checkLegacy("/proc/thread-self/net")...)
	others, err := k.nft.ruleset(ctx)
	if err != nil {
		return append(found, Problem{What: fmt.Sprintf("The rules of other programs cannot be read: %v.", err), Fix: "nft list ruleset"})
	}
	found = append(found, k.checkFirewalls(newFirewalls(others, lan))...)
	found = append(found, checkOffload(others.flowtables)...)
	if k.marks != (Marks{}) {
		found = append(found, checkMarks(k.marks, others)...)
	}
	return found
}

func (k *Kernel) checkFeatures(ctx context.Context) []Problem {
	f, err := k.nft.probe(ctx)
	if err != nil {
		return []Problem{{What: fmt.Sprintf("The kernel does not take nftables rules of family inet: %v.", err), Fix: "opkg install kmod-nft-core kmod-nft-fib (OpenWrt)", Fatal: true}}
	}
	var found []Problem
	if !f.tproxy {
		what := "The kernel lacks tproxy: the web traffic of guarded devices cannot be decided by name."
		if f.redirect && f.zones {
			what = "The kernel lacks tproxy: the web traffic of guarded devices is handed over by address translation instead, and what is open ends when we end."
		}
		found = append(found, Problem{What: what, Fix: "opkg install kmod-nft-tproxy kmod-nft-socket (OpenWrt), then restart netcurtain"})
	}
	if !f.zones {
		found = append(found, Problem{
			What: "The kernel lacks connection tracking zones: look-ups to hard-coded resolvers are not caught.",
			Fix:  "use a kernel with CONFIG_NF_CONNTRACK_ZONES",
		})
	}
	if _, err := os.Stat(sysctls()["acct"]); err != nil {
		found = append(found, Problem{
			What: "The kernel does not count the bytes of connections.",
			Fix:  "modprobe nf_conntrack, opkg install kmod-nf-conntrack (OpenWrt)",
		})
	}
	return found
}

// checkBridge looks for bridge netfilter: with it bridged packets pass the rules
// for routed ones, tproxy hangs connections, and devices of one bridge are cut from each other.
func checkBridge() []Problem {
	var on []string
	for _, name := range []string{"iptables", "ip6tables"} {
		if v, err := readSysctl("/proc/sys/net/bridge/bridge-nf-call-" + name); err == nil && v != 0 {
			on = append(on, "net.bridge.bridge-nf-call-"+name+"=0")
		}
	}
	if on == nil {
		return nil
	}
	return []Problem{{
		What: "Bridge netfilter is on (often by Docker): connections of guarded devices would hang.",
		Fix:  "sysctl -w " + strings.Join(on, " "),
	}}
}

var versionPattern = regexp.MustCompile(`v(\d+)\.(\d+)\.(\d+)`)

func (n nft) version(ctx context.Context) (v [3]int, err error) {
	out, err := n.output(ctx, "", "--version")
	if err != nil {
		return v, err
	}
	m := versionPattern.FindStringSubmatch(out)
	if m == nil {
		return v, fmt.Errorf("nft --version said %.40q", out)
	}
	for i := range v {
		v[i], _ = strconv.Atoi(m[i+1])
	}
	return v, nil
}

func older(a, b [3]int) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}

// mayAdministerNetwork reports whether CAP_NET_ADMIN (12) is effective.
func mayAdministerNetwork() bool {
	b, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return os.Geteuid() == 0
	}
	for line := range strings.Lines(string(b)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err == nil && caps&(1<<12) != 0
		}
	}
	return os.Geteuid() == 0
}
