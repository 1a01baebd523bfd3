package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/netcurtain/netcurtain/configs"
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/lists"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/policy/blocklist"
	"github.com/netcurtain/netcurtain/store"
)

func TestListUse(t *testing.T) {
	text := func(name string) blocklist.Text {
		return blocklist.Text{Source: blocklist.Source{Name: name}, Text: strings.NewReader("x.example\n")}
	}
	x, _, err := blocklist.Compile(text("house"), text("tv's"), text("both's"), text("disabled"), text("file"))
	if err != nil {
		t.Fatal(err)
	}
	one := func(name string, enabled, rewrite bool, whose ...devices.ID) listed {
		return listed{List: store.List{Name: name, Enabled: enabled, Rewrite: rewrite, Devices: whose}, source: lists.Source{Name: name}}
	}
	all := []listed{
		one("house", true, false), one("tv's", true, false, "tv"), one("both's", true, false, "tv", "phone"), one("disabled", false, false), one("file", true, true),
		{List: store.List{Name: "house", Enabled: true, Rewrite: true}, shadowed: true}, // the settings file's counts
		one("not in the index", true, true),
	}
	want := &policy.ListUse{House: 0b10001, Devices: map[devices.ID]uint64{"tv": 0b110, "phone": 0b100}}
	if diff := cmp.Diff(want, listUse(all, x)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := rewriters(all, x); got != 0b10000 {
		t.Errorf("rewriters %b", got)
	}
	if got := listUse(all, nil); got.House != 0 || rewriters(all, nil) != 0 {
		t.Errorf("without an index: %+v", got)
	}
}

// What the catalogue says a list may fall to comes along, down to the smallest.
func TestFromCatalogue(t *testing.T) {
	d := &daemon{}
	var err error
	if d.catalogue, err = configs.Catalogue(); err != nil {
		t.Fatal(err)
	}
	for _, p := range d.catalogue {
		s, _ := d.sourceOf(store.List{Name: "x", Source: store.ListFromCatalogue, Address: p.Name})
		if s.URL != p.URL || s.Rules != p.Rules || (p.Smaller == "") != (len(s.Smaller) == 0) {
			t.Errorf("%s: %+v", p.Name, s)
		}
		last := s.Rules
		for _, sm := range s.Smaller {
			if sm.Rules >= last {
				t.Errorf("%s: %s is not smaller", p.Name, sm.Name)
			}
			last = sm.Rules
		}
	}
	if s, _ := d.sourceOf(store.List{Name: "x", Source: store.ListFromCatalogue, Address: "gone"}); s.URL != "https://gone.invalid/gone" {
		t.Errorf("one that has left the catalogue: %+v", s)
	}
}

func TestHowToAdd(t *testing.T) {
	for want, l := range map[string]store.List{
		"netcurtain lists add hagezi-light":                                                {Name: "hagezi-light", Source: store.ListFromCatalogue, Address: "hagezi-light"},
		"netcurtain lists add https://x.example/l.txt --name 'my ads' --allow --device tv": {Name: "my ads", Source: store.ListFromURL, Address: "https://x.example/l.txt", Allow: true, Devices: []devices.ID{"tv"}},
		"netcurtain lists add 'http://x.example/l?a=1;rm' --name ads --insecure --rewrite": {Name: "ads", Source: store.ListFromURL, Address: "http://x.example/l?a=1;rm", Insecure: true, Rewrite: true},
		`netcurtain lists add own.txt --name 'it'\''s mine' --device 02:00:5e:10:00:01`:    {Name: "it's mine", Source: store.ListFromFile, Address: "own.txt", Rewrite: true, Devices: []devices.ID{"02:00:5e:10:00:01"}},
	} {
		if got := howToAdd(l); got != want {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
	}
}
