package main

import (
	"compress/gzip"
	"io"
	"net/netip"
	"slices"
	"testing"

	"github.com/netcurtain/netcurtain/atlas"
	"github.com/netcurtain/netcurtain/observe/inspect"
)

// plainSample is the sample, uncompressed.
func plainSample(t *testing.T) []byte {
	t.Helper()
	z, err := gzip.NewReader(sample())
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sampleRows(t *testing.T) []inspect.Row {
	t.Helper()
	var rows []inspect.Row
	stats, err := inspect.Read(t.Context(), "sample", sample(), inspect.Config{Maker: atlas.Maker}, func(r inspect.Row) error {
		rows = append(rows, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if stats.Malformed > 0 || stats.Unknown > 0 {
		t.Errorf("the sample has %d malformed frames, %d of an unknown link type", stats.Malformed, stats.Unknown)
	}
	return rows
}

// TestSample keeps the built-in capture worth reading: whoever tries Netcurtain
// sees each thing that it is for. Replacing the sample is fine as long as these are in it.
func TestSample(t *testing.T) {
	rows := sampleRows(t)
	for _, want := range []struct {
		maker, l4                                                       string
		port                                                            uint16
		protocol, protection, serverName, name, source, tls, credential string
		harmless                                                        bool
	}{
		{"", "tcp", 443, "tls", "encrypted", "media.doorview.example", "media.doorview.example", "sni", "1.3", "", false},
		{"", "tcp", 443, "tls", "encrypted", "api.doorview.example", "api.doorview.example", "sni", "1.2", "", false},
		// A post-quantum hello in two segments.
		{"", "tcp", 443, "tls", "encrypted", "live.doorview.example", "live.doorview.example", "sni", "1.3", "", false},
		{"LG Electronics", "udp", 443, "quic", "encrypted", "www.youtube.com", "www.youtube.com", "sni", "1.3", "", false},
		{"", "tcp", 80, "http", "readable", "firmware.doorview.example", "firmware.doorview.example", "host", "", "", false},
		{"", "tcp", 80, "http", "readable", "app-measurement.com", "app-measurement.com", "host", "", "", false},
		{"LG Electronics", "tcp", 80, "http", "readable", "connectivitycheck.gstatic.com", "connectivitycheck.gstatic.com", "host", "", "", true},
		// No name in its own bytes: the look-up before tells it.
		{"Espressif", "tcp", 1883, "mqtt", "readable", "", "broker.plugworks.example", "dns-device", "", "mqtt-password", false},
		{"Espressif", "udp", 123, "ntp", "readable", "", "time.plugworks.example", "dns-device", "", "", true},
		{"Sonos", "udp", 53, "dns", "readable", "device-metrics-us.amazon.com", "", "address", "", "", true},
		// Refused by the house, and asked of a resolver outside.
		{"LG Electronics", "udp", 53, "dns", "readable", "lgsmartad.com", "", "address", "", "", false},
	} {
		if !slices.ContainsFunc(rows, func(r inspect.Row) bool {
			return r.Maker == want.maker && r.L4 == want.l4 && r.DstPort == want.port && r.Protocol == want.protocol && r.Protection == want.protection &&
				r.ServerName == want.serverName && r.Name == want.name && r.NameSource == want.source &&
				r.TLSVersion == want.tls && r.Credentials == want.credential && r.Harmless == want.harmless
		}) {
			t.Errorf("no flow like %+v in the sample", want)
		}
	}
	if !slices.ContainsFunc(rows, func(r inspect.Row) bool { return r.Dst == "8.8.8.8" && r.DstPort == 53 }) {
		t.Error("nobody asks a resolver outside in the sample")
	}
	devices := map[string]bool{}
	for _, r := range rows {
		devices[r.Device] = true
		if r.Protection == "cannot-tell" {
			t.Errorf("we cannot tell how %s %s:%d is protected", r.L4, r.Dst, r.DstPort)
		}
	}
	if len(devices) < 6 {
		t.Errorf("%d devices in the sample, 6 are needed", len(devices))
	}
}

// The sample is of a house that was made up: it holds nobody's address.
func TestSampleIsNobodys(t *testing.T) {
	documentation := netip.MustParsePrefix("198.51.100.0/24")
	for _, r := range sampleRows(t) {
		for _, s := range []string{r.Src, r.Dst} {
			a := netip.MustParseAddr(s)
			if !a.IsPrivate() && !a.IsLinkLocalUnicast() && !a.IsMulticast() && !documentation.Contains(a) && s != "8.8.8.8" {
				t.Errorf("the sample holds %s", s)
			}
		}
	}
}
