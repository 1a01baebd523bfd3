package main

import (
	"testing"

	"github.com/netcurtain/netcurtain/ui/api"
)

func TestShortName(t *testing.T) {
	for source, want := range map[string]string{
		"https://lists.example/dir/ads.txt": "ads", "https://small.oisd.nl": "small.oisd", "https://x.example/": "x", "own.txt": "own", "dir/mine.list": "mine", "plain": "plain",
	} {
		if got := shortName(source); got != want {
			t.Errorf("%s is called %q, want %q", source, got, want)
		}
	}
}

func TestProgress(t *testing.T) {
	for want, l := range map[string]api.List{
		"waiting":                    {Doing: "waiting"},
		"downloading":                {Doing: "downloading", Bytes: 999},
		"downloading, 3 MB":          {Doing: "downloading", Bytes: 3_200_000},
		"downloading, 3 of 5.1 MB":   {Doing: "downloading", Bytes: 3_200_000, Of: 5_100_000},
		"compiling":                  {Doing: "compiling", Rules: 7},
		"the server answered 503":    {LastError: "the server answered 503", Rules: 7},
		"it is off: too little room": {Unfit: "it is off: too little room"},
		"not here yet":               {Pending: true},
		"7 rules":                    {Rules: 7},
	} {
		if got := progress(l); got != want {
			t.Errorf("%+v: %q, want %q", l, got, want)
		}
	}
}
