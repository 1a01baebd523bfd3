package leases

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/netcurtain/netcurtain/devices"
)

const dnsmasqFile = `1795435200 d0:4d:2c:00:10:01 192.168.77.10 Roku-Streambar 01:d0:4d:2c:00:10:01
1795435201 02:00:5e:10:00:0b 192.168.77.11 * *
0 06-02:00:5e:10:00:0c 192.168.77.12 printer *
duid 00:01:00:01:2b:3c:4d:5e:02:00:5e:77:00:01
1795435202 268435457 fd77::10 Roku-Streambar 00:01:00:01:2a:2b:2c:2d:d0:4d:2c:00:10:01
1795435203 268435458 fd77::11 * 00:02:00:00:ab:11:11:22:33:44
`

const odhcpdFile = `# br-lan 00010001aabbccdd02005e10000b 1a2b phone 1795435200 11 128 fd77::20/128 2001:db8:1::20/128
# br-lan 0003000102005e10000c 1 - -1 0 128 fd77::21/128
# br-lan 02005e10000d ipv4 plug 1795435300 16 32 192.168.77.13/32
# br-lan 00030001d04d2c001001 2 - 1795435200 20 62 2001:db8:2:4::/62
# br-lan 000200000000000000 3 opaque 1795435200 22 128 fd77::22/128
`

func lease(mac, addr, hostname string, expires int64) Lease {
	l := Lease{Addr: netip.MustParseAddr(addr), Hostname: hostname}
	if mac != "" {
		l.MAC, _ = devices.ParseMAC(mac)
	}
	if expires > 0 {
		l.Expires = time.Unix(expires, 0)
	}
	return l
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     []Lease
		bad      []string
	}{
		{"dnsmasq", dnsmasqFile, []Lease{
			lease("d0:4d:2c:00:10:01", "192.168.77.10", "Roku-Streambar", 1795435200),
			lease("02:00:5e:10:00:0b", "192.168.77.11", "", 1795435201),
			lease("02:00:5e:10:00:0c", "192.168.77.12", "printer", 0),
			lease("d0:4d:2c:00:10:01", "fd77::10", "Roku-Streambar", 1795435202),
			lease("", "fd77::11", "", 1795435203),
		}, nil},
		{"odhcpd", odhcpdFile, []Lease{
			lease("02:00:5e:10:00:0b", "fd77::20", "phone", 1795435200),
			lease("02:00:5e:10:00:0b", "2001:db8:1::20", "phone", 1795435200),
			lease("02:00:5e:10:00:0c", "fd77::21", "", 0),
			lease("02:00:5e:10:00:0d", "192.168.77.13", "plug", 1795435300),
			lease("", "fd77::22", "opaque", 1795435200),
		}, nil},
		{"rubbish between good lines", "hello\n" +
			"1795435200 d0:4d:2c:00:10:01 192.168.77.10 tv *\n" +
			"<html><body>404</body></html>\n" +
			"1795435200 d0:4d:2c:00:10 192.168.77.10 tv *\n" +
			"1795435200 d0:4d:2c:00:10:01 192.168.77.1000 tv *\n" +
			"tomorrow d0:4d:2c:00:10:01 192.168.77.10 tv *\n" +
			"# br-lan 02005e10000d ipv4\n" +
			"# br-lan nothexdigits ipv4 plug 1 1 32 192.168.77.13/32\n" +
			strings.Repeat("x", 3000) + "\n" +
			"1795435200 d0:4d:2c:00:10:02 192.168.77.11 last *",
			[]Lease{
				lease("d0:4d:2c:00:10:01", "192.168.77.10", "tv", 1795435200),
				lease("d0:4d:2c:00:10:02", "192.168.77.11", "last", 1795435200),
			},
			[]string{
				"line 1: 1 fields, dnsmasq writes 5",
				"line 3: 1 fields, dnsmasq writes 5",
				"line 4: hardware address \"d0:4d:2c:00:10\"",
				"line 5: address \"192.168.77.1000\" is none",
				"line 6: expiry \"tomorrow\"",
				"line 7: 3 fields after #",
				"line 8: hardware address \"nothexdigits\"",
				"line 9: longer than 1024 octets",
			}},
		{"empty", "", nil, nil},
		{"binary", "\x00\x01\x02\xff\xfe\n\n\r\n", nil, []string{"line 1: 1 fields"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []Lease
			var bad []string
			err := Parse(strings.NewReader(c.in), func(l Lease) { got = append(got, l) }, func(e *LineError) { bad = append(bad, e.Error()) })
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Error(diff)
			}
			if len(bad) != len(c.bad) {
				t.Fatalf("skipped:\n%s", strings.Join(bad, "\n"))
			}
			for i, want := range c.bad {
				if !strings.HasPrefix(bad[i], want) {
					t.Errorf("skipped because %q, want %q", bad[i], want)
				}
			}
		})
	}
}

func TestParseIsBounded(t *testing.T) {
	endless := io.MultiReader(strings.NewReader(strings.Repeat("0 02:00:5e:10:00:01 10.0.0.1 x *\n", maxLeases+1)), neverEnds{})
	n := 0
	err := Parse(endless, func(Lease) { n++ }, nil)
	if err == nil || n != maxLeases {
		t.Errorf("%d leases of an endless file, error %v", n, err)
	}
	failing := io.MultiReader(strings.NewReader("0 02:00:5e:10:00:01 10.0.0.1 x *\n"), failingReader{})
	if err := Parse(failing, func(Lease) {}, nil); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a failing reader gives %v", err)
	}
}

type neverEnds struct{}

func (neverEnds) Read(b []byte) (int, error) {
	return copy(b, "0 02:00:5e:10:00:01 10.0.0.1 x *\n"), nil
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, fs.ErrPermission }

func FuzzParse(f *testing.F) {
	f.Add(dnsmasqFile)
	f.Add(odhcpdFile)
	f.Add("# br-lan 02005e10000d ipv4 plug 1795435300 16 32 192.168.77.13/32 nonsense")
	f.Fuzz(func(t *testing.T, s string) {
		lines := strings.Count(s, "\n") + 1
		_ = Parse(strings.NewReader(s), func(l Lease) {
			if !l.Addr.IsValid() || strings.ContainsAny(l.Hostname, "\n ") || len(l.Hostname) > maxLine {
				t.Errorf("%+v", l)
			}
		}, func(e *LineError) {
			if e.Line < 1 || e.Line > lines || e.Err == nil || len(e.Error()) > 300 {
				t.Errorf("of %d lines: %v", lines, e)
			}
		})
	})
}

// A lease file comes, changes, is broken, goes and comes back.
func TestWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		file := filepath.Join(dir, "dhcp.leases")
		must := func(errs ...error) {
			t.Helper()
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
		}
		write := func(content string) {
			t.Helper()
			must(os.WriteFile(file, []byte(content), 0o600), os.Chtimes(file, time.Now(), time.Now())) // of this bubble's clock
		}
		var log strings.Builder
		registry := prometheus.NewRegistry()
		w, err := New(Config{
			Paths: []string{"/dhcp.leases", "/hosts/odhcpd"}, FS: os.DirFS(dir), Registerer: registry,
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- w.Run(ctx, func(s devices.Sighting) {
				gone := ""
				if s.Gone {
					gone = " gone"
				}
				if s.Source != devices.SourceLease || s.At.IsZero() {
					t.Errorf("sighting %+v", s)
				}
				got = append(got, fmt.Sprintf("%s %s %s%s", s.MAC, s.Addr, s.Hostname, gone))
			})
		}()
		expect := func(what string, want ...string) {
			t.Helper()
			time.Sleep(11 * time.Second)
			synctest.Wait()
			slices.Sort(got)
			if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s: %s", what, diff)
			}
			got = nil
		}
		line := func(mac, addr, name string, expires time.Duration) string {
			return fmt.Sprintf("%d %s %s %s *\n", time.Now().Add(expires).Unix(), mac, addr, name)
		}
		expect("no file")
		a, b := line("02:00:5e:10:00:01", "10.0.0.1", "tv", time.Hour), line("02:00:5e:10:00:02", "10.0.0.2", "*", time.Hour)
		write(a + b)
		expect("the file comes", "02:00:5e:10:00:01 10.0.0.1 tv", "02:00:5e:10:00:02 10.0.0.2 ")
		expect("nothing changed")
		write(a + "rubbish\n" + strings.Replace(b, "*", "plug", 1))
		expect("a name is new", "02:00:5e:10:00:02 10.0.0.2 plug")
		write(a + line("02:00:5e:10:00:03", "10.0.0.3", "old", -time.Hour))
		expect("one lease ended, another came by a clock that is wrong", "02:00:5e:10:00:02 10.0.0.2  gone", "02:00:5e:10:00:03 10.0.0.3 old")
		must(os.Remove(file))
		expect("the file is rotated away")
		write(a)
		expect("and comes back with less", "02:00:5e:10:00:03 10.0.0.3  gone")
		must(os.Remove(file), os.Mkdir(file, 0o700))
		expect("a directory in its place")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		metrics, err := registry.Gather()
		if err != nil || len(metrics) != 1 || metrics[0].GetMetric()[0].GetCounter().GetValue() != 1 {
			t.Errorf("one line was skipped, the metrics say %v (%v)", metrics, err)
		}
		for _, want := range []string{"no lease file yet", "line 2: 1 fields", "not a regular file"} {
			if strings.Count(log.String(), want) < 1 {
				t.Errorf("the log does not say %q:\n%s", want, log.String())
			}
		}
		if n := strings.Count(log.String(), "file=/hosts/odhcpd"); n != 1 {
			t.Errorf("the missing file is mentioned %d times", n)
		}
	})
}

func TestNewChecks(t *testing.T) {
	good := Config{Paths: []string{"/tmp/dhcp.leases"}, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()}
	for want, c := range map[string]func(*Config){
		"at least one path":  func(c *Config) { c.Paths = nil },
		"an absolute path":   func(c *Config) { c.Paths = []string{"dhcp.leases"} },
		"without . and ..":   func(c *Config) { c.Paths = []string{"/tmp/../etc/shadow"} },
		"a logger":           func(c *Config) { c.Logger = nil },
		"metrics registerer": func(c *Config) { c.Registerer = nil },
	} {
		bad := good
		c(&bad)
		if _, err := New(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
