package houserules

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAgain: which failures of a run of all tests are tried once more, how, and what
// then counts as broken. In place of go stands a program that notes how it is called.
func TestAgain(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("SKIPPED: no bash")
	}
	const ours = "github.com/netcurtain/netcurtain/"
	failure := func(pkg string, tests ...string) string {
		var b strings.Builder
		for _, name := range tests {
			fmt.Fprintf(&b, "%s--- FAIL: %s (1.00s)\n    x_test.go:1: no\n", strings.Repeat("    ", strings.Count(name, "/")), name)
		}
		return b.String() + "FAIL\nFAIL\t" + ours + pkg + "\t9.1s\n"
	}
	const passed = "ok  \t" + ours + "journal\t1.0s\n"
	for _, c := range []struct {
		why  string
		log  string
		says string   // what go test says each time it is called: "fail", "pass", or the line itself
		runs []string // race, times, pattern, package
		ok   bool
	}{
		{"it passes alone", passed + failure("store", "TestA"), "pass", []string{"-race 1 ^TestA$ store"}, true},
		{"it fails alone, then passes twice in a row", failure("store", "TestA"), "fail,pass", []string{"-race 1 ^TestA$ store", "-race 2 ^TestA$ store"}, true},
		{"it is broken", failure("store", "TestA"), "fail,fail", []string{"-race 1 ^TestA$ store", "-race 2 ^TestA$ store"}, false},
		{"tests of two packages", failure("store", "TestA") + passed + failure("ui", "TestB", "TestB/a_(b)_c", "TestB/a_(b)_c/d", "TestC"), "pass,pass,pass",
			[]string{"-race 1 ^TestA$ store", "-race 1 ^TestB$ ui", "-race 1 ^TestC$ ui"}, true},
		{"two stories", failure("e2e", "TestStories", "TestStories/fail-idle", "TestStories/bytes"), "pass", []string{"-race 1 ^TestStories$/^(fail-idle|bytes)$ e2e"}, true},
		{"a test that needs no race detector", failure("policy/blocklist", "TestA"), "pass,pass",
			[]string{"-race=false 1 ^TestA$ policy/blocklist", "-race 1 ^TestA$ policy/blocklist"}, true},
		{"seven stories", failure("e2e", "TestStories", "TestStories/a", "TestStories/b", "TestStories/c", "TestStories/d", "TestStories/e", "TestStories/f", "TestStories/g"), "", nil, false},
		{"seven tests", failure("store", "TestA", "TestB", "TestC", "TestD", "TestE", "TestF", "TestG"), "", nil, false},
		{"a race", "WARNING: DATA RACE\n" + failure("store", "TestA"), "", nil, false},
		{"a panic", failure("store", "TestA") + "panic: test timed out after 9m0s\n", "", nil, false},
		{"a race the second time", failure("store", "TestA"), "WARNING: DATA RACE", []string{"-race 1 ^TestA$ store"}, false},
		{"a package that does not build", failure("store", "TestA") + "FAIL\t" + ours + "ui [build failed]\n", "", nil, false},
		{"a package that fails without a test", passed + failure("store"), "", nil, false},
		{"a build that failed before all tests", "make: *** [test] Error 1\n", "", nil, false},
		{"a name that nobody knows", failure("store", "TestA"), "testing: warning: no tests to run", []string{"-race 1 ^TestA$ store"}, false},
	} {
		t.Run(c.why, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range map[string]string{
				"log": c.log,
				"go": `#!/bin/sh
echo "$2 ${3#-count=} $7 ${8#` + ours + `}" >> "` + dir + `/calls"
says=$(echo "` + c.says + `" | cut -d, -f"$(wc -l < "` + dir + `/calls")")
echo "$says"
case $says in fail|*RACE) exit 1 ;; esac
`,
			} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.CommandContext(t.Context(), bash, "../../scripts/again", filepath.Join(dir, "log"))
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "PATIENCE=0")
			out, err := cmd.CombinedOutput()
			if (err == nil) != c.ok {
				t.Errorf("%v, want success %v\n%s", err, c.ok, out)
			}
			if strings.Contains(string(out), "UNSTEADY") != c.ok {
				t.Errorf("what is unsteady is to be named: %s", out)
			}
			calls, err := os.ReadFile(filepath.Join(dir, "calls"))
			if err != nil && len(c.runs) > 0 {
				t.Fatal(err)
			}
			if got, want := strings.TrimSpace(string(calls)), strings.Join(c.runs, "\n"); got != want {
				t.Errorf("it ran\n%s\nwant\n%s", got, want)
			}
		})
	}
}
