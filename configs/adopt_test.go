package configs_test

import (
	"testing"
	"time"

	"github.com/netcurtain/netcurtain/configs"
	"github.com/netcurtain/netcurtain/internal/dnsname"
	"github.com/netcurtain/netcurtain/policy"
)

// A reload takes over what a running daemon can, and leaves what it cannot as it
// runs: a rule in the kernel for a port on which nobody listens would be worse
// than an old setting.
func TestAdopt(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*configs.Settings)
		restart bool
		adopted bool
	}{
		"nothing":       {func(*configs.Settings) {}, false, false},
		"lists":         {func(s *configs.Settings) { s.Lists = []configs.List{{Name: "ads", File: "ads.txt"}} }, false, true},
		"rebinding":     {func(s *configs.Settings) { s.DNS.Rebinding = []dnsname.Name{"plex.direct"} }, false, true},
		"intercept":     {func(s *configs.Settings) { s.DNS.Intercept = false }, false, true},
		"proxy ports":   {func(s *configs.Settings) { s.Proxy.Ports = []uint16{8443} }, false, true},
		"unread names":  {func(s *configs.Settings) { s.Proxy.Hellos[policy.HelloHidden] = policy.HelloRefuse }, false, true},
		"dns port":      {func(s *configs.Settings) { s.DNS.Port = 5400 }, true, false},
		"interfaces":    {func(s *configs.Settings) { s.House.LAN = []string{"br-guest"} }, true, false},
		"marks":         {func(s *configs.Settings) { s.House.MarkOurs = 1 << 30 }, true, false},
		"no proxy":      {func(s *configs.Settings) { s.Proxy.Enabled = false }, true, false},
		"store age":     {func(s *configs.Settings) { s.Store.Age = time.Hour }, true, false},
		"block answer":  {func(s *configs.Settings) { s.DNS.BlockAnswer = "refused" }, true, false},
		"name of house": {func(s *configs.Settings) { s.House.Name = "ours" }, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			old, next := configs.Defaults(), configs.Defaults()
			tc.change(&next)
			got, restart := old.Adopt(next)
			if restart != tc.restart {
				t.Errorf("restart %v, want %v", restart, tc.restart)
			}
			if _, differs := got.Adopt(old); differs {
				t.Error("what a restart is needed for has changed")
			}
			if _, rest := got.Adopt(next); rest != tc.restart {
				t.Error("what was taken over is not what the file says")
			}
			if changed := len(got.Lists) > 0 || len(got.DNS.Rebinding) > 0 || !got.DNS.Intercept ||
				len(got.Proxy.Ports) > 0 || got.Proxy.Hellos != old.Proxy.Hellos; changed != tc.adopted {
				t.Errorf("taken over: %v, want %v", changed, tc.adopted)
			}
		})
	}
}
