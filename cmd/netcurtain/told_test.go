package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// understands reports what the command line has against a command that we tell
// people to type: "netcurtain mode tv guard   # a comment".
func understands(t *testing.T, command string) error {
	t.Helper()
	helped := false
	parser, err := newParser(&cli{}, std{new(bytes.Buffer), new(bytes.Buffer)}, func(int) { helped = true })
	if err != nil {
		t.Fatal(err)
	}
	command, _, _ = strings.Cut(command, " #")
	var args []string
	for _, word := range regexp.MustCompile(`"[^"]*"|'[^']*'|\S+`).FindAllString(command, -1)[1:] {
		if word == "|" || word == ">" {
			break
		}
		args = append(args, strings.Trim(word, `"'`))
	}
	_, err = parser.Parse(args)
	if helped || err != nil && strings.Contains(err.Error(), "no such file") { // an example's file
		return nil
	}
	return err
}

// Every command in the pages for people is one that there is, in a block of commands
// and in a sentence alike.
func TestCommandsOfTheDocs(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	told := regexp.MustCompile("(?m)(?:`|^(?:sudo )?(?:\\./)?)netcurtain( [^`\n]+)")
	found := 0
	for _, page := range append(pages, "../../README.md", "../../SECURITY.md", "../../CONTRIBUTING.md", "../../CHANGELOG.md", "../../ARCHITECTURE.md", "../../configs/netcurtain") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range told.FindAllStringSubmatch(string(text), -1) {
			found++
			err := understands(t, "netcurtain"+m[1])
			if named := len(strings.Fields(m[1])) == 1; err != nil && (!named || !strings.HasPrefix(err.Error(), "expected ")) { // "netcurtain match" may stand for what it does
				t.Errorf("%s tells people to type %q: %v", page, "netcurtain"+m[1], err)
			}
		}
	}
	if found < 40 {
		t.Errorf("only %d commands were found", found)
	}
}

// So is every example of --help.
func TestExamplesOfHelp(t *testing.T) {
	parser, err := newParser(&cli{}, std{new(bytes.Buffer), new(bytes.Buffer)}, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile(`(?m)^  (?:sudo )?(netcurtain .*)$`)
	err = kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		if n, ok := node.(*kong.Node); ok {
			for _, m := range examples.FindAllStringSubmatch(n.Detail, -1) {
				if err := understands(t, m[1]); err != nil {
					t.Errorf("%s --help tells people to type %q: %v", n.Path(), m[1], err)
				}
			}
		}
		return next(nil)
	})
	if err != nil {
		t.Fatal(err)
	}
}
