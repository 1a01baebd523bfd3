package main

import (
	"strings"
	"testing"
)

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
