package policy

import (
	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy/blocklist"
)

// Step is one rule that has to do with a question.
type Step struct {
	Verdict              // what is decided where this rule decides
	Name    dnsname.Name // the name that it is about: what was asked for, or what an answer led to
	Device  devices.ID   // whom a household's rule is for; "" is the whole house
	State   StepState
}

// StepState is what becomes of a rule.
type StepState uint8

const (
	StepDecides   StepState = iota + 1 // the verdict is this rule's
	StepBeaten                         // it covers the question, and one before it decides
	StepEnded                          // its time is over
	StepOthers                         // it is for other devices
	StepUnused                         // nobody uses its list
	StepCancelled                      // another rule of its lists takes it away, or it only takes others away
	StepUnobeyed                       // its answer is not given: nobody here obeys it
	StepPath                           // it is about one path of the name, and that is not asked for
	StepNotAsked                       // it is about the name that was asked for, and does not settle what stands behind it
)

// String is the word that JSON uses.
func (s StepState) String() string {
	switch s {
	case StepDecides:
		return "decides"
	case StepBeaten:
		return "beaten"
	case StepEnded:
		return "ended"
	case StepOthers:
		return "others"
	case StepUnused:
		return "unused"
	case StepCancelled:
		return "cancelled"
	case StepUnobeyed:
		return "unobeyed"
	case StepPath:
		return "path"
	case StepNotAsked:
		return "not-asked"
	}
	return ""
}

// Explain gives every rule that covers q, in the order in which Decide asks them,
// and what becomes of each. The one that decides, if any does, has Decide's verdict.
// It allocates, and is for people who ask why.
func (s *Set) Explain(q Query) []Step {
	if s == nil {
		return nil
	}
	if q.Mode == devices.ModeUnset {
		q.Mode = devices.ModeProtect
	}
	e := explanation{Set: s, q: &q}
	e.judge()
	e.settle()
	return e.steps
}

// explanation collects steps. One without a state takes part.
type explanation struct {
	*Set
	q     *Query
	steps []Step
}

func (e *explanation) add(steps ...Step) { e.steps = append(e.steps, steps...) }

// judge follows Decide and Set.judge, and goes on where those would stop.
func (e *explanation) judge() {
	q := e.q
	if e.off {
		e.add(Step{Verdict: Verdict{Action: Allow, Reason: ReasonSwitchedOff, Rule: "off", List: ListHousehold}, Name: q.Name})
	}
	if q.Mode == devices.ModeOff {
		e.add(Step{Verdict: Verdict{Action: Allow, Reason: ReasonMode, Rule: "off", List: ListMode}, Name: q.Name})
	}
	if q.Mode == devices.ModeLocal && !e.staysInside(q) {
		e.add(Step{Verdict: Verdict{Action: Block, Reason: ReasonMode, Rule: "local", List: ListMode}, Name: q.Name})
	}
	if behindAnotherName(q) {
		e.add(e.asked()...)
	}
	rules, lists := e.rulesOn(q.Name), e.listsOn(q.Name)
	e.add(rules...)
	if v, ok := e.ofHello(q); ok {
		e.add(Step{Verdict: v, Name: q.Name})
	}
	e.add(e.doorsOn(q.Name)...)
	// A list's block comes before what is said of addresses, its exception behind.
	blocks := false
	if i := first(lists); i >= 0 {
		blocks = lists[i].Action == Block
	}
	if blocks {
		e.add(lists...)
	}
	if d, ok := e.doorOf(q); ok {
		e.add(Step{Verdict: Verdict{Action: Block, Reason: ReasonSideDoor, Rule: d.rule, List: ListSideDoors}, Name: d.name})
	}
	if q.Layer == LayerAnswer && e.rebinds(q) {
		e.add(Step{Verdict: Verdict{Action: Block, Reason: ReasonRebinding, Rule: rebindingRule(q.Addr), List: ListRebinding}, Name: q.Name})
	}
	if !blocks {
		e.add(lists...)
	}
}

// asked is what is said of the name that was asked for, when the question is about
// what stands behind it: only what vouches for that counts.
func (e *explanation) asked() []Step {
	steps := append(e.rulesOn(e.q.Asked), e.doorsOn(e.q.Asked)...)
	steps = append(steps, e.listsOn(e.q.Asked)...)
	if i := first(steps); i >= 0 && vouches(e.q, steps[i].Verdict) {
		return steps
	}
	for i := range steps {
		if steps[i].State == 0 {
			steps[i].State = StepNotAsked
		}
	}
	return steps
}

// first is the first step that takes part; -1 when none does.
func first(steps []Step) int {
	for i := range steps {
		if steps[i].State == 0 {
			return i
		}
	}
	return -1
}

// settle lets the first step that takes part decide.
func (e *explanation) settle() {
	winner := first(e.steps)
	for i := range e.steps {
		st := &e.steps[i]
		st.Verdict = obeyed(e.q, st.Verdict)
		switch {
		case i == winner:
			st.State = StepDecides
		case st.State == 0:
			st.State = StepBeaten
		}
	}
}

// rulesOn are the household's rules on name, in the order of byRule.
func (e *explanation) rulesOn(name dnsname.Name) (steps []Step) {
	for _, own := range []bool{true, false} {
		for n := name; n != ""; n = n.Parent() {
			for i := range e.rules[n] {
				r := &e.rules[n][i]
				if own != (r.Device != "") {
					continue
				}
				st := Step{Verdict: r.verdict(), Name: name, Device: r.Device, State: r.state(e.q)}
				if name == e.q.Name {
					st.Verdict = cloaked(e.q, st.Verdict)
				}
				steps = append(steps, st)
			}
		}
	}
	return steps
}

// state is why r does not cover q; 0 when it does.
func (r *Rule) state(q *Query) StepState {
	switch {
	case r.covers(q):
		return 0
	case r.Device != "" && r.Device != q.Device:
		return StepOthers
	case !r.Until.IsZero() && !q.Now.Before(r.Until):
		return StepEnded
	}
	return StepPath
}

func (e *explanation) doorsOn(name dnsname.Name) []Step {
	door, ok := e.doors.of(name)
	if !ok {
		return nil
	}
	st := Step{Verdict: Verdict{Action: Block, Reason: ReasonSideDoor, Rule: string(door), List: ListSideDoors}, Name: name}
	if !e.closesDoors(e.q) {
		st.State = StepOthers
	}
	return []Step{st}
}

// listsOn are the rules of all lists on name, in the order of the index.
func (e *explanation) listsOn(name dnsname.Name) (steps []Step) {
	if e.index == nil || name == "" || blocklist.OfOwnMachine(name) {
		return nil
	}
	ask, mask := e.askOf(e.q, name), e.lists.mask(e.q.Device)
	silenced := false // by a rule whose answer is not given: then no list says anything
	for _, f := range e.index.Every(&ask, mask) {
		st := Step{Verdict: e.ofMatch(e.q, &f.Match, &ask, mask), Name: name}
		if st.Action == Undecided {
			st.Verdict = Verdict{Reason: ReasonList, Rule: e.index.Rule(f.Match), List: e.index.Lists()[f.List].Name}
		}
		switch {
		case !f.Used:
			st.State = e.whyUnused(f.List)
		case f.Cancelled && (f.Kind == blocklist.KindRewrite || f.Kind == blocklist.KindHosts) && e.rewriters>>f.List&1 == 0:
			st.State = StepUnobeyed
		case f.Cancelled:
			st.State = StepCancelled
		case st.Action == Undecided:
			st.State, silenced = StepUnobeyed, silenced || first(steps) < 0
		case silenced:
			st.State = StepBeaten
		}
		if st.State != 0 {
			st.Rewrite = nil // it answers nothing
		}
		if name == e.q.Name {
			st.Verdict = cloaked(e.q, st.Verdict)
		}
		steps = append(steps, st)
	}
	return steps
}

// whyUnused says whether other devices use a list or nobody does.
func (e *explanation) whyUnused(list int) StepState {
	for _, mask := range e.lists.Devices {
		if mask>>list&1 != 0 {
			return StepOthers
		}
	}
	return StepUnused
}
