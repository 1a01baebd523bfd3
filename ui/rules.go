package ui

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
	"github.com/netcurtain/netcurtain/ui/api"
)

func (s *Server) getRules(r *http.Request) (any, error) {
	list, err := s.rules(r.Context())
	return api.Rules{Rules: list}, err
}

func (s *Server) rules(ctx context.Context) ([]api.Rule, error) {
	rows, err := s.cfg.House.Rules(ctx)
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	list := []api.Rule{}
	for _, row := range rows {
		list = append(list, toRule(row))
	}
	return list, nil
}

func (s *Server) postRule(r *http.Request) (any, error) {
	var body api.NewRule
	if err := read(r, &body); err != nil {
		return nil, err
	}
	return s.addRule(r.Context(), body)
}

// addRule checks a wish and makes it a rule.
func (s *Server) addRule(ctx context.Context, n api.NewRule) (api.Rule, error) {
	rule := policy.Rule{Created: s.cfg.Now(), By: By(ctx)}
	switch n.Action {
	case "allow":
		rule.Action = policy.Allow
	case "block":
		rule.Action = policy.Block
	default:
		return api.Rule{}, badRequest("action %.20q: allow or block is needed", n.Action)
	}
	var err error
	if rule.Name, rule.Path, err = ruleTarget(n.Name); err != nil {
		return api.Rule{}, err
	}
	if n.For != "" {
		span, err := parseSpan(n.For)
		if err != nil {
			return api.Rule{}, badRequest("for %.20q: %s", n.For, err)
		}
		rule.Until = rule.Created.Add(span)
	}
	if n.Device != "" {
		d, err := s.find(n.Device)
		if err != nil {
			return api.Rule{}, err
		}
		rule.Device = d.ID
	}
	if rule, err = s.cfg.House.AddRule(ctx, rule); err != nil {
		return api.Rule{}, fmt.Errorf("keep rule: %w", err)
	}
	return toRule(rule), nil
}

// ruleTarget reads what a rule speaks of: ads.example.com, or ads.example.com/collect.
func ruleTarget(text string) (name dnsname.Name, path string, err error) {
	text = strings.TrimSpace(text)
	if i := strings.IndexByte(text, '/'); i > 0 && text[i-1] != ':' { // https:// is an address of a page
		if path, err = policy.ParsePath(text[i:]); err != nil {
			return "", "", badRequest("%s", err)
		}
		text = text[:i]
	}
	name, err = ruleName(text)
	return name, path, err
}

func ruleName(text string) (dnsname.Name, error) {
	text = strings.TrimSpace(text)
	if _, err := netip.ParseAddr(text); err == nil {
		return "", badRequest("name %.80q is an address: rules speak of names such as ads.example.com", text)
	}
	name, err := dnsname.Parse(text)
	if err != nil {
		return "", badRequest("%s", err)
	}
	if name == "" {
		return "", badRequest("name is empty: a name such as ads.example.com is needed")
	}
	if below, ok := strings.CutPrefix(text, "*."); ok {
		return "", badRequest("name %.80q: say %.80q; everything below a name is meant too", text, below)
	}
	if i := strings.IndexFunc(string(name), notInNames); i >= 0 {
		return "", badRequest("name %.80q: %q is not part of a name: one such as ads.example.com is needed, no address of a page", text, name[i])
	}
	return name, nil
}

// notInNames reports what no name that a household may mean has in it: a rule
// for "https://ads.example.com/" would be kept, and never match.
func notInNames(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
}

func (s *Server) deleteRule(r *http.Request) (any, error) {
	id, err := number(r.PathValue("id"), "rule")
	if err != nil {
		return nil, err
	}
	if err := s.cfg.House.RemoveRule(r.Context(), id); err != nil {
		return nil, fmt.Errorf("remove rule %d: %w", id, err)
	}
	return api.Done{OK: true}, nil
}
