package blocklist

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// everyKind is a list with rules of each kind, many enough for several blocks and runs.
func everyKind() string {
	var b strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&b, "||sub%d.zone%d.example^\nplain%d.example\n*.below%d.example\n@@||except%d.example^\n", i, i%7, i, i, i)
	}
	for i := range 100 {
		fmt.Fprintf(&b, "||w%d*.wild.example^$dnstype=AAAA|~MX\n192.0.2.%d host%d.example\n||c%d.example^$client=10.0.0.0/8|02:00:5e:00:00:01|'tv %d',ctag=~device_pc,denyallow=x.c%d.example\n", i, i, i, i, i, i)
		fmt.Fprintf(&b, "||r%d.example^$dnsrewrite=NOERROR;MX;10 mail%d.example,important\n/^re%d[a-f]+\\./\n", i, i, i)
	}
	return b.String()
}

func compileKinds(t *testing.T) []byte {
	t.Helper()
	b := NewBuilder(Options{Buffer: 32 << 10})
	if _, err := b.Add(Source{Name: "kinds"}, strings.NewReader(everyKind())); err != nil {
		t.Fatal(err)
	}
	var out Memory
	if err := b.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// askKinds is what an index of everyKind decides, as text.
func askKinds(x *Index) string {
	var b strings.Builder
	for i := range 100 {
		for _, name := range []string{"sub%d.zone1.example", "a.sub%d.zone1.example", "plain%d.example", "a.plain%d.example", "a.below%d.example",
			"except%d.example", "w%dx.wild.example", "host%d.example", "c%d.example", "x.c%d.example", "r%d.example", "re%da.example", "nothing%d.example"} {
			q := Question{Name: dnsname.Name(fmt.Sprintf(name, i)), Type: 28, ClientName: fmt.Sprintf("tv %d", i)}
			m, _ := x.Ask(&q, 1)
			fmt.Fprintf(&b, "%s %v %s %v\n", q.Name, m.Kind, x.Rule(m), x.Answers(&q, 1))
		}
	}
	return b.String()
}

// TestForeignSide is the half of TestForeignMachines that runs on the foreign
// machine: it reads the index that this one wrote, and writes its own.
func TestForeignSide(t *testing.T) {
	dir := os.Getenv("NETCURTAIN_FOREIGN")
	if dir == "" {
		t.Skip("it runs inside TestForeignMachines")
	}
	data, err := os.ReadFile(filepath.Join(dir, "ours"))
	if err != nil {
		t.Fatal(err)
	}
	x, err := Open(data)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "answers"), []byte(askKinds(x)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "theirs"), compileKinds(t), 0o600); err != nil {
		t.Fatal(err)
	}
}

// An index written on one machine is read on another: big-endian ones, of 32 and 64
// bits, by emulation. They write the same octets as we do.
func TestForeignMachines(t *testing.T) {
	if testing.Short() || underRace {
		t.Skip("SKIPPED with -short and under -race: it builds for other machines")
	}
	ours := compileKinds(t)
	x, err := Open(ours)
	if err != nil {
		t.Fatal(err)
	}
	want := askKinds(x)
	if strings.Count(want, " block ") < 300 || strings.Count(want, " rewrite ") < 100 || strings.Count(want, " none ") < 100 {
		t.Fatalf("the questions decide little:\n%.2000s", want)
	}
	for _, arch := range []string{"mips", "ppc64"} {
		t.Run(arch, func(t *testing.T) {
			qemu, err := exec.LookPath("qemu-" + arch)
			if err != nil {
				if os.Getenv("NETCURTAIN_NEED_ROOT") != "" {
					t.Fatalf("%v (Debian: qemu-user)", err)
				}
				t.Skipf("SKIPPED: %v (Debian: qemu-user)", err)
			}
			dir := t.TempDir()
			binary := filepath.Join(dir, "blocklist.test")
			build := exec.Command("go", "test", "-c", "-o", binary, ".")
			build.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "GOMIPS=softfloat", "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("building for %s: %v\n%s", arch, err, out)
			}
			if err := os.WriteFile(filepath.Join(dir, "ours"), ours, 0o600); err != nil {
				t.Fatal(err)
			}
			run := exec.Command(qemu, binary, "-test.run", "^TestForeignSide$")
			run.Env = append(os.Environ(), "NETCURTAIN_FOREIGN="+dir)
			if out, err := run.CombinedOutput(); err != nil {
				t.Fatalf("on %s: %v\n%s", arch, err, out)
			}
			answers, err := os.ReadFile(filepath.Join(dir, "answers"))
			if err != nil {
				t.Fatal(err)
			}
			if string(answers) != want {
				t.Errorf("%s reads our index otherwise than we do", arch)
			}
			theirs, err := os.ReadFile(filepath.Join(dir, "theirs"))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(theirs, ours) {
				t.Errorf("%s writes %d octets, we write %d, or others", arch, len(theirs), len(ours))
			}
			y, err := Open(theirs)
			if err != nil {
				t.Fatal(err)
			}
			if askKinds(y) != want {
				t.Errorf("we read the index of %s otherwise than our own", arch)
			}
		})
	}
}
