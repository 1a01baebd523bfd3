package dnsfilter

import (
	"fmt"
	"strings"

	"github.com/netcurtain/netcurtain/internal/dnsname"
)

// corefile renders what CoreDNS reads. Every word of it is a number, an address
// or a checked name, so that nothing can break out of its place. One block with
// both ports as keys makes CoreDNS share one cache and one forwarder between them.
func corefile(cfg Config, key string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, ".:%d", cfg.Port)
	if cfg.RedirectPort != 0 {
		fmt.Fprintf(&b, " .:%d", cfg.RedirectPort)
	}
	b.WriteString(" {\n\tbind")
	for _, a := range cfg.Listen {
		if !a.IsValid() || !plain(a.Zone()) {
			return "", fmt.Errorf("listening at %q: an address is needed", a)
		}
		fmt.Fprintf(&b, " %s", a)
	}
	fmt.Fprintf(&b, "\n\terrors\n\tdnsfilter %s\n", key)
	// Failures are kept for a second only: a house whose uplink is back must not wait.
	fmt.Fprintf(&b, "\tcache 3600 {\n\t\tsuccess %d 3600\n\t\tdenial %d 600\n\t\tservfail 1s\n\t}\n",
		cfg.CacheSize, max(cfg.CacheSize/4, 256))
	if cfg.LocalResolver.IsValid() {
		z := newZones(cfg.LocalZones)
		for _, zone := range append(z.local, z.private...) {
			if zone == "" || !plain(string(zone)) {
				return "", fmt.Errorf("local zone %.80q: a name such as lan is needed", zone)
			}
			forward(&b, zone, Upstream{Addr: cfg.LocalResolver})
		}
	}
	forward(&b, "", cfg.Upstreams...)
	b.WriteString("}\n")
	return b.String(), nil
}

func forward(b *strings.Builder, zone dnsname.Name, to ...Upstream) {
	fmt.Fprintf(b, "\tforward %s.", zone)
	for _, u := range to {
		// CoreDNS writes the certificate's name behind a percent sign.
		fmt.Fprintf(b, " %s", strings.Replace(u.String(), "#", "%", 1))
	}
	// Not random, so that what the household put first is asked first; bounded,
	// so that a dead uplink cannot fill the memory with waiting questions.
	b.WriteString(" {\n\t\tpolicy sequential\n\t\tmax_concurrent 1000\n\t}\n")
}
