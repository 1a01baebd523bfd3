//go:build linux

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// commands are the lines of the sh blocks of a Markdown file, comments removed.
func commands(t *testing.T, path string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(block[1]) {
			line, _, _ = strings.Cut(line, " #")
			if line = strings.TrimSpace(line); line != "" {
				lines = append(lines, line)
			}
		}
	}
	if len(lines) == 0 {
		t.Fatalf("%s has no example", path)
	}
	return lines
}

// Every example of the README works. Those for a running demo run in a house of
// this test with the same devices; make's targets must exist, for running them
// here would be running this test.
func TestReadmeExamples(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	story := ""
	for _, line := range commands(t, "../README.md") {
		if target, ok := strings.CutPrefix(line, "make "); ok {
			if !regexp.MustCompile(`(?m)^` + target + `:.*## `).Match(makefile) {
				t.Errorf("the Makefile has no target %q", target)
			}
			continue
		}
		line = strings.TrimPrefix(line, "sudo ")
		line = strings.ReplaceAll(line, " --socket /run/netcurtain-demo/control.sock", "")
		if rest, ok := strings.CutPrefix(line, "ip netns exec nc-"); ok {
			story += "on " + rest + "\n"
		} else if rest, ok := strings.CutPrefix(line, "./netcurtain "); ok {
			story += "exec netcurtain " + rest + "\n"
		} else {
			t.Errorf("nobody knows how to run %q", line)
		}
	}
	dir := t.TempDir()
	head := "house tv camera\nnetcurtain\n"
	for _, p := range []string{"tv", "camera"} {
		text, err := os.ReadFile(filepath.Join("../internal/netlab/scene/personas", p+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		story += "-- " + p + " --\n" + string(text)
	}
	if err := os.WriteFile(filepath.Join(dir, "readme.txtar"), []byte(head+story), 0o644); err != nil {
		t.Fatal(err)
	}
	runStories(t, dir)
}

// Every subcommand has help with an example, and wrong use exits with 2.
func TestHelp(t *testing.T) {
	bin := binary(t)
	out, err := exec.Command(bin, "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	subs := regexp.MustCompile(`(?m)^  ([a-z]+) `).FindAllStringSubmatch(string(out), -1)
	if len(subs) < 15 {
		t.Fatalf("only %d subcommands in:\n%s", len(subs), out)
	}
	for _, sub := range subs {
		if sub[1] == "netcurtain" {
			continue
		}
		help, err := exec.Command(bin, sub[1], "--help").Output()
		if err != nil || !strings.Contains(string(help), "Example") || !strings.Contains(string(help), "  netcurtain "+sub[1]) && !strings.Contains(string(help), "netcurtain "+sub[1]) {
			t.Errorf("%s --help has no example: %v\n%s", sub[1], err, help)
		}
	}
	for _, wrong := range [][]string{{"fly"}, {"mode"}, {"erase"}, {"erase", "--all", "--device", "x"}, {"flows", "--limit", "0"}, {"completion", "csh"}} {
		cmd := exec.Command(bin, wrong...)
		if cmd.Run(); cmd.ProcessState.ExitCode() != 2 {
			t.Errorf("%v: exit code %d, 2 is needed", wrong, cmd.ProcessState.ExitCode())
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		out, err := exec.Command(bin, "completion", shell).Output()
		if err != nil || !strings.Contains(string(out), "inspect") {
			t.Errorf("completion %s: %v\n%s", shell, err, out)
		}
		if shell == "bash" {
			check := exec.Command("bash", "-n")
			check.Stdin = strings.NewReader(string(out))
			if said, err := check.CombinedOutput(); err != nil {
				t.Errorf("bash does not like its completion: %s", said)
			}
		}
	}
}
