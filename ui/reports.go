package ui

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/ui/api"
)

func (s *Server) getDevices(r *http.Request) (any, error) {
	since, err := s.since(r.FormValue("since"), "24h")
	if err != nil {
		return nil, err
	}
	list, err := s.devices(r.Context(), since)
	return api.Devices{Since: since, Devices: list}, err
}

// devices are all devices with their totals, the busiest first.
func (s *Server) devices(ctx context.Context, since time.Time) ([]api.Device, error) {
	totals, err := s.cfg.Ledger.Totals(ctx, since)
	if err != nil {
		return nil, fmt.Errorf("totals: %w", err)
	}
	by := make(map[devices.ID]journal.DeviceTotals, len(totals))
	for _, t := range totals {
		by[t.Device] = t
	}
	list := []api.Device{}
	for _, d := range s.cfg.House.Devices(s.cfg.Now()) {
		list = append(list, toDevice(d, by[d.ID]))
	}
	slices.SortFunc(list, func(a, b api.Device) int {
		if a.Totals.BytesOut != b.Totals.BytesOut {
			return cmpDesc(a.Totals.BytesOut, b.Totals.BytesOut)
		}
		return strings.Compare(a.Name+a.ID, b.Name+b.ID)
	})
	return list, nil
}

func (s *Server) getDevice(r *http.Request) (any, error) {
	since, err := s.since(r.FormValue("since"), "24h")
	if err != nil {
		return nil, err
	}
	d, err := s.find(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return s.detail(r.Context(), d, since)
}

// lastBlocks is how many blocks of a device are told.
const lastBlocks = 20

func (s *Server) detail(ctx context.Context, d devices.Device, since time.Time) (api.DeviceDetail, error) {
	out := api.DeviceDetail{Since: since, Destinations: []api.Destination{}}
	list, err := s.devices(ctx, since)
	if err != nil {
		return out, err
	}
	out.Device = toDevice(d, journal.DeviceTotals{})
	for _, one := range list {
		if one.ID == string(d.ID) {
			out.Device = one
		}
	}
	rows, err := s.cfg.Ledger.Destinations(ctx, d.ID, since)
	if err != nil {
		return out, fmt.Errorf("destinations: %w", err)
	}
	for _, row := range rows {
		out.Destinations = append(out.Destinations, toDestination(row))
	}
	out.Carrying = s.cfg.Carrying(d.ID)
	out.Blocks, err = s.blocks(ctx, d.ID, lastBlocks)
	return out, err
}

// blocks are the last blocked look-ups and flows of a device, newest first.
func (s *Server) blocks(ctx context.Context, id devices.ID, limit int) ([]api.Block, error) {
	f := journal.Filter{Device: id, Blocked: true, Limit: limit}
	lookups, err := s.cfg.Ledger.Lookups(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("look-ups: %w", err)
	}
	flows, err := s.cfg.Ledger.Flows(ctx, f)
	if err != nil {
		return nil, fmt.Errorf("flows: %w", err)
	}
	blocks := make([]api.Block, 0, len(lookups)+len(flows))
	for _, l := range lookups {
		blocks = append(blocks, api.Block{At: l.At, What: "lookup", Name: l.Name, Organisation: l.Organisation, Reason: l.Reason, Rule: l.Rule, List: l.List})
	}
	for _, f := range flows {
		blocks = append(blocks, api.Block{At: f.Last, What: "flow", Name: f.Name, Address: addrPort(f.Dst), Organisation: f.Organisation, Reason: f.Reason, Rule: f.Rule, List: f.List})
	}
	slices.SortStableFunc(blocks, func(a, b api.Block) int { return b.At.Compare(a.At) })
	return blocks[:min(len(blocks), limit)], nil
}

func (s *Server) getTop(r *http.Request) (any, error) {
	since, err := s.since(r.FormValue("since"), "1h")
	if err != nil {
		return nil, err
	}
	limit, err := number(r.FormValue("limit"), "limit")
	if err != nil {
		return nil, err
	}
	words := []string{"destination", "organisation", "device"}
	by := slices.Index(words, cmp.Or(r.FormValue("by"), words[0]))
	if by < 0 {
		return nil, badRequest("by %.20q: %s is needed", r.FormValue("by"), strings.Join(words, ", "))
	}
	rows, err := s.cfg.Ledger.Top(r.Context(), since, journal.TopBy(by), int(min(limit, 1000)))
	if err != nil {
		return nil, fmt.Errorf("top: %w", err)
	}
	name := s.namer()
	out := api.Top{Since: since, By: words[by], Rows: []api.TopRow{}}
	for _, t := range rows {
		out.Rows = append(out.Rows, api.TopRow{
			Device: string(t.Device), DeviceName: name(t.Device), Name: t.Name, Organisation: t.Organisation, Purpose: t.Purpose, Country: t.Country,
			BytesOut: t.BytesOut, BytesIn: t.BytesIn, Flows: t.Flows, Readable: t.Readable, Blocked: t.Blocked, Last: t.Last,
		})
	}
	return out, nil
}

// longView is how far back the days are shown, unless asked otherwise.
const longView = "90d"

func (s *Server) getDays(r *http.Request) (any, error) {
	var device devices.ID
	if ref := r.FormValue("device"); ref != "" {
		d, err := s.find(ref)
		if err != nil {
			return nil, err
		}
		device = d.ID
	}
	return s.days(r.Context(), device, r.FormValue("since"))
}

// days is what one device, or all, did on each day.
func (s *Server) days(ctx context.Context, device devices.ID, span string) (out api.Days, err error) {
	if out.Since, err = s.since(span, longView); err != nil {
		return out, err
	}
	rows, err := s.cfg.Ledger.Days(ctx, device, out.Since)
	if err != nil {
		return out, fmt.Errorf("days: %w", err)
	}
	out.Days = toDays(rows)
	return out, nil
}

func (s *Server) getFlows(r *http.Request) (any, error)   { return s.flows(r) }
func (s *Server) getLookups(r *http.Request) (any, error) { return s.lookups(r) }
func (s *Server) getEvents(r *http.Request) (any, error)  { return s.events(r) }

func (s *Server) flows(r *http.Request) (api.Flows, error) {
	rows, next, err := pageOf(s, r, "flows", s.cfg.Ledger.Flows, toFlow, func(f api.Flow) int64 { return f.ID })
	return api.Flows{Flows: rows, Next: next}, err
}

func (s *Server) lookups(r *http.Request) (api.Lookups, error) {
	rows, next, err := pageOf(s, r, "look-ups", s.cfg.Ledger.Lookups, toLookup, func(l api.Lookup) int64 { return l.ID })
	return api.Lookups{Lookups: rows, Next: next}, err
}

func (s *Server) events(r *http.Request) (api.Events, error) {
	rows, next, err := pageOf(s, r, "events", s.cfg.Ledger.Events, toEvent, func(e api.Event) int64 { return e.ID })
	return api.Events{Events: rows, Next: next}, err
}

// pageOf reads those rows of the ledger that a request asks for. next is the id before
// which the next page begins; 0 where this is the last.
func pageOf[R, T any](s *Server, r *http.Request, what string, read func(context.Context, journal.Filter) ([]R, error), shape func(R) T, id func(T) int64) (rows []T, next int64, err error) {
	f, err := s.filter(r)
	if err != nil {
		return nil, 0, err
	}
	kept, err := read(r.Context(), f)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", what, err)
	}
	rows = convert(kept, shape)
	if n := len(rows); n > 0 && n == f.Limit {
		next = id(rows[n-1])
	}
	return rows, next, nil
}
