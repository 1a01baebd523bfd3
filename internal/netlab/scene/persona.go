package scene

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/devices"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/internal/netlab"
)

// Persona is one device and what it does all day.
type Persona struct {
	Name   string // of the namespace: "tv"
	Host   string // what it tells the DHCP server
	MAC    net.HardwareAddr
	Number int              // last octet of its address
	Mode   devices.Mode     // ModeUnset leaves the house's default
	Log    devices.LogLevel // only if LogSet
	LogSet bool
	Kind   devices.Kind
	Guest  bool // it is in the guests' network
	Acts   []Act
}

// Plan is the device to build for p.
func (p Persona) Plan() netlab.DevicePlan {
	return netlab.DevicePlan{Name: p.Name, Number: p.Number, MAC: p.MAC, Guest: p.Guest}
}

// Act is one thing a device does again and again.
type Act struct {
	Every                 time.Duration
	Verb                  string // lookup, http, https, h2, quic, mqtt, ntp
	Host                  dnsname.Name
	Path                  string     // http, https
	Via                   netip.Addr // lookup: a hard-coded resolver instead of the router
	Up                    int        // bytes of body to send
	Down                  int        // bytes of body to ask for
	TLS12                 bool
	Direct                bool   // its address is built in: nothing is looked up
	Hello                 int    // https: pad the ClientHello to at least so many bytes
	User, Password, Topic string // mqtt
	Line                  int
}

var verbs = []string{"lookup", "http", "https", "h2", "quic", "mqtt", "ntp"}

// Parse reads a persona. One thing a line; # begins a comment:
//
//	device  living-room-tv          what it calls itself to the DHCP server
//	mac     a8:23:fe:00:00:10
//	address 10                      last octet of its address, 10 to 250
//	kind    tv                      what it is, as the household said
//	mode    guard                   off, watch, protect, guard, local
//	log     counts                  names, counts, none
//	network guest                   lan, guest
//	every 6s  lookup ads.example.com via 8.8.8.8
//	every 9s  http   api.example.com/v1/hello?id=7 up 300 down 4k
//	every 9s  https  api.example.com up 2k down 40k tls1.2
//	every 9s  http   api.example.com direct
//	every 9s  https  api.example.com hello 1700
//	every 9s  h2     api.example.com down 4k
//	every 9s  quic   video.example.com down 100k
//	every 9s  mqtt   mqtt.example.com user plug password secret topic state
//	every 60s ntp    time.example.com
//
// name names the namespace and stands in errors.
func Parse(r io.Reader, name string) (Persona, error) {
	p := Persona{Name: name}
	sc := bufio.NewScanner(r)
	for line := 1; sc.Scan(); line++ {
		text, _, _ := strings.Cut(sc.Text(), "#")
		words := strings.Fields(text)
		if len(words) == 0 {
			continue
		}
		if err := p.read(words, line); err != nil {
			return p, fmt.Errorf("%s:%d: %w", name, line, err)
		}
	}
	if err := sc.Err(); err != nil {
		return p, fmt.Errorf("reading %s: %w", name, err)
	}
	if p.Host == "" || p.MAC == nil || p.Number == 0 {
		return p, fmt.Errorf("%s: a persona needs at least device, mac and address", name)
	}
	return p, nil
}

func (p *Persona) read(words []string, line int) (err error) {
	if words[0] == "every" {
		a, err := parseAct(words[1:])
		a.Line = line
		p.Acts = append(p.Acts, a)
		return err
	}
	if len(words) != 2 {
		return fmt.Errorf("%s needs one value", words[0])
	}
	switch v := words[1]; words[0] {
	case "device":
		p.Host = v
	case "mac":
		p.MAC, err = net.ParseMAC(v)
	case "address":
		if p.Number, err = strconv.Atoi(v); err != nil || p.Number < 10 || p.Number > 250 {
			return fmt.Errorf("address %q: a number from 10 to 250 is needed", v)
		}
	case "kind":
		p.Kind = devices.Kind(v)
	case "mode":
		p.Mode, err = devices.ParseMode(v)
	case "log":
		p.LogSet = true
		p.Log, err = devices.ParseLogLevel(v)
	case "network":
		if p.Guest = v == "guest"; !p.Guest && v != "lan" {
			return fmt.Errorf("network %q: lan or guest is needed", v)
		}
	default:
		return fmt.Errorf("%q is not known: device, mac, address, kind, mode, log, network or every is needed", words[0])
	}
	return err
}

// ParseAct reads what stands behind "every 6s" in a persona.
func ParseAct(words ...string) (Act, error) { return parseAct(append([]string{"1s"}, words...)) }

func parseAct(words []string) (a Act, err error) {
	if len(words) < 3 {
		return a, fmt.Errorf("every needs a time, a verb and a host: every 6s lookup example.com")
	}
	if a.Every, err = time.ParseDuration(words[0]); err != nil || a.Every < 100*time.Millisecond {
		return a, fmt.Errorf("every %q: a time of at least 100ms is needed", words[0])
	}
	a.Verb = words[1]
	if !slices.Contains(verbs, a.Verb) {
		return a, fmt.Errorf("%q is not known: one of %s is needed", a.Verb, strings.Join(verbs, ", "))
	}
	host, path, _ := strings.Cut(words[2], "/")
	a.Path = "/" + path
	if a.Host, err = dnsname.Parse(host); err != nil {
		return a, err
	}
	for rest := words[3:]; len(rest) > 0; {
		if rest[0] == "tls1.2" || rest[0] == "direct" {
			a.TLS12 = a.TLS12 || rest[0] == "tls1.2"
			a.Direct = a.Direct || rest[0] == "direct"
			rest = rest[1:]
			continue
		}
		if len(rest) < 2 {
			return a, fmt.Errorf("%s needs a value", rest[0])
		}
		switch k, v := rest[0], rest[1]; k {
		case "via":
			a.Via, err = netip.ParseAddr(v)
		case "up":
			a.Up, err = size(v)
		case "down":
			a.Down, err = size(v)
		case "hello":
			a.Hello, err = size(v)
		case "user":
			a.User = v
		case "password":
			a.Password = v
		case "topic":
			a.Topic = v
		default:
			err = fmt.Errorf("%q is not known: via, up, down, tls1.2, direct, hello, user, password or topic is needed", k)
		}
		if err != nil {
			return a, err
		}
		rest = rest[2:]
	}
	return a, nil
}

// size reads "300" or "40k", at most 10 MB.
func size(s string) (int, error) {
	digits, k := strings.CutSuffix(s, "k")
	n, err := strconv.Atoi(digits)
	if k {
		n *= 1000
	}
	if err != nil || n < 0 || n > 10e6 {
		return 0, fmt.Errorf("size %q: bytes such as 300 or 40k are needed", s)
	}
	return n, nil
}
