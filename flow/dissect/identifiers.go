package dissect

import "bytes"

// Kinds of identifiers, as indices of the counts.
const (
	idMAC = iota
	idIMEI
	idSerial
	idEmail
	idLocation
	idAdvertising
	idDevice
	idKinds
)

var idNames = [idKinds]string{"mac", "imei", "serial", "e-mail", "location", "advertising-id", "device-id"}

// maxScan bounds how much of a message identifiers are looked for in.
const maxScan = 4 << 10

// idScan counts identifiers in readable bytes: what has an unmistakable form (a
// MAC address with its colons, an e-mail address) anywhere, what is but a number
// only where the name beside it says so.
type idScan struct {
	counts   [idKinds]uint8
	lat, lon bool
}

// isWord are the bytes that values and names are made of: letters, digits and -.:@%+_
var isWord = func() (t [256]bool) {
	for c := range t {
		b := byte(c)
		t[c] = isNameByte(b) || b == ':' || b == '@' || b == '%' || b == '+'
	}
	return t
}()

// scan looks through words and what stands before them: key=value, "key": "value",
// Key: value, <key>value.
func (s *idScan) scan(b []byte) {
	b = b[:min(len(b), maxScan)]
	var key []byte
	keyEnd := 0
	for i := 0; i < len(b); {
		if !isWord[b[i]] {
			i++
			continue
		}
		start := i
		for i < len(b) && isWord[b[i]] {
			i++
		}
		from, to := start, i
		for from < to && (b[from] == ':' || b[from] == '.') {
			from++
		}
		for from < to && (b[to-1] == ':' || b[to-1] == '.') {
			to--
		}
		if from == to {
			continue
		}
		if !assigns(b[keyEnd:from]) {
			key = nil
		}
		s.pair(key, b[from:to])
		key, keyEnd = b[from:to], to
	}
}

// header looks through one header line.
func (s *idScan) header(name, value []byte) {
	if len(value) <= 128 && bytes.IndexByte(value, '=') < 0 {
		s.pair(name, value)
		return
	}
	s.scan(value)
}

// assigns reports whether what stands between two words makes the first the name of the second.
func assigns(between []byte) bool {
	if len(between) > 6 {
		return false
	}
	yes := false
	for _, c := range between {
		switch c {
		case '=', ':', '>':
			yes = true
		case '"', '\'', ' ', '\t':
		default:
			return false
		}
	}
	return yes
}

func (s *idScan) pair(key, value []byte) {
	if len(value) > 128 {
		return
	}
	var plain [128]byte
	if bytes.IndexByte(value, '%') >= 0 {
		value = unescape(value, &plain)
	}
	switch {
	case len(value) >= 17 && holdsMAC(value):
		s.note(idMAC)
		return
	case isEmail(value):
		s.note(idEmail)
		return
	case len(key) == 0:
		return
	}
	var lower [16]byte
	switch k := plainKey(key, &lower); string(k) {
	case "mac", "macaddr", "macaddress", "wifimac", "ethmac", "devmac", "devicemac", "hwaddr", "bssid", "blemac", "macid":
		if len(value) == 12 && isHex(value) && !isOneByte(value) {
			s.note(idMAC)
		}
	case "imei", "imei1", "imei2", "deviceimei":
		if isIMEI(value) {
			s.note(idIMEI)
		}
	case "serial", "serialno", "serialnum", "serialnumber", "sn", "devicesn", "deviceserial", "xserialnumber":
		if len(value) >= 5 && bytes.ContainsAny(value, "0123456789") {
			s.note(idSerial)
		}
	case "idfa", "gaid", "aaid", "adid", "advertisingid", "advertiserid", "ifa", "rdid", "googleadid", "tifa", "lgudid", "adverid":
		if isUUID(value) {
			s.note(idAdvertising)
		}
	case "uuid", "udid", "deviceid", "devid", "duid", "androidid", "clientid", "installid", "installationid", "openudid", "xdeviceid":
		if isUUID(value) || len(value) >= 12 && isHex(value) && !isOneByte(value) {
			s.note(idDevice)
		}
	case "lat", "latitude", "gpslat":
		s.lat = s.lat || isDegree(value)
	case "lon", "lng", "long", "longitude", "gpslon", "gpslng":
		s.lon = s.lon || isDegree(value)
	case "ll", "latlng", "latlon", "geo": // the other half follows behind a comma
		s.lat = s.lat || isDegree(value)
		s.lon = s.lat
	}
	if s.lat && s.lon {
		s.note(idLocation)
		s.lat, s.lon = false, false
	}
}

func (s *idScan) note(kind int) {
	if s.counts[kind] < 255 {
		s.counts[kind]++
	}
}

// into adds what was counted to r.
func (s *idScan) into(r *Result) {
	if s.counts == ([idKinds]uint8{}) {
		return
	}
	x := r.expose()
	for kind, n := range s.counts {
		if n > 0 {
			x.Identifiers = append(x.Identifiers, Identifier{idNames[kind], int(n)})
		}
	}
}

// unescape undoes percent-encoding (RFC 3986 §2.1) into buf.
func unescape(b []byte, buf *[128]byte) []byte {
	n := 0
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c == '%' && i+2 < len(b) && isHex(b[i+1:i+3]) {
			c = hexDigit(b[i+1])<<4 | hexDigit(b[i+2])
			i += 2
		}
		buf[n] = c
		n++
	}
	return buf[:n]
}

func hexDigit(c byte) byte {
	if isDigit(c) {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

func isHex(b []byte) bool {
	for _, c := range b {
		if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return len(b) > 0
}

// isOneByte reports zeros, broadcasts and the like, which identify nobody.
func isOneByte(b []byte) bool {
	for _, c := range b {
		if c != b[0] && c != ':' && c != '-' {
			return false
		}
	}
	return true
}

// holdsMAC looks for a MAC address within a word: cam-a4:cf:12:9b:77:e1.
func holdsMAC(b []byte) bool {
	if len(b) > 17 && bytes.Count(b, []byte(":")) < 5 && bytes.Count(b, []byte("-")) < 5 {
		return false
	}
	for ; len(b) >= 17; b = b[1:] {
		if isMAC(b[:17]) {
			return true
		}
	}
	return false
}

// isMAC knows six pairs of hex digits with one kind of mark between them.
func isMAC(b []byte) bool {
	if len(b) != 17 || b[2] != ':' && b[2] != '-' {
		return false
	}
	for i := 0; i < 17; i += 3 {
		if !isHex(b[i:i+2]) || i < 15 && b[i+2] != b[2] {
			return false
		}
	}
	return !isOneByte(b)
}

// isEmail knows local@host.tld.
func isEmail(b []byte) bool {
	at := bytes.IndexByte(b, '@')
	if at < 1 || at != bytes.LastIndexByte(b, '@') {
		return false
	}
	if bytes.IndexByte(b[:at], ':') >= 0 { // a login in a URL
		return false
	}
	host := b[at+1:]
	dot := bytes.LastIndexByte(host, '.')
	if dot < 1 || len(host)-dot < 3 || bytes.IndexByte(host, ':') >= 0 {
		return false
	}
	for _, c := range host[dot+1:] {
		if c|0x20 < 'a' || c|0x20 > 'z' {
			return false
		}
	}
	return true
}

// isIMEI knows fifteen digits whose last is right by Luhn's rule (3GPP TS 23.003 §B).
func isIMEI(b []byte) bool {
	if len(b) != 15 || isOneByte(b) {
		return false
	}
	sum := 0
	for i, c := range b {
		if !isDigit(c) {
			return false
		}
		d := int(c - '0')
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

// isUUID knows 8-4-4-4-12 hex digits; all zeros, which stands for "I will not say", is none.
func isUUID(b []byte) bool {
	if len(b) != 36 || isOneByte(b) {
		return false
	}
	for i, c := range b {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (c == '-') || !dash && !isHex(b[i:i+1]) {
			return false
		}
	}
	return true
}

// isDegree knows a number of degrees that tells a street: at least two decimals.
func isDegree(b []byte) bool {
	b = bytes.TrimLeft(b, "+-")
	whole, part, ok := bytes.Cut(b, []byte("."))
	if !ok || len(whole) < 1 || len(whole) > 3 || len(part) < 2 || len(part) > 18 {
		return false
	}
	for _, c := range b {
		if c != '.' && !isDigit(c) {
			return false
		}
	}
	return bytes.IndexByte(part, '.') < 0
}

// telling reports whether a segment of a path may identify somebody: with an
// address in it, or a long number.
func telling(segment []byte) bool {
	digits, hexes := 0, 0
	for _, c := range segment {
		switch {
		case c == '@' || c == '%' || c == ':' || c == '=':
			return true
		case isDigit(c):
			digits++
			hexes++
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			hexes++
		case c != '-':
			if hexes >= 12 && digits >= 3 {
				return true
			}
			digits, hexes = 0, 0
		}
		if digits >= 8 {
			return true
		}
	}
	return hexes >= 12 && digits >= 3
}
