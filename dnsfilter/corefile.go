package dnsfilter

import (
	"fmt"
	"strings"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// corefile renders what CoreDNS reads. Every word of it is a number, an address
// or a checked name, so that nothing can break out of its place.
//
// There is a block for each group of upstreams: the house's own resolver, and
// the world's. All keys of a block, one for each zone and port, share its one
// cache and forwarder.
func corefile(cfg Config, key string) (string, error) {
	var bind strings.Builder
	for _, a := range cfg.Listen {
		if !a.IsValid() || !plain(a.Zone()) {
			return "", fmt.Errorf("listening at %q: an address is needed", a)
		}
		fmt.Fprintf(&bind, " %s", a)
	}
	var b strings.Builder
	block := func(zones []dnsname.Name, cache string, upstreams ...Upstream) error {
		for _, z := range zones {
			if !plain(string(z)) {
				return fmt.Errorf("local zone %.80q: a name such as lan is needed", z)
			}
			fmt.Fprintf(&b, "%s.:%d ", z, cfg.Port)
			if cfg.RedirectPort != 0 {
				fmt.Fprintf(&b, "%s.:%d ", z, cfg.RedirectPort)
			}
		}
		fmt.Fprintf(&b, "{\n\tbind%s\n\terrors\n\tdnsfilter %s\n%s\tforward .", bind.String(), key, cache)
		for _, u := range upstreams {
			// CoreDNS writes the certificate's name behind a percent sign.
			fmt.Fprintf(&b, " %s", strings.Replace(u.String(), "#", "%", 1))
		}
		// Not random, so that what the household put first is asked first; bounded,
		// so that a dead uplink cannot fill the memory with waiting questions.
		b.WriteString(" {\n\t\tpolicy sequential\n\t\tmax_concurrent 1000\n\t}\n}\n")
		return nil
	}
	// Failures are kept for a second only: a house whose uplink is back must not wait.
	cache := fmt.Sprintf("\tcache 3600 {\n\t\tsuccess %d 3600\n\t\tdenial %d 600\n\t\tservfail 1s\n\t}\n\twaiting\n",
		cfg.CacheSize, max(cfg.CacheSize/4, 256))
	if err := block([]dnsname.Name{""}, cache, cfg.Upstreams...); err != nil {
		return "", err
	}
	if cfg.LocalResolver.IsValid() {
		for _, z := range cfg.LocalZones {
			if z == "" {
				return "", fmt.Errorf("a local zone is empty: a name such as lan is needed")
			}
		}
		z := newZones(cfg.LocalZones)
		// Not cached: a device that has just joined must be found at once.
		if err := block(append(z.local, z.private...), "", Upstream{Addr: cfg.LocalResolver}); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}
