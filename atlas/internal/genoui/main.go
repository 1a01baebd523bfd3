// Command genoui makes the table of hardware address makers, atlas/makers.bin,
// from the public registries of the IEEE as Debian's package ieee-data has them.
//
//	go run ./atlas/internal/genoui /usr/share/ieee-data atlas/makers.bin
//
// The layout is explained in atlas/maker.go.
package main

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: genoui DIRECTORY-OF-REGISTRIES OUTPUT")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "genoui:", err)
		os.Exit(1)
	}
}

// assignment is a prefix of a hardware address and who has it.
type assignment struct {
	prefix uint64
	bits   int
	name   string
}

func run(dir, out string) error {
	var all []assignment
	for _, f := range []string{"oui.csv", "mam.csv", "oui36.csv", "iab.csv"} {
		as, err := read(filepath.Join(dir, f))
		if err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		all = append(all, as...)
	}
	table, err := encode(all)
	if err != nil {
		return err
	}
	fmt.Printf("%d assignments, %d octets\n", len(all), len(table))
	return os.WriteFile(out, table, 0o644)
}

func read(path string) ([]assignment, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.FieldsPerRecord = -1
	var as []assignment
	for {
		rec, err := r.Read()
		if err == io.EOF {
			return as, nil
		}
		if err != nil {
			return nil, err
		}
		if len(rec) < 3 || rec[0] == "Registry" {
			continue
		}
		digits := rec[1]
		b, err := hex.DecodeString(digits + strings.Repeat("0", 16-len(digits)))
		if err != nil {
			return nil, fmt.Errorf("assignment %q: %w", digits, err)
		}
		name := shorten(rec[2])
		if name == "" || name == "Private" || len(digits) == 6 && strings.HasPrefix(name, "IEEE Registration") {
			continue // divided further, or somebody who wants no name
		}
		bits := 4 * len(digits)
		as = append(as, assignment{binary.BigEndian.Uint64(b) >> (64 - bits), bits, name})
	}
}

// unify gives names that differ only in case and dots the spelling used most often.
func unify(all []assignment) {
	key := func(name string) string { return strings.ToLower(strings.ReplaceAll(name, ".", "")) }
	uses := map[string]int{}
	for _, a := range all {
		uses[a.name]++
	}
	best := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(uses)) {
		if k := key(name); uses[name] > uses[best[k]] {
			best[k] = name
		}
	}
	for i := range all {
		all[i].name = best[key(all[i].name)]
	}
}

// encode lays the table out; maker.go reads it.
func encode(all []assignment) ([]byte, error) {
	unify(all)
	uses := map[string]int{}
	for _, a := range all {
		uses[a.name]++
	}
	names := slices.SortedFunc(maps.Keys(uses), cmp.Compare)
	if len(names) > 1<<16 {
		return nil, fmt.Errorf("%d names do not fit 16 bits", len(names))
	}
	index := map[string]uint16{}
	for i, n := range names {
		index[n] = uint16(i)
	}
	var b bytes.Buffer
	header := func(v int) { _ = binary.Write(&b, binary.BigEndian, uint32(v)) }
	groups := map[int][]assignment{}
	for _, a := range all {
		groups[a.bits] = append(groups[a.bits], a)
	}
	for _, bits := range []int{24, 28, 36} {
		g := groups[bits]
		slices.SortStableFunc(g, func(a, b assignment) int { return cmp.Compare(a.prefix, b.prefix) })
		g = slices.CompactFunc(g, func(a, b assignment) bool { return a.prefix == b.prefix })
		groups[bits] = g
		header(len(g))
	}
	header(len(names))
	for _, bits := range []int{24, 28, 36} {
		width := (bits + 7) / 8
		for _, a := range groups[bits] {
			var p [8]byte
			binary.BigEndian.PutUint64(p[:], a.prefix)
			b.Write(p[8-width:])
			_ = binary.Write(&b, binary.BigEndian, index[a.name])
		}
	}
	var text bytes.Buffer
	for i, n := range names {
		if i%stride == 0 {
			header(text.Len())
		}
		text.WriteByte(byte(len(n)))
		text.WriteString(n)
	}
	b.Write(text.Bytes())
	return b.Bytes(), nil
}

// stride is how many names share one offset.
const stride = 16

// maxName bounds a name, in octets.
const maxName = 26

// legalForms say only which kind of company somebody is; dots are left out.
const legalForms = " co ltd limited inc incorporated corp corporation company llc lp plc gmbh mbh kg kgaa ag ug se " +
	"coltd coltd, sa sas sarl srl spa sl slu bv nv ab as a/s aps oy oyj kk pty pte pvt private sdn bhd bhd, doo zoo sro ltda lda " +
	"cojsc jsc ooo llp & und and the zrt kft eood ood ead ad group holding holdings int'l intl international "

// shorten makes a company's name fit a page: without its legal form, without
// shouting, without what is in brackets, at most maxName octets.
func shorten(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError || unicode.IsControl(r) || strings.ContainsRune("<>\"", r):
			return -1
		case r == ',' || r == '，' || r == ';' || r == '_':
			return ' '
		}
		return r
	}, s)
	if i := strings.IndexAny(s, "(（"); i > 0 {
		s = s[:i]
	}
	shouting := s == strings.ToUpper(s)
	words := strings.Fields(s)
	for len(words) > 0 && isLegalForm(words[len(words)-1]) {
		words = words[:len(words)-1]
	}
	if shouting {
		for i, w := range words {
			if len(w) > 4 {
				words[i] = w[:1] + strings.ToLower(w[1:])
			}
		}
	}
	for len(words) > 1 && len(strings.Join(words, " ")) > maxName {
		words = words[:len(words)-1]
	}
	s = strings.Trim(strings.Join(words, " "), " -.&/")
	if len(s) > maxName {
		s = strings.ToValidUTF8(s[:maxName], "")
	}
	return s
}

func isLegalForm(w string) bool {
	w = strings.ToLower(strings.ReplaceAll(w, ".", ""))
	return w == "" || strings.Contains(legalForms, " "+w+" ")
}
