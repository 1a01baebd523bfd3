package main

import (
	"bytes"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Exit codes are documented: 2 is the person's mistake, 1 that it could not be
// done; and each mistake is answered with what would be right.
func TestExitCodes(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	house := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.FormValue("since") == "nope":
			http.Error(w, `{"error":"since: a span such as 24h is needed"}`, http.StatusBadRequest)
		case strings.Contains(r.URL.Path, "fridge"):
			http.Error(w, `{"error":"device fridge is not known"}`, http.StatusNotFound)
		case r.URL.Path == "/api/v1/rules" && r.Method == http.MethodGet:
			_, _ = w.Write([]byte(`{"rules":[{"id":1,"action":"allow","name":"xn--bcher-kva.example"}]}`))
		default:
			_, _ = w.Write([]byte(`{}`))
		}
	})}
	go func() { _ = house.Serve(l) }()
	t.Cleanup(func() { _ = house.Close() })

	for _, tc := range []struct {
		args string // fields; '' is an empty one
		code int
		says string
	}{
		{"version", exitOK, `^$`},
		{"nosuch", exitUsage, `unexpected argument nosuch\nTry: netcurtain --help`},
		{"devices", exitOK, `^$`},
		{"devices --since nope", exitUsage, `a span such as 24h`},
		{"mode fridge guard", exitError, `not known`},
		{"mode tv guard", exitOK, `^$`},
		{"mode '' guard", exitUsage, `device "": its name`},
		{"mode .. guard", exitUsage, `device "\.\.": its name`},
		{"log . none", exitUsage, `device "\.": its name`},
		{"erase --device=", exitUsage, `--device: a name`},
		{"erase", exitUsage, `--device.* or --all`},
		{"flows --limit 0", exitUsage, `1 to 1000`},
		{"allow bücher.example --undo", exitOK, `rules taken back: 1`},
		{"allow other.example --undo", exitError, `no rule to allow other.example`},
		{"allow a..b --undo", exitUsage, `1 to 63`},
		{"demo --listen 0.0.0.0:8300", exitUsage, `a loopback address`},
		{"demo --listen nonsense", exitUsage, `a loopback address`},
		{"demo --for=-1s", exitUsage, `--for -1s`},
		{"demo --verify", exitUsage, `--for is needed`},
		{"lists", exitOK, `^$`},
		{"lists add", exitUsage, `expected "<source>"`},
		{"lists remove ''", exitUsage, `the name of a list is needed`},
		{"lists show ..", exitUsage, `the name of a list is needed`},
		{"lists disable ads", exitOK, `^$`},
		{"lists devices ads tv phone", exitOK, `^$`},
		{"why", exitUsage, `expected "<name>"`},
		{"why ads.example --device tv", exitOK, `^$`},
		{"status --socket /nonexistent", exitError, `no daemon answers at /nonexistent`},
	} {
		t.Run(tc.args, func(t *testing.T) {
			t.Setenv("NETCURTAIN_SOCKET", socket)
			var args []string
			for _, a := range strings.Fields(tc.args) {
				args = append(args, strings.Trim(a, "'"))
			}
			var out, talk bytes.Buffer
			if code := run(t.Context(), args, std{&out, &talk}); code != tc.code {
				t.Errorf("exit code %d, want %d: %s", code, tc.code, talk.String())
			}
			if !regexp.MustCompile(tc.says).MatchString(talk.String()) {
				t.Errorf("it says %q, want %q", talk.String(), tc.says)
			}
		})
	}
}

// A file that is not there is not called right: the defaults are in force.
func TestJudge(t *testing.T) {
	if got, err := (configFlag{Config: "/nonexistent/file"}).judge(); err == nil || strings.HasPrefix(got, "settings:") {
		t.Errorf("%q, %v: an error without the name of its line is needed", got, err)
	}
	if got, err := (configFlag{Config: filepath.Join("..", "..", "configs", "netcurtain")}).judge(); err != nil || !strings.HasSuffix(got, "is right") {
		t.Errorf("%q, %v", got, err)
	}
}
