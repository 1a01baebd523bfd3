package uci_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/netcurtain/netcurtain/internal/uci"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     []uci.Section
		err      string
	}{
		{name: "empty"},
		{name: "comments and blanks", in: "# one\n\n   # two\n"},
		{
			name: "quotes, lists, comments behind values",
			in:   "package x\nconfig house\n\toption lan br-lan # why\n\tlist a 'one two'\n\tlist a \"th\\\"ree\"\n\nconfig list 'ads'\n option url 'https://x/#y'\n",
			want: []uci.Section{
				{Type: "house", Line: 2, Options: []uci.Option{
					{Key: "lan", Values: []string{"br-lan"}, Line: 3},
					{Key: "a", Values: []string{"one two", `th"ree`}, List: true, Line: 4},
				}},
				{Type: "list", Name: "ads", Line: 7, Options: []uci.Option{{Key: "url", Values: []string{"https://x/#y"}, Line: 8}}},
			},
		},
		{name: "concatenation", in: "config a\noption b 'c'd\\ e\n", want: []uci.Section{{Type: "a", Line: 1, Options: []uci.Option{{Key: "b", Values: []string{"cd e"}, Line: 2}}}}},
		{name: "empty value", in: "config a\noption b ''\n", want: []uci.Section{{Type: "a", Line: 1, Options: []uci.Option{{Key: "b", Values: []string{""}, Line: 2}}}}},
		{name: "open quote", in: "config a\noption b 'c\n", err: "f:2: the quote ' is not closed on this line"},
		{name: "option first", in: "option a b\n", err: "f:1: option a stands before the first config line"},
		{name: "no value", in: "config a\noption b\n", err: "f:2: option needs a key and one value, quoted if it holds a space: option name 'value'"},
		{name: "twice", in: "config a\noption b 1\noption b 2\n", err: `f:3: option "b" stands twice in this section, first on line 2`},
		{name: "mixed", in: "config a\noption b 1\nlist b 2\n", err: `f:3: "b" is an option on line 2 and a list elsewhere in the same section`},
		{name: "html", in: "<!DOCTYPE html>\n", err: `f:1: "<!DOCTYPE" is not known here: a line begins with config, option, list or #`},
		{name: "binary", in: "\x00\x01", err: "f:1: control octet 0x00: this is no text file"},
		{name: "long", in: strings.Repeat("x", 5000), err: "f:1: line is longer than 4096 octets: this is no configuration file"},
		{name: "two errors", in: "bad\nworse\n", err: "f:1: \"bad\" is not known here: a line begins with config, option, list or #\nf:2: \"worse\" is not known here: a line begins with config, option, list or #"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := uci.Parse(strings.NewReader(tt.in), "f")
			text := ""
			if err != nil {
				text = err.Error()
			}
			if diff := cmp.Diff(tt.err, text); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if tt.err == "" {
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("config a 'b'\n\toption c \"d\\\"\" # e\n\tlist f g\\ h\n")
	f.Add("package 'x\nconfig")
	f.Fuzz(func(t *testing.T, in string) {
		sections, err := uci.Parse(strings.NewReader(in), "f")
		n := 0
		for _, s := range sections {
			if s.Line < 1 || s.Type == "" && err == nil && !strings.Contains(in, "''") && !strings.Contains(in, `""`) {
				t.Errorf("section %+v out of nothing", s)
			}
			for _, o := range s.Options {
				n += len(o.Values)
				if len(o.Values) == 0 {
					t.Errorf("option %q without a value", o.Key)
				}
			}
		}
		if n > len(in) {
			t.Errorf("%d values out of %d octets", n, len(in))
		}
	})
}
