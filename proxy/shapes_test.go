package proxy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/policy"
)

// shapes are requests as clients, broken ones and attackers write them: what h1spec asks
// for, what RFC 9112 forbids, and the shapes by which one request is hidden in another
// (Linhart et al., "HTTP Request Smuggling", 2005; Kettle, "HTTP Desync Attacks", 2019).
// "{}" is a path of the shape's own; "{}/evil" is the request that is hidden.
var shapes = map[string]string{
	// As it should be.
	"get":                          "GET {} HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"head":                         "HEAD {} HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"options":                      "OPTIONS * HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"http/1.0":                     "GET {} HTTP/1.0\r\n\r\n",
	"http/1.0 keep-alive":          "GET {} HTTP/1.0\r\nHost: m.example\r\nConnection: keep-alive\r\n\r\nGET {}/2 HTTP/1.0\r\nHost: m.example\r\n\r\n",
	"pipelined":                    "GET {}/1 HTTP/1.1\r\nHost: m.example\r\n\r\nGET {}/2 HTTP/1.1\r\nHost: m.example\r\n\r\nGET {}/3 HTTP/1.1\r\nHost: m.example\r\nConnection: close\r\n\r\n",
	"body, then pipelined":         "POST {}/1 HTTP/1.1\r\nHost: m.example\r\nContent-Length: 3\r\n\r\nabcGET {}/2 HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"chunks, then pipelined":       "POST {}/1 HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET {}/2 HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a trailer":                    "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n",
	"a trailer that is framing":    "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nContent-Length: 40\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a chunk's extension":          "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
	"upper-case hex":               "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
	"expect":                       "POST {} HTTP/1.1\r\nHost: m.example\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
	"expect something else":        "POST {} HTTP/1.1\r\nHost: m.example\r\nExpect: a-miracle\r\nContent-Length: 3\r\n\r\nabc",
	"upgrade to h2c":               "GET {} HTTP/1.1\r\nHost: m.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
	"an unknown method":            "BREW {} HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"an empty field":               "GET {} HTTP/1.1\r\nHost: m.example\r\nX-Empty:\r\n\r\n",
	"spaces around a value":        "GET {} HTTP/1.1\r\nHost: m.example\r\nX-A:\t b \t\r\n\r\n",
	"the same field twice":         "GET {} HTTP/1.1\r\nHost: m.example\r\nAccept: a\r\nAccept: b\r\n\r\n",
	"lengths that agree":           "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
	"90 fields":                    "GET {} HTTP/1.1\r\nHost: m.example\r\n" + strings.Repeat("X-A: b\r\n", 90) + "\r\n",
	"a query with everything":      "GET {}?a=%00&b=%2f..%2f&c={}|^ HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a long target":                "GET {}?" + strings.Repeat("a", 3000) + " HTTP/1.1\r\nHost: m.example\r\n\r\nGET {}/2 HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a longer target, pipelined":   "GET {}?" + strings.Repeat("a", 7000) + " HTTP/1.1\r\nHost: m.example\r\n\r\nGET {}/2 HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"an octet above 127":           "GET {} HTTP/1.1\r\nHost: m.example\r\nX-A: \xe9\r\n\r\n",
	"a body where none is usual":   "GET {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 3\r\n\r\nabcGET {}/2 HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"connection names a field":     "GET {} HTTP/1.1\r\nHost: m.example\r\nConnection: X-Gone, close\r\nX-Gone: 1\r\n\r\n",
	"an empty line before":         "\r\nGET {} HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"several empty lines before":   "\r\n\r\n\r\n\nGET {} HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"lines that end with LF alone": "GET {} HTTP/1.1\nHost: m.example\n\n",

	// Lengths and codings that two readers may read differently.
	"TE and CL":                         "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"CL and TE":                         "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a space before the colon":          "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 5\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a tab before the colon":            "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 5\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a tab before the coding":           "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\nGET {}/2 HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a vertical tab before the coding":  "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 5\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"xchunked":                          "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 5\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"chunked, identity":                 "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 5\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"identity, chunked":                 "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 5\r\nTransfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"gzip, chunked":                     "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
	"chunked twice":                     "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"quoted chunked":                    "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 5\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a coding in upper case":            "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\nGET {}/2 HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a coding on a folded line":         "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a coding after a bare CR":          "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 5\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a coding after a bare LF":          "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 5\r\nX: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a coding after a NUL":              "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 5\r\nX\x00Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a coding with an underscore":       "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 5\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\nGET {}/2 HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a coding in HTTP/1.0":              "POST {} HTTP/1.0\r\nHost: m.example\r\nConnection: keep-alive\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET {}/evil HTTP/1.0\r\nHost: m.example\r\n\r\n",
	"lengths that differ":               "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"lengths in one field":              "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 0, 44\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"equal lengths in one field":        "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 3, 3\r\n\r\nabcGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a length with a plus":              "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: +3\r\n\r\nabcGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a length in hex":                   "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 0x3\r\n\r\nabcGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a length with zeros":               "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 0003\r\n\r\nabcGET {}/2 HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a length of nothing":               "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: \r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a negative length":                 "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: -1\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a length beyond all":               "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 99999999999999999999\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a length with a space before":      "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length : 44\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a length on a folded line":         "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length:\r\n 44\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a chunk's size with 0x":            "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a chunk's size with a plus":        "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a chunk's size with a space":       "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\nGET {}/2 HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a chunk's size that overflows":     "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a chunk's size with a bare CR":     "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\n3\rabc\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a chunk's size ended by LF":        "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\nGET {}/2 HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a chunk that is longer":            "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a chunk's end without CRLF":        "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"an extension with a bare LF":       "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\n3;\nxx\r\nabc\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"an extension that hides a request": "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\n2;\nxx\r\n40\r\n0\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"an endless extension":              "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\n3;" + strings.Repeat("a", 20<<10) + "\r\nabc\r\n0\r\n\r\n",
	"chunks of one octet":               "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\na\r\n", 500) + "0\r\n\r\n",
	"no last chunk":                     "POST {} HTTP/1.1\r\nHost: m.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
	"less body than said":               "POST {} HTTP/1.1\r\nHost: m.example\r\nContent-Length: 50\r\n\r\nabc",
	"expect, and no body":               "GET {} HTTP/1.1\r\nHost: m.example\r\nExpect: 100-continue\r\n\r\nGET {}/2 HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"expect with a space before":        "POST {} HTTP/1.1\r\nHost: m.example\r\nExpect : 100-continue\r\nContent-Length: 3\r\n\r\nabc",

	// Lines that are none.
	"a folded field":              "GET {} HTTP/1.1\r\nHost: m.example\r\nX: a\r\n b\r\n\r\n",
	"a folded first field":        "GET {} HTTP/1.1\r\n Host: m.example\r\nX: a\r\n\r\n",
	"a bare CR in a value":        "GET {} HTTP/1.1\r\nHost: m.example\r\nX: a\rHost: b.example\r\n\r\n",
	"a NUL in a name":             "GET {} HTTP/1.1\r\nHost: m.example\r\nX\x00Y: a\r\n\r\n",
	"a NUL in a value":            "GET {} HTTP/1.1\r\nHost: m.example\r\nX: a\x00b\r\n\r\n",
	"a NUL in the target":         "GET {}\x00 HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a field without a colon":     "GET {} HTTP/1.1\r\nHost: m.example\r\nnonsense\r\n\r\n",
	"a field without a name":      "GET {} HTTP/1.1\r\nHost: m.example\r\n: a\r\n\r\n",
	"a space in a name":           "GET {} HTTP/1.1\r\nHost: m.example\r\nX Y: a\r\n\r\n",
	"no host":                     "GET {} HTTP/1.1\r\n\r\n",
	"two hosts":                   "GET {} HTTP/1.1\r\nHost: m.example\r\nHost: b.example\r\n\r\n",
	"the same host twice":         "GET {} HTTP/1.1\r\nHost: m.example\r\nHost: m.example\r\n\r\n",
	"a host with a path":          "GET {} HTTP/1.1\r\nHost: m.example/x\r\n\r\n",
	"a host with a user":          "GET {} HTTP/1.1\r\nHost: x@m.example\r\n\r\n",
	"a host with a space":         "GET {} HTTP/1.1\r\nHost: m.example b.example\r\n\r\n",
	"an empty host":               "GET {} HTTP/1.1\r\nHost:\r\n\r\n",
	"a host before a space":       "GET {} HTTP/1.1\r\nHost : m.example\r\n\r\n",
	"absolute form":               "GET http://m.example{} HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"absolute form, another host": "GET http://b.example{} HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"authority form":              "CONNECT m.example:80 HTTP/1.1\r\nHost: m.example:80\r\n\r\n",
	"two spaces":                  "GET  {} HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a tab between":               "GET\t{}\tHTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a space in the target":       "GET {} x HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a space before the method":   " GET {} HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a space after the version":   "GET {} HTTP/1.1 \r\nHost: m.example\r\n\r\n",
	"a method in lower case":      "get {} HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a version in lower case":     "GET {} http/1.1\r\nHost: m.example\r\n\r\n",
	"HTTP/1.2":                    "GET {} HTTP/1.2\r\nHost: m.example\r\n\r\n",
	"HTTP/1.10":                   "GET {} HTTP/1.10\r\nHost: m.example\r\n\r\n",
	"HTTP/2.0":                    "GET {} HTTP/2.0\r\nHost: m.example\r\n\r\n",
	"HTTP/0.9":                    "GET {}\r\n",
	"the preface of HTTP/2":       "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
	"no target":                   "GET HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"2000 fields":                 "GET {} HTTP/1.1\r\nHost: m.example\r\n" + strings.Repeat("X-A: b\r\n", 2000) + "\r\n",
	"a field of 30 kB":            "GET {} HTTP/1.1\r\nHost: m.example\r\nX-A: " + strings.Repeat("b", 30<<10) + "\r\n\r\n",
	"a field of 100 kB":           "GET {} HTTP/1.1\r\nHost: m.example\r\nX-A: " + strings.Repeat("b", 100<<10) + "\r\n\r\n",
	"a target of 100 kB":          "GET {}" + strings.Repeat("b", 100<<10) + " HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a head that never ends":      "GET {} HTTP/1.1\r\nHost: m.example\r\nX-A: b\r\n",
	"rubbish after a request":     "GET {}/1 HTTP/1.1\r\nHost: m.example\r\n\r\n\x00\x01\x02\x03\r\n\r\nGET {}/evil HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"rubbish after an upgrade":    "GET {} HTTP/1.1\r\nHost: m.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nGET {}/2 HTTP/1.1\r\nHost: m.example\r\n\r\n",
	"a reserved user of hop":      "GET {} HTTP/1.1\r\nHost: m.example\r\nConnection: Host, Content-Length\r\nContent-Length: 3\r\n\r\nabcGET {}/2 HTTP/1.1\r\nHost: m.example\r\n\r\n",
}

// witnessed are servers that note the requests that they serve.
type witnessed struct {
	at netip.AddrPort
	// of gives the requests below a path, in order, once all of them have ended.
	of func(path string) []string
}

// TestShapes sends each shape to real servers, and to them through us. Through us a server
// serves what it serves by itself, or the first of it and the rest is refused; and policy was
// asked about every request that any server ever serves. What RFC 9112 allows and one of
// the servers refuses all the same may reach it, for we say it plainly.
func TestShapes(t *testing.T) {
	allowed := []string{"an empty host", "a tab before the coding", "an empty line before", "several empty lines before"}
	servers := map[string]witnessed{"net/http": witnessedGo(t)}
	if n := witnessedNginx(t); n.of != nil {
		servers["nginx"] = n
	}
	var judged sync.Map // of path to *atomic.Int64
	l := newLab(t, func(c *Config) {
		c.PeekTimeout = 2 * time.Second
		c.Decider = deciderFunc(func(q policy.Query) policy.Verdict {
			if q.Layer == policy.LayerHTTP {
				_, path, _ := strings.Cut(q.Path, " ")
				n, _ := judged.LoadOrStore(path, new(atomic.Int64))
				n.(*atomic.Int64).Add(1)
			}
			return policy.Verdict{}
		})
	})
	// Sent all at once, for most of the time is spent waiting for more to come.
	var sent sync.WaitGroup
	var mu sync.Mutex
	through := map[[2]string]string{}
	atATime := make(chan struct{}, 128)
	for name, shape := range shapes {
		for server, origin := range servers { // paths of one length, for lengths are what this is about
			sent.Go(func() {
				atATime <- struct{}{}
				defer func() { <-atATime }()
				say(t, origin.at.String(), "", strings.ReplaceAll(shape, "{}", itself+pathOf(name)))
				heard := say(t, fmt.Sprintf("127.0.0.1:%d", l.port), l.sourceFor(origin.at), strings.ReplaceAll(shape, "{}", proxied+pathOf(name)))
				mu.Lock()
				through[[2]string{name, server}] = heard
				mu.Unlock()
			})
		}
	}
	sent.Wait()
	for name := range shapes {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(name, "empty line") && len(servers) == 1 {
				t.Skip("nginx ignores them (RFC 9112 §2.2), and is not installed")
			}
			asked := 0
			if n, ok := judged.Load(proxied + pathOf(name)); ok {
				asked = int(n.(*atomic.Int64).Load())
			}
			for server, origin := range servers {
				got, heard := origin.of(proxied+pathOf(name)), through[[2]string{name, server}]
				asked -= len(got)
				alone := origin.of(itself + pathOf(name))
				whole := slices.Equal(got, alone)
				part := len(got) <= len(alone) && slices.Equal(got, alone[:len(got)])
				// nginx may answer a request whose body then turns out to be none.
				early := len(got) == 1 && strings.HasPrefix(got[0], "POST") && refusedIn(heard)
				if !whole && !early && !slices.Contains(allowed, name) && !(part && refusedIn(heard)) {
					t.Errorf("by itself %s serves %q\nthrough us %q\nand the client hears %.300q", server, alone, got, heard)
				}
			}
			if asked < 0 && name != "HTTP/0.9" { // which is judged by its address, as all that is no HTTP/1
				t.Errorf("%d requests were served that policy was not asked about", -asked)
			}
		})
	}
}

// Where a shape goes by itself, and through us.
const itself, proxied = "/itself/", "/proxy1/"

// pathOf is the path of a shape's own.
func pathOf(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
}

// refusedIn reports whether what came back ends in an error, or in the end.
func refusedIn(answer string) bool {
	for _, status := range []string{" 400 ", " 403 ", " 413 ", " 414 ", " 417 ", " 431 ", " 501 ", " 502 ", " 505 "} {
		if strings.Contains(answer, status) {
			return true
		}
	}
	return strings.HasSuffix(answer, ended)
}

// ended stands for the end of a connection.
const ended = "<end>"

// sourceFor is the address from which what is dialled is meant for dst.
func (l *lab) sourceFor(dst netip.AddrPort) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.dsts, dst); i >= 0 {
		return fmt.Sprintf("127.9.0.%d", i)
	}
	l.dsts = append(l.dsts, dst)
	return fmt.Sprintf("127.9.0.%d", len(l.dsts)-1)
}

// say sends text and gives what comes back until the end, or until nothing more does.
func say(t *testing.T, to, from, text string) string {
	d := net.Dialer{}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial("tcp", to)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer c.Close()
	go io.WriteString(c, text)
	var got bytes.Buffer
	buf := make([]byte, 4096)
	for wait := 8 * time.Second; ; wait = 3 * time.Second { // some are never answered
		c.SetReadDeadline(time.Now().Add(wait))
		n, err := c.Read(buf)
		got.Write(buf[:n])
		if isTimeout(err) {
			return got.String()
		}
		if err != nil {
			return got.String() + ended
		}
	}
}

// witnessedGo is Go's own server.
func witnessedGo(t *testing.T) witnessed {
	var mu sync.Mutex
	var all []string
	var busy atomic.Int64
	s := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		busy.Add(1)
		defer busy.Add(-1)
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return // it was not a whole one, and nothing is made of it
		}
		mu.Lock()
		all = append(all, fmt.Sprintf("%s %s %s", r.Method, r.RequestURI, cmp.Or(r.Host, "-")))
		mu.Unlock()
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(ln)
	t.Cleanup(func() { s.Close() })
	return witnessed{addrPort(ln.Addr()), func(path string) []string {
		for deadline := time.Now().Add(patient); busy.Load() > 0 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		mu.Lock()
		defer mu.Unlock()
		return below(path, all, addrPort(ln.Addr()))
	}}
}

// witnessedNginx is Debian's nginx.
func witnessedNginx(t *testing.T) (none witnessed) {
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		if nginx, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Log("without nginx, which is not installed: only Go's own server is compared with")
			return none
		}
	}
	dir := t.TempDir()
	port := freePort(t)
	conf := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error crit;
events { worker_connections 1024; }
http {
	log_format said '$status $request_method $request_uri $http_host';
	access_log %[1]s/access said;
	client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
	server { listen 127.0.0.1:%[2]d; client_max_body_size 0; location / { return 200 "ok"; } }
}
`, dir, port)
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nginx, "-p", dir, "-e", filepath.Join(dir, "error"), "-c", filepath.Join(dir, "conf"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	for deadline := time.Now().Add(patient); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", at.String())
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			said, _ := os.ReadFile(filepath.Join(dir, "error"))
			t.Fatalf("nginx does not start: %v %s", err, said)
		}
	}
	return witnessed{at, func(path string) []string {
		b, err := os.ReadFile(filepath.Join(dir, "access"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		var served []string
		for line := range strings.Lines(string(b)) {
			if status, rest, _ := strings.Cut(strings.TrimSpace(line), " "); status == "200" || status == "304" {
				served = append(served, rest)
			}
		}
		return below(path, served, at)
	}}
}

// below picks the requests below path, and takes it out of them.
func below(path string, all []string, at netip.AddrPort) (out []string) {
	for _, r := range all {
		if strings.Contains(r, path+" ") || strings.Contains(r, path+"/") || strings.Contains(r, path+"?") {
			r = strings.ReplaceAll(r, path, "")
			// A client without a Host field is given the address that it went to.
			out = append(out, strings.Replace(r, " "+at.String(), " -", 1))
		}
	}
	return out
}
