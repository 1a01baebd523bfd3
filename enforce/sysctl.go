//go:build linux

package enforce

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
)

// sysctls that we switch on: without them flows have neither bytes nor times.
// The keys are what map was calls them.
func sysctls() map[string]string {
	return map[string]string{
		"acct":      "/proc/sys/net/netfilter/nf_conntrack_acct",
		"timestamp": "/proc/sys/net/netfilter/nf_conntrack_timestamp",
	}
}

// setSysctls switches ours on and returns the former value of those it changed.
func setSysctls() (changed map[string]uint32, err error) {
	changed = make(map[string]uint32)
	for name, path := range sysctls() {
		old, err := readSysctl(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // a kernel without it counts nothing, which Check tells
		}
		if err != nil {
			return nil, fmt.Errorf("enforce: %w", err)
		}
		if old == 1 {
			continue
		}
		if err := writeSysctl(path, 1); err != nil {
			return nil, err
		}
		changed[name] = old
	}
	return changed, nil
}

// remembered reads map was from the table that an earlier process left: the
// values that its first Set found. It is empty where there is no table.
func remembered() (map[string]uint32, error) {
	was := make(map[string]uint32)
	stands, err := tableStands(mainTable)
	if err != nil || !stands {
		return was, err
	}
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	elems, err := c.GetSetElements(&nftables.Set{Table: table(mainTable), Name: "was", IsMap: true})
	if err != nil {
		return was, nil // somebody else's table, or another version's: nothing to put back
	}
	for _, e := range elems {
		if len(e.Val) == 4 {
			was[strings.TrimRight(string(e.Key), "\x00")] = binaryutil.NativeEndian.Uint32(e.Val)
		}
	}
	return was, nil
}

// restoreSysctls puts back what was remembered.
func restoreSysctls(was map[string]uint32) error {
	var errs []error
	for name, path := range sysctls() {
		if v, ok := was[name]; ok {
			errs = append(errs, writeSysctl(path, v))
		}
	}
	return errors.Join(errs...)
}

func readSysctl(path string) (uint32, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	return uint32(v), err
}

func writeSysctl(path string, v uint32) error {
	err := os.WriteFile(path, []byte(strconv.FormatUint(uint64(v), 10)), 0)
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("enforce: writing %s: %w", path, ErrNoRights)
	}
	if err != nil {
		return fmt.Errorf("enforce: %w", err)
	}
	return nil
}
