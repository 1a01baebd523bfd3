package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
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
		debug.SetMemoryLimit(min(total/4, heapMost))
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	return nil
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
