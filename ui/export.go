package ui

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/ui/api"
)

// An export streams all rows that a filter lets through, newest first, a page of
// the ledger at a time: however many there are, one page is in memory.
const (
	exportPage = 500
	maxExports = 2 // at a time
)

// The rows of an export: those of the API, and what the device is called.
type (
	exportedFlow struct {
		api.Flow
		DeviceName string `json:"device_name"`
	}
	exportedLookup struct {
		api.Lookup
		DeviceName string `json:"device_name"`
		qtype      uint16
		rcode      int
	}
	exportedEvent struct {
		api.Event
		DeviceName string `json:"device_name"`
	}
)

// source reads one page of what is exported.
type source[T any] struct {
	name string // of the file
	read func(context.Context, journal.Filter) ([]T, error)
	id   func(T) int64
	log  *zeekLog[T] // as Zeek writes it; nil: Zeek has no such log
}

func (s *Server) flowSource() source[exportedFlow] {
	name := s.namer()
	return source[exportedFlow]{
		name: "flows", id: func(x exportedFlow) int64 { return x.ID }, log: connLog(),
		read: func(ctx context.Context, f journal.Filter) ([]exportedFlow, error) {
			rows, err := s.cfg.Ledger.Flows(ctx, f)
			return convert(rows, func(r journal.FlowRow) exportedFlow { return exportedFlow{toFlow(r), name(r.Device)} }), err
		},
	}
}

func (s *Server) lookupSource() source[exportedLookup] {
	name := s.namer()
	return source[exportedLookup]{
		name: "lookups", id: func(x exportedLookup) int64 { return x.ID }, log: dnsLog(),
		read: func(ctx context.Context, f journal.Filter) ([]exportedLookup, error) {
			rows, err := s.cfg.Ledger.Lookups(ctx, f)
			return convert(rows, func(r journal.LookupRow) exportedLookup {
				return exportedLookup{toLookup(r), name(r.Device), r.Type, r.Rcode}
			}), err
		},
	}
}

func (s *Server) eventSource() source[exportedEvent] {
	name := s.namer()
	return source[exportedEvent]{
		name: "events", id: func(x exportedEvent) int64 { return x.ID },
		read: func(ctx context.Context, f journal.Filter) ([]exportedEvent, error) {
			rows, err := s.cfg.Ledger.Events(ctx, f)
			return convert(rows, func(r journal.EventRow) exportedEvent { return exportedEvent{toEvent(r), name(r.Device)} }), err
		},
	}
}

func convert[A, B any](rows []A, one func(A) B) []B {
	out := make([]B, len(rows))
	for i, r := range rows {
		out[i] = one(r)
	}
	return out
}

// namer knows what the devices are called now.
func (s *Server) namer() func(devices.ID) string {
	names := map[devices.ID]string{}
	for _, d := range s.cfg.House.Devices(s.cfg.Now()) {
		names[d.ID] = d.Name
	}
	return func(id devices.ID) string { return names[id] }
}

// listing answers with a page of rows as JSON, or, where the request names a
// format, with a stream of all rows in that.
func listing[T any](s *Server, page func(*http.Request) (any, error), rows func() source[T]) http.HandlerFunc {
	asJSON := s.answer(page)
	return func(w http.ResponseWriter, r *http.Request) {
		format := r.URL.Query().Get("format")
		if format == "" || format == "json" {
			asJSON(w, r)
			return
		}
		if err := export(s, w, r, format, rows()); err != nil {
			s.fail(w, r, err)
		}
	}
}

// export streams rows. Its error says what is wrong with the request; once rows
// are on their way, what goes wrong breaks the connection off, so that nobody
// takes half an export for a whole one.
func export[T any](s *Server, w http.ResponseWriter, r *http.Request, format string, from source[T]) error {
	f, err := s.filter(r)
	if err != nil {
		return err
	}
	limit, err := number(r.URL.Query().Get("limit"), "limit") // of all pages together
	if err != nil {
		return err
	}
	body := bufio.NewWriterSize(patient{w, http.NewResponseController(w)}, 32<<10)
	out, kind, err := newRowWriter(format, body, from.log, s.cfg.Now())
	if err != nil {
		return err
	}
	select {
	case s.exports <- struct{}{}:
		defer func() { <-s.exports }()
	default:
		w.Header().Set("Retry-After", "10")
		return &failure{http.StatusServiceUnavailable, fmt.Sprintf("%d exports are under way, which is all there may be: try again", maxExports)}
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", from.name+fileSuffix(format)))
	if err := from.copy(r.Context(), out, f, limit, body.Flush); err != nil {
		if r.Context().Err() == nil {
			s.cfg.Logger.Warn("export broken off", "route", r.Pattern, "err", err)
		}
		panic(http.ErrAbortHandler)
	}
	return nil
}

// copy writes the rows page by page, at most limit where that is not 0; flush sends a page.
func (from source[T]) copy(ctx context.Context, out rowWriter[T], f journal.Filter, limit int64, flush func() error) error {
	if err := out.begin(); err != nil {
		return err
	}
	for left := limit; limit == 0 || left > 0; {
		f.Limit = exportPage
		if limit > 0 {
			f.Limit = int(min(exportPage, left))
		}
		rows, err := from.read(ctx, f)
		if err != nil {
			return err
		}
		for i := range rows {
			if err := out.row(&rows[i]); err != nil {
				return err
			}
		}
		if err := flush(); err != nil {
			return err
		}
		if len(rows) < f.Limit {
			break
		}
		left -= int64(len(rows))
		f.Before = from.id(rows[len(rows)-1])
	}
	if err := out.end(); err != nil {
		return err
	}
	return flush()
}

// patient gives each write its time, however long all of them take.
type patient struct {
	w  io.Writer
	rc *http.ResponseController
}

func (p patient) Write(b []byte) (int, error) {
	// A writer without deadlines (a test's recorder) is written to without.
	_ = p.rc.SetWriteDeadline(time.Now().Add(writePatience))
	return p.w.Write(b)
}

func fileSuffix(format string) string {
	if format == "zeek" {
		return ".log"
	}
	return "." + format
}

// rowWriter writes the rows of an export in one format.
type rowWriter[T any] interface {
	begin() error
	row(*T) error
	end() error
}

func newRowWriter[T any](format string, w *bufio.Writer, log *zeekLog[T], now time.Time) (out rowWriter[T], contentType string, err error) {
	switch {
	case format == "csv":
		return newCSV[T](w), "text/csv; charset=utf-8; header=present", nil
	case format == "jsonl":
		return jsonLines[T]{json.NewEncoder(w)}, "application/jsonl", nil
	case format == "zeek" && log != nil:
		return zeekRows[T]{log, w, now}, "text/tab-separated-values; charset=utf-8", nil
	}
	if log == nil {
		return nil, "", badRequest("format %.20q: json, jsonl or csv is needed", format)
	}
	return nil, "", badRequest("format %.20q: json, jsonl, csv or zeek is needed", format)
}

// jsonLines writes one JSON object a line (jsonlines.org).
type jsonLines[T any] struct{ *json.Encoder }

func (jsonLines[T]) begin() error     { return nil }
func (j jsonLines[T]) row(x *T) error { return j.Encode(x) }
func (jsonLines[T]) end() error       { return nil }

// csvRows writes RFC 4180 with a line of names, which are those of the JSON.
type csvRows[T any] struct {
	w      *csv.Writer
	fields []reflect.StructField
	line   []string
}

func newCSV[T any](w io.Writer) *csvRows[T] {
	c := &csvRows[T]{w: csv.NewWriter(w)}
	c.w.UseCRLF = true
	for _, f := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		if !f.Anonymous && f.IsExported() {
			c.fields = append(c.fields, f)
		}
	}
	c.line = make([]string, len(c.fields))
	return c
}

func (c *csvRows[T]) begin() error {
	for i, f := range c.fields {
		c.line[i] = f.Tag.Get("json")
	}
	return c.write()
}

func (c *csvRows[T]) row(x *T) error {
	v := reflect.ValueOf(x).Elem()
	for i, f := range c.fields {
		switch value := v.FieldByIndex(f.Index).Interface().(type) {
		case string:
			c.line[i] = unformula(value)
		case time.Time:
			c.line[i] = value.UTC().Format("2006-01-02T15:04:05.000Z")
		default:
			c.line[i] = fmt.Sprint(value)
		}
	}
	return c.write()
}

func (c *csvRows[T]) write() error {
	if err := c.w.Write(c.line); err != nil {
		return err
	}
	c.w.Flush() // into the buffer that pages are sent from
	return c.w.Error()
}

func (c *csvRows[T]) end() error { return nil }

// unformula makes a foreign string safe in a spreadsheet, which takes a cell that
// begins with one of these for something to calculate, or to call; the apostrophe
// says that it is text (OWASP, CSV injection). What cannot be seen becomes a visible mark.
func unformula(text string) string {
	text = strings.Map(func(r rune) rune {
		if !visible(r) {
			return '\ufffd'
		}
		return r
	}, text)
	if strings.IndexAny(strings.TrimLeft(text, " \u00a0\u3000"), "=+-@＝＋－＠") == 0 {
		return "'" + text
	}
	return text
}
