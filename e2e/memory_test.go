//go:build linux

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// group makes a control group with a hard limit of memory, of version 2 or 1,
// whichever this machine has.
func (s *story) group(ts *testscript.TestScript, args []string) error {
	mb, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	name := fmt.Sprintf("nc-e2e-%d-%d", os.Getpid(), time.Now().UnixNano()%1e6)
	var tried []error
	for _, v := range []struct{ root, mark, limit, swap string }{
		{"/sys/fs/cgroup", "cgroup.controllers", "memory.max", "memory.swap.max"},
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"},
	} {
		if _, err := os.Stat(filepath.Join(v.root, v.mark)); err != nil {
			tried = append(tried, err)
			continue
		}
		dir := filepath.Join(v.root, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			tried = append(tried, err)
			continue
		}
		s.t.Cleanup(func() { _ = os.Remove(dir) })
		if err := os.WriteFile(filepath.Join(dir, v.limit), []byte(strconv.Itoa(mb<<20)), 0); err != nil {
			tried = append(tried, err)
			continue
		}
		_ = os.WriteFile(filepath.Join(dir, v.swap), []byte("0"), 0) // where there is any
		s.cgroup = dir
		ts.Setenv("CGROUP", dir)
		return nil
	}
	s.skip(ts, fmt.Sprintf("no control group can be made here: %v", tried))
	return nil
}

// million unpacks the real list of a million names.
func (s *story) million(ts *testscript.TestScript, args []string) error {
	data := os.Getenv("NETCURTAIN_TRUTH")
	if data == "" {
		data = filepath.Join("..", "..", "shared", "data")
	}
	packed := filepath.Join(data, "lists", "one-million-domains.txt.xz")
	if _, err := os.Stat(packed); err != nil {
		s.skip(ts, fmt.Sprintf("no test data: %v (NETCURTAIN_TRUTH names its folder)", err))
	}
	out, err := os.Create(ts.MkAbs(args[0]))
	if err != nil {
		return err
	}
	defer out.Close()
	xz := exec.Command("xz", "-dc", packed)
	xz.Stdout = out
	return xz.Run()
}

// skip says loudly why a story is not told.
func (s *story) skip(_ *testscript.TestScript, why string) { s.t.Skip("SKIPPED: " + why) }
