package blocklist

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// realList opens a list of the test data beside the project, unpacked.
func realList(tb testing.TB, name string) io.ReadCloser {
	tb.Helper()
	dir := os.Getenv("NETCURTAIN_TRUTH")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	path := filepath.Join(dir, "lists", name)
	if _, err := os.Stat(path); err != nil {
		tb.Skipf("no test data: %v (NETCURTAIN_TRUTH names its folder)", err)
	}
	if strings.HasSuffix(name, ".xz") {
		plain := filepath.Join(tb.TempDir(), strings.TrimSuffix(name, ".xz"))
		out, err := os.Create(plain)
		if err != nil {
			tb.Fatal(err)
		}
		xz := exec.Command("xz", "-dc", path)
		xz.Stdout = out
		if err := xz.Run(); err != nil {
			tb.Skipf("unpacking: %v", err)
		}
		out.Close()
		path = plain
	}
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	return f
}

// compileFile compiles into real files, as lists does.
func compileFile(tb testing.TB, src io.Reader) (x *Index, rep Report, size int64) {
	tb.Helper()
	scratch, err := os.Create(filepath.Join(tb.TempDir(), "runs"))
	if err != nil {
		tb.Fatal(err)
	}
	defer scratch.Close()
	out, err := os.Create(filepath.Join(tb.TempDir(), "index"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { out.Close() })
	b := NewBuilder(Options{Scratch: scratch})
	if rep, err = b.Add(Source{Name: "list"}, src); err != nil {
		tb.Fatal(err)
	}
	if err := b.Write(out); err != nil {
		tb.Fatal(err)
	}
	data, err := os.ReadFile(out.Name())
	if err != nil {
		tb.Fatal(err)
	}
	if x, err = OpenMapped(data, out, func() {}); err != nil {
		tb.Fatal(err)
	}
	return x, rep, int64(len(data))
}

// Every rule of a real list is found again, and nothing that is not on it is
// blocked: ten thousand names like those on the list are compared with a plain set.
func TestRealLists(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles a million rules")
	}
	for _, name := range []string{"stevenblack_hosts.txt", "adguard_sdn_filter.txt", "150k-domains.txt.xz", "one-million-domains.txt.xz"} {
		t.Run(name, func(t *testing.T) {
			if underRace && strings.HasPrefix(name, "one-million") {
				t.Skip("SKIPPED under -race: the run without it compiles a million rules")
			}
			began := time.Now()
			x, rep, size := compileFile(t, realList(t, name))
			t.Logf("%d rules, %d names, %d lines rejected; %d octets, %.1f a name (filter %.2f); %v with this test's reading back",
				rep.Rules, x.Names(), rep.Rejected, size, float64(size)/float64(x.Names()),
				float64(len(x.filter))/float64(x.Names()), time.Since(began).Round(time.Millisecond))
			exact, below := map[dnsname.Name]bool{}, map[dnsname.Name]bool{}
			allowed := map[dnsname.Name]bool{}
			var names []dnsname.Name
			var more []naiveRule
			_, err := readLines("list", realList(t, name), Limits{}.withDefaults(), func(_ int, line string, p parsed) (string, error) {
				if p.more != nil {
					more = append(more, naive(strings.TrimSpace(line)))
					return "", nil
				}
				names = append(names, p.name) // of rules below a name, the name
				s := p.form.shape()
				switch {
				case s.allow:
					allowed[p.name] = true
				default:
					exact[p.name] = exact[p.name] || s.self
					below[p.name] = below[p.name] || s.below
				}
				return "", nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range names {
				if _, ok := x.Match(n, 1); !ok && (exact[n] || allowed[n]) {
					t.Fatalf("%s is lost", n)
				}
			}
			rng := rand.New(rand.NewPCG(3, 4))
			hits := 0
			rounds := 10000
			if underRace {
				rounds = 500
			}
			for range rounds {
				n := mutate(rng, names[rng.IntN(len(names))])
				want := exact[n]
				allow := false
				for p := n; p != ""; p = p.Parent() {
					want = want || p != n && below[p]
					allow = allow || allowed[p]
				}
				for _, r := range more {
					if r.re.MatchString(string(n)) {
						want, allow = want || !r.allow, allow || r.allow
					}
				}
				m, ok := x.Match(n, 1)
				if got := ok && !m.Allow; got != (want && !allow) {
					t.Fatalf("%s: blocked %v, want %v", n, got, want && !allow)
				}
				if ok {
					hits++
				}
			}
			t.Logf("of 10,000 mutated names %d had a rule", hits)
		})
	}
}

// mutate makes a name that may or may not be covered.
func mutate(rng *rand.Rand, n dnsname.Name) dnsname.Name {
	b := []byte(n)
	switch i := rng.IntN(len(b)); rng.IntN(6) {
	case 0:
		b[i] = "abcxyz019-"[rng.IntN(10)]
	case 1:
		b = append(b[:i:i], b[i+1:]...)
	case 2:
		return "www." + n
	case 3:
		return n.Parent()
	case 4:
		return n + "x"
	case 5:
		return "x" + n
	}
	m, err := dnsname.Parse(string(b))
	if err != nil {
		return n
	}
	return m
}

// What compiling costs in memory, beside the program itself. It reads the peak
// of the heap by sampling, so it is a figure and no gate.
func BenchmarkCompileMillion(b *testing.B) {
	path := realList(b, "one-million-domains.txt.xz").(*os.File).Name()
	debug.SetGCPercent(50)
	for b.Loop() {
		src, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		scratch, err := os.Create(filepath.Join(b.TempDir(), "runs"))
		if err != nil {
			b.Fatal(err)
		}
		out, err := os.Create(filepath.Join(b.TempDir(), "index"))
		if err != nil {
			b.Fatal(err)
		}
		debug.FreeOSMemory()
		var before, m runtime.MemStats
		runtime.ReadMemStats(&before)
		stop, done := make(chan struct{}), make(chan uint64)
		go func() {
			var peak uint64
			for {
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse)
				select {
				case <-stop:
					done <- peak
					return
				case <-time.After(5 * time.Millisecond):
				}
			}
		}()
		builder := NewBuilder(Options{Scratch: scratch})
		if _, err := builder.Add(Source{Name: "list"}, src); err != nil {
			b.Fatal(err)
		}
		if err := builder.Write(out); err != nil {
			b.Fatal(err)
		}
		close(stop)
		b.ReportMetric(float64(<-done-before.HeapInuse)/(1<<20), "MB-heap-peak")
		info, _ := out.Stat()
		b.ReportMetric(float64(info.Size())/1e6, "B/rule")
		for _, f := range []*os.File{src, scratch, out} {
			f.Close()
		}
	}
}

// cpuTime is what the process has used so far.
func cpuTime() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkMatch is a look-up of a name with all its parents: of one that no list
// holds, and of those that the list begins with.
func BenchmarkMatch(b *testing.B) {
	for _, list := range []struct{ name, file, before, after string }{
		{"1M/plain", "one-million-domains.txt.xz", "", ""},
		{"1M/subtree", "one-million-domains.txt.xz", "||", "^"},
		{"150k/plain", "150k-domains.txt.xz", "", ""},
		{"150k/subtree", "150k-domains.txt.xz", "||", "^"},
		{"hosts", "stevenblack_hosts.txt", "", ""},
		{"sdn", "adguard_sdn_filter.txt", "", ""},
	} {
		var text strings.Builder
		lines := bufio.NewScanner(realList(b, list.file))
		for lines.Scan() {
			text.WriteString(list.before + lines.Text() + list.after + "\n")
		}
		var listed []dnsname.Name
		if _, err := read("", strings.NewReader(text.String()), Limits{}.withDefaults(), func(p parsed) (string, error) {
			if len(listed) < 20_000 && p.more == nil {
				listed = append(listed, dnsname.Name(strings.Clone(string(p.name))))
			}
			return "", nil
		}); err != nil {
			b.Fatal(err)
		}
		x, _, _ := compileFile(b, strings.NewReader(text.String()))
		text.Reset()
		for _, c := range []struct {
			name  string
			names []dnsname.Name
		}{{"allowed", allowedNames()}, {"blocked", listed}} {
			b.Run(list.name+"/"+c.name, func(b *testing.B) {
				b.ReportAllocs()
				before := cpuTime()
				q := Question{Type: 1}
				for i := 0; b.Loop(); i++ {
					q.Name = c.names[i%len(c.names)]
					x.Ask(&q, 1)
				}
				// What it costs, also when others keep the machine busy.
				b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// allowedNames are on no list.
func allowedNames() (names []dnsname.Name) {
	for i := range 10_000 {
		names = append(names, dnsname.Name(fmt.Sprintf("api%d.service.allowed%d.org", i, i%977)))
	}
	return names
}

func BenchmarkOpenMillion(b *testing.B) {
	scratch := new(Memory)
	builder := NewBuilder(Options{Scratch: scratch})
	if _, err := builder.Add(Source{Name: "list"}, realList(b, "one-million-domains.txt.xz")); err != nil {
		b.Fatal(err)
	}
	var out Memory
	if err := builder.Write(&out); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Open(out.Bytes()); err != nil {
			b.Fatal(err)
		}
	}
}

// What 30,000 rules that are not just names cost a name that none of them is about.
func BenchmarkAskComplex(b *testing.B) {
	var patterns strings.Builder
	for i := range 30_000 {
		fmt.Fprintf(&patterns, "||w%d*.zone%d.example^$dnstype=A\n", i, i/100)
	}
	x, _, _ := compileFile(b, strings.NewReader(patterns.String()))
	b.ReportAllocs()
	allowed, q := allowedNames(), Question{Type: 1}
	before := cpuTime()
	for i := 0; b.Loop(); i++ {
		q.Name = allowed[i%len(allowed)]
		x.Ask(&q, 1)
	}
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
}
