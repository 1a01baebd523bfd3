package ui

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"

	"github.com/netcurtain/netcurtain/ui/api"
)

// route is one line of the table of what is served.
type route struct {
	method, pattern string
	handle          http.HandlerFunc
}

// mux serves routes, and answers what is not among them in the tongue of the asker.
func (s *Server) mux(routes []route) http.Handler {
	mux := http.NewServeMux()
	methods := map[string]bool{}
	for _, r := range routes {
		mux.HandleFunc(r.method+" "+r.pattern, r.handle)
		methods[r.method] = true
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		var allowed []string
		for m := range methods {
			other := r.Clone(r.Context())
			other.Method = m
			if _, p := mux.Handler(other); p != "/" {
				allowed = append(allowed, m)
			}
		}
		if len(allowed) == 0 {
			s.fail(w, r, &failure{http.StatusNotFound, "there is no such page"})
			return
		}
		slices.Sort(allowed)
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		s.fail(w, r, &failure{http.StatusMethodNotAllowed, fmt.Sprintf("method %.10q is not for this: use %s", r.Method, strings.Join(allowed, " or "))})
	})
	return mux
}

// answer turns a function that returns a value into a handler that writes it as JSON.
func (s *Server) answer(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		status := http.StatusOK
		switch v.(type) {
		case api.Rule, api.List: // made just now
			status = http.StatusCreated
		}
		writeJSON(w, status, v)
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the reader has gone: nobody to tell
}

// failure is an answer with a 4xx or 5xx: what is wrong and what to do.
type failure struct {
	status int
	text   string
}

func (f *failure) Error() string { return f.text }

// asFailure finds the status that an error deserves.
func asFailure(err error) *failure {
	var f *failure
	var big *http.MaxBytesError
	var wrong Mistake
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &wrong):
		return &failure{http.StatusBadRequest, wrong.Text}
	case errors.As(err, &big):
		return &failure{http.StatusRequestEntityTooLarge, fmt.Sprintf("body: at most %d bytes are read", big.Limit)}
	case errors.Is(err, fs.ErrNotExist):
		return &failure{http.StatusNotFound, err.Error()}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &failure{http.StatusServiceUnavailable, "the answer took too long: ask for a shorter span"}
	}
	return &failure{http.StatusInternalServerError, err.Error()}
}

func badRequest(format string, args ...any) error {
	return &failure{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// fail answers with err: JSON for the API, a page for a person.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	f := asFailure(err)
	if f.status >= 500 && r.Context().Err() == nil {
		s.cfg.Logger.Warn("request failed", "route", r.Pattern, "status", f.status, "err", err)
	}
	if isAPI(r) || f.status == http.StatusMisdirectedRequest || s.pages == nil || r.URL.Path == "/healthz" {
		writeJSON(w, f.status, api.Error{Error: f.text})
		return
	}
	s.failPage(w, r, f)
}

// read decodes a JSON body strictly: one value, no unknown field.
func read(r *http.Request, v any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("more than one JSON value")
		}
	}
	var big *http.MaxBytesError
	if err != nil && !errors.As(err, &big) {
		return badRequest("body: %.200s; one JSON object is needed", err)
	}
	return err
}
