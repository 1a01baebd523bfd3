package ui

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/policy/blocklist"
	"github.com/netcurtain/netcurtain/ui/api"
)

func (s *Server) getWhy(r *http.Request) (any, error) {
	q := r.URL.Query()
	return s.why(q.Get("name"), q.Get("device"), q.Get("type"), q.Get("answer"))
}

// why explains the look-up of a name by a device, or by one that nobody knows.
func (s *Server) why(text, device, qtype, answer string) (why api.Why, err error) {
	q := policy.Query{Layer: policy.LayerDNS, Now: s.cfg.Now(), Type: 1}
	if q.Name, err = ruleName(text); err != nil {
		return why, err
	}
	if qtype != "" {
		var ok bool
		if q.Type, ok = blocklist.ParseType(strings.ToUpper(qtype)); !ok {
			return why, badRequest("type %.20q: a DNS type such as AAAA is needed", qtype)
		}
	}
	if answer != "" {
		if q.Addr, err = netip.ParseAddr(answer); err != nil {
			return why, badRequest("answer %.60q: an address such as 192.0.2.1 is needed", answer)
		}
		q.Layer, q.Asked = policy.LayerAnswer, q.Name
	}
	called := ""
	if device != "" {
		d, err := s.find(device)
		if err != nil {
			return why, err
		}
		q.Device, q.Kind, q.Mode, q.ClientName = d.ID, d.Kind, d.Mode, d.Name
		if len(d.MACs) > 0 {
			q.ClientMAC = d.MACs[0]
		}
		if len(d.Addrs) > 0 {
			q.ClientAddr = d.Addrs[0]
		}
		called = cmp.Or(d.Name, string(d.ID))
	}
	why = api.Why{Name: string(q.Name), Device: string(q.Device), Type: typeName(q.Type), Verdict: policy.Undecided.String(), Steps: []api.Step{}, Changes: []api.Change{}}
	var winner policy.Step
	for _, st := range s.cfg.House.Explain(q) {
		if st.State == policy.StepDecides {
			winner = st
		}
		why.Steps = append(why.Steps, api.Step{
			State: st.State.String(), Means: stepWord(st.State), Action: actionOf(st.Verdict).String(), Reason: st.Reason.String(),
			Rule: st.Rule, List: st.List, Device: string(st.Device),
		})
	}
	v := winner.Verdict
	why.Verdict, why.Noted, why.Reason, why.Rule, why.List = v.Action.String(), v.Noted, v.Reason.String(), v.Rule, v.List
	why.Changes = changes(q.Name, called, winner)
	return why, nil
}

// actionOf is what a rule says, whether or not the device is only watched.
func actionOf(v policy.Verdict) policy.Action {
	if v.Noted {
		return policy.Block
	}
	return v.Action
}

// stepWord is what became of a rule, in words.
func stepWord(s policy.StepState) string {
	switch s {
	case policy.StepDecides:
		return "decides"
	case policy.StepBeaten:
		return "says so too, and one before it decides"
	case policy.StepEnded:
		return "has come to its end"
	case policy.StepOthers:
		return "is for other devices"
	case policy.StepUnused:
		return "is on a list that is disabled"
	case policy.StepCancelled:
		return "does nothing: another rule cancels it, or it only cancels others"
	case policy.StepUnobeyed:
		return "does nothing: this list may not answer with other addresses"
	case policy.StepPath:
		return "is about one path, for requests that can be read"
	case policy.StepNotAsked:
		return "is about what was asked for, not about what that led to"
	}
	return ""
}

// changes are the commands that would change a verdict, the gentlest first.
func changes(name dnsname.Name, device string, winner policy.Step) []api.Change {
	whom, flag := "the whole house", ""
	if device != "" {
		whom, flag = device, " --device "+ShellQuote(device)
	}
	allow := api.Change{Means: fmt.Sprintf("allow it for %s", whom), Command: "netcurtain allow " + string(name) + flag}
	v := winner.Verdict
	blocked := actionOf(v) == policy.Block || v.Action == policy.Rewrite
	switch {
	case v.Reason == policy.ReasonSwitchedOff:
		return []api.Change{{Means: "switch Netcurtain on", Command: "netcurtain on"}}
	case v.Reason == policy.ReasonMode && device != "":
		return []api.Change{{Means: "treat this device in another way", Command: "netcurtain mode " + ShellQuote(device) + " protect"}}
	case v.Reason == policy.ReasonRebinding:
		return []api.Change{{Means: "if this name may have addresses of the house, say so in the settings, section dns", Command: "list rebinding_exempt '" + string(name) + "'"}}
	case v.List == policy.ListHousehold && v.Reason != policy.ReasonNone:
		whose := ""
		if winner.Device != "" {
			whose = flag
		}
		return []api.Change{{Means: "take your rule back", Command: "netcurtain " + actionOf(v).String() + " " + v.Rule + whose + " --undo"}}
	case blocked && (v.Reason == policy.ReasonList || v.Reason == policy.ReasonCloaking):
		quarter := allow
		quarter.Means, quarter.Command = allow.Means+", for a quarter of an hour", allow.Command+" --for 15m"
		return []api.Change{quarter, allow, {Means: fmt.Sprintf("use the list “%s” no more", show(v.List)), Command: "netcurtain lists disable " + ShellQuote(v.List)}}
	case blocked:
		return []api.Change{allow}
	}
	return []api.Change{{Means: fmt.Sprintf("block it for %s", whom), Command: "netcurtain block " + string(name) + flag}}
}

// ShellQuote makes a word fit for a shell that is to be shown: device and list names are anybody's.
func ShellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.:/", r)
	}
	if s != "" && s[0] != '-' && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(show(s), "'", `'\''`) + "'"
}

type whyView struct {
	Asked, Device, Type string
	Devices             []api.Device
	Names               map[string]string
	Why                 *api.Why
	Wrong               string
}

func (s *Server) whyPage(r *http.Request) (view, error) {
	q := r.URL.Query()
	v := whyView{Asked: q.Get("name"), Device: q.Get("device"), Type: q.Get("type")}
	v.Devices, v.Names = s.deviceNames()
	if v.Asked != "" {
		why, err := s.why(v.Asked, v.Device, v.Type, "")
		var f *failure
		switch {
		case errors.As(err, &f):
			v.Wrong = f.text
		case err != nil:
			return view{}, err
		default:
			v.Why, v.Device = &why, why.Device // asked by name, shown as what it is
		}
	}
	return view{Title: "Why", Here: "lists", Page: v}, nil
}
