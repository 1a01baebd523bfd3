package store_test

import (
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/flow"
	"github.com/netcurtain/netcurtain/journal"
)

func TestTop(t *testing.T) {
	t.Parallel()
	h := open(t, t.TempDir())
	now := h.now()
	unknown := talk(tv, devices.LogNames, now, "stranger.example", flow.CannotTell, 1, 2)
	unknown.Flow.Destination.Organisation, unknown.Flow.Destination.Country = "", ""
	h.record(
		talk(tv, devices.LogNames, now, "a.example.com", flow.Encrypted, 100, 1000),
		talk(tv, devices.LogNames, now, "a.example.com", flow.Readable, 10, 10),
		talk("plug", devices.LogNames, now, "b.example.com", flow.Encrypted, 5000, 1),
		talk(phone, devices.LogCounts, now, "hush.example.com", flow.Encrypted, 7, 8),
		unknown,
	)
	for by, want := range map[journal.TopBy][]journal.TopRow{
		journal.TopByDestination: {
			{Device: "plug", Name: "b.example.com", Organisation: "Tracker Inc", Purpose: "ads", Country: "US", BytesOut: 5000, BytesIn: 1, Flows: 1, Last: now},
			{Device: tv, Name: "a.example.com", Organisation: "Tracker Inc", Purpose: "ads", Country: "US", BytesOut: 110, BytesIn: 1010, Flows: 2, Readable: 1, Last: now},
			{Device: phone, BytesOut: 7, BytesIn: 8, Flows: 1, Last: now},
			{Device: tv, Name: "stranger.example", Purpose: "ads", BytesOut: 1, BytesIn: 2, Flows: 1, Last: now},
		},
		journal.TopByOrganisation: {{Organisation: "Tracker Inc", Country: "US", BytesOut: 5110, BytesIn: 1011, Flows: 3, Readable: 1, Last: now}},
		journal.TopByDevice: {
			{Device: "plug", BytesOut: 5000, BytesIn: 1, Flows: 1, Last: now},
			{Device: tv, BytesOut: 111, BytesIn: 1012, Flows: 3, Readable: 1, Last: now},
			{Device: phone, BytesOut: 7, BytesIn: 8, Flows: 1, Last: now},
		},
	} {
		rows, err := h.Top(t.Context(), now, by, 0)
		must(t, err)
		equal(t, "top", rows, want)
		first, err := h.Top(t.Context(), now, by, 1)
		must(t, err)
		equal(t, "the first of top", first, want[:1])
		later, err := h.Top(t.Context(), now.Add(time.Hour), by, 0)
		must(t, err)
		equal(t, "top of the hour after", later, []journal.TopRow(nil))
	}
}
