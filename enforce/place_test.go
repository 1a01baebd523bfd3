//go:build linux

package enforce

import (
	"strings"
	"testing"
)

func TestPosition(t *testing.T) {
	lan := []Segment{{"br-lan", true, true}}
	for why, c := range map[string]struct {
		s    Surroundings
		want Position
		text string
	}{
		"a router":                            {Surroundings{lan, true, true, []string{"wan"}}, PositionRouter, "can be seen and cut"},
		"an IPv4 router":                      {Surroundings{lan, true, false, []string{"wan"}}, PositionRouter, "IPv6 is not routed here"},
		"an IPv6 router":                      {Surroundings{lan, false, true, []string{"wan"}}, PositionRouter, "IPv4 is not routed here"},
		"two ways out":                        {Surroundings{lan, true, true, []string{"lte0", "wan"}}, PositionRouter, "behind br-lan send"},
		"a VPN beside the LAN's gateway":      {Surroundings{lan, true, true, []string{"br-lan", "wg0"}}, PositionRouter, "a router"},
		"an access point with a default way":  {Surroundings{lan, false, false, []string{"br-lan"}}, PositionBridge, "it routes nothing"},
		"an access point without one":         {Surroundings{lan, false, false, nil}, PositionBridge, "it routes nothing"},
		"a router whose way out is down":      {Surroundings{lan, true, true, nil}, PositionBridge, "no default route"},
		"a bridge without an address":         {Surroundings{[]Segment{{"br-lan", true, false}}, true, true, []string{"wan"}}, PositionBridge, "br-lan has no address"},
		"one-armed":                           {Surroundings{lan, true, true, []string{"br-lan"}}, PositionOneArmed, "on br-lan beside the router"},
		"a guest network that is not there":   {Surroundings{[]Segment{lan[0], {"br-guest", false, false}}, true, true, []string{"wan"}}, PositionRouter, "behind br-lan send"},
		"interfaces that are not there":       {Surroundings{[]Segment{{"lan9", false, false}}, true, true, []string{"wan"}}, PositionBridge, "are not there"},
		"two networks, one with the way out":  {Surroundings{[]Segment{lan[0], {"br-guest", true, true}}, true, true, []string{"br-lan"}}, PositionOneArmed, "br-lan and br-guest"},
		"a second network without an address": {Surroundings{[]Segment{lan[0], {"br-iot", true, false}}, true, true, []string{"wan"}}, PositionRouter, "br-lan and br-iot"},
	} {
		if got := c.s.Position(); got != c.want || !strings.Contains(c.s.String(), c.text) {
			t.Errorf("%s: %s, want %s with %q: %s", why, got, c.want, c.text, c.s)
		}
		if strings.Contains(c.s.String(), "\n") {
			t.Errorf("%s: more than a line", why)
		}
	}
}

// TestLook: the same machine in three places.
func TestLook(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for _, c := range []struct {
		change string
		want   Position
	}{
		{"true", PositionRouter},
		{"ip link del wan0; ip route add default via 192.168.77.254", PositionOneArmed},
		{"ip route del default", PositionBridge},
		{"ip route add default via 192.168.77.254; sysctl -q net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0", PositionBridge},
	} {
		l.sh(c.change)
		l.in(func() error {
			s, err := Look([]string{"br-lan", "br-guest"})
			if err == nil && s.Position() != c.want {
				t.Errorf("after %q: %s, want %s: %+v", c.change, s.Position(), c.want, s)
			}
			if p := s.Problems(); len(p) != 1 || !strings.Contains(p[0].String(), "br-guest is not there") {
				t.Errorf("problems: %v", p)
			}
			return err
		})
	}
}
