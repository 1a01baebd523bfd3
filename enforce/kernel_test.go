//go:build linux

package enforce

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/netlab"
	"github.com/netcurtain/netcurtain/internal/netlab/labtest"
)

// TestSetTwiceAndRelease: a second Set changes nothing, Release leaves nothing.
func TestSetTwiceAndRelease(t *testing.T) {
	l := newLab(t)
	before := l.state()
	l.set(full())
	once := l.state()
	l.set(full())
	if diff := cmp.Diff(once, l.state()); diff != "" {
		t.Errorf("the second Set changed (-once +twice):\n%s", diff)
	}
	if diff := cmp.Diff(before, once); diff == "" {
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

// lab is a house whose router obeys a Kernel.
type lab struct {
	*testing.T
	house *netlab.House
	k     *Kernel
}

func newLab(t *testing.T) *lab {
	t.Helper()
	h := labtest.House(t, netlab.Plan{
		Devices:  []netlab.DevicePlan{{Name: "tv", Number: 10}, {Name: "phone", Number: 11}, {Name: "toy", Number: 12}},
		Internet: internetAddrs,
	})
	k, err := New(Config{
		Logger:  slog.New(slog.NewTextHandler(io.Discard, nil)),
		CutFile: filepath.Join(t.TempDir(), "cut.nft"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return &lab{t, h, k}
}

// in runs fn in the router.
func (l *lab) in(fn func() error) {
	l.Helper()
	if err := l.house.Router.Do(fn); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) set(d Desired) {
	l.Helper()
	l.in(func() error { return l.k.Set(l.Context(), d) })
}

func (l *lab) alive(s Service) {
	l.Helper()
	l.in(func() error { return l.k.Alive(l.Context(), s) })
}

// state is everything that we may change in the router.
func (l *lab) state() string {
	l.Helper()
	return l.sh("nft list ruleset; ip rule; ip -6 rule; ip route show table all | grep -v ' dev br-lan\\| dev wan0' ; sysctl net.netfilter.nf_conntrack_acct net.netfilter.nf_conntrack_timestamp")
}

// sh runs a shell line in the router.
func (l *lab) sh(line string) string {
	l.Helper()
	out, err := l.house.Router.Command(context.Background(), "sh", "-c", line).CombinedOutput()
	if err != nil {
		l.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

var _ = []devices.MAC{}
