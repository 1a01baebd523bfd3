package dissect

import (
	"bytes"
)

// maxHead is how much of a request's head is waited for.
const maxHead = 8 << 10

// http2Preface opens HTTP/2 without an upgrade (RFC 9113 §3.4).
const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// readHTTP knows HTTP/1 by its request line or its status line, HTTP/2 by its preface.
func readHTTP(v *view, r *Result) state {
	req := v.up
	if isStatusLine(v.up) && startsRequest(v.down) != no { // the capture has the sides the other way round
		req = v.down
	}
	for len(req) > 2 && req[0] == '\r' && req[1] == '\n' { // an empty line before is forgiven (RFC 9112 §2.2)
		req = req[2:]
	}
	if hasPrefixSoFar(req, http2Preface) {
		r.readable("HTTP/2 without TLS")
		return finalIf(readHTTP2(req, r))
	}
	switch startsRequest(req) {
	case maybe:
		return maybe
	case no:
		return onlyAnswer(v, r)
	}
	r.readable("HTTP without TLS: every word can be read on the way")
	head, rest, complete := cutHead(req)
	if !complete && len(req) < maxHead {
		readRequest(r, head, nil)
		return yes
	}
	readRequest(r, head, rest)
	if bytes.HasPrefix(head, []byte("CONNECT ")) {
		return v.tunnel(r, rest, "HTTP CONNECT")
	}
	if homeKit(r.Path, head) {
		return pairing(r, req)
	}
	if soapAction(head) != nil {
		return control(r, req)
	}
	if r.Reason == whyWebSocket {
		return webSocket(r, rest)
	}
	if r.App == "http" && r.Credentials == "" && head[0] != 'G' && textBody(head) && len(rest) < 512 && bodyMissing(head, rest) {
		return yes // a form's password may follow in the next segment
	}
	if r.Credentials == "" {
		r.Harmless, r.Reason = harmlessHTTP(r, head)
	}
	return final
}

// homeKit knows the paths by which a HomeKit controller and an accessory agree on
// keys (HAP over IP).
func homeKit(path string, head []byte) bool {
	switch path {
	case "POST /pair-setup", "POST /pair-verify", "POST /pair-pin-start", "POST /pairings":
		return containsFold(head, "PAIRING+TLV8")
	}
	return false
}

// pairing judges a HomeKit talk: keys are agreed on in clear, as in TLS, and then
// frames follow: two bytes of length, so much ciphertext, sixteen of a tag.
func pairing(r *Result, up []byte) state {
	r.App = "homekit"
	r.harmless("HomeKit: agrees on keys in clear, as it must")
	for startsRequest(up) == yes {
		head, rest, whole := cutHead(up)
		if !whole {
			return yes
		}
		up = rest[min(contentLength(head), len(rest)):]
	}
	if len(up) < 2 {
		return yes
	}
	n := int(up[0]) | int(up[1])<<8
	if n == 0 || n > 1024 || len(up) < 2+n+16 {
		return yes
	}
	if sealed := up[2 : 2+n+16]; len(sealed) >= 128 && judge(sealed) == looksRandom {
		r.Harmless = false
		r.encrypted("HomeKit: keys were agreed on, then encrypted frames followed")
		return final
	}
	return yes
}

// control follows what a UPnP control point says: the request for a port may stand
// behind others, and its body in a segment of its own.
func control(r *Result, up []byte) state {
	for n := 0; n < 8 && startsRequest(up) == yes; n++ {
		head, rest, whole := cutHead(up)
		size := contentLength(head)
		if !whole || len(rest) < size {
			return yes
		}
		if r.PortMap = upnpMap(soapAction(head), rest[:size]); r.PortMap != nil {
			r.readable("UPnP without TLS: asks the router to open a port to the outside")
			return final
		}
		up = rest[size:]
	}
	return yes
}

// onlyAnswer knows HTTP by its answer when the request was not captured.
func onlyAnswer(v *view, r *Result) state {
	if http2Settings(v.up) || http2Settings(v.down) {
		r.readable("HTTP/2 without TLS: its first words were not seen")
		return yes
	}
	if !isStatusLine(v.up) && !isStatusLine(v.down) {
		return no
	}
	r.readable("HTTP without TLS: an answer was seen, its request was not")
	return yes
}

func isStatusLine(b []byte) bool {
	return len(b) >= 12 && (string(b[:9]) == "HTTP/1.1 " || string(b[:9]) == "HTTP/1.0 ") && isDigit(b[9]) && isDigit(b[10]) && isDigit(b[11])
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func hasPrefixSoFar(b []byte, want string) bool {
	return len(b) >= 14 && bytes.HasPrefix(b, []byte(want[:min(len(want), len(b))]))
}

// startsRequest reports whether b begins with an HTTP/1 request line: a known or
// plausible method, a target, and HTTP/1.x when the line's end is there.
func startsRequest(b []byte) state {
	method, rest, ok := bytes.Cut(b[:min(len(b), 32)], []byte(" "))
	if len(method) == 0 || len(method) > 20 {
		return no
	}
	for _, c := range method {
		if (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return no
		}
	}
	if !ok {
		return maybe
	}
	if len(rest) == 0 {
		return maybe
	}
	known := httpMethod(method)
	line, _, end := bytes.Cut(b[:min(len(b), maxHead)], []byte("\n"))
	if end {
		line = bytes.TrimSuffix(line, []byte("\r"))
		if i := bytes.LastIndexByte(line, ' '); i > 0 && bytes.HasPrefix(line[i+1:], []byte("HTTP/1.")) {
			return yes
		}
		return no
	}
	if !known {
		return maybe
	}
	// The line goes on in the next segment; its target must look like one.
	if c := rest[0]; c == '/' || c == '*' || bytes.HasPrefix(rest, []byte("http")) || string(method) == "CONNECT" {
		return yes
	}
	return no
}

func httpMethod(m []byte) bool {
	switch string(m) {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
		"PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH",
		"SUBSCRIBE", "UNSUBSCRIBE", "NOTIFY", "M-SEARCH", "SOURCE":
		return true
	}
	return false
}

// cutHead cuts the request's head off its body.
func cutHead(b []byte) (head, body []byte, complete bool) {
	if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
		return b[:i+2], b[i+4:], true
	}
	if i := bytes.Index(b, []byte("\n\n")); i >= 0 {
		return b[:i+1], b[i+2:], true
	}
	return b[:min(len(b), maxHead)], nil, false
}

// readRequest fills in what the first request says.
func readRequest(r *Result, head, body []byte) {
	line, fields, _ := bytes.Cut(head, []byte("\n"))
	method, target, _ := bytes.Cut(line, []byte(" "))
	if i := bytes.LastIndexByte(target, ' '); i >= 0 {
		target = target[:i]
	}
	r.Path = string(method) + " " + pathClass(target)
	var ids idScan
	ids.scan(target)
	if host := absoluteHost(target); host != "" {
		r.name(host, "host")
	}
	eachField(fields, func(name, value []byte) {
		switch {
		case equalFold(name, "host"):
			if r.ServerName == "" { // the target's own authority wins (RFC 9112 §3.2.2)
				r.name(hostHeader(value), "host")
			}
		case equalFold(name, "authorization"), equalFold(name, "proxy-authorization"):
			r.authorization("http", method, value)
		case equalFold(name, "upgrade") && bytes.EqualFold(bytes.TrimSpace(value), []byte("websocket")):
			r.Reason = whyWebSocket
		case len(name) > 2 && name[0]|0x20 == 'x' && name[1] == '-', equalFold(name, "cookie"), equalFold(name, "referer"), equalFold(name, "from"):
			ids.header(name, value)
		}
	})
	if len(body) > 0 {
		ids.scan(body)
	}
	ids.into(r)
	if r.Credentials == "" && hueKey(target) {
		r.Credentials = "hue-key"
	}
	if _, query, ok := bytes.Cut(target, []byte("?")); ok && r.Credentials == "" {
		if user, password, ok := formLogin(query); ok {
			r.credential("http-query", user, password)
		}
	}
	if r.Credentials == "" && len(body) > 0 && formBody(head) {
		if user, password, ok := formLogin(body); ok {
			r.credential("http-form", user, password)
		}
	}
}

// eachField calls f with each whole header line.
func eachField(fields []byte, f func(name, value []byte)) {
	for len(fields) > 0 {
		line, rest, whole := bytes.Cut(fields, []byte("\n"))
		if !whole {
			return
		}
		fields = rest
		if name, value, ok := bytes.Cut(line, []byte(":")); ok {
			f(name, bytes.TrimSpace(value))
		}
	}
}

func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i := range b {
		c := b[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// absoluteHost is the host of an absolute-form target (RFC 9112 §3.2.2).
func absoluteHost(target []byte) string {
	scheme, rest, ok := bytes.Cut(target, []byte("://"))
	if !ok || len(scheme) > 5 || !bytes.EqualFold(scheme, []byte("http")) && !bytes.EqualFold(scheme, []byte("https")) {
		return ""
	}
	if i := bytes.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	if i := bytes.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	return hostHeader(rest)
}

// pathClass is at most the first two segments of the target's path, without its
// query: enough to know an API by, too little to know a person by.
func pathClass(target []byte) string {
	if i := bytes.Index(target, []byte("://")); i >= 0 && i <= 5 {
		target = target[i+3:]
		if j := bytes.IndexByte(target, '/'); j >= 0 {
			target = target[j:]
		} else {
			return "/"
		}
	}
	if len(target) == 0 || target[0] != '/' {
		return "*" // asterisk and authority form name no path
	}
	if i := bytes.IndexAny(target, "?#;"); i >= 0 {
		target = target[:i]
	}
	for i, c := range target {
		if c <= ' ' || c > '~' {
			target = target[:i]
			break
		}
	}
	first, rest, more := bytes.Cut(target[1:], []byte("/"))
	second, _, _ := bytes.Cut(rest, []byte("/"))
	if telling(first) || telling(second) { // who, not what
		return "/*"
	}
	end := 1 + len(first)
	if more {
		end += 1 + len(second)
	}
	return string(target[:min(end, 64)])
}

func formBody(head []byte) bool {
	found := false
	_, fields, _ := bytes.Cut(head, []byte("\n"))
	eachField(fields, func(name, value []byte) {
		if equalFold(name, "content-type") && len(value) >= 33 && equalFold(value[:33], "application/x-www-form-urlencoded") {
			found = true
		}
	})
	return found
}

// textBody reports whether a body follows that could be read.
func textBody(head []byte) bool {
	found := false
	_, fields, _ := bytes.Cut(head, []byte("\n"))
	eachField(fields, func(name, value []byte) {
		if equalFold(name, "content-type") {
			found = containsFold(value, "FORM-URLENCODED") || containsFold(value, "JSON")
		}
	})
	return found
}

// bodyMissing reports whether the announced body is not all there.
func bodyMissing(head, body []byte) bool { return len(body) < contentLength(head) }

// contentLength is the announced size of the body, or 0.
func contentLength(head []byte) int {
	want := 0
	_, fields, _ := bytes.Cut(head, []byte("\n"))
	eachField(fields, func(name, value []byte) {
		if equalFold(name, "content-length") {
			for _, c := range value {
				if isDigit(c) && want < 1<<20 {
					want = want*10 + int(c-'0')
				}
			}
		}
	})
	return want
}

// harmlessHTTP knows requests that have to be clear and say little: whether a
// certificate was revoked, whether there is an internet.
func harmlessHTTP(r *Result, head []byte) (bool, string) {
	if why := harmlessHost(r.ServerName, pathOf(r.Path)); why != "" {
		return true, why
	}
	line, fields, _ := bytes.Cut(head, []byte("\n"))
	_, target, _ := bytes.Cut(line, []byte(" "))
	target, _, _ = bytes.Cut(target, []byte(" "))
	revocation := bytes.HasPrefix(line, []byte("GET ")) && bytes.HasSuffix(target, []byte(".crl"))
	eachField(fields, func(name, value []byte) {
		revocation = revocation || equalFold(name, "content-type") && equalFold(value, "application/ocsp-request")
	})
	if revocation {
		return true, whyRevocation
	}
	return false, r.Reason
}

func pathOf(p string) string {
	for i := range len(p) {
		if p[i] == ' ' {
			return p[i+1:]
		}
	}
	return p
}
