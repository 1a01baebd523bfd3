package ui

import (
	"context"
	"crypto/rand"
	"fmt"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// maxBody bounds what a request may bring.
const maxBody = 64 << 10

// allowedHosts are the names under which the pages may be asked for. A page on
// the internet can make its own name point to 127.0.0.1 (DNS rebinding); its
// requests then carry a foreign Host and end here.
func allowedHosts(more []string) map[string]bool {
	hosts := map[string]bool{"localhost": true, "127.0.0.1": true, "::1": true}
	for _, h := range more {
		hosts[strings.ToLower(strings.Trim(h, "[]"))] = true
	}
	return hosts
}

// hostName is the Host header without port and brackets, lower case; "" when
// it is not a host with at most a port behind it.
func hostName(host string) string {
	if h, port, err := net.SplitHostPort(host); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return ""
		}
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
}

// guard is what every request passes first: it measures, sets the headers
// that fence in a hostile string, refuses foreign hosts and origins, bounds the
// body and turns a panic into a 500.
func (s *Server) guard(next http.Handler, surface string) http.Handler {
	checkHost := surface == "tcp"
	cross := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w := &statusWriter{ResponseWriter: rw}
		defer func() {
			s.metrics.requests.WithLabelValues(surface, w.class()).Inc()
		}()
		defer s.recover(w, r)
		secure(w.Header())
		switch {
		case checkHost && !s.hosts[hostName(r.Host)]:
			s.fail(w, r, &failure{http.StatusMisdirectedRequest, fmt.Sprintf("host %.80q is not one of ours: ask for localhost or 127.0.0.1, or add the name to the settings", r.Host)})
			return
		case r.ContentLength > maxBody:
			s.fail(w, r, &failure{http.StatusRequestEntityTooLarge, fmt.Sprintf("body of %d bytes: at most %d are read", r.ContentLength, maxBody)})
			return
		}
		if err := cross.Check(r); err != nil {
			s.fail(w, r, &failure{http.StatusForbidden, "another site asked for this change: it was refused"})
			return
		}
		if fetchedByOthers(r) {
			s.fail(w, r, &failure{http.StatusForbidden, "another site asked for this: it was refused"})
			return
		}
		if f := checkType(r); f != nil {
			s.fail(w, r, f)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), byKey{}, by(surface, r))))
	})
}

// fetchedByOthers reports whether a script or picture of another site asks. It
// could not read the answer, but it could hold all live feeds open or keep the
// box busy. Following a link from there is a person's wish.
func fetchedByOthers(r *http.Request) bool {
	return r.Header.Get("Sec-Fetch-Site") == "cross-site" && r.Header.Get("Sec-Fetch-Mode") != "navigate"
}

type byKey struct{}

// By says through what a person asked for a change: "page", "api" or "cli"; ""
// outside a request of this room.
func By(ctx context.Context) string {
	by, _ := ctx.Value(byKey{}).(string)
	return by
}

func by(surface string, r *http.Request) string {
	switch {
	case surface == "control":
		return "cli"
	case isAPI(r):
		return "api"
	}
	return "page"
}

// checkType demands JSON for the API and a form for the pages: a browser sends
// application/json to a foreign site only after asking it first.
func checkType(r *http.Request) *failure {
	if r.Method != http.MethodPost {
		return nil
	}
	want := "application/x-www-form-urlencoded"
	if isAPI(r) {
		want = "application/json"
	}
	if got, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || got != want {
		return &failure{http.StatusUnsupportedMediaType, fmt.Sprintf("content type %.80q: %s is needed", r.Header.Get("Content-Type"), want)}
	}
	return nil
}

func isAPI(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/api/") }

// secure sets the headers of every answer. Nothing inline is ever run: no
// script, no style, no frame, no foreign site.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	h.Set("Cache-Control", "no-store")
}

// recover keeps one bad request from ending the daemon. The number ties the
// answer to the log line without showing anything of the inside.
func (s *Server) recover(w *statusWriter, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	id := rand.Text()[:8]
	s.cfg.Logger.Error("page failed", "id", id, "route", r.Pattern, "panic", p)
	if w.status == 0 {
		s.fail(w, r, &failure{http.StatusInternalServerError, "this is a mistake of ours; the log has it under " + id})
	}
}

// statusWriter remembers the status. It unwraps for http.ResponseController.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(code int) {
	if w.status == 0 {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) class() string {
	if w.status == 0 {
		return "2xx"
	}
	return string(rune('0'+w.status/100)) + "xx"
}
