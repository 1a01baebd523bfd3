package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Limits of the design: below leastFree the house would suffer from us, not
// profit; the heap's soft limit keeps a list update from eating a small router.
const (
	leastFree = 120 << 20
	heapMost  = 64 << 20
)

// fitMemory refuses a box without room and makes the collector keep to a share
// of the others. GOMEMLIMIT and GOGC, when set, are the administrator's word.
func fitMemory() error {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return nil // no Linux that tells; nothing to go by
	}
	defer f.Close()
	total, available := readMemInfo(f)
	if available > 0 && available < leastFree {
		return fmt.Errorf("only %d MB of memory are available, %d MB are needed: stop something else first, or choose a larger router", available>>20, leastFree>>20)
	}
	if os.Getenv("GOMEMLIMIT") == "" && total > 0 {
		most := min(total/4, heapMost)
		if limit, _, ok := cgroupMemory(os.DirFS("/")); ok { // ours alone, and a cap that kills
			most = min(most, limit/2)
		}
		debug.SetMemoryLimit(most)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	return nil
}

// memoryFree is how much memory more we may take, in bytes: what the box has
// available and what our control group leaves. ok is false where nobody tells.
func memoryFree(root fs.FS) (free int64, ok bool) {
	if f, err := root.Open("proc/meminfo"); err == nil {
		_, free = readMemInfo(f)
		ok = free > 0
		f.Close()
	}
	if limit, used, told := cgroupMemory(root); told && (!ok || limit-used < free) {
		free, ok = limit-used, true
	}
	return free, ok
}

// cgroupMemory is the memory that our control group or one above it limits us to,
// and how much of it is used by what cannot be dropped: pages of files can, but for
// those on tmpfs. It reads version 2 (memory.max) and 1 (memory.limit_in_bytes); ok
// is false where there is no limit.
func cgroupMemory(root fs.FS) (limit, used int64, ok bool) {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0, 0, false
	}
	for line := range strings.Lines(string(groups)) {
		w := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(w) != 3 {
			continue
		}
		base, limitFile, current := "sys/fs/cgroup", "memory.max", "memory.current"
		switch {
		case slices.Contains(strings.Split(w[1], ","), "memory"):
			base, limitFile, current = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
		case w[1] != "":
			continue
		}
		for at := path.Join(base, path.Clean("/"+w[2])); strings.HasPrefix(at, base); at = path.Dir(at) {
			ceiling, err := readNumber(root, path.Join(at, limitFile))
			if err != nil || ceiling <= 0 || ceiling >= 1<<50 { // "max", or what version 1 says for none
				continue
			}
			now, err := readNumber(root, path.Join(at, current))
			if err != nil {
				continue
			}
			now -= droppable(root, path.Join(at, "memory.stat"))
			if !ok || ceiling-now < limit-used {
				limit, used, ok = ceiling, max(now, 0), true
			}
		}
	}
	return limit, used, ok
}

func readNumber(root fs.FS, name string) (int64, error) {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// droppable is the page cache of a control group that is not on tmpfs.
func droppable(root fs.FS, name string) (n int64) {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		v, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			continue
		}
		switch key {
		case "active_file", "inactive_file": // tmpfs is among the anonymous ones
			n += v
		}
	}
	return n
}

// spaceOf is how many bytes are free where path lies, and whether that is memory.
func spaceOf(path string) (free int64, inMemory bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 1 << 40, false // whoever writes there will be told what is wrong
	}
	return int64(s.Bavail) * int64(s.Bsize), int64(s.Type) == unix.TMPFS_MAGIC || int64(s.Type) == unix.RAMFS_MAGIC
}

// proxyRoom is how many connections the proxy may carry at once: what the settings
// say, else one for each 256 kB of memory, from 256 to 8192. That is some five times
// what one costs while it speaks HTTP, and twenty times what it costs at rest. Each
// needs two descriptors, and more while it moves bytes; whatever the settings say, a
// thousand are left for that, for look-ups, pages and databases.
func proxyRoom(chosen int) int {
	var total int64
	if f, err := os.Open("/proc/meminfo"); err == nil {
		total, _ = readMemInfo(f)
		_ = f.Close()
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		files.Cur = 1024
	}
	return connections(chosen, total, files.Cur)
}

func connections(chosen int, memory int64, descriptors uint64) int {
	if chosen == 0 {
		chosen = int(min(max(memory/(256<<10), 256), 8192))
	}
	n := int(min(descriptors, 1<<20))
	return min(chosen, max(n/4, (n-1000)/2))
}

// readMemInfo reads total and available memory in bytes (proc_meminfo(5)); 0 when not told.
func readMemInfo(r io.Reader) (total, available int64) {
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		key, rest, _ := strings.Cut(sc.Text(), ":")
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil || n > 1<<40 {
			continue
		}
		switch key {
		case "MemTotal":
			total = n << 10
		case "MemAvailable":
			available = n << 10
		}
	}
	return total, available
}
