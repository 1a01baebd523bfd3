package ui

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/journal"
)

// filter reads what flows, look-ups and events may be narrowed by.
func (s *Server) filter(r *http.Request) (f journal.Filter, err error) {
	q := r.URL.Query()
	if ref := q.Get("device"); ref != "" {
		d, err := s.find(ref)
		if err != nil {
			return f, err
		}
		f.Device = d.ID
	}
	if text := q.Get("since"); text != "" {
		if f.Since, err = s.since(text, ""); err != nil {
			return f, err
		}
	}
	if text := q.Get("until"); text != "" {
		if f.Until, err = s.moment("until", text); err != nil {
			return f, err
		}
		if f.Until.Before(f.Since) {
			return f, badRequest("until %.40q lies before since %.40q", text, q.Get("since"))
		}
	}
	if f.Before, err = number(q.Get("before"), "before"); err != nil {
		return f, err
	}
	limit, err := number(q.Get("limit"), "limit")
	if err != nil {
		return f, err
	}
	if limit == 0 {
		limit = 100
	}
	f.Limit = int(min(limit, 1000))
	if f.Readable, err = flag(q.Get("readable"), "readable"); err != nil {
		return f, err
	}
	f.Blocked, err = flag(q.Get("blocked"), "blocked")
	return f, err
}

func number(text, what string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, badRequest("%s %.40q: a whole number is needed", what, text)
	}
	return n, nil
}

func flag(text, what string) (bool, error) {
	switch text {
	case "", "0", "false":
		return false, nil
	case "1", "true":
		return true, nil
	}
	return false, badRequest("%s %.40q: 1 or 0 is needed", what, text)
}

// since is when a span that is asked for began: "today", "24h", "7d" or a time
// in RFC 3339.
func (s *Server) since(text, fallback string) (time.Time, error) {
	if text == "" {
		text = fallback
	}
	return s.moment("since", text)
}

// moment reads a time, as since does; what it is for is named in the error.
func (s *Server) moment(what, text string) (time.Time, error) {
	now := s.cfg.Now()
	if text == "today" {
		y, m, d := now.In(s.cfg.Location).Date()
		return time.Date(y, m, d, 0, 0, 0, 0, s.cfg.Location), nil
	}
	if d, err := parseSpan(text); err == nil {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, &failure{http.StatusBadRequest, fmt.Sprintf("%s %.40q: today, a span such as 24h or 7d (366d at most), or a time such as 2026-11-22T08:00:00Z is needed", what, text)}
	}
	return t, nil
}

// parseSpan reads "15m", "2h30m" or "7d": at least a second, at most a year.
func parseSpan(text string) (time.Duration, error) {
	var d time.Duration
	var err error
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16)
		d = time.Duration(n) * 24 * time.Hour
	} else {
		d, err = time.ParseDuration(text)
	}
	if err != nil || d < time.Second || d > 366*24*time.Hour {
		return 0, errors.New("a span such as 15m, 2h or 7d is needed, at most 366d")
	}
	return d, nil
}

// find resolves what a person calls a device: its ID, a hardware or network
// address, its name in any case, or the beginning of either when only one fits.
func (s *Server) find(ref string) (devices.Device, error) {
	all := s.cfg.House.Devices(s.cfg.Now())
	for _, d := range all {
		if string(d.ID) == ref {
			return d, nil
		}
	}
	mac, macErr := devices.ParseMAC(ref)
	addr, addrErr := netip.ParseAddr(ref)
	low := strings.ToLower(ref)
	for _, fits := range []func(devices.Device) bool{
		func(d devices.Device) bool { return macErr == nil && slices.Contains(d.MACs, mac) },
		func(d devices.Device) bool { return addrErr == nil && slices.Contains(d.Addrs, addr.Unmap()) },
		func(d devices.Device) bool { return strings.EqualFold(d.Name, ref) },
		func(d devices.Device) bool {
			return len(ref) >= 2 && (strings.HasPrefix(strings.ToLower(d.Name), low) || strings.HasPrefix(string(d.ID), low))
		},
	} {
		switch found := slices.DeleteFunc(slices.Clone(all), func(d devices.Device) bool { return !fits(d) }); len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			return devices.Device{}, ambiguous(ref, found)
		}
	}
	return devices.Device{}, &failure{http.StatusNotFound, fmt.Sprintf("device %.80q is not known: its ID, address or name is needed", ref)}
}

func ambiguous(ref string, found []devices.Device) error {
	var names []string
	for _, d := range found[:min(len(found), 5)] {
		names = append(names, fmt.Sprintf("%.60q (%s)", d.Name, d.ID))
	}
	return &failure{http.StatusConflict, fmt.Sprintf("device %.80q fits %d devices: say which by its ID: %s", ref, len(found), strings.Join(names, ", "))}
}
