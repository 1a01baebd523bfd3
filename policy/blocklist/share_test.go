package blocklist

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestShares(t *testing.T) {
	x, _, err := Compile(
		text("a", "both.example\nonly-a.example\n||sub.example^\n||w*.example^\n/^re[0-9]/\n"),
		text("b", "0.0.0.0 both.example\nonly-b.example\nonly-b.example\n||both.example^\n||w*.example^\n"),
		allowText("c", "only-c.example\nboth.example\n"),
	)
	if err != nil {
		t.Fatal(err)
	}
	type shares struct {
		Unique int
		Shared []int
	}
	var got []shares
	for _, l := range x.Lists() {
		got = append(got, shares{l.Unique, l.Shared})
	}
	want := []shares{
		{3, []int{5, 2, 1}}, // only-a, sub and the regular expression
		{1, []int{2, 3, 1}}, // a name counts once, whatever its lines
		{1, []int{1, 1, 2}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRoomOfOneList(t *testing.T) {
	b := NewBuilder(Options{})
	l := text("long", "a.example\nb.example\nc.example\n")
	l.MaxRules = 2
	if _, err := b.Add(l.Source, l.Text); !errors.Is(err, ErrTooLong) {
		t.Errorf("error %v", err)
	}
	l = text("long", "a.example\nb.example\n")
	l.MaxRules = 2
	if _, err := b.Add(l.Source, l.Text); err != nil {
		t.Error(err)
	}
}
