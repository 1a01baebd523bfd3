package ui

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"unicode"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/ui/api"
)

func (s *Server) postMode(r *http.Request) (any, error) {
	var body api.SetMode
	if err := read(r, &body); err != nil {
		return nil, err
	}
	return s.setMode(r, body.Mode)
}

func (s *Server) setMode(r *http.Request, text string) (any, error) {
	mode, err := devices.ParseMode(text)
	if err != nil {
		return nil, badRequest("%s", err)
	}
	var done api.ModeSet
	_, err = s.change(r, func(d devices.ID) (err error) {
		done.Ended, err = s.cfg.House.SetMode(r.Context(), d, mode)
		return err
	})
	done.OK, done.Note = true, endedWords(mode, done.Ended)
	return done, err
}

func (s *Server) postLog(r *http.Request) (any, error) {
	var body api.SetLog
	if err := read(r, &body); err != nil {
		return nil, err
	}
	return s.setLog(r, body.Level)
}

func (s *Server) setLog(r *http.Request, text string) (any, error) {
	level, err := devices.ParseLogLevel(text)
	if err != nil {
		return nil, badRequest("%s", err)
	}
	return s.change(r, func(d devices.ID) error { return s.cfg.House.SetLog(r.Context(), d, level) })
}

func (s *Server) postCarry(r *http.Request) (any, error) { return s.turn(r, s.cfg.House.SetCarry) }

func (s *Server) postStrip(r *http.Request) (any, error) { return s.turn(r, s.cfg.House.SetStrip) }

// turn switches something of one device on or off.
func (s *Server) turn(r *http.Request, set func(context.Context, devices.ID, bool) error) (any, error) {
	var body api.Switch
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if body.On == nil {
		return nil, badRequest(`{"on":true} or {"on":false} is needed`)
	}
	return s.change(r, func(d devices.ID) error { return set(r.Context(), d, *body.On) })
}

func (s *Server) postKind(r *http.Request) (any, error) {
	var body api.SetKind
	if err := read(r, &body); err != nil {
		return nil, err
	}
	return s.setKind(r, body.Kind)
}

func (s *Server) setKind(r *http.Request, text string) (any, error) {
	kind, err := devices.ParseKind(text)
	if err != nil {
		return nil, badRequest("%s", err)
	}
	return s.change(r, func(d devices.ID) error { return s.cfg.House.SetKind(r.Context(), d, kind) })
}

func (s *Server) postName(r *http.Request) (any, error) {
	var body api.SetName
	if err := read(r, &body); err != nil {
		return nil, err
	}
	return s.setName(r, body.Name)
}

// maxName bounds what a household calls a device, in characters.
const maxName = 60

func (s *Server) setName(r *http.Request, name string) (any, error) {
	name = strings.TrimSpace(name)
	if n := len([]rune(name)); n > maxName {
		return nil, badRequest("name of %d characters: at most %d are kept", n, maxName)
	}
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return nil, badRequest("name %.80q: only letters, digits, signs and spaces are kept", name)
	}
	return s.change(r, func(d devices.ID) error { return s.cfg.House.SetName(r.Context(), d, name) })
}

// change does something to the device that the path names.
func (s *Server) change(r *http.Request, do func(devices.ID) error) (any, error) {
	d, err := s.find(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	if err := do(d.ID); err != nil {
		return nil, fmt.Errorf("change %.80q: %w", d.ID, err)
	}
	return api.Done{OK: true}, nil
}

func (s *Server) postErase(r *http.Request) (any, error) {
	var body api.Erase
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if body.All == (body.Device != "") {
		return nil, badRequest(`either {"device":"…"} or {"all":true} is needed`)
	}
	var id devices.ID
	if !body.All {
		d, err := s.find(body.Device)
		if err != nil {
			return nil, err
		}
		id = d.ID
	}
	rows, err := s.cfg.House.Erase(r.Context(), id)
	if err != nil {
		return nil, fmt.Errorf("erase: %w", err)
	}
	return api.Erased{Rows: rows}, nil
}

func (s *Server) postForget(r *http.Request) (any, error) {
	var body struct{}
	if err := read(r, &body); err != nil {
		return nil, err
	}
	return s.forget(r)
}

func (s *Server) forget(r *http.Request) (any, error) {
	d, err := s.find(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	rows, err := s.cfg.House.Forget(r.Context(), d.ID)
	if err != nil {
		return nil, fmt.Errorf("forget %.80q: %w", d.ID, err)
	}
	return api.Erased{Rows: rows}, nil
}

func (s *Server) postSwitch(r *http.Request) (any, error) {
	var body api.Switch
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if body.On == nil {
		return nil, badRequest(`{"on":true} or {"on":false} is needed`)
	}
	if err := s.cfg.House.Switch(r.Context(), *body.On); err != nil {
		return nil, fmt.Errorf("switch: %w", err)
	}
	return api.Done{OK: true}, nil
}

func (s *Server) postDismiss(r *http.Request) (any, error) {
	var body api.Dismiss
	if err := read(r, &body); err != nil {
		return nil, err
	}
	if err := s.dismiss(r.Context(), body.What); err != nil {
		return nil, err
	}
	return api.Done{OK: true}, nil
}

// dismiss drops a proposal, one that is there.
func (s *Server) dismiss(ctx context.Context, what string) error {
	for _, l := range s.cfg.Health(ctx).Lines {
		if what != "" && l.Dismiss == what {
			return s.cfg.House.Dismiss(ctx, what)
		}
	}
	return badRequest("there is no proposal %.60q: status shows those that there are", what)
}
