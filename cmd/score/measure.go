package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/observe/inspect"
)

// score is what was measured of one class of captures. Each "of" counts only the
// rows in which the truth asserts something.
type score struct {
	Rows, Found       int // flows asked for, and seen at all
	Protocol, OfProto int
	Protect, OfProt   int
	Names, OfNames    int // right, of those that have one
	Wrong             int // another name
	Missed            int // no name where there is one
	Invented          int // a name where there is none
	ClearAsEncrypted  int // demanded: none
	Versions, OfVer   int // TLS and QUIC versions
	Crashed           int // crashes and hangs
}

// figures are the columns by which a score is kept, with what is better.
var figures = []struct {
	name   string
	get    func(*score) *int
	higher bool
}{
	{"found", func(s *score) *int { return &s.Found }, true},
	{"protocol", func(s *score) *int { return &s.Protocol }, true},
	{"protection", func(s *score) *int { return &s.Protect }, true},
	{"names", func(s *score) *int { return &s.Names }, true},
	{"wrong", func(s *score) *int { return &s.Wrong }, false},
	{"missed", func(s *score) *int { return &s.Missed }, false},
	{"invented", func(s *score) *int { return &s.Invented }, false},
	{"clear called encrypted", func(s *score) *int { return &s.ClearAsEncrypted }, false},
	{"versions", func(s *score) *int { return &s.Versions }, true},
	{"crashed", func(s *score) *int { return &s.Crashed }, false},
}

// miss is one thing that was not as the truth says.
type miss struct{ capture, flow, what, want, got string }

type result struct {
	classes  map[string]*score
	misses   []miss
	captures int
}

// hang is how long one small capture may take.
const hang = 20 * time.Second

func measure(ctx context.Context, dir string, want []truth) (*result, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.pcap*"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: no captures", dir)
	}
	byCapture := map[string][]truth{}
	for _, t := range want {
		byCapture[t.capture] = append(byCapture[t.capture], t)
	}
	res := &result{classes: map[string]*score{}, captures: len(files)}
	for _, file := range files {
		name := filepath.Base(file)
		s := res.class(classOf(name))
		flows, err := read(ctx, file)
		if err != nil {
			s.Crashed++
			res.misses = append(res.misses, miss{name, "", "robustness", "no crash, no hang", err.Error()})
		}
		for _, t := range byCapture[name] {
			if !t.robustness() {
				res.judge(s, t, flows[t.key])
			}
		}
	}
	slices.SortFunc(res.misses, func(a, b miss) int {
		return cmp.Or(cmp.Compare(a.capture, b.capture), cmp.Compare(a.flow, b.flow), cmp.Compare(a.what, b.what))
	})
	return res, nil
}

func (r *result) class(name string) *score {
	if r.classes[name] == nil {
		r.classes[name] = &score{}
	}
	return r.classes[name]
}

// read inspects one capture. A file that breaks off is no error: some are broken
// on purpose. A panic or a hang is.
func read(ctx context.Context, file string) (map[key][]inspect.Row, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	type outcome struct {
		flows map[key][]inspect.Row
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		defer f.Close()
		flows := map[key][]inspect.Row{}
		defer func() {
			var err error
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
			done <- outcome{flows, err}
		}()
		_, _ = inspect.Read(ctx, filepath.Base(file), f, inspect.Config{}, func(r inspect.Row) error {
			if k, err := keyOf(r); err == nil {
				flows[k] = append(flows[k], r)
			}
			return nil
		})
	}()
	select {
	case o := <-done:
		return o.flows, o.err
	case <-time.After(hang): // the goroutine cannot be stopped; this program ends soon
		return nil, fmt.Errorf("hangs for more than %v", hang)
	}
}

// judge compares one flow with the truth. The truth knows a flow by its ends
// alone; when the same ends met several times, the first time that says what it
// speaks is meant.
func (r *result) judge(s *score, t truth, rows []inspect.Row) {
	s.Rows++
	note := func(what, want, got string) {
		r.misses = append(r.misses, miss{t.capture, t.text, what, want, got})
	}
	var row inspect.Row
	if len(rows) > 0 {
		s.Found++
		row = rows[0]
		for _, x := range rows {
			if x.Protocol != "unknown" {
				row = x
				break
			}
		}
	} else {
		note("flow", "seen", "not seen")
	}
	if t.protocol != "UNKNOWN" {
		s.OfProto++
		if sameProtocol(t.protocol, row.Protocol) {
			s.Protocol++
		} else {
			note("protocol", t.protocol, row.Protocol)
		}
	}
	if want := map[string]string{"encrypted": "encrypted", "cleartext": "readable"}[t.encryption]; want != "" {
		s.OfProt++
		if row.Protection == want {
			s.Protect++
		} else {
			note("protection", want, row.Protection)
		}
		if want == "readable" && row.Protection == "encrypted" {
			s.ClearAsEncrypted++
		}
	}
	r.judgeName(s, t, row, note)
	if want := strings.Trim(t.tls, "()"); want != "" && want == t.tls {
		s.OfVer++
		if row.TLSVersion == want {
			s.Versions++
		} else {
			note("tls version", want, row.TLSVersion)
		}
	}
	if t.quic != "" {
		s.OfVer++
		if want := quicVersion(t.quic); row.QUICVersion == want {
			s.Versions++
		} else {
			note("quic version", want, row.QUICVersion)
		}
	}
}

func (r *result) judgeName(s *score, t truth, row inspect.Row, note func(what, want, got string)) {
	switch t.name {
	case "?", "":
	case "-":
		if row.ServerName != "" {
			s.Invented++
			note("invented name", "none", row.ServerName)
		}
	default:
		s.OfNames++
		switch row.ServerName {
		case strings.ToLower(t.name):
			s.Names++
		case "":
			s.Missed++
			note("missed name", t.name, "none")
		default:
			s.Wrong++
			note("wrong name", t.name, row.ServerName)
		}
	}
}

// aliases are protocols that the truth and we call differently.
var aliases = map[string][]string{
	"gquic":     {"quic"},
	"ipsec":     {"ike", "esp"},
	"netbios":   {"nbns", "nbdgm", "nbss", "netbios-ns", "netbios-dgm"},
	"postgres":  {"postgresql"},
	"openvpn":   {"openvpn"},
	"http":      {"websocket"},
	"wireguard": {"wg"},
}

func sameProtocol(want, got string) bool {
	want = strings.ToLower(want)
	return want == got || slices.Contains(aliases[want], got)
}

// quicVersion is the word for a version number as it stands on the wire.
func quicVersion(hex string) string {
	v, err := strconv.ParseUint(strings.TrimPrefix(hex, "0x"), 16, 32)
	switch {
	case err != nil:
		return hex
	case v == 1:
		return "1"
	case v == 0x6b3343cf:
		return "2"
	case v>>8 == 0xff0000:
		return "draft-" + strconv.Itoa(int(v&0xff))
	}
	return hex
}

func (r *result) total() score {
	var sum score
	for _, s := range r.classes {
		sum.add(s)
	}
	return sum
}

func (s *score) add(o *score) {
	for _, f := range figures {
		*f.get(s) += *f.get(o)
	}
	s.Rows += o.Rows
	s.OfProto += o.OfProto
	s.OfProt += o.OfProt
	s.OfNames += o.OfNames
	s.OfVer += o.OfVer
}

func (r *result) names() []string { return slices.Sorted(maps.Keys(r.classes)) }
