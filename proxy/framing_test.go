package proxy

import (
	"strings"
	"testing"
)

// TestFraming: what has two readings is found at the octet where that shows, however
// it is cut into pieces; all else passes.
func TestFraming(t *testing.T) {
	const get = "GET / HTTP/1.1\r\nHost: m.example\r\n"
	for name, c := range map[string]struct{ before, from string }{
		"nothing":                        {"", ""},
		"a request":                      {get + "\r\n", ""},
		"two":                            {get + "\r\n\r\n\r\n" + get + "\r\n", ""},
		"ended by LF":                    {"GET / HTTP/1.1\nHost: m.example\n\nGET /2 HTTP/1.1\n\n", ""},
		"a body that looks like a head":  {get + "Content-Length: 40\r\n\r\nX: a\r\n b\r\nContent-Length: 1\r\nTransfer-Enc" + get + "\r\n", ""},
		"chunks that look like one":      {get + "transfer-encoding: chunked\r\n\r\n8;a=b\r\nX: a\r\n b\r\nA \r\n0123456789\r\n0\r\nT: a\r\n\r\n" + get + "\r\n", ""},
		"no number, net/http's business": {get + "Content-Length: +1\r\n\r\n" + get + "X: a\r\n b\r\n\r\n", ""},
		"no size, net/http's business":   {get + "Transfer-Encoding: chunked\r\n\r\n0x1\r\n" + get + "X: a\r\n b\r\n\r\n", ""},
		"another protocol":               {get + "Upgrade: websocket\r\n\r\n\x81\n \n \n", ""},
		"a tunnel":                       {"CONNECT m.example:443 HTTP/1.1\r\n\r\n\x16\n \n", ""},
		"a long line":                    {get + "X: " + strings.Repeat("Content-Length: 1 ", 1000) + "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get + "\r\n", ""},

		"length and coding":          {get + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "\r\n0\r\n\r\n" + get},
		"coding and length":          {get + "TRANSFER-ENCODING:chunked\r\nX: a\r\ncontent-length:0\r\n", "\r\n0\r\n\r\n"},
		"coding and no number":       {get + "Transfer-Encoding: chunked\r\nContent-Length: x\r\n", "\r\n0\r\n\r\n"},
		"a coding in HTTP/1.0":       {"POST /" + strings.Repeat("x", 200) + " HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", "\r\n0\r\n\r\n"},
		"the same length twice":      {get + "Content-Length: 1\r\n", "Content-Length: 1\r\n\r\na" + get},
		"a folded line":              {get + "X: a\r\n", " b\r\n\r\n"},
		"a folded line after LF":     {get + "X: a\n", "\tb\r\n\r\n"},
		"a folded request line":      {"GET / HTTP/1.1\r\n", " Host: m.example\r\n\r\n"},
		"in the second request":      {get + "Content-Length: 3\r\n\r\nabc" + get + "X: a\r\n", " b\r\n\r\n"},
		"in the one after chunks":    {get + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n" + get + "X: a\r\n", " b\r\n\r\n"},
		"in the one after a trailer": {get + "Transfer-Encoding: chunked\r\n\r\n0\r\nT: a\r\n\r\n" + get + "X: a\r\n", " b\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			text := c.before + c.from
			for _, piece := range []int{1, 2, 3, 7, 64, len(text) + 1} {
				f, took := framing{state: inHead}, 0
				for took < len(text) && !f.bad {
					k := f.follow([]byte(text[took:min(len(text), took+piece)]))
					took += k
				}
				if f.bad != (c.from != "") || took != len(c.before) && c.from == "" {
					t.Fatalf("in pieces of %d: bad %v after %q", piece, f.bad, text[:took])
				}
				// What is in the making may have been passed on already; more must not have been.
				if c.from != "" && (took > len(c.before)+len("Content-Length: 1\r") || !strings.HasPrefix(text, text[:took])) {
					t.Errorf("in pieces of %d: %q was passed on", piece, text[:took])
				}
			}
		})
	}
	var idle framing
	if n := idle.follow([]byte("\x16\x03\x01\n \n")); n != 6 || idle.bad {
		t.Error("what is not served as HTTP is not followed")
	}
}

// FuzzFraming: however the octets are cut, the answer is the same, and what is
// taken is never more than there is.
func FuzzFraming(f *testing.F) {
	for _, shape := range shapes {
		f.Add([]byte(strings.ReplaceAll(shape, "{}", "/")), uint8(3))
	}
	f.Fuzz(func(t *testing.T, text []byte, piece uint8) {
		whole := framing{state: inHead}
		if n := whole.follow(text); n > len(text) || !whole.bad && n != len(text) {
			t.Fatalf("%d of %d, bad %v", n, len(text), whole.bad)
		}
		parts := framing{state: inHead}
		for at := 0; at < len(text) && !parts.bad; {
			end := min(len(text), at+int(piece)+1)
			n := parts.follow(text[at:end])
			if n > end-at || !parts.bad && n != end-at {
				t.Fatalf("%d of %d, bad %v", n, end-at, parts.bad)
			}
			at += n
		}
		if whole.bad != parts.bad {
			t.Fatalf("whole: bad %v; in pieces of %d: %v", whole.bad, int(piece)+1, parts.bad)
		}
	})
}
