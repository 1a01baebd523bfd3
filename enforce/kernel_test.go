//go:build linux

package enforce

import (
	"testing"

	"github.com/google/go-cmp/cmp"
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
