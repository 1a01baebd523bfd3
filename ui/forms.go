package ui

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/ui/api"
)

// form turns a function that changes something into a handler that sends the
// browser on: to says where, with what the page shall say there.
func (s *Server) form(do func(*http.Request) (to, did string, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			s.fail(w, r, badRequest("form: %s", err))
			return
		}
		to, did, err := do(r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		http.Redirect(w, r, to+"?did="+did, http.StatusSeeOther)
	}
}

// here is the page of the device that a form's path names.
func here(r *http.Request) string { return "/devices/" + url.PathEscape(r.PathValue("id")) }

func (s *Server) formMode(r *http.Request) (string, string, error) {
	mode := r.PostForm.Get("mode")
	done, err := s.setMode(r, mode)
	if d, ok := done.(api.ModeSet); ok && d.Note != "" {
		return here(r), fmt.Sprintf("%s-%d", mode, d.Ended), err
	}
	return here(r), "mode", err
}

// formLog asks for the owner's word before a person's device is logged by name.
func (s *Server) formLog(r *http.Request) (string, string, error) {
	level := r.PostForm.Get("level")
	d, err := s.find(r.PathValue("id"))
	if err != nil {
		return "", "", err
	}
	if level == devices.LogNames.String() && !d.Kind.Smart() && r.PostForm.Get("owner") != "agrees" {
		return "", "", badRequest("this is a person’s device: only its owner may switch on its log by name. Tick the box when its owner agrees")
	}
	_, err = s.setLog(r, level)
	return here(r), "log", err
}

func (s *Server) formCarry(r *http.Request) (string, string, error) {
	return s.formTurn(r, "carry", s.cfg.House.SetCarry)
}

func (s *Server) formStrip(r *http.Request) (string, string, error) {
	return s.formTurn(r, "strip", s.cfg.House.SetStrip)
}

func (s *Server) formTurn(r *http.Request, what string, set func(context.Context, devices.ID, bool) error) (string, string, error) {
	to := r.PostForm.Get("to")
	if to != "on" && to != "off" {
		return "", "", badRequest("%s %.20q: on or off is needed", what, to)
	}
	_, err := s.change(r, func(d devices.ID) error { return set(r.Context(), d, to == "on") })
	return here(r), what + "-" + to, err
}

func (s *Server) formKind(r *http.Request) (string, string, error) {
	_, err := s.setKind(r, r.PostForm.Get("kind"))
	return here(r), "kind", err
}

func (s *Server) formName(r *http.Request) (string, string, error) {
	_, err := s.setName(r, r.PostForm.Get("name"))
	return here(r), "name", err
}

func (s *Server) formDeviceRule(r *http.Request) (string, string, error) {
	rule := api.NewRule{Name: r.PostForm.Get("name"), Action: r.PostForm.Get("action"), Device: r.PathValue("id"), For: r.PostForm.Get("for")}
	if _, err := s.addRule(r.Context(), rule); err != nil {
		return "", "", err
	}
	switch {
	case rule.Action == "block":
		return here(r), "blocked", nil
	case rule.For == "15m":
		return here(r), "allowed", nil
	}
	return here(r), "rule", nil
}

func (s *Server) formRule(r *http.Request) (string, string, error) {
	f := r.PostForm
	_, err := s.addRule(r.Context(), api.NewRule{Name: f.Get("name"), Action: f.Get("action"), Device: f.Get("device"), For: f.Get("for")})
	return "/rules", "rule", err
}

func (s *Server) formRemoveRule(r *http.Request) (string, string, error) {
	_, err := s.deleteRule(r)
	return "/rules", "removed", err
}

func sure(r *http.Request) error {
	if r.PostForm.Get("sure") != "yes" {
		return badRequest("nothing was erased: tick the box that says you are sure")
	}
	return nil
}

func (s *Server) formEraseDevice(r *http.Request) (string, string, error) {
	d, err := s.find(r.PathValue("id"))
	if err == nil {
		err = sure(r)
	}
	if err == nil {
		_, err = s.cfg.House.Erase(r.Context(), d.ID)
	}
	return here(r), "erased", err
}

func (s *Server) formForget(r *http.Request) (string, string, error) {
	err := sure(r)
	if err == nil {
		_, err = s.forget(r)
	}
	return "/", "forgotten", err
}

func (s *Server) formEraseAll(r *http.Request) (string, string, error) {
	err := sure(r)
	if err == nil {
		_, err = s.cfg.House.Erase(r.Context(), "")
	}
	return "/about", "erased", err
}

func (s *Server) formDismiss(r *http.Request) (string, string, error) {
	return "/health", "dismissed", s.dismiss(r.Context(), r.PostForm.Get("what"))
}

func (s *Server) formSwitch(r *http.Request) (string, string, error) {
	to := r.PostForm.Get("to")
	if to != "on" && to != "off" {
		return "", "", badRequest("switch %.20q: on or off is needed", to)
	}
	return "/", to, s.cfg.House.Switch(r.Context(), to == "on")
}
