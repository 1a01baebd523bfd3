//go:build linux

package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	bytesof "encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/netcurtain/netcurtain/internal/netlab"
	"github.com/netcurtain/netcurtain/internal/netlab/labtest"
)

// TestCPU prints what a gigabyte and a connection cost the router, plain and
// through us, beside the limits of the design. It judges nothing: make bench.
func TestCPU(t *testing.T) {
	if os.Getenv("NETCURTAIN_BENCH") == "" {
		t.Skip("a bench, for make bench")
	}
	for _, name := range []string{"observing", "cpu"} { // one after the other
		t.Run(name, func(t *testing.T) { runStories(t, "testdata/bench/"+name) })
	}
}

const (
	rounds      = 8
	perRound    = 96 << 20 // bytes of one transfer
	connections = 150      // of one round
)

// way is one way for bytes between a device and the internet.
type way struct {
	name   string
	limit  string // of the design
	host   *netlab.Host
	to     netip.AddrPort
	openTo func(c net.Conn, bytes uint64) error

	perGB, perConn []float64 // CPU seconds of all that takes part
}

// cpu measures alternated rounds of each way at real packet sizes: the CPU time of
// both ends, of the daemon and of the kernel's threads. What the router has of it is
// what is more than over a cable without a router.
func (s *story) cpu(ts *testscript.TestScript, _ []string) error {
	hello, err := clientHello()
	if err != nil {
		return err
	}
	tv, toy := s.devices["tv"], s.devices["toy"] // without a toy nobody is guarded
	maker := tv.Addr("www.maker.example")
	const cable = "192.0.2.1"
	bare := labtest.House(s.t, netlab.Plan{
		Devices: []netlab.DevicePlan{{Name: "tv", Number: 10}}, Internet: []netip.Addr{maker},
	})
	if err := direct(bare.Devices["tv"], bare.Internet, netip.MustParseAddr(cable)); err != nil {
		return err
	}
	// Our own origin takes the place of the made-up internet's servers: they would
	// cost more than the router does.
	s.stop()
	if err := s.servers.Wait(); err != nil {
		return err
	}
	for _, h := range []*netlab.House{s.lab, bare} {
		for _, host := range append([]*netlab.Host{h.Router, h.Internet}, hostsOf(h)...) {
			if err := host.Do(realPackets); err != nil {
				return err
			}
		}
		if err := s.origin(h.Internet); err != nil {
			return err
		}
	}
	ways := []*way{
		{name: "a cable, no router", host: bare.Devices["tv"], to: netip.AddrPortFrom(netip.MustParseAddr(cable), 80), openTo: askHTTP},
		{name: "plain routing", limit: "1.00", host: bare.Devices["tv"], to: netip.AddrPortFrom(maker, 80), openTo: askHTTP},
		{name: "observed", limit: "1.25", host: tv.Host, to: netip.AddrPortFrom(maker, 80), openTo: askHTTP},
	}
	if toy != nil {
		bear := toy.Addr("api.talkbear.example")
		ways[2].name = "observed, beside guarded"
		ways = append(ways,
			&way{name: "TLS guarded, spliced", limit: "2.90", host: toy.Host, to: netip.AddrPortFrom(bear, 443), openTo: askTLS(hello)},
			&way{name: "HTTP guarded, proxied", limit: "-", host: toy.Host, to: netip.AddrPortFrom(bear, 80), openTo: askHTTP})
	}
	pids := append(kernelThreads(), s.daemon.Process.Pid)
	idle, err := spent(pids, func() error { time.Sleep(8 * time.Second); return nil })
	if err != nil {
		return err
	}
	idle /= 8
	for range rounds {
		for _, w := range ways {
			took, bytes, err := w.transfer(pids, 1, perRound)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			w.perGB = append(w.perGB, (took.cpu-idle*took.wall)/float64(bytes)*1e9)
		}
		for _, w := range ways {
			took, _, err := w.transfer(pids, connections, 200)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			w.perConn = append(w.perConn, (took.cpu-idle*took.wall)/connections*1e6)
		}
	}
	out := ts.Stdout()
	base, plain := ways[0], ways[1]
	routing, conn := median(plain.perGB)-median(base.perGB), median(plain.perConn)-median(base.perConn)
	fmt.Fprintf(out, "medians of %d alternated rounds of %d MB, and of %d connections; the daemon at rest takes %.1f ms a second\n", rounds, perRound>>20, connections, idle*1000)
	fmt.Fprintf(out, "%-24s %14s %14s %10s %8s %14s\n", "", "CPU s/GB", "of the router", "x plain", "limit", "router us/conn")
	for _, w := range ways {
		gb := median(w.perGB)
		fmt.Fprintf(out, "%-24s %14.2f %14.2f %10.2f %8s %8.0f (x%.1f)\n", w.name, gb, gb-median(base.perGB),
			(gb-median(base.perGB))/routing, w.limit, median(w.perConn)-median(base.perConn), (median(w.perConn)-median(base.perConn))/conn)
	}
	return nil
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}

type cost struct{ cpu, wall float64 } // seconds

// transfer fetches size bytes over each of n connections, one after another.
func (w *way) transfer(pids []int, n int, size uint64) (took cost, bytes int64, err error) {
	began := time.Now()
	took.cpu, err = spent(pids, func() error {
		return w.host.Do(func() error {
			for range n {
				d := net.Dialer{Timeout: 5 * time.Second}
				d.SetMultipathTCP(false)
				c, err := d.Dial("tcp", w.to.String())
				if err != nil {
					return err
				}
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				if err := w.openTo(c, size); err != nil {
					return errors.Join(err, c.Close())
				}
				got, err := drain(c)
				if bytes += got; err != nil || got < int64(size) {
					return fmt.Errorf("%d of %d bytes came: %w", got, size, errors.Join(err, c.Close()))
				}
				c.Close()
			}
			return nil
		})
	})
	took.wall = time.Since(began).Seconds()
	return took, bytes, err
}

// drain reads all that comes, in portions as a browser does.
func drain(c net.Conn) (n int64, err error) {
	buf := make([]byte, 64<<10)
	for {
		m, err := c.Read(buf)
		n += int64(m)
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// spent is the CPU time, in seconds, that this process and those of pids used while
// do ran.
func spent(pids []int, do func() error) (seconds float64, err error) {
	all := func() (sum float64) {
		var r syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
		sum = float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
		for _, pid := range pids {
			// The scheduler's own count, in nanoseconds, of each thread.
			tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
			for _, task := range tasks {
				var ns float64
				b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, task.Name()))
				_, _ = fmt.Sscan(string(b), &ns)
				sum += ns / 1e9
			}
		}
		return sum
	}
	before := all()
	err = do()
	return all() - before, err
}

// kernelThreads are those that carry packets when nobody else does.
func kernelThreads() (pids []int) {
	all, _ := os.ReadDir("/proc")
	for _, e := range all {
		var pid int
		comm, err := os.ReadFile("/proc/" + e.Name() + "/comm")
		if _, bad := fmt.Sscan(e.Name(), &pid); err == nil && bad == nil && strings.HasPrefix(string(comm), "ksoftirqd/") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// origin answers in the internet's namespace, on ports 80 and 443, with as many
// bytes as it is asked for.
func (s *story) origin(internet *netlab.Host) error {
	var some errgroup.Group
	s.undo = append(s.undo, some.Wait) // after the listeners were closed
	for _, port := range []string{":80", ":443"} {
		var l net.Listener
		if err := internet.Do(func() (err error) {
			lc := net.ListenConfig{}
			lc.SetMultipathTCP(false)
			l, err = lc.Listen(context.Background(), "tcp", port)
			return err
		}); err != nil {
			return err
		}
		some.Go(func() error {
			for {
				c, err := l.Accept()
				if err != nil {
					return nil
				}
				go func() { defer c.Close(); _ = answerBytes(c) }()
			}
		})
		s.undo = append(s.undo, l.Close)
	}
	return nil
}

// answerBytes takes an HTTP request for /N, or a ClientHello with N behind it, and
// gives N bytes.
func answerBytes(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	r := bufio.NewReaderSize(c, 4096)
	first, err := r.Peek(5)
	if err != nil {
		return err
	}
	var n uint64
	if first[0] == 22 {
		if _, err := r.Discard(5 + int(bytesof.BigEndian.Uint16(first[3:]))); err != nil {
			return err
		}
		if err := bytesof.Read(r, bytesof.BigEndian, &n); err != nil {
			return err
		}
	} else {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if _, err := fmt.Sscanf(line, "GET /%d ", &n); err != nil {
			return err
		}
		for line != "\r\n" {
			if line, err = r.ReadString('\n'); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: application/octet-stream\r\nConnection: close\r\n\r\n", n); err != nil {
			return err
		}
	}
	block := make([]byte, min(n, 256<<10))
	for n > 0 {
		m, err := c.Write(block[:min(n, uint64(len(block)))])
		if err != nil {
			return err
		}
		n -= uint64(m)
	}
	return nil
}

func askHTTP(c net.Conn, n uint64) error {
	_, err := fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: api.talkbear.example\r\nConnection: close\r\n\r\n", n)
	return err
}

func askTLS(hello []byte) func(net.Conn, uint64) error {
	return func(c net.Conn, n uint64) error {
		_, err := c.Write(bytesof.BigEndian.AppendUint64(slices.Clone(hello), n))
		return err
	}
}

// clientHello is what a device says first.
func clientHello() ([]byte, error) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		_ = tls.Client(theirs, &tls.Config{ServerName: "api.talkbear.example"}).Handshake()
	}()
	buf := make([]byte, 4096)
	n, err := ours.Read(buf)
	return buf[:n], err
}

// direct lays a cable between two hosts, beside the router.
func direct(from, to *netlab.Host, at netip.Addr) error {
	var there netns.NsHandle
	if err := to.Do(func() (err error) { there, err = netns.Get(); return err }); err != nil {
		return err
	}
	defer there.Close()
	if err := from.Do(func() error {
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "cable"}, PeerName: "cable", PeerNamespace: netlink.NsFd(there)}
		return netlink.LinkAdd(v)
	}); err != nil {
		return err
	}
	for host, addr := range map[*netlab.Host]netip.Addr{from: at.Next(), to: at} {
		if err := host.AddAddr("cable", netip.PrefixFrom(addr, 24)); err != nil {
			return err
		}
		if err := host.Do(func() error {
			l, err := netlink.LinkByName("cable")
			if err != nil {
				return err
			}
			return netlink.LinkSetUp(l)
		}); err != nil {
			return err
		}
	}
	return nil
}

func hostsOf(h *netlab.House) (all []*netlab.Host) {
	for _, d := range h.Devices {
		all = append(all, d)
	}
	return all
}

// realPackets switches off what lets virtual links carry 64 kB at a time: a router's
// carry 1500 octets (ethtool(8) -K tso off gso off gro off tx off).
func realPackets() error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, l := range links {
		if l.Type() != "veth" && l.Type() != "bridge" {
			continue
		}
		const stso, sgso, sgro, stxcsum, ssg = 0x1f, 0x24, 0x2c, 0x17, 0x19
		for _, what := range []uint32{stso, sgso, sgro, stxcsum, ssg} {
			value := [2]uint32{what, 0}
			var req struct {
				name [unix.IFNAMSIZ]byte
				data unsafe.Pointer
				_    [16]byte
			}
			copy(req.name[:], l.Attrs().Name)
			req.data = unsafe.Pointer(&value)
			if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); e != 0 && e != unix.EOPNOTSUPP {
				return fmt.Errorf("switching offloads of %s off: %w", l.Attrs().Name, e)
			}
		}
	}
	return nil
}
