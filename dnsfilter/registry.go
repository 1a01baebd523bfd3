package dnsfilter

import (
	"fmt"
	"strconv"
	"sync"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	_ "github.com/coredns/coredns/plugin/bind"    // directives that the
	_ "github.com/coredns/coredns/plugin/cache"   // Corefile uses; these
	_ "github.com/coredns/coredns/plugin/errors"  // four and no more, for
	_ "github.com/coredns/coredns/plugin/forward" // size and for safety
)

// CoreDNS keeps its plugins, its directives and its quietness in variables of
// the process, and a plugin cannot be registered twice. This file is the fence
// around that: our plugin is registered once, and finds the Server it belongs
// to by its directive's argument.
var fence struct {
	once sync.Once
	sync.Mutex
	next    uint64
	servers map[string]*Server
}

// enter gives s a key for as long as it runs; leave takes it back.
func enter(s *Server) (key string, leave func()) {
	fence.once.Do(func() {
		dnsserver.Directives = []string{"bind", "errors", "dnsfilter", "cache", "waiting", "forward"}
		dnsserver.Quiet, caddy.Quiet = true, true
		plugin.Register("dnsfilter", setup)
		plugin.Register("waiting", func(c *caddy.Controller) error {
			dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler { return waiting{next} })
			return nil
		})
		// An instance that caddy did not start itself has no server type: its
		// directives are looked for among those of every type.
		for _, d := range dnsserver.Directives {
			if action, err := caddy.DirectiveAction("dns", d); err == nil {
				caddy.RegisterPlugin(d, caddy.Plugin{Action: action})
			}
		}
	})
	fence.Lock()
	defer fence.Unlock()
	if fence.servers == nil {
		fence.servers = map[string]*Server{}
	}
	fence.next++
	key = "house-" + strconv.FormatUint(fence.next, 10)
	fence.servers[key] = s
	return key, func() {
		fence.Lock()
		defer fence.Unlock()
		delete(fence.servers, key)
	}
}

func setup(c *caddy.Controller) error {
	var key string
	if !c.Next() || !c.Args(&key) || c.NextArg() {
		return plugin.Error("dnsfilter", c.ArgErr())
	}
	fence.Lock()
	s := fence.servers[key]
	fence.Unlock()
	if s == nil {
		return plugin.Error("dnsfilter", fmt.Errorf("no house has the key %.40q", key))
	}
	s.coredns = c.Context()
	block := dnsserver.GetConfig(c)
	block.AddPlugin(func(next plugin.Handler) plugin.Handler {
		f := &filter{Server: s, next: next}
		if block.Zone == "." {
			s.chains.world.handler = next
			s.world.Store(f)
		} else {
			s.chains.house.handler = next
		}
		return f
	})
	return nil
}

// assemble has CoreDNS build its servers as text says. It starts nothing and opens
// nothing: caddy.Start would open the sockets itself, and share them with whoever
// shares them, ourselves in a second process included.
func (s *Server) assemble(text string) (*caddy.Instance, []*dnsserver.Server, error) {
	inst := &caddy.Instance{Storage: map[any]any{}}
	in := caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(text), ServerTypeName: "dns"}
	if err := caddy.ValidateAndExecuteDirectives(in, inst, false); err != nil {
		return nil, nil, err
	}
	made, err := s.coredns.MakeServers()
	if err != nil {
		return nil, nil, err
	}
	var servers []*dnsserver.Server
	for _, m := range made {
		server, ok := m.(*dnsserver.Server)
		if !ok {
			return nil, nil, fmt.Errorf("a %T instead of a DNS server", m)
		}
		servers = append(servers, server)
	}
	return inst, servers, nil
}
