package leases

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/netcurtain/netcurtain/devices"
)

// Lease is one address that a DHCP server gave to a device.
type Lease struct {
	MAC      devices.MAC // zero where the file does not tell (DHCPv6 with an opaque DUID)
	Addr     netip.Addr
	Hostname string    // "" when the client sent none
	Expires  time.Time // zero is never
}

// Bounds of a lease file. A house has tens of leases; a file beyond these is
// no lease file, or somebody in the house fills it.
const (
	maxLine   = 1024
	maxLeases = 4096
)

// LineError says which line of a lease file could not be read and why.
type LineError struct {
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

func (e *LineError) Unwrap() error { return e.Err }

// Parse reads the lease file of dnsmasq or of odhcpd and calls yield for each
// lease. Lines that are neither are skipped: bad is called for each, if it is
// not nil. It returns an error only when r fails or the file is larger than any
// house needs.
//
// dnsmasq writes "expiry MAC address hostname client-id"; below a "duid" line
// it is "expiry IAID address hostname DUID" (for DHCPv6). odhcpd writes
// "# interface DUID IAID hostname expiry assigned length address/prefix …",
// with "ipv4" for the IAID and the bare MAC for the DUID where DHCPv4 was used.
func Parse(r io.Reader, yield func(Lease), bad func(*LineError)) error {
	if bad == nil {
		bad = func(*LineError) {}
	}
	lines := bufio.NewReaderSize(r, maxLine)
	n, leases := 0, 0
	for {
		raw, err := lines.ReadSlice('\n')
		if len(raw) > 0 {
			n++
		}
		line := bytes.TrimSpace(raw)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			bad(&LineError{n, fmt.Errorf("longer than %d octets", maxLine)})
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = lines.ReadSlice('\n')
			}
		case len(line) > 0:
			found, perr := parseLine(string(line))
			if perr != nil {
				bad(&LineError{n, perr})
			}
			for _, l := range found {
				if leases++; leases > maxLeases {
					return fmt.Errorf("line %d: more than %d leases", n, maxLeases)
				}
				yield(l)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading leases: %w", err)
		}
	}
}

// parseLine reads one line of either format. A line may hold no lease at all.
func parseLine(line string) ([]Lease, error) {
	f := strings.Fields(line)
	switch {
	case f[0] == "duid":
		return nil, nil // the server's own identity
	case f[0] == "#":
		return odhcpd(f[1:])
	case strings.HasPrefix(f[0], "#"):
		return nil, nil
	}
	l, err := dnsmasq(f)
	if err != nil {
		return nil, err
	}
	return []Lease{l}, nil
}

func dnsmasq(f []string) (Lease, error) {
	if len(f) < 4 {
		return Lease{}, fmt.Errorf("%d fields, dnsmasq writes 5: expiry, MAC, address, hostname, client id", len(f))
	}
	expires, err := expiry(f[0])
	if err != nil {
		return Lease{}, err
	}
	l := Lease{Hostname: hostname(f[3]), Expires: expires}
	if l.Addr, err = netip.ParseAddr(f[2]); err != nil {
		return Lease{}, fmt.Errorf("address %.45q is none", f[2])
	}
	if l.Addr.Is4() {
		// dnsmasq writes the hardware type in front when it is not Ethernet's.
		_, mac, typed := strings.Cut(f[1], "-")
		if !typed {
			mac = f[1]
		}
		if l.MAC, err = devices.ParseMAC(mac); err != nil {
			return Lease{}, err
		}
		return l, nil
	}
	if len(f) > 4 {
		l.MAC = macFromDUID(strings.ReplaceAll(f[4], ":", ""))
	}
	return l, nil
}

func odhcpd(f []string) ([]Lease, error) {
	if len(f) < 7 {
		return nil, fmt.Errorf("%d fields after #, odhcpd writes at least 7: interface, DUID, IAID, hostname, expiry, assigned, length", len(f))
	}
	l := Lease{Hostname: hostname(f[3])}
	if f[2] == "ipv4" {
		hw, err := hex.DecodeString(f[1])
		if err != nil || len(hw) != 6 {
			return nil, fmt.Errorf("hardware address %.40q: twelve hexadecimal digits are needed", f[1])
		}
		l.MAC = devices.MAC(hw)
	} else {
		l.MAC = macFromDUID(f[1])
	}
	seconds, err := strconv.ParseInt(f[4], 10, 64)
	switch {
	case err != nil:
		return nil, fmt.Errorf("expiry %.20q: seconds since 1970 are needed", f[4])
	case seconds > 0:
		l.Expires = time.Unix(seconds, 0)
	}
	var out []Lease
	for _, field := range f[7:] {
		p, err := netip.ParsePrefix(field)
		if err != nil {
			return out, fmt.Errorf("address %.50q: address/length is needed", field)
		}
		// A delegated prefix is no device's address.
		if p.Addr().Is6() && p.Bits() != 128 {
			continue
		}
		l.Addr = p.Addr()
		out = append(out, l)
	}
	return out, nil
}

func expiry(s string) (time.Time, error) {
	seconds, err := strconv.ParseInt(s, 10, 64)
	if err != nil || seconds < 0 {
		return time.Time{}, fmt.Errorf("expiry %.20q: seconds since 1970 are needed, 0 for never", s)
	}
	if seconds == 0 {
		return time.Time{}, nil
	}
	return time.Unix(seconds, 0), nil
}

// hostname is the name in a lease, where * and - stand for none.
func hostname(s string) string {
	if s == "*" || s == "-" {
		return ""
	}
	return s
}

// macFromDUID reads the Ethernet address inside a DUID-LLT (1) or DUID-LL (3)
// of RFC 8415 §11, given in hexadecimal. Other DUIDs hold none.
func macFromDUID(s string) devices.MAC {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) < 4 || b[2] != 0 || b[3] != 1 || b[0] != 0 {
		return devices.MAC{}
	}
	switch {
	case b[1] == 1 && len(b) == 14:
		return devices.MAC(b[8:14])
	case b[1] == 3 && len(b) == 10:
		return devices.MAC(b[4:10])
	}
	return devices.MAC{}
}
