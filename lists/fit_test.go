package lists

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFit(t *testing.T) {
	starter := wanted{rules: 400, fixed: true}
	huge := wanted{rules: 1_000_000, smaller: []int{300_000, 50_000}}
	big := wanted{rules: 200_000}
	idle := wanted{rules: 900_000, disabled: true, smaller: []int{10}}
	unknown := wanted{}
	for name, c := range map[string]struct {
		all  []wanted
		most int
		want []int
		sum  int
	}{
		"all fits":                       {[]wanted{starter, huge, big}, 2_000_000, []int{itself, itself, itself}, 1_200_400},
		"the largest falls to a sibling": {[]wanted{starter, huge, big}, 600_000, []int{itself, 0, itself}, 500_400},
		"and again":                      {[]wanted{starter, huge, big}, 300_000, []int{itself, 1, itself}, 250_400},
		"then the next largest":          {[]wanted{starter, huge, big}, 100_000, []int{itself, 1, off}, 50_400},
		"then all":                       {[]wanted{starter, huge, big}, 40_000, []int{itself, off, off}, 400},
		"what nobody uses goes first":    {[]wanted{idle, huge}, 1_000_000, []int{off, itself}, 1_000_000},
		"the starter list stays":         {[]wanted{starter}, 0, []int{itself}, 400},
		"an unknown one is tried":        {[]wanted{starter, unknown}, 400, []int{itself, itself}, 400},
		"nothing":                        {nil, 0, []int{}, 0},
	} {
		got, sum := fit(c.all, c.most)
		if diff := cmp.Diff(c.want, got); diff != "" || sum != c.sum {
			t.Errorf("%s: %d rules (-want +got):\n%s", name, sum, diff)
		}
	}
}

func TestRoom(t *testing.T) {
	const mb = 1 << 20
	for name, c := range map[string]struct {
		room        *Room
		least, most int
	}{
		"nobody counts":                        {nil, 1 << 30, 1 << 30},
		"less than compiling takes":            {&Room{Memory: 10 * mb, Flash: 1 << 30}, 0, 0},
		"none at all":                          {&Room{Memory: -5 * mb, Flash: -5 * mb}, 0, 0},
		"a million on disk, 60 MB":             {&Room{Memory: 60 * mb, Flash: 64 * mb, ScratchInMemory: true}, 1_000_000, 2_100_000},
		"the same with its index in memory":    {&Room{Memory: 60 * mb, ScratchInMemory: true, IndexInMemory: true}, 500_000, 900_000},
		"plenty of memory, little flash":       {&Room{Memory: 1 << 30, Flash: 2 * mb}, 100_000, 135_000},
		"scratch on a disk needs none of that": {&Room{Memory: 24 * mb, Flash: 1 << 30}, 2_000_000, 3_000_000},
	} {
		if got := c.room.rules(); got < c.least || got > c.most {
			t.Errorf("%s: room for %d rules, %d to %d were expected", name, got, c.least, c.most)
		}
	}
}
