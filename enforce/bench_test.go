//go:build linux

package enforce

import (
	"net/netip"
	"testing"
	"time"

	"github.com/ti-mo/conntrack"
)

// BenchmarkSetUnchanged is what a Set costs that finds all as it should be.
func BenchmarkSetUnchanged(b *testing.B) {
	l := newLab(b)
	d := full()
	l.set(d)
	for b.Loop() {
		l.set(d)
	}
}

// BenchmarkSetMembers is a Set that only moves one device into guard and back.
func BenchmarkSetMembers(b *testing.B) {
	l := newLab(b)
	d := wanted()
	l.set(d)
	for b.Loop() {
		d.Guarded = append(d.Guarded[:0:0], toyMAC)
		l.set(d)
		d.Guarded = nil
		l.set(d)
	}
}

func BenchmarkAlive(b *testing.B) {
	l := newLab(b)
	l.set(wanted())
	for b.Loop() {
		l.beat(ServiceTLS)
	}
}

// BenchmarkBlock3000 blocks 3,000 addresses, as after a list swap.
func BenchmarkBlock3000(b *testing.B) {
	l := newLab(b)
	l.set(wanted())
	blocks := make([]Block, 3000)
	for i := range blocks {
		blocks[i] = Block{tvMAC, netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), time.Hour}
	}
	for b.Loop() {
		l.in(func() error { return l.k.Block(b.Context(), blocks...) })
	}
}

// BenchmarkEachFlow10000 walks over 10,000 tracked connections.
func BenchmarkEachFlow10000(b *testing.B) {
	l := newLab(b)
	l.set(wanted())
	const flows = 10000
	l.in(func() error {
		c, err := conntrack.Dial(nil)
		if err != nil {
			return err
		}
		defer c.Close()
		for i := range flows {
			f := conntrack.NewFlow(17, 0, l.tv.Addr4, site4, uint16(i/100)+1024, uint16(i%100)+1024, 600, 0)
			if err := c.Create(f); err != nil {
				return err
			}
		}
		return nil
	})
	b.ReportAllocs()
	for b.Loop() {
		l.in(func() error {
			n := 0
			err := eachFlow(b.Context(), func(*conntrack.Flow) { n++ })
			if n < flows {
				b.Fatalf("%d connections, want %d", n, flows)
			}
			return err
		})
	}
}
