//go:build linux

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/ui/api"
)

// turns DEVICE HOST[:UP:DOWN]… asks one host after the other on one connection, to the
// address of the first, and reads the kernel's counters up and down of table inet count
// whenever all is quiet. Then the ledger's flows of each host must come to the same bytes.
func (s *story) turns(ts *testscript.TestScript, args []string) (err error) {
	d, ok := s.devices[args[0]]
	if !ok {
		return fmt.Errorf("no device %q in this house", args[0])
	}
	var c net.Conn
	addr := d.Addr(dnsname.Name(strings.Split(args[1], ":")[0]))
	if err := d.Host.Do(func() error {
		c, err = net.DialTimeout("tcp", netip.AddrPortFrom(addr, 80).String(), 20*time.Second)
		return err
	}); err != nil {
		return err
	}
	defer c.Close()
	answers := bufio.NewReader(c)
	want := map[string][2]int64{}
	var before [2]int64
	for i, arg := range args[1:] {
		host, sizes, _ := strings.Cut(arg, ":")
		up, down, _ := strings.Cut(sizes, ":")
		n, _ := strconv.Atoi(up)
		head := fmt.Sprintf("POST /turn HTTP/1.1\r\nHost: %s\r\nX-Down: %s\r\nContent-Length: %d\r\n\r\n", host, down, n)
		if _, err := c.Write([]byte(head + strings.Repeat("x", n))); err != nil {
			return err
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			return fmt.Errorf("%s: %w", host, err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return fmt.Errorf("%s: %w", host, err)
		}
		if i == len(args)-2 {
			c.Close()
		}
		now, err := s.quiet()
		if err != nil {
			return err
		}
		want[host] = [2]int64{want[host][0] + now[0] - before[0], want[host][1] + now[1] - before[1]}
		before = now
	}
	return s.toldAs(ts, want)
}

// toldAs waits until the ledger's flows come to these bytes out and in, by name.
func (s *story) toldAs(ts *testscript.TestScript, want map[string][2]int64) error {
	var got map[string][2]int64
	for began := time.Now(); time.Since(began) < 2*time.Minute; time.Sleep(time.Second) {
		text, err := s.ask(ts, "/api/v1/flows?limit=100")
		if err != nil {
			return err
		}
		var all api.Flows
		if err := json.Unmarshal([]byte(text), &all); err != nil {
			return err
		}
		got = map[string][2]int64{}
		for _, f := range all.Flows {
			if _, ok := want[f.Name]; !ok {
				continue
			}
			got[f.Name] = [2]int64{got[f.Name][0] + f.BytesOut, got[f.Name][1] + f.BytesIn}
		}
		if fmt.Sprint(got) == fmt.Sprint(want) {
			fmt.Fprintln(ts.Stdout(), "as the kernel counted:", want)
			return nil
		}
	}
	return fmt.Errorf("by host, bytes out and in: the kernel counted %v, the ledger says %v", want, got)
}

var counted = regexp.MustCompile(`counter (up|down) \{\s*packets \d+ bytes (\d+)`)

// quiet is the kernel's counters once nothing has moved for a while: longer than an
// acknowledgement may be put off.
func (s *story) quiet() (n [2]int64, err error) {
	for last := n; ; last = n {
		out, err := s.lab.Router.Command(context.Background(), "nft", "list", "table", "inet", "count").Output()
		if err != nil {
			return n, fmt.Errorf("reading the kernel's counters: %w", err)
		}
		for _, m := range counted.FindAllStringSubmatch(string(out), -1) {
			v, err := strconv.ParseInt(m[2], 10, 64)
			if err != nil {
				return n, err
			}
			if m[1] == "up" {
				n[0] = v
			} else {
				n[1] = v
			}
		}
		if n == last && n[0] > 0 {
			return n, nil
		}
		time.Sleep(500 * time.Millisecond)
	}
}
