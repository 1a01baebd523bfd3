package houserules_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	root   = "../.."
	module = "github.com/netcurtain/netcurtain/"
)

var update = flag.Bool("update", false, "rewrite golden files")

// floor says on which floor of ARCHITECTURE.md a room is: it may import lower
// floors, never its neighbours unless nested. internal/* leaves are free to all.
var floor = map[string]int{
	"cmd/netcurtain": 6, "cmd/score": 6, "e2e": 6,
	"dnsfilter": 5, "proxy": 5, "observe": 5, "observe/inspect": 5,
	"devices/leases": 4, "devices/neigh": 4, "flow/conntrack": 4, "flow/nflog": 4, "flow/capture": 4,
	"enforce": 4, "lists": 4, "store": 4, "store/storetest": 4, "ui": 4, "ui/api": 4, "configs": 4,
	"journal": 3,
	"policy":  2, "atlas": 2,
	"devices": 1, "flow": 1, "flow/dissect": 1, "policy/blocklist": 1,
}

// pure rooms do no I/O, know no clock and no DNS library.
var pure = map[string]bool{"policy": true, "policy/blocklist": true, "devices": true, "flow": true, "flow/dissect": true, "internal/dnsname": true, "internal/uci": true}

// forbidden imports, each with its reason. "" stands for every room, "pure" for the pure ones.
var forbidden = map[string]map[string]string{
	"": {
		"github.com/coredns/coredns/core/plugin":                  "pulls in every plugin there is; import the few that are needed",
		"github.com/coredns/coredns/coremain":                     "takes over flags and signals",
		"github.com/gopacket/gopacket/layers":                     "costs 2 MB of flash; we decode the few layers ourselves",
		"github.com/prometheus/client_golang/prometheus/promauto": "registers with a global",
		"github.com/AdguardTeam/urlfilter":                        "GPL-3.0: never linked",
		"unsafe":                                                  "the same code runs on big-endian MIPS",
		"log":                                                     "use the injected slog.Logger",
	},
	"pure": {
		"os": "a pure room has no files", "net": "use net/netip", "net/http": "a pure room has no network",
		"github.com/miekg/dns": "plain values only", "log/slog": "a pure room says nothing", "syscall": "a pure room has no kernel",
	},
}

// excused are the few that may import what is forbidden, and why.
var excused = map[string]string{
	"policy/blocklist: net":      "net.ParseMAC does no I/O",
	"devices: net":               "net.ParseMAC and net.HardwareAddr do no I/O",
	"proxy: log":                 "http.Server takes its silence as a *log.Logger",
	"internal/netlab/scene: log": "http.Server takes its silence as a *log.Logger",
}

type pkg struct {
	ImportPath, Dir                              string
	GoFiles, CgoFiles, TestGoFiles, XTestGoFiles []string
	Imports                                      []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,CgoFiles,TestGoFiles,XTestGoFiles,Imports", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		p.ImportPath = strings.TrimPrefix(p.ImportPath, module)
		all = append(all, p)
	}
}

func TestWhoImportsWhom(t *testing.T) {
	for _, p := range packages(t) {
		room := p.ImportPath
		for _, imp := range p.Imports {
			if why, ok := forbidden[""][imp]; ok && excused[room+": "+imp] == "" && !strings.HasPrefix(room, "cmd/score") {
				t.Errorf("%s imports %s: %s", room, imp, why)
			}
			if why, ok := forbidden["pure"][imp]; ok && pure[room] && excused[room+": "+imp] == "" {
				t.Errorf("%s imports %s: %s", room, imp, why)
			}
			other, ours := strings.CutPrefix(imp, module)
			if !ours || strings.HasPrefix(other, "internal/") {
				continue
			}
			if strings.HasPrefix(room, "internal/") {
				if room != "internal/netlab/scene" {
					t.Errorf("%s imports %s: leaves import no room", room, other)
				}
				continue
			}
			mine, known := floor[room]
			theirs, knownToo := floor[other]
			switch nested := strings.HasPrefix(room, other+"/") || strings.HasPrefix(other, room+"/"); {
			case !known && !isPart(room):
				t.Errorf("%s has no floor: give it one here and a row in ARCHITECTURE.md", room)
			case !knownToo && !isPart(other):
				t.Errorf("%s imports %s, which has no floor", room, other)
			case theirs >= mine && !nested && known && knownToo:
				t.Errorf("%s (floor %d) imports %s (floor %d): only lower floors may be imported", room, mine, other, theirs)
			}
		}
	}
}

// isPart reports whether a package is an inner part of a room (room/internal/x).
func isPart(p string) bool { return strings.Contains(p, "/internal/") }

func TestOnePackageCommentEach(t *testing.T) {
	for _, p := range packages(t) {
		n := 0
		for _, f := range slices.Concat(p.GoFiles, p.CgoFiles) {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if file.Doc != nil && !strings.HasPrefix(file.Doc.Text(), "Code generated") {
				n++
			}
		}
		if n != 1 && len(p.GoFiles)+len(p.CgoFiles) > 0 {
			t.Errorf("%s has %d package comments, one is needed", p.ImportPath, n)
		}
	}
}

// No init functions and no package variables that anybody could change: tables
// and sentinel errors are fine, pointers, counters and locks are not.
func TestNoHiddenState(t *testing.T) {
	for _, p := range packages(t) {
		for _, f := range slices.Concat(p.GoFiles, p.CgoFiles) {
			name := filepath.Join(p.Dir, f)
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range file.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					t.Errorf("%s: func init", path.Join(p.ImportPath, f))
				}
			}
			ast.Inspect(file, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if x, ok := sel.X.(*ast.Ident); ok {
					switch global := x.Name + "." + sel.Sel.Name; global {
					case "slog.Default", "slog.SetDefault", "http.DefaultServeMux", "http.DefaultClient", "http.DefaultTransport",
						"prometheus.MustRegister", "prometheus.Register", "prometheus.DefaultRegisterer", "flag.CommandLine":
						t.Errorf("%s uses %s: pass it as an argument", path.Join(p.ImportPath, f), global)
					}
				}
				return true
			})
		}
	}
}

// Only policy makes a Verdict, and tests and their helpers, which ship nothing.
func TestOnlyPolicyDecides(t *testing.T) {
	for _, p := range packages(t) {
		if p.ImportPath == "policy" || strings.HasSuffix(p.ImportPath, "test") {
			continue
		}
		for _, f := range slices.Concat(p.GoFiles, p.CgoFiles) {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				lit, ok := n.(*ast.CompositeLit)
				if !ok || len(lit.Elts) == 0 {
					return true
				}
				if sel, ok := lit.Type.(*ast.SelectorExpr); ok && sel.Sel.Name == "Verdict" {
					t.Errorf("%s makes a Verdict; only policy may", path.Join(p.ImportPath, f))
				}
				return true
			})
		}
	}
}

// dependencies.txt is the list of modules that the shipped binary holds; each
// costs flash and trust, so that a new one shows up in the change.
func TestDependencies(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}", "./cmd/netcurtain")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOFLAGS=-tags=netgo,osusergo,sqlite_omit_load_extension")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	lines := slices.Compact(slices.Sorted(slices.Values(strings.Fields(strings.ReplaceAll(string(out), " ", "@")))))
	got := strings.Join(lines, "\n") + "\n"
	const golden = "testdata/dependencies.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("modules in the binary changed (-want +got); justify it in the commit and run go test ./internal/houserules -update:\n%s", diff)
	}
}

// Nothing that was built, no machine path and no picture of somebody's disk
// belongs into the repository.
func TestNoStrays(t *testing.T) {
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "build") {
			return filepath.SkipDir
		}
		info, err := d.Info()
		if err != nil || d.IsDir() {
			return err
		}
		if info.Size() > 1<<20 && filepath.Base(p) != "netcurtain" {
			t.Errorf("%s has %d bytes: is it source?", p, info.Size())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
