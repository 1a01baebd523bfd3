package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/netcurtain/netcurtain/flow/capture"
	"github.com/netcurtain/netcurtain/observe/inspect"
)

// TestInspect runs the stories in testdata/inspect. Each begins with the sample,
// whole and broken, in its folder.
func TestInspect(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/inspect",
		Setup: func(e *testscript.Env) error {
			for name, data := range map[string][]byte{
				"sample.pcap": sampleCapture,
				"broken.pcap": sampleCapture[:5000],
			} {
				if err := os.WriteFile(filepath.Join(e.WorkDir, name), data, 0o644); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"netcurtain": func(ts *testscript.TestScript, neg bool, args []string) {
				for i, a := range args {
					if strings.Contains(a, ".") {
						args[i] = ts.MkAbs(a)
					}
				}
				code := run(t.Context(), args, std{ts.Stdout(), ts.Stderr()})
				if (code != 0) != neg {
					ts.Fatalf("exit code %d", code)
				}
			},
		},
	})
}

// The JSON form is a promise: every field of docs/inspect.md is there, and no other.
func TestInspectJSONFieldsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/inspect.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	_, table, _ := strings.Cut(string(page), "## JSON")
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); len(cells) > 3 && strings.Contains(cells[1], "`") {
			for field := range strings.SplitSeq(cells[1], ",") {
				documented = append(documented, strings.Trim(field, " `"))
			}
		}
	}
	var fields []string
	for f := range reflect.TypeFor[inspect.Row]().Fields() {
		fields = append(fields, f.Tag.Get("json"))
	}
	// The page tells them in an order that reads well.
	set := func(names []string) map[string]bool {
		m := map[string]bool{}
		for _, n := range names {
			m[n] = true
		}
		return m
	}
	if diff := cmp.Diff(set(documented), set(fields)); diff != "" {
		t.Errorf("fields (-documented +printed):\n%s", diff)
	}
}

func TestInspectJSONLines(t *testing.T) {
	var out, talk bytes.Buffer
	if code := run(t.Context(), []string{"inspect", "--json"}, std{&out, &talk}); code != exitOK {
		t.Fatalf("exit code %d: %s", code, talk.String())
	}
	dec := json.NewDecoder(&out)
	dec.DisallowUnknownFields()
	var rows []inspect.Row
	for dec.More() {
		var r inspect.Row
		if err := dec.Decode(&r); err != nil {
			t.Fatal(err)
		}
		if r.First.IsZero() || r.Last.Before(r.First) || r.First.Location() != time.UTC {
			t.Errorf("flow from %v to %v", r.First, r.Last)
		}
		rows = append(rows, r)
	}
	if len(rows) != 6 {
		t.Errorf("%d lines, want 6", len(rows))
	}
}

// Names are the attacker's: what is printed to a terminal has no control octets.
func TestReportIsClean(t *testing.T) {
	r := newReport()
	hostile := "\x1b[31mred\x1b]0;title\x07\u202e"
	_ = r.add(inspect.Row{Device: hostile, Name: hostile, NameFrom: "dhcp", ServerName: hostile, Reason: hostile, Organisation: hostile, L4: "tcp", Protection: "readable"})
	r.files = append(r.files, fileLine(hostile, capture.Stats{}, nil))
	var b bytes.Buffer
	r.print(&b)
	if i := strings.IndexAny(b.String(), "\x1b\x07\u202e"); i >= 0 {
		t.Errorf("an octet that a terminal obeys is printed: %q", b.String())
	}
}
