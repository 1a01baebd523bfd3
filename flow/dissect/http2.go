package dissect

import (
	"bytes"

	"golang.org/x/net/http2/hpack"
)

// readHTTP2 reads of a client's frames behind the preface (RFC 9113 §4.1) the first
// request's head, and reports whether it was there.
func readHTTP2(b []byte, r *Result) bool {
	const headers, padded, priority = 1, 0x08, 0x20
	r.Path = "PRI"
	if len(b) < len(http2Preface) {
		return false
	}
	for b = b[len(http2Preface):]; len(b) >= 9; {
		n, kind, flags := size24(b), b[3], b[4]
		if n > len(b)-9 {
			return false
		}
		block := reader{b: b[9 : 9+n]}
		b = b[9+n:]
		if kind != headers {
			continue
		}
		pad := 0
		if flags&padded != 0 {
			pad = block.u8()
		}
		if flags&priority != 0 {
			block.take(5)
		}
		if pad <= len(block.b) {
			readFields(block.b[:len(block.b)-pad], r)
		}
		return true
	}
	return false
}

// http2Settings knows the frame with which a server begins: settings of six bytes each,
// whose numbers are small, on no stream (RFC 9113 §6.5), and another frame behind it.
func http2Settings(b []byte) bool {
	if len(b) < 9+9 || b[0]|b[1] != 0 || b[2] == 0 || b[2]%6 != 0 || b[2] > 60 || b[3] != 4 || b[4] != 0 || string(b[5:9]) != "\x00\x00\x00\x00" {
		return false
	}
	n := 9 + int(b[2])
	for at := 9; at < min(n, len(b)-1); at += 6 {
		if b[at] != 0 || b[at+1] == 0 || b[at+1] > 9 {
			return false
		}
	}
	return len(b) == n || len(b) > n+4 && b[n+3] <= 9
}

// readFields reads a request's compressed fields (RFC 7541).
func readFields(block []byte, r *Result) {
	var method, path, credential string
	d := hpack.NewDecoder(4<<10, func(f hpack.HeaderField) {
		switch f.Name {
		case ":authority", "host":
			if r.ServerName == "" {
				r.name(hostHeader([]byte(f.Value)), "host")
			}
		case ":method":
			method = f.Value
		case ":path":
			path = f.Value
		case "authorization":
			credential = f.Value
		}
	})
	d.SetMaxStringLength(maxHead)
	_, _ = d.Write(block) // what was read before something that makes no sense is good
	if method != "" && len(method) <= 20 && httpMethod([]byte(method)) {
		r.Path = method + " " + pathClass([]byte(path))
	}
	if credential != "" {
		r.authorization("http", []byte(method), bytes.TrimSpace([]byte(credential)))
	}
}
