package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// testdata/match tells what is printed of lists and names, and on which channel.
func TestMatchStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/match",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// netcurtain ARG… runs the command in the story's folder; "exits N" in front asserts its code.
			"netcurtain": func(ts *testscript.TestScript, neg bool, args []string) {
				want := exitOK
				if len(args) > 1 && args[0] == "exits" {
					want, args = int(args[1][0]-'0'), args[2:]
				}
				here := ts.MkAbs(".")
				var out, talk bytes.Buffer
				for i, a := range args {
					if strings.HasSuffix(a, ".txt") {
						args[i] = ts.MkAbs(a)
					}
				}
				code := run(t.Context(), args, std{&out, &talk})
				for _, p := range []struct {
					from *bytes.Buffer
					to   interface{ Write([]byte) (int, error) }
				}{{&out, ts.Stdout()}, {&talk, ts.Stderr()}} {
					_, _ = p.to.Write(bytes.ReplaceAll(p.from.Bytes(), []byte(here+"/"), nil))
				}
				if code != want {
					ts.Fatalf("exit code %d, want %d: %s", code, want, talk.String())
				}
			},
		},
	})
}

// A line of JSON has exactly the fields that were promised.
func TestMatchJSONFields(t *testing.T) {
	raw, err := json.Marshal(matchLine{Answers: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"name":"","verdict":"","rule":"","list":"","line":0,"answers":[]}`; string(raw) != want {
		t.Errorf("%s, want %s", raw, want)
	}
}

// Lists that are packed, and lists that can be read only once, are lists.
func TestMatchPackedAndPiped(t *testing.T) {
	const list = "# a list\n||ads.example^\n"
	packed := filepath.Join(t.TempDir(), "ads.gz")
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write([]byte(list))
	if err := errors.Join(z.Close(), os.WriteFile(packed, zipped.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		_, _ = w.WriteString(list)
		w.Close()
	}()
	for _, file := range []string{packed, fmt.Sprintf("/dev/fd/%d", r.Fd())} {
		var out, talk bytes.Buffer
		code := run(t.Context(), []string{"match", "--json", "--list", file, "--list", file, "x.ads.example"}, std{&out, &talk})
		want := fmt.Sprintf(`{"name":"x.ads.example","verdict":"block","rule":"||ads.example^","list":%q,"line":2,"answers":[]}`+"\n", file)
		if code != exitOK || out.String() != want || talk.Len() > 0 {
			t.Errorf("%s: exit code %d, %s%s", file, code, out.String(), talk.String())
		}
	}
}
