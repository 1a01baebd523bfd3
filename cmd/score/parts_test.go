package main

import (
	"bytes"
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/netcurtain/netcurtain/observe/inspect"
)

// frame is one frame of a capture, and what is needed to leave it out.
type frame struct {
	info gopacket.CaptureInfo
	data []byte
	talk string // its two ends, in order
	up   bool   // from the end that was heard first
	syn  bool
	said int // octets of payload
}

func framesOf(t *testing.T, file string) (layers.LinkType, []frame) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var src interface {
		ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
		LinkType() layers.LinkType
	}
	if len(b) > 0 && b[0] == 0x0a {
		src, err = pcapgo.NewNgReader(bytes.NewReader(b), pcapgo.DefaultNgReaderOptions)
	} else {
		src, err = pcapgo.NewReader(bytes.NewReader(b))
	}
	if err != nil {
		return 0, nil // not one that gopacket reads
	}
	var all []frame
	opener := map[string]string{}
	for {
		data, info, err := src.ReadPacketData()
		if err != nil {
			return src.LinkType(), all
		}
		f := frame{info: info, data: bytes.Clone(data)}
		p := gopacket.NewPacket(f.data, src.LinkType(), gopacket.NoCopy)
		if n, tr := p.NetworkLayer(), p.TransportLayer(); n != nil && tr != nil {
			from := n.NetworkFlow().Src().String() + " " + tr.TransportFlow().Src().String()
			to := n.NetworkFlow().Dst().String() + " " + tr.TransportFlow().Dst().String()
			f.talk = min(from, to) + " " + max(from, to)
			opener[f.talk] = cmp.Or(opener[f.talk], from)
			f.up, f.said = opener[f.talk] == from, len(tr.LayerPayload())
			if x, ok := tr.(*layers.TCP); ok {
				f.syn = x.SYN
			}
		}
		all = append(all, f)
	}
}

// Captures rarely hold all: they begin in the middle, hold one side, or the first
// octets of each packet. What can be known from a part must be; the floors are what
// was reached, and nothing is made up.
func TestPartsOfCaptures(t *testing.T) {
	dir := filepath.Join(cmp.Or(os.Getenv("NETCURTAIN_TRUTH"), "../../../shared/data"), "truth")
	want, err := readTruth(filepath.Join(dir, "expected.tsv"))
	if err != nil {
		t.Skipf("no captures with known truth: %v (NETCURTAIN_TRUTH names the folder of the test data)", err)
	}
	cut := func(n int) func([]frame) []frame {
		return func(all []frame) []frame {
			for i := range all {
				all[i].data = all[i].data[:min(n, len(all[i].data))]
			}
			return all
		}
	}
	only := func(keep func(frame) bool) func([]frame) []frame {
		return func(all []frame) (kept []frame) {
			for _, f := range all {
				if keep(f) {
					kept = append(kept, f)
				}
			}
			return kept
		}
	}
	for name, tc := range map[string]struct {
		part  func([]frame) []frame
		floor float64 // share of the flows still there whose protocol is known
	}{
		"without SYN":       {only(func(f frame) bool { return !f.syn }), 1},
		"cut to 200 octets": {cut(200), 1},
		"cut to 96 octets":  {cut(96), 0.99},
		"who opens":         {only(func(f frame) bool { return f.up }), 0.99},
		"who answers":       {only(func(f frame) bool { return !f.up }), 0.96},
		"in pairs turned round": {func(all []frame) []frame {
			for i := 0; i+1 < len(all); i += 2 {
				a, b := &all[i], &all[i+1]
				a.data, b.data, a.info.Length, b.info.Length = b.data, a.data, b.info.Length, a.info.Length
			}
			return all
		}, 0.99},
		"without the first words": {func(all []frame) []frame {
			begun := map[string]bool{}
			return only(func(f frame) bool {
				first := f.said > 0 && !begun[f.talk]
				begun[f.talk] = begun[f.talk] || first
				return !first
			})(all)
		}, 0.96},
	} {
		t.Run(name, func(t *testing.T) {
			res := &result{classes: map[string]*score{}}
			flows, last := map[key][]inspect.Row{}, ""
			for _, w := range want { // in the order of captures
				if w.robustness() {
					continue
				}
				if w.capture != last {
					last = w.capture
					link, frames := framesOf(t, filepath.Join(dir, "pcaps", w.capture))
					flows = inspected(t, link, tc.part(frames))
				}
				if len(flows[w.key]) > 0 {
					res.judge(res.class(w.class), w, flows[w.key])
				}
			}
			sum := res.total()
			share := float64(sum.Protocol) / float64(max(sum.OfProto, 1))
			t.Logf("%d flows are left, of which %.1f %% are known; %d of %d names", sum.Rows, 100*share, sum.Names, sum.OfNames)
			if share < tc.floor || sum.Rows < 500 || sum.Invented > 0 {
				t.Errorf("%.4f of the flows are known, want %.2f; %d names are invented", share, tc.floor, sum.Invented)
				for _, m := range res.misses {
					if m.what == "protocol" || strings.HasPrefix(m.what, "invented") {
						t.Logf("%s %s: %s %q, got %q", m.capture, m.flow, m.what, m.want, m.got)
					}
				}
			}
		})
	}
}

// inspected writes frames as a capture and reads it.
func inspected(t *testing.T, link layers.LinkType, frames []frame) map[key][]inspect.Row {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriterNanos(&b)
	if err := w.WriteFileHeader(1<<18, link); err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		f.info.CaptureLength = len(f.data)
		if err := w.WritePacket(f.info, f.data); err != nil {
			t.Fatal(err)
		}
	}
	flows := map[key][]inspect.Row{}
	if _, err := inspect.Read(t.Context(), "part", &b, inspect.Config{}, func(r inspect.Row) error {
		if k, err := keyOf(r); err == nil {
			flows[k] = append(flows[k], r)
		}
		return nil
	}); err != nil {
		t.Logf("a capture that is not understood: %v", err)
	}
	return flows
}
