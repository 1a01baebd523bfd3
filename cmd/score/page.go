package main

import (
	"fmt"
	"strconv"
	"strings"
)

// The generated part of the page stands between these two lines.
const (
	beginMark = "<!-- begin: written by go run ./cmd/score -update -->"
	endMark   = "<!-- end -->"
)

const tableHead = "| class | flows | found | protocol | protection | names | wrong | missed | invented | clear called encrypted | versions | crashed |\n" +
	"|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"

func tableLine(name string, s *score) string {
	return fmt.Sprintf("| %s | %d | %d | %d/%d | %d/%d | %d/%d | %d | %d | %d | %d | %d/%d | %d |\n", name, s.Rows, s.Found,
		s.Protocol, s.OfProto, s.Protect, s.OfProt, s.Names, s.OfNames, s.Wrong, s.Missed, s.Invented, s.ClearAsEncrypted,
		s.Versions, s.OfVer, s.Crashed)
}

// tables are the figures per class, and the sum.
func (r *result) tables() string {
	var b strings.Builder
	b.WriteString(tableHead)
	for _, name := range r.names() {
		b.WriteString(tableLine(name, r.classes[name]))
	}
	sum := r.total()
	b.WriteString(tableLine("**all**", &sum))
	fmt.Fprintf(&b, "\n%d captures. Flows found %s, protocol %s, protection %s, names %s, versions %s; clear called encrypted: %d; names invented: %d.\n",
		r.captures, percent(sum.Found, sum.Rows), percent(sum.Protocol, sum.OfProto), percent(sum.Protect, sum.OfProt),
		percent(sum.Names, sum.OfNames), percent(sum.Versions, sum.OfVer), sum.ClearAsEncrypted, sum.Invented)
	return b.String()
}

func percent(n, of int) string {
	if of == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(n)/float64(of))
}

const why = " | not yet looked into |"

// page puts the figures and the misses into the page. An explanation that a
// person wrote in the last column stays with its miss.
func (r *result) page(old []byte) []byte {
	text := string(old)
	if text == "" {
		text = "# Scores\n\n" + beginMark + "\n" + endMark + "\n"
	}
	explained := explanations(text)
	var b strings.Builder
	b.WriteString(beginMark + "\n\n" + r.tables() + "\n## Misses\n\n| capture | flow | what | truth | we | why |\n|---|---|---|---|---|---|\n")
	for _, m := range r.misses {
		line := m.line()
		if e, ok := explained[line]; ok {
			b.WriteString(line + " | " + e + " |\n")
		} else {
			b.WriteString(line + why + "\n")
		}
	}
	b.WriteString("\n" + endMark)
	before, rest, _ := strings.Cut(text, beginMark)
	_, after, _ := strings.Cut(rest, endMark)
	return []byte(before + b.String() + after)
}

func (m miss) line() string {
	cell := func(s string) string {
		if s == "" {
			return "none"
		}
		return strings.NewReplacer("|", "\\|", "\n", " ").Replace(s)
	}
	return "| " + strings.Join([]string{m.capture, cell(m.flow), cell(m.what), cell(m.want), cell(m.got)}, " | ")
}

// explanations reads the last column of the page's table of misses.
func explanations(text string) map[string]string {
	out := map[string]string{}
	_, table, _ := strings.Cut(text, "## Misses")
	table, _, _ = strings.Cut(table, endMark)
	for line := range strings.Lines(table) {
		line = strings.TrimSuffix(strings.TrimSpace(line), " |")
		if at := strings.LastIndex(line, " | "); at > 0 && strings.Count(line, " | ") == 5 {
			out[line[:at]] = line[at+3:]
		}
	}
	return out
}

// fellBelow compares with the figures on the page. A class that is not there
// cannot fall.
func (r *result) fellBelow(page []byte) []string {
	var fell []string
	for class, was := range readTables(string(page)) {
		s := r.classes[class]
		if class == "**all**" {
			sum := r.total()
			s = &sum
		}
		if s == nil {
			fell = append(fell, class+": its captures are gone")
			continue
		}
		for _, f := range figures {
			before, now := *f.get(was), *f.get(s)
			if f.higher && now < before || !f.higher && now > before {
				fell = append(fell, fmt.Sprintf("%s: %s was %d, is %d", class, f.name, before, now))
			}
		}
	}
	return fell
}

// readTables is tables, backwards.
func readTables(page string) map[string]*score {
	out := map[string]*score{}
	_, text, _ := strings.Cut(page, beginMark)
	text, _, _ = strings.Cut(text, "## Misses")
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != len(figures)+2 || strings.Contains(cells[0], "class") || strings.Contains(cells[0], "---") {
			continue
		}
		s := &score{}
		for i, f := range figures {
			n, _, _ := strings.Cut(strings.TrimSpace(cells[i+2]), "/")
			*f.get(s), _ = strconv.Atoi(n)
		}
		out[strings.TrimSpace(cells[0])] = s
	}
	return out
}
