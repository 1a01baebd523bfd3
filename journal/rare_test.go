package journal_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func rareEvent(at time.Time, d devices.ID, level devices.LogLevel, kind journal.EventKind, subject string) journal.Entry {
	return journal.Entry{At: at, Device: d, Log: level, Event: &journal.Event{Kind: kind, Subject: subject, Text: "about " + subject}}
}

// heard records entries and returns what a subscriber heard of them.
func heard(r *journal.Recorder, entries ...journal.Entry) (out []string) {
	s := r.Subscribe("test", len(entries))
	for _, e := range entries {
		r.Record(e)
	}
	s.Close()
	for e := range s.C {
		out = append(out, fmt.Sprintf("%s %s %s", e.Device, e.Event.Kind, e.Event.Subject))
	}
	return out
}

func TestARareEventIsToldOnce(t *testing.T) {
	r := newRecorder(t, nil)
	const tv, phone = devices.ID("tv"), devices.ID("phone")
	r.Remember([]journal.EventRow{
		{Device: tv, Kind: journal.EventFirstContact, Subject: "Known Inc"},
		{Device: phone, Kind: journal.EventReadableSecret}, // of a counted device nothing more was kept
	})
	names, counts := devices.LogNames, devices.LogCounts
	got := heard(r,
		rareEvent(noon, tv, names, journal.EventFirstContact, "Known Inc"), // in an earlier run
		rareEvent(noon, tv, names, journal.EventFirstContact, "New Inc"),
		rareEvent(noon.Add(1000*time.Hour), tv, names, journal.EventFirstContact, "New Inc"),
		rareEvent(noon, tv, names, journal.EventWeakTLS, "New Inc"), // another kind
		rareEvent(noon, "plug", names, journal.EventFirstContact, "New Inc"),
		rareEvent(noon, phone, counts, journal.EventReadableSecret, "a.example"),
		rareEvent(noon, phone, counts, journal.EventWeakTLS, "a.example"),
		rareEvent(noon, phone, counts, journal.EventWeakTLS, "b.example"), // nobody could write down that it is another
		rareEvent(noon, tv, names, journal.EventHealth, ""),
		rareEvent(noon, tv, names, journal.EventHealth, ""), // about nothing that could be known again
		rareEvent(noon, "", names, journal.EventHealth, ""),
		rareEvent(noon, "", names, journal.EventHealth, ""), // of the house: always
	)
	want := []string{
		"tv first-contact New Inc", "tv weak-tls New Inc", "plug first-contact New Inc", "phone weak-tls a.example",
		"tv health ", "tv health ", " health ", " health ",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("told %q\nwant %q", got, want)
	}
	r.Forget(tv)
	if got := heard(r, rareEvent(noon, tv, names, journal.EventFirstContact, "New Inc"), rareEvent(noon, "plug", names, journal.EventFirstContact, "New Inc")); len(got) != 1 {
		t.Errorf("after forgetting the television: %q", got)
	}
}

// A device that reaches a thousand names, or somebody who invents a thousand
// devices, must not push what matters out of the list.
func TestAFloodOfRareEvents(t *testing.T) {
	r := newRecorder(t, nil)
	names := devices.LogNames
	flood := func(at time.Time, from int) (all []journal.Entry) {
		for i := range 1000 {
			all = append(all, rareEvent(at, "toy", names, journal.EventWeakTLS, fmt.Sprint(from+i)))
		}
		return all
	}
	for day := range 3 {
		at := noon.AddDate(0, 0, day)
		if n := len(heard(r, flood(at, 1000*day)...)); n != 24 {
			t.Errorf("day %d: %d events of one device, 24 wanted", day, n)
		}
		if got := heard(r, rareEvent(at, "tv", names, journal.EventSideDoor, fmt.Sprint(day))); len(got) != 1 {
			t.Errorf("day %d: the other device's event is not told", day)
		}
	}
	// What was too much on one day is told on another.
	if n := len(heard(r, flood(noon.AddDate(0, 0, 9), 0)...)); n != 24 {
		t.Errorf("a later day tells %d of the events that were too many, 24 wanted", n)
	}
	var flaps []journal.Entry
	for range 3000 {
		flaps = append(flaps, rareEvent(noon, "", names, journal.EventHealth, ""))
	}
	if n := len(heard(r, flaps...)); n != 100 {
		t.Errorf("%d events of a house that breaks and mends all day, 100 wanted", n)
	}
	var invented []journal.Entry
	for i := range 5000 {
		invented = append(invented, rareEvent(noon.AddDate(0, 0, 20), devices.ID(fmt.Sprint(i)), devices.LogCounts, journal.EventNewDevice, "itself"))
	}
	if n := len(heard(r, invented...)); n != 50 {
		t.Errorf("%d new devices told of in a day, 50 wanted", n)
	}
	if got := heard(r, rareEvent(noon.AddDate(0, 0, 20), "tv", names, journal.EventSideDoor, "dns.example")); len(got) != 1 {
		t.Error("invented devices silence a real one")
	}
}
