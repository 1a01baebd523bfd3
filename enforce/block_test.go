//go:build linux

package enforce

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/internal/netlab"
)

func TestBlock(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(l.internet, "site", 443, site4, site6, other4, other6)
	l.set(wanted())
	for i, a := range sites {
		other := []netip.Addr{other4, other6}[i]
		before := l.running(l.tv, a, 443, "site")
		l.in(func() error { return l.k.Block(t.Context(), Block{MAC: tvMAC, Addr: a, For: time.Minute}) })
		l.expect("blocked", l.tv, "tcp", a, 443, "refused")
		l.expect("blocked", l.tv, "udp", a, 443, "refused")
		l.expect("another address", l.tv, "tcp", other, 443, "site")
		l.expect("another device", l.phone, "tcp", a, 443, "site")
		l.answers("not yet ended", before, "site")
		tuple := flow.NewTuple(flow.TCP, addrPort(before.LocalAddr().String()), addrPort(before.RemoteAddr().String()))
		for range 2 { // the second finds nothing, which is no error
			l.in(func() error { return l.k.Delete(t.Context(), tuple) })
		}
		l.answers("ended", before, "reset")
	}
}

// TestBlockEndsLongConversations: a flow that has long passed the rules for
// first packets ends too, over TCP and UDP.
func TestBlockEndsLongConversations(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(l.internet, "site", 443, site4, site6)
	l.set(wanted())
	for _, a := range sites {
		for network, c := range map[string]struct {
			proto flow.Proto
			want  string
		}{"tcp": {flow.TCP, "reset"}, "udp": {flow.UDP, "refused"}} {
			conn, err := l.dial(l.tv, network, 0, a, 443, patient)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for range 30 {
				l.answers("before", conn, "site")
			}
			tuple := flow.NewTuple(c.proto, addrPort(conn.LocalAddr().String()), addrPort(conn.RemoteAddr().String()))
			l.in(func() error {
				if err := l.k.Block(t.Context(), Block{tvMAC, a, time.Minute}); err != nil {
					return err
				}
				return l.k.Delete(t.Context(), tuple)
			})
			l.answers("blocked and ended, "+network, conn, c.want)
			l.sh("nft flush set inet netcurtain blocked4; nft flush set inet netcurtain blocked6")
		}
	}
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// TestUnblock: a block that is lifted is gone, one that was not there is no error.
func TestUnblock(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(l.internet, "site", 443, site4, site6, other4)
	l.set(wanted())
	l.in(func() error {
		return l.k.Block(t.Context(), Block{tvMAC, site4, time.Hour}, Block{tvMAC, site6, time.Hour})
	})
	l.in(func() error {
		return l.k.Unblock(t.Context(), Block{MAC: tvMAC, Addr: site4}, Block{MAC: tvMAC, Addr: other4})
	})
	l.expect("lifted", l.tv, "tcp", site4, 443, "site")
	l.expect("never blocked", l.tv, "tcp", other4, 443, "site")
	l.expect("still blocked", l.tv, "tcp", site6, 443, "refused")
	l.in(func() error { return l.k.Unblock(t.Context()) })
}

// TestBlockExpires: a block ends by itself, and a renewed one lasts as long as the newest says.
func TestBlockExpires(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(l.internet, "site", 443, site4, site6, other4, other6)
	l.set(wanted())
	l.in(func() error {
		const short = 5 * time.Second // a busy machine may need that long to look at it
		err := l.k.Block(t.Context(), Block{tvMAC, site4, short}, Block{tvMAC, site6, short},
			Block{tvMAC, other4, short}, Block{tvMAC, other6, short})
		if err != nil {
			return err
		}
		return l.k.Block(t.Context(), Block{tvMAC, other4, time.Minute}, Block{tvMAC, other6, time.Minute})
	})
	for _, a := range []netip.Addr{site4, site6} {
		l.expect("fresh", l.tv, "tcp", a, 443, "refused")
	}
	time.Sleep(5500 * time.Millisecond)
	for _, a := range []netip.Addr{site4, site6} {
		l.expect("expired", l.tv, "tcp", a, 443, "site")
	}
	for _, a := range []netip.Addr{other4, other6} {
		l.expect("renewed", l.tv, "tcp", a, 443, "refused")
	}
}

func TestBlockMany(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.set(wanted())
	blocks := make([]Block, 3000)
	for i := range blocks {
		blocks[i] = Block{tvMAC, netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), time.Hour}
	}
	l.in(func() error { return l.k.Block(t.Context(), blocks...) })
	if n := strings.Count(l.sh("nft list set inet netcurtain blocked4"), "198.18."); n != len(blocks) {
		t.Errorf("%d of %d addresses are blocked", n, len(blocks))
	}
	l.in(func() error {
		return l.k.Unblock(t.Context(), append(blocks[1:], blocks[2], Block{tvMAC, site6, 0})...)
	})
	if out := l.sh("nft list set inet netcurtain blocked4"); strings.Count(out, "198.18.") != 1 || !strings.Contains(out, "198.18.0.0 ") {
		t.Errorf("all but one were lifted:\n%.600s", out)
	}
	for _, b := range []Block{{For: time.Hour, MAC: tvMAC}, {For: time.Hour, Addr: site4}, {MAC: tvMAC, Addr: site4}} {
		l.in(func() error {
			if err := l.k.Block(t.Context(), b); err == nil {
				t.Errorf("%+v is taken", b)
			}
			return nil
		})
	}
}

// TestCut: a device without internet keeps the house, and stays cut when we go.
func TestCut(t *testing.T) {
	t.Parallel()
	l, _, _ := withProxy(t)
	l.alive(ServiceHTTP, ServiceTLS)
	l.serve(l.router, "plain", 53, routerAddrs...)
	l.serve(l.phone, "phone", 8080, l.phone.Addr4, l.phone.Addr6)
	var direct, proxied []net.Conn
	for _, a := range sites {
		direct = append(direct, l.running(l.tv, a, 443, "site"))
		proxied = append(proxied, l.running(l.toy, a, 443, "tls"))
	}
	d := wanted()
	d.Guarded, d.Cut = []devices.MAC{toyMAC}, []devices.MAC{toyMAC, tvMAC}
	l.set(d)
	for i := range sites {
		l.answers("now cut", direct[i], "reset")
		l.answers("now cut, through the proxy", proxied[i], "reset")
	}
	cut := func(when string) {
		t.Helper()
		for _, a := range sites {
			for _, network := range []string{"tcp", "udp"} {
				l.expect(when, l.tv, network, a, 443, "refused")
				l.expect(when, l.toy, network, a, 443, "refused")
				l.expect(when, l.phone, network, a, 443, "site")
			}
		}
		for _, a := range routerAddrs {
			l.expect(when+", the router", l.tv, "udp", a, 53, "plain")
		}
		l.expect(when+", another device", l.tv, "tcp", l.phone.Addr4, 8080, "phone")
		l.expect(when+", another device", l.tv, "tcp", l.phone.Addr6, 8080, "phone")
	}
	cut("cut")
	l.in(func() error { return Release(t.Context()) })
	cut("released")
	l.sh("nft delete table inet netcurtain_cut && nft -f " + l.k.cutFile)
	cut("after a reboot, from the file alone")
	l.set(d)
	cut("set again")

	d.Cut = []devices.MAC{toyMAC}
	l.set(d)
	l.expect("free again", l.tv, "tcp", site4, 443, "site")
	l.expect("still cut", l.toy, "tcp", site6, 443, "refused")
	d.Cut = nil
	l.set(d)
	l.sh("nft -f " + l.k.cutFile) // nobody is cut at the next boot either
	l.beat(ServiceTLS)
	l.expect("free again", l.toy, "tcp", site4, 443, "tls")
	l.in(func() error { return l.k.RemoveCut(t.Context()) })
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(l.k.cutFile), "*")); len(left) > 0 {
		t.Errorf("RemoveCut left %v", left)
	}
}

// TestCutFileCannotBeWritten: the cut is not half done.
func TestCutFileCannotBeWritten(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.k.cutFile = filepath.Join(t.TempDir(), "absent", "cut.nft")
	d := wanted()
	d.Cut = []devices.MAC{tvMAC}
	l.in(func() error {
		if err := l.k.Set(t.Context(), d); err == nil || !strings.Contains(err.Error(), "cut") {
			t.Errorf("without its directory: %v", err)
		}
		return os.Mkdir(filepath.Dir(l.k.cutFile), 0o755)
	})
	l.set(d)
	l.expect("after the directory is there", l.tv, "udp", netlab.InternetWAN4.Addr(), 443, "refused")
}

// TestEndOneConnection: one connection ends at once, others between the same two
// go on, and a new one may begin.
func TestEndOneConnection(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.serve(l.internet, "site", 443, site4, site6)
	l.set(wanted())
	for _, a := range sites {
		named, other := l.running(l.tv, a, 443, "site"), l.running(l.tv, a, 443, "site")
		neighbour := l.running(l.phone, a, 443, "site")
		from, to := named.LocalAddr().(*net.TCPAddr).AddrPort(), named.RemoteAddr().(*net.TCPAddr).AddrPort()
		l.in(func() error { return l.k.End(t.Context(), flow.NewTuple(flow.TCP, from, to)) })
		l.answers("ended by its name", named, "reset")
		l.answers("another to the same address", other, "site")
		l.answers("its neighbour", neighbour, "site")
		l.expect("a new one", l.tv, "tcp", a, 443, "site")
		u, err := l.dial(l.tv, "udp", 0, a, 443, patient)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		l.answers("a conversation", u, "site")
		ufrom, uto := u.LocalAddr().(*net.UDPAddr).AddrPort(), u.RemoteAddr().(*net.UDPAddr).AddrPort()
		l.in(func() error { return l.k.End(t.Context(), flow.NewTuple(flow.UDP, ufrom, uto)) })
		l.answers("ended by its name", u, "refused")
	}
}
