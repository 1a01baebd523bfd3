package main

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/netcurtain/netcurtain/observe/inspect"
)

// truth is one row of expected.tsv; the data's own README explains the columns.
type truth struct {
	capture, class       string
	key                  key
	text                 string // the flow, for people
	protocol, encryption string
	nameKind, name       string
	tls, quic            string
	weak                 bool
}

// key is a flow without its direction.
type key struct {
	l4   string
	a, b netip.AddrPort
}

func newKey(l4, src, sport, dst, dport string) (key, error) {
	a, err := netip.ParseAddrPort(joinPort(src, sport))
	if err != nil {
		return key{}, err
	}
	b, err := netip.ParseAddrPort(joinPort(dst, dport))
	if err != nil {
		return key{}, err
	}
	return orderedKey(l4, a, b), nil
}

func orderedKey(l4 string, a, b netip.AddrPort) key {
	a = netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
	b = netip.AddrPortFrom(b.Addr().Unmap().WithZone(""), b.Port())
	if b.Compare(a) < 0 {
		a, b = b, a
	}
	return key{strings.ToLower(l4), a, b}
}

func joinPort(addr, port string) string {
	if strings.Contains(addr, ":") {
		return "[" + addr + "]:" + port
	}
	return addr + ":" + port
}

func keyOf(r inspect.Row) (key, error) {
	return newKey(r.L4, r.Src, strconv.Itoa(int(r.SrcPort)), r.Dst, strconv.Itoa(int(r.DstPort)))
}

// robustness rows only ask that nothing crashes or hangs.
func (t truth) robustness() bool { return t.protocol == "*" }

// classOf is the middle part of a capture's file name.
func classOf(capture string) string {
	parts := strings.SplitN(capture, "_", 3)
	if len(parts) < 3 {
		return "other"
	}
	return parts[1]
}

func readTruth(path string) ([]truth, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []truth
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	var columns map[string]int
	for n := 1; s.Scan(); n++ {
		fields := strings.Split(s.Text(), "\t")
		if columns == nil {
			columns = map[string]int{}
			for i, c := range fields {
				columns[c] = i
			}
			continue
		}
		at := func(column string) string {
			if i, ok := columns[column]; ok && i < len(fields) {
				return fields[i]
			}
			return ""
		}
		t := truth{
			capture: at("pcap"), class: classOf(at("pcap")), protocol: at("protocol"), encryption: at("encryption"),
			nameKind: at("name_kind"), name: at("name"), tls: at("tls_version"), quic: at("quic_version"),
			weak: at("confidence") == "weak",
		}
		t.text = fmt.Sprintf("%s %s > %s", strings.ToLower(at("l4")), joinPort(at("src"), at("sport")), joinPort(at("dst"), at("dport")))
		if t.protocol != "*" {
			if t.key, err = newKey(at("l4"), at("src"), at("sport"), at("dst"), at("dport")); err != nil {
				return nil, fmt.Errorf("%s:%d: %w", path, n, err)
			}
		}
		all = append(all, t)
	}
	return all, s.Err()
}
