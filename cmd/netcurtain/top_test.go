package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/ui/api"
)

func TestTopRates(t *testing.T) {
	var p pace
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	tv := api.TopRow{Device: "tv", DeviceName: "Tele\x1b[31mvision", Name: "video.example", BytesOut: 1000}
	if r := p.rates(now, []api.TopRow{tv}); len(r) > 0 {
		t.Errorf("rates at the first look: %v", r)
	}
	for range 40 { // 200 s, 1000 bytes in each 5
		now = now.Add(5 * time.Second)
		tv.BytesIn += 1000
		newcomer := api.TopRow{Device: "plug", Name: "new.example", BytesOut: 5}
		r := p.rates(now, []api.TopRow{tv, newcomer})
		if got := r[keyOf(tv)]; got != 200 {
			t.Fatalf("%s: %d bytes a second, 200 wanted", now, got)
		}
	}
	if n := len(p.looks); n > 14 {
		t.Errorf("%d looks are held for a minute", n)
	}
	now = now.Add(5 * time.Second)
	tv.BytesIn = 0 // an hour has left the span
	r := p.rates(now, []api.TopRow{tv})
	if _, ok := r[keyOf(tv)]; ok {
		t.Errorf("a rate below nothing: %v", r)
	}
	var out bytes.Buffer
	if err := printTop(&out, api.Top{By: "destination", Rows: []api.TopRow{tv}}, r); err != nil {
		t.Fatal(err)
	}
	if s := out.String(); !strings.Contains(s, "video.example") || strings.Contains(s, "\x1b") || !strings.Contains(s, "–") {
		t.Errorf("printed %q", s)
	}
}
