package main

import (
	"bytes"
	"encoding/binary"
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
// plain, compressed and broken, a capture in which a device says its name, and
// one off the air, in its folder.
func TestInspect(t *testing.T) {
	plain := plainSample(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/inspect",
		Setup: func(e *testscript.Env) error {
			for name, data := range map[string][]byte{
				"sample.pcap":    plain,
				"sample.pcap.gz": sampleCapture,
				"broken.pcap":    plain[:50_000],
				"named.pcap":     namedCapture(),
				"air.pcap":       pcapOf(105, append([]byte("\x08\x41"), make([]byte, 60)...)), // a data frame, protected
				"beads.pcap":     pcapOf(201),
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

// pcapOf writes a capture of frames, a second apart.
func pcapOf(link uint32, frames ...[]byte) []byte {
	b := []byte{0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0}
	b = binary.LittleEndian.AppendUint32(b, link)
	for i, f := range frames {
		for _, n := range []int{1_700_000_000 + i, 0, len(f), len(f)} {
			b = binary.LittleEndian.AppendUint32(b, uint32(n))
		}
		b = append(b, f...)
	}
	return b
}

// namedCapture is a television that asks for its address, under a name that would
// paint the terminal.
func namedCapture() []byte {
	mac := "\xa8\x23\xfe\x00\x00\x10"
	bootp := "\x01\x01\x06" + strings.Repeat("\x00", 25) + mac + strings.Repeat("\x00", 202) +
		"\x63\x82\x53\x63\x35\x01\x01\x0c\x12living\x1b-room\u202e-tv\xff"
	frame := []byte("\xff\xff\xff\xff\xff\xff" + mac + "\x08\x00" +
		"\x45\x00\x00\x00\x00\x00\x00\x00\x40\x11\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff" + "\x00\x44\x00\x43\x00\x00\x00\x00" + bootp)
	binary.BigEndian.PutUint16(frame[16:], uint16(len(frame)-14))
	binary.BigEndian.PutUint16(frame[38:], uint16(len(frame)-34))
	return pcapOf(1, frame)
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
	if want := len(sampleRows(t)); len(rows) != want || want == 0 {
		t.Errorf("%d lines, want %d", len(rows), want)
	}
}

// Names are the attacker's: what is printed to a terminal has no control octets.
func TestReportIsClean(t *testing.T) {
	r := newReport()
	hostile := "\x1b[31mred\x1b]0;title\x07\u202e"
	_ = r.add(inspect.Row{Device: hostile, DeviceName: hostile, Maker: hostile, Name: hostile, ServerName: hostile, Reason: hostile, Organisation: hostile, L4: "tcp", Protection: "readable"})
	r.files = append(r.files, fileLine(hostile, capture.Stats{}, nil))
	var b bytes.Buffer
	r.print(&b)
	if i := strings.IndexAny(b.String(), "\x1b\x07\u202e"); i >= 0 {
		t.Errorf("an octet that a terminal obeys is printed: %q", b.String())
	}
}
