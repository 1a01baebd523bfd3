package main

import (
	"strings"
	"testing"
	"testing/fstest"
)

// What our control group leaves counts as much as what the box has: both versions,
// limits of those above, and page cache, which can be dropped.
func TestMemoryFree(t *testing.T) {
	const mb = 1 << 20
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	meminfo := file("MemTotal: 512000 kB\nMemAvailable: 204800 kB\n") // 200 MB
	for name, c := range map[string]struct {
		root fstest.MapFS
		free int64
		ok   bool
	}{
		"nobody tells":   {fstest.MapFS{}, 0, false},
		"no limit":       {fstest.MapFS{"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/\n")}, 200 * mb, true},
		"version 2, max": {fstest.MapFS{"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/a\n"), "sys/fs/cgroup/a/memory.max": file("max\n")}, 200 * mb, true},
		"version 2": {fstest.MapFS{
			"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/a/b\n"),
			"sys/fs/cgroup/a/b/memory.max": file("100663296\n"), "sys/fs/cgroup/a/b/memory.current": file("50331648\n"),
			"sys/fs/cgroup/a/b/memory.stat": file("anon 1\nfile 30000000\nshmem 9\ninactive_file 10485760\nactive_file 10485760\n"),
		}, 68 * mb, true},
		"version 2, above us": {fstest.MapFS{
			"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/a/b\n"), "sys/fs/cgroup/a/b/memory.max": file("max\n"),
			"sys/fs/cgroup/a/memory.max": file("52428800\n"), "sys/fs/cgroup/a/memory.current": file("41943040\n"),
		}, 10 * mb, true},
		"version 1": {fstest.MapFS{
			"proc/meminfo": meminfo, "proc/self/cgroup": file("9:memory:/x\n3:cpu,cpuacct:/\n1:name=systemd:/x\n"),
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": file("104857600\n"), "sys/fs/cgroup/memory/x/memory.usage_in_bytes": file("20971520\n"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712\n"), "sys/fs/cgroup/memory/memory.usage_in_bytes": file("1\n"),
		}, 80 * mb, true},
		"the box has less": {fstest.MapFS{
			"proc/meminfo": file("MemAvailable: 10240 kB\n"), "proc/self/cgroup": file("0::/a\n"),
			"sys/fs/cgroup/a/memory.max": file("104857600\n"), "sys/fs/cgroup/a/memory.current": file("0\n"),
		}, 10 * mb, true},
		"nonsense": {fstest.MapFS{"proc/meminfo": meminfo, "proc/self/cgroup": file("x\n0::/../../etc\n")}, 200 * mb, true},
	} {
		if free, ok := memoryFree(c.root); free != c.free || ok != c.ok {
			t.Errorf("%s: %d bytes, %v; want %d, %v", name, free, ok, c.free, c.ok)
		}
	}
}

func TestReadMemInfo(t *testing.T) {
	for in, want := range map[string][2]int64{
		"MemTotal:         252140 kB\nMemFree:  9 kB\nMemAvailable:     61440 kB\n": {252140 << 10, 61440 << 10},
		"":                                  {0, 0},
		"MemTotal: lots\nMemAvailable: -\n": {0, 0},
	} {
		total, available := readMemInfo(strings.NewReader(in))
		if total != want[0] || available != want[1] {
			t.Errorf("%q: %d, %d; want %v", in, total, available, want)
		}
	}
}

func TestProxyRoom(t *testing.T) {
	for _, c := range []struct {
		why         string
		chosen      int
		memory      int64
		descriptors uint64
		want        int
	}{
		{"a small router", 0, 128 << 20, 4096, 512},
		{"a larger one", 0, 512 << 20, 65536, 2048},
		{"a server", 0, 16 << 30, 1 << 20, 8192},
		{"memory that nobody tells", 0, 0, 65536, 256},
		{"few descriptors", 0, 512 << 20, 1024, 256},
		{"the administrator's word", 5000, 128 << 20, 65536, 5000},
		{"more than there are descriptors for", 100000, 16 << 30, 4096, 1548},
		{"no limit", 0, 16 << 30, 1<<64 - 1, 8192},
	} {
		if got := connections(c.chosen, c.memory, c.descriptors); got != c.want {
			t.Errorf("%s: %d, want %d", c.why, got, c.want)
		}
	}
}
