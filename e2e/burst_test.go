//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/netcurtain/netcurtain/ui/api"
)

// burst DEVICE N ADDRESS sends one datagram in each of N flows, as fast as it goes.
func (s *story) burst(ts *testscript.TestScript, args []string) error {
	d, ok := s.devices[args[0]]
	if !ok {
		return fmt.Errorf("no device %q in this house", args[0])
	}
	n, err := strconv.Atoi(args[1])
	if err != nil || n < 1 || n > 64_000 {
		return fmt.Errorf("%q flows: 1 to 64000 go by the port", args[1])
	}
	to, err := netip.ParseAddr(args[2])
	if err != nil {
		return err
	}
	began := time.Now()
	err = d.Host.Do(func() error {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{})
		if err != nil {
			return err
		}
		defer c.Close()
		for i := range n {
			for {
				_, err := c.WriteToUDPAddrPort([]byte("one of many, all alike"), netip.AddrPortFrom(to, uint16(1500+i)))
				if err == nil {
					break
				}
				if !errors.Is(err, syscall.ENOBUFS) {
					return err
				}
				time.Sleep(time.Millisecond)
			}
		}
		return nil
	})
	took := time.Since(began)
	fmt.Fprintf(ts.Stdout(), "%d flows in %s, %.0f a second\n", n, took.Round(time.Millisecond), float64(n)/took.Seconds())
	return err
}

// counted DEVICE N waits until the ledger's flows of a device, and the flows that
// are told as lost, are N together, and stay so.
func (s *story) counted(ts *testscript.TestScript, args []string) error {
	want, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	var said string
	same := 0
	for began := time.Now(); time.Since(began) < 3*time.Minute; time.Sleep(time.Second) {
		flows, err := s.flowsOf(ts, args[0])
		if err != nil {
			return err
		}
		metrics, err := s.ask(ts, "/metrics")
		if err != nil {
			return err
		}
		lost := int64(0)
		said = fmt.Sprintf("%d flows", flows)
		for _, m := range lossMetric.FindAllStringSubmatch(metrics, -1) {
			n, err := strconv.ParseFloat(m[2], 64)
			if err == nil && n > 0 {
				said += fmt.Sprintf(", %s %d", m[1], int64(n))
			}
			if err == nil && lostFlows.MatchString(m[1]) {
				lost += int64(n)
			}
		}
		if flows+lost != want {
			same = 0
			continue
		}
		if same++; same == 8 {
			fmt.Fprintln(ts.Stdout(), said)
			return nil
		}
	}
	return fmt.Errorf("of %d flows: %s", want, said)
}

var (
	lossMetric = regexp.MustCompile(`(?m)^(netcurtain_[a-z_]*(?:dropped|gaps|overflows|evicted|lost|recorded)[a-z_]*(?:\{[^}]*\})?) ([0-9.e+]+)$`)
	// What counts whole flows, once each.
	lostFlows = regexp.MustCompile(`^netcurtain_journal_dropped_total\{entry="flow",subscriber="store"\}|^netcurtain_store_rows_dropped_total|^netcurtain_observe_lost`)
)

func (s *story) flowsOf(ts *testscript.TestScript, device string) (int64, error) {
	text, err := s.ask(ts, "/api/v1/devices/"+device+"?since=24h")
	if err != nil {
		return 0, err
	}
	var d api.DeviceDetail
	err = json.Unmarshal([]byte(text), &d)
	return d.Device.Totals.Flows, err
}
