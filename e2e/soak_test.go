//go:build linux

package e2e

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/ti-mo/conntrack"
	"golang.org/x/sync/errgroup"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/internal/netlab"
	"github.com/netcurtain/netcurtain/internal/netlab/scene"
)

// soakDefault is what every run of the tests can afford; make soak takes 100,000.
const soakDefault = 3000

// soak makes connections of every kind, as fast as the house takes them: look-ups,
// direct ones of the tv, HTTP and TLS of the guarded toy. Afterwards nothing may be
// left of them: no goroutine, descriptor, set element, tracked connection or flow.
// NETCURTAIN_SOAK says how many.
func (s *story) soak(ts *testscript.TestScript, _ []string) error {
	n, err := strconv.Atoi(cmp.Or(os.Getenv("NETCURTAIN_SOAK"), strconv.Itoa(soakDefault)))
	if err != nil {
		return err
	}
	if err := s.connections(400); err != nil { // pools and caches fill
		return err
	}
	before, err := s.settled(ts)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := s.connections(n); err != nil {
		return err
	}
	took := time.Since(began)
	atOnce, err := s.leftovers(ts)
	if err != nil {
		return err
	}
	after, left := atOnce, []string{}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Second) {
		if after, err = s.leftovers(ts); err != nil {
			return err
		}
		left = left[:0]
		for what, is := range after.counts {
			if is > before.counts[what] {
				left = append(left, fmt.Sprintf("%d %s more than before", is-before.counts[what], what))
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			break
		}
	}
	out := ts.Stdout()
	fmt.Fprintf(out, "%d connections in %.0f s\n%-24s %10s %10s %10s\n", n, took.Seconds(), "", "before", "at its end", "after")
	for _, what := range slices.Sorted(maps.Keys(before.counts)) {
		fmt.Fprintf(out, "%-24s %10d %10d %10d\n", what, before.counts[what], atOnce.counts[what], after.counts[what])
	}
	later := after
	if os.Getenv("NETCURTAIN_SOAK") != "" { // the memory's way back takes its time
		time.Sleep(90 * time.Second)
		if later, err = s.leftovers(ts); err != nil {
			return err
		}
	}
	for _, what := range slices.Sorted(maps.Keys(before.kB)) {
		fmt.Fprintf(out, "%-24s %7d kB %7d kB %7d kB, in the end %d kB\n", what, before.kB[what], atOnce.kB[what], after.kB[what], later.kB[what])
	}
	if len(left) > 0 {
		return errors.New("left over: " + strings.Join(left, ", "))
	}
	return nil
}

// connections makes n of them, a quarter of each kind.
func (s *story) connections(n int) error {
	tv, toy := s.devices["tv"], s.devices["toy"]
	var some errgroup.Group
	for _, kind := range []func(*scene.Device, int) error{lookUp, getPage} {
		some.Go(func() error { return each(tv, n/4, kind) })
	}
	for _, kind := range []func(*scene.Device, int) error{getPage, handshake} {
		some.Go(func() error { return each(toy, n/4, kind) })
	}
	return some.Wait()
}

// each does one thing n times inside a device, a few at once. One in a hundred may
// fail: a busy kernel drops packets, and the clients here do not ask again.
func each(d *scene.Device, n int, do func(*scene.Device, int) error) error {
	var failed atomic.Int64
	var last atomic.Pointer[error]
	const hands = 3
	var some errgroup.Group
	for i := range hands {
		some.Go(func() error {
			return d.Host.Do(func() error {
				for j := i; j < n; j += hands {
					if err := do(d, j); err != nil {
						failed.Add(1)
						last.Store(&err)
					}
				}
				return nil
			})
		})
	}
	err := some.Wait()
	if f := failed.Load(); f > int64(n/100) {
		err = errors.Join(err, fmt.Errorf("%d of %d failed: %w", f, n, *last.Load()))
	}
	return err
}

// lookUp asks the router, now for a name that is blocked, now for one that is not.
func lookUp(_ *scene.Device, i int) error {
	name := []string{"ad.lgappstv.com.", "www.maker.example."}[i%2]
	c := dns.Client{Timeout: 2 * time.Second}
	_, _, err := c.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), netip.AddrPortFrom(netlab.RouterLAN4.Addr(), 53).String())
	return err
}

func getPage(d *scene.Device, _ int) error {
	host := d.Persona.Acts[0].Host
	c, err := connect(d, host, 80)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+string(host)+"\r\nX-Down: 100\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

func handshake(d *scene.Device, _ int) error {
	host := d.Persona.Acts[0].Host
	c, err := connect(d, host, 443)
	if err != nil {
		return err
	}
	defer c.Close()
	return tls.Client(c, &tls.Config{ServerName: string(host), RootCAs: d.Roots}).Handshake()
}

func connect(d *scene.Device, host dnsname.Name, port uint16) (net.Conn, error) {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	dialer.SetMultipathTCP(false)
	c, err := dialer.Dial("tcp", netip.AddrPortFrom(d.Addr(host), port).String())
	if err != nil {
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(10 * time.Second))
}

// leftover is what connections leave behind while they are there.
type leftover struct {
	counts map[string]int
	kB     map[string]int // of memory, which comes back later, and not all of it
}

// settled waits until what ran has ended, and gives the most that is there at rest.
func (s *story) settled(ts *testscript.TestScript) (leftover, error) {
	time.Sleep(5 * time.Second) // the last of them may not be known yet
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		x, err := s.leftovers(ts)
		if err != nil {
			return x, err
		}
		if x.counts["running flows"] > 0 && time.Now().Before(deadline) {
			continue
		}
		for range 3 {
			time.Sleep(500 * time.Millisecond)
			next, err := s.leftovers(ts)
			if err != nil {
				return x, err
			}
			for what, n := range next.counts {
				x.counts[what] = max(x.counts[what], n)
			}
		}
		return x, nil
	}
}

func (s *story) leftovers(ts *testscript.TestScript) (leftover, error) {
	x := leftover{counts: map[string]int{}, kB: map[string]int{}}
	metrics, err := s.ask(ts, "/metrics")
	if err != nil {
		return x, err
	}
	for what, name := range map[string]string{
		"goroutines": "go_goroutines", "running flows": "netcurtain_observe_running_flows",
		"open conversations": "netcurtain_observe_open_conversations", "carried connections": "netcurtain_proxy_open_connections",
	} {
		m := regexp.MustCompile(`(?m)^` + name + ` (\d+)$`).FindStringSubmatch(metrics)
		if m == nil {
			return x, fmt.Errorf("there is no metric %s", name)
		}
		x.counts[what], _ = strconv.Atoi(m[1])
	}
	for what, name := range map[string]string{
		"Go: in use": "go_memstats_heap_inuse_bytes", "Go: given back": "go_memstats_heap_released_bytes",
		"Go: free and kept": "go_memstats_heap_idle_bytes", "Go: stacks": "go_memstats_stack_inuse_bytes",
	} {
		if m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(metrics); m != nil {
			bytes, _ := strconv.ParseFloat(m[1], 64)
			x.kB[what] = int(bytes) >> 10
		}
	}
	x.kB["Go: free and kept"] -= x.kB["Go: given back"]
	pid := strconv.Itoa(s.daemon.Process.Pid)
	files, err := os.ReadDir(filepath.Join("/proc", pid, "fd"))
	if err != nil {
		return x, err
	}
	x.counts["descriptors"] = len(files)
	status, err := os.ReadFile(filepath.Join("/proc", pid, "status"))
	if err != nil {
		return x, err
	}
	if m := regexp.MustCompile(`RssAnon:\s+(\d+)`).FindSubmatch(status); m != nil {
		x.kB["RssAnon"], _ = strconv.Atoi(string(m[1]))
	}
	return x, s.lab.Router.Do(func() error {
		c, err := conntrack.Dial(nil)
		if err != nil {
			return err
		}
		defer c.Close()
		tracked, err := c.Dump(nil)
		if err != nil {
			return err
		}
		for _, f := range tracked {
			if src := f.TupleOrig.IP.SourceAddress; !src.IsLoopback() { // the daemon asks itself each second
				x.counts["tracked connections"]++
			}
		}
		rules, err := exec.Command("nft", "list", "ruleset").Output()
		x.counts["set elements"] = strings.Count(string(rules), "timeout") // those with an end, and the sets that hold them
		return err
	})
}
