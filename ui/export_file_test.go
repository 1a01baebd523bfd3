package ui_test

import (
	"encoding/csv"
	"encoding/json"
	"net/http"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/netcurtain/netcurtain/journal"
	"github.com/netcurtain/netcurtain/ui/api"
)

func TestExportsGolden(t *testing.T) {
	s := newServer(t, family())
	for name, path := range map[string]string{
		"flows.csv": "/api/v1/flows?format=csv", "flows.jsonl": "/api/v1/flows?format=jsonl&readable=1", "conn.log": "/api/v1/flows?format=zeek",
		"lookups.csv": "/api/v1/lookups?format=csv&limit=3", "dns.log": "/api/v1/lookups?format=zeek&limit=3",
		"events.csv": "/api/v1/events?format=csv",
	} {
		w := ask(s.Control(), "GET", path, "", "", "Host", "netcurtain")
		if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Disposition"), "attachment") {
			t.Errorf("%s: status %d, %v", path, w.Code, w.Header())
		}
		golden(t, "exports/"+name, w.Body.Bytes())
	}
}

func TestExportsSayWhatIsWrong(t *testing.T) {
	s := newServer(t, family())
	for path, want := range map[string]string{
		"/api/v1/flows?format=xml":              `format \"xml\": json, jsonl, csv or zeek is needed`,
		"/api/v1/events?format=zeek":            `format \"zeek\": json, jsonl or csv is needed`,
		"/api/v1/flows?format=csv&since=never":  `since \"never\"`,
		"/api/v1/flows?format=csv&until=never":  `until \"never\"`,
		"/api/v1/flows?format=csv&limit=-1":     `limit \"-1\"`,
		"/api/v1/lookups?format=csv&device=nix": `device \"nix\" is not known`,
		"/api/v1/flows?since=1h&until=2h":       `until \"2h\" lies before since \"1h\"`,
		"/api/v1/flows?since=3000d":             `366d at most`,
	} {
		w := ask(s.Control(), "GET", path, "", "", "Host", "netcurtain")
		if w.Code/100 != 4 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// Who reads Zeek's logs goes by their types: each value has to be one of its column's.
func TestZeekLogsKeepTheirTypes(t *testing.T) {
	s := newServer(t, family())
	is := map[string]func(string) bool{
		"time":     func(v string) bool { sec, _, ok := strings.Cut(v, "."); return ok && len(sec) >= 9 && isNumber(v) },
		"interval": isNumber,
		"count":    func(v string) bool { _, err := strconv.ParseUint(v, 10, 64); return err == nil },
		"port":     func(v string) bool { _, err := strconv.ParseUint(v, 10, 16); return err == nil },
		"addr":     func(v string) bool { _, err := netip.ParseAddr(v); return err == nil },
		"bool":     func(v string) bool { return v == "T" || v == "F" },
		"enum":     func(v string) bool { return v == "tcp" || v == "udp" || v == "icmp" || v == "unknown_transport" },
		"string":   func(v string) bool { return !strings.ContainsAny(v, "\t\r\n") },
	}
	for _, path := range []string{"/api/v1/flows?format=zeek", "/api/v1/lookups?format=zeek"} {
		lines := strings.Split(strings.TrimSuffix(ask(s.Control(), "GET", path, "", "", "Host", "netcurtain").Body.String(), "\n"), "\n")
		var fields, types []string
		rows := 0
		for _, line := range lines {
			cells := strings.Split(line, "\t")
			switch {
			case cells[0] == "#fields":
				fields = cells[1:]
			case cells[0] == "#types":
				types = cells[1:]
			case strings.HasPrefix(line, "#"):
			case len(cells) != len(types) || len(types) != len(fields):
				t.Fatalf("%s: %d values of %d types and %d fields", path, len(cells), len(types), len(fields))
			default:
				rows++
				for i, v := range cells {
					kind := types[i]
					if of, ok := strings.CutPrefix(kind, "set["); ok {
						kind = strings.TrimSuffix(of, "]")
					} else if of, ok := strings.CutPrefix(kind, "vector["); ok {
						kind = strings.TrimSuffix(of, "]")
					}
					if test := is[kind]; test == nil || v != "-" && v != "(empty)" && !test(v) || v == "" {
						t.Errorf("%s: %s is %q, and no %s", path, fields[i], v, types[i])
					}
				}
			}
		}
		if rows == 0 || !strings.HasPrefix(lines[len(lines)-1], "#close\t") {
			t.Errorf("%s: %d rows, and at the end %q", path, rows, lines[len(lines)-1])
		}
	}
}

func isNumber(v string) bool {
	_, err := strconv.ParseFloat(v, 64)
	return err == nil
}

// All rows come, each once, however many pages that takes.
func TestAnExportIsWhole(t *testing.T) {
	h := family()
	family := h.flows
	h.flows = nil
	for i := range 1700 {
		h.flows = append(h.flows, journal.FlowRow{ID: int64(10_000 - i), Device: h.devices[0].ID, First: noon, Last: noon, Proto: "tcp"})
	}
	h.flows = append(h.flows, family...)
	w := ask(newServer(t, h).Control(), "GET", "/api/v1/flows?format=jsonl", "", "", "Host", "netcurtain")
	lines := strings.Split(strings.TrimSuffix(w.Body.String(), "\n"), "\n")
	if len(lines) != len(h.flows) {
		t.Fatalf("%d lines, %d wanted", len(lines), len(h.flows))
	}
	last := int64(1 << 60)
	for _, line := range lines {
		var f api.Flow
		if err := json.Unmarshal([]byte(line), &f); err != nil || f.ID >= last {
			t.Fatalf("after %d: %s: %v", last, line, err)
		}
		last = f.ID
	}
	w = ask(newServer(t, h).Control(), "GET", "/api/v1/flows?format=csv&limit=1200", "", "", "Host", "netcurtain")
	if n := strings.Count(w.Body.String(), "\r\n"); n != 1201 {
		t.Errorf("%d lines of 1200 rows and their names", n)
	}
}

// hostileFlow is a row of which every string is the attacker's.
func hostileFlow(text string) journal.FlowRow {
	r := journal.FlowRow{ID: 1, First: noon, Last: noon, Src: netip.MustParseAddrPort("192.168.1.2:3"), Dst: netip.MustParseAddrPort("[2001:db8::1]:443")}
	v := reflect.ValueOf(&r).Elem()
	for _, f := range reflect.VisibleFields(v.Type()) {
		if f.Type.Kind() == reflect.String {
			v.FieldByIndex(f.Index).SetString(text)
		}
	}
	return r
}

func FuzzExports(f *testing.F) {
	for _, text := range []string{
		`=cmd|' /C calc'!A0`, "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r\n=1", "＝1", "a\tb\nc\r", `"quoted", and more`, "-", "(empty)", "#close", "\\x09", "\x00\xff", "\u202e", "😀", "",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1000 {
			t.Skip()
		}
		h := &house{on: true, flows: []journal.FlowRow{hostileFlow(text)}}
		s := newServer(t, h)
		get := func(format string) string {
			w := ask(s.Control(), "GET", "/api/v1/flows?format="+format, "", "", "Host", "netcurtain")
			if w.Code != http.StatusOK {
				t.Fatalf("%s: status %d", format, w.Code)
			}
			return w.Body.String()
		}
		rows, err := csv.NewReader(strings.NewReader(get("csv"))).ReadAll()
		if err != nil || len(rows) != 2 {
			t.Fatalf("csv of %d lines: %v", len(rows), err)
		}
		for i, cell := range rows[1] {
			if cell != "" && strings.ContainsRune("=+-@\t\r\n", rune(strings.TrimLeft(cell+"x", " ")[0])) {
				t.Errorf("column %s is a formula: %q", rows[0][i], cell)
			}
		}
		log := strings.Split(strings.TrimSuffix(get("zeek"), "\n"), "\n")
		if len(log) != 10 {
			t.Fatalf("conn.log of %d lines:\n%s", len(log), strings.Join(log, "\n"))
		}
		fields, types, row := strings.Split(log[6], "\t"), strings.Split(log[7], "\t"), strings.Split(log[8], "\t")
		if fields[0] != "#fields" || types[0] != "#types" || len(fields) != len(types) || len(row) != len(fields)-1 {
			t.Errorf("%d fields, %d types, %d values", len(fields), len(types), len(row))
		}
		if strings.HasPrefix(log[8], "#") || strings.Contains(strings.Join(row, ""), "\r") {
			t.Errorf("the row is %q", log[8])
		}
		if !json.Valid([]byte(get("jsonl"))) {
			t.Error("jsonl is no JSON")
		}
	})
}
