package lists

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/netcurtain/netcurtain/policy/blocklist"
)

// governed is a source as there is room for it.
type governed struct {
	Source      // of a stand-in: with its address
	off    bool // there is no room for it
	most   int  // rules it may have; 0 is no bound
}

// govern chooses what of the sources there is room for, and how many rules there are
// in all. It chooses anew when what was chosen does not fit any more, and takes a
// list up again only when there is a good deal of room, so that lists do not come
// and go with the memory of other programs.
func (l *Lists) govern(sources []Source) (out []governed, most int) {
	room := l.cfg.Room()
	most = room.rules()
	all := make([]wanted, len(sources))
	for i, s := range sources {
		all[i] = wanted{rules: l.rulesOf(s), fixed: s.Text != nil, disabled: s.Disabled}
		for _, sm := range s.Smaller {
			all[i].smaller = append(all[i].smaller, l.rulesOf(s.instead(sm)))
		}
	}
	choice, sum := fit(all, most)
	if before, ok := l.before(sources); ok {
		if now := sumOf(all, before); now <= most || now <= l.inForce() && l.refused < patience {
			choice, sum = before, now
			if up, more := fit(all, most-most/5); more > now {
				choice, sum = up, more
			}
		}
	}
	l.chosen = map[string]string{}
	var said []string // what does not fit, in words
	for i, s := range sources {
		g := governed{Source: s, off: choice[i] == off}
		why, using := "", ""
		switch c := choice[i]; {
		case c == off && s.Disabled:
			why = "it is not kept while nobody uses it: this box has too little room"
		case c == off:
			why = "it is off: " + l.tooLarge(s, all[i].rules, most)
		case c >= 0:
			using = s.Smaller[c].Name
			why = using + " stands in for it: " + l.tooLarge(s, all[i].rules, most)
			g.Source = s.instead(s.Smaller[c])
		}
		if room != nil && !g.off && s.Text == nil {
			g.most = max(most-(sum-sizeOf(all[i], choice[i])), 1)
		}
		l.setStatus(s.Name, func(st *Status) { st.Unfit, st.Using = why, using })
		if why != "" {
			said = append(said, s.Name+": "+why)
		}
		l.chosen[s.Name] = chosenOf(s, choice[i])
		out = append(out, g)
	}
	if now := fmt.Sprint(l.chosen); now != l.said { // maps print in order
		if l.said = now; len(said) > 0 {
			l.log.Warn("this box has not enough room for all lists", "lists", strings.Join(said, "; "))
		}
	}
	return out, most
}

// tooLarge says plainly why there is no room for a list.
func (l *Lists) tooLarge(s Source, rules, most int) string {
	has := fmt.Sprintf("about %d", rules)
	if l.grown[s.origin()] > 0 {
		has = "more" // where reading it was given up
	}
	return fmt.Sprintf("this box has room for about %d rules in all, and this list has %s", most, has)
}

// chooseAsIn takes for chosen what an index holds, so that what is in force when we
// start is as good as what was chosen by this process.
func (l *Lists) chooseAsIn(index *blocklist.Index) {
	has := map[string]string{}
	for _, info := range index.Lists() {
		var m meta
		if json.Unmarshal([]byte(info.Meta), &m) == nil && info.Rules > 0 {
			has[info.Name] = m.Origin
		}
	}
	l.chosen = map[string]string{}
	for _, s := range l.sources {
		l.chosen[s.Name] = s.origin()
		for _, sm := range s.Smaller {
			if origin := s.instead(sm).origin(); has[s.Name] == origin {
				l.chosen[s.Name] = origin
			}
		}
	}
}

// patience is how often an index is not made for want of memory before the lists
// that are in force are doubted.
const patience = 3

// instead is s with the address of what stands in for it.
func (s Source) instead(sm Smaller) Source {
	s.URL, s.Rules = sm.URL, sm.Rules
	return s
}

// rulesOf is how many rules s has, as far as is known: as it was last had, as it was
// when there was no room for it, as its maker says.
func (l *Lists) rulesOf(s Source) int {
	if n := l.grown[s.origin()]; n > 0 {
		return n
	}
	if l.index != nil {
		for _, info := range l.index.Lists() {
			var m meta
			if info.Name == s.Name && json.Unmarshal([]byte(info.Meta), &m) == nil && m.Origin == s.origin() {
				return info.Rules
			}
		}
	}
	switch {
	case s.Text != nil:
		return bytes.Count(s.Text, []byte{'\n'})
	case s.Disabled:
		return 0 // not had: it takes no room
	}
	return s.Rules
}

// chosenOf names a choice, so that it is known again when the sources change.
func chosenOf(s Source, choice int) string {
	switch choice {
	case itself:
		return s.origin()
	case off:
		return "off " + s.origin()
	}
	return s.instead(s.Smaller[choice]).origin()
}

// before is what was chosen the last time; ok is false when the lists are others.
func (l *Lists) before(sources []Source) (choice []int, ok bool) {
	if len(l.chosen) != len(sources) {
		return nil, false
	}
	for _, s := range sources {
		found := false
		for c := off; c < len(s.Smaller) && !found; c++ {
			if l.chosen[s.Name] == chosenOf(s, c) {
				choice, found = append(choice, c), true
			}
		}
		if !found {
			return nil, false
		}
	}
	return choice, true
}

// inForce is how many rules the index in force has.
func (l *Lists) inForce() (n int) {
	if l.index == nil {
		return 0
	}
	for _, info := range l.index.Lists() {
		n += info.Rules
	}
	return n
}

func sumOf(all []wanted, choice []int) (sum int) {
	for i := range all {
		sum += sizeOf(all[i], choice[i])
	}
	return sum
}

func sizeOf(w wanted, choice int) int {
	switch choice {
	case itself:
		return w.rules
	case off:
		return 0
	}
	return w.smaller[choice]
}

// errGrown says that a list has more rules than there is room for, and nothing of it
// was there before: the governor chooses again, by what is known now.
var errGrown = errors.New("it has more rules than this box has room for")

// grew notes a list for which there was no room, so that the next pass knows.
func (u *update) grew(i int, s governed) error {
	u.grown[s.origin()], u.chosen, u.again = u.most+1, nil, true
	u.mu.Lock()
	delete(u.plans, s.Name) // what stands in for it is due at once
	u.mu.Unlock()
	return u.keep(i)
}

var errNoRoom = errors.New("too little memory is free to make the list index anew")

// roomNow makes sure that compiling has the memory that it takes.
func (u *update) roomNow() error {
	room := u.cfg.Room()
	if room == nil {
		return nil
	}
	need := 0
	for _, s := range u.sources {
		if !s.off && s.Text == nil {
			need += u.rulesOf(s.Source)
		}
	}
	if have := room.rules(); need > have {
		u.refused++
		return fmt.Errorf("%w: room for %d rules, %d are wanted; the old one stays", errNoRoom, have, need)
	}
	u.refused = 0
	return nil
}
