package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy/blocklist"
)

type matchCmd struct {
	jsonFlag
	List       []string `sep:"none" placeholder:"FILE" help:"A block list, - for standard input; repeat it for more."`
	Allow      []string `sep:"none" placeholder:"FILE" help:"An allow list: whatever it covers is allowed."`
	Type       string   `default:"A" help:"The DNS type that is asked for."`
	ClientIP   string   `name:"client-ip" placeholder:"ADDRESS" help:"Who asks, for rules with $$client."`
	ClientMAC  string   `name:"client-mac" placeholder:"MAC" help:"The same, by hardware address."`
	ClientName string   `name:"client-name" placeholder:"NAME" help:"The same, by name."`
	ClientTag  []string `name:"client-tag" placeholder:"TAG" help:"What the client is, for rules with $$ctag: device_tv, user_child, …"`
	Names      []string `arg:"" name:"name" help:"Names to decide."`
}

func (matchCmd) Help() string {
	return `Needs no daemon. Lines that are not understood are told on standard error; what lists may say: docs/lists.md.

Examples:
  netcurtain match --list ads.txt ads.example www.example
  curl -s https://lists.example/ads.txt | netcurtain match --list - ads.example
  netcurtain match --list ads.txt --allow mine.txt --type AAAA --client-ip 192.168.1.7 --json ads.example`
}

// matchLine is what is said of one name; the JSON form is a promise.
type matchLine struct {
	Name    string   `json:"name"`
	Verdict string   `json:"verdict"` // none, block, allow, rewrite, hosts
	Rule    string   `json:"rule"`    // the line as it stands in the list
	List    string   `json:"list"`    // the file
	Line    int      `json:"line"`
	Answers []string `json:"answers"` // of rewrite and hosts: "A:192.0.2.1", "RCODE:REFUSED"
}

// Run decides every name and prints a line for each, in the order of the names.
func (c matchCmd) Run(io std) error {
	q, err := c.question()
	if err != nil {
		return err
	}
	files, err := openLists(append(slices.Clone(c.List), c.Allow...))
	if err != nil {
		return err
	}
	index, err := c.compile(files, io.err)
	if err != nil {
		return err
	}
	lines := make([]matchLine, len(c.Names))
	matches := map[int][]blocklist.Match{} // by list
	whose := map[int][]int{}
	for i, name := range c.Names {
		lines[i] = matchLine{Name: name, Verdict: blocklist.KindNone.String(), Answers: []string{}}
		if q.Name, err = dnsname.Parse(name); err != nil {
			fmt.Fprintf(io.err, "netcurtain: no rule can be about it: %v\n", err)
			continue
		}
		m, ok := index.Ask(&q, ^uint64(0))
		if !ok {
			continue
		}
		l := &lines[i]
		l.Verdict, l.Rule, l.List = m.Kind.String(), index.Rule(m), files[m.List].name
		for _, a := range index.Answers(&q, ^uint64(0)) {
			l.Answers = append(l.Answers, a.String())
		}
		matches[m.List] = append(matches[m.List], m)
		whose[m.List] = append(whose[m.List], i)
	}
	for list := range matches {
		found, err := files[list].locate(matches[list])
		if err != nil {
			return err
		}
		for j, at := range found {
			if l := &lines[whose[list][j]]; at.Number > 0 {
				l.Rule, l.Line = at.Text, at.Number
			}
		}
	}
	return c.print(io.out, lines)
}

// question reads the flags.
func (c matchCmd) question() (q blocklist.Question, err error) {
	if len(c.List)+len(c.Allow) == 0 {
		return q, usageError{"match: no list; name one with --list FILE"}
	}
	if len(c.List)+len(c.Allow) > blocklist.MaxLists {
		return q, usageError{fmt.Sprintf("match: %d lists, %d are the most", len(c.List)+len(c.Allow), blocklist.MaxLists)}
	}
	if slices.Contains(c.Names, "") {
		return q, usageError{"match: an empty name: one such as ads.example is needed"}
	}
	var ok bool
	if q.Type, ok = blocklist.ParseType(c.Type); !ok {
		return q, usageError{fmt.Sprintf("match: type %.20q: a DNS type such as AAAA is needed", c.Type)}
	}
	if c.ClientIP != "" {
		if q.ClientAddr, err = netip.ParseAddr(c.ClientIP); err != nil {
			return q, usageError{fmt.Sprintf("match: client %.50q: an address such as 192.168.1.7 is needed", c.ClientIP)}
		}
	}
	if c.ClientMAC != "" {
		if q.ClientMAC, err = devices.ParseMAC(c.ClientMAC); err != nil {
			return q, usageError{"match: " + err.Error()}
		}
	}
	q.ClientName, q.ClientTags = c.ClientName, c.ClientTag
	return q, nil
}

// listFile is a list that is read twice: for its rules, and for the lines of those
// that decided. What can be read only once, a pipe, is kept.
type listFile struct {
	name string
	text []byte
}

func openLists(names []string) (files []listFile, err error) {
	for _, name := range names {
		f := listFile{name: name}
		if at := slices.Index(names, name); at < len(files) {
			f = files[at] // the same one again
		} else if info, err := os.Stat(name); name == "-" || err == nil && !info.Mode().IsRegular() && !info.IsDir() {
			if f.text, err = readPipe(name); err != nil {
				return nil, err
			}
		}
		files = append(files, f)
	}
	return files, nil
}

func readPipe(name string) ([]byte, error) {
	in := os.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, blocklist.DefaultBytes+1)) // one more than is taken
	if text == nil {
		text = []byte{}
	}
	return text, err
}

func (l listFile) open() (io.ReadCloser, error) {
	if l.text != nil {
		return io.NopCloser(bytes.NewReader(l.text)), nil
	}
	return os.Open(l.name)
}

func (l listFile) locate(rules []blocklist.Match) ([]blocklist.Line, error) {
	f, err := l.open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return blocklist.Locate(f, rules)
}

// compile reads all lists and tells what was not understood.
func (c matchCmd) compile(files []listFile, talk io.Writer) (*blocklist.Index, error) {
	b := blocklist.NewBuilder(blocklist.Options{})
	for i, file := range files {
		src := blocklist.Source{Name: clean(file.name), Allow: i >= len(c.List)}
		if at := slices.IndexFunc(files, func(f listFile) bool { return f.name == file.name }); at < i {
			src.Name += fmt.Sprintf(" (%d)", i+1) // the same file may be named twice; a list's name may not
		}
		rep, err := addFile(b, src, file)
		for _, r := range rep.Rejects {
			fmt.Fprintf(talk, "netcurtain: not understood: %s\n", r)
		}
		if more := rep.Rejected - len(rep.Rejects); more > 0 {
			fmt.Fprintf(talk, "netcurtain: %s: and %d more\n", src.Name, more)
		}
		if errors.Is(err, blocklist.ErrEmpty) {
			fmt.Fprintf(talk, "netcurtain: %s holds no rule that is understood\n", src.Name)
			err = b.Empty(src)
		}
		if err != nil {
			return nil, err
		}
	}
	var out blocklist.Memory
	if err := b.Write(&out); err != nil {
		return nil, err
	}
	return blocklist.Open(out.Bytes())
}

func addFile(b *blocklist.Builder, src blocklist.Source, file listFile) (blocklist.Report, error) {
	f, err := file.open()
	if err != nil {
		return blocklist.Report{}, err
	}
	defer f.Close()
	return b.Add(src, f)
}

func (c matchCmd) print(out io.Writer, lines []matchLine) error {
	w := bufio.NewWriter(out)
	if c.JSON {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false) // a rule is read by people
		for _, l := range lines {
			if err := enc.Encode(l); err != nil {
				return err
			}
		}
		return w.Flush()
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, l := range lines {
		where := ""
		if l.List != "" {
			where = fmt.Sprintf("%s:%d", l.List, l.Line)
		}
		row := strings.Join([]string{clean(l.Name), l.Verdict, clean(where), clean(l.Rule), clean(strings.Join(l.Answers, " "))}, "\t")
		fmt.Fprintln(table, strings.TrimRight(row, "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return w.Flush()
}
